//! Ledgers: each is a world of its own, with its own keys; ledger 0 opens them.

use keyledger_ledger::body::Kind;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::entry::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

fn open(name: &str) -> OpenLedgerRequest {
    OpenLedgerRequest {
        name: name.into(),
        reason: "a new tenant".into(),
        request_id: String::new(),
        ..Default::default()
    }
}

#[test]
fn a_new_ledger_is_served_by_every_replica_at_once() {
    scenario(async |d| {
        let (one, other) = (d.replica().await, d.replica().await);
        let opened = one.system_admin().call(open("billing")).await.unwrap();
        let ledger = opened.ledger.clone().unwrap();
        assert_eq!((ledger.name.as_str(), ledger.number), ("billing", 2));
        assert_eq!(ledger.origin, "keys.example.test/billing");
        for replica in [&other, &one] {
            let me = replica.caller(&opened.token).call(WhoAmIRequest {}).await.unwrap();
            assert_eq!(me.ledger, Some(ledger.clone()));
        }
        let made = other.caller(&opened.token).call(user_key("alice@example.com")).await.unwrap();
        let verdict = one.caller(&opened.token).call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);

        let records = d.records(2).await;
        assert!(matches!(records[0].as_change().kind, Some(Kind::LedgerOpened(_))));
        let registered = d.records(0).await.into_iter().find(
            |r| matches!(r, Record::Change { position, .. } if Some(*position) == opened.position),
        );
        let registered = registered.unwrap();
        assert!(matches!(registered.as_change().kind, Some(Kind::LedgerRegistered(_))));
    });
}

#[test]
fn a_key_of_one_ledger_is_nothing_in_another() {
    scenario(async |d| {
        let replica = d.replica().await;
        let opened = replica.system_admin().call(open("billing")).await.unwrap();
        let (admin, billing) = (replica.admin(), replica.caller(&opened.token));
        let made = billing.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;

        let mark = d.mark().await;
        let verdict_here = admin.call(check(&made.token)).await.unwrap();
        assert_eq!(verdict_here.decision(), Decision::Deny);
        assert_eq!(verdict_here.reason(), DecisionReason::Foreign);
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (1, 1));
        let recorded = left[0].as_use();
        assert_eq!(verdict(recorded), (Decision::Deny, DecisionReason::Foreign));
        assert!(recorded.key_id.is_empty(), "no such key exists in this ledger");

        let not_found = |refusal: Refused| refusal.with(Code::NotFound, ErrorReason::KeyNotFound);
        not_found(refused(
            admin
                .call(GetKeyRequest { key_id: key_id.clone(), as_of: None, include_traces: false })
                .await,
        ));
        not_found(refused(admin.call(rotate(&key_id, 0)).await));
        not_found(refused(admin.call(revoke(&key_id)).await));
        let keys = admin.call(ListKeysRequest::default()).await.unwrap().keys;
        assert!(keys.iter().all(|key| key.key_id != key_id));
        let about = ListEventsRequest { key_id, ..Default::default() };
        assert_eq!(admin.call(about).await.unwrap().events, []);
    });
}

#[test]
fn a_token_of_a_ledger_that_does_not_exist_is_refused_by_ledger_0() {
    scenario(async |d| {
        let replica = d.replica().await;
        let mark = d.mark().await;
        let key_id = KeyId::new(Time(1), LedgerNumber(77), 1);
        let token = Token { key_id, secret: Secret::new([7; 32]) }.reveal();
        refused(replica.caller(&token).call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (0, 1));
        assert_eq!(verdict(left[0].as_use()), (Decision::Deny, DecisionReason::Foreign));
    });
}

#[test]
fn ledgers_are_opened_by_ledger_0_only_and_never_twice() {
    scenario(async |d| {
        let replica = d.replica().await;
        let system = replica.system_admin();
        system.call(open("billing")).await.unwrap();
        let tried = OpenLedgerRequest { validate_only: true, ..open("tried") };
        let tried = system.call(tried).await.unwrap();
        assert_eq!(
            (tried.ledger.unwrap().number, tried.token, tried.position),
            (3, String::new(), None)
        );
        for name in ["billing", "default", "system"] {
            refused(system.call(open(name)).await)
                .with(Code::AlreadyExists, ErrorReason::LedgerExists);
        }
        // An admin of a tenant may do everything in its own ledger, and that is all.
        refused(replica.admin().call(open("mine")).await)
            .with(Code::FailedPrecondition, ErrorReason::SystemLedgerOnly);

        let all = system.call(ListLedgersRequest::default()).await.unwrap().ledgers;
        let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["system", "default", "billing"]);
        let own = replica.admin().call(ListLedgersRequest::default()).await.unwrap().ledgers;
        assert_eq!(own.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["default"]);
    });
}
