//! When keys were last used: as far as the index has come from its table, and from there on from the newest entries. Each of
//! those is read once, and kept until the index has it.
//!
//! What counts: an allowed call, an allowed check as the key asked about or as the one that asked, and a change made with the key.

use std::collections::{BTreeMap, HashMap};

use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::used_with;
use tokio::sync::{Mutex, MutexGuard};

use crate::observer;
use crate::observer::seen::Seen;
use crate::sequencer::Ledger;
use crate::store::StoreError;
use crate::store::entries;
use crate::store::event_index::{self, LastUse, LastUses};

/// Most entries that queries read beyond the index. Where there are more, they help it on first.
const MAX_BEYOND: u64 = 1_024;
/// Entries and bytes that are read at once.
const CHUNK: i64 = 64;
const CHUNK_BYTES: usize = 8 << 20;

/// Last uses that the index doesn't have yet, of one ledger.
#[derive(Default)]
pub(crate) struct NewestUses(Mutex<Beyond>);

#[derive(Default)]
struct Beyond {
    /// How far the index had come when it was last asked.
    indexed: u64,
    /// How far the entries beyond it were read.
    read: u64,
    uses: LastUses,
}

/// When each secret of the given keys was last used, by its version. A key that was never used has none.
pub(crate) async fn of_keys(
    ledger: &Ledger,
    key_ids: &[KeyId],
) -> Result<HashMap<KeyId, BTreeMap<u32, Time>>, StoreError> {
    let mut found: HashMap<KeyId, BTreeMap<u32, Time>> = HashMap::new();
    // The newest first: what the index takes over in between is then found twice, and not missed.
    let newest = ledger.newest_uses.up_to_now(ledger).await?;
    for key_id in key_ids {
        let of_key = newest.uses.range((*key_id, 0)..=(*key_id, u32::MAX));
        let times = of_key.map(|((_, version), last)| (*version, last.time));
        found.entry(*key_id).or_default().extend(times);
    }
    drop(newest);
    let client = ledger.database.client().await?;
    for ((key_id, version), last) in event_index::last_uses(&client, ledger.id, key_ids).await? {
        let time = found.entry(key_id).or_default().entry(version).or_insert(last.time);
        *time = last.time.max(*time);
    }
    Ok(found)
}

impl NewestUses {
    /// All that the index doesn't have, up to the newest entry that this replica knows.
    async fn up_to_now(&self, ledger: &Ledger) -> Result<MutexGuard<'_, Beyond>, StoreError> {
        let mut beyond = self.0.lock().await;
        let head = ledger.snapshot().state.next_position;
        let mut indexed = progress(ledger).await?;
        if head.saturating_sub(indexed) > MAX_BEYOND {
            observer::advance(ledger).await?;
            indexed = progress(ledger).await?;
        }
        if indexed > beyond.indexed {
            beyond.indexed = indexed;
            beyond.read = beyond.read.max(indexed);
            beyond.uses.retain(|_, last| last.position >= indexed);
        }
        let client = ledger.database.client().await?;
        while beyond.read < head {
            let from = beyond.read;
            let entries =
                entries::full_from_position(&client, ledger.id, from, CHUNK, CHUNK_BYTES).await?;
            let Some(newest) = entries.last() else { break };
            beyond.read = newest.position + 1;
            add(&mut beyond.uses, &entries.into_iter().map(Seen::of).collect::<Vec<_>>());
        }
        Ok(beyond)
    }
}

async fn progress(ledger: &Ledger) -> Result<u64, StoreError> {
    let client = ledger.database.client().await?;
    event_index::progress(&client, ledger.id).await
}

/// Takes over what entries say, which come in order.
pub(crate) fn add(uses: &mut LastUses, seen: &[Seen]) {
    for Seen { position, time, event, uses: page, .. } in seen {
        let (position, time) = (*position, *time);
        for (r#use, secret) in
            page.iter().flat_map(|read| used_with(&read.r#use).map(move |s| (&read.r#use, s)))
        {
            let time = Time(r#use.last_time_us).max(time);
            uses.insert(secret, LastUse { position, time });
        }
        let caller = event.as_ref().and_then(|event| event.caller.as_ref());
        let secret = caller.and_then(|c| Some((KeyId::from_slice(&c.key_id)?, c.version)));
        if let Some(secret) = secret {
            uses.insert(secret, LastUse { position, time });
        }
    }
}
