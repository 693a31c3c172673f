//! Spans as a collector has them, and questions about them.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use prost::Message;

use super::collector::Collector;
use super::deployment::Deployment;

/// All that a server which has ended exported. Nothing secret may be in it.
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// Those of servers that were stopped.
    pub(crate) async fn of(d: &Deployment, collector: &Collector) -> Spans {
        let exports: Vec<_> =
            collector.all_traces().await.into_iter().map(|export| export.into_inner()).collect();
        let bytes: Vec<u8> = exports.iter().flat_map(|export| export.encode_to_vec()).collect();
        let mut scanner = d.secrets.scanner();
        scanner.look_into("exported spans", &bytes);
        scanner.finish();
        let resources = exports.into_iter().flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        Spans(scopes.flat_map(|scope| scope.spans).collect())
    }

    pub(crate) fn all(&self) -> &[Span] {
        &self.0
    }

    /// Spans of calls to our methods.
    pub(crate) fn of_calls(&self) -> impl Iterator<Item = &Span> {
        self.0.iter().filter(|span| text(span, "rpc.method").is_some())
    }

    /// The span of the one call in a trace.
    #[track_caller]
    pub(crate) fn of_trace(&self, trace: u128) -> &Span {
        let trace = trace.to_be_bytes();
        let found: Vec<&Span> = self.of_calls().filter(|span| span.trace_id == trace).collect();
        assert_eq!(found.len(), 1, "one call in the trace: {found:?}");
        found[0]
    }

    /// The span with these ids.
    pub(crate) fn find(&self, trace_id: &[u8], span_id: &[u8]) -> Option<&Span> {
        self.0.iter().find(|span| span.trace_id == trace_id && span.span_id == span_id)
    }

    /// Where a link leads.
    pub(crate) fn follow(&self, link: &Link) -> Option<&Span> {
        self.find(&link.trace_id, &link.span_id)
    }

    /// The span of the newest lifecycle entry of a key before this span.
    pub(crate) fn before(&self, span: &Span, key_id: &str) -> Option<&Span> {
        let of_key = |link: &&Link| text_in(&link.attributes, "keyledger.key.id") == Some(key_id);
        span.links.iter().find(of_key).and_then(|link| self.follow(link))
    }
}

/// The value of an attribute that is a text.
pub(crate) fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    text_in(&span.attributes, name)
}

/// The value of an attribute that is a number.
pub(crate) fn number(span: &Span, name: &str) -> Option<f64> {
    match value_in(&span.attributes, name)? {
        Value::IntValue(number) => Some(*number as f64),
        Value::DoubleValue(number) => Some(*number),
        _ => None,
    }
}

fn text_in<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match value_in(attributes, name)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// No attribute stands twice.
fn value_in<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let mut found = attributes.iter().filter(|attribute| attribute.key == name);
    let value = found.next()?.value.as_ref()?.value.as_ref();
    assert!(found.next().is_none(), "{name} stands twice: {attributes:?}");
    value
}
