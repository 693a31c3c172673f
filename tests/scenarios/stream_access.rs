//! Reading the log by a stream is in the log: its opening, and its end with how many events it gave. Nothing else is written.

use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::{Code, Streaming};

use crate::harness::*;

fn accesses_from(position: Option<u64>) -> StreamEventsRequest {
    StreamEventsRequest {
        category: "keyledger/access".into(),
        from_position: position,
        ..Default::default()
    }
}

/// Reads until an event comes for which it holds.
async fn until(
    stream: &mut Streaming<StreamEventsResponse>,
    holds: impl Fn(&AuditEvent) -> bool,
) -> AuditEvent {
    loop {
        let reply = stream.message().await.unwrap().expect("it goes on for ever");
        if let Some(event) = reply.event.filter(&holds) {
            return event;
        }
    }
}

/// The end of a stream that a key read.
async fn end_of(stream: &mut Streaming<StreamEventsResponse>, key_id: &str) -> AuditEvent {
    until(stream, |e| e.key_id == key_id && e.returned.is_some()).await
}

async fn heartbeat(stream: &mut Streaming<StreamEventsResponse>) -> StreamEventsResponse {
    let reply = stream.message().await.unwrap().expect("it goes on for ever");
    assert_eq!(reply.event, None, "nothing has happened");
    reply
}

/// Once a minute Keyledger tells counts by itself: that is no use.
async fn uses_since(d: &Deployment, mark: &Mark) -> usize {
    let left = d.since(mark).await;
    left.values().flatten().filter(|record| matches!(record, Record::Use { .. })).count()
}

#[test]
fn a_stream_of_accesses_sees_its_own_opening_once_and_heartbeats_write_nothing() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let mut stream = a.admin().stream(accesses_from(Some(0))).await.unwrap();
        let opened = until(&mut stream, |e| e.method == "AuditService/StreamEvents").await;
        assert_eq!((opened.returned, opened.decision()), (None, entry::Decision::Allow));
        assert_eq!(opened.asked, r#"from_position:0,category:"keyledger/access""#);
        let mark = d.mark().await;
        let first = heartbeat(&mut stream).await.next_position;
        for _ in 0..3 {
            let reply = heartbeat(&mut stream).await;
            assert_eq!(reply.next_position, first);
            assert!(!reply.checkpoint.is_empty());
        }
        assert_eq!(uses_since(d, &mark).await, 0, "it feeds on nothing, least of all itself");

        // What others read is seen once, and no more than that is written.
        let listed = b.admin().call(ListEventsRequest::default()).await.unwrap().events.len();
        let seen = until(&mut stream, |_| true).await;
        assert_eq!(seen.method, "AuditService/ListEvents");
        assert_eq!(seen.returned, Some(listed as u64));
        heartbeat(&mut stream).await;
        assert_eq!(uses_since(d, &mark).await, 1);
    });
}

#[test]
fn a_stream_tells_at_its_end_how_much_it_gave_whoever_ended_it() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = b.admin();
        let mut accesses = admin.stream(accesses_from(None)).await.unwrap();
        let reads = || vec![grant("audit.read", "logs/security/login")];
        let reader = admin.call(service_key("siem", reads())).await.unwrap();
        let reader_id = reader.key.unwrap().key_id;
        let events = vec![login("alice@example.com", "security/login"); 3];
        admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
        let filter = EventFilter { action: "user.session.start".into(), ..Default::default() };
        let request = StreamEventsRequest {
            from_position: Some(0),
            category: "security/login".into(),
            filter: Some(filter),
            ..Default::default()
        };
        let open = async |replica: &Replica| {
            let caller = replica.caller_on_new_connection(&reader.token);
            let mut stream = caller.stream(request.clone()).await.unwrap();
            for _ in 0..3 {
                until(&mut stream, |_| true).await;
            }
            stream
        };
        let asked =
            r#"from_position:0,category:"security/login",filter{action:"user.session.start"}"#;

        // The reader goes away.
        drop(open(&a).await);
        let end = end_of(&mut accesses, &reader_id).await;
        assert_eq!((end.returned, end.asked.as_str()), (Some(3), asked));
        assert_eq!(end.resource, "logs/security/login");

        // The server stops: the reader hears where to go on, and goes on elsewhere.
        let mut stream = open(&a).await;
        assert!(a.stop().await.success());
        let why = loop {
            match stream.message().await {
                Ok(reply) => assert_eq!(reply.expect("it ends with why").event, None),
                Err(status) => break refused::<()>(Err(status)),
            }
        };
        assert!(why.retry);
        let next: u64 = why.metadata["next_position"].parse().unwrap();
        why.with(Code::Unavailable, ErrorReason::ServerStopping);
        assert_eq!(end_of(&mut accesses, &reader_id).await.returned, Some(3));
        let goes_on = StreamEventsRequest {
            from_position: Some(next),
            stop_at_head: true,
            ..request.clone()
        };
        let mut stream = b.caller(&reader.token).stream(goes_on).await.unwrap();
        while let Some(reply) = stream.message().await.unwrap() {
            assert_eq!(reply.event, None, "it had all");
        }
        assert_eq!(end_of(&mut accesses, &reader_id).await.returned, Some(0));

        // The key ends: what it leaves then is refused, and tells the same.
        let mut stream = open(&b).await;
        admin.call(revoke(&reader_id)).await.unwrap();
        let why = loop {
            match stream.message().await {
                Ok(reply) => assert_eq!(reply.expect("it ends with why").event, None),
                Err(status) => break refused::<()>(Err(status)),
            }
        };
        why.with(Code::Unauthenticated, ErrorReason::KeyEnded);
        let end = end_of(&mut accesses, &reader_id).await;
        assert_eq!((end.returned, end.asked.as_str()), (Some(3), asked));
        assert_eq!(end.decision(), entry::Decision::Deny);
        let left = d.records(1).await;
        let last = left.last().expect("there are records").as_use();
        assert_eq!(verdict(last), (Decision::Deny, DecisionReason::Revoked));
    });
}

#[test]
fn a_stream_that_may_not_be_read_is_refused_and_recorded_so() {
    scenario(async |d| {
        let replica = d.replica().await;
        let reads = vec![grant("audit.read", "logs/error")];
        let reader = replica.admin().call(service_key("siem", reads)).await.unwrap();
        let reader = replica.caller(&reader.token);
        let mark = d.mark().await;
        let other = StreamEventsRequest { category: "user-activity".into(), ..Default::default() };
        refused(reader.stream(other).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let raw = StreamEventsRequest {
            category: "error".into(),
            view: EventView::Raw as i32,
            ..Default::default()
        };
        refused(reader.stream(raw).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let (_, left) = d.since_in_one(&mark).await;
        let verdicts: Vec<_> = left.iter().map(|r| verdict(r.as_use())).collect();
        let opened = (Decision::Allow, DecisionReason::Granted);
        let refused = (Decision::Deny, DecisionReason::NoGrant);
        // Raw entries hold everything: that is found out once the stream is open.
        assert_eq!(verdicts.first(), Some(&refused));
        assert_eq!(verdicts[1], opened);
        assert_eq!((verdicts.len(), verdicts[2].0), (3, Decision::Deny));
    });
}
