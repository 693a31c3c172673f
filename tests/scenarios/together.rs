//! Events that are recorded together, all or none, and events that come as a stream.

use futures_util::{StreamExt, stream};
use keyledger_proto::*;
use tokio::sync::mpsc;
use tonic::Code;

use crate::harness::*;

fn event(id: &str, category: &str) -> NewEvent {
    NewEvent { event_id: id.into(), ..login("alice@example.com", category) }
}

fn together(events: Vec<NewEvent>) -> RecordEventsRequest {
    RecordEventsRequest { events, atomic: true }
}

async fn writer(replica: &Replica, resource: &str) -> (String, Caller) {
    let made = service_key("portal", vec![grant("audit.write", resource)]);
    let made = replica.admin().call(made).await.unwrap();
    (made.key.unwrap().key_id, replica.caller(&made.token))
}

async fn recorded(caller: &Caller) -> Vec<AuditEvent> {
    let mut request = ListEventsRequest { page_size: 1_000, ..Default::default() };
    let mut events = vec![];
    loop {
        let page = caller.call(request.clone()).await.unwrap();
        events.extend(page.events.into_iter().filter(|e| e.r#type == "event.recorded"));
        if page.next_page_token.is_empty() {
            events.reverse();
            return events;
        }
        request.page_token = page.next_page_token;
    }
}

#[test]
fn events_of_an_atomic_batch_follow_each_other_in_the_order_in_which_they_were_sent() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let events = (0..100).map(|i| event(&format!("e{i}"), "login")).collect();
        let request = together(events);
        let outcomes = a.admin().call(request.clone()).await.unwrap().outcomes;
        let first = outcomes[0].position.unwrap();
        for (i, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.position, Some(first + i as u64));
        }
        // The same again, elsewhere: answered as then.
        let again = b.admin().call(request).await.unwrap().outcomes;
        for (then, now) in outcomes.iter().zip(&again) {
            assert_eq!((now.position, now.repeated), (then.position, true));
        }
        assert_eq!(recorded(&b.admin()).await.len(), 100);
    });
}

#[test]
fn of_an_atomic_batch_with_one_bad_event_nothing_is_left_but_its_refusal() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (_, portal) = writer(&replica, "logs/login").await;
        let admin = replica.admin();
        portal.call(together(vec![event("old", "login")])).await.unwrap();
        let future = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
        let bad = [
            (event("x", "other"), ErrorReason::PermissionDenied),
            (event("x", "a b"), ErrorReason::InvalidField),
            (
                NewEvent { occur_time: Some(future), ..event("x", "login") },
                ErrorReason::InvalidField,
            ),
            (
                NewEvent { action: "other".into(), ..event("old", "login") },
                ErrorReason::RequestIdReused,
            ),
        ];
        for (bad, reason) in bad {
            let mark = d.mark().await;
            let events = vec![event("1", "login"), event("2", "login"), bad, event("3", "login")];
            let outcomes = portal.call(together(events)).await.unwrap().outcomes;
            for (i, outcome) in outcomes.iter().enumerate() {
                let refusal = outcome.refusal.as_ref().expect("nothing was recorded");
                let expected = if i == 2 { reason } else { ErrorReason::BatchAborted };
                assert_eq!(refusal.reason(), expected, "{i}: {refusal:?}");
                assert_eq!(outcome.position, None);
            }
            let (_, left) = d.since_in_one(&mark).await;
            assert_eq!(left.len(), 1, "{left:?}");
            left[0].as_use();
        }
        // None of their ids is taken.
        let good = ["1", "2", "3"].map(|id| event(id, "login")).to_vec();
        let outcomes = portal.call(together(good)).await.unwrap().outcomes;
        assert!(outcomes.iter().all(|o| o.position.is_some() && !o.repeated), "{outcomes:?}");
        assert_eq!(recorded(&admin).await.len(), 4);
    });
}

#[test]
fn a_stream_answers_each_event_in_order_and_records_it_before() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (_, portal) = writer(&replica, "logs/login").await;
        let events: Vec<NewEvent> = (0..1_000)
            .map(|i| match i % 10 {
                7 => event(&format!("e{i}"), "other"),
                8 => event(&format!("e{}", i - 2), "login"),
                _ => event(&format!("e{i}"), "login"),
            })
            .collect();
        let sent = stream::iter(events).map(|e| RecordEventStreamRequest { event: Some(e) });
        let mut replies = portal.record_stream(sent).await.unwrap();
        let (mut outcomes, mut last) = (vec![], 0);
        while let Some(reply) = replies.message().await.unwrap() {
            outcomes.extend(reply.outcomes);
            assert_eq!(reply.answered, outcomes.len() as u64);
            last = reply.answered;
        }
        assert_eq!(last, 1_000);
        let mut positions = vec![];
        for (i, outcome) in outcomes.iter().enumerate() {
            match i % 10 {
                7 => {
                    let refusal = outcome.refusal.as_ref().expect("not its category");
                    assert_eq!(refusal.reason(), ErrorReason::PermissionDenied);
                }
                8 => {
                    let then = outcomes[i - 2].position;
                    assert_eq!((outcome.position, outcome.repeated), (then, true));
                }
                _ => positions.push(outcome.position.unwrap()),
            }
        }
        assert!(positions.is_sorted_by(|a, b| a < b), "in the order in which they were sent");
        let listed: Vec<u64> =
            recorded(&replica.admin()).await.iter().map(|e| e.position.unwrap()).collect();
        assert_eq!(listed, positions);
    });
}

#[test]
fn a_stream_of_events_ends_when_its_key_ends_and_loses_nothing_that_it_answered() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let (key_id, portal) = writer(&a, "logs/login").await;
        let (send, receive) = mpsc::channel(8);
        let sent =
            stream::unfold(receive, async |mut receive| Some((receive.recv().await?, receive)));
        let mut replies = portal.record_stream(sent).await.unwrap();
        let mut answered = vec![];
        for i in 0..3 {
            let event = Some(event(&format!("e{i}"), "login"));
            send.send(RecordEventStreamRequest { event }).await.unwrap();
            answered.extend(replies.message().await.unwrap().unwrap().outcomes);
        }
        b.admin().call(revoke(&key_id)).await.unwrap();
        // Nobody has sent anything since.
        refused(replies.message().await).with(Code::Unauthenticated, ErrorReason::KeyEnded);
        let listed = recorded(&a.admin()).await;
        let positions: Vec<_> = listed.iter().map(|e| e.position).collect();
        assert_eq!(positions, answered.iter().map(|o| o.position).collect::<Vec<_>>());
    });
}

#[test]
fn a_stream_without_events_and_one_that_may_record_nothing_leave_one_use_each() {
    scenario(async |d| {
        let replica = d.replica().await;
        let mark = d.mark().await;
        let mut replies = replica.admin().record_stream(stream::empty()).await.unwrap();
        assert!(replies.message().await.unwrap().is_none());
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(
            (left.len(), left[0].as_use().method.as_str()),
            (1, "AuditService/RecordEventStream")
        );

        let reader = service_key("reader", vec![grant("audit.read", "logs/**")]);
        let reader = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        let mark = d.mark().await;
        refused(reader.record_stream(stream::empty()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        assert_eq!(d.since_in_one(&mark).await.1.len(), 1);
    });
}
