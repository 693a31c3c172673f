//! Many keys at once: found by what they are, summed up by owner, and ended together.

use std::collections::BTreeSet;

use keyledger_proto::entry::{Label, RevocationKind};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

fn person(name: &str) -> Option<Owner> {
    Some(Owner { owner: Some(owner::Owner::User(name.into())) })
}

fn service(name: &str) -> Option<Owner> {
    Some(Owner { owner: Some(owner::Owner::Service(name.into())) })
}

async fn found(caller: &Caller, filter: KeyFilter) -> BTreeSet<String> {
    let (mut ids, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let filter = Some(filter.clone());
        let request = ListKeysRequest { page_size: 2, page_token, filter, as_of: None };
        let page = caller.call(request).await.unwrap();
        ids.extend(page.keys.into_iter().map(|k| k.key_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return ids;
        }
    }
}

#[test]
fn keys_are_found_by_what_they_are() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let id = async |request: CreateKeyRequest| {
            admin.call(request).await.unwrap().key.unwrap().key_id
        };
        let team = Label { name: "team".into(), value: "billing".into() };
        let alice = [
            id(user_key("alice@example.com")).await,
            id(CreateKeyRequest { labels: vec![team.clone()], ..user_key("alice@example.com") })
                .await,
        ];
        let bob = id(user_key("bob@example.com")).await;
        let robot = CreateKeyRequest {
            labels: vec![team.clone()],
            responsible: "alice@example.com".into(),
            roles: vec!["log-reader(error)".into()],
            ..service_key("robot/export", vec![])
        };
        let robot = id(robot).await;
        admin.call(suspend(&bob)).await.unwrap();
        admin.call(revoke(&alice[0])).await.unwrap();
        let set = |ids: &[&String]| ids.iter().map(|id| id.to_string()).collect::<BTreeSet<_>>();
        let me = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap();
        let soon =
            me.create_time.map(|t| prost_types::Timestamp { seconds: t.seconds + 7200, ..t });
        let any = KeyFilter::default;
        let state = |state: KeyState| KeyFilter { state: state as i32, ..any() };
        for (filter, expected) in [
            (
                KeyFilter { owner: person("alice@example.com"), ..any() },
                set(&[&alice[0], &alice[1]]),
            ),
            (KeyFilter { owner: person("nobody@example.com"), ..any() }, set(&[])),
            (KeyFilter { owner: service("robot/export"), ..any() }, set(&[&robot])),
            (KeyFilter { responsible: "alice@example.com".into(), ..any() }, set(&[&robot])),
            (KeyFilter { label: Some(team.clone()), ..any() }, set(&[&alice[1], &robot])),
            (
                KeyFilter {
                    label: Some(team.clone()),
                    owner: person("alice@example.com"),
                    ..any()
                },
                set(&[&alice[1]]),
            ),
            (KeyFilter { role: "log-reader(error)".into(), ..any() }, set(&[&robot])),
            (KeyFilter { creator_key_id: bob.clone(), ..any() }, set(&[])),
            (state(KeyState::Suspended), set(&[&bob])),
            (state(KeyState::Revoked), set(&[&alice[0]])),
            (KeyFilter { expires_before: soon, ..any() }, set(&[&alice[0], &alice[1], &bob])),
        ] {
            assert_eq!(found(&admin, filter.clone()).await, expected, "{filter:?}");
        }
        // A page token belongs to its filter.
        let first = ListKeysRequest { page_size: 1, ..Default::default() };
        let page_token = admin.call(first).await.unwrap().next_page_token;
        let other = Some(state(KeyState::Active));
        let request = ListKeysRequest { page_token, filter: other, ..Default::default() };
        refused(admin.call(request).await)
            .with(Code::InvalidArgument, ErrorReason::PageTokenInvalid);

        let owners = admin.call(ListOwnersRequest::default()).await.unwrap().owners;
        let alice = owners.iter().find(|o| o.owner == person("alice@example.com")).unwrap();
        assert_eq!((alice.keys, &alice.grants), (1, &vec![grant("audit.read", "logs/error")]));
        assert!(!owners.iter().any(|o| o.owner == person("bob@example.com")), "bob's is suspended");
        let robot = owners.iter().find(|o| o.owner == service("robot/export")).unwrap();
        assert_eq!(robot.roles, ["log-reader(error)"]);
    });
}

#[test]
fn all_keys_of_a_leaver_end_together_and_those_made_for_others_are_named() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let manager = CreateKeyRequest {
            grants: vec![grant("keys.*", "**"), grant("audit.read", "logs/**")],
            expiry: Some(create_key_request::Expiry::Ttl(seconds(86_400))),
            ..user_key("leaver@example.com")
        };
        let manager = admin.call(manager).await.unwrap();
        let caller = replica.caller(&manager.token);
        let own = caller.call(user_key("leaver@example.com")).await.unwrap();
        let others = caller.call(user_key("stays@example.com")).await.unwrap();
        let others = others.key.unwrap().key_id;
        let ids: BTreeSet<String> =
            [manager.key.unwrap().key_id, own.key.unwrap().key_id].into_iter().collect();
        let request = RevokeKeysRequest {
            filter: Some(KeyFilter { owner: person("leaver@example.com"), ..Default::default() }),
            kind: RevocationKind::OwnerLeft as i32,
            reason: "left the company".into(),
            validate_only: true,
            request_id: "0198c5a0-0000-8000-8000-000000000009".into(),
            ..Default::default()
        };
        let tried = admin.call(request.clone()).await.unwrap();
        let set = |ids: Vec<String>| ids.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(set(tried.key_ids), ids);
        caller.call(WhoAmIRequest {}).await.unwrap();

        // Who may revoke only one of them is told of the other.
        let one = ids.first().unwrap();
        let may_end_one = grant("keys.revoke", &format!("keys/{one}"));
        let clerk = vec![may_end_one.clone(), grant("keys.read", "keys")];
        let clerk = admin.call(service_key("clerk", clerk)).await.unwrap();
        let partly = replica.caller(&clerk.token).call(request.clone()).await.unwrap();
        assert_eq!(partly.key_ids, std::slice::from_ref(one));
        // Who may not read keys learns of none that it may not end, nor of those made for others.
        let blind = admin.call(service_key("blind", vec![may_end_one])).await.unwrap();
        let blindly = replica.caller(&blind.token).call(request.clone()).await.unwrap();
        assert_eq!(blindly.key_ids, std::slice::from_ref(one));
        assert_eq!((blindly.not_allowed, blindly.made_for_others), (vec![], vec![]));
        assert_eq!(partly.not_allowed, [ids.last().unwrap().clone()]);

        let request = RevokeKeysRequest { validate_only: false, ..request };
        let ended = admin.call(request.clone()).await.unwrap();
        assert_eq!((set(ended.key_ids), ended.more), (ids.clone(), false));
        assert_eq!(ended.made_for_others, std::slice::from_ref(&others));
        refused(caller.call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        for key_id in ids {
            let key = admin
                .call(GetKeyRequest { key_id, as_of: None, include_traces: false })
                .await
                .unwrap()
                .key
                .unwrap();
            assert_eq!(key.revocation.unwrap().kind(), RevocationKind::OwnerLeft);
        }
        let get = GetKeyRequest { key_id: others, as_of: None, include_traces: false };
        assert_eq!(admin.call(get).await.unwrap().key.unwrap().state(), KeyState::Active);
        // Again: there is nothing left to end.
        assert!(admin.call(request.clone()).await.unwrap().key_ids.is_empty());
        let everything = RevokeKeysRequest { filter: Some(KeyFilter::default()), ..request };
        let refusal = refused(admin.call(everything).await);
        assert_eq!(refusal.fields, ["filter"]);
    });
}
