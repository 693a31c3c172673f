//! From the collector's files: what the ledger signed names spans, and these hang together with those of the callers.

use crate::example_story::Story;
use crate::process::Result;
use crate::replies::{ensure, passed};
use crate::telemetry::{CLIENT, SERVER, Span};
use crate::traces::Event;

const SERVICE: &str = "keyledger";

/// The span of ours in which something happened; there must be exactly one.
pub(crate) fn span_of<'a>(spans: &'a [Span], trace_id: &str, event: &Event) -> Result<&'a Span> {
    let ours = |span: &&Span| {
        span.service == SERVICE && span.trace_id == trace_id && span.span_id == event.span_id
    };
    let found: Vec<&Span> = spans.iter().filter(ours).collect();
    match found[..] {
        [span] => Ok(span),
        _ => Err(format!("{} spans, not one, of {event:?} in trace {trace_id}", found.len())),
    }
}

/// The server span follows the conventions, and names the key that the event is about, if it is this one: a read of the log is a
/// use of the caller's key, but its span may name another.
fn is_well_made(span: &Span, event: &Event, key_id: &str) -> Result {
    let has = |name: &str, value: &str| span.attributes.get(name) == Some(value);
    let fault = |what: &str| format!("{what}: {span:?}, {event:?}");
    ensure(span.kind == SERVER, || fault("not a server span"))?;
    ensure(span.scope == "keyledger", || fault("not our scope"))?;
    let schema = "https://opentelemetry.io/schemas/1.";
    ensure(span.schema_url.starts_with(schema), || fault("no schema URL"))?;
    ensure(span.name.starts_with("keyledger.v1."), || fault("not named by its method"))?;
    ensure(has("rpc.system.name", "grpc"), || fault("no rpc.system.name"))?;
    ensure(has("rpc.method", &span.name), || fault("no rpc.method"))?;
    let about_key = event.key_id == key_id;
    ensure(!about_key || has("keyledger.key.id", key_id), || fault("no keyledger.key.id"))
}

/// Each event of an example has a span of ours, below a span of the example, below its root.
pub(crate) fn spans_join_those_of(story: &Story, spans: &[Span]) -> Result {
    let service = format!("keyledger-example-{}", story.language);
    for event in &story.events {
        let span = span_of(spans, &story.trace_id, event)?;
        is_well_made(span, event, &story.key_id)?;
        let of_example = |id: &str| {
            let is =
                |s: &&Span| s.service == service && s.trace_id == story.trace_id && s.span_id == id;
            spans.iter().find(is)
        };
        let call = of_example(&span.parent_id).filter(|call| call.kind == CLIENT);
        let root = call.and_then(|call| of_example(&call.parent_id));
        ensure(root.is_some_and(|root| root.parent_id.is_empty()), || {
            format!("no call and no root of {service} above {span:?}")
        })?;
    }
    passed(&format!("spans of the example in {} and ours join", story.language));
    Ok(())
}

/// The same for what grpcurl did: its span is named by the header that it sent.
pub(crate) fn spans_join_the_session(
    spans: &[Span],
    trace_id: &str,
    parent_id: &str,
    key_id: &str,
    events: &[Event],
) -> Result {
    for event in events {
        let span = span_of(spans, trace_id, event)?;
        is_well_made(span, event, key_id)?;
        ensure(span.parent_id == parent_id, || format!("not below {parent_id}: {span:?}"))?;
    }
    passed(&format!("{} spans of grpcurl's session join its trace", events.len()));
    Ok(())
}
