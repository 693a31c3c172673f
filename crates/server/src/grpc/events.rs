//! Events: what of the entries of a ledger a reader sees. Whoever shows events, lists, streams, exports or forwards them, asks here.

use std::sync::OnceLock;

use keyledger_ledger::body::{Event, Kind, SealedColumn, Texts, UsePage, decode_canonical};
use keyledger_ledger::category::{self, ACCESS, LIFECYCLE, USE};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::{ReadUse, read_uses};
use keyledger_proto::parse::EventFilter;
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
}

impl Selection {
    /// Asking for a category that one may not read is refused.
    pub(super) fn check_for(&self, call: &CallContext) -> Result<(), Failure> {
        match self.category.is_empty() || call.may_read(&self.category) {
            true => Ok(()),
            false => Err(call.denied(&format!("logs/{}", self.category))),
        }
    }

    /// Whether events of a category are meant, and may be read.
    pub(super) fn wants(&self, viewer: &Viewer<'_>, category: &str) -> bool {
        (self.category.is_empty() || self.category == category) && viewer.may_read(category)
    }

    /// Whether uses are meant, and some of them may be read.
    pub(super) fn wants_uses(&self, viewer: &Viewer<'_>) -> bool {
        self.wants(viewer, USE) || self.wants(viewer, ACCESS)
    }

    /// Whether only events of other services can be meant.
    pub(super) fn is_of_events(&self) -> bool {
        !matches!(self.category.as_str(), "" | LIFECYCLE | USE | ACCESS)
    }

    fn wants_use(&self, read: &ReadUse) -> bool {
        let Some(id) = self.key_id else { return true };
        let caller = read.r#use.caller.as_ref().is_some_and(|c| c.key_id == id.as_bytes());
        caller || read.r#use.key_id == id.as_bytes()
    }

    fn wants_entry(&self, entry: &FullEntry) -> bool {
        let id = self.key_id;
        id.is_none() || entry.columns.key_id == id || entry.columns.caller_key_id == id
    }
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
    let mut events = match &event.kind {
        Some(Kind::UsePage(page)) => uses_of(viewer, decoded, page, s).await?,
        _ if !s.wants(viewer, category::of_entry(event)) || !s.wants_entry(entry) => vec![],
        kind => {
            let texts = viewer.texts_of(entry, event).await?;
            let leaf_hash = entry.entry.leaf_hash();
            let shown = match kind {
                Some(Kind::EventRecorded(_)) => show::recorded_event,
                _ => show::change_event,
            };
            vec![shown(entry.position, &leaf_hash, event, &texts)]
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
) -> Result<Vec<AuditEvent>, Failure> {
    let (uses, accesses) = (s.wants(viewer, USE), s.wants(viewer, ACCESS));
    if !uses && !accesses {
        return Ok(vec![]);
    }
    let (replica, ledger) = viewer.place();
    let Decoded { entry, event, .. } = decoded;
    let (leaf_hash, time) = (entry.entry.leaf_hash(), Time(event.time_us));
    let mut events = vec![];
    let all = decoded.uses(page)?.iter().enumerate();
    for (index, read) in all.filter(|(_, read)| s.wants_use(read)) {
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
    let shown = show::change_event(entry.position, &leaf_hash, &event, &[]);
    Ok(AuditEvent { raw: Some(raw), category: category.into(), ..shown })
}

fn decode(entry: &FullEntry) -> Result<Event, Failure> {
    Event::from_signed(&entry.entry.body).map_err(|_| damaged(entry.position))
}

pub(super) fn damaged(position: u64) -> Failure {
    tracing::error!(position, "a stored entry can't be read: run `keyledger verify`");
    Failure::Internal("a stored entry can't be read")
}
