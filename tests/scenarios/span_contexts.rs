//! What becomes of the trace context that callers send, by policy, network, propagators and sampler; and what is signed.

use keyledger_proto::*;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::harness::*;

/// The span of the caller, in all its traces.
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// What was exported, and the trace and span ids that were signed with the use, of one call in a trace of its caller's.
async fn one_call(
    d: &Deployment,
    variables: &[(&str, &str)],
    headers: &[(&'static str, &str)],
) -> (Vec<Span>, (Vec<u8>, Vec<u8>)) {
    let collector = Collector::start().await;
    let exporting = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str());
    let all: Vec<_> = std::iter::once(exporting).chain(variables.iter().copied()).collect();
    let replica = d.replica_with_all(&all).await;
    let mark = d.mark().await;
    let caller =
        headers.iter().fold(replica.admin(), |c, (name, value)| c.with_header(name, value));
    caller.call(WhoAmIRequest {}).await.unwrap();
    let (_, records) = d.since_in_one(&mark).await;
    replica.stop().await;
    let signed = records[0].as_use();
    let ids = (signed.trace_id.clone(), signed.span_id.clone());
    (Spans::of(d, &collector).await.of_calls().cloned().collect(), ids)
}

fn traceparent(trace: u128, flags: u8) -> String {
    format!("00-{trace:032x}-{PARENT:016x}-{flags:02x}")
}

fn ids(span: &Span) -> (Vec<u8>, Vec<u8>) {
    (span.trace_id.clone(), span.span_id.clone())
}

#[test]
fn a_trusted_caller_s_trace_is_continued_with_its_tracestate() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1,other=2")];
        let (spans, signed) = one_call(d, &[], &headers).await;
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!(span.trace_id, 7u128.to_be_bytes());
        assert_eq!(span.parent_span_id, PARENT.to_be_bytes());
        assert_eq!(span.trace_state, "vendor=1,other=2");
        assert_eq!(signed, ids(span));
    });
}

#[test]
fn a_linked_caller_s_span_is_linked_to_from_a_trace_of_our_own() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let policy = [("KEYLEDGER_TRACE_CONTEXT", "link")];
        let (spans, signed) = one_call(d, &policy, &[("traceparent", &parent)]).await;
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_ne!(span.trace_id, 7u128.to_be_bytes());
        assert!(span.parent_span_id.is_empty());
        let to_caller = |link: &&opentelemetry_proto::tonic::trace::v1::span::Link| {
            link.trace_id == 7u128.to_be_bytes() && link.span_id == PARENT.to_be_bytes()
        };
        assert!(span.links.iter().any(|link| to_caller(&link)), "{span:?}");
        assert_eq!(signed, ids(span));

        // Anybody could name anybody's trace: it is not signed in place of our own.
        let unsampled = [policy[0], ("OTEL_TRACES_SAMPLER", "always_off")];
        let (spans, signed) = one_call(d, &unsampled, &[("traceparent", &parent)]).await;
        assert!(spans.is_empty());
        assert_eq!(signed, (vec![], vec![]));
    });
}

#[test]
fn nothing_is_kept_of_an_ignored_caller_s_trace_sampled_or_not() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let policy = ("KEYLEDGER_TRACE_CONTEXT", "ignore");
        let headers = [("traceparent", parent.as_str())];
        let (spans, signed) = one_call(d, &[policy], &headers).await;
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_ne!(span.trace_id, 7u128.to_be_bytes());
        assert!(span.links.iter().all(|link| link.trace_id != 7u128.to_be_bytes()), "{span:?}");
        assert_eq!(signed, ids(span));

        let off = ("OTEL_TRACES_SAMPLER", "always_off");
        let (spans, signed) = one_call(d, &[policy, off], &headers).await;
        assert!(spans.is_empty());
        assert_eq!(signed, (vec![], vec![]));
    });
}

#[test]
fn callers_of_a_trusted_network_are_trusted_whatever_the_policy_is() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let variables = [
            ("KEYLEDGER_TRACE_CONTEXT", "ignore"),
            ("KEYLEDGER_TRACE_CONTEXT_TRUSTED", "10.0.0.0/8,127.0.0.0/8"),
        ];
        let (spans, signed) = one_call(d, &variables, &[("traceparent", &parent)]).await;
        assert_eq!(spans[0].parent_span_id, PARENT.to_be_bytes());
        assert_eq!(signed, ids(&spans[0]));
    });
}

#[test]
fn a_trace_that_nobody_sampled_leaves_no_span_and_what_is_signed_is_the_caller_s_or_nothing() {
    scenario(async |d| {
        let caller_s = (7u128.to_be_bytes().to_vec(), PARENT.to_be_bytes().to_vec());
        let (sampled, not) = (traceparent(7, 1), traceparent(7, 0));
        let off = ("OTEL_TRACES_SAMPLER", "always_off");
        let none = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let ratio = ("OTEL_TRACES_SAMPLER_ARG", "0");
        for (variables, headers, expected) in [
            (vec![off], vec![], (0, Some((vec![], vec![])))),
            (vec![off], vec![("traceparent", sampled.as_str())], (0, Some(caller_s.clone()))),
            (vec![none, ratio], vec![], (0, Some((vec![], vec![])))),
            (vec![none, ratio], vec![("traceparent", not.as_str())], (0, Some(caller_s.clone()))),
            // It has decided, and is followed.
            (vec![none, ratio], vec![("traceparent", sampled.as_str())], (1, None)),
        ] {
            let (spans, signed) = one_call(d, &variables, &headers).await;
            let (count, expected) = expected;
            assert_eq!(spans.len(), count, "{variables:?} {headers:?}");
            let expected = expected.unwrap_or_else(|| ids(&spans[0]));
            assert_eq!(signed, expected, "{variables:?} {headers:?}");
        }
    });
}

#[test]
fn without_the_propagator_a_caller_s_trace_is_not_read() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let variables = [("OTEL_PROPAGATORS", "none")];
        let (spans, _) = one_call(d, &variables, &[("traceparent", &parent)]).await;
        assert!(spans[0].parent_span_id.is_empty());
    });
}

#[test]
fn a_disabled_sdk_exports_nothing_and_the_caller_s_trace_is_signed_all_the_same() {
    scenario(async |d| {
        let parent = traceparent(7, 1);
        let variables = [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "zipkin")];
        let (spans, signed) = one_call(d, &variables, &[("traceparent", &parent)]).await;
        assert!(spans.is_empty());
        assert_eq!(signed.0, 7u128.to_be_bytes());
    });
}

#[test]
fn baggage_becomes_an_attribute_only_where_its_name_is_allowed() {
    scenario(async |d| {
        let headers = [("baggage", "team=blue%20sky;p=1,user=carol")];
        let (spans, _) = one_call(d, &[], &headers).await;
        assert_eq!(text(&spans[0], "team"), None);
        let allowed = [("KEYLEDGER_BAGGAGE_ATTRIBUTES", "team,build")];
        let (spans, _) = one_call(d, &allowed, &headers).await;
        assert_eq!(text(&spans[0], "team"), Some("blue sky"));
        assert_eq!(text(&spans[0], "user"), None);
    });
}

#[test]
fn a_variable_that_can_t_be_followed_ends_the_start_and_says_which_and_why() {
    scenario(async |d| {
        for (name, value, said) in [
            ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER is `zipkin`"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote", "Keyledger supports always_on"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "Keyledger supports grpc"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "a-secret-without-a-name",
                "OTEL_EXPORTER_OTLP_HEADERS:",
            ),
            ("KEYLEDGER_TRACE_CONTEXT", "believe", "it must be trust, link or ignore"),
            ("KEYLEDGER_TRACE_CONTEXT_TRUSTED", "10.0.0.1/8", "10.0.0.1/8"),
        ] {
            let exporting = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
            let why = d.try_replica_with_all(&[exporting, (name, value)]).await.err().unwrap();
            assert!(why.contains(said), "{name}: {why}");
            assert!(!why.contains("a-secret"), "{why}");
        }
    });
}
