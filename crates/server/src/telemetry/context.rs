//! What callers send of their traces (W3C Trace Context) and baggage, and what becomes of it.

use std::str::FromStr;

use http::HeaderMap;
use keyledger_ledger::id::Trace;
use keyledger_ledger::restrict::Network;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// What becomes of the context that callers send.
#[derive(Clone, Debug, Default)]
pub struct CallerContext {
    pub policy: ContextPolicy,
    /// Callers from these networks are trusted, whatever the policy is.
    pub trusted: Vec<Network>,
    /// Names of baggage whose values become attributes of the span. Others are passed over.
    pub baggage: Vec<String>,
}

/// Whether our spans continue the traces of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextPolicy {
    /// They do.
    #[default]
    Trust,
    /// A trace of our own begins, with a link to the caller's span.
    Link,
    /// A trace of our own begins, and nothing is kept of the caller's.
    Ignore,
}

impl FromStr for ContextPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<ContextPolicy, String> {
        match text {
            "trust" => Ok(ContextPolicy::Trust),
            "link" => Ok(ContextPolicy::Link),
            "ignore" => Ok(ContextPolicy::Ignore),
            _ => Err("it must be trust, link or ignore".into()),
        }
    }
}

/// What a caller sent, as the parent of our span.
pub(super) fn remote(headers: &HeaderMap) -> Option<SpanContext> {
    let (parent, flags) = traceparent(headers)?;
    Some(SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    ))
}

/// W3C Trace Context §3.2: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, no id all zeros.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<(Trace, u8)> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known_form = version != "00" || parts.next().is_none();
    let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    let version: [u8; 1] = hex::decode(version).ok()?.try_into().ok()?;
    if version == [0xff] || !known_form || !lower {
        return None;
    }
    let trace = Trace {
        trace_id: hex::decode(trace).ok()?.try_into().ok()?,
        span_id: hex::decode(span).ok()?.try_into().ok()?,
    };
    let flags: [u8; 1] = hex::decode(flags).ok()?.try_into().ok()?;
    (trace.trace_id != [0; 16] && trace.span_id != [0; 8]).then_some((trace, flags[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<u8> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", text.parse().unwrap());
        traceparent(&headers).map(|(_, flags)| flags)
    }

    #[test]
    fn a_traceparent_is_read_as_the_w3c_recommendation_says() {
        assert_eq!(parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some(1));
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f-00f067aa0ba902b7-01",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
