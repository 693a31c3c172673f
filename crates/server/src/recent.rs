//! The newest entries of a ledger, whole and decoded, for the streams that are at its head: each is read once by whoever needs
//! it first, and all others take it from memory. Streams that are farther behind read for themselves.
//!
//! Nothing opened is kept: texts stay sealed until they are given to a reader, so a person who is erased is gone at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::page::{ReadUse, read_uses};
use tokio::time::Instant;

use crate::sealing::Sealing;
use crate::sequencer::{Ledger, SequencerError};
use crate::store::StoreError;
use crate::store::entries::{self, FullEntry};

/// Most entries and bytes that are kept of a ledger. One entry is kept even if it has more.
const MAX_KEPT: usize = 4_096;
const MAX_KEPT_BYTES: usize = 16 << 20;
/// Entries and bytes read at once.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 4 << 20;
/// What an entry takes in memory besides its bytes, about.
const OVERHEAD: usize = 1_024;

/// What of a ledger's newest entries is in memory.
#[derive(Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
    /// Whoever reads on holds this, so that nobody else reads the same. When it failed last, and why: whoever waited meanwhile
    /// fails with it and doesn't try again.
    reading: tokio::sync::Mutex<Option<(Instant, SequencerError)>>,
}

#[derive(Default)]
struct Kept {
    /// Without gaps.
    entries: VecDeque<Arc<Whole>>,
    bytes: usize,
}

/// An entry with all that lies beside it, decoded once.
pub(crate) struct Whole {
    pub(crate) entry: FullEntry,
    /// `None`: it can't be read.
    pub(crate) event: Option<Event>,
    /// The uses of its page, once somebody has asked for them.
    pub(crate) uses: OnceLock<Vec<ReadUse>>,
}

impl Whole {
    fn new(entry: FullEntry) -> Whole {
        let event = Event::from_signed(&entry.entry.body).ok();
        Whole { entry, event, uses: OnceLock::new() }
    }

    /// Uses and body are there twice, the second time decoded.
    fn bytes(&self) -> usize {
        let FullEntry { entry, sealed, uses, .. } = &self.entry;
        2 * (entry.body.len() + uses.len()) + sealed.len() + OVERHEAD
    }
}

/// Entries from a position on, in order: at least one, and none at `end` or after it. All of them must be durable.
pub(crate) async fn from_position(
    ledger: &Ledger,
    sealing: &Sealing,
    from: u64,
    end: u64,
) -> Result<Vec<Arc<Whole>>, SequencerError> {
    let recent = &ledger.recent;
    if let Some(entries) = recent.take(from, end) {
        return Ok(entries);
    }
    // No farther than this replica has applied: what is durable there stays so.
    let head = ledger.snapshot().state.next_position;
    let asked = Instant::now();
    if from < recent.begin(head) {
        return read(ledger, from, CHUNK.min(end - from)).await;
    }
    let mut failed = recent.reading.lock().await;
    loop {
        if let Some(entries) = recent.take(from, end) {
            return Ok(entries);
        }
        if from < recent.begin(head) {
            return read(ledger, from, CHUNK.min(end - from)).await;
        }
        if let Some((at, error)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            tracing::debug!(since = ?at.elapsed(), "another stream has just failed to read on");
            return Err(error.clone());
        }
        // What is missed between what is kept and `from` is read too, unless it would be more than one chunk.
        let next = recent.next(head, from);
        match read(ledger, next, CHUNK.min(head - next)).await {
            Ok(entries) => {
                load_keys(ledger, sealing, &entries).await;
                recent.keep(entries);
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        }
    }
}

impl Recent {
    /// What is there of a range, if its first entry is.
    fn take(&self, from: u64, end: u64) -> Option<Vec<Arc<Whole>>> {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        let first = kept.entries.front()?.entry.position;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let most = CHUNK.min(end.saturating_sub(from)) as usize;
        let entries: Vec<_> = kept.entries.iter().skip(skip).take(most).cloned().collect();
        (!entries.is_empty()).then_some(entries)
    }

    /// The first position that is kept, or will be once somebody reads.
    fn begin(&self, head: u64) -> u64 {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        kept.entries.front().map_or(head.saturating_sub(CHUNK), |first| first.entry.position)
    }

    /// Where to read on so that `from` is reached. Begins anew when nothing is kept, or only what lies far behind.
    fn next(&self, head: u64, from: u64) -> u64 {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        let next = kept.entries.back().map(|last| last.entry.position + 1);
        match next.filter(|next| from.abs_diff(*next) <= CHUNK) {
            Some(next) => next,
            None => {
                *kept = Kept::default();
                head.saturating_sub(CHUNK).min(from)
            }
        }
    }

    /// Adds entries that follow those that are kept.
    fn keep(&self, entries: Vec<Arc<Whole>>) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.bytes += entries.iter().map(|whole| whole.bytes()).sum::<usize>();
        kept.entries.extend(entries);
        while kept.entries.len() > 1
            && (kept.entries.len() > MAX_KEPT || kept.bytes > MAX_KEPT_BYTES)
        {
            let oldest = kept.entries.pop_front().expect("there is more than one");
            kept.bytes -= oldest.bytes();
        }
    }
}

/// Some entries from a position on, from the database. One that is not where it must be is damage.
async fn read(ledger: &Ledger, from: u64, limit: u64) -> Result<Vec<Arc<Whole>>, SequencerError> {
    let client = ledger.database.client().await?;
    let limit = limit as i64;
    let read = entries::full_from_position(&client, ledger.id, from, limit, CHUNK_BYTES).await?;
    drop(client);
    let in_order = read.iter().map(|entry| entry.position).eq(from..from + read.len() as u64);
    match in_order && !read.is_empty() {
        true => Ok(read.into_iter().map(|entry| Arc::new(Whole::new(entry))).collect()),
        false => Err(StoreError::Damaged(format!("an entry from {from} on is missing")).into()),
    }
}

/// Brings the data keys of what was read into memory, once for all streams. Whoever misses one looks for it again.
async fn load_keys(ledger: &Ledger, sealing: &Sealing, entries: &[Arc<Whole>]) {
    let mut references: Vec<[u8; 16]> = vec![];
    for whole in entries {
        let Some(event) = &whole.event else { continue };
        let own = event.texts.iter();
        let of_page = match &event.kind {
            Some(Kind::UsePage(page)) => read_uses(page, &whole.entry.uses).unwrap_or_default(),
            _ => vec![],
        };
        let texts = own.chain(of_page.iter().flat_map(|read| &read.r#use.texts));
        references.extend(texts.filter_map(|t| <[u8; 16]>::try_from(&*t.subject_ref).ok()));
        if !of_page.is_empty() {
            let _ = whole.uses.set(of_page);
        }
    }
    if let Err(error) = sealing.load(ledger.id, &references).await {
        tracing::debug!(%error, "data keys of new entries could not be read");
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::entry::Entry;
    use keyledger_ledger::record::Columns;

    use super::*;

    fn whole(position: u64, bytes: usize) -> Arc<Whole> {
        let entry = Entry {
            payload_type: String::new(),
            body: vec![],
            public_key_sha256: [0; 32],
            signature: [0; 64],
        };
        let columns = Columns::derive(&Event::default(), [0; 32]);
        let (sealed, uses) = (vec![0; bytes], vec![]);
        Arc::new(Whole::new(FullEntry { position, entry, sealed, uses, columns }))
    }

    fn positions(taken: Option<Vec<Arc<Whole>>>) -> Vec<u64> {
        taken.unwrap_or_default().iter().map(|whole| whole.entry.position).collect()
    }

    #[test]
    fn what_is_kept_is_bounded_and_has_no_gaps() {
        let recent = Recent::default();
        for position in 100..100 + 2 * MAX_KEPT as u64 {
            recent.keep(vec![whole(position, 10)]);
        }
        let head = 100 + 2 * MAX_KEPT as u64;
        let first = head - MAX_KEPT as u64;
        assert_eq!(recent.begin(head), first);
        assert_eq!(positions(recent.take(first - 1, head)), [0; 0]);
        assert_eq!(positions(recent.take(head - 2, head)), [head - 2, head - 1]);
        assert_eq!(positions(recent.take(head - 2, head - 1)), [head - 2]);
        assert_eq!(positions(recent.take(head, head + 1)), [0; 0]);
        recent.keep(vec![whole(head, MAX_KEPT_BYTES + 1)]);
        assert_eq!(recent.begin(head + 1), head, "one is kept, however large");
    }

    #[test]
    fn reading_goes_on_where_it_ended_and_begins_anew_when_that_is_far_behind() {
        let recent = Recent::default();
        assert_eq!(recent.next(1_000, 990), 1_000 - CHUNK, "others may need what lies before");
        recent.keep((900..910).map(|position| whole(position, 10)).collect());
        assert_eq!(recent.next(1_000, 990), 910);
        assert_eq!(recent.next(9_000, 8_999), 9_000 - CHUNK);
        assert_eq!(positions(recent.take(905, 910)), [0; 0], "what is old is forgotten");
    }
}
