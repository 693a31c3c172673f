//! Raw entries of a ledger over gRPC, from its beginning to its head, and its newest checkpoint.

use keyledger_proto::{
    EventView, GetCheckpointRequest, GetCheckpointResponse, RawEntry, StreamEventsRequest,
    StreamEventsResponse,
};
use tonic::Streaming;

use crate::connection::Session;
use crate::failure::Failure;

/// A stream that ends when it has sent what the ledger held when it began.
pub(crate) struct RawEntries<'a> {
    session: &'a Session,
    stream: Streaming<StreamEventsResponse>,
}

impl<'a> RawEntries<'a> {
    pub(crate) async fn open(session: &'a Session) -> Result<RawEntries<'a>, Failure> {
        let request = StreamEventsRequest {
            from_position: Some(0),
            view: EventView::Raw as i32,
            stop_at_head: true,
            ..StreamEventsRequest::default()
        };
        let stream = session.audit().stream_events(session.stream(request)).await;
        let stream = stream.map_err(|s| session.failure(&s))?.into_inner();
        Ok(RawEntries { session, stream })
    }

    /// The next entry, with the position that the server says it has.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, RawEntry)>, Failure> {
        while let Some(reply) = self.stream.message().await.map_err(|s| self.session.failure(&s))? {
            // Without an event it is a heartbeat.
            let Some(event) = reply.event else { continue };
            return match (event.position, event.raw) {
                (Some(position), Some(raw)) => Ok(Some((position, raw))),
                _ => Err(Failure::new("the server sent an event without its signed bytes")
                    .next("check that the server is of the same version as this command")),
            };
        }
        Ok(None)
    }
}

/// The newest signed checkpoint of the ledger.
pub(crate) async fn newest_checkpoint(session: &Session) -> Result<GetCheckpointResponse, Failure> {
    let reply = session.audit().get_checkpoint(session.call(GetCheckpointRequest {})).await;
    let reply = reply.map_err(|s| session.failure(&s))?.into_inner();
    if reply.note.is_empty() {
        return Err(Failure::new("the server has not signed a checkpoint of this ledger yet")
            .next("wait a moment, then run the command again"));
    }
    Ok(reply)
}
