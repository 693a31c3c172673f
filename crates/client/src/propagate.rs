//! What calls carry of the current OpenTelemetry context: W3C Trace Context always, W3C Baggage where it is wished for.

use std::fmt::Write;

use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::TraceContextExt;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Longest header of baggage, as W3C Baggage asks for at least.
const MAX_BAGGAGE: usize = 8_192;

/// Writes `traceparent`, `tracestate` and the named entries of `baggage`, as far as there are such.
pub(crate) fn inject(context: &Context, baggage: &[String], into: &mut MetadataMap) {
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() {
        let sampled = u8::from(span.is_sampled());
        let parent = format!("00-{}-{}-{sampled:02x}", span.trace_id(), span.span_id());
        insert(into, "traceparent", parent);
        insert(into, "tracestate", span.trace_state().header());
    }
    insert(into, "baggage", baggage_header(context, baggage));
}

/// What can't stand in a header is left out: a call never fails by its telemetry.
fn insert(into: &mut MetadataMap, name: &'static str, value: String) {
    if value.is_empty() {
        return;
    }
    if let Ok(value) = value.parse::<MetadataValue<Ascii>>() {
        into.insert(name, value);
    }
}

/// W3C Baggage §3.1: `name=value`, values percent-encoded, separated by commas.
fn baggage_header(context: &Context, names: &[String]) -> String {
    let mut header = String::new();
    for name in names {
        let Some(value) = context.baggage().get(name) else { continue };
        let mut member = format!("{name}=");
        for byte in value.as_str().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    member.push(char::from(byte));
                }
                _ => write!(member, "%{byte:02X}").expect("a String takes all"),
            }
        }
        if header.len() + 1 + member.len() <= MAX_BAGGAGE {
            if !header.is_empty() {
                header.push(',');
            }
            header += &member;
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn context(flags: TraceFlags) -> Context {
        let span = SpanContext::new(
            TraceId::from(1),
            SpanId::from(2),
            flags,
            false,
            TraceState::from_key_value([("vendor", "x")]).unwrap(),
        );
        let baggage = [KeyValue::new("keyledger.key.id", "a,b ü"), KeyValue::new("user", "alice")];
        Context::new().with_remote_span_context(span).with_baggage(baggage)
    }

    fn injected(context: &Context, baggage: &[String], name: &str) -> Option<String> {
        let mut headers = MetadataMap::new();
        inject(context, baggage, &mut headers);
        headers.get(name).map(|value| value.to_str().unwrap().into())
    }

    #[test]
    fn calls_continue_the_current_trace() {
        let parent = |flags| injected(&context(flags), &[], "traceparent").unwrap();
        let ids = "00-00000000000000000000000000000001-0000000000000002";
        assert_eq!(parent(TraceFlags::SAMPLED), format!("{ids}-01"));
        assert_eq!(parent(TraceFlags::default()), format!("{ids}-00"));
        let state = injected(&context(TraceFlags::SAMPLED), &[], "tracestate");
        assert_eq!(state.as_deref(), Some("vendor=x"));
        assert_eq!(injected(&Context::new(), &[], "traceparent"), None);
    }

    #[test]
    fn baggage_goes_along_by_name_alone() {
        let context = context(TraceFlags::SAMPLED);
        assert_eq!(injected(&context, &[], "baggage"), None);
        let named = ["keyledger.key.id".to_string(), "absent".to_string()];
        let header = injected(&context, &named, "baggage");
        assert_eq!(header.as_deref(), Some("keyledger.key.id=a%2Cb%20%C3%BC"));
    }
}
