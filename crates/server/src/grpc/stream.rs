//! StreamEvents: every event once, in order, from a position or a time on.

use keyledger_ledger::id::Time;
use keyledger_proto::parse::{Begin, StreamEvents};
use keyledger_proto::{AuditEvent, StreamEventsResponse};

use super::call::CallContext;
use super::events::{Decoded, Selection, Viewer, damaged, events_of_decoded, raw_event};
use super::follow::{Ended, Reader, Source, follow};
use super::replies::Replies;
use super::status::Failure;
use crate::recent::{self, Whole};
use crate::store::entries;

pub(super) async fn stream_events(
    call: CallContext,
    r: StreamEvents,
) -> Result<Replies<StreamEventsResponse>, Failure> {
    let (replica, ledger) = (call.replica.clone(), call.ledger.clone());
    let size = call.head().state.next_position;
    let next = first_position(&call, r.begin, size).await?;
    let stop_at = match r.filter.end {
        Some(time) => Some(position_at(&call, time, size).await?),
        None => r.stop_at_head.then_some(size),
    };
    let selection = Selection {
        category: r.category,
        key_id: r.key_id,
        filter: r.filter,
        ..Selection::default()
    };
    let events = Events { call, selection, raw: r.raw, not_before: r.begin.time };
    events.check()?;
    follow(&replica.streams, ledger, events, next, stop_at)
}

async fn first_position(call: &CallContext, begin: Begin, size: u64) -> Result<u64, Failure> {
    let at_time = match begin.time {
        Some(time) => Some(position_at(call, time, size).await?),
        None => None,
    };
    Ok(begin.position.max(at_time).unwrap_or(size))
}

async fn position_at(call: &CallContext, time: Time, size: u64) -> Result<u64, Failure> {
    let client = call.ledger.database.client().await?;
    Ok(entries::first_at(&client, call.ledger.id, size, time).await?)
}

struct Events {
    call: CallContext,
    selection: Selection,
    raw: bool,
    /// It may be a time still to come.
    not_before: Option<Time>,
}

impl Source for Events {
    type Reply = StreamEventsResponse;

    async fn send_some(
        &mut self,
        reader: &mut Reader<StreamEventsResponse>,
        end: u64,
    ) -> Result<(), Ended> {
        let (ledger, sealing) = (&self.call.ledger, &self.call.replica.sealing);
        for whole in recent::from_position(ledger, sealing, reader.next, end).await? {
            self.check()?;
            let events = self.events_of(&whole).await?;
            let (position, count) = (whole.entry.position, events.len());
            for (i, event) in events.into_iter().enumerate() {
                // The cursor moves past an entry with its last event.
                let next = if i + 1 == count { position + 1 } else { position };
                reader.send(reply(Some(event), next, String::new()), next, 1).await?;
            }
            reader.next = position + 1;
        }
        Ok(())
    }

    fn heartbeat(&self, next_position: u64) -> Result<StreamEventsResponse, Failure> {
        self.check()?;
        let checkpoint = self.call.ledger.newest_checkpoint();
        let note = checkpoint.map_or(String::new(), |c| c.note.clone());
        Ok(reply(None, next_position, note))
    }

    /// Whoever opened it used its key; so does whoever has read it.
    async fn closed(&mut self, events: u64) -> Result<(), Failure> {
        self.call.again().record_access(Some(events)).await
    }
}

impl Events {
    async fn events_of(&self, whole: &Whole) -> Result<Vec<AuditEvent>, Failure> {
        let Whole { entry, event, uses } = whole;
        let event = event.as_ref().ok_or_else(|| damaged(entry.position))?;
        if self.not_before.is_some_and(|time| event.time_us < time.micros()) {
            return Ok(vec![]);
        }
        if self.raw {
            return Ok(vec![raw_event(&self.call, entry).await?]);
        }
        let decoded = Decoded { entry, event, uses };
        events_of_decoded(&Viewer::Caller(&self.call), &decoded, &self.selection).await
    }

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
