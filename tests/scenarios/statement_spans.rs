//! Statements to Postgres have spans where the call that asks is sampled: named by operation and table, never with a value.

use keyledger_proto::*;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use crate::harness::*;

/// All attributes that the span of a statement may have.
const ATTRIBUTES: [&str; 8] = [
    "code.function.name",
    "db.collection.name",
    "db.namespace",
    "db.operation.name",
    "db.query.summary",
    "db.response.status_code",
    "db.system.name",
    "error.type",
];

const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

/// A caller in a trace of its own, which is sampled or not.
fn traced(caller: &Caller, trace: u128, sampled: bool) -> Caller {
    let flags = u8::from(sampled);
    caller.with_header("traceparent", &format!("00-{trace:032x}-{PARENT:016x}-{flags:02x}"))
}

#[test]
fn statements_of_a_sampled_call_are_its_children_and_hold_no_value() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        let replica = d.replica_with_all(&variables).await;
        let admin = replica.admin();
        let made = traced(&admin, 1, false).call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let ask = || DescribeKeyRequest { key_id: key_id.clone(), ..Default::default() };
        traced(&admin, 2, false).call(ask()).await.unwrap();
        traced(&admin, 3, true).call(ask()).await.unwrap();

        let mut spans: Vec<Span> = vec![];
        let mut bytes = vec![];
        let call = loop {
            let export = collector.traces().await.into_inner();
            bytes.extend(export.encode_to_vec());
            let scopes = export.resource_spans.into_iter().flat_map(|r| r.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans));
            if let Some(call) = spans.iter().find(|s| s.kind == SpanKind::Server as i32) {
                break call.clone();
            }
        };
        assert_eq!(call.trace_id, 3u128.to_be_bytes(), "nobody else asked for spans");
        let statements: Vec<&Span> =
            spans.iter().filter(|s| attribute(s, "db.system.name").is_some()).collect();
        let of_call: Vec<&&Span> =
            statements.iter().filter(|s| s.parent_span_id == call.span_id).collect();
        let reads = |s: &&&Span| attribute(s, "db.query.summary") == Some("SELECT entries");
        let read = of_call.iter().find(|s| reads(s)).expect("its history is read");
        assert_eq!(read.name, "SELECT entries");
        assert_eq!(read.kind, SpanKind::Client as i32);
        assert_eq!(attribute(read, "db.system.name"), Some("postgresql"));
        assert_eq!(attribute(read, "db.operation.name"), Some("SELECT"));
        assert_eq!(attribute(read, "db.collection.name"), Some("entries"));
        for statement in &statements {
            assert_eq!(statement.trace_id.len(), 16);
            assert!(statement.start_time_unix_nano <= statement.end_time_unix_nano);
            let unknown = |a: &&KeyValue| !ATTRIBUTES.contains(&a.key.as_str());
            assert_eq!(statement.attributes.iter().find(unknown), None, "{statement:?}");
        }
        let mut scanner = d.secrets.scanner();
        scanner.look_into("exported spans", &bytes);
        scanner.finish();
    });
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
