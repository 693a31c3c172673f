//! Fills the index of uses by key, behind the commit: reads entries that it doesn't cover yet, adds a row per key and run, and
//! notes when each secret was last used.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use keyledger_ledger::body::Use;
use keyledger_ledger::id::KeyId;

use crate::last_uses::{self, uses_of_page};
use crate::sequencer::Ledger;
use crate::store::key_uses::LastUses;
use crate::store::{StoreError, entries, key_uses};

/// How often it looks for new pages. Longer runs make fewer rows; queries read what is newer themselves.
const INTERVAL: Duration = Duration::from_secs(5);
/// Most entries and bytes of one run.
const RUN_ENTRIES: i64 = 1_024;
const RUN_BYTES: usize = 32 << 20;

/// Runs until the ledger is dropped.
pub(crate) async fn run(ledger: Weak<Ledger>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if let Err(error) = advance(&ledger).await {
            tracing::warn!(%error, "the index of uses could not be filled");
        }
    }
}

/// Comes up to the newest entry that this replica knows.
pub(crate) async fn advance(ledger: &Ledger) -> Result<(), StoreError> {
    let head = ledger.snapshot().state.next_position;
    loop {
        let client = ledger.database.client().await?;
        let from = key_uses::progress(&client, ledger.id).await?;
        if from >= head {
            return Ok(());
        }
        let entries =
            entries::full_from_position(&client, ledger.id, from, RUN_ENTRIES, RUN_BYTES).await?;
        let Some(to) = entries.last().map(|e| e.position + 1) else { return Ok(()) };
        let mut pages: BTreeMap<KeyId, Vec<i64>> = BTreeMap::new();
        for entry in &entries {
            for key in uses_of_page(entry).iter().flat_map(keys_of_use) {
                let positions = pages.entry(key).or_default();
                if positions.last() != Some(&(entry.position as i64)) {
                    positions.push(entry.position as i64);
                }
            }
        }
        let mut last_uses = LastUses::new();
        last_uses::add(&mut last_uses, &entries);
        key_uses::advance(&client, ledger.id, from, to, &pages, &last_uses).await?;
    }
}

/// The key that was used, and the one that asked.
fn keys_of_use(u: &Use) -> impl Iterator<Item = KeyId> + use<> {
    let asker = u.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
    [KeyId::from_slice(&u.key_id), asker].into_iter().flatten()
}
