//! Suspends keys that nobody uses, and later revokes them, as the ledger's policy says. Every replica looks, round and round, at so many
//! keys a second; the first one that finds a key idle does it, since `decide` tells the others that it was done.
//!
//! When a key was last used is read up to the newest entry that this replica knows. A use that is decided while the suspension is on
//! its way doesn't stop it: then the key is suspended just after it was used, and somebody must resume it.

use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use keyledger_ledger::command::{Change, ChangeKind};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::idle;
use keyledger_ledger::state::{Key, State};

use super::{Ledger, SequencerError};
use crate::last_uses;
use crate::replica::{by_itself, own_clock};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many keys it looks at each time.
const KEYS: usize = 1_000;

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut after = None;
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if ledger.stopped().is_some() {
            return;
        }
        match look(&ledger, after, own_clock()).await {
            Ok(last) => after = last,
            Err(error) => tracing::warn!(%error, "idle keys could not be looked for"),
        }
    }
}

/// Looks at the next keys after one. Says which was the last; `None` if the round is done, or there is nothing to look for.
async fn look(
    ledger: &Ledger,
    after: Option<KeyId>,
    now: Time,
) -> Result<Option<KeyId>, SequencerError> {
    let state = ledger.snapshot().state.clone();
    if state.policy.policy.idle_suspend_after == 0 {
        return Ok(None);
    }
    let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
    let keys = state.keys.range((begin, Bound::Unbounded)).take(KEYS);
    let keys: Vec<Arc<Key>> = keys.map(|(_, key)| key.clone()).collect();
    let last = keys.last().filter(|_| keys.len() == KEYS).map(|key| key.id);
    let might: Vec<&Arc<Key>> =
        keys.iter().filter(|key| idle::might_end(&state, key, now)).collect();
    if !might.is_empty() {
        end_idle(ledger, &state, &might, now).await?;
    }
    Ok(last)
}

async fn end_idle(
    ledger: &Ledger,
    state: &State,
    keys: &[&Arc<Key>],
    now: Time,
) -> Result<(), SequencerError> {
    // What other replicas have recorded counts, too.
    ledger.catch_up().await?;
    let ids: Vec<KeyId> = keys.iter().map(|key| key.id).collect();
    let last_uses = last_uses::of_keys(ledger, &ids).await?;
    let last_use = |key: &Key| last_uses.get(&key.id)?.values().max().copied();
    let idle = keys.iter().filter_map(|key| {
        let since = idle::since(key, last_use(key));
        idle::end_of(state, key, since, now).map(|_| (key.id, since))
    });
    let ends = idle.map(|(key_id, idle_since)| {
        let kind = ChangeKind::NoteIdle { key_id, idle_since };
        by_itself(ledger, Change::new(kind, vec![]))
    });
    try_join_all(ends).await?;
    Ok(())
}
