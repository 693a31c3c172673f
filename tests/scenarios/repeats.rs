//! Request ids: a repeated change is answered as before, without its secret; an id is never used twice (AIP-155).

use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::Code;
use uuid::Uuid;

use crate::harness::*;

fn new_id() -> String {
    Uuid::new_v4().to_string()
}

#[test]
fn a_repeated_request_gets_the_first_answer_without_the_token() {
    scenario(async |d| {
        let (one, other) = (d.replica().await, d.replica().await);
        let create = CreateKeyRequest { request_id: new_id(), ..user_key("alice@example.com") };
        let first = one.admin().call(create.clone()).await.unwrap();
        let key_id = first.key.clone().unwrap().key_id;
        let rotate = RotateKeyRequest { request_id: new_id(), ..rotate(&key_id, 60) };
        let rotated = one.admin().call(rotate.clone()).await.unwrap();
        let revoke = RevokeKeyRequest { request_id: new_id(), ..revoke(&key_id) };
        let revoked = one.admin().call(revoke.clone()).await.unwrap();

        let mark = d.mark().await;
        for replica in [&one, &other] {
            let again = replica.admin().call(create.clone()).await.unwrap();
            assert_eq!(again.token, "", "a secret is shown once");
            assert_eq!((again.position, again.key), (first.position, first.key.clone()));
            let again = replica.admin().call(rotate.clone()).await.unwrap();
            assert_eq!(again.token, "");
            assert_eq!((again.position, again.key), (rotated.position, rotated.key.clone()));
            let again = replica.admin().call(revoke.clone()).await.unwrap();
            assert_eq!((again.position, again.key), (revoked.position, revoked.key.clone()));
        }
        let (ledger, left) = d.since_in_one(&mark).await;
        assert_eq!((ledger, left.len()), (1, 6));
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Allow, DecisionReason::Replayed));
        }
    });
}

#[test]
fn a_role_and_a_ledger_are_made_once_however_often_they_are_asked_for() {
    scenario(async |d| {
        let replica = d.replica().await;
        let create = CreateRoleRequest {
            request_id: new_id(),
            ..role("log-readers", vec![grant("audit.read", "logs/**")])
        };
        let first = replica.admin().call(create.clone()).await.unwrap();
        assert_eq!(replica.admin().call(create).await.unwrap(), first);

        let open = OpenLedgerRequest {
            name: "billing".into(),
            reason: "a new tenant".into(),
            request_id: new_id(),
            ..Default::default()
        };
        let first = replica.system_admin().call(open.clone()).await.unwrap();
        let again = replica.system_admin().call(open).await.unwrap();
        assert!(!first.token.is_empty());
        assert_eq!(again.token, "", "its first token was seen");
        assert_eq!((again.position, again.ledger), (first.position, first.ledger));
    });
}

#[test]
fn a_request_id_is_refused_for_another_request() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let id = new_id();
        let create = CreateKeyRequest { request_id: id.clone(), ..user_key("alice@example.com") };
        let made = admin.call(create.clone()).await.unwrap();
        let key_id = made.key.unwrap().key_id;

        let mark = d.mark().await;
        let other_body = CreateKeyRequest { reason: "ticket 4712".into(), ..create.clone() };
        let other_method = RevokeKeyRequest { request_id: id.clone(), ..revoke(&key_id) };
        let reused = ErrorReason::RequestIdReused;
        refused(admin.call(other_body).await).with(Code::AlreadyExists, reused);
        refused(admin.call(other_method).await).with(Code::AlreadyExists, reused);
        let (_, left) = d.since_in_one(&mark).await;
        assert_eq!(left.len(), 2);
        for record in &left {
            assert_eq!(verdict(record.as_use()), (Decision::Deny, DecisionReason::Refused));
        }

        // The id belongs to its caller: for another one it is free.
        let all = vec![grant("*", "**")];
        let token = admin.call(service_key("second-admin", all)).await.unwrap().token;
        let second = replica.caller(&token).call(create).await.unwrap();
        assert!(!second.token.is_empty());
    });
}

#[test]
fn a_request_that_was_refused_may_be_made_again_with_its_id() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let create = CreateKeyRequest {
            request_id: new_id(),
            roles: vec!["log-readers".into()],
            ..user_key("alice@example.com")
        };
        refused(admin.call(create.clone()).await).with(Code::NotFound, ErrorReason::RoleNotFound);
        admin.call(role("log-readers", vec![grant("audit.read", "logs/**")])).await.unwrap();
        let made = admin.call(create).await.unwrap();
        assert!(!made.token.is_empty());
    });
}
