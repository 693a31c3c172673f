//! By links alone one walks from a refused use of a key to its creation, across traces and replicas; and from a request to the
//! batch that it was written in, and back.

use futures_util::future::join_all;
use keyledger_ledger::body::{Event, Kind};
use keyledger_proto::*;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::harness::*;

#[test]
fn links_lead_from_a_refused_use_through_all_changes_to_the_creation_and_ids_are_those_that_were_signed()
 {
    scenario(async |d| {
        let collector = Collector::start().await;
        let exporting = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str());
        let replica = d.replica_with_all(&[exporting]).await;
        let mark = d.mark().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        admin.call(check(&made.token)).await.unwrap();
        let rotated = admin.call(rotate(&key_id, 0)).await.unwrap();
        admin.call(check(&rotated.token)).await.unwrap();
        admin.call(revoke(&key_id)).await.unwrap();
        admin.call(check(&rotated.token)).await.unwrap();
        // It remembers nothing of where the entries were written.
        let other = d.replica_with_all(&[exporting]).await;
        other.admin().call(check(&made.token)).await.unwrap();
        replica.stop().await;
        other.stop().await;
        let records = d.since(&mark).await.into_values().flatten().collect::<Vec<_>>();
        let spans = Spans::of(d, &collector).await;

        let refused: Vec<&Span> = spans
            .of_calls()
            .filter(|span| text(span, "keyledger.reason_code") == Some("REVOKED"))
            .collect();
        assert_eq!(refused.len(), 2, "one of each replica");
        for refused in refused {
            assert_eq!(text(refused, "keyledger.decision"), Some("deny"));
            assert_eq!(text(refused, "keyledger.entry.type"), Some("keyledger.key.used"));
            let mut walked = vec![];
            let mut here = refused;
            while let Some(before) = spans.before(here, &key_id) {
                walked.push(text(before, "keyledger.entry.type").unwrap());
                assert_eq!(text(before, "keyledger.key.id"), Some(key_id.as_str()));
                assert_names_its_entry(before, &records);
                here = before;
            }
            let all = ["keyledger.key.revoked", "keyledger.key.rotated", "keyledger.key.created"];
            assert_eq!(walked, all);
        }
        for record in &records {
            let (trace_id, span_id) = match record {
                Record::Change { event, .. } => (&event.trace_id, &event.span_id),
                Record::Use { r#use, .. } => (&r#use.trace_id, &r#use.span_id),
            };
            assert!(is_by_itself(record) || spans.find(trace_id, span_id).is_some(), "{record:?}");
        }
    });
}

/// The entry at the position that the span names was signed with the span's ids.
fn assert_names_its_entry(span: &Span, records: &[Record]) {
    let position = number(span, "keyledger.entry.position").unwrap() as u64;
    let of_span = |event: &Event| event.trace_id == span.trace_id && event.span_id == span.span_id;
    let at = |record: &&Record| record.address() == (position, None);
    // Another ledger has an entry at this position too.
    let mut entries = records.iter().filter(at).map(Record::as_change);
    assert!(entries.any(of_span), "{span:?} names {position}");
}

/// What a server leaves without a caller.
fn is_by_itself(record: &Record) -> bool {
    let Record::Change { event, .. } = record else { return false };
    matches!(
        event.kind,
        Some(
            Kind::ServerStarted(_) | Kind::BoundedServingStarted(_) | Kind::BoundedServingEnded(_)
        )
    )
}

#[test]
fn a_batch_is_one_span_that_links_to_the_requests_in_it_and_they_to_it() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        let calls = (0..50).map(|_| admin.call(WhoAmIRequest {}));
        for answer in join_all(calls).await {
            answer.unwrap();
        }
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;

        let is_batch = |span: &&Span| span.name == "keyledger.sequencer.batch";
        let calls: Vec<&Span> = spans.of_calls().collect();
        assert_eq!(calls.len(), 50);
        for call in calls {
            assert!(number(call, "keyledger.sequencer.wait").unwrap() >= 0.0);
            let batch = call.links.iter().filter_map(|link| spans.follow(link)).find(is_batch);
            let batch = batch.expect("a request links to its batch");
            let size = number(batch, "keyledger.batch.size");
            assert_eq!(number(call, "keyledger.batch.size"), size);
            assert!(size.unwrap() >= batch.links.len() as f64);
            let back = batch.links.iter().filter_map(|link| spans.follow(link));
            assert!(back.into_iter().any(|request| request.span_id == call.span_id));
            assert!(batch.parent_span_id.is_empty(), "a trace of its own");
        }
        for batch in spans.all().iter().filter(is_batch) {
            assert!(!batch.links.is_empty(), "a batch without sampled requests has no span");
        }
    });
}

#[test]
fn what_is_about_no_key_is_told_as_a_use_of_the_caller_s_key() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        let own = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        admin.call(role("auditors", vec![grant("audit.read", "logs/**")])).await.unwrap();
        admin.call(ListKeysRequest::default()).await.unwrap();
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;
        let mut calls: Vec<&Span> = spans.of_calls().collect();
        calls.sort_by_key(|span| span.start_time_unix_nano);
        let told: Vec<_> = calls
            .into_iter()
            .map(|span| {
                assert_eq!(text(span, "keyledger.key.id"), Some(own.as_str()));
                assert_eq!(text(span, "keyledger.caller.key.id"), Some(own.as_str()));
                assert_eq!(number(span, "keyledger.key.version"), Some(1.0));
                assert_eq!(text(span, "keyledger.reason_code"), Some("GRANTED"));
                text(span, "keyledger.entry.type").unwrap()
            })
            .collect();
        let used = "keyledger.key.used";
        assert_eq!(told, [used, "keyledger.role.created", used]);
    });
}

#[test]
fn a_check_answered_from_memory_tells_of_its_key_as_any_other() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        let quick = CreateRoleRequest {
            max_staleness: Some(seconds(5)),
            ..role("quick", vec![grant("audit.read", "logs/error")])
        };
        admin.call(quick).await.unwrap();
        let policy = LedgerPolicy { max_staleness: Some(seconds(5)), ..LedgerPolicy::default() };
        admin.call(update_policy(&["max_staleness"], policy)).await.unwrap();
        let key = CreateKeyRequest {
            grants: vec![],
            roles: vec!["quick".into()],
            ..user_key("alice@example.com")
        };
        let made = admin.call(key).await.unwrap();
        let check = VerifyKeyRequest { max_staleness: Some(seconds(5)), ..check(&made.token) };
        // Until the replica has announced that it does so.
        while admin.call(check.clone()).await.unwrap().as_of_time.is_none() {}
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;
        let key_id = made.key.unwrap().key_id;
        let checks = spans.of_calls().filter(|span| span.name.ends_with("VerifyKey"));
        let last = checks.max_by_key(|span| span.start_time_unix_nano).unwrap();
        assert_eq!(number(last, "keyledger.entry.position"), None, "its page is yet to come");
        assert_eq!(text(last, "keyledger.key.id"), Some(key_id.as_str()));
        assert_eq!(text(last, "keyledger.decision"), Some("allow"));
        let made = spans.before(last, &key_id).unwrap();
        assert_eq!(text(made, "keyledger.entry.type"), Some("keyledger.key.created"));
    });
}

#[test]
fn a_batch_of_checks_tells_of_each_key_by_a_link_and_of_none_as_if_it_were_the_only_one() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
        let admin = replica.admin();
        let mut keys = vec![];
        for name in ["alice@example.com", "bob@example.com"] {
            let made = admin.call(user_key(name)).await.unwrap();
            keys.push((made.key.unwrap().key_id, made.token));
        }
        let requests = keys.iter().map(|(_, token)| check(token)).collect();
        admin.call(BatchVerifyKeysRequest { requests }).await.unwrap();
        replica.stop().await;
        let spans = Spans::of(d, &collector).await;
        let is_batch = |span: &&Span| span.name.ends_with("BatchVerifyKeys");
        let span = spans.of_calls().find(is_batch).unwrap();
        assert_eq!(text(span, "keyledger.key.id"), None);
        assert_eq!(text(span, "keyledger.decision"), Some("allow"));
        for (key_id, _) in &keys {
            let made = spans.before(span, key_id).expect("a link to its creation");
            assert_eq!(text(made, "keyledger.entry.type"), Some("keyledger.key.created"));
        }
    });
}
