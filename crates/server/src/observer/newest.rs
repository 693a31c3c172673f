//! Usage up to the newest entry that this replica knows: as far as the passes have come from the rows, and from there on from the
//! entries themselves.

use std::ops::Range;

use keyledger_ledger::id::KeyId;
use keyledger_ledger::usage::{Meter, Usage, hour_of};

use super::seen::{self, Seen};
use super::{TURN, advance};
use crate::sequencer::Ledger;
use crate::store::event_counts::Snapshot;
use crate::store::{StoreError, entries, event_index};

/// Most entries that a query reads beyond the rows. Where there are more, it makes a pass first.
const MAX_BEYOND: u64 = 256;
/// Entries and bytes that are read at once.
const CHUNK: u64 = 64;
const CHUNK_BYTES: usize = 8 << 20;

/// The usage of some meters in some hours by entries before `size`, and perhaps some more; and the position up to which was counted.
/// `wants` says which keys these meters are of.
pub(crate) async fn usage_of(
    ledger: &Ledger,
    size: u64,
    meters: &[Meter],
    hours: &Range<i64>,
    wants: impl Fn(Option<KeyId>) -> bool,
) -> Result<(Usage, u64), StoreError> {
    let mut client = ledger.database.client().await?;
    if size.saturating_sub(event_index::progress(&client, ledger.id).await?) > MAX_BEYOND {
        drop(client);
        advance(ledger).await?;
        client = ledger.database.client().await?;
    }
    let snapshot = Snapshot::take(&mut client, ledger.id).await?;
    let mut usage = snapshot.usage(meters, hours).await?;
    // What the rows of this moment have is left out of what is read now, and nothing else.
    let mut next = snapshot.indexed;
    drop(snapshot);
    while next < size {
        let limit = CHUNK.min(size - next) as i64;
        let read =
            entries::full_from_position(&client, ledger.id, next, limit, CHUNK_BYTES).await?;
        let seen: Vec<Seen> = read.into_iter().map(Seen::of).collect();
        let Some(last) = seen.last() else { break };
        next = last.position + 1;
        let observations = seen::observations(ledger, &seen, &wants).await?;
        for some in observations.chunks(TURN) {
            let meant = some.iter().filter(|o| hours.contains(&hour_of(o.time)));
            meant.for_each(|observation| usage.add(observation));
            tokio::task::yield_now().await;
        }
    }
    Ok((usage, next))
}
