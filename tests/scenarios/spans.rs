//! Spans leave by OTLP, continue the caller's trace, name the key, hold no secret; and what is signed names them.

use futures_util::future::join_all;
use keyledger_proto::*;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
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

        let spans = Spans::of(d, &collector).await;
        assert_eq!(spans.of_calls().count(), 9);
        for trace in 1..=8u128 {
            let span = spans.of_trace(trace);
            assert_eq!(span.parent_span_id, PARENT.to_be_bytes(), "{span:?}");
            if trace < 8 {
                assert_eq!(text(span, "keyledger.key.id"), Some(key_id.as_str()), "{span:?}");
            }
        }
        for record in &records {
            let (trace_id, span_id) = match record {
                Record::Change { event, .. } => (&event.trace_id, &event.span_id),
                Record::Use { r#use, .. } => (&r#use.trace_id, &r#use.span_id),
            };
            assert!(spans.find(trace_id, span_id).is_some(), "{record:?}");
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

#[test]
fn a_span_ends_with_the_status_that_leaves_and_only_what_is_the_servers_fault_is_an_error() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        let key_id = "018bcfe5-6800-8000-8000-000000000001".to_string();
        admin.call(GetKeyRequest { key_id, ..GetKeyRequest::default() }).await.unwrap_err();
        admin.call(GetKeyRequest::default()).await.unwrap_err();
        admin.raw("/keyledger.v1.KeyService/NoSuchMethod", bytes::Bytes::new()).await.unwrap_err();
        replica.anonymous().call(WhoAmIRequest {}).await.unwrap_err();
        let everything =
            StreamEventsRequest { stop_at_head: true, ..StreamEventsRequest::default() };
        let mut read = admin.stream(everything).await.unwrap();
        while read.message().await.unwrap().is_some() {}
        let mut left = admin.stream(StreamEventsRequest::default()).await.unwrap();
        left.message().await.unwrap();
        drop(left);
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;

        let mut all: Vec<_> = spans.of_calls().map(what_became_of).collect();
        all.sort();
        let expected = [
            ("_OTHER", "UNIMPLEMENTED", Some("UNIMPLEMENTED")),
            ("keyledger.v1.AuditService/StreamEvents", "CANCELLED", None),
            ("keyledger.v1.AuditService/StreamEvents", "OK", None),
            ("keyledger.v1.KeyService/GetKey", "INVALID_ARGUMENT", None),
            ("keyledger.v1.KeyService/GetKey", "NOT_FOUND", None),
            ("keyledger.v1.KeyService/WhoAmI", "UNAUTHENTICATED", None),
        ];
        assert_eq!(all, expected);
    });
}

/// Method, status, and kind of error.
fn what_became_of(span: &Span) -> (&str, &str, Option<&str>) {
    let error = text(span, "error.type");
    let code = span.status.as_ref().map_or(StatusCode::Unset, |status| status.code());
    assert_eq!(code == StatusCode::Error, error.is_some(), "{span:?}");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    (text(span, "rpc.method").unwrap(), text(span, "rpc.response.status_code").unwrap(), error)
}

#[test]
fn a_refused_caller_is_told_apart_on_its_span_as_it_is_in_the_ledger() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let made = replica.admin().call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        replica.admin().call(rotate(&key_id, 0)).await.unwrap();
        replica.caller(&made.token).call(WhoAmIRequest {}).await.unwrap_err();
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;
        let refused = |span: &&Span| text(span, "keyledger.decision") == Some("deny");
        let span = spans.of_calls().find(refused).unwrap();
        assert_eq!(text(span, "keyledger.reason_code"), Some("SUPERSEDED"));
        assert_eq!(text(span, "keyledger.caller.key.id"), Some(key_id.as_str()));
        assert_eq!(text(span, "keyledger.key.id"), Some(key_id.as_str()));
        assert_eq!(number(span, "keyledger.key.version"), Some(1.0));
        let reference = text(span, "keyledger.subject.ref").unwrap();
        assert_eq!(reference.len(), 32, "a random reference: {reference}");
        let rotated = spans.before(span, &key_id).unwrap();
        assert_eq!(text(rotated, "keyledger.entry.type"), Some("keyledger.key.rotated"));
        assert_eq!(number(rotated, "keyledger.key.version"), Some(2.0));
    });
}

#[test]
fn a_collector_that_refuses_is_said_once_and_once_that_it_is_back() {
    scenario(async |d| {
        let collector = Collector::start().await;
        collector.refuse();
        let replica = d
            .replica_with_all(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
                ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ])
            .await;
        let said = |text: &str| replica.log().matches(text).count();
        // Exports go on meanwhile, and go on to fail.
        while said("spans can't be exported") == 0 {
            replica.admin().call(WhoAmIRequest {}).await.unwrap();
        }
        collector.accept();
        while said("spans are exported again") == 0 {
            replica.admin().call(WhoAmIRequest {}).await.unwrap();
        }
        replica.stop().await;
        assert_eq!(said("spans can't be exported"), 1);
        assert_eq!(said("spans are exported again"), 1);
    });
}

#[test]
fn a_server_whose_collector_stalls_serves_and_ends_all_the_same() {
    scenario(async |d| {
        let collector = Collector::start().await;
        collector.stall();
        let replica = d
            .replica_with_all(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
                ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ])
            .await;
        for _ in 0..100 {
            replica.admin().call(WhoAmIRequest {}).await.unwrap();
        }
        assert!(replica.stop().await.success());
        assert_eq!(replica.log().matches("spans are dropped").count(), 1);
    });
}

/// The span of the caller, in all its traces.
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;
