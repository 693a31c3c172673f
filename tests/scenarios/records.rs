//! What each call leaves in the ledger: a change its entry, everything else exactly one use (and a stream of events one more
//! when it ends).

use std::collections::HashSet;

use keyledger_ledger::body::{Decision, DecisionReason, Kind};
use keyledger_ledger::id::KeyId;
use keyledger_proto::*;
use uuid::Uuid;

use crate::every_method::{Does, Target, all, good_request, leaves};
use crate::harness::*;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn id_of(caller: &Caller) -> KeyId {
    let me = caller.call(WhoAmIRequest {}).await.unwrap().key.unwrap();
    KeyId::parse(&me.key_id).unwrap()
}

#[test]
fn a_change_leaves_its_entry_and_everything_else_leaves_one_use() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (admin, system) = (replica.admin(), replica.system_admin());
        let ids = [id_of(&system).await, id_of(&admin).await];
        // At most once a minute this has Keyledger tell the counts, in an entry of its own.
        admin.call(GetCategoryCountsRequest {}).await.unwrap();
        for method in all() {
            // A target of its own for each, since some end it.
            let target = Target::new(&admin).await;
            let target_id = KeyId::parse(&target.key_id).unwrap();
            if method.name == "KeyService/ResumeKey" {
                admin.call(suspend(&target.key_id)).await.unwrap();
            }
            let opens = method.name == "KeyService/OpenLedger";
            let (caller, ledger) = if opens { (&system, 0) } else { (&admin, 1) };
            let (does, message) = good_request(&method, &target);
            let mark = d.mark().await;
            caller
                .with_header("traceparent", TRACEPARENT)
                .raw(&method.path, message)
                .await
                .unwrap();
            if leaves(&method) > 1 {
                d.since_in_one_until(&mark, leaves(&method)).await;
            }
            let mut left = d.since(&mark).await;
            let here =
                left.remove(&ledger).unwrap_or_else(|| panic!("{} left nothing", method.name));
            let others: Vec<u32> = left.into_keys().collect();
            assert_eq!(others, if opens { vec![2] } else { vec![] }, "{}", method.name);
            assert_eq!(here.len(), leaves(&method), "{} left {here:?}", method.name);
            let record = &here[0];
            let trace: Uuid = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736".parse().unwrap();
            if does == Does::Change {
                let event = record.as_change();
                let caller = event.caller.as_ref().expect("a change has its caller");
                assert_eq!(
                    (caller.key_id.as_slice(), caller.version),
                    (ids[ledger as usize].as_bytes().as_slice(), 1)
                );
                assert_eq!(event.trace_id, trace.as_bytes());
                continue;
            }
            let left = record.as_use();
            assert_eq!(verdict(left), (Decision::Allow, DecisionReason::Granted));
            assert_eq!(
                (&left.method, left.trace_id.as_slice()),
                (&method.name, trace.as_bytes().as_slice())
            );
            if does == Does::Check {
                let asked = left.caller.as_ref().expect("a check names who asked");
                assert_eq!(left.key_id, target_id.as_bytes());
                assert_eq!(asked.key_id, ids[1].as_bytes());
                assert_eq!(
                    (left.permission.as_str(), left.resource.as_str()),
                    ("audit.read", "logs/error")
                );
            } else {
                assert_eq!(
                    (left.key_id.as_slice(), left.caller.as_ref()),
                    (ids[1].as_bytes().as_slice(), None)
                );
                assert_eq!(left.permission, method.permission);
            }
        }
    });
}

#[test]
fn a_new_ledger_begins_with_its_opening_and_its_admin() {
    scenario(async |d| {
        let system = d.replica().await.system_admin();
        let name = "billing".to_string();
        let open = OpenLedgerRequest {
            name,
            reason: "a new tenant".into(),
            request_id: String::new(),
            ..Default::default()
        };
        system.call(open).await.unwrap();
        let kinds: Vec<&str> = d
            .records(2)
            .await
            .iter()
            .map(|r| r.as_change().kind.as_ref().unwrap().name())
            .collect();
        assert_eq!(kinds, ["ledger.opened", "key.created"]);
    });
}

#[test]
fn each_start_of_a_server_leaves_an_entry_in_ledger_0() {
    scenario(async |d| {
        let mark = d.mark().await;
        d.replica().await;
        d.replica().await;
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (0, 2));
        for record in &left {
            let event = record.as_change();
            assert!(matches!(event.kind, Some(Kind::ServerStarted(_))), "{event:?}");
            assert_eq!(event.caller, None, "Keyledger itself acts");
        }
    });
}

#[test]
fn a_change_that_the_ledger_refuses_leaves_one_refused_use() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let me = id_of(&admin).await;
        let target = Target::new(&admin).await;
        admin.call(revoke(&target.key_id)).await.unwrap();
        let mark = d.mark().await;
        let state = refused(admin.call(revoke(&target.key_id)).await);
        assert_eq!(state.metadata["state"], "KEY_STATE_REVOKED");
        state.with(tonic::Code::FailedPrecondition, ErrorReason::KeyState);
        refused(admin.call(rotate(&target.key_id, 0)).await)
            .with(tonic::Code::FailedPrecondition, ErrorReason::KeyState);
        refused(admin.call(revoke(&Uuid::new_v4().to_string())).await)
            .with(tonic::Code::NotFound, ErrorReason::KeyNotFound);
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), 3);
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Deny, DecisionReason::Refused));
            assert_eq!(record.as_use().key_id, me.as_bytes());
        }
    });
}

#[test]
fn every_verdict_that_was_answered_is_in_the_ledger_where_the_answer_says() {
    scenario(async |d| {
        let (one, other) = (d.replica().await, d.replica().await);
        let admin = one.admin();
        let good = Target::new(&admin).await;
        let ended = Target::new(&admin).await;
        admin.call(revoke(&ended.key_id)).await.unwrap();
        let mark = d.mark().await;
        // Many at once, so that pages hold many.
        let calls: Vec<_> = (0..300)
            .map(|i| {
                let caller = if i % 2 == 0 { one.admin() } else { other.admin() };
                let token = if i % 3 == 0 { &ended.token } else { &good.token };
                let request = VerifyKeyRequest { audience: format!("call-{i}"), ..check(token) };
                tokio::spawn(async move { (i, caller.call(request).await.unwrap()) })
            })
            .collect();
        let mut addresses = HashSet::new();
        let mut answers = vec![];
        for call in calls {
            let (i, answer) = call.await.unwrap();
            let address = (answer.position.unwrap(), answer.index.unwrap());
            assert!(addresses.insert(address), "two answers name {address:?}");
            answers.push((i, answer));
        }
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), 300);
        for (i, answer) in &answers {
            let address = (answer.position.unwrap(), answer.index);
            let at = |record: &&Record| record.address() == address;
            let recorded = left.iter().find(at).expect("an answered use is in the ledger").as_use();
            assert_eq!(recorded.audience, format!("call-{i}"));
            assert_eq!(verdict(recorded), (answer.decision(), answer.reason()));
        }
        // And so a reader finds it.
        for (_, answer) in answers.iter().take(10) {
            let GetEventResponse { event } = admin
                .call(GetEventRequest { position: answer.position, index: answer.index, view: 0 })
                .await
                .unwrap();
            let event = event.unwrap();
            assert_eq!((event.position, event.index), (answer.position, answer.index));
            assert_eq!(event.key_id, answer.key_id);
            assert_eq!(event.decision(), answer.decision());
        }
    });
}

#[test]
fn a_read_of_what_the_key_may_not_see_finds_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let changes_only = vec![grant("audit.read", "logs/keyledger/lifecycle")];
        let reader = admin.call(service_key("reader", changes_only)).await.unwrap().token;
        let reader = replica.caller(&reader);
        let target = Target::new(&admin).await;
        let used = admin.call(check(&target.token)).await.unwrap();

        let listed = reader.call(ListEventsRequest::default()).await.unwrap().events;
        assert!(!listed.is_empty());
        assert!(listed.iter().all(|e| e.category == "keyledger/lifecycle"));
        let hidden = GetEventRequest { position: used.position, index: used.index, view: 0 };
        refused(reader.call(hidden).await).with(tonic::Code::NotFound, ErrorReason::EventNotFound);
        let uses = ListEventsRequest { category: "keyledger/use".into(), ..Default::default() };
        refused(reader.call(uses).await)
            .with(tonic::Code::PermissionDenied, ErrorReason::PermissionDenied);
        let raw = GetEventRequest {
            position: Some(0),
            view: EventView::Raw as i32,
            ..Default::default()
        };
        refused(reader.call(raw).await)
            .with(tonic::Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}
