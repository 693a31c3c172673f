//! What a stream can be asked for: where it begins, which events it gives, and that it tells where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger_proto::entry::{Outcome, Severity};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::*;

/// All that a request finds now, oldest first.
async fn streamed(caller: &Caller, request: StreamEventsRequest) -> Vec<AuditEvent> {
    let request = StreamEventsRequest { stop_at_head: true, ..request };
    let mut stream = caller.stream(request).await.unwrap();
    let mut events = vec![];
    while let Some(reply) = stream.message().await.unwrap() {
        events.extend(reply.event);
    }
    events
}

/// The same by a list, in the order of a stream.
async fn listed(caller: &Caller, request: ListEventsRequest) -> Vec<AuditEvent> {
    let (mut events, mut page_token) = (vec![], String::new());
    loop {
        let request = ListEventsRequest { page_size: 100, page_token, ..request.clone() };
        let page = caller.call(request).await.unwrap();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            events.reverse();
            return events;
        }
    }
}

/// Forty events of one category.
async fn record(admin: &Caller) {
    for n in 0..4 {
        let event = |m: usize| NewEvent {
            action: ["user.session.start", "invoice.export"][m % 2].into(),
            resource: format!("invoices/{}/{m}", 2020 + m % 3),
            outcome: (1 + m % 3) as i32,
            severity: (1 + m % 6) as i32,
            reason: format!("Quarterly CLOSING number {m}"),
            ..login(["alice@example.com", "bob@example.com"][m % 2], "user-activity")
        };
        let events = (n * 10..n * 10 + 10).map(event).collect();
        admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
    }
}

fn all() -> StreamEventsRequest {
    StreamEventsRequest {
        from_position: Some(0),
        category: "user-activity".into(),
        ..Default::default()
    }
}

#[test]
fn a_stream_gives_the_events_for_which_all_holds_as_a_list_does() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        record(&a.admin()).await;
        let everything = streamed(&b.admin(), all()).await;
        assert_eq!(everything.len(), 40);
        let start_time = everything[0].time;
        let alice = Actor { actor: Some(actor::Actor::User("alice@example.com".into())) };
        let words = EventFilter { reason_holds: "closing NUMBER 3".into(), ..Default::default() };
        let filters = [
            EventFilter { action: "invoice.export".into(), ..Default::default() },
            EventFilter { actor: Some(alice), ..Default::default() },
            EventFilter { resource_prefix: "invoices/2021/".into(), ..Default::default() },
            EventFilter { outcome: Outcome::Denied as i32, ..Default::default() },
            EventFilter { min_severity: Severity::High as i32, ..Default::default() },
            EventFilter { start_time: everything[17].time, ..Default::default() },
            EventFilter { start_time, end_time: everything[22].time, ..Default::default() },
            EventFilter { start_time, ..words.clone() },
        ];
        for filter in filters {
            let filter = Some(filter);
            let list = ListEventsRequest {
                category: "user-activity".into(),
                filter: filter.clone(),
                ..Default::default()
            };
            let expected = listed(&a.admin(), list).await;
            assert!(!expected.is_empty() && expected.len() < 40, "{filter:?}");
            let request = StreamEventsRequest { filter: filter.clone(), ..all() };
            assert_eq!(streamed(&b.admin(), request).await, expected, "{filter:?}");
        }
        // A stream looks at each event once: words need no times.
        let request = StreamEventsRequest { filter: Some(words), ..all() };
        assert_eq!(streamed(&a.admin(), request).await.len(), 11);

        // By key: what it is about, and what it called.
        let made = a.admin().call(user_key("carol@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        b.admin().call(check(&made.token)).await.unwrap();
        a.admin().call(rotate(&key_id, 60)).await.unwrap();
        let of_key = StreamEventsRequest {
            from_position: Some(0),
            key_id: key_id.clone(),
            ..Default::default()
        };
        let types: Vec<_> =
            streamed(&b.admin(), of_key).await.into_iter().map(|e| e.r#type).collect();
        assert_eq!(types, ["key.created", "key.used", "key.rotated"]);
    });
}

#[test]
fn a_stream_begins_at_a_time_also_at_one_that_is_still_to_come() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        record(&admin).await;
        let everything = streamed(&admin, all()).await;
        let since = |start_time: Option<Timestamp>| StreamEventsRequest {
            from_position: None,
            start_time,
            ..all()
        };
        for n in [0, 17, 39] {
            let time = everything[n].time;
            // Those of one batch have one time.
            let expected: Vec<_> =
                everything.iter().skip_while(|e| e.time != time).cloned().collect();
            assert_eq!(streamed(&admin, since(time)).await, expected);
        }
        let long_ago = Some(Timestamp { seconds: 1, nanos: 0 });
        assert_eq!(streamed(&admin, since(long_ago)).await, everything);

        // A second from now: what comes before is passed over.
        let last = everything[39].time.unwrap();
        let soon = Timestamp { seconds: last.seconds + 1, ..last };
        let mut stream = admin.stream(since(Some(soon))).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (admin, done) = (admin.clone(), done.clone());
            async move {
                while !done.load(Ordering::Relaxed) {
                    let events = vec![login("alice@example.com", "user-activity")];
                    admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
                }
            }
        });
        let first = loop {
            let reply = stream.message().await.unwrap().expect("it goes on for ever");
            if let Some(event) = reply.event {
                break event;
            }
        };
        done.store(true, Ordering::Relaxed);
        writer.await.expect("the writer doesn't panic");
        let at = |t: Timestamp| (t.seconds, t.nanos);
        assert!(at(first.time.unwrap()) >= at(soon));
        let from_there = streamed(&admin, since(Some(soon))).await;
        assert_eq!(from_there.first(), Some(&first), "and it was the first one");
    });
}

#[test]
fn a_stream_that_passes_everything_over_tells_where_it_is() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let nothing = EventFilter { action: "nobody.does.this".into(), ..Default::default() };
        let request = StreamEventsRequest { filter: Some(nothing), ..Default::default() };
        let mut stream = a.admin().stream(request).await.unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn({
            let (admin, done) = (b.admin(), done.clone());
            async move {
                while !done.load(Ordering::Relaxed) {
                    let events = vec![login("alice@example.com", "user-activity"); 20];
                    admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
                }
            }
        });
        let mut cursors = vec![];
        while cursors.len() < 4 {
            let reply = stream.message().await.unwrap().expect("it goes on for ever");
            assert_eq!(reply.event, None);
            cursors.push(reply.next_position.expect("every reply tells the cursor"));
        }
        done.store(true, Ordering::Relaxed);
        writer.await.expect("the writer doesn't panic");
        assert!(cursors.windows(2).all(|pair| pair[0] < pair[1]), "{cursors:?}");
    });
}

#[test]
fn what_a_stream_can_not_be_asked_is_refused_with_its_field() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let time = Some(Timestamp { seconds: 1_790_000_000, nanos: 0 });
        let filter = |filter| StreamEventsRequest { filter: Some(filter), ..Default::default() };
        let bad = [
            (filter(EventFilter { end_time: time, ..Default::default() }), "filter.end_time"),
            (filter(EventFilter { outcome: 77, ..Default::default() }), "filter.outcome"),
            (StreamEventsRequest { start_time: time, ..all() }, "start_time"),
            (
                StreamEventsRequest {
                    start_time: Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
                    ..Default::default()
                },
                "start_time",
            ),
            (StreamEventsRequest { key_id: "x".into(), ..all() }, "key_id"),
            (StreamEventsRequest { from_position: Some(u64::MAX), ..all() }, "from_position"),
        ];
        for (request, field) in bad {
            let refusal = refused(admin.stream(request).await);
            assert_eq!(refusal.fields, [field]);
            refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        }
    });
}
