//! The traces of a key.

use keyledger_ledger::body::{Event, Kind, Use};
use keyledger_ledger::id::Time;

use super::{hex, id_text, timestamp};
use crate::{KeyTrace, SpanReference};

/// A trace and a span, by the bytes of their ids.
pub fn span_reference(trace_id: &[u8], span_id: &[u8]) -> SpanReference {
    let span_id = if span_id.iter().all(|b| *b == 0) { String::new() } else { hex(span_id) };
    SpanReference { trace_id: hex(trace_id), span_id }
}

/// Where a change was made, if in a trace.
pub fn change_trace(position: u64, event: &Event) -> Option<KeyTrace> {
    let traced = !event.trace_id.is_empty();
    let kind = event.kind.as_ref();
    traced.then(|| KeyTrace {
        span: Some(span_reference(&event.trace_id, &event.span_id)),
        time: Some(timestamp(Time(event.time_us))),
        position: Some(position),
        r#type: kind.map_or("", Kind::name).into(),
        key_id: kind.and_then(Kind::key_link).map_or(String::new(), |l| id_text(&l.key_id)),
        caller_key_id: event.caller.as_ref().map_or(String::new(), |c| id_text(&c.key_id)),
        ..KeyTrace::default()
    })
}

/// Where a use was made: in a span, or, if it stands for several refusals, in several.
pub fn use_traces(position: u64, index: u32, time: Time, u: &Use) -> Vec<KeyTrace> {
    let own = (!u.trace_id.is_empty()).then_some((u.trace_id.as_slice(), u.span_id.as_slice()));
    let of_span = |(trace_id, span_id): (&[u8], &[u8])| KeyTrace {
        span: Some(span_reference(trace_id, span_id)),
        time: Some(timestamp(time)),
        position: Some(position),
        index: Some(index),
        r#type: "key.used".into(),
        key_id: id_text(&u.key_id),
        caller_key_id: u.caller.as_ref().map_or(String::new(), |c| id_text(&c.key_id)),
        method: u.method.clone(),
        decision: u.decision,
        decision_reason: u.reason,
        reported: u.reported.clone(),
    };
    own.into_iter().chain(u.folded_spans()).map(of_span).collect()
}
