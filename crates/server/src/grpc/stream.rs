//! StreamEvents: every event once, in order, from a position on.

use keyledger_proto::{AuditEvent, EventView, StreamEventsRequest, StreamEventsResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::call::CallContext;
use super::events::{Selection, Viewer, events_of, raw_event};
use super::follow::{Ended, Reader, Source, follow};
use super::status::Failure;
use crate::store::entries;

/// Entries and bytes read at once.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 4 << 20;

pub(super) async fn stream_events(
    call: CallContext,
    request: StreamEventsRequest,
) -> Result<ReceiverStream<Result<StreamEventsResponse, Status>>, Failure> {
    let (size, ledger) = (call.head().state.next_position, call.ledger.clone());
    let next = request.from_position.unwrap_or(size);
    let stop_at = request.stop_at_head.then_some(size);
    let raw = request.view() == EventView::Raw;
    let selection = Selection { category: request.category, ..Selection::default() };
    let events = Events { call, selection, raw };
    events.check()?;
    follow(ledger, events, next, stop_at)
}

struct Events {
    call: CallContext,
    selection: Selection,
    raw: bool,
}

impl Source for Events {
    type Reply = StreamEventsResponse;

    async fn send_some(
        &mut self,
        reader: &mut Reader<StreamEventsResponse>,
        end: u64,
    ) -> Result<(), Ended> {
        let limit = CHUNK.min(end - reader.next) as i64;
        let client = self.call.ledger.database.client().await?;
        let chunk = entries::full_from_position(
            &client,
            self.call.ledger.id,
            reader.next,
            limit,
            CHUNK_BYTES,
        )
        .await?;
        drop(client);
        if chunk.is_empty() {
            return Err(Failure::Internal("published entries are not there").into());
        }
        for entry in chunk {
            self.check()?;
            let events = match self.raw {
                true => vec![raw_event(&self.call, &entry).await?],
                false => events_of(&Viewer::Caller(&self.call), &entry, &self.selection).await?,
            };
            let count = events.len();
            for (i, event) in events.into_iter().enumerate() {
                // The cursor moves past an entry with its last event.
                let next = if i + 1 == count { entry.position + 1 } else { entry.position };
                reader.send(reply(Some(event), next, String::new())).await?;
            }
            reader.next = entry.position + 1;
        }
        Ok(())
    }

    fn heartbeat(&self, next_position: u64) -> Result<StreamEventsResponse, Failure> {
        self.check()?;
        let checkpoint = self.call.ledger.newest_checkpoint();
        let note = checkpoint.map_or(String::new(), |c| c.note.clone());
        Ok(reply(None, next_position, note))
    }
}

impl Events {
    /// An error once the reader's key has ended, or may not read this any more.
    fn check(&self) -> Result<(), Failure> {
        if !self.call.still_stands() {
            return Err(Failure::KeyEnded);
        }
        if self.raw {
            self.call.require_everything()?;
        }
        self.selection.check_for(&self.call)
    }
}

fn reply(event: Option<AuditEvent>, next: u64, checkpoint: String) -> StreamEventsResponse {
    StreamEventsResponse { event, next_position: Some(next), checkpoint }
}
