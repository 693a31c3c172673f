//! The past of a ledger: its state just before any position, folded from the signed changes themselves.
//!
//! No projected row is believed, and no column says what a change is: each is opened. The column `kind` only tells changes from
//! pages of uses; that it told right is checked at the end, since each page has a signed number: so many pages and so many
//! changes must make up all positions.

use std::sync::Mutex;

use deadpool_postgres::Client;
use keyledger_ledger::apply::apply_change;
use keyledger_ledger::body::Kind;
use keyledger_ledger::state::State;
use uuid::Uuid;

use super::Ledger;
use super::load::fold_what_is_about_no_key;
use crate::store::StoreError;
use crate::store::entries::{self, StoredEntry};

/// How many changes are read, and folded on a thread of its own, at once.
const CHUNK: i64 = 512;
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
    /// The newest folded state of each ledger: the next page of a list needs it again. The one used last stands last.
    kept: Mutex<Vec<(Uuid, Folded)>>,
}

/// A state without what only pages tell, and how many changes it was folded from.
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
        let live = ledger.snapshot();
        let Some(end) = end_before(ledger, &live.state, position).await? else {
            return Ok(live.state.clone());
        };
        if let Some(kept) = self.kept(ledger.id).filter(|k| k.state.next_position == end) {
            return Ok(kept.state);
        }
        let _one = self.folding.lock().await;
        // Whoever was before us may have come there, or at least nearer.
        let begin = self.kept(ledger.id).filter(|k| k.state.next_position <= end);
        let client = ledger.database.client().await?;
        let changes = entries::count_changes(&client, ledger.id, end, self.most + 1).await?;
        self.require_near(changes)?;
        let folded = fold(&client, ledger, begin.unwrap_or_default(), end).await?;
        self.keep(ledger.id, folded.clone());
        Ok(folded.state)
    }

    /// The roles just before a position: from the few entries that are about no key, however many keys there are.
    pub(crate) async fn roles_as_of(
        &self,
        ledger: &Ledger,
        position: u64,
    ) -> Result<State, PastError> {
        let live = ledger.snapshot();
        let Some(end) = end_before(ledger, &live.state, position).await? else {
            return Ok(live.state.clone());
        };
        let _one = self.folding.lock().await;
        let client = ledger.database.client().await?;
        let changes = entries::count_about_no_key(&client, ledger.id, end, self.most + 1).await?;
        self.require_near(changes)?;
        Ok(fold_what_is_about_no_key(&client, ledger.id, end).await?)
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
        kept.retain(|(id, _)| *id != ledger_id);
        if kept.len() == MAX_KEPT {
            kept.remove(0);
        }
        kept.push((ledger_id, folded));
    }
}

/// The position after the newest change before a position; `None` if nothing was changed between there and the live state.
async fn end_before(
    ledger: &Ledger,
    live: &State,
    position: u64,
) -> Result<Option<u64>, StoreError> {
    let client = ledger.database.client().await?;
    let newest = async |before| {
        let found = entries::change_positions(&client, ledger.id, None, before, 1).await?;
        Ok::<_, StoreError>(found.first().map_or(0, |newest| newest + 1))
    };
    let end = newest(position).await?;
    Ok(if end == newest(live.next_position).await? { None } else { Some(end) })
}

/// Goes on to a position that a change ends at.
async fn fold(
    client: &Client,
    ledger: &Ledger,
    mut folded: Folded,
    end: u64,
) -> Result<Folded, StoreError> {
    while folded.state.next_position < end {
        let rest = folded.state.next_position..end;
        let changes = entries::changes(client, ledger.id, rest, CHUNK).await?;
        if changes.is_empty() {
            return Err(StoreError::Damaged(format!("position {} is gone", end - 1)));
        }
        let applied = tokio::task::spawn_blocking(move || apply_all(folded, &changes)).await;
        folded = applied.expect("what is applied is checked, and panics nowhere")?;
    }
    if end > 0 && folded.state.ledger != ledger.snapshot().state.ledger {
        return Err(StoreError::Damaged("position 0 is not what it was".into()));
    }
    require_all(client, ledger.id, &folded).await?;
    Ok(folded)
}

fn apply_all(mut folded: Folded, changes: &[StoredEntry]) -> Result<Folded, StoreError> {
    for stored in changes {
        let bad = |problem: String| {
            StoreError::Damaged(format!("position {}: {problem}", stored.position))
        };
        let opened = match &folded.state.ledger {
            Some(ledger) => stored.entry.open(&[ledger.entry_key]),
            None => stored.entry.open_first(),
        };
        let event = opened.map_err(|e| bad(e.to_string()))?;
        apply_change(&mut folded.state, stored.position, stored.entry.leaf_hash(), &event)
            .map_err(|e| bad(e.to_string()))?;
        folded.changes += 1;
    }
    Ok(folded)
}

/// No change was taken for a page: the newest page says, signed, how many there are.
async fn require_all(client: &Client, ledger_id: Uuid, folded: &Folded) -> Result<(), StoreError> {
    let Folded { state, changes } = folded;
    let pages = match (
        entries::newest_page(client, ledger_id, state.next_position).await?,
        &state.ledger,
    ) {
        (Some(page), Some(ledger)) => {
            let event = page.entry.open(&[ledger.entry_key]);
            match event.map(|event| event.kind) {
                Ok(Some(Kind::UsePage(page))) => page.number + 1,
                _ => {
                    return Err(StoreError::Damaged(format!(
                        "position {} is no page",
                        page.position
                    )));
                }
            }
        }
        _ => 0,
    };
    if pages + changes == state.next_position {
        return Ok(());
    }
    let problem =
        format!("{pages} pages and {changes} changes lie before position {}", state.next_position);
    Err(StoreError::Damaged(problem))
}
