//! The past of a ledger: its state just before any position, folded from the signed changes themselves.
//!
//! No projected row is believed. The column `kind` tells changes from pages of uses and events of other services, so that those
//! needn't be read, and it isn't believed either: pages and events are numbered in their signed bodies, so the newest of each
//! before a position tell how many of the entries before it are neither, and all those must have been folded.

use std::sync::{Arc, Mutex};

use keyledger_ledger::apply::apply_change;
use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::state::{LedgerInfo, State};
use uuid::Uuid;

use super::Ledger;
use super::load::fold_what_is_about_no_key;
use crate::store::StoreError;
use crate::store::entries::{self, StoredEntry};

/// How many changes are read, and folded on a thread of its own, at once.
const CHUNK: i64 = 512;
/// The kinds of pages and of events.
const PAGE: i16 = 23;
const EVENT: i16 = 39;
const COUNTS: i16 = 40;
/// Of how many ledgers the newest folded state is kept.
const MAX_KEPT: usize = 8;

/// Why the past can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PastError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("more than {most} changes lie before that moment")]
    TooFarBack { most: u64 },
}

/// Folds of a replica, of all its ledgers: one at a time.
pub(crate) struct History {
    /// Most changes that are folded for one answer.
    most: u64,
    folding: tokio::sync::Mutex<()>,
    /// The newest folded state of each ledger: the next page of a list needs it again. The one made last stands last.
    kept: Mutex<Vec<(Uuid, Folded)>>,
}

/// A state without what only pages tell, and how many changes it was folded from. As many changes, the same state.
#[derive(Clone, Default)]
struct Folded {
    state: State,
    changes: u64,
}

impl History {
    pub(crate) fn new(most: u64) -> History {
        History { most, folding: tokio::sync::Mutex::new(()), kept: Mutex::default() }
    }

    /// The state just before a position, except how often keys had been used. Where nothing was changed since, it is the
    /// live one.
    pub(crate) async fn state_as_of(
        &self,
        ledger: &Ledger,
        position: u64,
    ) -> Result<State, PastError> {
        let live = &ledger.snapshot().state;
        let Some(changes) = self.changes_before(ledger, live, position).await? else {
            return Ok(live.clone());
        };
        if let Some(kept) = self.kept(ledger.id).filter(|kept| kept.changes == changes) {
            return Ok(kept.state);
        }
        self.require_near(changes)?;
        let _one = self.folding.lock().await;
        // Whoever was before us may have come there, or at least nearer.
        let begin = self.kept(ledger.id).filter(|kept| kept.changes <= changes);
        Ok(self.fold(ledger, begin.unwrap_or_default(), position, changes).await?)
    }

    /// The roles just before a position: from the entries that are about no key, however many keys there are. As when a
    /// replica starts, a column says which these are.
    pub(crate) async fn roles_as_of(
        &self,
        ledger: &Ledger,
        position: u64,
    ) -> Result<State, PastError> {
        let live = &ledger.snapshot().state;
        if position == live.next_position {
            return Ok(live.clone());
        }
        let _one = self.folding.lock().await;
        let client = ledger.database.client().await?;
        let limit = self.most.saturating_add(1).min(i64::MAX as u64);
        let changes = entries::count_about_no_key(&client, ledger.id, position, limit).await?;
        self.require_near(changes)?;
        Ok(fold_what_is_about_no_key(&client, ledger.id, position).await?)
    }

    /// Goes on to a position before which so many changes lie. A call may run out of time: how far it came is kept, and whoever
    /// calls again goes on from there.
    async fn fold(
        &self,
        ledger: &Ledger,
        mut folded: Folded,
        position: u64,
        changes: u64,
    ) -> Result<State, StoreError> {
        let info = ledger.snapshot().state.ledger.clone();
        let client = ledger.database.client().await?;
        while folded.changes < changes {
            let rest = folded.state.next_position..position;
            let some = entries::changes(&client, ledger.id, rest, CHUNK).await?;
            if some.is_empty() {
                let problem =
                    format!("{} of {changes} changes before it are there", folded.changes);
                return Err(damaged(position, &problem));
            }
            let applied = tokio::task::spawn_blocking(move || apply_all(folded, &some)).await;
            folded = applied.expect("what is applied is checked, and panics nowhere")?;
            if folded.state.ledger != info {
                return Err(damaged(0, "it opens another ledger"));
            }
            self.keep(ledger.id, folded.clone());
        }
        Ok(folded.state)
    }

    /// How many changes lie before a position; `None` if the live state has no others.
    async fn changes_before(
        &self,
        ledger: &Ledger,
        live: &State,
        position: u64,
    ) -> Result<Option<u64>, PastError> {
        let client = ledger.database.client().await?;
        let newest = async |kind| {
            let stored = entries::newest_of_kind(&client, ledger.id, kind, position).await?;
            let event = stored.map(|stored| open(&live.ledger, &stored)).transpose()?;
            Ok::<_, StoreError>(event.and_then(|event| event.kind))
        };
        let pages = match newest(PAGE).await? {
            None => 0,
            Some(Kind::UsePage(page)) => page.number + 1,
            Some(_) => return Err(damaged(position, "what is marked as a page isn't one").into()),
        };
        let events = match newest(EVENT).await? {
            None => 0,
            Some(Kind::EventRecorded(event)) => event.number + 1,
            Some(_) => return Err(damaged(position, "what is marked as an event isn't one").into()),
        };
        let counts = match newest(COUNTS).await? {
            None => 0,
            Some(Kind::CategoryCounted(counted)) => counted.number + 1,
            Some(_) => return Err(damaged(position, "what is marked as counts isn't one").into()),
        };
        let changes = position.checked_sub(pages + events + counts);
        let changes = changes.ok_or_else(|| damaged(position, "its pages, events and counts"))?;
        Ok((live.changes() != changes).then_some(changes))
    }

    fn require_near(&self, changes: u64) -> Result<(), PastError> {
        let most = self.most;
        if changes > most { Err(PastError::TooFarBack { most }) } else { Ok(()) }
    }

    fn kept(&self, ledger_id: Uuid) -> Option<Folded> {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        kept.iter().find(|(id, _)| *id == ledger_id).map(|(_, folded)| folded.clone())
    }

    fn keep(&self, ledger_id: Uuid, folded: Folded) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        // The one that came farther serves those who look less far back than it, and costs more to make again.
        if kept.iter().any(|(id, old)| *id == ledger_id && old.changes > folded.changes) {
            return;
        }
        kept.retain(|(id, _)| *id != ledger_id);
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        kept.push((ledger_id, folded));
    }
}

fn apply_all(mut folded: Folded, changes: &[StoredEntry]) -> Result<Folded, StoreError> {
    for stored in changes {
        let event = open(&folded.state.ledger, stored)?;
        apply_change(&mut folded.state, stored.position, stored.entry.leaf_hash(), &event)
            .map_err(|e| damaged(stored.position, &e.to_string()))?;
        folded.changes += 1;
    }
    Ok(folded)
}

fn open(ledger: &Option<Arc<LedgerInfo>>, stored: &StoredEntry) -> Result<Event, StoreError> {
    let opened = match ledger {
        Some(ledger) => stored.entry.open(&[ledger.entry_key]),
        None => stored.entry.open_first(),
    };
    opened.map_err(|e| damaged(stored.position, &e.to_string()))
}

fn damaged(position: u64, problem: &str) -> StoreError {
    StoreError::Damaged(format!("position {position}: {problem}"))
}
