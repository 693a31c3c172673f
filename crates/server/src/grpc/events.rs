//! Events: what of the entries of a ledger a reader sees. Whoever shows events, lists, streams, exports or forwards them, asks here.

use std::sync::{Arc, OnceLock};

use keyledger_ledger::anomaly;
use keyledger_ledger::body::{
    ActorKind, Event, Kind, SealedColumn, Texts, UsePage, decode_canonical,
};
use keyledger_ledger::category::{self, ACCESS, LIFECYCLE, USE};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::{ReadUse, read_uses};
use keyledger_ledger::state::Owner;
use keyledger_ledger::terms::people_searched;
use keyledger_proto::parse::{EventFilter, OwnerName};
use keyledger_proto::{AuditEvent, OpenedTexts, RawEntry, show};

use super::call::{CallContext, open_all, open_texts};
use super::status::Failure;
use crate::replica::Replica;
use crate::sequencer::Ledger;
use crate::store::entries::FullEntry;

/// Whoever reads events.
pub(crate) enum Viewer<'a> {
    /// A caller sees the categories that its key may read.
    Caller(&'a CallContext),
    /// The server itself sees the categories that its operator has configured; none are named for all.
    Server { replica: &'a Replica, ledger: &'a Ledger, categories: &'a [String] },
}

impl Viewer<'_> {
    fn may_read(&self, category: &str) -> bool {
        match self {
            Viewer::Caller(call) => call.may_read(category),
            Viewer::Server { categories, .. } => {
                categories.is_empty() || categories.iter().any(|c| c == category)
            }
        }
    }

    fn place(&self) -> (&Replica, &Ledger) {
        match self {
            Viewer::Caller(call) => (&call.replica, &call.ledger),
            Viewer::Server { replica, ledger, .. } => (replica, ledger),
        }
    }

    async fn texts_of(&self, entry: &FullEntry, event: &Event) -> Result<Vec<Texts>, Failure> {
        let (replica, ledger) = self.place();
        let column: SealedColumn =
            decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
        open_texts(replica, ledger, &event.texts, &column.sealed).await
    }
}

/// Which events are meant. What of them a viewer may not read is left out.
#[derive(Clone, Default)]
pub(crate) struct Selection {
    /// Empty for all categories.
    pub(crate) category: String,
    /// About this key, or called by it.
    pub(crate) key_id: Option<KeyId>,
    /// What else must hold.
    pub(crate) filter: EventFilter,
    pub(crate) people: People,
}

/// References of the people who are asked for. Once found they stay; who isn't known yet is looked for again.
#[derive(Clone, Default)]
pub(crate) struct People {
    actor: Arc<OnceLock<[u8; 16]>>,
    owner: Arc<OnceLock<[u8; 16]>>,
}

/// Who is asked for, as the ledger knows them.
#[derive(Default)]
pub(super) struct Who {
    pub(super) actor: Option<ActorKind>,
    pub(super) owner: Option<Owner>,
}

impl Selection {
    /// Asking for a category that one may not read is refused. Whose a key is stands in that of changes.
    pub(super) fn check_for(&self, call: &CallContext) -> Result<(), Failure> {
        let owner = self.filter.owner.as_ref().map(|_| LIFECYCLE);
        let asked = (!self.category.is_empty()).then_some(self.category.as_str());
        match asked.into_iter().chain(owner).find(|category| !call.may_read(category)) {
            None => Ok(()),
            Some(category) => Err(call.denied(&format!("logs/{category}"))),
        }
    }

    /// Who is asked for. `None`: somebody whom the ledger doesn't know, so there is nothing to be found.
    pub(super) async fn who(&self, viewer: &Viewer<'_>) -> Result<Option<Who>, Failure> {
        let mut who = Who::default();
        if let Some(name) = self.filter.service() {
            who.actor = Some(ActorKind::Service(name.into()));
        }
        if let Some(name) = self.filter.person() {
            let Some(person) = find(viewer, &self.people.actor, name).await? else {
                return Ok(None);
            };
            who.actor = Some(ActorKind::UserRef(person.to_vec()));
        }
        who.owner = match &self.filter.owner {
            None => None,
            Some(OwnerName::Service(name)) => Some(Owner::Service(name.as_str().into())),
            Some(OwnerName::User(name)) => match find(viewer, &self.people.owner, name).await? {
                None => return Ok(None),
                Some(person) => Some(Owner::User(person)),
            },
        };
        Ok(Some(who))
    }

    /// Whether events of a category are meant, and may be read.
    pub(super) fn wants(&self, viewer: &Viewer<'_>, category: &str) -> bool {
        (self.category.is_empty() || self.category == category) && viewer.may_read(category)
    }

    /// Whether uses are meant, and some of them may be read.
    pub(super) fn wants_uses(&self, viewer: &Viewer<'_>) -> bool {
        self.wants(viewer, USE) || self.wants(viewer, ACCESS)
    }

    /// Whether only what has a category of its own can be meant: events of other services, or anomalies.
    pub(super) fn is_of_events(&self) -> bool {
        !matches!(self.category.as_str(), "" | LIFECYCLE | USE | ACCESS)
    }

    fn wants_use(&self, viewer: &Viewer<'_>, who: &Who, read: &ReadUse) -> bool {
        let u = &read.r#use;
        let asker = u.caller.as_ref().map(|c| c.key_id.as_slice());
        let keys = [Some(u.key_id.as_slice()), asker].map(|id| id.and_then(KeyId::from_slice));
        self.filter.may_match_use(u)
            && self.wants_keys(viewer, who, keys)
            && who.actor.as_ref().is_none_or(|actor| people_searched(u).any(|p| p == *actor))
    }

    fn wants_entry(
        &self,
        viewer: &Viewer<'_>,
        who: &Who,
        entry: &FullEntry,
        event: &Event,
    ) -> bool {
        let said = match &event.kind {
            Some(Kind::EventRecorded(recorded)) => recorded.actor.as_ref(),
            _ => None,
        };
        let said = said.and_then(|a| a.actor.as_ref());
        let unusual = || event.kind.as_ref().and_then(Kind::key_of_anomaly);
        let about = entry.columns.key_id.or_else(unusual);
        let owner = || event.kind.as_ref().and_then(anomaly::owner_of);
        let of_owner = self.key_id.is_none() && who.owner.is_some() && who.owner == owner();
        self.filter.may_match_entry(event)
            && (of_owner || self.wants_keys(viewer, who, [about, entry.columns.caller_key_id]))
            && who.actor.as_ref().is_none_or(|actor| said == Some(actor))
    }

    /// Whether the key that it is about, or the one that called, is one that is asked for.
    fn wants_keys(&self, viewer: &Viewer<'_>, who: &Who, keys: [Option<KeyId>; 2]) -> bool {
        let keys = || keys.into_iter().flatten();
        let owned = |owner: &Owner| {
            let head = viewer.place().1.snapshot();
            keys().any(|id| head.state.keys.get(&id).is_some_and(|key| key.owner == *owner))
        };
        self.key_id.is_none_or(|wanted| keys().any(|id| id == wanted))
            && who.owner.as_ref().is_none_or(owned)
    }
}

/// The reference of a person, if the ledger knows them.
async fn find(
    viewer: &Viewer<'_>,
    known: &OnceLock<[u8; 16]>,
    name: &str,
) -> Result<Option<[u8; 16]>, Failure> {
    if let Some(person) = known.get() {
        return Ok(Some(*person));
    }
    let (replica, ledger) = viewer.place();
    let found = replica.sealing.find_person(ledger.id, name).await?;
    Ok(found.map(|person| *known.get_or_init(|| person)))
}

/// The events of one entry that are meant and may be read, in order.
pub(crate) async fn events_of(
    viewer: &Viewer<'_>,
    entry: &FullEntry,
    s: &Selection,
) -> Result<Vec<AuditEvent>, Failure> {
    let (event, uses) = (decode(entry)?, OnceLock::new());
    events_of_decoded(viewer, &Decoded { entry, event: &event, uses: &uses }, s).await
}

/// The same of an entry that was decoded before.
pub(super) async fn events_of_decoded(
    viewer: &Viewer<'_>,
    decoded: &Decoded<'_>,
    s: &Selection,
) -> Result<Vec<AuditEvent>, Failure> {
    let Decoded { entry, event, .. } = decoded;
    let Some(who) = s.who(viewer).await? else { return Ok(vec![]) };
    let mut events = match &event.kind {
        Some(Kind::UsePage(page)) => uses_of(viewer, decoded, page, s, &who).await?,
        _ if !s.wants(viewer, category::of_entry(event)) => vec![],
        _ if !s.wants_entry(viewer, &who, entry, event) => vec![],
        _ => {
            let texts = viewer.texts_of(entry, event).await?;
            let leaf_hash = entry.entry.leaf_hash();
            vec![show::entry_event(entry.position, &leaf_hash, event, &texts)]
        }
    };
    events.retain(|event| s.filter.matches(event));
    Ok(events)
}

/// An entry with what is read out of its bytes.
pub(super) struct Decoded<'a> {
    pub(super) entry: &'a FullEntry,
    pub(super) event: &'a Event,
    /// The uses of its page, once somebody has asked for them.
    pub(super) uses: &'a OnceLock<Vec<ReadUse>>,
}

impl Decoded<'_> {
    fn uses(&self, page: &UsePage) -> Result<&[ReadUse], Failure> {
        if let Some(uses) = self.uses.get() {
            return Ok(uses);
        }
        let read = read_uses(page, &self.entry.uses).map_err(|_| damaged(self.entry.position))?;
        Ok(self.uses.get_or_init(|| read))
    }
}

async fn uses_of(
    viewer: &Viewer<'_>,
    decoded: &Decoded<'_>,
    page: &UsePage,
    s: &Selection,
    who: &Who,
) -> Result<Vec<AuditEvent>, Failure> {
    let (uses, accesses) = (s.wants(viewer, USE), s.wants(viewer, ACCESS));
    if !uses && !accesses || s.filter.excludes_uses() {
        return Ok(vec![]);
    }
    let (replica, ledger) = viewer.place();
    let Decoded { entry, event, .. } = decoded;
    let (leaf_hash, time) = (entry.entry.leaf_hash(), Time(event.time_us));
    let mut events = vec![];
    let all = decoded.uses(page)?.iter().enumerate();
    for (index, read) in all.filter(|(_, read)| s.wants_use(viewer, who, read)) {
        let is_access = category::of_use(page, &read.r#use) == ACCESS;
        if !(if is_access { accesses } else { uses }) {
            continue;
        }
        let texts = open_texts(replica, ledger, &read.r#use.texts, &read.sealed).await?;
        events.push(show::use_event(
            entry.position,
            index as u32,
            time,
            &leaf_hash,
            page,
            &read.r#use,
            &texts,
        ));
    }
    Ok(events)
}

/// An entry whole, with what offline verification needs.
pub(super) async fn raw_event(
    call: &CallContext,
    entry: &FullEntry,
) -> Result<AuditEvent, Failure> {
    let event = decode(entry)?;
    let leaf_hash = entry.entry.leaf_hash();
    let column: SealedColumn = decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
    let mut opened = open_all(&call.replica, &call.ledger, &event.texts, &column.sealed).await?;
    if let Some(Kind::UsePage(page)) = &event.kind {
        for read in read_uses(page, &entry.uses).map_err(|_| damaged(entry.position))? {
            opened.extend(
                open_all(&call.replica, &call.ledger, &read.r#use.texts, &read.sealed).await?,
            );
        }
    }
    let raw = RawEntry {
        payload_type: entry.entry.payload_type.clone(),
        body: entry.entry.body.clone(),
        public_key_sha256: entry.entry.public_key_sha256.to_vec(),
        signature: entry.entry.signature.to_vec(),
        uses: entry.uses.clone(),
        opened: opened
            .into_iter()
            .map(|o| {
                o.map_or(OpenedTexts::default(), |o| OpenedTexts {
                    salt: o.salt.to_vec(),
                    texts: o.texts,
                })
            })
            .collect(),
    };
    let category = match &event.kind {
        Some(Kind::UsePage(_)) => USE,
        _ => category::of_entry(&event),
    };
    let shown = show::entry_event(entry.position, &leaf_hash, &event, &[]);
    Ok(AuditEvent { raw: Some(raw), category: category.into(), ..shown })
}

fn decode(entry: &FullEntry) -> Result<Event, Failure> {
    Event::from_signed(&entry.entry.body).map_err(|_| damaged(entry.position))
}

pub(crate) fn damaged(position: u64) -> Failure {
    tracing::error!(position, "a stored entry can't be read: run `keyledger verify`");
    Failure::Internal("a stored entry can't be read")
}
