//! What keys may do: verdicts, dry runs and lists say the same, whoever asks and however.

use keyledger_ledger::token::Token;
use keyledger_proto::entry::{Decision, DecisionReason, Restrictions};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

/// A little of everything: own grants, roles with and without a parameter, give-only, suspended, restricted, none.
async fn keys(admin: &Caller) -> Vec<(String, String)> {
    admin.call(role("error-readers", vec![grant("audit.read", "logs/error")])).await.unwrap();
    admin.call(role("retired", vec![grant("audit.read", "**")])).await.unwrap();
    let with_role = |name: &str, role: &str| CreateKeyRequest {
        roles: vec![role.into()],
        ..service_key(name, vec![])
    };
    let give_only = vec![entry::Grant { give_only: true, ..grant("audit.read", "logs/**") }];
    let restricted = CreateKeyRequest {
        restrictions: Some(Restrictions {
            networks: vec!["198.51.100.0/24".into()],
            audiences: vec!["billing".into()],
            ..Restrictions::default()
        }),
        ..service_key("restricted", vec![grant("audit.read", "logs/**")])
    };
    let requests = vec![
        user_key("alice@example.com"),
        service_key("all", vec![grant("*", "**")]),
        service_key("some", vec![grant("audit.*", "logs/*"), grant("keys.read", "keys")]),
        service_key("none", vec![]),
        service_key("giver", give_only),
        with_role("by-role", "error-readers"),
        with_role("by-category", "log-reader(security/login)"),
        with_role("retired", "retired"),
        with_role("auditor", "auditor"),
        with_role("verifier", "verifier"),
        service_key("suspended", vec![grant("audit.read", "logs/**")]),
        restricted,
    ];
    let mut made = vec![];
    for request in requests {
        let reply = admin.call(request).await.unwrap();
        made.push((reply.key.unwrap().key_id, reply.token));
    }
    admin.call(retire_role("retired")).await.unwrap();
    admin.call(suspend(&made[10].0)).await.unwrap();
    made
}

#[test]
fn a_verdict_a_dry_run_and_the_list_of_who_has_access_agree() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let keys = keys(&admin).await;
        let permissions = ["audit.read", "audit.export", "keys.read", "keys.verify"];
        let resources = ["logs/error", "logs/security/login", "logs", "keys"];
        for (permission, resource) in permissions.iter().flat_map(|p| resources.map(|r| (*p, r))) {
            let who = WhoHasAccessRequest {
                permission: permission.into(),
                resource: resource.into(),
                page_size: 1000,
                ..Default::default()
            };
            let who = admin.call(who).await.unwrap();
            assert_eq!(who.next_page_token, "");
            let questions = keys.iter().map(|(_, token)| VerifyKeyRequest {
                permission: permission.into(),
                resource: resource.into(),
                audience: "billing".into(),
                client: Some(Client { address: "198.51.100.7".into(), ..Default::default() }),
                ..check(token)
            });
            let batch = BatchVerifyKeysRequest { requests: questions.collect() };
            let verdicts = admin.call(batch).await.unwrap().responses;
            for ((key_id, _), verdict) in keys.iter().zip(verdicts) {
                let what = format!("{permission} on {resource} by {key_id}");
                let request = TestPermissionsRequest {
                    address: "198.51.100.7".into(),
                    audience: "billing".into(),
                    ..test(key_id, permission, resource)
                };
                let tested = admin.call(request).await.unwrap().results.remove(0);
                assert_eq!(
                    (tested.decision, tested.reason),
                    (verdict.decision, verdict.reason),
                    "{what}"
                );
                assert_eq!(tested.matched_grant, verdict.matched_grant, "{what}");
                assert_eq!(tested.matched_role, verdict.matched_role, "{what}");
                let listed = who.access.iter().find(|a| a.key.as_ref().unwrap().key_id == *key_id);
                assert_eq!(listed.is_some(), verdict.decision() == Decision::Allow, "{what}");
                if let Some(listed) = listed {
                    assert_eq!(listed.matched_grant, verdict.matched_grant, "{what}");
                    assert_eq!(listed.matched_role, verdict.matched_role, "{what}");
                }
            }
        }
    });
}

#[test]
fn a_restricted_key_is_accepted_only_from_its_networks_and_for_its_audiences() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let restricted = |networks: &[&str], audiences: &[&str]| CreateKeyRequest {
            restrictions: Some(Restrictions {
                networks: networks.iter().map(|n| n.to_string()).collect(),
                audiences: audiences.iter().map(|a| a.to_string()).collect(),
                ..Restrictions::default()
            }),
            ..service_key("robot", vec![grant("*", "**")])
        };
        let office = admin.call(restricted(&["203.0.113.0/24"], &["billing"])).await.unwrap();
        let at = |address: &str, audience: &str| VerifyKeyRequest {
            client: Some(Client { address: address.into(), ..Default::default() }),
            audience: audience.into(),
            ..check(&office.token)
        };
        for (request, expected) in [
            (at("203.0.113.7", "billing"), DecisionReason::Granted),
            (at("203.0.114.7", "billing"), DecisionReason::Network),
            (at("", "billing"), DecisionReason::Network),
            (at("203.0.113.7", ""), DecisionReason::Audience),
            (at("203.0.113.7", "payroll"), DecisionReason::Audience),
        ] {
            assert_eq!(admin.call(request).await.unwrap().reason(), expected);
        }
        // To Keyledger itself a key is presented from where the call comes from.
        let refused_from_here = |result: Result<ListKeysResponse, tonic::Status>| {
            refused(result).with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        };
        let list = ListKeysRequest::default;
        refused_from_here(replica.caller(&office.token).call(list()).await);
        let elsewhere = admin.call(restricted(&["127.0.0.0/8"], &["billing"])).await.unwrap();
        refused_from_here(replica.caller(&elsewhere.token).call(list()).await);
        let here = admin.call(restricted(&["127.0.0.0/8"], &["keyledger"])).await.unwrap();
        let here = replica.caller(&here.token);
        here.call(list()).await.unwrap();
        // It gives on no more than it has.
        refused(here.call(service_key("free", vec![])).await)
            .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        here.call(restricted(&["127.0.0.0/16"], &["keyledger"])).await.unwrap();
    });
}

#[test]
fn a_change_of_a_role_acts_on_all_its_holders_at_once() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        a.admin().call(role("readers", vec![grant("audit.read", "logs/*")])).await.unwrap();
        let mut tokens = vec![];
        for name in ["one", "two", "three"] {
            let holder =
                CreateKeyRequest { roles: vec!["readers".into()], ..service_key(name, vec![]) };
            tokens.push(a.admin().call(holder).await.unwrap().token);
        }
        let expect = async |replica: &Replica, expected| {
            for token in &tokens {
                let verdict = replica.admin().call(check(token)).await.unwrap();
                assert_eq!(verdict.reason(), expected);
            }
        };
        expect(&b, DecisionReason::Granted).await;
        let other = vec![grant("audit.read", "logs/warning")];
        let updated = a.admin().call(update_role("readers", other.clone())).await.unwrap();
        assert_eq!(updated.role.as_ref().unwrap().grants, other);
        assert_eq!(updated.role.unwrap().description, "those who look at logs");
        expect(&b, DecisionReason::NoGrant).await;
        b.admin().call(update_role("readers", vec![grant("audit.read", "**")])).await.unwrap();
        expect(&a, DecisionReason::Granted).await;
        let retired = a.admin().call(retire_role("readers")).await.unwrap().role.unwrap();
        assert!(retired.retire_time.is_some());
        expect(&b, DecisionReason::NoGrant).await;
        refused(b.admin().call(retire_role("readers")).await)
            .with(Code::FailedPrecondition, ErrorReason::RoleRetired);
        let holder =
            CreateKeyRequest { roles: vec!["readers".into()], ..service_key("four", vec![]) };
        refused(b.admin().call(holder).await).with(Code::NotFound, ErrorReason::RoleNotFound);
        // A replica that starts later finds them so.
        let later = d.replica().await;
        expect(&later, DecisionReason::NoGrant).await;
    });
}

#[test]
fn predefined_roles_are_in_every_ledger_and_nobody_changes_them() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let roles = admin.call(ListRolesRequest::default()).await.unwrap().roles;
        let names: Vec<&str> = roles.iter().map(|r| r.name.as_str()).collect();
        let expected = ["admin", "key-manager", "auditor", "log-writer", "log-reader", "verifier"];
        assert_eq!(names, expected);
        assert!(roles.iter().all(|r| r.predefined && !r.description.is_empty()));
        for name in expected {
            refused(admin.call(role(name, vec![grant("audit.read", "logs/*")])).await)
                .with(Code::AlreadyExists, ErrorReason::RoleExists);
            refused(admin.call(retire_role(name)).await)
                .with(Code::FailedPrecondition, ErrorReason::RolePredefined);
        }
        // A key manager issues what reads and writes logs, and no administrator.
        let manager = CreateKeyRequest {
            roles: vec!["key-manager".into()],
            ..service_key("manager", vec![])
        };
        let manager = replica.caller(&admin.call(manager).await.unwrap().token);
        let with_role = |role: &str| CreateKeyRequest {
            roles: vec![role.into()],
            ..service_key("robot", vec![])
        };
        for given in ["log-writer", "log-reader(error)", "verifier"] {
            manager.call(with_role(given)).await.unwrap();
        }
        for refusal in ["admin", "auditor"] {
            refused(manager.call(with_role(refusal)).await)
                .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        }
        refused(manager.call(ListEventsRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let names = |p: Vec<Permission>| p.into_iter().map(|p| p.name).collect::<Vec<_>>();
        let permissions = admin.call(ListPermissionsRequest::default()).await.unwrap().permissions;
        assert!(names(permissions).contains(&"keys.rotate".to_string()));
    });
}

#[test]
fn a_batch_of_checks_answers_each_in_its_place() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let keys = keys(&admin).await;
        let mut requests: Vec<_> = keys.iter().map(|(_, token)| check(token)).collect();
        requests.push(check("no token at all"));
        let mark = d.mark().await;
        let batch = BatchVerifyKeysRequest { requests: requests.clone() };
        let together = admin.call(batch).await.unwrap().responses;
        let left = d.since(&mark).await.remove(&1).unwrap();
        assert_eq!(left.len(), requests.len(), "a use for each");
        for (request, together) in requests.into_iter().zip(together) {
            let alone = admin.call(request).await.unwrap();
            let unplaced =
                |v: VerifyKeyResponse| VerifyKeyResponse { position: None, index: None, ..v };
            assert_eq!(unplaced(alone), unplaced(together));
        }
    });
}

#[test]
fn a_token_leads_to_its_key_whatever_became_of_it() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let new = admin.call(rotate(&key_id, 0)).await.unwrap().token;
        let lookup = async |token: &str| {
            let found = admin.call(LookupKeyRequest { token: token.into() }).await.unwrap();
            assert_eq!(found.key.as_ref().unwrap().key_id, key_id);
            (found.version, found.reason())
        };
        assert_eq!(lookup(&new).await, (2, DecisionReason::Granted));
        admin.call(revoke(&key_id)).await.unwrap();
        assert_eq!(lookup(&new).await, (2, DecisionReason::Revoked));
        // Another secret of a key that exists, and a text that is no token.
        let parsed = Token::parse(&new).unwrap();
        let secret = keyledger_ledger::token::Secret::new([9; 32]);
        let wrong = Token { key_id: parsed.key_id, secret }.reveal();
        for token in [wrong.as_str(), "klk_", ""] {
            refused(admin.call(LookupKeyRequest { token: token.into() }).await)
                .with(Code::NotFound, ErrorReason::KeyNotFound);
        }
    });
}
