//! What a stream of events is asked for: where it begins, where it ends, and which events it gives.

use keyledger_ledger::id::{KeyId, Time};

use super::event_filter::{self, EventFilter};
use super::{Violation, Violations, micros};
use crate::{EventView, StreamEventsRequest};

/// What is asked of StreamEvents.
#[derive(Clone, Debug)]
pub struct StreamEvents {
    pub begin: Begin,
    pub category: String,
    pub key_id: Option<KeyId>,
    pub filter: EventFilter,
    pub raw: bool,
    pub stop_at_head: bool,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The first position that may be sent.
    pub position: Option<u64>,
    /// Nothing recorded before this time is sent.
    pub time: Option<Time>,
}

pub fn stream_events(r: StreamEventsRequest) -> Result<StreamEvents, Vec<Violation>> {
    super::position("from_position", r.from_position, false)?;
    super::category(&r.category)?;
    super::view(r.view)?;
    let raw = r.view() == EventView::Raw;
    let key_id = super::optional_key_id("key_id", &r.key_id)?;
    let mut v = Violations::default();
    let filter = event_filter::parse(&mut v, r.filter.unwrap_or_default());
    let start = r.start_time.map(|t| micros(t.seconds, t.nanos).map(Time));
    if start == Some(None) {
        v.add("start_time", "must be a valid time");
    }
    if start.is_some() && r.from_position.is_some() {
        v.add("start_time", "must not be given together with from_position");
    }
    let end = filter.as_ref().and_then(|f| f.end);
    if end.is_some() && !r.stop_at_head {
        v.add("filter.end_time", "must not be given without stop_at_head: the stream has no end");
    }
    v.finish(filter.map(|filter| StreamEvents {
        begin: Begin { position: r.from_position, time: start.flatten().max(filter.start) },
        category: r.category,
        key_id,
        filter,
        raw,
        stop_at_head: r.stop_at_head,
    }))
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::EventFilter as WireFilter;

    fn seconds(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn fields(r: StreamEventsRequest) -> Vec<String> {
        stream_events(r).unwrap_err().into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn a_stream_begins_at_the_later_of_two_times_and_without_any_with_what_is_to_come() {
        let both = StreamEventsRequest {
            start_time: seconds(5),
            filter: Some(WireFilter { start_time: seconds(7), ..Default::default() }),
            ..Default::default()
        };
        let begin = stream_events(both).unwrap().begin;
        assert_eq!(begin, Begin { position: None, time: Some(Time(7_000_000)) });
        let nothing = stream_events(StreamEventsRequest::default()).unwrap().begin;
        assert_eq!(nothing, Begin { position: None, time: None });
    }

    #[test]
    fn what_makes_no_sense_for_a_stream_is_named() {
        let end = WireFilter { end_time: seconds(7), ..Default::default() };
        let endless = StreamEventsRequest { filter: Some(end), ..Default::default() };
        let ending = StreamEventsRequest { stop_at_head: true, ..endless.clone() };
        assert!(stream_events(ending).is_ok());
        assert_eq!(fields(endless), ["filter.end_time"]);
        let two = StreamEventsRequest {
            from_position: Some(0),
            start_time: seconds(1),
            ..Default::default()
        };
        assert_eq!(fields(two), ["start_time"]);
        let words = WireFilter { reason_holds: "closing".into(), ..Default::default() };
        let words = StreamEventsRequest { filter: Some(words), ..Default::default() };
        assert!(stream_events(words).is_ok(), "a stream looks at each event once");
    }
}
