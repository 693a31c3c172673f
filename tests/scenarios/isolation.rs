//! A key for one category of the log finds nothing of any other: in no list, stream, count, single read or trace, by no
//! method. And it can tell that nothing of its own was withheld.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use bytes::Bytes;
use keyledger_ledger::body::{CategoryCount, CountRecord, DecisionReason, Event, Kind};
use keyledger_ledger::category::check_count;
use keyledger_ledger::entry::Entry;
use keyledger_ledger::proof::verify_inclusion;
use keyledger_proto::event_attribute::Value;
use keyledger_proto::methods::Method;
use keyledger_proto::*;
use prost::Message;
use tonic::Code;

use crate::every_method::{Target, all, good_request};
use crate::harness::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHERS: [&str; 3] = ["user-activity", "security/login", "error/deep"];

fn named(name: String) -> Actor {
    Actor { actor: Some(actor::Actor::User(name)) }
}

/// An event each of whose texts names its category.
fn marked(category: &str, n: usize) -> NewEvent {
    let mark = |what: &str| format!("{what}-of-{}-{n}", category.replace('/', "."));
    let attribute = |personal: bool| EventAttribute {
        name: mark("name"),
        value: Some(Value::Text(mark("value"))),
        personal,
    };
    NewEvent {
        actor: Some(named(mark("actor"))),
        on_behalf_of: vec![named(mark("principal"))],
        action: mark("action"),
        resource: mark("resource"),
        reason: mark("reason"),
        category: category.into(),
        client: Some(EventClient {
            address: "203.0.113.9".into(),
            user_agent: mark("agent"),
            device: mark("device"),
        }),
        trace_id: TRACE.into(),
        attributes: vec![attribute(n.is_multiple_of(2))],
        event_id: mark("id"),
        ..NewEvent::default()
    }
}

/// A ledger with events of many categories, uses, reads of the log and changes, all of one trace.
async fn fill(replica: &Replica) -> Target {
    let admin =
        replica.admin().with_header("traceparent", &format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let target = Target::new(&admin).await;
    for n in 0..4 {
        let categories = OTHERS.iter().chain(&["error"]);
        let events = categories.map(|category| marked(category, n)).collect();
        admin.call(RecordEventsRequest { events, atomic: false }).await.unwrap();
        let asked = VerifyKeyRequest { resource: "resource-of-use".into(), ..check(&target.token) };
        admin.call(asked).await.unwrap();
        let actor = Some(named("actor-of-access".into()));
        let filter =
            Some(EventFilter { actor, action: "action-of-access".into(), ..Default::default() });
        admin.call(ListEventsRequest { filter, ..Default::default() }).await.unwrap();
    }
    admin.call(GetCategoryCountsRequest {}).await.unwrap();
    target
}

/// What may stand in no reply.
fn marks() -> Vec<String> {
    let of = |category: &&str| format!("-of-{}-", category.replace('/', "."));
    let mut marks: Vec<String> = OTHERS.iter().map(of).collect();
    // Of uses, of reads of the log, of keys.
    marks.extend(
        ["resource-of-use", "of-access", "export error logs", "ticket 4711"].map(String::from),
    );
    marks.extend(OTHERS.map(String::from));
    let own = ["keyledger/lifecycle", "keyledger/use", "keyledger/access", "keyledger/anomaly"];
    marks.extend(own.map(String::from));
    marks
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// All requests by which a reader may try to see more than it may.
fn attempts(method: &Method, target: &Target, positions: u64) -> Vec<Bytes> {
    let (_, good) = good_request(method, target);
    let mut all = vec![good];
    let mut add = |message: &dyn Fn() -> Vec<u8>| all.push(message().into());
    let filters = || {
        let base = EventFilter::default;
        let mut filters = vec![
            base(),
            EventFilter { trace_id: TRACE.into(), ..base() },
            EventFilter { resource_prefix: "resource-of".into(), ..base() },
        ];
        for category in OTHERS {
            let event = marked(category, 1);
            filters.push(EventFilter { action: event.action.clone(), ..base() });
            filters.push(EventFilter { actor: event.actor.clone(), ..base() });
        }
        filters
    };
    let categories = ["", "error"].into_iter().chain(OTHERS).chain([
        "keyledger/lifecycle",
        "keyledger/use",
        "keyledger/access",
        "keyledger/anomaly",
        "error/**",
    ]);
    match method.name.as_str() {
        "AuditService/ListEvents" => {
            for category in categories {
                for filter in filters() {
                    let request = ListEventsRequest {
                        category: category.into(),
                        filter: Some(filter),
                        page_size: 1_000,
                        ..Default::default()
                    };
                    add(&|| request.encode_to_vec());
                }
            }
        }
        "AuditService/GetTrace" => {
            for page_size in [1, 1_000] {
                let request =
                    GetTraceRequest { trace_id: TRACE.into(), page_size, ..Default::default() };
                add(&|| request.encode_to_vec());
            }
        }
        "AuditService/CountEvents" => {
            for category in categories {
                for group_by in 0..6 {
                    let request = CountEventsRequest {
                        category: category.into(),
                        group_by,
                        ..Default::default()
                    };
                    add(&|| request.encode_to_vec());
                }
            }
        }
        "AuditService/GetEvent" => {
            for position in 0..positions {
                for (index, view) in
                    [(None, 0), (Some(0), 0), (Some(1), 1), (None, 2), (Some(0), 2)]
                {
                    let request = GetEventRequest { position: Some(position), index, view };
                    add(&|| request.encode_to_vec());
                }
            }
        }
        "AuditService/StreamEvents" => {
            for category in categories {
                let of_category = StreamEventsRequest {
                    from_position: Some(0),
                    category: category.into(),
                    stop_at_head: true,
                    ..Default::default()
                };
                for view in 0..3 {
                    let request = StreamEventsRequest { view, ..of_category.clone() };
                    add(&|| request.encode_to_vec());
                }
                for filter in filters() {
                    let request =
                        StreamEventsRequest { filter: Some(filter), ..of_category.clone() };
                    add(&|| request.encode_to_vec());
                }
            }
        }
        "AuditService/ExportEvents" => {
            for category in categories {
                // Of those that it may ask for, in each format.
                let formats = if ["", "error"].contains(&category) { 1..5 } else { 1..2 };
                for (format, filter) in formats.flat_map(|f| [(f, 0), (f, 1), (f, 2)]) {
                    let request = ExportEventsRequest {
                        category: category.into(),
                        filter: filters().into_iter().nth(filter),
                        format,
                        ..Default::default()
                    };
                    add(&|| request.encode_to_vec());
                }
            }
        }
        _ => {}
    }
    all
}

/// Streams that would go on for ever are asked to stop.
fn is_endless(method: &Method) -> bool {
    matches!(method.name.as_str(), "AuditService/StreamEvents")
}

#[test]
fn a_key_for_one_category_finds_no_byte_of_any_other_by_any_method() {
    scenario(async |d| {
        let replica = d.replica().await;
        let target = fill(&replica).await;
        let reader = service_key("reader", vec![grant("audit.read", "logs/error")]);
        let reader = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        let positions = d.records(1).await.iter().map(|r| r.address().0 + 1).max().unwrap();
        let (marks, mut own) = (marks(), 0);
        for method in all() {
            let mut attempts = attempts(&method, &target, positions);
            if is_endless(&method) {
                attempts.remove(0);
            }
            for message in attempts {
                let (replies, ended) = reader.raw_all(&method.path, message.clone()).await;
                if let Some(ended) = ended {
                    let known = [
                        Code::PermissionDenied,
                        Code::NotFound,
                        Code::InvalidArgument,
                        Code::Unauthenticated,
                    ];
                    assert!(known.contains(&ended.code()), "{}: {ended:?}", method.name);
                }
                for reply in &replies {
                    own += usize::from(holds(reply, "action-of-error-"));
                    // What a key may do, and is told of itself, is no part of the log.
                    if method.name == "KeyService/WhoAmI"
                        || method.name == "KeyService/ListPermissions"
                    {
                        continue;
                    }
                    for mark in &marks {
                        assert!(!holds(reply, mark), "{} gives {mark}", method.name);
                    }
                }
            }
        }
        assert!(own > 20, "it sees its own: {own}");
    });
}

#[test]
fn asking_for_another_category_is_refused_and_recorded_as_such() {
    scenario(async |d| {
        let replica = d.replica().await;
        fill(&replica).await;
        let reader = service_key("reader", vec![grant("audit.read", "logs/error")]);
        let reader = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        for category in OTHERS.into_iter().chain(["keyledger/access", "keyledger/anomaly"]) {
            let mark = d.mark().await;
            let list = ListEventsRequest { category: category.into(), ..Default::default() };
            refused(reader.call(list).await)
                .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
            let stream = StreamEventsRequest { category: category.into(), ..Default::default() };
            refused(reader.stream(stream).await)
                .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
            let (_, left) = d.since_in_one(&mark).await;
            assert_eq!(left.len(), 2);
            for record in left {
                let left = record.as_use();
                assert_eq!(verdict(left).1, DecisionReason::NoGrant);
                assert_eq!(left.resource, format!("logs/{category}"));
            }
        }
        // Whole entries hold all categories: that this was refused is recorded too.
        let mark = d.mark().await;
        let raw = GetEventRequest { position: Some(3), index: None, view: EventView::Raw as i32 };
        refused(reader.call(raw).await).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(verdict(left[0].as_use()).1, DecisionReason::NoGrant);
    });
}

#[test]
fn every_read_of_the_log_says_what_was_asked_and_how_much_was_given() {
    scenario(async |d| {
        let replica = d.replica().await;
        fill(&replica).await;
        let admin = replica.admin();
        let filter = EventFilter {
            actor: Some(named("actor-of-error-1".into())),
            resource_prefix: "resource-of".into(),
            ..Default::default()
        };
        let list = ListEventsRequest {
            category: "error".into(),
            filter: Some(filter),
            ..Default::default()
        };
        assert_eq!(admin.call(list).await.unwrap().events.len(), 1);
        let accesses = ListEventsRequest {
            category: "keyledger/access".into(),
            page_size: 1,
            ..Default::default()
        };
        let read = admin.call(accesses).await.unwrap().events.remove(0);
        assert_eq!(
            (read.category.as_str(), read.method.as_str()),
            ("keyledger/access", "AuditService/ListEvents")
        );
        assert_eq!(read.returned, Some(1));
        assert_eq!(read.actor, Some(named("actor-of-error-1".into())));
        assert_eq!(read.asked, r#"category:"error",filter{actor{},resource_prefix:"resource-of"}"#);
        // The person that was looked for is named in no signed byte.
        for record in d.records(1).await {
            assert!(!format!("{record:?}").contains("actor-of-error"), "{record:?}");
        }
    });
}

/// The entry of the counts leads to the root of the checkpoint.
fn check_that_it_is_in_the_ledger(reply: &GetCategoryCountsResponse) {
    let raw = reply.entry.as_ref().unwrap();
    let entry = Entry {
        payload_type: raw.payload_type.clone(),
        body: raw.body.clone(),
        public_key_sha256: raw.public_key_sha256.as_slice().try_into().unwrap(),
        signature: raw.signature.as_slice().try_into().unwrap(),
    };
    let mut lines = reply.checkpoint.lines().skip(1);
    let size: u64 = lines.next().unwrap().parse().unwrap();
    let root = base64::engine::general_purpose::STANDARD.decode(lines.next().unwrap()).unwrap();
    let path: Vec<[u8; 32]> =
        reply.inclusion_path.iter().map(|hash| hash.as_slice().try_into().unwrap()).collect();
    let root = root.try_into().unwrap();
    assert!(verify_inclusion(&entry.leaf_hash(), reply.position, size, &path, &root));
}

/// The counts that a caller is told, each of them checked.
async fn counts_of(caller: &Caller) -> (u64, BTreeMap<String, u64>) {
    let reply = caller.call(GetCategoryCountsRequest {}).await.unwrap();
    check_that_it_is_in_the_ledger(&reply);
    let body = reply.entry.unwrap().body;
    let Some(Kind::CategoryCounted(signed)) = Event::from_signed(&body).unwrap().kind else {
        panic!("not an entry of counts")
    };
    for proven in &reply.counts {
        let count = CategoryCount { category: proven.category.clone(), count: proven.count };
        let record = CountRecord { count: count.encode_to_vec(), salt: proven.salt.clone() };
        let path: Vec<[u8; 32]> =
            proven.path.iter().map(|hash| hash.as_slice().try_into().unwrap()).collect();
        assert!(check_count(&signed, &record, proven.leaf_index, &path), "{proven:?}");
        let more = CategoryCount { count: proven.count + 1, ..count };
        let more = CountRecord { count: more.encode_to_vec(), ..record };
        assert!(!check_count(&signed, &more, proven.leaf_index, &path));
    }
    let counts = reply.counts.into_iter().map(|c| (c.category, c.count)).collect();
    (reply.position, counts)
}

/// How many events a caller is given before a position, by category.
async fn given_to(caller: &Caller, position: u64) -> BTreeMap<String, u64> {
    let all =
        StreamEventsRequest { from_position: Some(0), stop_at_head: true, ..Default::default() };
    let mut stream = caller.stream(all).await.unwrap();
    let mut given = BTreeMap::new();
    while let Some(reply) = stream.message().await.unwrap() {
        if let Some(event) = reply.event.filter(|e| e.position.unwrap() < position) {
            *given.entry(event.category).or_default() += 1;
        }
    }
    given
}

#[test]
fn a_reader_can_tell_that_nothing_of_its_categories_was_withheld_and_learns_no_other_count() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        fill(&a).await;
        let grants =
            vec![grant("audit.read", "logs/error"), grant("audit.read", "logs/keyledger/access")];
        let reader = a.admin().call(service_key("reader", grants)).await.unwrap();
        let reader = b.caller(&reader.token);
        let (position, counts) = counts_of(&reader).await;
        let categories: BTreeSet<&str> = counts.keys().map(String::as_str).collect();
        assert_eq!(categories, BTreeSet::from(["error", "keyledger/access"]));
        assert_eq!(given_to(&reader, position).await, counts);
        let (position, counts) = counts_of(&a.admin()).await;
        assert_eq!(counts.len(), 8, "{counts:?}");
        assert_eq!(given_to(&a.admin(), position).await, counts);
        // A replica that starts later counts on from there.
        a.stop().await;
        let c = d.replica().await;
        let event = marked("error", 99);
        c.admin().call(RecordEventsRequest { events: vec![event], atomic: false }).await.unwrap();
        let (position, counts) = counts_of(&c.admin()).await;
        assert_eq!(given_to(&c.admin(), position).await, counts);
    });
}
