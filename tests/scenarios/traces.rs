//! From any trace to its keys, and from any key to its traces: what stands in signed entries is found by both, as far as the caller
//! may see it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use keyledger_ledger::body::DecisionReason;
use keyledger_proto::entry::Decision;
use keyledger_proto::*;
use tonic::Code;

use crate::event_pages::until_indexed;
use crate::harness::*;
use crate::offline::connection;

/// Where something is recorded: position, and index if it is a use.
type Address = (u64, Option<u32>);

const ONE: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The same caller in a trace; each of its spans has a number.
fn within(caller: &Caller, trace: &str, span: u64) -> Caller {
    caller.with_header("traceparent", &format!("00-{trace}-{span:016x}-01"))
}

fn of_trace(trace_id: &str, page_size: i32) -> GetTraceRequest {
    GetTraceRequest { trace_id: trace_id.into(), page_size, page_token: String::new() }
}

fn with_traces(key_id: &str) -> GetKeyRequest {
    GetKeyRequest { key_id: key_id.into(), as_of: None, include_traces: true }
}

fn address(event: &AuditEvent) -> Address {
    (event.position.unwrap(), event.index)
}

fn events(reply: &GetTraceResponse) -> Vec<&AuditEvent> {
    reply.events.iter().map(|told| told.event.as_ref().unwrap()).collect()
}

fn addresses(reply: &GetTraceResponse) -> Vec<Address> {
    events(reply).into_iter().map(address).collect()
}

/// What the ledger itself holds of a trace, read from the database.
async fn recorded(d: &Deployment, trace: &str) -> Vec<Address> {
    let trace = hex::decode(trace).unwrap();
    let is_in_it = |record: &Record| match record {
        Record::Change { event, .. } => event.trace_id == trace,
        Record::Use { r#use, .. } => r#use.trace_ids().any(|id| id == trace),
    };
    d.records(1).await.iter().filter(|record| is_in_it(record)).map(Record::address).collect()
}

/// Two keys, and a trace that goes over both, over an event of a service and over a refusal; and another trace beside it.
struct Story {
    alice: Key,
    bob: Key,
    admin: String,
}

async fn tell(admin: &Caller) -> Story {
    let alice = within(admin, ONE, 1).call(user_key("alice@example.com")).await.unwrap();
    let bob = within(admin, OTHER, 2).call(user_key("bob@example.com")).await.unwrap();
    within(admin, ONE, 3).call(check(&alice.token)).await.unwrap();
    let beyond = VerifyKeyRequest { resource: "logs/payroll".into(), ..check(&bob.token) };
    let verdict = within(admin, ONE, 4).call(beyond).await.unwrap();
    assert_eq!(verdict.decision(), Decision::Deny);
    let logged = NewEvent { trace_id: ONE.into(), ..login("carol@example.com", "security/login") };
    admin.call(RecordEventsRequest { events: vec![logged], atomic: false }).await.unwrap();
    let alice = alice.key.unwrap();
    within(admin, OTHER, 5).call(rotate(&alice.key_id, 60)).await.unwrap();
    within(admin, ONE, 6).call(revoke(&alice.key_id)).await.unwrap();
    // Nobody samples this one.
    admin.call(check(&bob.token)).await.unwrap();
    let admin = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
    Story { alice, bob: bob.key.unwrap(), admin }
}

#[test]
fn a_trace_tells_all_that_was_done_in_it_and_with_which_keys() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let Story { alice, bob, admin: own } = tell(&admin).await;
        let check_all = async || {
            let reply = admin.call(of_trace(ONE, 0)).await.unwrap();
            assert_eq!(addresses(&reply), recorded(d, ONE).await);
            assert_eq!(reply.next_page_token, "");
            let told: Vec<(&str, &str)> =
                events(&reply).iter().map(|e| (e.r#type.as_str(), e.key_id.as_str())).collect();
            let expected = [
                ("key.created", alice.key_id.as_str()),
                ("key.used", &alice.key_id),
                ("key.used", &bob.key_id),
                ("event.recorded", ""),
                ("key.revoked", &alice.key_id),
            ];
            assert_eq!(told, expected);
            let spans: Vec<Vec<String>> = reply.events.iter().map(|e| e.span_ids.clone()).collect();
            let span = |n: u64| vec![format!("{n:016x}")];
            assert_eq!(spans, [span(1), span(3), span(4), vec![], span(6)]);
            reply
        };
        let reply = check_all().await;
        let times: Vec<_> = events(&reply).iter().map(|e| e.time).collect();
        let keys: Vec<_> = reply
            .keys
            .iter()
            .map(|k| (k.key_id.as_str(), k.events, k.first_time, k.last_time))
            .collect();
        let expected = [
            (alice.key_id.as_str(), 3, times[0], times[4]),
            (&own, 5, times[0], times[4]),
            (&bob.key_id, 1, times[2], times[2]),
        ];
        assert_eq!(keys, expected);
        let shown = reply.keys[0].key.as_ref().unwrap();
        assert_eq!((shown.state(), &shown.owner), (KeyState::Revoked, &alice.owner));
        until_indexed(d).await;
        check_all().await;

        // A list of the events of a trace gives the same.
        let filter = Some(EventFilter { trace_id: ONE.into(), ..Default::default() });
        let order = EventOrder::OldestFirst as i32;
        let list = ListEventsRequest { filter, order, ..Default::default() };
        let listed = admin.call(list).await.unwrap().events;
        assert_eq!(listed.iter().map(address).collect::<Vec<_>>(), recorded(d, ONE).await);
        assert!(listed.iter().skip(4).all(|e| e.span_id.len() == 16));
    });
}

#[test]
fn pages_of_a_trace_hold_each_event_once_and_belong_to_it() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        tell(&admin).await;
        let whole = admin.call(of_trace(ONE, 1_000)).await.unwrap();
        for page_size in [1, 2, 4, 5] {
            let (mut found, mut page_token) = (vec![], String::new());
            loop {
                let page = GetTraceRequest { page_token, ..of_trace(ONE, page_size) };
                let page = admin.call(page).await.unwrap();
                assert!(page.events.len() <= page_size as usize);
                let keys: BTreeSet<&str> = page.keys.iter().map(|k| k.key_id.as_str()).collect();
                for event in events(&page) {
                    let named = [&event.key_id, &event.caller_key_id];
                    assert!(named.iter().all(|id| id.is_empty() || keys.contains(id.as_str())));
                }
                found.extend(addresses(&page));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(found, addresses(&whole), "in pages of {page_size}");
        }
        let first = admin.call(of_trace(ONE, 2)).await.unwrap();
        let elsewhere = GetTraceRequest { page_token: first.next_page_token, ..of_trace(OTHER, 2) };
        refused(admin.call(elsewhere).await)
            .with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
    });
}

#[test]
fn whoever_may_read_one_category_sees_of_a_trace_that_one_and_no_key() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let Story { alice, bob, admin: own } = tell(&admin).await;
        let reader = async |grants| {
            let made = admin.call(service_key("reader", grants)).await.unwrap();
            replica.caller(&made.token)
        };
        let of_logins = reader(vec![grant("audit.read", "logs/security/login")]).await;
        let reply = of_logins.call(of_trace(ONE, 0)).await.unwrap();
        let types: Vec<&str> = events(&reply).iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!(types, ["event.recorded"]);
        let keys: Vec<_> = reply.keys.iter().map(|k| (&k.key_id, k.key.is_some())).collect();
        assert_eq!(keys, [(&own, false)], "the id stands in what it sees, and nothing else");
        assert!(of_logins.call(of_trace(OTHER, 0)).await.unwrap().events.is_empty());

        let of_uses = vec![
            grant("audit.read", "logs/keyledger/use"),
            grant("keys.read", &format!("keys/{}", bob.key_id)),
        ];
        let reply = reader(of_uses).await.call(of_trace(ONE, 0)).await.unwrap();
        let shown: BTreeMap<&str, bool> =
            reply.keys.iter().map(|k| (k.key_id.as_str(), k.key.is_some())).collect();
        let expected = [(alice.key_id.as_str(), false), (&bob.key_id, true), (&own, false)];
        assert_eq!(shown, expected.into());
        assert!(events(&reply).iter().all(|e| e.category == "keyledger/use"));

        let nothing = reader(vec![grant("keys.read", "keys/**")]).await;
        refused(nothing.call(of_trace(ONE, 0)).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn a_trace_of_which_nothing_is_known_is_answered_with_nothing_and_each_read_is_recorded() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        tell(&admin).await;
        let nobodys = "00000000000000000000000000000001";
        let reply = admin.call(of_trace(nobodys, 0)).await.unwrap();
        assert_eq!(reply, GetTraceResponse::default());
        // The trace is one of another ledger.
        let elsewhere = replica.system_admin().call(of_trace(ONE, 0)).await.unwrap();
        assert_eq!(elsewhere, GetTraceResponse::default());

        let mark = d.mark().await;
        let given = admin.call(of_trace(ONE, 0)).await.unwrap().events.len();
        let (_, left) = d.since_in_one(&mark).await;
        let [left] = left.as_slice() else { panic!("one read leaves one use: {left:?}") };
        assert_eq!(left.as_use().method, "AuditService/GetTrace");
        assert_eq!(left.as_use().returned, Some(given as u64));
        let (position, index) = left.address();
        let read = GetEventRequest { position: Some(position), index, view: 0 };
        let read = admin.call(read).await.unwrap().event.unwrap();
        assert_eq!(read.category, "keyledger/access");
        assert_eq!(read.asked, format!("trace_id:\"{ONE}\""));
    });
}

#[test]
fn refusals_that_share_a_record_are_found_by_the_traces_of_each() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let weak = admin.call(service_key("weak", vec![])).await.unwrap();
        let weak = replica.caller(&weak.token);
        let mark = d.mark().await;
        let calls = (1..=80u64).map(|n| {
            let caller = within(&weak, if n % 2 == 0 { ONE } else { OTHER }, n);
            async move { caller.call(GetCheckpointRequest {}).await }
        });
        for answer in join_all(calls).await {
            refused(answer).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        }
        let left = d.since(&mark).await.remove(&1).unwrap();
        let folded = left.iter().filter(|record| match record {
            Record::Use { r#use, .. } => !r#use.traces.is_empty(),
            Record::Change { .. } => false,
        });
        let folded: Vec<Address> = folded.map(Record::address).collect();
        assert!(!folded.is_empty(), "more than ten equal refusals a second share a record");
        for round in 0..2 {
            for trace in [ONE, OTHER] {
                let reply = admin.call(of_trace(trace, 1_000)).await.unwrap();
                assert_eq!(addresses(&reply), recorded(d, trace).await, "round {round}");
                for told in &reply.events {
                    let event = told.event.as_ref().unwrap();
                    assert!(!told.span_ids.is_empty());
                    if folded.contains(&address(event)) {
                        let of_it = event.spans.iter().filter(|span| span.trace_id == trace);
                        assert_eq!(
                            of_it.map(|s| s.span_id.clone()).collect::<Vec<_>>(),
                            told.span_ids
                        );
                        assert!(event.spans.len() <= 16 && event.count > 0);
                        assert!(event.first_time.is_some() && event.last_time.is_some());
                    }
                }
                let filter = Some(EventFilter { trace_id: trace.into(), ..Default::default() });
                let request = ListEventsRequest { filter, page_size: 1_000, ..Default::default() };
                let listed = admin.call(request).await.unwrap().events;
                let listed: BTreeSet<Address> = listed.iter().map(address).collect();
                assert_eq!(listed, recorded(d, trace).await.into_iter().collect());
            }
            until_indexed(d).await;
        }
    });
}

#[test]
fn a_key_names_its_traces_and_each_of_them_names_the_key_again() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let Story { alice, bob, .. } = tell(&admin).await;
        let plain = GetKeyRequest { include_traces: false, ..with_traces(&alice.key_id) };
        assert_eq!(admin.call(plain).await.unwrap().traces, None, "it must be asked for");
        for round in 0..2 {
            let traces = admin.call(with_traces(&alice.key_id)).await.unwrap().traces.unwrap();
            assert!(!traces.changes_withheld && !traces.uses_withheld);
            assert!(!traces.older_changes && !traces.older_uses, "round {round}");
            let told = |told: &KeyTrace| {
                let span = told.span.clone().unwrap();
                (
                    told.r#type.clone(),
                    span.trace_id,
                    u64::from_str_radix(&span.span_id, 16).unwrap(),
                )
            };
            let changes: Vec<_> = traces.changes.iter().map(told).collect();
            let is = |what: &str, trace: &str, span| (what.to_string(), trace.to_string(), span);
            let expected =
                [is("key.revoked", ONE, 6), is("key.rotated", OTHER, 5), is("key.created", ONE, 1)];
            assert_eq!(changes, expected);
            let uses: Vec<_> = traces.uses.iter().map(told).collect();
            assert_eq!(uses, [is("key.used", ONE, 3)]);
            for told in traces.changes.iter().chain(&traces.uses) {
                let trace_id = &told.span.as_ref().unwrap().trace_id;
                let trace = admin.call(of_trace(trace_id, 0)).await.unwrap();
                assert!(addresses(&trace).contains(&(told.position.unwrap(), told.index)));
                assert!(trace.keys.iter().any(|key| key.key_id == alice.key_id));
            }
            until_indexed(d).await;
        }
        let refused = admin.call(with_traces(&bob.key_id)).await.unwrap().traces.unwrap();
        let [refused] = refused.uses.as_slice() else {
            panic!("one use is in a trace: {refused:?}")
        };
        assert_eq!(refused.decision(), Decision::Deny);
        assert_eq!(refused.decision_reason, DecisionReason::NoGrant as i32);

        // As it was before it was revoked, and before it was made.
        let revoked = recorded(d, ONE).await.last().unwrap().0;
        let as_of = Some(get_key_request::AsOf::AsOfPosition(revoked));
        let early = GetKeyRequest { as_of, ..with_traces(&alice.key_id) };
        let early = admin.call(early).await.unwrap().traces.unwrap();
        assert_eq!((early.changes.len(), early.uses.len()), (2, 1));

        // Its document says the same.
        let describe = DescribeKeyRequest { key_id: alice.key_id.clone(), format: 1 };
        let described = admin.call(describe).await.unwrap();
        let (document, of_key) = (described.document, described.key.unwrap());
        let traces = admin.call(with_traces(&alice.key_id)).await.unwrap().traces;
        assert_eq!(of_key.traces, traces);
        let of_changes = of_key.history.unwrap().entries;
        let spans: Vec<_> = of_changes.iter().map(|e| e.span.clone()).collect();
        let expected: Vec<_> = traces.unwrap().changes.into_iter().map(|t| t.span).collect();
        assert_eq!(spans, expected);
        assert!(document.contains(ONE) && document.contains(OTHER), "{document}");
    });
}

#[test]
fn the_traces_of_a_key_are_bounded_and_withheld_from_whoever_may_not_read_the_log() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        for n in 1..=40 {
            let purpose = format!("export error logs, part {n}");
            let request = UpdateKeyRequest { purpose, ..update(&key_id, &["purpose"]) };
            within(&admin, ONE, n).call(request).await.unwrap();
        }
        for n in 1..=20 {
            within(&admin, OTHER, n).call(check(&made.token)).await.unwrap();
        }
        // Newer ones in no trace are passed over.
        for _ in 0..5 {
            admin.call(check(&made.token)).await.unwrap();
        }
        let spans = |told: &[KeyTrace]| -> Vec<String> {
            told.iter().map(|told| told.span.clone().unwrap().span_id).collect()
        };
        let newest = |last: u64, count: u64| -> Vec<String> {
            (last - count + 1..=last).rev().map(|n| format!("{n:016x}")).collect()
        };
        for _ in 0..2 {
            let traces = admin.call(with_traces(&key_id)).await.unwrap().traces.unwrap();
            assert_eq!(spans(&traces.changes), newest(40, 32));
            assert_eq!(spans(&traces.uses), newest(20, 16));
            assert!(traces.older_changes && traces.older_uses);
            until_indexed(d).await;
        }
        let reads =
            |resource: &str| vec![grant("keys.read", "keys/**"), grant("audit.read", resource)];
        for (resource, changes, uses) in [
            ("logs/error", false, false),
            ("logs/keyledger/lifecycle", true, false),
            ("logs/keyledger/use", false, true),
            ("logs/keyledger/access", false, true),
        ] {
            let reader = admin.call(service_key("reader", reads(resource))).await.unwrap();
            let reader = replica.caller(&reader.token);
            let traces = reader.call(with_traces(&key_id)).await.unwrap().traces.unwrap();
            assert_eq!(!traces.changes_withheld, changes, "{resource}");
            assert_eq!(!traces.uses_withheld, uses, "{resource}");
            assert_eq!(!traces.changes.is_empty(), changes, "{resource}");
            // None of its uses has read the log.
            assert_eq!(!traces.uses.is_empty(), resource == "logs/keyledger/use");
        }
    });
}

#[test]
fn a_malformed_trace_id_is_told_so() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let (upper, zeros) = (ONE.to_uppercase(), "0".repeat(32));
        for bad in ["", "x", &ONE[1..], &upper, &zeros, "0af76519-16cd-43dd-8448-eb211c80319c"] {
            let refusal = refused(admin.call(of_trace(bad, 0)).await);
            assert_eq!(refusal.fields, ["trace_id"], "{bad}");
            refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        }
        let refusal = refused(admin.call(of_trace(ONE, -1)).await);
        assert_eq!(refusal.fields, ["page_size"]);
    });
}

const TEMPLATE: &str = "https://traces.example.com/trace/{trace_id}?span={span_id}";

#[test]
fn the_command_draws_a_trace_and_the_life_of_a_key_with_links() {
    scenario(async |d| {
        let replica = d.replica().await;
        let Story { alice, bob, .. } = tell(&replica.admin()).await;
        let run = async |line: &str| {
            // What it shows is not looked through for secrets.
            let words = line.split(' ').map(String::from).chain(connection(d, &replica));
            let output = d.program().args(words).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let shown = run(&format!("trace {ONE}")).await;
        println!("{shown}");
        let url = format!("https://traces.example.com/trace/{ONE}?span=");
        for part in ["key.created", "key.used denied", "no grant", "security/login", "+0.000000 s"]
        {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(shown.contains(&bob.key_id) && shown.contains(&format!("{:016x}", 4)));
        assert!(!shown.contains("http") && !shown.contains('\u{1b}'), "{shown}");
        let linked = run(&format!("trace {ONE} --trace-url-template {TEMPLATE}")).await;
        assert!(linked.contains(&url) && linked.contains(&format!("{url}{:016x}", 6)), "{linked}");
        let json = run(&format!("trace {ONE} -o json")).await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["events"].as_array().unwrap().len(), 5);
        assert_eq!(json["keys"][0]["keyId"], alice.key_id);

        let life = run(&format!("trace {} --trace-url-template {TEMPLATE}", alice.key_id)).await;
        println!("{life}");
        let places: Vec<Option<usize>> =
            ["key.created", "key.used allowed", "key.revoked", OTHER, "key.rotated"]
                .iter()
                .map(|part| life.find(part))
                .collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {life}");
        assert!(life.contains(&url), "{life}");
        let json = run(&format!("trace {} -o json", alice.key_id)).await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["traces"]["changes"][0]["type"], "key.revoked");
        let page = format!("access describe {} --trace-url-template {TEMPLATE}", alice.key_id);
        let page = run(&page).await;
        assert_eq!(page.matches("](<https://traces.example.com/trace/").count(), 4, "{page}");

        for (wrong, said) in [
            (format!("trace {}", ONE.to_uppercase()), "lower-case"),
            (format!("trace {ONE} --trace-url-template javascript:{{trace_id}}"), "https://"),
        ] {
            let words = wrong.split(' ').map(String::from);
            let output = d.program().args(words).output().await.unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert!(String::from_utf8_lossy(&output.stderr).contains(said));
        }
    });
}
