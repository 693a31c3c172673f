//! Notices unusual use while it happens: the Monitor looks at what a pass has read, and what it notices becomes commands before
//! the pass is saved. `decide` answers those that were done before, so whoever makes a pass again raises nothing twice.

use std::collections::BTreeMap;

use crate::store::client::Client;
use keyledger_ledger::anomaly::{AnomalyChange, Observation, Subject};
use keyledger_ledger::body::{Event, MonitoringRule, SealedColumn, Texts, decode_canonical};
use keyledger_ledger::command::{Answer, Change, ChangeKind, Refusal};
use keyledger_ledger::id::Time;
use keyledger_ledger::monitor::{Episode, Monitor, Raise, Rules, Step};
use keyledger_ledger::state::{Key, Owner, State};
use keyledger_ledger::text::Sealed;
use keyledger_ledger::usage::hour_of;
use keyledger_ledger::verify::Opening;
use keyledger_proto::show;
use prost::Message;

use super::histories::histories;
use super::{FirstKeys, TURN};
use crate::replica::{by_itself, own_clock};
use crate::sealing::About;
use crate::sequencer::{Ledger, SequencerError};
use crate::store::anomalies::Anomalies;
use crate::store::{StoreError, entries, event_index};

/// How far back the hours of a history go.
const HISTORY_HOURS: i64 = (8 * 7 + 1) * 24;
/// Most keys and owners whose history is read in one pass: a pass must not take longer than what it looks at took to be written.
const MAX_LEARNED: usize = 1_000;
/// Of what was written later than this nothing may have been read yet, in microseconds. What is over is said a little later.
const UNREAD: i64 = 15 * Time::MICROS_PER_SECOND;

/// The monitor as it was when the progress stood at a position, and the bytes that lie in the database.
pub(super) struct Kept {
    at: u64,
    monitor: Monitor,
    stored: Vec<u8>,
}

/// The monitor in a pass. It is kept only if the pass is saved.
pub(super) struct Noticing<'a> {
    ledger: &'a Ledger,
    client: &'a Client,
    first_keys: &'a FirstKeys,
    rules: Rules,
    monitor: Monitor,
    stored: Vec<u8>,
    /// The entry that is looked at.
    position: u64,
    /// Where the pass begins.
    from: u64,
    /// How many subjects may still be learned in it.
    to_learn: usize,
    /// What went on before the pass.
    before: BTreeMap<(MonitoringRule, Subject), Episode>,
}

impl<'a> Noticing<'a> {
    /// Goes on from where the progress stands: with what is kept from the last pass if that was ours, else with what was stored.
    /// `None`: somebody else has moved on meanwhile.
    pub(super) async fn begin(
        ledger: &'a Ledger,
        client: &'a Client,
        first_keys: &'a FirstKeys,
        kept: Option<Kept>,
        from: u64,
    ) -> Result<Option<Noticing<'a>>, StoreError> {
        let (monitor, stored) = match kept.filter(|kept| kept.at == from) {
            Some(kept) => (kept.monitor, kept.stored),
            None => match read(client, ledger, from).await? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let rules = Rules::of(&ledger.snapshot().state.policy.policy);
        let before = monitor.episodes().map(|e| ((e.rule, e.subject.clone()), e)).collect();
        let position = from;
        let noticing = Noticing {
            ledger,
            client,
            first_keys,
            rules,
            monitor,
            stored,
            position,
            from,
            to_learn: MAX_LEARNED,
            before,
        };
        noticing.end_forgotten(from).await?;
        Ok(Some(noticing))
    }

    /// Looks at what was read, in order, and raises what is noticed. `false`: somebody else has moved on meanwhile.
    pub(super) async fn observe(
        &mut self,
        observations: &[Observation],
    ) -> Result<bool, StoreError> {
        for some in observations.chunks(TURN) {
            let state = self.ledger.snapshot().state.clone();
            if !self.learn(&state, some).await? {
                return Ok(false);
            }
            for observation in some {
                let steps = self.steps(&state, observation);
                self.perform(steps, observation.position).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    /// Everything before a position was looked at, and nothing else is there: what is over by now is ended.
    pub(super) async fn end_by_now(&mut self, to: u64) -> Result<(), StoreError> {
        let steps = self.monitor.pass(&self.rules, own_clock().plus_micros(-UNREAD));
        self.perform(steps, to).await
    }

    /// How often what goes on has happened by now.
    pub(super) fn count(&self, anomalies: &mut Anomalies) {
        let state = &self.ledger.snapshot().state;
        for episode in self.monitor.episodes() {
            let which = (episode.rule, episode.subject.clone());
            let Some(open) = state.anomalies.open.get(&which) else { continue };
            if anomalies.has(open.position) || self.before.get(&which) != Some(&episode) {
                anomalies.counted(open.position, episode.occurrences, episode.last);
            }
        }
    }

    /// What is to be stored with the pass; `None` if that is there already.
    pub(super) fn to_store(&self) -> Option<Vec<u8>> {
        Some(self.monitor.encode()).filter(|bytes| *bytes != self.stored)
    }

    /// The pass was saved, and the progress stands at a position.
    pub(super) fn saved(self, at: u64, stored: Option<Vec<u8>>) -> Kept {
        let stored = stored.unwrap_or(self.stored);
        Kept { at, monitor: self.monitor, stored }
    }

    /// Reads how keys were used before. Of more than so many nothing is learned in this pass: the rules that need it are silent.
    /// `false`: what was read may hold what this pass looks at, since somebody else has saved it meanwhile.
    async fn learn(&mut self, state: &State, some: &[Observation]) -> Result<bool, StoreError> {
        let owner_of = |id| state.keys.get(&id).and_then(|key| self.first_keys.of_several(key));
        let mut unknown = self.monitor.unknown(some, owner_of);
        unknown.truncate(self.to_learn);
        if unknown.is_empty() {
            return Ok(true);
        }
        self.to_learn -= unknown.len();
        let since = some.first().map_or(0, |first| hour_of(first.time)) - HISTORY_HOURS;
        let (client, id) = (self.client, self.ledger.id);
        let mut found = histories(client, id, self.first_keys, &unknown, since).await?;
        if event_index::progress(client, id).await? != self.from {
            return Ok(false);
        }
        for subject in unknown {
            let history = found.remove(&subject).unwrap_or_default();
            self.monitor.learn(subject, history);
        }
        Ok(true)
    }

    fn steps(&mut self, state: &State, observation: &Observation) -> Vec<Step> {
        let mut steps = vec![];
        if self.position != observation.position {
            self.position = observation.position;
            steps = self.monitor.pass(&self.rules, observation.time);
        }
        let key = observation.key.and_then(|(id, _)| state.keys.get(&id));
        let owner = key.and_then(|key| self.first_keys.of_several(key));
        let sealing = &self.ledger.sealing;
        let peer = observation.network.filter(|_| !observation.allowed);
        let peer = peer.map(|network| sealing.blind_network(self.ledger.id, &network));
        steps.extend(self.monitor.observe(&self.rules, observation, owner, peer));
        steps
    }

    /// A crash after any of these is followed by a pass over the same entries, and the same steps.
    async fn perform(&self, steps: Vec<Step>, observed: u64) -> Result<(), StoreError> {
        for step in steps {
            match step {
                Step::Raise(raise) => {
                    let texts = self.texts(&raise).await?;
                    let raise = AnomalyChange::Raise(Box::new(raise));
                    done(self.ledger, raise, texts).await?;
                    suspend(self.ledger).await?;
                }
                Step::End { rule, subject, last, occurrences } => {
                    let end = AnomalyChange::End { rule, subject, observed, last, occurrences };
                    done(self.ledger, end, vec![]).await?;
                }
            }
        }
        Ok(())
    }

    /// What goes on by its entries, and the monitor knows nothing of: somebody has lost its memory. It is over.
    async fn end_forgotten(&self, from: u64) -> Result<(), StoreError> {
        let state = &self.ledger.snapshot().state;
        for ((rule, subject), open) in &state.anomalies.open {
            let which = (*rule, subject.clone());
            if open.observed < from && !self.before.contains_key(&which) {
                let end = AnomalyChange::End {
                    rule: *rule,
                    subject: subject.clone(),
                    observed: from,
                    last: open.last,
                    occurrences: open.occurrences,
                };
                done(self.ledger, end, vec![]).await?;
            }
        }
        Ok(())
    }

    /// The network, and the name of an owner, sealed under the key of the person whose use it is.
    async fn texts(&self, raise: &Raise) -> Result<Vec<Sealed>, StoreError> {
        let state = &self.ledger.snapshot().state;
        let key = raise.key.and_then(|id| state.keys.get(&id));
        let about = match (&raise.subject, key.map(|key| &key.owner)) {
            (Subject::Owner(Owner::User(person)), _) | (_, Some(Owner::User(person))) => {
                About::Reference(*person)
            }
            _ => About::Nobody,
        };
        let owner = match &raise.subject {
            Subject::Owner(owner @ Owner::User(_)) => {
                let first = self.first_keys.of(owner).and_then(|id| state.keys.get(&id));
                match first {
                    Some(key) => self.owner_name(key).await?,
                    None => String::new(),
                }
            }
            _ => String::new(),
        };
        let peer_address = raise.network.map(show::network).unwrap_or_default();
        let texts = Texts { peer_address, owner, ..Texts::default() };
        if texts == Texts::default() {
            return Ok(vec![]);
        }
        let ledger = self.ledger;
        let key = ledger.sealing.data_key(ledger.id, about, own_clock()).await?;
        Ok(vec![key.seal(ledger.id, &texts)])
    }

    /// As it lies with the entry that created a key; empty if it was erased.
    async fn owner_name(&self, key: &Key) -> Result<String, StoreError> {
        let Ledger { id, sealing, .. } = self.ledger;
        let entries = entries::at_positions(self.client, *id, &[key.created_position]).await?;
        let Some(entry) = entries.first() else { return Ok(String::new()) };
        let Ok(event) = Event::from_signed(&entry.entry.body) else { return Ok(String::new()) };
        let column: SealedColumn =
            decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
        let references: Vec<[u8; 16]> =
            event.texts.iter().filter_map(|t| t.subject_ref.as_slice().try_into().ok()).collect();
        sealing.load(*id, &references).await?;
        let open = |(text, sealed): (_, &Vec<u8>)| match sealing.open(*id, text, sealed) {
            Opening::Opened(opened) => Texts::decode(opened.texts.as_slice()).ok(),
            _ => None,
        };
        let opened = event.texts.iter().zip(&column.sealed).filter_map(open);
        Ok(opened.map(|texts| texts.owner).find(|name| !name.is_empty()).unwrap_or_default())
    }
}

/// What was stored when the progress stood at a position; `None` if it stands there no more. A memory that can't be read is lost,
/// and begins anew.
async fn read(
    client: &Client,
    ledger: &Ledger,
    from: u64,
) -> Result<Option<(Monitor, Vec<u8>)>, StoreError> {
    let (at, stored) = event_index::monitor(client, ledger.id).await?;
    if at != from {
        return Ok(None);
    }
    let stored = stored.unwrap_or_default();
    let monitor = Monitor::decode(&stored).unwrap_or_else(|| {
        tracing::error!(ledger_id = %ledger.id, "the monitor's memory can't be read: it begins anew");
        Monitor::default()
    });
    Ok(Some((monitor, stored)))
}

/// Suspends the keys of what goes on, where that is the response, and wasn't done.
pub(super) async fn suspend(ledger: &Ledger) -> Result<(), StoreError> {
    let state = &ledger.snapshot().state;
    let now = own_clock().max(state.newest_time);
    let due = state.anomalies.open.values().filter(|open| state.to_suspend(open, now).is_some());
    for position in due.map(|open| open.position) {
        done(ledger, AnomalyChange::Suspend { position }, vec![]).await?;
    }
    Ok(())
}

/// Whether it is done now, or was done before, is the same. Only what isn't durable stops the pass.
async fn done(
    ledger: &Ledger,
    change: AnomalyChange,
    texts: Vec<Sealed>,
) -> Result<(), StoreError> {
    let change = Change::new(ChangeKind::Anomaly(change), texts);
    let answer = by_itself(ledger, change).await.map_err(|error| match error {
        SequencerError::OutcomeUnknown(text) => StoreError::OutcomeUnknown(text),
        other => StoreError::Unavailable(other.to_string()),
    })?;
    match answer {
        Answer::Changed { .. } | Answer::Refused { refusal: Refusal::AlreadyDone } => {}
        other => tracing::error!(?other, "what was noticed could not be written"),
    }
    Ok(())
}
