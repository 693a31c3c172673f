//! Usage by hour and by day: rows are read, added to, and written back. Those of the current hour and day are kept in memory.

use std::collections::{BTreeMap, HashMap};

use crate::store::client::Client;
use keyledger_ledger::usage::{Added, Slot, Usage};
use uuid::Uuid;

use crate::store::{StoreError, usage};

/// Most rows and bytes that are kept. Beyond that they are read again.
const MAX_ROWS: usize = 65_536;
const MAX_BYTES: usize = 32 << 20;

/// Rows as they were when the progress stood at a position. Nobody changes one without moving it.
#[derive(Default)]
pub(super) struct Rows {
    at: u64,
    packed: HashMap<Slot, Vec<u8>>,
    bytes: usize,
    /// The newest hour of which there was a row.
    newest: i64,
}

impl Rows {
    /// The rows as they are once something is added, when the progress stands at `from`.
    pub(super) async fn with(
        &mut self,
        client: &Client,
        ledger_id: Uuid,
        from: u64,
        added: Added,
    ) -> Result<BTreeMap<Slot, Vec<u8>>, StoreError> {
        if self.at != from {
            *self = Rows { at: from, ..Rows::default() };
        }
        let missing: Vec<Slot> =
            added.0.keys().filter(|slot| !self.packed.contains_key(slot)).copied().collect();
        let read = match missing.is_empty() {
            true => HashMap::new(),
            false => usage::rows(client, ledger_id, &missing).await?,
        };
        let mut rows = BTreeMap::new();
        for (slot, more) in added.0 {
            let packed = self.packed.get(&slot).or_else(|| read.get(&slot));
            let mut usage = packed.map(|packed| unpack(&slot, packed)).unwrap_or_default();
            usage.merge(&more);
            rows.insert(slot, usage.encode());
        }
        Ok(rows)
    }

    /// These rows were saved, and the progress stands at `to`.
    pub(super) fn saved(&mut self, to: u64, rows: BTreeMap<Slot, Vec<u8>>) {
        self.at = to;
        let newest = rows.keys().map(|(_, _, start)| *start).max().unwrap_or_default();
        for (slot, packed) in rows {
            self.bytes += packed.len();
            self.bytes -= self.packed.insert(slot, packed).map_or(0, |old| old.len());
        }
        if newest > self.newest {
            self.newest = newest;
            self.packed.retain(|(_, span, start), _| *start >= span.start(newest));
            self.bytes = self.packed.values().map(Vec::len).sum();
        }
        if self.packed.len() > MAX_ROWS || self.bytes > MAX_BYTES {
            *self = Rows { at: to, newest: self.newest, ..Rows::default() };
        }
    }
}

/// A row that somebody has damaged must not stop the index: it begins anew.
fn unpack(slot: &Slot, packed: &[u8]) -> Usage {
    Usage::decode(packed).unwrap_or_else(|| {
        tracing::error!(
            ?slot,
            "a row of usage_counts can't be read: its uses are counted from now on"
        );
        Usage::default()
    })
}
