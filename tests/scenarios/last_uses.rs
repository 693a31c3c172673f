//! When keys were last used: shown per secret, and asked for in filters, whether or not the index of uses has come so far.

use std::collections::BTreeSet;

use keyledger_proto::entry::{Decision, RevocationKind};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::event_pages::until_indexed;
use crate::harness::*;

/// When the use that a verdict names was recorded.
async fn time_of_use(caller: &Caller, verdict: &VerifyKeyResponse) -> Option<Timestamp> {
    let (position, index) = (verdict.position, verdict.index);
    let request = GetEventRequest { position, index, ..Default::default() };
    caller.call(request).await.unwrap().event.unwrap().time
}

async fn time_of_change(caller: &Caller, position: Option<u64>) -> Option<Timestamp> {
    let request = GetEventRequest { position, ..Default::default() };
    caller.call(request).await.unwrap().event.unwrap().time
}

/// Last uses of a key: of each secret, and in all. GetKey and ListKeys say the same.
async fn last_uses(caller: &Caller, key_id: &str) -> (Vec<Option<Timestamp>>, Option<Timestamp>) {
    let get = GetKeyRequest { key_id: key_id.into(), as_of: None, include_traces: false };
    let key = caller.call(get).await.unwrap().key.unwrap();
    let listed = caller.call(ListKeysRequest::default()).await.unwrap().keys;
    assert_eq!(listed.iter().find(|k| k.key_id == key_id), Some(&key));
    (key.versions.iter().map(|v| v.last_use_time).collect(), key.last_use_time)
}

#[test]
fn the_last_use_of_each_secret_is_seen_everywhere_at_once_and_for_ever() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        for replica in [&a, &b] {
            assert_eq!(last_uses(&replica.admin(), &key_id).await, (vec![None], None));
        }
        let rotated = admin.call(rotate(&key_id, 600)).await.unwrap();
        admin.call(check(&made.token)).await.unwrap();
        let new = admin.call(check(&rotated.token)).await.unwrap();
        let old = b.admin().call(check(&made.token)).await.unwrap();
        // What is denied is no use that counts, and neither is a wrong call of somebody else.
        let denied = VerifyKeyRequest { permission: "audit.write".into(), ..check(&made.token) };
        assert_eq!(admin.call(denied).await.unwrap().decision(), Decision::Deny);
        let (old, new) = (time_of_use(&admin, &old).await, time_of_use(&admin, &new).await);
        assert!(old.is_some() && old != new);
        let expected = (vec![old, new], old);
        for replica in [&a, &b] {
            assert_eq!(last_uses(&replica.admin(), &key_id).await, expected);
        }
        until_indexed(d).await;
        let later = d.replica().await;
        for replica in [&a, &b, &later] {
            assert_eq!(last_uses(&replica.admin(), &key_id).await, expected);
        }
        // Some that the index has, and one that it may not have yet.
        let new = admin.call(check(&rotated.token)).await.unwrap();
        let new = time_of_use(&admin, &new).await;
        for replica in [&a, &b, &later] {
            assert_eq!(last_uses(&replica.admin(), &key_id).await, (vec![old, new], new));
        }
        // Of the past only the entries tell, and no longer how it was used.
        let head = admin.call(ListKeysRequest::default()).await.unwrap().position.unwrap();
        let as_of = Some(get_key_request::AsOf::AsOfPosition(head));
        let key = admin
            .call(GetKeyRequest { key_id, as_of, include_traces: false })
            .await
            .unwrap()
            .key
            .unwrap();
        assert_eq!(key.last_use_time, None);
    });
}

#[test]
fn a_call_and_a_change_are_uses_of_the_key_that_they_are_made_with() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let clerk = vec![grant("keys.suspend", "keys/*"), grant("keys.verify", "keys")];
        let clerk = admin.call(service_key("clerk", clerk)).await.unwrap();
        let clerk_id = clerk.key.unwrap().key_id;
        let clerk = replica.caller(&clerk.token);
        let key = admin.call(user_key("alice@example.com")).await.unwrap();
        let last = async || last_uses(&admin, &clerk_id).await.1;
        refused(clerk.call(ListKeysRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        assert_eq!(last().await, None);
        let verdict = clerk.call(check("no token at all")).await.unwrap();
        assert_eq!(last().await, time_of_use(&admin, &verdict).await);
        let suspended = clerk.call(suspend(&key.key.unwrap().key_id)).await.unwrap();
        let changed = time_of_change(&admin, suspended.position).await;
        assert_eq!(last().await, changed);
        until_indexed(d).await;
        assert_eq!(last().await, changed);
        clerk.call(WhoAmIRequest {}).await.unwrap();
        assert!(![None, changed].contains(&last().await));
    });
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
fn keys_that_nobody_uses_any_more_are_found_and_ended() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let mut made = vec![];
        for name in ["never", "before", "before-and-after", "before-by-both", "ended"] {
            let key = service_key(name, vec![grant("audit.read", "logs/*")]);
            let key = admin.call(key).await.unwrap();
            made.push((key.key.unwrap().key_id, key.token));
        }
        for (_, token) in &made[1..] {
            admin.call(check(token)).await.unwrap();
        }
        b.admin().call(check(&made[3].1)).await.unwrap();
        admin.call(revoke(&made[4].0)).await.unwrap();
        let late = admin.call(service_key("late", vec![])).await.unwrap().key.unwrap();
        let since = late.create_time;
        admin.call(check(&made[2].1)).await.unwrap();
        let unused = KeyFilter { unused_since: since, ..Default::default() };
        let active = KeyFilter { state: KeyState::Active as i32, ..unused.clone() };
        let set = |some: &[usize]| -> BTreeSet<String> {
            some.iter().map(|i| made[*i].0.clone()).collect()
        };
        for indexed in [false, true] {
            if indexed {
                until_indexed(d).await;
            }
            for replica in [&a, &b] {
                assert_eq!(found(&replica.admin(), unused.clone()).await, set(&[0, 1, 3, 4]));
                assert_eq!(found(&replica.admin(), active.clone()).await, set(&[0, 1, 3]));
            }
        }
        let request = RevokeKeysRequest {
            filter: Some(unused),
            kind: RevocationKind::Unused as i32,
            reason: "nobody has used it".into(),
            ..Default::default()
        };
        let ended = admin.call(request).await.unwrap();
        assert_eq!(ended.key_ids.into_iter().collect::<BTreeSet<_>>(), set(&[0, 1, 3]));
        assert_eq!(admin.call(check(&made[2].1)).await.unwrap().decision(), Decision::Allow);
    });
}

#[test]
fn keys_are_found_by_what_they_could_do() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        admin.call(role("readers", vec![grant("audit.read", "logs/error")])).await.unwrap();
        let with_role = |name: &str, role: &str| CreateKeyRequest {
            roles: vec![role.into()],
            ..service_key(name, vec![])
        };
        let give_only = entry::Grant { give_only: true, ..grant("audit.read", "logs/**") };
        let mut ids = vec![];
        for request in [
            user_key("alice@example.com"),
            with_role("by-role", "readers"),
            with_role("by-category", "log-reader(warning)"),
            service_key("giver", vec![give_only]),
            service_key("suspended", vec![grant("audit.*", "logs/*")]),
        ] {
            ids.push(admin.call(request).await.unwrap().key.unwrap().key_id);
        }
        admin.call(suspend(&ids[4])).await.unwrap();
        let me = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap().key_id;
        let filter = |permission: &str, resource: &str| KeyFilter {
            permission_held: Some(PermissionOnResource {
                permission: permission.into(),
                resource: resource.into(),
            }),
            ..Default::default()
        };
        let set = |some: &[usize]| -> BTreeSet<String> {
            some.iter().map(|i| ids[*i].clone()).chain([me.clone()]).collect()
        };
        let error = filter("audit.read", "logs/error");
        let at = admin.call(ListKeysRequest::default()).await.unwrap().position.unwrap();
        assert_eq!(found(&admin, error.clone()).await, set(&[0, 1, 4]));
        assert_eq!(found(&admin, filter("audit.read", "logs/warning")).await, set(&[2, 4]));
        let active = KeyFilter { state: KeyState::Active as i32, ..error.clone() };
        assert_eq!(found(&admin, active).await, set(&[0, 1]));
        // By the role as it is now; and as it was.
        admin.call(retire_role("readers")).await.unwrap();
        assert_eq!(found(&admin, error.clone()).await, set(&[0, 4]));
        let request = ListKeysRequest {
            filter: Some(error),
            as_of: Some(list_keys_request::AsOf::AsOfPosition(at)),
            ..Default::default()
        };
        let then = admin.call(request).await.unwrap().keys.into_iter().map(|k| k.key_id);
        assert_eq!(then.collect::<BTreeSet<_>>(), set(&[0, 1, 4]));
        let request =
            ListKeysRequest { filter: Some(filter("audit.*", "logs/**/x")), ..Default::default() };
        let expected = ["filter.permission_held.permission", "filter.permission_held.resource"];
        assert_eq!(refused(admin.call(request).await).fields, expected);
    });
}
