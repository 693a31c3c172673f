//! What callers send of their traces (W3C Trace Context) and baggage, and what becomes of it.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderMap;
use keyledger_ledger::id::Trace;
use keyledger_ledger::restrict::Network;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

use super::config::{Propagators, percent_decoded};

/// Longest tracestate, and most members of it (W3C Trace Context §3.3.1.5).
const MAX_TRACESTATE: usize = 512;
const MAX_TRACESTATE_MEMBERS: usize = 32;
/// Longest baggage, and most members of it (W3C Baggage §3.3.2).
const MAX_BAGGAGE: usize = 8_192;
const MAX_MEMBERS: usize = 64;
const MAX_BAGGAGE_NAME: usize = 128;
/// Longest value of baggage, in characters, that becomes an attribute.
const MAX_BAGGAGE_VALUE: usize = 128;

/// What becomes of the context that callers send.
#[derive(Clone, Debug, Default)]
pub struct CallerContext {
    pub policy: ContextPolicy,
    /// Callers from these networks are trusted, whatever the policy is.
    pub trusted: Vec<Network>,
    /// Names of baggage whose values become attributes of the span. Others are passed over.
    pub baggage: Vec<String>,
}

impl CallerContext {
    /// A name of baggage (W3C Baggage §3.2.1.1, a token) that may become an attribute: no attribute of our own has it.
    pub fn baggage_name(text: &str) -> Result<String, String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let of_ours = ["keyledger", "rpc", "error", "db"];
        if text.is_empty() || text.len() > MAX_BAGGAGE_NAME || !text.bytes().all(token) {
            Err(format!("it must be a token of 1 to {MAX_BAGGAGE_NAME} bytes"))
        } else if text.split('.').next().is_some_and(|first| of_ours.contains(&first)) {
            Err("names that begin so are those of Keyledger's own attributes".into())
        } else {
            Ok(text.into())
        }
    }
}

/// Whether our spans continue the traces of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextPolicy {
    /// They do.
    #[default]
    Trust,
    /// A trace of our own begins, with a link to the caller's span; the caller's ids are not signed.
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

/// Reads what callers send, as policy and propagators say.
#[derive(Clone, Debug)]
pub(crate) struct ContextReader {
    pub(crate) callers: CallerContext,
    pub(crate) propagators: Propagators,
}

/// What is kept of what a caller sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    trace: Trace,
    flags: u8,
    /// Whether our span continues it. Otherwise it links to it.
    pub(super) continued: bool,
}

impl ContextReader {
    pub(crate) fn read(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Sent {
        let policy = self.policy_for(peer);
        if !self.propagators.trace_context || policy == ContextPolicy::Ignore {
            return Sent::default();
        }
        let Some((trace, flags)) = traceparent(headers) else { return Sent::default() };
        Sent { trace, flags, continued: policy == ContextPolicy::Trust }
    }

    fn policy_for(&self, peer: Option<IpAddr>) -> ContextPolicy {
        let trusted = |peer: IpAddr| self.callers.trusted.iter().any(|n| n.contains(peer));
        match peer.is_some_and(trusted) {
            true => ContextPolicy::Trust,
            false => self.callers.policy,
        }
    }

    /// Baggage whose names are allowed, of callers who are trusted.
    pub(super) fn baggage(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<KeyValue> {
        let names = &self.callers.baggage;
        let wanted = self.propagators.baggage && !names.is_empty();
        if !wanted || self.policy_for(peer) != ContextPolicy::Trust {
            return vec![];
        }
        let texts = headers.get_all("baggage").iter().filter_map(|value| value.to_str().ok());
        let members = texts.filter(|text| text.len() <= MAX_BAGGAGE).flat_map(|t| t.split(','));
        let pairs = members.take(MAX_MEMBERS).filter_map(member);
        let mut all: Vec<KeyValue> = vec![];
        for (name, value) in pairs {
            let new = !all.iter().any(|known| known.key.as_str() == name);
            if new && names.iter().any(|allowed| allowed == name) {
                let value: String = value.chars().take(MAX_BAGGAGE_VALUE).collect();
                all.push(KeyValue::new(name.to_string(), value));
            }
        }
        all
    }
}

/// `name=value;properties` (W3C Baggage §3.3.1.1), the value percent-encoded.
fn member(text: &str) -> Option<(&str, String)> {
    let (name, value) = text.split(';').next()?.split_once('=')?;
    Some((name.trim(), percent_decoded(value.trim())?))
}

impl Sent {
    /// What may be signed as the trace of a call that has no span: that of a caller whose trace is continued. Whoever is not
    /// trusted could name the trace of another, and place uses into it.
    pub(super) fn signed(&self) -> Trace {
        if self.continued { self.trace } else { Trace::default() }
    }

    /// The caller's span, if it is known.
    pub(super) fn span(&self, headers: &HeaderMap) -> Option<SpanContext> {
        (self.trace != Trace::default()).then(|| {
            // Sampled, and random: others have no meaning yet (W3C Trace Context §3.2.2.5).
            let flags = TraceFlags::new(self.flags & 0x03);
            let state = tracestate(headers);
            let (trace, span) = (self.trace.trace_id, self.trace.span_id);
            SpanContext::new(
                TraceId::from_bytes(trace),
                SpanId::from_bytes(span),
                flags,
                true,
                state,
            )
        })
    }
}

/// W3C Trace Context §3.3. One that is malformed, or longer than has to be carried, is dropped as a whole.
fn tracestate(headers: &HeaderMap) -> TraceState {
    let texts = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok());
    let text = texts.collect::<Vec<_>>().join(",");
    let members = text.split(',').count();
    if text.is_empty() || text.len() > MAX_TRACESTATE || members > MAX_TRACESTATE_MEMBERS {
        return TraceState::default();
    }
    text.parse().unwrap_or_default()
}

/// W3C Trace Context §3.2: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, no id all zeros.
fn traceparent(headers: &HeaderMap) -> Option<(Trace, u8)> {
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

    fn reader(policy: ContextPolicy, baggage: &[&str]) -> ContextReader {
        let trusted = vec!["10.0.0.0/8".parse().unwrap()];
        let baggage = baggage.iter().map(|name| name.to_string()).collect();
        let propagators = Propagators { trace_context: true, baggage: true };
        ContextReader { callers: CallerContext { policy, trusted, baggage }, propagators }
    }

    #[test]
    fn what_a_caller_sent_is_continued_linked_or_dropped_as_policy_and_network_say() {
        let mut headers = HeaderMap::new();
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", text.parse().unwrap());
        let [inside, outside] = ["10.1.2.3", "192.0.2.1"].map(|a| Some(a.parse().unwrap()));
        for (policy, peer, kept, continued) in [
            (ContextPolicy::Trust, outside, true, true),
            (ContextPolicy::Link, outside, true, false),
            (ContextPolicy::Link, inside, true, true),
            (ContextPolicy::Ignore, outside, false, false),
            (ContextPolicy::Ignore, None, false, false),
            (ContextPolicy::Ignore, inside, true, true),
        ] {
            let sent = reader(policy, &[]).read(&headers, peer);
            assert_eq!(sent.span(&headers).is_some(), kept, "{policy:?} {peer:?}");
            assert_eq!(sent.continued, continued, "{policy:?} {peer:?}");
            assert_eq!(sent.signed() != Trace::default(), continued, "{policy:?} {peer:?}");
        }
    }

    #[test]
    fn baggage_can_t_pass_for_an_attribute_of_ours() {
        assert!(CallerContext::baggage_name("team.name").is_ok());
        for bad in ["", "a b", "keyledger.key.id", "rpc.method", "error.type"] {
            assert!(CallerContext::baggage_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_carried_along_unless_it_is_too_long() {
        let mut headers = HeaderMap::new();
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        assert_eq!(tracestate(&headers).header(), "a=1,b=2");
        headers.append("tracestate", format!("c={}", "x".repeat(512)).parse().unwrap());
        assert_eq!(tracestate(&headers), TraceState::default());
    }

    #[test]
    fn only_baggage_that_is_allowed_by_name_becomes_attributes_and_only_of_trusted_callers() {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(1_000);
        let text = format!("team=a%20b;hidden=1, user=alice,team=again,build={long},bad=%");
        headers.insert("baggage", text.parse().unwrap());
        let names = &["team", "build", "bad"];
        let read = |policy| {
            let all = reader(policy, names).baggage(&headers, None);
            all.into_iter().map(|kv| (kv.key.to_string(), kv.value.to_string())).collect::<Vec<_>>()
        };
        let expected =
            [("team".into(), "a b".into()), ("build".into(), long[..MAX_BAGGAGE_VALUE].into())];
        assert_eq!(read(ContextPolicy::Trust), expected);
        assert_eq!(read(ContextPolicy::Link), []);
        assert_eq!(reader(ContextPolicy::Trust, &[]).baggage(&headers, None), []);
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
