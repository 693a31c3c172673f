//! The observer: reads each new entry once, behind the commit, and keeps what is derived from it.
//!
//! - [`seen`]: an entry with what is read out of it, and its observations.
//! - `index`: at which positions something is found by a term, and how many events have which value.
//! - `usage`: how often keys were used, by hour and by day.
//! - `first_keys`: the first key of each owner.
//! - `newest`: usage up to the newest entry, for queries.
//! - `histories`: how keys and owners were used before.
//! - `notice`: what is unusual, and is raised before the pass is saved.
//!
//! A pass reads a run of entries, folds them, and saves all of it in one statement that also moves the progress on, if it still
//! stands where the pass began: so all that is kept belongs to one position, whoever wrote it, and a pass that was lost is made
//! again. One replica at a time makes the passes, by a lease, so that others don't do the same work; nothing rests on it. A query
//! that needs what isn't there yet makes a pass itself.

mod first_keys;
mod histories;
mod index;
mod newest;
mod notice;
pub(crate) mod seen;
mod usage;

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::client::Client;
use keyledger_ledger::anomaly::Observation;
use keyledger_ledger::state::State;
use keyledger_ledger::usage::Added;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::last_uses;
use crate::sequencer::Ledger;
use crate::store::{StoreError, entries, event_index};
pub(crate) use first_keys::FirstKeys;
pub(crate) use index::count_entry;
pub(crate) use newest::usage_of;
use notice::Noticing;
use seen::Seen;
use usage::Rows;

/// How long it waits after a look at new entries: longer if it had much to write, so that callers don't feel it.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// So many rows are much.
const MANY_ROWS: usize = 4_096;
/// How long others wait for a replica that is gone.
const LEASE: Duration = Duration::from_secs(8);
/// How often it is looked whether something is over while nothing happens.
const REST: Duration = Duration::from_secs(10);
/// Most entries and bytes of one run: as much as comes in between two looks, since each run writes a row for each key.
const RUN_ENTRIES: i64 = 8_192;
const RUN_BYTES: usize = 32 << 20;
/// So many observations are folded before others have a turn.
const TURN: usize = 1_024;

/// What is known of a ledger from one pass to the next.
#[derive(Default)]
pub(crate) struct Observer {
    /// How far the passes are known to have come, whoever made them.
    known: AtomicU64,
    /// One pass at a time.
    kept: Mutex<Kept>,
}

impl Observer {
    /// The first entry that no pass has looked at, as far as this replica knows.
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }
}

/// What needs not be read again. All of it follows from the database.
#[derive(Default)]
struct Kept {
    usage: Rows,
    first_keys: FirstKeys,
    monitor: Option<notice::Kept>,
    /// When it was last looked whether something is over, although nothing was read.
    rested: Option<Instant>,
}

/// Runs until the ledger is dropped. `replica` is this process.
pub(crate) async fn run(ledger: Weak<Ledger>, replica: Uuid) {
    let mut pause = SHORT_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let Some(ledger) = ledger.upgrade() else { return };
        pause = match look(&ledger, replica).await {
            Ok(rows) => pause_after(rows),
            Err(error) => {
                tracing::warn!(%error, "new entries could not be looked at");
                LONG_PAUSE
            }
        };
    }
}

fn pause_after(rows: usize) -> Duration {
    let share = rows.min(MANY_ROWS) as f64 / MANY_ROWS as f64;
    SHORT_PAUSE + (LONG_PAUSE - SHORT_PAUSE).mul_f64(share)
}

/// Makes passes up to the newest entry, if this replica is the one to do so. Says how many rows were written.
async fn look(ledger: &Ledger, replica: Uuid) -> Result<usize, StoreError> {
    let mut rows = 0;
    let size = ledger.snapshot().state.next_position;
    while ledger.observer.known.load(Ordering::Relaxed) < size {
        let client = ledger.database.client().await?;
        let known = event_index::progress(&client, ledger.id).await?;
        ledger.observer.known.store(known, Ordering::Relaxed);
        let lease = LEASE.as_millis() as i64;
        if known >= size || !event_index::take_lease(&client, ledger.id, replica, lease).await? {
            break;
        }
        drop(client);
        rows += pass(ledger, size).await?.unwrap_or_default();
    }
    if rows == 0 {
        rest(ledger, replica).await?;
    }
    Ok(rows)
}

/// Comes up to the newest entry that this replica knows, whoever has the lease.
pub(crate) async fn advance(ledger: &Ledger) -> Result<(), StoreError> {
    let size = ledger.snapshot().state.next_position;
    while pass(ledger, size).await?.is_some() {}
    Ok(())
}

/// Makes one pass, over entries before `size`. Says how many rows it wrote; `None`: there was nothing to do.
async fn pass(ledger: &Ledger, size: u64) -> Result<Option<usize>, StoreError> {
    let kept = &mut *ledger.observer.kept.lock().await;
    let client = ledger.database.client().await?;
    let from = event_index::progress(&client, ledger.id).await?;
    ledger.observer.known.store(from, Ordering::Relaxed);
    let seen = read(&client, ledger, from, size).await?;
    let Some(to) = seen.last().map(|last| last.position + 1) else { return Ok(None) };
    let state = &ledger.snapshot().state;
    let observations = seen::observations(ledger, &seen, |_| true).await?;
    kept.first_keys.follow(state, from, &seen);
    let mut run = index::run_of(state, &seen);
    last_uses::add(&mut run.last_uses, &seen);
    let mut added = Added::default();
    for some in observations.chunks(TURN) {
        add(&mut added, state, &kept.first_keys, some);
        tokio::task::yield_now().await;
    }
    run.usage = kept.usage.with(&client, ledger.id, from, added).await?;
    // All is folded, nothing is saved: what is noticed becomes entries first. A pass that isn't saved is made again from the same
    // entries, and `decide` knows what was raised.
    let monitor = kept.monitor.take();
    let noticing = Noticing::begin(ledger, &client, &kept.first_keys, monitor, from).await?;
    let Some(mut noticing) = noticing else { return Ok(Some(0)) };
    if !noticing.observe(&observations).await? {
        return Ok(Some(0));
    }
    // Of what has come since, something may have happened before now.
    if to == ledger.snapshot().state.next_position {
        noticing.end_by_now(to).await?;
    }
    notice::suspend(ledger).await?;
    noticing.count(&mut run.anomalies);
    run.monitor = noticing.to_store();
    let rows = run.rows();
    if event_index::advance(&client, ledger.id, from..to, &run).await? {
        kept.monitor = Some(noticing.saved(to, run.monitor));
        kept.usage.saved(to, run.usage);
        ledger.observer.known.store(to, Ordering::Relaxed);
    }
    Ok(Some(rows))
}

/// Looks whether something is over, although nothing has happened; and does what a replica that is gone has left undone.
async fn rest(ledger: &Ledger, replica: Uuid) -> Result<(), StoreError> {
    let kept = &mut *ledger.observer.kept.lock().await;
    let rested = kept.rested.is_some_and(|at| at.elapsed() < REST);
    if rested || ledger.snapshot().state.anomalies.open.is_empty() {
        return Ok(());
    }
    kept.rested = Some(Instant::now());
    let client = ledger.database.client().await?;
    let lease = LEASE.as_millis() as i64;
    if !event_index::take_lease(&client, ledger.id, replica, lease).await? {
        return Ok(());
    }
    let at = event_index::progress(&client, ledger.id).await?;
    if at < ledger.snapshot().state.next_position {
        return Ok(());
    }
    let monitor = kept.monitor.take();
    let noticing = Noticing::begin(ledger, &client, &kept.first_keys, monitor, at).await?;
    // What is over leaves an entry, and so a pass that saves this; until then it is found to be over again, and was done.
    if let Some(mut noticing) = noticing {
        noticing.end_by_now(at).await?;
        kept.monitor = Some(noticing.saved(at, None));
    }
    notice::suspend(ledger).await
}

/// Entries from a position on, before `size`.
async fn read(
    client: &Client,
    ledger: &Ledger,
    from: u64,
    size: u64,
) -> Result<Vec<Seen>, StoreError> {
    if from >= size {
        return Ok(vec![]);
    }
    let limit = RUN_ENTRIES.min((size - from) as i64);
    let entries = entries::full_from_position(client, ledger.id, from, limit, RUN_BYTES).await?;
    Ok(entries.into_iter().map(Seen::of).collect())
}

/// What observations add to the usage of keys, of owners with more keys than one, and of the ledger.
fn add(added: &mut Added, state: &State, first_keys: &FirstKeys, observations: &[Observation]) {
    for observation in observations {
        // A key of another ledger may have asked.
        let key = observation.key.and_then(|(id, _)| state.keys.get(&id));
        let further = key.and_then(|key| first_keys.is_further(key));
        added.add(observation, key.map(|key| key.id), further);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_had_much_to_write_waits_longer() {
        assert_eq!(pause_after(0), Duration::from_secs(1));
        assert_eq!(pause_after(MANY_ROWS / 2), Duration::from_secs(3));
        assert_eq!(pause_after(1_000_000), Duration::from_secs(5));
    }
}
