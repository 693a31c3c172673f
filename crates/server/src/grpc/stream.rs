//! StreamEvents: every event once, in order, from a position on.
//!
//! Why none is missed: positions are gapless and become visible in order (they are given under the ledger's lock), so all
//! that a reader needs is `position >= cursor`:
//!
//! ```text
//! writer A: lock ── 7 ── COMMIT             reader: … 6 | reads >= 7: [7] | reads >= 8: [] | reads >= 8: [8]
//! writer B:               lock ── 8 ────────────────────────────────────── COMMIT
//! ```
//!
//! Why none comes too late: position p is sent only after this replica has applied p, and the reader's key is judged by that
//! newest state. What comes after the end of the key is not sent.

use std::time::Duration;

use keyledger_ledger::id::KeyId;
use keyledger_proto::{AuditEvent, EventView, StreamEventsRequest, StreamEventsResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::audit::{Selection, events_of, raw_event};
use super::call::CallContext;
use super::status::Failure;
use crate::store::entries;

/// Most messages that wait for a reader.
const BUFFER: usize = 64;
/// How long a reader may leave its buffer full.
const PATIENCE: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Entries and bytes read at once.
const CHUNK: i64 = 256;
const CHUNK_BYTES: usize = 4 << 20;

type Replies = mpsc::Sender<Result<StreamEventsResponse, Status>>;

pub(super) async fn stream_events(
    call: CallContext,
    request: StreamEventsRequest,
) -> Result<ReceiverStream<Result<StreamEventsResponse, Status>>, Failure> {
    let raw = request.view() == EventView::Raw;
    if raw {
        call.require_everything()?;
    }
    Selection::of(&call, &request.category, None)?;
    let size = call.head().state.next_position;
    let next = request.from_position.unwrap_or(size);
    let stop_at = request.stop_at_head.then_some(size);
    let place = call.ledger.open_stream()?;
    let (replies, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _place = place;
        let mut stream = Stream { call, category: request.category, raw, next, stop_at, replies };
        if let Err(Ended::Because(failure)) = stream.run().await {
            let _ = tokio::time::timeout(PATIENCE, stream.replies.send(Err(failure.into()))).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

struct Stream {
    call: CallContext,
    category: String,
    raw: bool,
    next: u64,
    stop_at: Option<u64>,
    replies: Replies,
}

enum Ended {
    /// The reader has gone away.
    Gone,
    Because(Failure),
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::Because(error.into())
    }
}

impl Stream {
    async fn run(&mut self) -> Result<(), Ended> {
        let mut size = self.call.ledger.watch_size();
        loop {
            let known = *size.borrow_and_update();
            let end = self.stop_at.unwrap_or(known);
            while self.next < end {
                self.send_chunk(end).await?;
            }
            if self.stop_at.is_some() {
                return Ok(());
            }
            tokio::select! {
                changed = size.changed() => if changed.is_err() { return Ok(()) },
                _ = tokio::time::sleep(HEARTBEAT) => self.heartbeat().await?,
                () = self.replies.closed() => return Err(Ended::Gone),
            }
        }
    }

    async fn send_chunk(&mut self, end: u64) -> Result<(), Ended> {
        let limit = CHUNK.min((end - self.next) as i64);
        let client = self.call.ledger.database.client().await?;
        let chunk = entries::full_from_position(
            &client,
            self.call.ledger.id,
            self.next,
            limit,
            CHUNK_BYTES,
        )
        .await?;
        drop(client);
        if chunk.is_empty() {
            return Err(Failure::Internal("published entries are not there").into());
        }
        for entry in chunk {
            let selection = self.selection()?;
            let events = match self.raw {
                true => vec![raw_event(&self.call, &entry).await?],
                false => events_of(&self.call, &entry, selection).await?,
            };
            let count = events.len();
            for (i, event) in events.into_iter().enumerate() {
                // The cursor moves past an entry with its last event.
                let next = if i + 1 == count { entry.position + 1 } else { entry.position };
                self.send(Some(event), next).await?;
            }
            self.next = entry.position + 1;
        }
        Ok(())
    }

    /// What the reader may see now; an error once its key has ended.
    fn selection(&self) -> Result<Selection, Failure> {
        if !self.call.still_stands() {
            return Err(Failure::KeyEnded);
        }
        Selection::of(&self.call, &self.category, None::<KeyId>)
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        self.selection()?;
        self.send(None, self.next).await
    }

    async fn send(&self, event: Option<AuditEvent>, next: u64) -> Result<(), Ended> {
        let checkpoint = match event {
            Some(_) => String::new(),
            None => self.call.ledger.newest_checkpoint().map_or(String::new(), |c| c.note.clone()),
        };
        let reply = StreamEventsResponse { event, next_position: Some(next), checkpoint };
        match tokio::time::timeout(PATIENCE, self.replies.send(Ok(reply))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Gone),
            Err(_) => Err(Failure::ReaderTooSlow { next_position: self.next }.into()),
        }
    }
}
