//! Lists and counts of events against what a reader of the whole log finds: whatever is asked, in both orders, whether or not
//! the index has come so far, and on a replica that starts later.

use std::collections::{BTreeMap, HashMap};

use keyledger_proto::entry::{Decision, Outcome};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::crash::Random;
use crate::event_pages::until_indexed;
use crate::harness::*;

const PEOPLE: [&str; 3] = ["alice@example.com", "bob@example.com", "carol@example.com"];
const CATEGORIES: [&str; 3] = ["user-activity", "security/login", "error"];
const ACTIONS: [&str; 3] = ["user.session.start", "invoice.export", "disk.full"];
const FOLDERS: [&str; 4] = ["invoices/2025/", "invoices/2026/", "invoices/20", "disks/a/b/"];

fn person(name: &str) -> Option<Actor> {
    Some(Actor { actor: Some(actor::Actor::User(name.into())) })
}

fn service(name: &str) -> Option<Actor> {
    Some(Actor { actor: Some(actor::Actor::Service(name.into())) })
}

fn owned_by_user(name: &str) -> Option<Owner> {
    Some(Owner { owner: Some(owner::Owner::User(name.into())) })
}

fn owned_by_service(name: &str) -> Option<Owner> {
    Some(Owner { owner: Some(owner::Owner::Service(name.into())) })
}

fn one_of<T: Clone>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize].clone()
}

fn random_event(random: &mut Random) -> NewEvent {
    let actor = match random.below(4) {
        0 => service("batch"),
        _ => person(one_of(random, &PEOPLE)),
    };
    NewEvent {
        actor,
        action: one_of(random, &ACTIONS).into(),
        resource: format!("{}{}", one_of(random, &FOLDERS), random.below(3)),
        outcome: random.below(4) as i32,
        severity: random.below(7) as i32,
        reason: format!("ticket {}", random.below(5)),
        trace_id: format!("{:032x}", 1 + random.below(4)),
        ..login("x", one_of(random, &CATEGORIES))
    }
}

/// A ledger with a little of everything, told through both replicas.
struct Log {
    replicas: [std::sync::Arc<Replica>; 2],
    random: Random,
    /// Callers that record, and whose keys theirs are.
    recorders: Vec<Caller>,
    owners: HashMap<String, Owner>,
    tokens: Vec<String>,
}

impl Log {
    async fn new(d: &Deployment) -> Log {
        let replicas = [d.replica().await, d.replica().await];
        let admin = replicas[0].admin();
        let mut log = Log {
            random: Random(4_711),
            recorders: vec![],
            owners: HashMap::new(),
            tokens: vec![],
            replicas,
        };
        let rights = vec![grant("audit.write", "logs/**"), grant("keys.verify", "keys")];
        for n in 0..4 {
            let request = match n {
                0 | 1 => service_key("portal", rights.clone()),
                2 => CreateKeyRequest { grants: rights.clone(), ..user_key(PEOPLE[0]) },
                _ => service_key("batch", rights.clone()),
            };
            let made = admin.call(request).await.unwrap();
            let key = made.key.unwrap();
            log.owners.insert(key.key_id, key.owner.unwrap());
            log.recorders.push(log.replicas[n % 2].caller(&made.token));
            log.tokens.push(made.token);
        }
        log
    }

    /// Some more of everything.
    async fn grow(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let recorder = one_of(&mut self.random, &self.recorders);
            let count = 1 + self.random.below(12);
            let events = (0..count).map(|_| random_event(&mut self.random)).collect();
            recorder.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
            let token = one_of(&mut self.random, &self.tokens);
            let resource = one_of(&mut self.random, &["logs/error", "logs/user-activity"]);
            let request = VerifyKeyRequest {
                permission: one_of(&mut self.random, &["audit.write", "audit.read"]).into(),
                resource: resource.into(),
                ..check(&token)
            };
            let trace = 1 + self.random.below(4);
            let traced = format!("00-{trace:032x}-{:016x}-01", 1);
            recorder.with_header("traceparent", &traced).call(request).await.unwrap();
            let admin = self.replicas[self.random.below(2) as usize].admin();
            let made = admin.call(user_key(one_of(&mut self.random, &PEOPLE))).await.unwrap();
            let key = made.key.unwrap();
            self.owners.insert(key.key_id, key.owner.unwrap());
        }
        // Somebody looks for somebody, who may not be known.
        for name in [PEOPLE[1], "nobody@example.com"] {
            let filter = Some(EventFilter { actor: person(name), ..Default::default() });
            let request = ListEventsRequest { filter, ..Default::default() };
            self.replicas[0].admin().call(request).await.unwrap();
        }
    }

    fn owner_of(&self, key_id: &str) -> Option<&Owner> {
        self.owners.get(key_id)
    }

    /// What is asked, at random.
    fn ask(&mut self) -> ListEventsRequest {
        let random = &mut self.random;
        let mut filter = EventFilter::default();
        for _ in 0..1 + random.below(2) {
            match random.below(10) {
                0 => filter.actor = person(one_of(random, &PEOPLE)),
                1 => filter.actor = service("batch"),
                2 => filter.action = one_of(random, &ACTIONS).into(),
                3 => {
                    let beginnings = ["invoices/", "invoices/2026/", "inv", "logs/", "disks/a/b/1"];
                    filter.resource_prefix = one_of(random, &beginnings).into();
                }
                4 => filter.outcome = 1 + random.below(3) as i32,
                5 => filter.min_severity = 1 + random.below(6) as i32,
                6 => filter.trace_id = format!("{:032x}", 1 + random.below(4)),
                7 => filter.decision = 1 + random.below(2) as i32,
                8 => {
                    let owners =
                        [owned_by_user(PEOPLE[0]), owned_by_service("portal"), owned_by_user("x")];
                    filter.owner = one_of(random, &owners);
                }
                _ => {
                    let ids: Vec<&String> = self.owners.keys().collect();
                    filter.caller_key_id = one_of(random, &ids).clone();
                }
            }
        }
        let categories =
            ["", "", "user-activity", "security/login", "keyledger/use", "keyledger/lifecycle"];
        let ids: Vec<&String> = self.owners.keys().collect();
        let key_id = match random.below(6) {
            0 => one_of(random, &ids).clone(),
            _ => String::new(),
        };
        ListEventsRequest {
            key_id,
            category: one_of(random, &categories).into(),
            page_size: one_of(random, &[3, 50, 1_000]),
            filter: Some(filter),
            ..Default::default()
        }
    }

    fn holds(&self, r: &ListEventsRequest, e: &AuditEvent) -> bool {
        let f = r.filter.as_ref().unwrap();
        let keys = [&e.key_id, &e.caller_key_id];
        let caller = if e.caller_key_id.is_empty() { &e.key_id } else { &e.caller_key_id };
        (r.category.is_empty() || e.category == r.category)
            && (r.key_id.is_empty() || keys.contains(&&r.key_id))
            && (f.caller_key_id.is_empty() || *caller == f.caller_key_id)
            && (f.actor.is_none() || e.actor == f.actor)
            && (f.action.is_empty() || e.action == f.action)
            && e.resource.starts_with(&f.resource_prefix)
            && (f.outcome == 0 || e.outcome == f.outcome)
            && e.severity >= f.min_severity
            && (f.trace_id.is_empty()
                || e.trace_id == f.trace_id
                || e.spans.iter().any(|span| span.trace_id == f.trace_id))
            && (f.decision == 0 || e.decision == f.decision)
            && (f.owner.is_none() || keys.iter().any(|id| self.owner_of(id) == f.owner.as_ref()))
    }
}

/// Everything that the ledger holds now, in order: read as a stream, which knows no index.
async fn everything(caller: &Caller) -> Vec<AuditEvent> {
    let request =
        StreamEventsRequest { from_position: Some(0), stop_at_head: true, ..Default::default() };
    let (mut stream, mut events) = (caller.stream(request).await.unwrap(), vec![]);
    while let Some(reply) = stream.message().await.unwrap() {
        events.extend(reply.event);
    }
    events
}

fn address(event: &AuditEvent) -> (u64, Option<u32>) {
    (event.position.unwrap(), event.index)
}

/// All pages of a list, as far as they tell of what was there before `end`.
async fn listed(caller: &Caller, request: &ListEventsRequest, end: u64) -> Vec<(u64, Option<u32>)> {
    let (mut found, mut page_token) = (vec![], String::new());
    loop {
        let page = caller.call(ListEventsRequest { page_token, ..request.clone() }).await.unwrap();
        assert!(page.events.len() <= request.page_size as usize);
        found.extend(page.events.iter().map(address).filter(|at| at.0 < end));
        page_token = page.next_page_token;
        let past = request.order() == EventOrder::OldestFirst
            && page.events.last().is_some_and(|e| e.position.unwrap() >= end);
        if page_token.is_empty() || past {
            return found;
        }
    }
}

#[test]
fn each_filter_finds_exactly_what_a_reader_of_the_whole_log_finds_in_both_orders() {
    scenario(async |d| {
        let mut log = Log::new(d).await;
        log.grow(12).await;
        let mut found_something = 0;
        for state in ["not indexed", "indexed", "partly indexed"] {
            match state {
                "indexed" => until_indexed(d).await,
                "partly indexed" => log.grow(4).await,
                _ => {}
            }
            let all = everything(&log.replicas[1].admin()).await;
            let end = all.last().unwrap().position.unwrap() + 1;
            let later = d.replica().await;
            for n in 0..40 {
                let asked = log.ask();
                let mut expected: Vec<_> =
                    all.iter().filter(|e| log.holds(&asked, e)).map(address).collect();
                found_something += usize::from(!expected.is_empty());
                let caller = [&log.replicas[0], &log.replicas[1], &later][n % 3].admin();
                let oldest =
                    ListEventsRequest { order: EventOrder::OldestFirst as i32, ..asked.clone() };
                let found = listed(&caller, &oldest, end).await;
                assert_eq!(found, expected, "{state}, oldest first: {asked:?}");
                expected.reverse();
                let found = listed(&caller, &asked, end).await;
                assert_eq!(found, expected, "{state}, newest first: {asked:?}");
            }
            later.stop().await;
        }
        assert!(found_something > 40, "{found_something}");
    });
}

#[test]
fn a_time_range_is_listed_from_both_ends() {
    scenario(async |d| {
        let mut log = Log::new(d).await;
        log.grow(6).await;
        let admin = log.replicas[1].admin();
        let all = everything(&admin).await;
        let micros = |t: Timestamp| t.seconds * 1_000_000 + i64::from(t.nanos) / 1_000;
        let (start, end) = (all[all.len() / 4].time.unwrap(), all[all.len() / 2].time.unwrap());
        let filter =
            EventFilter { start_time: Some(start), end_time: Some(end), ..Default::default() };
        let within =
            |e: &&AuditEvent| (micros(start)..micros(end)).contains(&micros(e.time.unwrap()));
        let mut expected: Vec<_> = all.iter().filter(within).map(address).collect();
        assert!(!expected.is_empty() && expected.len() < all.len() / 2);
        let mut request =
            ListEventsRequest { page_size: 7, filter: Some(filter), ..Default::default() };
        request.order = EventOrder::OldestFirst as i32;
        assert_eq!(listed(&admin, &request, u64::MAX).await, expected);
        expected.reverse();
        request.order = EventOrder::NewestFirst as i32;
        assert_eq!(listed(&admin, &request, u64::MAX).await, expected);
        // A token of one order is none of the other.
        let page = admin.call(request.clone()).await.unwrap();
        request.page_token = page.next_page_token;
        request.order = EventOrder::OldestFirst as i32;
        refused(admin.call(request).await)
            .with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
    });
}

#[test]
fn whose_a_key_is_tells_nobody_who_may_not_read_of_changes() {
    scenario(async |d| {
        let mut log = Log::new(d).await;
        log.grow(3).await;
        let replica = &log.replicas[0];
        let reader = CreateKeyRequest {
            roles: vec!["log-reader(error)".into()],
            ..service_key("exporter", vec![])
        };
        let reader = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        let of = |owner| ListEventsRequest {
            category: "error".into(),
            filter: Some(EventFilter { owner, ..Default::default() }),
            ..Default::default()
        };
        reader.call(of(None)).await.unwrap();
        refused(reader.call(of(owned_by_service("portal"))).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let bad = refused(reader.call(of(Some(Owner::default()))).await);
        assert_eq!(bad.fields, ["filter.owner"]);
        // Whose events somebody looked for is kept under that person's key.
        replica.admin().call(of(owned_by_user(PEOPLE[0]))).await.unwrap();
        let access =
            ListEventsRequest { category: "keyledger/access".into(), ..Default::default() };
        let newest = replica.admin().call(access).await.unwrap().events.remove(0);
        assert_eq!(newest.actor, person(PEOPLE[0]));
        assert!(newest.asked.contains("owner{}"), "{}", newest.asked);
    });
}

/// What an event counts as: by category, outcome, severity, action and hour.
fn facets(e: &AuditEvent) -> [String; 5] {
    let outcome = match e.decision() {
        Decision::Allow => Outcome::Success,
        Decision::Deny => Outcome::Denied,
        Decision::Unspecified => e.outcome(),
    };
    let action = match (e.index, e.actor.is_some()) {
        (Some(_), _) => &e.method,
        (None, true) => &e.action,
        (None, false) => &e.r#type,
    };
    let names = ["UNSPECIFIED", "SUCCESS", "FAILURE", "DENIED"];
    let severities = ["UNSPECIFIED", "INFORMATIONAL", "LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"];
    let hour = Timestamp { seconds: e.time.unwrap().seconds / 3_600 * 3_600, nanos: 0 };
    [
        e.category.clone(),
        format!("OUTCOME_{}", names[outcome as usize]),
        format!("SEVERITY_{}", severities[e.severity() as usize]),
        action.clone(),
        hour.to_string(),
    ]
}

/// Asks for counts and compares them with what stands in the log before the position that the reply names. `sees` is the
/// only category that the reader may read, if it may not read all.
async fn compare_counts(reader: &Caller, whole: &Caller, category: &str, sees: &str) {
    let now = everything(whole).await.last().unwrap().time.unwrap().seconds / 3_600 * 3_600;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    for group in 1..=5 {
        let request = CountEventsRequest {
            category: category.into(),
            start_time: at(now - 86_400),
            end_time: at(now + 7_200),
            group_by: group,
        };
        let reply = reader.call(request).await.unwrap();
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for event in everything(whole).await {
            let counted = event.position < reply.before_position
                && (category.is_empty() || event.category == category)
                && (sees.is_empty() || event.category == sees);
            if counted {
                *expected.entry(facets(&event)[group as usize - 1].clone()).or_default() += 1;
            }
        }
        let total: u64 = expected.values().sum();
        let counts: BTreeMap<String, u64> =
            reply.counts.iter().map(|c| (c.value.clone(), c.events)).collect();
        assert_eq!(counts, expected, "group {group} of {category:?}");
        assert_eq!((reply.total_events, reply.other_events), (total, 0));
        let mut sorted = reply.counts.clone();
        sorted.sort_by_key(|c| std::cmp::Reverse(c.events));
        assert_eq!(reply.counts, sorted, "the most frequent come first");
    }
}

#[test]
fn counts_are_those_of_a_reader_of_the_whole_log_up_to_the_position_that_they_name() {
    scenario(async |d| {
        let mut log = Log::new(d).await;
        log.grow(8).await;
        let admin = log.replicas[0].admin();
        let reader = CreateKeyRequest {
            roles: vec!["log-reader(error)".into()],
            ..service_key("exporter", vec![])
        };
        let reader = admin.call(reader).await.unwrap().token;
        for state in ["not indexed", "indexed", "partly indexed"] {
            match state {
                "indexed" => until_indexed(d).await,
                "partly indexed" => log.grow(3).await,
                _ => {}
            }
            let later = d.replica().await;
            for replica in [&log.replicas[1], &later] {
                for category in ["", "error", "keyledger/use"] {
                    compare_counts(&replica.admin(), &admin, category, "").await;
                }
                // A key for one category counts that one alone, whether or not it names it.
                let reader = replica.caller(&reader);
                for category in ["error", ""] {
                    compare_counts(&reader, &admin, category, "error").await;
                }
                for other in ["user-activity", "keyledger/access"] {
                    let category = other.into();
                    let request = CountEventsRequest { category, ..Default::default() };
                    refused(reader.call(request).await)
                        .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
                }
            }
            later.stop().await;
        }
    });
}

#[test]
fn counts_of_one_level_of_categories_hold_nothing_of_the_others() {
    scenario(async |d| {
        let mut log = Log::new(d).await;
        log.grow(5).await;
        let replica = &log.replicas[0];
        // May ask without a category, and read only categories of one segment.
        let reader = service_key("exporter", vec![grant("audit.read", "logs/*")]);
        let reader = replica.admin().call(reader).await.unwrap();
        let reader = replica.caller(&reader.token);
        for indexed in [false, true] {
            if indexed {
                until_indexed(d).await;
            }
            for group_by in 1..=4 {
                let request = CountEventsRequest { group_by, ..Default::default() };
                let reply = reader.call(request).await.unwrap();
                let mut expected: BTreeMap<String, u64> = BTreeMap::new();
                for event in everything(&replica.admin()).await {
                    if ["error", "user-activity"].contains(&event.category.as_str()) {
                        let value = facets(&event)[group_by as usize - 1].clone();
                        *expected.entry(value).or_default() += 1;
                    }
                }
                let counts = reply.counts.into_iter().map(|c| (c.value, c.events));
                assert_eq!(counts.collect::<BTreeMap<_, _>>(), expected);
            }
        }
    });
}

#[test]
fn of_very_many_actions_the_most_frequent_are_told_and_the_others_are_counted() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let record = async |actions: Vec<String>| {
            let event = |action: String| NewEvent { action, ..login("x", "error") };
            let events = actions.into_iter().map(event).collect();
            admin.call(RecordEventsRequest { events, ..Default::default() }).await.unwrap();
        };
        record((0..100).map(|n| format!("rare-{n:03}")).collect()).await;
        record((0..60).map(|n| format!("other-{n:03}")).collect()).await;
        until_indexed(d).await;
        // Each is rare by what is indexed, and the most frequent with what isn't.
        record(vec!["rare-099".into(); 5]).await;
        let request = CountEventsRequest {
            category: "error".into(),
            group_by: EventGroup::Action as i32,
            ..Default::default()
        };
        let reply = admin.call(request).await.unwrap();
        assert_eq!(reply.counts.len(), 100);
        assert_eq!((&*reply.counts[0].value, reply.counts[0].events), ("rare-099", 6));
        assert_eq!((reply.total_events, reply.other_events), (165, 60));
    });
}

#[test]
fn what_can_not_be_counted_is_refused_with_its_field() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        for (request, field) in [
            (CountEventsRequest { start_time: at(1), ..Default::default() }, "start_time"),
            (CountEventsRequest { end_time: at(-3_600), ..Default::default() }, "end_time"),
            (CountEventsRequest { group_by: 99, ..Default::default() }, "group_by"),
            (
                CountEventsRequest { group_by: EventGroup::Hour as i32, ..Default::default() },
                "start_time",
            ),
            (CountEventsRequest { category: "a b".into(), ..Default::default() }, "category"),
        ] {
            assert_eq!(refused(admin.call(request).await).fields, [field]);
        }
        let list = ListEventsRequest { order: 9, ..Default::default() };
        assert_eq!(refused(admin.call(list).await).fields, ["order"]);
        let actor = person("");
        let filter = Some(EventFilter { actor, ..Default::default() });
        let list = ListEventsRequest { filter, ..Default::default() };
        assert_eq!(refused(admin.call(list).await).fields, ["filter.actor.user"]);
        // Reading counts is recorded like any other reading of the log.
        let access =
            ListEventsRequest { category: "keyledger/access".into(), ..Default::default() };
        admin.call(CountEventsRequest::default()).await.unwrap();
        let newest = admin.call(access).await.unwrap().events.remove(0);
        assert_eq!(newest.method, "AuditService/CountEvents");
        assert!(newest.returned.is_some_and(|n| n > 0));
    });
}
