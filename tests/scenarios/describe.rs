//! Keys that explain themselves: what a document says is what verdicts and lists say, and what its reader may not read is
//! withheld.

use std::collections::BTreeMap;

use keyledger_proto::document::words::covers;
use keyledger_proto::entry::{Decision, Grant, Restrictions};
use keyledger_proto::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tonic::Code;

use crate::harness::*;

fn describe(key_id: &str) -> DescribeKeyRequest {
    DescribeKeyRequest { key_id: key_id.into(), format: DocumentFormat::Json as i32 }
}

/// A document as a program reads it: from its JSON.
async fn json(caller: &Caller, key_id: &str) -> serde_json::Value {
    let reply = caller.call(describe(key_id)).await.unwrap();
    assert_eq!(reply.media_type, "application/json");
    serde_json::from_str(&reply.document).unwrap()
}

/// All that DescribeLedger gives.
async fn whole(
    caller: &Caller,
    request: DescribeLedgerRequest,
) -> (LedgerDocument, Vec<KeyDocument>) {
    let mut stream = caller.stream(request).await.unwrap();
    let (mut ledger, mut keys) = (None, vec![]);
    while let Some(reply) = stream.message().await.unwrap() {
        assert_eq!(reply.ledger.is_some(), ledger.is_none(), "the ledger comes first, and once");
        ledger = ledger.or(reply.ledger);
        keys.extend(reply.keys);
    }
    (ledger.unwrap(), keys)
}

const ROLES: [&str; 7] =
    ["one", "two", "retired", "auditor", "key-manager", "log-reader(error)", "verifier"];
const PATTERNS: [&str; 9] = [
    "audit.read",
    "audit.*",
    "keys.read",
    "keys.*",
    "roles.read",
    "billing.read",
    "billing.*",
    "*",
    "ledgers.open",
];
const RESOURCES: [&str; 9] =
    ["logs/error", "logs/*", "logs/**", "keys", "keys/**", "**", "*/error", "roles/x", "a/*/b"];

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let permissions = prop::collection::vec(prop::sample::select(&PATTERNS[..]), 1..3);
    let one = (permissions, prop::sample::select(&RESOURCES[..]), prop::bool::weighted(0.2));
    let grant = |(permissions, resource, give_only): (Vec<&str>, &str, bool)| Grant {
        give_only,
        ..grant_of(&permissions, resource)
    };
    prop::collection::vec(one.prop_map(grant), 0..4)
}

/// Random rights, and whether the key is suspended or revoked afterwards.
fn a_key() -> impl Strategy<Value = (CreateKeyRequest, u8)> {
    let roles = prop::collection::btree_set(prop::sample::select(&ROLES[..]), 0..3);
    (grants(), roles, prop::bool::weighted(0.2), 0u8..20).prop_map(
        |(grants, roles, limited, end)| {
            let restrictions = limited.then(|| Restrictions {
                networks: vec!["198.51.100.0/24".into()],
                ..Restrictions::default()
            });
            let roles = roles.into_iter().map(String::from).collect();
            (CreateKeyRequest { roles, restrictions, ..service_key("random", grants) }, end)
        },
    )
}

/// A thousand keys, as they were made, twenty at once: ids and tokens.
async fn a_thousand_keys(admin: &Caller) -> Vec<(String, String)> {
    let mut runner = TestRunner::deterministic();
    let wanted: Vec<_> =
        (0..1_000).map(|_| a_key().new_tree(&mut runner).unwrap().current()).collect();
    let mut made = vec![];
    for some in wanted.chunks(20) {
        let calls = some.iter().map(|(request, end)| async move {
            let reply = admin.call(request.clone()).await.unwrap();
            let key_id = reply.key.unwrap().key_id;
            match end {
                0 => drop(admin.call(suspend(&key_id)).await.unwrap()),
                1 => drop(admin.call(revoke(&key_id)).await.unwrap()),
                _ => {}
            }
            (key_id, reply.token)
        });
        made.extend(futures_util::future::join_all(calls).await);
    }
    made
}

/// For each permission of the catalogue the resources that it is asked for on, made concrete, and some more.
async fn questions(admin: &Caller) -> Vec<(String, String)> {
    let list = ListPermissionsRequest { page_size: 1_000, ..Default::default() };
    let permissions = admin.call(list).await.unwrap().permissions;
    assert!(permissions.iter().any(|p| p.name == "billing.read"), "the registered ones too");
    let mut questions = vec![];
    for permission in permissions {
        let concrete = |resource: &String| {
            let parts =
                resource.split('/').map(|part| match part.starts_with('{') || part == "**" {
                    true => "error",
                    false => part,
                });
            parts.collect::<Vec<_>>().join("/")
        };
        let mut resources: Vec<String> = permission.resources.iter().map(concrete).collect();
        resources.extend(["logs/error".into(), "a/x/b".into()]);
        resources.sort();
        resources.dedup();
        questions.extend(resources.into_iter().map(|r| (permission.name.clone(), r)));
    }
    questions
}

async fn who(
    admin: &Caller,
    permission: &str,
    resource: &str,
) -> BTreeMap<String, (Grant, String)> {
    let (mut found, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = WhoHasAccessRequest {
            permission: permission.into(),
            resource: resource.into(),
            page_size: 1_000,
            page_token,
            as_of: None,
        };
        let page = admin.call(request).await.unwrap();
        for access in page.access {
            let by = (access.matched_grant.unwrap(), access.matched_role);
            found.insert(access.key.unwrap().key_id, by);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// By which keys VerifyKey allows it, among these.
async fn verified(
    admin: &Caller,
    keys: &[(String, String)],
    permission: &str,
    resource: &str,
) -> Vec<bool> {
    let mut allowed = vec![];
    for some in keys.chunks(100) {
        let requests = some.iter().map(|(_, token)| VerifyKeyRequest {
            permission: permission.into(),
            resource: resource.into(),
            client: Some(Client { address: "198.51.100.7".into(), ..Default::default() }),
            ..check(token)
        });
        let batch = BatchVerifyKeysRequest { requests: requests.collect() };
        let verdicts = admin.call(batch).await.unwrap().responses;
        allowed.extend(verdicts.iter().map(|v| v.decision == Decision::Allow as i32));
    }
    allowed
}

#[test]
fn describe_key_who_has_access_and_verify_key_agree_for_every_permission_of_1000_random_keys() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        for (name, grants) in [
            ("one", vec![grant("audit.*", "logs/*"), grant("billing.read", "**")]),
            ("two", vec![grant_of(&["keys.read", "roles.*"], "**")]),
            ("retired", vec![grant("*", "**")]),
        ] {
            admin.call(role(name, grants)).await.unwrap();
        }
        admin.call(register("billing", &["billing.read", "billing.write"])).await.unwrap();
        let keys = a_thousand_keys(&admin).await;
        admin.call(retire_role("retired")).await.unwrap();

        let mut said: Vec<(bool, Vec<Ability>)> = vec![];
        for (key_id, _) in &keys {
            let json = json(&admin, key_id).await;
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
            let none = vec![];
            let abilities = json["abilities"].as_array().unwrap_or(&none).iter().map(|a| Ability {
                permission: text(&a["permission"]),
                resource: text(&a["resource"]),
                give_only: a["giveOnly"].as_bool().unwrap_or(false),
                role: text(&a["role"]),
                ..Ability::default()
            });
            said.push((json["accepted"].as_bool().unwrap_or(false), abilities.collect()));
        }
        let (mut yes, mut no) = (0, 0);
        for (permission, resource) in questions(&admin).await {
            let listed = who(&admin, &permission, &resource).await;
            let allowed = verified(&admin, &keys, &permission, &resource).await;
            for (((key_id, _), (accepted, abilities)), allowed) in
                keys.iter().zip(&said).zip(allowed)
            {
                let what = format!("{permission} on {resource} by {key_id}: {abilities:?}");
                let by = abilities.iter().find(|a| *accepted && covers(a, &permission, &resource));
                assert_eq!(by.is_some(), allowed, "VerifyKey: {what}");
                let listed = listed.get(key_id);
                assert_eq!(by.is_some(), listed.is_some(), "WhoHasAccess: {what}");
                if let (Some(by), Some((grant, role))) = (by, listed) {
                    assert_eq!((&by.resource, &by.role), (&grant.resource, role), "{what}");
                    assert!(grant.permissions.contains(&by.permission), "{what}");
                }
                if allowed { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 5_000 && no > 5_000, "{yes} allowed, {no} not");

        // The whole ledger says of each key what the key says of itself.
        let (ledger, documents) = whole(&admin, DescribeLedgerRequest::default()).await;
        assert_eq!(ledger.keys, documents.len() as u64);
        let documents: BTreeMap<String, KeyDocument> =
            documents.into_iter().map(|d| (d.key.clone().unwrap().key_id, d)).collect();
        for ((key_id, _), (accepted, abilities)) in keys.iter().zip(&said) {
            let document = &documents[key_id];
            assert_eq!((document.accepted, document.abilities.len()), (*accepted, abilities.len()));
            for (one, other) in document.abilities.iter().zip(abilities) {
                assert_eq!((&one.permission, &one.resource), (&other.permission, &other.resource));
            }
        }
    });
}

#[test]
fn a_key_tells_its_whole_story_and_the_checkpoint_at_which_it_was_true() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        admin.call(role("readers", vec![grant("audit.read", "logs/**")])).await.unwrap();
        let request = CreateKeyRequest {
            roles: vec!["readers".into()],
            responsible: "carol@example.com".into(),
            restrictions: Some(Restrictions { max_uses: 9, ..Restrictions::default() }),
            approval_ref: "CHG-17".into(),
            ..service_key("robot/export", vec![grant("keys.read", "keys")])
        };
        let made = admin.call(request).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        admin.call(check(&made.token)).await.unwrap();
        admin.call(rotate(&key_id, 60)).await.unwrap();
        let document = admin.call(describe(&key_id)).await.unwrap().key.unwrap();
        assert_eq!(document.summary, "The key of robot/export is accepted.");
        let sentences: Vec<&str> = document.abilities.iter().map(|a| a.sentence.as_str()).collect();
        assert_eq!(
            sentences,
            [
                "See keys, what they may do, and who has access to what, on keys.",
                "Read, search and stream the log of a category, on everything below logs, by the role readers.",
            ]
        );
        assert_eq!(document.conditions, ["At most 9 allowed uses in all, of which 8 are left."]);
        assert_eq!(document.roles[0].description, "those who look at logs");
        let key = document.key.unwrap();
        assert_eq!(key.responsible, "carol@example.com");
        assert!(key.last_use_time.is_some() && key.versions[0].last_use_time.is_some());
        let history = document.history.unwrap().entries;
        let types: Vec<&str> = history.iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!(types, ["key.rotated", "key.created"]);
        assert_eq!(history[0].reason, "monthly rotation");
        assert_eq!(history[1].approval_ref, "CHG-17");
        assert!(history.iter().all(|e| e.caller.is_some() && !e.caller_key_id.is_empty()));
        let usage = document.usage.unwrap().usage.unwrap();
        assert_eq!((usage.allowed, usage.refused), (1, 0));
        assert_eq!(usage.by_resource.unwrap().counts[0].value, "logs/error");
        assert_eq!(usage.by_network.unwrap().counts[0].value, "203.0.113.0/24");
        let moment = document.moment.unwrap();
        assert!(moment.checkpoint_size >= moment.position.unwrap());
        assert!(moment.checkpoint.lines().count() > 3, "{}", moment.checkpoint);
        assert!(moment.verifier_key.starts_with("keys.example.test/default+"));
        for (format, begin) in [(1, "# runs the nightly export\n"), (2, "<!doctype html>\n")] {
            let request = DescribeKeyRequest { key_id: key_id.clone(), format };
            let written = admin.call(request).await.unwrap().document;
            assert!(
                written.starts_with(begin) && written.contains("monthly rotation"),
                "{written}"
            );
        }
    });
}

#[test]
fn what_a_reader_of_keys_may_not_read_is_withheld_and_said_to_be() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        admin.call(role("readers", vec![grant("billing.read", "x")])).await.unwrap();
        admin.call(register("billing", &["billing.read"])).await.unwrap();
        let target = CreateKeyRequest {
            roles: vec!["readers".into()],
            reason: "a reason of the log".into(),
            ..service_key("target", vec![])
        };
        let target = admin.call(target).await.unwrap().key.unwrap().key_id;
        admin.call(rotate(&target, 0)).await.unwrap();
        let reader = async |name: &str, grants: Vec<Grant>| {
            let made = admin.call(service_key(name, grants)).await.unwrap();
            replica.caller(&made.token)
        };
        let keys = || vec![grant("keys.read", "keys"), grant("keys.read", "keys/**")];
        let narrow = reader("narrow", keys()).await;
        for format in 1..4 {
            let request = DescribeKeyRequest { key_id: target.clone(), format };
            let reply = narrow.call(request).await.unwrap();
            for secret in [
                "a reason of the log",
                "monthly rotation",
                "those who look at logs",
                "Lets do what",
            ] {
                assert!(!reply.document.contains(secret), "{}", reply.document);
                assert!(!format!("{:?}", reply.key).contains(secret), "{:?}", reply.key);
            }
            let document = reply.key.unwrap();
            assert!(document.history.unwrap().withheld);
            assert_eq!(document.abilities[0].role, "readers", "what a key may do is told");
        }
        let list = reader("list", vec![grant("keys.read", "keys")]).await;
        let (_, documents) = whole(&list, DescribeLedgerRequest::default()).await;
        assert!(documents.iter().all(|d| d.usage.as_ref().unwrap().withheld));
        let (ledger, documents) = whole(&narrow, DescribeLedgerRequest::default()).await;
        assert!(documents.iter().all(|d| !d.usage.as_ref().unwrap().withheld));
        assert!(ledger.roles_withheld && ledger.roles.is_empty());
        assert!(!ledger.permissions.iter().any(|p| p.name.starts_with("billing")));
        assert!(documents.iter().all(|d| d.history.as_ref().unwrap().withheld));

        let mut wide = keys();
        wide.extend([
            grant("audit.read", "logs/keyledger/lifecycle"),
            grant("roles.read", "roles"),
        ]);
        let wide = reader("wide", wide).await;
        let document = wide.call(describe(&target)).await.unwrap().key.unwrap();
        assert_eq!(document.history.unwrap().entries[1].reason, "a reason of the log");
        assert_eq!(document.roles[0].description, "those who look at logs");
        assert_eq!(document.abilities[0].meaning, "Lets do what billing read means");

        // Who may see one key sees whose it is, and not who the others are.
        let one = vec![
            grant("keys.read", &format!("keys/{target}")),
            grant("audit.read", "logs/keyledger/lifecycle"),
        ];
        let one = reader("one", one).await;
        let document = one.call(describe(&target)).await.unwrap().key.unwrap();
        assert!(document.history.unwrap().entries.iter().all(|e| e.caller.is_none()));
        refused(one.stream(DescribeLedgerRequest::default()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn more_keys_than_were_allowed_are_refused_and_ended_ones_can_be_left_out() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let mut ids = vec![];
        for name in ["a", "b", "c"] {
            ids.push(admin.call(service_key(name, vec![])).await.unwrap().key.unwrap().key_id);
        }
        admin.call(revoke(&ids[0])).await.unwrap();
        let request = |live_only, max_keys| DescribeLedgerRequest { live_only, max_keys };
        let refusal = refused(admin.stream(request(false, 3)).await);
        assert_eq!((&*refusal.metadata["keys"], &*refusal.metadata["most"]), ("4", "3"));
        refusal.with(Code::FailedPrecondition, ErrorReason::TooManyKeys);
        let (ledger, keys) = whole(&admin, request(true, 3)).await;
        assert_eq!((ledger.keys, ledger.left_out, keys.len()), (3, 1, 3));
        assert!(keys.iter().all(|k| k.key.as_ref().unwrap().key_id != ids[0]));
    });
}
