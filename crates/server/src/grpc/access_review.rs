//! GetAccessReview: who held what when, what was changed, what isn't used, what stands out, and who signed.
//!
//! Both ends of the period are folded from the signed changes, as every look back in time is; the parts of the report follow from
//! these two states and from the changes between them. It is given in parts, so that nothing of it is held whole.

mod exceptions;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use keyledger_ledger::body::{self, Event, Kind, Texts};
use keyledger_ledger::category;
use keyledger_ledger::command::Refusal;
use keyledger_ledger::findings::{Kind as FindingKind, Thresholds};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::roles;
use keyledger_ledger::state::{Key, KeyStatus, State};
use keyledger_proto::get_access_review_response::Part;
use keyledger_proto::parse::{GetAccessReview, Violation};
use keyledger_proto::{
    GetAccessReviewResponse, Owner, ReviewChange, ReviewEnd, ReviewException, ReviewHolding,
    ReviewRole, ReviewRoleGrants, ReviewSignOff, ReviewSummary, show,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::call::CallContext;
use super::findings::show_all;
use super::keys::key_texts;
use super::replies::Stopped;
use super::status::Failure;
use crate::findings::Search;
use crate::store::entries::{self, FullEntry};
use crate::store::event_index::Order;
use crate::store::positions::{self, Which};

/// How many keys, or changes, are shown at once.
const CHUNK: usize = 256;
/// Parts that wait for a reader.
const BUFFER: usize = 64;
/// Most signatures of a report.
const MAX_SIGN_OFFS: i64 = 1_000;
/// What else the caller must hold: changes are events of the log.
const LOG: (&str, &str) = ("audit.read", "logs/keyledger/lifecycle");

type Replies = mpsc::Sender<Result<GetAccessReviewResponse, Status>>;

pub(super) async fn get_access_review(
    call: CallContext,
    r: GetAccessReview,
) -> Result<ReceiverStream<Result<GetAccessReviewResponse, Status>>, Failure> {
    // The changes are read under the log's own permission: a use of its own, and refused like any other.
    call.again_on(LOG.1.into()).with_permission(LOG.0).record_read().await?;
    let place = call.ledger.open_stream()?;
    let mut open = call.replica.streams.open();
    let (replies, receiver) = mpsc::channel(BUFFER);
    let mut review = Review::begin(call, r).await?;
    tokio::spawn(async move {
        let patience = review.call.replica.streams.patience;
        let end = tokio::select! {
            end = review.give_all(&replies) => end,
            () = open.stopping() => Err(Stopped::Because(Failure::Stopping { next_position: None })),
        };
        if let Err(Stopped::Because(failure)) = end {
            let _ = tokio::time::timeout(patience, replies.send(Err(failure.into()))).await;
        }
        drop((place, open));
    });
    Ok(ReceiverStream::new(receiver))
}

/// A report that is being given.
struct Review {
    call: CallContext,
    asked: GetAccessReview,
    /// The end of the period, exclusively.
    to: Time,
    as_of: u64,
    /// The positions of the period.
    begin: u64,
    end: u64,
    /// The ledger just before the first, and just after the last of them.
    before: State,
    after: State,
    /// Names of the roles that keys held at either end.
    roles: BTreeSet<Arc<str>>,
    /// What stands out of the changes, to be given after what stands out of the keys.
    exceptions: Vec<ReviewException>,
    given: ReviewEnd,
    patience: Duration,
}

impl Review {
    async fn begin(call: CallContext, asked: GetAccessReview) -> Result<Review, Failure> {
        let now = call.now();
        let to = asked.to.unwrap_or(now);
        if to > now {
            return Err(wrong("to_time", "must not be in the future".into()));
        }
        if asked.from >= to {
            return Err(wrong("from_time", "must be in the past".into()));
        }
        let size = call.head().state.next_position;
        let as_of = asked.as_of_position.unwrap_or(size);
        if as_of > size {
            let problem = format!("must be at most {size}, the size of the ledger");
            return Err(wrong("as_of_position", problem));
        }
        let client = call.ledger.database.client().await?;
        // Both ends belong to what comes after them.
        let before = async |time: Time| {
            entries::size_at(&client, call.ledger.id, as_of, time.plus_micros(-1)).await
        };
        let (begin, end) = (before(asked.from).await?, before(to).await?);
        drop(client);
        let history = &call.replica.history;
        let before = history.state_as_of(&call.ledger, begin).await?;
        let after = history.state_as_of(&call.ledger, end).await?;
        if asked.key_id.is_some_and(|id| !after.keys.contains_key(&id)) {
            return Err(Refusal::KeyNotFound.into());
        }
        let patience = call.replica.streams.patience;
        let (roles, exceptions, given) = (BTreeSet::new(), vec![], ReviewEnd::default());
        Ok(Review {
            call,
            asked,
            to,
            as_of,
            begin,
            end,
            before,
            after,
            roles,
            exceptions,
            given,
            patience,
        })
    }

    async fn give_all(&mut self, replies: &Replies) -> Result<(), Stopped> {
        self.send(replies, Part::Summary(self.summary())).await?;
        self.give_holdings(replies).await?;
        self.give_roles(replies).await?;
        self.give_changes(replies).await?;
        self.give_unused(replies).await?;
        self.give_exceptions(replies).await?;
        self.give_sign_offs(replies).await?;
        self.send(replies, Part::End(self.given)).await
    }

    fn summary(&self) -> ReviewSummary {
        ReviewSummary {
            ledger: self.call.head().state.ledger.as_deref().map(show::ledger),
            from_time: Some(show::timestamp(self.asked.from)),
            to_time: Some(show::timestamp(self.to)),
            as_of_position: Some(self.as_of),
            from_position: Some(self.begin),
            to_position: Some(self.end),
            policy: Some(show::policy(&self.after.policy.policy)),
            key_id: self.asked.key_id.map(|id| id.to_string()).unwrap_or_default(),
        }
    }

    /// The last moment of the period.
    fn last(&self) -> Time {
        self.to.plus_micros(-1)
    }

    /// The next keys of those that were there when the period ended.
    fn keys_after(&self, after: Option<KeyId>) -> Vec<Arc<Key>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let asked = |key: &&Arc<Key>| self.asked.key_id.is_none_or(|id| key.id == id);
        let rest = self.after.keys.range((after.map_or(Unbounded, Excluded), Unbounded));
        rest.map(|(_, key)| key).filter(asked).take(CHUNK).cloned().collect()
    }

    async fn give_holdings(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let keys = self.keys_after(after);
            let Some(last) = keys.last().map(|key| key.id) else { return Ok(()) };
            after = Some(last);
            let lived: Vec<Arc<Key>> = keys.into_iter().filter(|key| self.lived(key)).collect();
            let texts = key_texts(&self.call, &lived).await?;
            let began: Vec<Arc<Key>> =
                lived.iter().filter_map(|key| self.before.keys.get(&key.id).cloned()).collect();
            let began_texts = key_texts(&self.call, &began).await?;
            let began: HashMap<KeyId, (&Arc<Key>, &Texts)> =
                began.iter().zip(&began_texts).map(|(key, texts)| (key.id, (key, texts))).collect();
            for (key, texts) in lived.iter().zip(&texts) {
                let at_start = began
                    .get(&key.id)
                    .map(|(key, texts)| past(show::key(&self.before, key, texts, self.asked.from)));
                let held = self.before.keys.get(&key.id).map(|key| &key.roles);
                self.roles.extend(held.into_iter().chain([&key.roles]).flatten().cloned());
                let holding = self.holding(key, texts, at_start);
                self.given.holdings += 1;
                self.send(replies, Part::Holding(holding)).await?;
            }
        }
    }

    /// Whether a key was accepted or suspended at some time of the period.
    fn lived(&self, key: &Key) -> bool {
        let start = self.before.keys.get(&key.id);
        start.is_none_or(|key| lives(key, self.asked.from))
    }

    fn holding(
        &self,
        key: &Key,
        texts: &Texts,
        at_start: Option<keyledger_proto::Key>,
    ) -> ReviewHolding {
        let gone = match key.status(self.last()) {
            KeyStatus::Revoked => key.revoked.map(|revoked| revoked.time),
            KeyStatus::Expired => key.expires,
            KeyStatus::Active | KeyStatus::Suspended => None,
        };
        ReviewHolding {
            come_time: at_start.is_none().then(|| show::timestamp(key.created)),
            at_start,
            at_end: Some(past(show::key(&self.after, key, texts, self.last()))),
            go_time: gone.map(show::timestamp),
            roles_changed: self.roles_changed(key),
        }
    }

    /// Roles that a key held at both ends, and that gave something else at the end.
    fn roles_changed(&self, key: &Key) -> Vec<String> {
        let Some(start) = self.before.keys.get(&key.id) else { return vec![] };
        let differs = |name: &&Arc<str>| {
            start.roles.contains(name)
                && roles::grants(&self.before, name) != roles::grants(&self.after, name)
        };
        key.roles.iter().filter(differs).map(ToString::to_string).collect()
    }

    async fn give_roles(&mut self, replies: &Replies) -> Result<(), Stopped> {
        for name in std::mem::take(&mut self.roles) {
            let role = ReviewRole {
                at_start: role_in(&self.before, &name),
                at_end: role_in(&self.after, &name),
                name: name.to_string(),
            };
            self.given.roles += 1;
            self.send(replies, Part::Role(role)).await?;
        }
        Ok(())
    }

    async fn give_changes(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let mut callers = HashMap::new();
        let mut next = self.begin;
        while next < self.end {
            let some = self.entries(Which::Changes, next..self.end, Order::OldestFirst).await?;
            let Some(last) = some.last() else { return Ok(()) };
            next = last.position + 1;
            let events: Vec<(&FullEntry, Event)> =
                some.iter().map(read).collect::<Result<_, _>>()?;
            let shown = |event: &Event| {
                let about = event.kind.as_ref().and_then(Kind::key_link);
                let about = about.and_then(|link| KeyId::from_slice(&link.key_id));
                category::of_entry(event) == category::LIFECYCLE
                    && self.asked.key_id.is_none_or(|id| about == Some(id))
            };
            let events: Vec<_> = events.into_iter().filter(|(_, event)| shown(event)).collect();
            self.learn_callers(&mut callers, events.iter().map(|(_, event)| event)).await?;
            for (entry, event) in events {
                let texts = show::merged(&self.call.open_entry(entry).await?);
                let change = change_of(entry, &event, &texts, &callers);
                self.exceptions.extend(exceptions::of_change(&self.after, &change, &event));
                self.given.changes += 1;
                self.send(replies, Part::Change(change)).await?;
            }
        }
        Ok(())
    }

    /// Whole entries in a range, as many as are read at once.
    async fn entries(
        &self,
        which: Which,
        range: std::ops::Range<u64>,
        order: Order,
    ) -> Result<Vec<FullEntry>, Failure> {
        let limit = match which {
            Which::SignOffs => MAX_SIGN_OFFS,
            _ => CHUNK as i64,
        };
        let (client, id) = (self.call.ledger.database.client().await?, self.call.ledger.id);
        let found = positions::of(&client, id, &which, &range, order, limit).await?;
        Ok(entries::at_positions(&client, id, &found).await?)
    }

    /// Whose the keys are that called.
    async fn learn_callers(
        &self,
        known: &mut HashMap<KeyId, Owner>,
        events: impl Iterator<Item = &Event>,
    ) -> Result<(), Failure> {
        let new: BTreeSet<KeyId> =
            events.filter_map(caller_of).filter(|id| !known.contains_key(id)).collect();
        let head = self.call.head();
        let keys: Vec<Arc<Key>> =
            new.iter().filter_map(|id| head.state.keys.get(id).cloned()).collect();
        let texts = key_texts(&self.call, &keys).await?;
        let owners = keys.iter().zip(&texts);
        known.extend(owners.map(|(key, texts)| (key.id, show::key_owner(&key.owner, texts))));
        Ok(())
    }

    async fn give_unused(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let search = Search {
            state: self.after.clone(),
            now: self.last(),
            thresholds: Thresholds::default(),
            kinds: [
                FindingKind::KeyUnused,
                FindingKind::KeyNeverUsed,
                FindingKind::KeyBroaderThanUsed,
            ]
            .into(),
        };
        let mut after = None;
        loop {
            let keys = self.keys_after(after);
            let Some(last) = keys.last().map(|key| key.id) else { return Ok(()) };
            after = Some(last);
            let items = search.of_keys(&self.call.ledger, &keys).await?;
            for finding in show_all(&self.call, &items).await? {
                self.given.unused += 1;
                self.send(replies, Part::Unused(finding)).await?;
            }
        }
    }

    async fn give_exceptions(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let keys = self.keys_after(after);
            let Some(last) = keys.last().map(|key| key.id) else { break };
            after = Some(last);
            let end = self.last();
            for key in keys.iter().filter(|key| lives(key, end)) {
                for exception in exceptions::of_key(&self.after, key) {
                    self.given.exceptions += 1;
                    self.send(replies, Part::Exception(exception)).await?;
                }
            }
        }
        for exception in std::mem::take(&mut self.exceptions) {
            self.given.exceptions += 1;
            self.send(replies, Part::Exception(exception)).await?;
        }
        Ok(())
    }

    async fn give_sign_offs(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let some = self.entries(Which::SignOffs, 0..self.as_of, Order::NewestFirst).await?;
        let events: Vec<(&FullEntry, Event)> = some.iter().map(read).collect::<Result<_, _>>()?;
        let mut signers = HashMap::new();
        self.learn_callers(&mut signers, events.iter().map(|(_, event)| event)).await?;
        for (entry, event) in &events {
            let Some(Kind::ReviewSigned(signed)) = &event.kind else {
                return Err(Failure::Internal("what is marked as a signature isn't one").into());
            };
            let texts = show::merged(&self.call.open_entry(entry).await?);
            let sign_off = sign_off_of(entry.position, event, signed, &texts, &signers);
            self.given.sign_offs += 1;
            self.send(replies, Part::SignOff(sign_off)).await?;
        }
        Ok(())
    }

    /// Each part is given to somebody who may still read it.
    async fn send(&self, replies: &Replies, part: Part) -> Result<(), Stopped> {
        if !self.call.still_stands() {
            return Err(Failure::KeyEnded.into());
        }
        if !self.call.may("keys") {
            return Err(self.call.denied("keys").into());
        }
        if !self.call.holds(LOG.0, LOG.1) {
            let (permission, resource) = (LOG.0.into(), LOG.1.into());
            return Err(Refusal::PermissionDenied { permission, resource }.into());
        }
        let reply = Ok(GetAccessReviewResponse { part: Some(part) });
        match tokio::time::timeout(self.patience, replies.send(reply)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stopped::Gone),
            Err(_) => Err(Failure::ReaderTooSlow { next_position: self.as_of }.into()),
        }
    }
}

fn wrong(field: &str, description: String) -> Failure {
    vec![Violation { field: field.into(), description }].into()
}

fn lives(key: &Key, now: Time) -> bool {
    matches!(key.status(now), KeyStatus::Active | KeyStatus::Suspended)
}

/// Of the past it isn't known how often a key was used; and what is known only of now has no place in a report that can be asked for
/// again.
fn past(key: keyledger_proto::Key) -> keyledger_proto::Key {
    show::of_the_past(key)
}

/// What a role gave at one end of the period, if it was there.
fn role_in(state: &State, name: &str) -> Option<ReviewRoleGrants> {
    let grants = roles::grants(state, name)?;
    let retired = state.roles.get(name).and_then(|role| role.retired);
    Some(ReviewRoleGrants {
        grants: grants.iter().map(|grant| grant.to_body()).collect(),
        retire_time: retired.map(show::timestamp),
    })
}

fn read(entry: &FullEntry) -> Result<(&FullEntry, Event), Failure> {
    let event = Event::from_signed(&entry.entry.body)
        .map_err(|_| Failure::Internal("a stored entry can't be read"))?;
    Ok((entry, event))
}

fn caller_of(event: &Event) -> Option<KeyId> {
    KeyId::from_slice(&event.caller.as_ref()?.key_id)
}

fn change_of(
    entry: &FullEntry,
    event: &Event,
    texts: &Texts,
    callers: &HashMap<KeyId, Owner>,
) -> ReviewChange {
    let kind = event.kind.as_ref();
    let about = kind.and_then(Kind::key_link).and_then(|link| KeyId::from_slice(&link.key_id));
    let caller = caller_of(event);
    let (subject, changed) = subject_of(kind, texts);
    ReviewChange {
        position: Some(entry.position),
        time: Some(show::timestamp(Time(event.time_us))),
        r#type: kind.map_or("", Kind::name).into(),
        key_id: about.map(|id| id.to_string()).unwrap_or_default(),
        subject,
        changed,
        caller_key_id: caller.map(|id| id.to_string()).unwrap_or_default(),
        caller: caller.and_then(|id| callers.get(&id).cloned()),
        reason: texts.reason.clone(),
        approval_ref: event.approval_ref.clone(),
        leaf_hash: entry.entry.leaf_hash().to_vec(),
        given: kind.and_then(|kind| show::given(kind, texts)),
        sentence: kind.map_or(String::new(), show::why_changed),
        anomaly_position: match kind {
            Some(Kind::KeySuspended(e)) => e.anomaly_position,
            _ => None,
        },
    }
}

/// What a change is about besides a key, and which fields it names.
fn subject_of(kind: Option<&Kind>, texts: &Texts) -> (String, Vec<String>) {
    match kind {
        Some(Kind::KeyUpdated(e)) => (String::new(), e.changed.clone()),
        Some(Kind::LedgerPolicyUpdated(e)) => ("policy".into(), e.changed.clone()),
        Some(Kind::RoleCreated(e)) => (e.name.clone(), vec![]),
        Some(Kind::RoleUpdated(e)) => (e.name.clone(), vec![]),
        Some(Kind::RoleRetired(e)) => (e.name.clone(), vec![]),
        Some(Kind::PermissionsRegistered(e)) => (e.prefix.clone(), vec![]),
        Some(Kind::LedgerRegistered(e)) => (e.name.clone(), vec![]),
        Some(Kind::LedgerOpened(e)) => (e.name.clone(), vec![]),
        Some(Kind::OwnerStatusSet(e)) => {
            let left = if e.left { "left" } else { "back" };
            let who = match e.owner.as_ref().and_then(|o| o.owner.as_ref()) {
                Some(body::OwnerKind::Service(name)) => name.clone(),
                Some(body::OwnerKind::UserRef(_)) | None => texts.owner.clone(),
            };
            (who, vec![left.into()])
        }
        _ => (String::new(), vec![]),
    }
}

fn sign_off_of(
    position: u64,
    event: &Event,
    signed: &body::ReviewSigned,
    texts: &Texts,
    signers: &HashMap<KeyId, Owner>,
) -> ReviewSignOff {
    let signer = caller_of(event);
    let key_id = KeyId::from_slice(&signed.key_id);
    ReviewSignOff {
        position: Some(position),
        time: Some(show::timestamp(Time(event.time_us))),
        signer_key_id: signer.map(|id| id.to_string()).unwrap_or_default(),
        signer: signer.and_then(|id| signers.get(&id).cloned()),
        from_time: Some(show::timestamp(Time(signed.from_us))),
        to_time: Some(show::timestamp(Time(signed.to_us))),
        as_of_position: Some(signed.as_of_position),
        report_sha256: signed.report_sha256.clone(),
        approved: signed.approved,
        key_id: key_id.map(|id| id.to_string()).unwrap_or_default(),
        reason: texts.reason.clone(),
        approval_ref: event.approval_ref.clone(),
    }
}
