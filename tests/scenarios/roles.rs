//! Roles: named sets of grants. And what holds for grants in general: nobody gives more than they hold.

use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::entry::{Decision, DecisionReason, Grant};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

#[test]
fn a_key_may_do_what_its_roles_allow() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let grants = vec![grant("audit.read", "logs/*")];
        let made = admin.call(role("log-readers", grants.clone())).await.unwrap();
        let shown = made.role.unwrap();
        assert_eq!((shown.name.as_str(), &shown.grants), ("log-readers", &grants));
        assert_eq!(shown.description, "those who look at logs");

        let with_role = CreateKeyRequest {
            grants: vec![grant("audit.export", "logs/error")],
            roles: vec!["log-readers".into()],
            ..user_key("alice@example.com")
        };
        let key = admin.call(with_role).await.unwrap();
        let verdict = admin.call(check(&key.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);
        assert_eq!(verdict.matched_role, "log-readers");
        assert_eq!(verdict.matched_grant, Some(grants[0].clone()));
        let own = VerifyKeyRequest { permission: "audit.export".into(), ..check(&key.token) };
        let verdict = admin.call(own).await.unwrap();
        assert_eq!((verdict.decision(), verdict.matched_role.as_str()), (Decision::Allow, ""));
        let neither = VerifyKeyRequest { resource: "logs/error/fatal".into(), ..check(&key.token) };
        let verdict = admin.call(neither).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::NoGrant);
        let listed = admin.call(ListRolesRequest::default()).await.unwrap().roles;
        let own: Vec<Role> = listed.into_iter().filter(|r| !r.predefined).collect();
        assert_eq!(own, std::slice::from_ref(&shown));
        let get = GetRoleRequest { name: "log-readers".into(), as_of: None };
        assert_eq!(admin.call(get).await.unwrap().role, Some(shown));
    });
}

#[test]
fn a_role_has_one_meaning_for_ever() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        admin.call(role("log-readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
        let other = role("log-readers", vec![grant("audit.read", "**")]);
        refused(admin.call(other).await).with(Code::AlreadyExists, ErrorReason::RoleExists);
        let unknown =
            CreateKeyRequest { roles: vec!["writer".into()], ..user_key("alice@example.com") };
        let refusal = refused(admin.call(unknown).await);
        assert_eq!(refusal.metadata["role"], "writer");
        refusal.with(Code::NotFound, ErrorReason::RoleNotFound);
    });
}

#[test]
fn a_key_without_grants_may_do_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(service_key("idle", vec![])).await.unwrap();
        let verdict = replica.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::NoGrant);
        let refusal = refused(replica.caller(&made.token).call(ListKeysRequest::default()).await);
        assert_eq!(refusal.metadata["permission"], "keys.read");
        assert_eq!(refusal.metadata["resource"], "keys");
        refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn nobody_gives_more_than_they_hold() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let manager = vec![
            grant_of(&["keys.create", "keys.rotate"], "**"),
            grant("roles.create", "roles/*"),
            Grant { give_only: true, ..grant("audit.read", "logs/**") },
        ];
        let manager = admin.call(service_key("key-manager", manager)).await.unwrap();
        let manager = replica.caller(&manager.token);

        // What it may hand on, and not use.
        let given = manager.call(user_key("alice@example.com")).await.unwrap();
        assert_eq!(admin.call(check(&given.token)).await.unwrap().decision(), Decision::Allow);
        refused(manager.call(ListEventsRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);

        let wider = [
            grant("audit.read", "**"),
            grant("audit.*", "logs/error"),
            grant("keys.revoke", "keys/*"),
        ];
        for grant in wider {
            let key = service_key("robot", vec![grant.clone()]);
            exceeds(manager.call(key).await);
            exceeds(manager.call(role("wider", vec![grant])).await);
        }
        let exceeding =
            |expiry| CreateKeyRequest { expiry: Some(expiry), ..user_key("bob@example.com") };
        exceeds(manager.call(exceeding(Expiry::Ttl(seconds(100 * 86_400)))).await);
        refused(manager.call(exceeding(Expiry::NoExpiry(true))).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);

        // A life that is not asked for is never longer than the giver's own.
        let own_end = manager.call(WhoAmIRequest {}).await.unwrap().key.unwrap().expire_time;
        let default = service_key("robot", vec![grant("audit.read", "logs/error")]);
        let given_end = manager.call(default).await.unwrap().key.unwrap().expire_time;
        assert_eq!(given_end, own_end);

        // Whoever rotates a key learns its secret: so it must hold what the key may do.
        let strong = admin.call(service_key("strong", vec![grant("*", "**")])).await.unwrap();
        exceeds(manager.call(rotate(&strong.key.unwrap().key_id, 0)).await);
        manager.call(rotate(&given.key.unwrap().key_id, 0)).await.unwrap();
    });
}

#[track_caller]
fn exceeds<T>(result: Result<T, tonic::Status>) {
    refused(result).with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
}

#[test]
fn a_reason_why_a_key_is_not_valid_is_told_only_to_those_who_may_know() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let asker = vec![grant("keys.verify", "keys")];
        let asker = admin.call(service_key("asker", asker)).await.unwrap().token;
        let asker = replica.caller(&asker);
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        admin.call(revoke(&key_id)).await.unwrap();

        let told = admin.call(check(&made.token)).await.unwrap();
        assert_eq!(
            (told.reason(), told.key_id.as_str()),
            (DecisionReason::Revoked, key_id.as_str())
        );
        let not_told = asker.call(check(&made.token)).await.unwrap();
        assert_eq!((not_told.reason(), not_told.key_id.as_str()), (DecisionReason::NotValid, ""));
        assert_eq!(not_told.expire_time, None);
        // The ledger knows in any case.
        let recorded = d.records(1).await;
        assert_eq!(
            verdict(recorded.last().unwrap().as_use()),
            (Decision::Deny, DecisionReason::Revoked)
        );
    });
}
