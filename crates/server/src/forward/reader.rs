//! What a forwarder sends next: the events after its cursor that its filter means, in order, rendered.

use std::collections::VecDeque;
use std::sync::Arc;

use keyledger_ledger::body::Event;
use keyledger_ledger::category::{ACCESS, USE};
use keyledger_proto::parse::EventFilter;
use keyledger_proto::{AuditEvent, json};
use tokio::sync::Semaphore;

use super::config::{Forwarder, Target};
use super::notice::{Notice, is_about_all};
use super::otlp;
use crate::grpc::{Failure, Selection, Viewer, events_of};
use crate::replica::Replica;
use crate::sequencer::{Ledger, SignedCheckpoint};
use crate::store::entries::{self, FullEntry};
use crate::store::forwarders::Cursor;

/// Entries and bytes read at once.
const CHUNK: i64 = 128;
const CHUNK_BYTES: usize = 2 << 20;
/// Most bytes of the events of one batch; one event may be larger.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Events that are sent at once.
pub(super) struct Batch {
    /// Each as its receiver wants it.
    pub(super) events: Vec<Vec<u8>>,
    /// The positions of their entries, rising, each once.
    pub(super) positions: Vec<u64>,
    pub(super) first: Cursor,
    pub(super) last: Cursor,
    /// Covers all of them, where the receiver is told of it.
    pub(super) checkpoint: Option<Arc<SignedCheckpoint>>,
    /// Where the cursor stands when they were sent.
    pub(super) next: Cursor,
}

/// Reads a ledger for one forwarder.
pub(super) struct Reader {
    replica: Arc<Replica>,
    ledger: Arc<Ledger>,
    forwarder: Arc<Forwarder>,
    /// How many forwarders of this server may read at once: calls need the database more.
    places: Arc<Semaphore>,
    /// Everything before this was given out, or is not meant.
    pub(super) cursor: Cursor,
    /// Events that were read and not given out yet.
    read: VecDeque<(Cursor, Vec<u8>)>,
    /// Everything before this position was read.
    read_to: u64,
    /// The checkpoint up to which is read, where only what one covers is sent.
    checkpoint: Option<Arc<SignedCheckpoint>>,
}

impl Reader {
    pub(super) fn new(
        replica: Arc<Replica>,
        ledger: Arc<Ledger>,
        forwarder: Arc<Forwarder>,
        places: Arc<Semaphore>,
        cursor: Cursor,
    ) -> Reader {
        let (read, read_to) = (VecDeque::new(), cursor.position);
        let checkpoint = None;
        Reader { replica, ledger, forwarder, places, cursor, read, read_to, checkpoint }
    }

    /// Forgets what it has read from there on.
    pub(super) fn again_from(&mut self, cursor: Cursor) {
        (self.read, self.read_to, self.cursor) = (VecDeque::new(), cursor.position, cursor);
    }

    /// Whether there is nothing that it has not looked at.
    pub(super) fn is_at_head(&self) -> bool {
        self.read.is_empty() && self.read_to >= self.head()
    }

    /// The next events. `None`: there are none among the next entries, and the cursor was moved past them. `end` is where a
    /// batch must end that may have been sent before.
    pub(super) async fn batch(&mut self, end: Option<Cursor>) -> Result<Option<Batch>, Failure> {
        if self.read.is_empty() {
            self.read_more().await?;
        }
        let mut batch: Vec<(Cursor, Vec<u8>)> = vec![];
        let mut bytes = 0;
        while let Some((at, event)) = self.read.front() {
            let full = batch.len() >= self.most_events()
                || (!batch.is_empty() && bytes + event.len() > self.most_bytes());
            if full || end.is_some_and(|end| *at >= end) {
                break;
            }
            bytes += event.len();
            batch.extend(self.read.pop_front());
        }
        let next = match self.read.front() {
            Some((at, _)) => *at,
            None => Cursor { position: self.read_to, index: 0 },
        };
        // Another replica may have come further than this one knows the ledger.
        self.cursor = self.cursor.max(next);
        let (Some((first, _)), Some((last, _))) = (batch.first(), batch.last()) else {
            return Ok(None);
        };
        let (first, last, next) = (*first, *last, self.cursor);
        let mut positions: Vec<u64> = batch.iter().map(|(at, _)| at.position).collect();
        positions.dedup();
        let events = batch.into_iter().map(|(_, event)| event).collect();
        let checkpoint = self.checkpoint.clone();
        Ok(Some(Batch { events, positions, first, last, checkpoint, next }))
    }

    /// Reads some entries that it has not looked at, and keeps the events in them that are meant.
    async fn read_more(&mut self) -> Result<(), Failure> {
        let head = self.head();
        if self.read_to >= head {
            return Ok(());
        }
        if self.is_of_records() {
            self.checkpoint = self.ledger.newest_checkpoint();
        }
        let _place = self.places.clone().acquire_owned().await;
        let chunk = self.read_entries().await?;
        // What this replica has not applied yet is read later.
        let chunk: Vec<FullEntry> = chunk.into_iter().filter(|e| e.position < head).collect();
        let mut read = VecDeque::new();
        for entry in &chunk {
            let forwarder = &self.forwarder;
            let events = match self.is_of_records() {
                true => {
                    let (categories, filter) = (&forwarder.categories, &forwarder.filter);
                    otlp::records_of(&self.ledger, categories, filter, entry)?
                }
                false => self.events_of(entry).await?,
            };
            let at = |index| Cursor { position: entry.position, index };
            let events = events.into_iter().map(|(index, event)| (at(index), event));
            read.extend(events.filter(|(at, _)| *at >= self.cursor));
            // A page has many.
            tokio::task::yield_now().await;
        }
        self.read = read;
        self.read_to = chunk.last().map_or(head, |entry| entry.position + 1);
        Ok(())
    }

    /// The events of an entry that are meant, each with its index in the page and as its receiver wants it.
    async fn events_of(&self, entry: &FullEntry) -> Result<Vec<(u32, Vec<u8>)>, Failure> {
        let forwarder = &self.forwarder;
        let categories = &forwarder.categories;
        let viewer = Viewer::Server { replica: &self.replica, ledger: &self.ledger, categories };
        let about_all = match &forwarder.notice {
            None => false,
            Some(notice) => match self.noticed(notice, entry) {
                None => return Ok(vec![]),
                Some(about_all) => about_all,
            },
        };
        let filter = if about_all { EventFilter::default() } else { forwarder.filter.clone() };
        let selection = Selection { filter, ..Selection::default() };
        let events = events_of(&viewer, entry, &selection).await?;
        let rendered =
            |event: &AuditEvent| (event.index.unwrap_or(0), rendered(&forwarder.target, event));
        Ok(events.iter().map(rendered).collect())
    }

    /// Whether a notice is about an entry, and whether that is about all owners. What can't be read is left to verification.
    fn noticed(&self, notice: &Notice, entry: &FullEntry) -> Option<bool> {
        let event = Event::from_signed(&entry.entry.body).ok()?;
        let meant = notice.means(&event, &self.ledger.snapshot().state);
        meant.then(|| is_about_all(&event))
    }

    async fn read_entries(&self) -> Result<Vec<FullEntry>, Failure> {
        let client = self.ledger.database.client().await?;
        let (id, from) = (self.ledger.id, self.read_to);
        let chunk = match self.means_uses() {
            true => entries::full_from_position(&client, id, from, CHUNK, CHUNK_BYTES).await?,
            false => entries::full_without_pages(&client, id, from, CHUNK, CHUNK_BYTES).await?,
        };
        Ok(chunk)
    }

    /// Whether the filter can mean a use: pages are most of a ledger, and are not read for nothing.
    fn means_uses(&self) -> bool {
        let (categories, filter) = (&self.forwarder.categories, &self.forwarder.filter);
        let named = categories.is_empty() || categories.iter().any(|c| c == USE || c == ACCESS);
        let of_events =
            !filter.action.is_empty() || filter.outcome.is_some() || filter.min_severity.is_some();
        named && !of_events
    }

    fn most_events(&self) -> usize {
        match self.forwarder.target {
            Target::Webhook(_) => 100,
            Target::Syslog(_) | Target::File(_) => 1_000,
            Target::Otlp(_) => otlp::MAX_RECORDS,
        }
    }

    fn most_bytes(&self) -> usize {
        if self.is_of_records() { otlp::MAX_BYTES } else { MAX_BATCH_BYTES }
    }

    /// Whether log records are sent: they are made of signed bytes alone, and closed by a checkpoint.
    pub(super) fn is_of_records(&self) -> bool {
        matches!(self.forwarder.target, Target::Otlp(_))
    }

    /// Everything before this position may be sent.
    fn head(&self) -> u64 {
        match self.is_of_records() {
            true => self.ledger.newest_checkpoint().map_or(0, |c| c.checkpoint.size),
            false => self.ledger.snapshot().state.next_position,
        }
    }
}

fn rendered(target: &Target, event: &AuditEvent) -> Vec<u8> {
    match target {
        Target::Syslog(syslog) => syslog.frame(event),
        Target::Webhook(_) | Target::File(_) | Target::Otlp(_) => {
            json::line("AuditEvent", event).into_bytes()
        }
    }
}
