//! Events that other services record: who, what, when and why, once for each id, and for nobody but those who may read their
//! category.

use keyledger_proto::entry::{Outcome, Severity};
use keyledger_proto::event_attribute::Value;
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

fn attribute(name: &str, value: Value, personal: bool) -> EventAttribute {
    EventAttribute { name: name.into(), value: Some(value), personal }
}

fn user(name: &str) -> Actor {
    Actor { actor: Some(actor::Actor::User(name.into())) }
}

fn service(name: &str) -> Actor {
    Actor { actor: Some(actor::Actor::Service(name.into())) }
}

fn of_category(category: &str) -> ListEventsRequest {
    ListEventsRequest { category: category.into(), ..Default::default() }
}

#[test]
fn an_event_is_kept_with_all_that_was_said_and_found_on_every_replica() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let writer = vec![grant("audit.write", "logs/**")];
        let writer = a.admin().call(service_key("portal", writer)).await.unwrap();
        let writer_id = writer.key.unwrap().key_id;
        let portal = a.caller(&writer.token);
        let event = NewEvent {
            actor: Some(user("alice@example.com")),
            on_behalf_of: vec![user("carol@example.com"), service("batch")],
            action: "invoice.export".into(),
            resource: "invoices/2026".into(),
            outcome: Outcome::Denied as i32,
            reason: "quarterly closing".into(),
            category: "user-activity".into(),
            severity: Severity::Medium as i32,
            occur_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 5_000 }),
            client: Some(EventClient {
                address: "203.0.113.9".into(),
                user_agent: "curl/8".into(),
                device: "laptop 4711".into(),
            }),
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
            span_id: "b7ad6b7169203331".into(),
            attributes: vec![
                attribute("rows", Value::Integer(17), false),
                attribute("mail", Value::Text("alice+x@example.com".into()), true),
                attribute("share", Value::Number(0.5), false),
                attribute("dry", Value::Flag(true), false),
            ],
            event_id: "portal-1".into(),
            signature: None,
        };
        let request = RecordEventsRequest { events: vec![event.clone()], atomic: false };
        let outcome = portal.call(request).await.unwrap().outcomes.remove(0);
        assert!(outcome.refusal.is_none() && !outcome.repeated);

        let listed = b.admin().call(of_category("user-activity")).await.unwrap().events;
        let [shown] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(shown.position, outcome.position);
        assert_eq!((shown.r#type.as_str(), &shown.category), ("event.recorded", &event.category));
        assert_eq!((&shown.actor, &shown.on_behalf_of), (&event.actor, &event.on_behalf_of));
        assert_eq!((&shown.action, &shown.resource), (&event.action, &event.resource));
        assert_eq!((shown.outcome, shown.severity), (event.outcome, event.severity));
        assert_eq!((&shown.reason, shown.occur_time), (&event.reason, event.occur_time));
        assert_eq!((&*shown.address, &*shown.user_agent), ("203.0.113.9", "curl/8"));
        assert_eq!(shown.device, "laptop 4711");
        assert_eq!((&shown.trace_id, &shown.span_id), (&event.trace_id, &event.span_id));
        assert_eq!(shown.caller_key_id, writer_id, "who said so is not who is said to have acted");
        let mut attributes = event.attributes.clone();
        attributes.sort_by_key(|a| a.personal);
        assert_eq!(shown.attributes, attributes);
        // Nothing personal stands in the signed bytes.
        let body = format!("{:?}", shown.body);
        for personal in ["alice", "carol", "quarterly", "203.0.113.9", "laptop"] {
            assert!(!body.contains(personal), "{personal} in {body}");
        }
    });
}

#[test]
fn an_event_is_recorded_once_for_each_id_of_its_producer() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let event =
            |id: &str| NewEvent { event_id: id.into(), ..login("alice@example.com", "login") };
        let record = |event: NewEvent| RecordEventsRequest { events: vec![event], atomic: false };
        let first = a.admin().call(record(event("1"))).await.unwrap().outcomes.remove(0);
        for replica in [&a, &b] {
            let again = replica.admin().call(record(event("1"))).await.unwrap().outcomes.remove(0);
            assert_eq!((again.position, again.repeated), (first.position, true));
        }
        // Another event with the same id is a mistake; another producer's ids are its own.
        let other = NewEvent { action: "user.session.end".into(), ..event("1") };
        let refusal = a.admin().call(record(other)).await.unwrap().outcomes.remove(0).refusal;
        assert_eq!(refusal.unwrap().reason(), ErrorReason::RequestIdReused);
        let writer = service_key("portal", vec![grant("audit.write", "logs/login")]);
        let writer = a.admin().call(writer).await.unwrap();
        let own =
            b.caller(&writer.token).call(record(event("1"))).await.unwrap().outcomes.remove(0);
        assert!(own.position.is_some() && !own.repeated);
        // At the same time, through both replicas, in one call and in several.
        let many =
            RecordEventsRequest { events: vec![event("2"), event("3"), event("2")], atomic: false };
        let (on_a, on_b) = (a.admin(), b.admin());
        let (one, two) = tokio::join!(on_a.call(many.clone()), on_b.call(many.clone()));
        let mut positions: Vec<_> = one.unwrap().outcomes.into_iter().map(|o| o.position).collect();
        positions.extend(two.unwrap().outcomes.into_iter().map(|o| o.position));
        positions.sort();
        positions.dedup();
        assert_eq!(positions.len(), 2);
        assert_eq!(a.admin().call(of_category("login")).await.unwrap().events.len(), 4);
    });
}

#[test]
fn one_bad_event_leaves_the_others_unharmed_and_each_says_what_is_wrong() {
    scenario(async |d| {
        let replica = d.replica().await;
        let writer = service_key("portal", vec![grant("audit.write", "logs/login")]);
        let writer = replica.admin().call(writer).await.unwrap();
        let portal = replica.caller(&writer.token);
        let good = || login("alice@example.com", "login");
        let future = prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 };
        let events = vec![
            good(),
            NewEvent { action: "two\nlines".into(), ..good() },
            NewEvent { category: "user-activity".into(), ..good() },
            NewEvent { category: "keyledger/use".into(), ..good() },
            NewEvent { occur_time: Some(future), ..good() },
            good(),
        ];
        let outcomes =
            portal.call(RecordEventsRequest { events, atomic: false }).await.unwrap().outcomes;
        let shown: Vec<_> = outcomes
            .iter()
            .map(|o| {
                o.refusal
                    .as_ref()
                    .map(|r| (r.reason(), r.problems.iter().map(|p| &*p.field).collect::<Vec<_>>()))
            })
            .collect();
        let invalid = |field| Some((ErrorReason::InvalidField, vec![field]));
        assert_eq!(shown[0], None);
        assert_eq!(shown[1], invalid("action"));
        assert_eq!(shown[2], Some((ErrorReason::PermissionDenied, vec![])));
        assert_eq!(shown[3], invalid("category"));
        assert_eq!(shown[4], invalid("occur_time"));
        assert_eq!(shown[5], None);
        assert_eq!(replica.admin().call(of_category("login")).await.unwrap().events.len(), 2);
        let nothing = refused(portal.call(RecordEventsRequest::default()).await);
        assert_eq!(nothing.fields, ["events"]);
        let reader = service_key("reader", vec![grant("audit.read", "logs/login")]);
        let reader = replica.admin().call(reader).await.unwrap();
        let request = RecordEventsRequest { events: vec![good()], atomic: false };
        refused(replica.caller(&reader.token).call(request).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn a_key_for_one_category_sees_that_one_and_nothing_of_the_others() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let categories = ["error", "user-activity", "security/login", "error/deep"];
        let marked = |category: &str, n: usize| NewEvent {
            resource: format!("only/{category}/{n}"),
            ..login("alice@example.com", category)
        };
        for n in 0..30 {
            let events = categories.iter().map(|c| marked(c, n)).collect();
            admin.call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        }
        let reader = CreateKeyRequest {
            roles: vec!["log-reader(error)".into()],
            ..service_key("exporter", vec![])
        };
        let reader = admin.call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        let only_errors = |events: &[AuditEvent]| {
            assert!(events.iter().all(|e| e.category == "error"), "{events:?}");
        };
        let mut seen = 0;
        let mut page_token = String::new();
        loop {
            let request = ListEventsRequest { page_size: 7, page_token, ..of_category("error") };
            let page = reader.call(request).await.unwrap();
            only_errors(&page.events);
            seen += page.events.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, 30);
        for other in ["user-activity", "security/login", "error/deep", "keyledger/use"] {
            refused(reader.call(of_category(other)).await)
                .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        }
        let position = admin.call(of_category("user-activity")).await.unwrap().events[0].position;
        let get = GetEventRequest { position, ..Default::default() };
        refused(reader.call(get).await).with(Code::NotFound, ErrorReason::EventNotFound);
        let from = StreamEventsRequest {
            from_position: Some(0),
            category: "error".into(),
            stop_at_head: true,
            ..Default::default()
        };
        let mut stream = reader.stream(from).await.unwrap();
        let mut streamed = vec![];
        while let Some(reply) = stream.message().await.unwrap() {
            streamed.extend(reply.event);
        }
        only_errors(&streamed);
        assert_eq!(streamed.len(), 30);
    });
}

#[test]
fn a_replica_that_starts_knows_how_many_events_there_were() {
    scenario(async |d| {
        let first = d.replica().await;
        for n in 0..5 {
            let events = vec![login(&format!("person-{n}@example.com"), "login"); 20];
            first.admin().call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        }
        first.stop().await;
        let second = d.replica().await;
        let events = vec![login("late@example.com", "login")];
        let outcome =
            second.admin().call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        assert!(outcome.outcomes[0].position.is_some());
    });
}

#[test]
fn a_list_shows_the_events_for_which_all_holds_and_pages_through_them() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let trace_id = "0af7651916cd43dd8448eb211c80319c".to_string();
        let event = |n: usize| NewEvent {
            action: ["user.session.start", "invoice.export"][n % 2].into(),
            actor: Some(if n.is_multiple_of(3) {
                service("batch")
            } else {
                user("alice@example.com")
            }),
            resource: format!("invoices/{}/{n}", 2020 + n % 4),
            outcome: (1 + n % 3) as i32,
            severity: (1 + n % 6) as i32,
            reason: format!("Quarterly CLOSING number {n}"),
            trace_id: if n.is_multiple_of(5) { trace_id.clone() } else { String::new() },
            ..login("x", "user-activity")
        };
        for chunk in (0..60).collect::<Vec<_>>().chunks(20) {
            let events = chunk.iter().map(|n| event(*n)).collect();
            admin.call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        }
        let all =
            admin.call(ListEventsRequest { page_size: 1_000, ..of_category("user-activity") });
        let all = all.await.unwrap().events;
        assert_eq!(all.len(), 60);
        let middle = all[30].time.unwrap();
        let found = async |filter: EventFilter| {
            let (mut found, mut page_token) = (vec![], String::new());
            loop {
                let filter = Some(filter.clone());
                let request = ListEventsRequest {
                    page_size: 7,
                    page_token,
                    filter,
                    ..of_category("user-activity")
                };
                let page = b.admin().call(request).await.unwrap();
                found.extend(page.events);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return found;
                }
            }
        };
        type Holds = fn(&AuditEvent) -> bool;
        let start = all[59].time;
        let table: Vec<(EventFilter, Holds)> = vec![
            (EventFilter { action: "invoice.export".into(), ..Default::default() }, |e| {
                e.action == "invoice.export"
            }),
            (EventFilter { actor: Some(service("batch")), ..Default::default() }, |e| {
                e.actor == Some(service("batch"))
            }),
            (EventFilter { resource_prefix: "invoices/2021/".into(), ..Default::default() }, |e| {
                e.resource.starts_with("invoices/2021/")
            }),
            (EventFilter { outcome: Outcome::Denied as i32, ..Default::default() }, |e| {
                e.outcome() == Outcome::Denied
            }),
            (EventFilter { min_severity: Severity::High as i32, ..Default::default() }, |e| {
                e.severity >= Severity::High as i32
            }),
            (EventFilter { trace_id: trace_id.clone(), ..Default::default() }, |e| {
                e.trace_id.starts_with("0af765")
            }),
            (
                EventFilter {
                    reason_holds: "closing NUMBER 4".into(),
                    start_time: start,
                    ..Default::default()
                },
                |e| e.reason.contains("number 4"),
            ),
            (
                EventFilter {
                    action: "invoice.export".into(),
                    outcome: Outcome::Success as i32,
                    actor: Some(user("alice@example.com")),
                    ..Default::default()
                },
                |e| {
                    e.action == "invoice.export"
                        && e.outcome() == Outcome::Success
                        && e.actor == Some(user("alice@example.com"))
                },
            ),
        ];
        for (filter, holds) in table {
            let expected: Vec<AuditEvent> = all.iter().filter(|e| holds(e)).cloned().collect();
            assert!(filter.outcome == 1 || !expected.is_empty(), "{filter:?}");
            assert_eq!(found(filter.clone()).await, expected, "{filter:?}");
        }
        let micros = |t: prost_types::Timestamp| t.seconds * 1_000_000 + i64::from(t.nanos) / 1_000;
        let since = found(EventFilter { start_time: Some(middle), ..Default::default() }).await;
        let until = found(EventFilter { end_time: Some(middle), ..Default::default() }).await;
        assert!(since.iter().all(|e| micros(e.time.unwrap()) >= micros(middle)));
        assert!(until.iter().all(|e| micros(e.time.unwrap()) < micros(middle)));
        assert_eq!(since.len() + until.len(), 60);

        let words = EventFilter { reason_holds: "closing".into(), ..Default::default() };
        let long_ago = Some(prost_types::Timestamp { seconds: 1_000, nanos: 0 });
        let bad = [
            (words.clone(), "filter.start_time"),
            (EventFilter { start_time: long_ago, ..words }, "filter.start_time"),
            (EventFilter { trace_id: "xyz".into(), ..Default::default() }, "filter.trace_id"),
            (EventFilter { outcome: 77, ..Default::default() }, "filter.outcome"),
            (
                EventFilter { caller_key_id: "x".into(), ..Default::default() },
                "filter.caller_key_id",
            ),
            (EventFilter { actor: Some(Actor::default()), ..Default::default() }, "filter.actor"),
        ];
        for (filter, field) in bad {
            let request = ListEventsRequest { filter: Some(filter), ..Default::default() };
            assert_eq!(refused(admin.call(request).await).fields, [field]);
        }
    });
}

#[test]
fn those_who_watch_keys_hear_nothing_of_what_services_record() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let events = vec![login("alice@example.com", "login"); 5];
        admin.call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        let made = admin.call(user_key("bob@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let mut watch = admin.stream(WatchKeysRequest { from_position: Some(0) }).await.unwrap();
        loop {
            let Some(change) = watch.message().await.unwrap().unwrap().change else { continue };
            assert_ne!(change.r#type, "event.recorded");
            if change.key_id == key_id {
                break;
            }
        }
    });
}
