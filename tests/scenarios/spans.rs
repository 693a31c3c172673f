//! Spans leave by OTLP, continue the caller's trace, name the key, hold no secret; and what is signed names them.

use futures_util::future::join_all;
use keyledger_proto::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

use crate::harness::*;

#[test]
fn a_span_names_the_key_continues_the_callers_trace_and_is_named_by_what_is_signed() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let mark = d.mark().await;
        let admin = |trace: u128| {
            let parent = format!("00-{trace:032x}-{PARENT:016x}-01");
            replica.admin().with_header("traceparent", &parent)
        };
        let made = admin(1).call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        admin(2).call(check(&made.token)).await.unwrap();
        let rotated = admin(3).call(rotate(&key_id, 0)).await.unwrap();
        admin(4).call(check(&made.token)).await.unwrap();
        let get = GetKeyRequest { key_id: key_id.clone(), as_of: None, include_traces: false };
        admin(5).call(get).await.unwrap();
        admin(6).call(revoke(&key_id)).await.unwrap();
        admin(7).call(check(&rotated.token)).await.unwrap();
        let stranger =
            replica.caller("klk_not-a-token").with_header("authorization", "Bearer klk_x");
        let stranger =
            stranger.with_header("traceparent", &format!("00-{:032x}-{PARENT:016x}-01", 8));
        stranger.call(WhoAmIRequest {}).await.unwrap_err();
        // A caller without a trace begins one.
        replica.admin().call(check(&rotated.token)).await.unwrap();
        let records: Vec<Record> = d.since(&mark).await.into_values().flatten().collect();
        replica.stop().await;

        let mut spans: Vec<Span> = vec![];
        let mut bytes = vec![];
        while spans.len() < 9 {
            let export = collector.traces().await.into_inner();
            bytes.extend(export.encode_to_vec());
            spans.extend(of_calls(export));
        }
        let mut scanner = d.secrets.scanner();
        scanner.look_into("exported spans", &bytes);
        scanner.finish();

        for trace in 1..=8u128 {
            let [span] = spans_of(&spans, trace)[..] else { panic!("one span of trace {trace}") };
            assert_eq!(span.parent_span_id, PARENT.to_be_bytes(), "{span:?}");
            if trace < 8 {
                assert_eq!(attribute(span, "keyledger.key.id"), Some(key_id.as_str()), "{span:?}");
            }
        }
        for record in &records {
            let (trace_id, span_id) = match record {
                Record::Change { event, .. } => (&event.trace_id, &event.span_id),
                Record::Use { r#use, .. } => (&r#use.trace_id, &r#use.span_id),
            };
            let same = |span: &&Span| span.trace_id == *trace_id && span.span_id == *span_id;
            assert_eq!(spans.iter().filter(same).count(), 1, "{record:?}");
        }
    });
}

#[test]
fn a_server_whose_collector_is_away_serves_all_the_same() {
    scenario(async |d| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &nobody).await;
        let admin = replica.admin();
        let calls = (0..100).map(|_| admin.call(WhoAmIRequest {}));
        for answer in join_all(calls).await {
            answer.unwrap();
        }
    });
}

/// The span of the caller, in all its traces.
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

fn of_calls(export: ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = export.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).filter(|s| attribute(s, "rpc.method").is_some()).collect()
}

fn spans_of(spans: &[Span], trace: u128) -> Vec<&Span> {
    spans.iter().filter(|span| span.trace_id == trace.to_be_bytes()).collect()
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
