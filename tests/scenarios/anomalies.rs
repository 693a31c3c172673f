//! Unusual use: noticed once while it happens, told to whoever may read about it, and answered.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use keyledger_ledger::body::{
    AnomalyResponse, AnomalyVerdict, DecisionReason, Event, Kind, MonitoringRule, RuleSetting,
};
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::unusual_subject::Subject;
use keyledger_proto::*;
use serde_json::Value;
use tonic::{Code, Streaming};

use crate::forwarders::receiver::Receiver;
use crate::forwarders::{Configured, hook, only};
use crate::harness::*;

/// A token that was never given to anybody.
fn made_up(number: u64) -> String {
    let key_id = KeyId::new(Time(1_700_000_000_000_000), LedgerNumber(1), number);
    Token { key_id, secret: Secret::new([7; 32]) }.reveal()
}

/// Some try a token each, over both replicas, all at once.
async fn try_tokens(replicas: [&Replica; 2], numbers: std::ops::Range<u64>) {
    let tries = numbers.map(|n| {
        let caller = replicas[(n % 2) as usize].caller(&made_up(n));
        async move {
            refused(caller.call(WhoAmIRequest {}).await)
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        }
    });
    join_all(tries).await;
}

async fn list(caller: &Caller, request: ListAnomaliesRequest) -> Vec<Anomaly> {
    caller.call(request).await.unwrap().anomalies
}

async fn all(caller: &Caller) -> Vec<Anomaly> {
    list(caller, ListAnomaliesRequest::default()).await
}

fn of_key(key_id: &str) -> ListAnomaliesRequest {
    ListAnomaliesRequest { key_id: key_id.into(), ..Default::default() }
}

/// A reader of one category.
async fn reader(admin: &Caller, name: &str, category: &str) -> (String, String) {
    let grants = vec![grant("audit.read", &format!("logs/{category}"))];
    let made = admin.call(service_key(name, grants)).await.unwrap();
    (made.key.unwrap().key_id, made.token)
}

/// Asks for a category that is not for it.
async fn pry(caller: &Caller, category: &str) {
    let asked = ListEventsRequest { category: category.into(), ..Default::default() };
    refused(caller.call(asked).await).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
}

async fn watch(caller: &Caller) -> Streaming<WatchAnomaliesResponse> {
    caller.stream(WatchAnomaliesRequest { from_position: Some(0) }).await.unwrap()
}

async fn next_change(watched: &mut Streaming<WatchAnomaliesResponse>) -> AnomalyChange {
    loop {
        let reply = watched.message().await.unwrap().expect("it goes on for ever");
        if let Some(change) = reply.change {
            return change;
        }
    }
}

/// The next events that a receiver gets.
async fn next_events(receiver: &mut Receiver) -> Vec<Value> {
    receiver.next().await.events()
}

/// Everything of this sort in the first ledger.
async fn raised(d: &Deployment) -> Vec<Event> {
    let is_raised = |event: &Event| matches!(event.kind, Some(Kind::AnomalyRaised(_)));
    changes(d).await.into_iter().filter(is_raised).collect()
}

async fn changes(d: &Deployment) -> Vec<Event> {
    let records = d.records(1).await.into_iter();
    let change = |record: Record| match record {
        Record::Change { event, .. } => Some(*event),
        Record::Use { .. } => None,
    };
    records.filter_map(change).collect()
}

async fn suspended(d: &Deployment) -> usize {
    let is_it = |event: &Event| match &event.kind {
        Some(Kind::KeySuspended(e)) => e.anomaly_position.is_some(),
        _ => false,
    };
    changes(d).await.iter().filter(|event| is_it(event)).count()
}

#[test]
fn two_hundred_unknown_tokens_from_one_peer_raise_exactly_one_anomaly_while_they_arrive() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let told = Configured::new(&[hook("alarms", &receiver, &only("keyledger/anomaly"))]);
        let (a, b) = (told.replica(d).await, d.replica().await);
        let mut watched = watch(&b.admin()).await;
        try_tokens([&a, &b], 0..130).await;
        let noticed = next_change(&mut watched).await;
        assert_eq!(noticed.r#type, "anomaly.raised");
        let first = noticed.anomaly.unwrap();
        assert!((100..=130).contains(&first.occurrences), "{first:?}");
        try_tokens([&a, &b], 130..200).await;
        for replica in [&*a, &b] {
            let [anomaly] = all(&replica.admin()).await.try_into().unwrap();
            assert_eq!(anomaly.occurrences, 200);
            assert_eq!(anomaly.rule(), MonitoringRule::Scanning);
            let network = Subject::Network("127.0.0.0/24".into());
            assert_eq!(anomaly.subject.unwrap().subject, Some(network));
            assert_eq!((anomaly.position, anomaly.end_time), (noticed.position, None));
            assert_eq!(anomaly.key_id, "");
        }
        assert_eq!(raised(d).await.len(), 1);
        let [event] = next_events(&mut receiver).await.try_into().unwrap();
        assert_eq!(event["type"], "anomaly.raised");
        assert_eq!(event["category"], "keyledger/anomaly");
        assert_eq!(event["anomaly"]["rule"], "MONITORING_RULE_SCANNING");
        assert_eq!(event["anomaly"]["subject"]["network"], "127.0.0.0/24");
        assert!(receiver.waiting().is_none());
        // The network stands in no signed byte.
        for event in raised(d).await {
            assert!(!format!("{event:?}").contains("127.0.0"), "{event:?}");
        }
    });
}

#[test]
fn a_forbidden_category_raises_an_anomaly_that_names_key_and_category_and_a_quiet_key_none() {
    scenario(async |d| {
        let mut receiver = Receiver::new(false).await;
        let told = Configured::new(&[hook("alarms", &receiver, &only("keyledger/anomaly"))]);
        let (a, b) = (told.replica(d).await, d.replica().await);
        let admin = a.admin();
        let (quiet_id, quiet) = reader(&admin, "quiet", "error").await;
        let (curious_id, curious) = reader(&admin, "curious", "error").await;
        let own = ListEventsRequest { category: "error".into(), ..Default::default() };
        for _ in 0..20 {
            b.caller(&quiet).call(own.clone()).await.unwrap();
        }
        for _ in 0..3 {
            pry(&b.caller(&curious), "security/login").await;
        }
        let [anomaly] = list(&admin, of_key(&curious_id)).await.try_into().unwrap();
        assert_eq!(anomaly.rule(), MonitoringRule::Forbidden);
        assert_eq!(anomaly.key_id, curious_id);
        assert_eq!(
            anomaly.subject.clone().unwrap().subject,
            Some(Subject::KeyId(curious_id.clone()))
        );
        assert_eq!(
            (&*anomaly.permission, &*anomaly.resource),
            ("audit.read", "logs/security/login")
        );
        assert_eq!((anomaly.occurrences, &*anomaly.network), (3, "127.0.0.0/24"));
        let measures = anomaly.measures.iter().map(|m| (&*m.name, m.value));
        assert_eq!(
            measures.collect::<Vec<_>>(),
            [("refusals", 1), ("threshold", 1), ("different_things", 1), ("window_seconds", 3_600)],
            "a category of the log is enough by itself"
        );
        assert!(list(&admin, of_key(&quiet_id)).await.is_empty());
        assert_eq!(all(&admin).await.len(), 1);

        let [event] = next_events(&mut receiver).await.try_into().unwrap();
        assert_eq!(event["anomaly"]["rule"], "MONITORING_RULE_FORBIDDEN");
        assert_eq!(
            (&event["keyId"], &event["resource"]),
            (&curious_id.into(), &"logs/security/login".into())
        );
        assert!(receiver.waiting().is_none());
    });
}

#[test]
fn an_anomaly_is_found_among_the_events_by_its_key_its_category_and_its_position() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let (key_id, token) = reader(&admin, "curious", "error").await;
        pry(&replica.caller(&token), "security/login").await;
        let [anomaly] = all(&admin).await.try_into().unwrap();
        let types = |events: &[AuditEvent]| -> Vec<String> {
            events.iter().map(|e| e.r#type.clone()).collect()
        };
        for category in ["keyledger/anomaly", ""] {
            let request = ListEventsRequest {
                key_id: key_id.clone(),
                category: category.into(),
                ..Default::default()
            };
            let found = admin.call(request).await.unwrap().events;
            let alarms: Vec<&AuditEvent> =
                found.iter().filter(|e| e.category == "keyledger/anomaly").collect();
            assert_eq!(alarms.len(), 1, "{:?}", types(&found));
            assert_eq!(alarms[0].key_id, key_id);
            let facts = alarms[0].anomaly.as_ref().unwrap();
            assert_eq!(
                (facts.position, facts.rule()),
                (anomaly.position, MonitoringRule::Forbidden)
            );
        }
        let at = GetEventRequest { position: anomaly.position, ..Default::default() };
        let event = admin.call(at).await.unwrap().event.unwrap();
        assert_eq!((&*event.r#type, &*event.resource), ("anomaly.raised", "logs/security/login"));
        let streamed = StreamEventsRequest {
            from_position: Some(0),
            key_id: key_id.clone(),
            category: "keyledger/anomaly".into(),
            stop_at_head: true,
            ..Default::default()
        };
        let mut stream = admin.stream(streamed).await.unwrap();
        let mut streamed = vec![];
        while let Some(reply) = stream.message().await.unwrap() {
            streamed.extend(reply.event);
        }
        assert_eq!(types(&streamed), ["anomaly.raised"]);
        let count =
            CountEventsRequest { category: "keyledger/anomaly".into(), ..Default::default() };
        assert_eq!(admin.call(count).await.unwrap().total_events, 1);
        for format in 1..5 {
            let export = ExportEventsRequest {
                category: "keyledger/anomaly".into(),
                format,
                ..Default::default()
            };
            let mut stream = admin.stream(export).await.unwrap();
            let mut lines = vec![];
            while let Some(reply) = stream.message().await.unwrap() {
                lines.extend(reply.lines);
            }
            let lines = String::from_utf8(lines).unwrap();
            assert!(lines.contains(&key_id) && lines.contains("logs/security/login"), "{lines}");
        }
        // Whoever keeps what keys may do hears of changes of keys alone.
        let mut keys = admin.stream(WatchKeysRequest { from_position: Some(0) }).await.unwrap();
        let head = d.records(1).await.last().unwrap().address().0;
        let mut heard = BTreeSet::new();
        while let Some(reply) = keys.message().await.unwrap() {
            heard.extend(reply.change.map(|change| change.r#type));
            if reply.next_position.unwrap() > head {
                break;
            }
        }
        assert!(heard.contains("key.created") && !heard.contains("anomaly.raised"), "{heard:?}");
    });
}

#[test]
fn a_server_that_is_killed_before_it_has_saved_what_it_raised_raises_nothing_twice() {
    scenario(async |d| {
        let a = d.replica().await;
        let admin = a.admin();
        let (key_id, token) = reader(&admin, "curious", "error").await;
        assert!(all(&admin).await.is_empty());
        let mut watched = watch(&admin).await;
        // As long as this lasts, no pass can be saved.
        let mut superuser = d.superuser().await;
        let held = superuser.transaction().await.unwrap();
        held.execute("SELECT FROM event_index_progress FOR UPDATE", &[]).await.unwrap();
        pry(&a.caller(&token), "security/login").await;
        let asking = a.admin();
        let asked = tokio::spawn(async move { asking.call(of_key("")).await });
        assert_eq!(next_change(&mut watched).await.r#type, "anomaly.raised");
        assert_eq!(raised(d).await.len(), 1);
        a.kill().await;
        assert!(asked.await.unwrap().is_err(), "it had no answer to give");
        held.rollback().await.unwrap();
        let (b, c) = (d.replica().await, d.replica().await);
        for replica in [&b, &c, &b] {
            let [anomaly] = list(&replica.admin(), of_key(&key_id)).await.try_into().unwrap();
            assert_eq!(anomaly.occurrences, 1);
        }
        assert_eq!(raised(d).await.len(), 1);
    });
}

/// What is done about forbidden things.
async fn respond(admin: &Caller, response: AnomalyResponse) {
    let rule = MonitoringRule::Forbidden as i32;
    let rules = vec![RuleSetting { rule, response: response as i32, threshold: 0 }];
    let policy = LedgerPolicy { rules, ..Default::default() };
    let request =
        UpdateLedgerPolicyRequest { name: "default".into(), ..update_policy(&["rules"], policy) };
    admin.call(request).await.unwrap();
}

async fn state_of(caller: &Caller, key_id: &str) -> KeyState {
    let request = GetKeyRequest { key_id: key_id.into(), as_of: None, include_traces: false };
    caller.call(request).await.unwrap().key.unwrap().state()
}

#[test]
fn a_key_is_suspended_once_for_what_it_did_and_whoever_resumes_it_is_not_contradicted() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        respond(&admin, AnomalyResponse::Suspend).await;
        let (key_id, token) = reader(&admin, "curious", "error").await;
        let mut watched = watch(&b.admin()).await;
        pry(&b.caller(&token), "security/login").await;
        let noticed = next_change(&mut watched).await.anomaly.unwrap();
        assert_eq!(noticed.response(), AnomalyResponse::Suspend);
        assert_eq!(list(&admin, of_key(&key_id)).await.len(), 1);
        assert_eq!(state_of(&admin, &key_id).await, KeyState::Suspended);
        let describe = DescribeKeyRequest { key_id: key_id.clone(), format: 1 };
        let see = format!("see entry {}. ", noticed.position.unwrap());
        // Who may read changes, and not what was noticed, isn't told the rule.
        let changes =
            vec![grant("keys.read", "keys/**"), grant("audit.read", "logs/keyledger/lifecycle")];
        let changes = admin.call(service_key("changes", changes)).await.unwrap().token;
        for (caller, why) in [
            (admin.clone(), "It was noticed by the rule forbidden."),
            (a.caller(&changes), "By which rule it was noticed is withheld."),
        ] {
            let document = caller.call(describe.clone()).await.unwrap().document;
            assert!(document.contains(&format!("{see}{why}")), "{document}");
        }
        refused(a.caller(&token).call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        admin.call(resume(&key_id)).await.unwrap();
        for replica in [&a, &b] {
            pry(&replica.caller(&token), "security/login").await;
            let [anomaly] = list(&replica.admin(), of_key(&key_id)).await.try_into().unwrap();
            assert_eq!(anomaly.position, noticed.position, "it is still the same one");
            assert_eq!(state_of(&replica.admin(), &key_id).await, KeyState::Active);
        }
        assert_eq!((raised(d).await.len(), suspended(d).await), (1, 1));
        // A replica that starts from what is projected knows it too.
        a.kill().await;
        let c = d.replica().await;
        assert_eq!(all(&c.admin()).await[0].occurrences, 3);
        assert_eq!(state_of(&c.admin(), &key_id).await, KeyState::Active);
        assert_eq!(suspended(d).await, 1);
    });
}

#[test]
fn a_key_is_suspended_by_whoever_is_left_when_a_server_is_killed_between_noticing_and_suspending() {
    scenario(async |d| {
        let a = d.replica().await;
        let admin = a.admin();
        respond(&admin, AnomalyResponse::Suspend).await;
        let (key_id, token) = reader(&admin, "curious", "error").await;
        let superuser = d.superuser().await;
        let refuse = "CREATE FUNCTION not_now() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.kind = 25 THEN RAISE EXCEPTION 'not now'; END IF; RETURN NEW; END $$;
            CREATE TRIGGER not_now BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION not_now()";
        superuser.batch_execute(refuse).await.unwrap();
        let mut watched = watch(&admin).await;
        pry(&a.caller(&token), "security/login").await;
        assert_eq!(next_change(&mut watched).await.r#type, "anomaly.raised");
        assert_eq!(state_of(&admin, &key_id).await, KeyState::Active);
        a.kill().await;
        superuser.batch_execute("DROP TRIGGER not_now ON entries").await.unwrap();
        // Nobody asks: it looks by itself.
        let b = d.replica().await;
        let mut changes =
            b.admin().stream(WatchKeysRequest { from_position: Some(0) }).await.unwrap();
        let is_it = |c: &KeyChange| c.r#type == "key.suspended" && c.key_id == key_id;
        while let Some(reply) = changes.message().await.unwrap() {
            if reply.change.as_ref().is_some_and(is_it) {
                break;
            }
        }
        assert_eq!(state_of(&b.admin(), &key_id).await, KeyState::Suspended);
        assert_eq!((raised(d).await.len(), suspended(d).await), (1, 1));
        assert_eq!(list(&b.admin(), of_key(&key_id)).await.len(), 1);
    });
}

#[test]
fn what_no_key_alone_does_is_noticed_of_its_owner_whose_name_lies_sealed() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let mut number = 0;
        for _ in 0..3 {
            let key = admin.call(user_key("mallory@example.com")).await.unwrap();
            for _ in 0..4 {
                number += 1;
                let resource = format!("invoices/{number}");
                let permission = "invoices.read".into();
                let asked = VerifyKeyRequest { permission, resource, ..check(&key.token) };
                let verdict = admin.call(asked).await.unwrap();
                assert_eq!(verdict.reason(), DecisionReason::NoGrant);
            }
        }
        let [anomaly] = all(&admin).await.try_into().unwrap();
        assert_eq!((anomaly.rule(), anomaly.occurrences), (MonitoringRule::Forbidden, 12));
        let mallory = Owner { owner: Some(owner::Owner::User("mallory@example.com".into())) };
        assert_eq!(anomaly.subject.unwrap().subject, Some(Subject::Owner(mallory.clone())));
        assert_eq!(anomaly.key_id, "");
        let filter = EventFilter { owner: Some(mallory), ..Default::default() };
        let of_owner = ListEventsRequest {
            category: "keyledger/anomaly".into(),
            filter: Some(filter),
            ..Default::default()
        };
        assert_eq!(admin.call(of_owner).await.unwrap().events.len(), 1);
        for event in raised(d).await {
            assert!(!format!("{event:?}").contains("mallory"), "{event:?}");
        }
    });
}

#[test]
fn a_rule_that_is_off_notices_nothing_and_a_secret_that_was_rotated_away_is_noticed() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        respond(&admin, AnomalyResponse::Off).await;
        let (key_id, old) = reader(&admin, "rotated", "error").await;
        pry(&replica.caller(&old), "security/login").await;
        assert!(all(&admin).await.is_empty());
        admin.call(rotate(&key_id, 0)).await.unwrap();
        refused(replica.caller(&old).call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        let [anomaly] = all(&admin).await.try_into().unwrap();
        assert_eq!(anomaly.rule(), MonitoringRule::SupersededVersion);
        assert_eq!((anomaly.key_id, anomaly.occurrences), (key_id, 1));
    });
}

#[test]
fn what_somebody_found_is_shown_told_and_kept() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let me = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let (_, token) = reader(&admin, "curious", "error").await;
        pry(&a.caller(&token), "security/login").await;
        let [anomaly] = all(&admin).await.try_into().unwrap();
        let mut watched = watch(&b.admin()).await;
        assert_eq!(next_change(&mut watched).await.r#type, "anomaly.raised");
        let found = |position, verdict: AnomalyVerdict, reason: &str| AcknowledgeAnomalyRequest {
            position,
            verdict: verdict as i32,
            reason: reason.into(),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let first = found(anomaly.position, AnomalyVerdict::Unclear, "asking the team");
        let at = admin.call(first.clone()).await.unwrap().position;
        assert_eq!(b.admin().call(first).await.unwrap().position, at, "once");
        let told = next_change(&mut watched).await;
        assert_eq!((told.r#type.as_str(), told.position), ("anomaly.acknowledged", at));
        let said = &told.anomaly.unwrap().acknowledgements[0];
        assert_eq!((said.verdict(), &*said.reason), (AnomalyVerdict::Unclear, "asking the team"));
        let second = found(anomaly.position, AnomalyVerdict::Expected, "a new report");
        admin.call(second).await.unwrap();
        let [shown] = all(&b.admin()).await.try_into().unwrap();
        let verdicts: Vec<AnomalyVerdict> =
            shown.acknowledgements.iter().map(|a| a.verdict()).collect();
        assert_eq!(verdicts, [AnomalyVerdict::Expected, AnomalyVerdict::Unclear]);
        assert_eq!(shown.acknowledgements[0].caller_key_id, me);
        assert_eq!(shown.acknowledgements[0].reason, "a new report");

        // Nothing was raised there: it is refused, and recorded so.
        let mark = d.mark().await;
        let nothing = found(Some(1), AnomalyVerdict::Misuse, "a guess");
        refused(admin.call(nothing).await).with(Code::NotFound, ErrorReason::AnomalyNotFound);
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(verdict(left[0].as_use()).1, DecisionReason::Refused);
        let tried = AcknowledgeAnomalyRequest {
            validate_only: true,
            ..found(anomaly.position, AnomalyVerdict::Misuse, "only tried")
        };
        assert_eq!(admin.call(tried).await.unwrap().position, None);
        assert_eq!(all(&admin).await[0].acknowledgements.len(), 2);
    });
}

#[test]
fn anomalies_are_listed_newest_first_page_by_page_and_by_what_is_asked() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let mut keys = vec![];
        for n in 0..5 {
            let (key_id, token) = reader(&admin, &format!("curious-{n}"), "error").await;
            pry(&replica.caller(&token), "security/login").await;
            assert_eq!(list(&admin, of_key(&key_id)).await.len(), 1);
            keys.insert(0, key_id);
        }
        let (mut listed, mut page_token) = (vec![], String::new());
        loop {
            let request = ListAnomaliesRequest { page_size: 2, page_token, ..Default::default() };
            let page = admin.call(request).await.unwrap();
            assert!(page.anomalies.len() <= 2);
            listed.extend(page.anomalies);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let of: Vec<&String> = listed.iter().map(|a| &a.key_id).collect();
        assert_eq!(of, keys.iter().collect::<Vec<_>>());
        let seen = AcknowledgeAnomalyRequest {
            position: listed[1].position,
            verdict: AnomalyVerdict::Misuse as i32,
            reason: "ticket 4711".into(),
            ..Default::default()
        };
        admin.call(seen).await.unwrap();
        let count = async |request| list(&admin, request).await.len();
        let base = ListAnomaliesRequest::default;
        for (request, expected) in [
            (ListAnomaliesRequest { acknowledged: Some(true), ..base() }, 1),
            (ListAnomaliesRequest { acknowledged: Some(false), ..base() }, 4),
            (ListAnomaliesRequest { rule: MonitoringRule::Forbidden as i32, ..base() }, 5),
            (ListAnomaliesRequest { rule: MonitoringRule::Scanning as i32, ..base() }, 0),
            (ListAnomaliesRequest { state: AnomalyState::Open as i32, ..base() }, 5),
            (ListAnomaliesRequest { state: AnomalyState::Ended as i32, ..base() }, 0),
            (ListAnomaliesRequest { start_time: listed[2].raise_time, ..base() }, 3),
            (ListAnomaliesRequest { end_time: listed[2].raise_time, ..base() }, 2),
        ] {
            assert_eq!(count(request.clone()).await, expected, "{request:?}");
        }
        let other = ListAnomaliesRequest { page_token: "AAAA".into(), ..base() };
        refused(admin.call(other).await).with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);
    });
}

#[test]
fn a_key_for_another_category_sees_nothing_of_it_and_a_watcher_ends_with_its_key() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let (_, curious) = reader(&admin, "curious", "error").await;
        pry(&replica.caller(&curious), "security/login").await;
        let [anomaly] = all(&admin).await.try_into().unwrap();
        let (_, other) = reader(&admin, "other", "security/login").await;
        let other = replica.caller(&other);
        refused(other.call(ListAnomaliesRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        refused(other.stream(WatchAnomaliesRequest { from_position: Some(0) }).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let at = GetEventRequest { position: anomaly.position, ..Default::default() };
        refused(other.call(at).await).with(Code::NotFound, ErrorReason::EventNotFound);
        // Whoever may not say anything isn't told whether there is something.
        for position in [anomaly.position, Some(1)] {
            let seen = AcknowledgeAnomalyRequest {
                position,
                verdict: AnomalyVerdict::Expected as i32,
                reason: "nothing to see here".into(),
                ..Default::default()
            };
            refused(other.call(seen).await)
                .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        }
        let (watcher_id, watcher) = reader(&admin, "watcher", "keyledger/anomaly").await;
        let watcher = replica.caller(&watcher);
        let mut watched = watch(&watcher).await;
        assert_eq!(next_change(&mut watched).await.position, anomaly.position);
        admin.call(revoke(&watcher_id)).await.unwrap();
        let ended = loop {
            match watched.message().await {
                Ok(reply) => {
                    assert!(reply.unwrap().change.is_none_or(|c| c.position > anomaly.position))
                }
                Err(status) => break status,
            }
        };
        refused::<()>(Err(ended)).with(Code::Unauthenticated, ErrorReason::KeyEnded);
    });
}
