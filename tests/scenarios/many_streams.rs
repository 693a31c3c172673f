//! Streams that many read at once, and one that a slow reader reads: the newest entries are read from the database once for
//! all, and whoever takes nothing is disconnected and loses nothing.

use keyledger_proto::event_attribute::Value;
use keyledger_proto::*;
use tokio::task::JoinSet;
use tonic::{Code, Streaming};

use crate::harness::*;

const STREAMS: usize = 1_000;
const CONNECTIONS: usize = 10;
const CATEGORIES: usize = 20;
/// Events of each category, half of them of each kind.
const EVENTS: usize = 20;
/// The last event of all is of both kinds.
const LAST: &str = "kind-1/last";

fn category(number: usize) -> String {
    format!("service-{number}")
}

/// Resources of the events of a category that a stream wants, in order.
fn expected(stream: usize) -> Vec<String> {
    let all = (0..EVENTS).map(|n| format!("kind-{}/{n}", n % 2));
    all.filter(|resource| resource.starts_with(&prefix(stream))).chain([LAST.into()]).collect()
}

/// Every second stream wants one kind only.
fn prefix(stream: usize) -> String {
    if stream.is_multiple_of(2) { String::new() } else { "kind-1/".into() }
}

/// Waits until the stream has begun, and returns where.
async fn begun(stream: &mut Streaming<StreamEventsResponse>) -> u64 {
    let first = stream.message().await.unwrap().expect("it goes on for ever");
    assert_eq!(first.event, None, "it begins by telling where it is");
    first.next_position.expect("every reply tells the cursor")
}

/// What comes until the last event of a category.
async fn until_the_last(stream: &mut Streaming<StreamEventsResponse>) -> Vec<String> {
    let mut resources = vec![];
    while resources.last().is_none_or(|last| last != LAST) {
        let reply = stream.message().await.unwrap().expect("it goes on for ever");
        resources.extend(reply.event.map(|event| event.resource));
    }
    resources
}

#[test]
fn a_thousand_streams_each_get_their_own_once_and_the_database_is_asked_once_for_all() {
    scenario(async |d| {
        d.log_statements().await;
        let (a, b) = (d.replica().await, d.replica().await);
        let mut tokens = vec![];
        for number in 0..CATEGORIES {
            let reads = vec![grant("audit.read", &format!("logs/{}", category(number)))];
            tokens.push(a.admin().call(service_key("reader", reads)).await.unwrap().token);
        }
        let connections: Vec<Caller> =
            (0..CONNECTIONS).map(|_| a.caller_on_new_connection(&tokens[0])).collect();
        let mut opening = JoinSet::new();
        for stream in 0..STREAMS {
            // Even and odd ones of each category.
            let number = stream / 2 % CATEGORIES;
            let reader = connections[stream % CONNECTIONS].with_token(&tokens[number]);
            opening.spawn(async move {
                let filter = EventFilter { resource_prefix: prefix(stream), ..Default::default() };
                let request = StreamEventsRequest {
                    category: category(number),
                    filter: Some(filter),
                    ..Default::default()
                };
                let mut events = reader.stream(request).await.unwrap();
                begun(&mut events).await;
                (stream, events)
            });
        }
        let streams = opening.join_all().await;
        let (read_before, mark) = (d.statements("entries::full_from_position"), d.mark().await);

        let mut readers = JoinSet::new();
        for (stream, mut events) in streams {
            readers.spawn(async move {
                let got = until_the_last(&mut events).await;
                assert_eq!(got, expected(stream), "stream {stream}");
            });
        }
        let event = |number: usize, resource: String| NewEvent {
            resource,
            ..login("alice@example.com", &category(number))
        };
        for n in 0..=EVENTS {
            let name = if n == EVENTS { LAST.to_string() } else { format!("kind-{}/{n}", n % 2) };
            let writer = if n % 3 == 0 { b.admin() } else { a.admin() };
            let events = (0..CATEGORIES).map(|number| event(number, name.clone())).collect();
            writer.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
        }
        readers.join_all().await;

        // Each read of the streams finds something new, and so does each of the index of uses, on both replicas.
        let read = d.statements("entries::full_from_position") - read_before;
        let written = d.since(&mark).await[&1].len();
        assert!(written >= CATEGORIES * (EVENTS + 1));
        println!("{STREAMS} streams: {written} new entries were read {read} times");
        assert!(read > 0 && read <= 3 * written, "{written} entries were read {read} times");
    });
}

#[test]
fn a_reader_that_takes_nothing_is_disconnected_and_loses_nothing() {
    scenario(async |d| {
        let replica = d.replica_with("KEYLEDGER_READER_PATIENCE_MS", "200").await;
        let reads = vec![grant("audit.read", "logs/bulk")];
        let key = replica.admin().call(service_key("sleeper", reads)).await.unwrap();
        let key_id = key.key.unwrap().key_id;
        let reader = replica.caller_on_new_connection(&key.token);
        let bulk = StreamEventsRequest { category: "bulk".into(), ..Default::default() };
        let mut slow = reader.stream(bulk.clone()).await.unwrap();
        begun(&mut slow).await;
        let accesses =
            StreamEventsRequest { category: "keyledger/access".into(), ..Default::default() };
        let mut accesses = replica.admin().stream(accesses).await.unwrap();

        // More than what may wait for it.
        let mut recorded = vec![];
        for batch in 0..10 {
            let events = (0..20).map(|n| large(&format!("bulk/{batch}/{n}"))).collect();
            recorded.extend(record_in_order(&replica, events).await);
        }
        let end = loop {
            let reply = accesses.message().await.unwrap().expect("it goes on for ever");
            let ended = |e: &AuditEvent| e.key_id == key_id && e.returned.is_some();
            if let Some(event) = reply.event.filter(ended) {
                break event;
            }
        };

        let (mut got, mut cursor) = (vec![], 0);
        let why = loop {
            match slow.message().await {
                Ok(reply) => {
                    let reply = reply.expect("it ends with why");
                    cursor = reply.next_position.unwrap();
                    got.extend(reply.event.map(|event| event.resource));
                }
                Err(status) => break refused::<()>(Err(status)),
            }
        };
        assert_eq!(why.metadata["next_position"], cursor.to_string());
        why.with(Code::ResourceExhausted, ErrorReason::ReaderTooSlow);
        assert!(got.len() < recorded.len(), "something was still to come");
        assert_eq!(end.returned, Some(got.len() as u64));

        let rest = StreamEventsRequest { from_position: Some(cursor), stop_at_head: true, ..bulk };
        let mut rest = reader.stream(rest).await.unwrap();
        while let Some(reply) = rest.message().await.unwrap() {
            got.extend(reply.event.map(|event| event.resource));
        }
        assert_eq!(got, recorded);
    });
}

fn large(resource: &str) -> NewEvent {
    let value = Some(Value::Text("x".repeat(16_000)));
    let attribute = EventAttribute { name: "content".into(), value, personal: false };
    NewEvent {
        resource: resource.into(),
        attributes: vec![attribute],
        ..login("alice@example.com", "bulk")
    }
}
