//! From the collector's files: spans tell of the key, and from each one comes by a link to the span of the change before it, back
//! to the key's creation.

use crate::joined::span_of;
use crate::process::Result;
use crate::replies::{ensure, passed};
use crate::telemetry::Span;
use crate::traces::Event;

const BATCH: &str = "keyledger.sequencer.batch";

/// Walks through all that happened to a key in a trace, oldest first.
pub(crate) fn leads_back(spans: &[Span], trace_id: &str, key_id: &str, events: &[Event]) -> Result {
    let mut newest_change: Option<&Span> = None;
    let mut steps = 0;
    for event in events.iter().filter(|event| event.key_id == key_id) {
        let span = span_of(spans, trace_id, event)?;
        tells_of(span, event)?;
        is_in_a_batch(span, spans)?;
        if let Some(change) = newest_change {
            ensure(span.links_to(change), || format!("no link from {span:?} to {change:?}"))?;
            steps += 1;
        }
        if event.decision.is_empty() {
            newest_change = Some(span);
        }
    }
    passed(&format!("{steps} links lead back to the creation of key {key_id}"));
    Ok(())
}

/// What the span says of the key is what was signed.
fn tells_of(span: &Span, event: &Event) -> Result {
    let has = |name: &str, value: &str| {
        ensure(span.attributes.get(name) == Some(value), || {
            format!("{name} should be {value}: {span:?}, {event:?}")
        })
    };
    let is_there = |name: &str| {
        ensure(span.attributes.get(name).is_some(), || format!("{name} is missing: {span:?}"))
    };
    has("rpc.response.status_code", "OK")?;
    has("keyledger.entry.position", &event.position.to_string())?;
    has("keyledger.entry.type", &format!("keyledger.{}", event.name))?;
    if !event.decision.is_empty() {
        has("keyledger.decision", &event.decision.replace("DECISION_", "").to_lowercase())?;
        has("keyledger.reason_code", &event.reason_code)?;
    }
    for name in ["keyledger.subject.ref", "keyledger.ledger.id", "keyledger.key.version"] {
        is_there(name)?;
    }
    is_there("keyledger.sequencer.wait")
}

/// The batch that wrote it has a span of its own; both link to each other.
fn is_in_a_batch(span: &Span, spans: &[Span]) -> Result {
    let holds = |batch: &&Span| batch.name == BATCH && span.links_to(batch) && batch.links_to(span);
    let batch = spans.iter().find(holds);
    let size = batch.and_then(|batch| batch.attributes.get("keyledger.batch.size"));
    let same = size.is_some() && size == span.attributes.get("keyledger.batch.size");
    ensure(same, || format!("no batch holds {span:?}, but {batch:?}"))
}
