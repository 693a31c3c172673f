//! Keys that were made elsewhere: imported as hashes, accepted, moved to our own form at their first use.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::entry::{Decision, DecisionReason, Restrictions};
use keyledger_proto::*;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::harness::*;

const FAST: &str = "acme_live_7f9c2ba4e88f827d616045507605853e";
const SLOW: &str = "acme.secret.d73b80393f6f7c5bd1a1ff4a7a1d3c5e";
/// How many bytes of [`SLOW`] are known in the clear.
const PREFIX: usize = 15;

/// Imports both tokens for a person; returns the ids of their keys.
async fn import_both(admin: &Caller) -> [String; 2] {
    let person = || user_import("alice@example.com");
    let items = vec![sha256_of(FAST, person()), argon2id_of(SLOW, PREFIX, person())];
    let results = admin.call(import(items)).await.unwrap().results;
    let results: [ImportResult; 2] = results.try_into().unwrap();
    results.map(|result| {
        assert_eq!((result.error(), result.message.as_str()), (ErrorReason::Unspecified, ""));
        assert!(result.position.is_some());
        result.key_id
    })
}

async fn reason(replica: &Replica, token: &str) -> DecisionReason {
    replica.admin().call(check(token)).await.unwrap().reason()
}

/// Types of the lifecycle entries of a key, oldest first.
async fn life(caller: &Caller, key_id: &str) -> Vec<String> {
    let request = ListEventsRequest {
        key_id: key_id.into(),
        category: "keyledger/lifecycle".into(),
        ..Default::default()
    };
    let events = caller.call(request).await.unwrap().events;
    events.into_iter().rev().map(|event| event.r#type).collect()
}

async fn digests_left(d: &Deployment) -> i64 {
    let count = "SELECT count(*) FROM imported_secrets";
    d.superuser().await.query_one(count, &[]).await.unwrap().get(0)
}

#[test]
fn imported_keys_are_accepted_on_every_replica_and_any_other_token_is_not() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let ids = import_both(&a.admin()).await;
        // The other replica doesn't know them yet: it finds them when it is asked.
        for (token, key_id) in [FAST, SLOW].into_iter().zip(&ids) {
            for replica in [&b, &a, &b] {
                let verdict = replica.admin().call(check(token)).await.unwrap();
                assert_eq!(verdict.reason(), DecisionReason::Granted);
                assert_eq!(&verdict.key_id, key_id);
            }
            let got = GetKeyRequest { key_id: key_id.clone(), as_of: None, include_traces: false };
            let key = b.admin().call(got).await.unwrap().key.unwrap();
            assert_eq!(
                (key.state(), key.purpose.as_str()),
                (KeyState::Active, "export error logs")
            );
            let owner = owner::Owner::User("alice@example.com".into());
            assert_eq!(key.owner.unwrap().owner, Some(owner));
            let found = LookupKeyRequest { token: token.into() };
            let found = a.admin().call(found).await.unwrap();
            assert_eq!((&found.key.unwrap().key_id, found.version), (key_id, 1));
        }
        let with_prefix = format!("{}ff", &SLOW[..SLOW.len() - 2]);
        for (wrong, expected) in [
            (&FAST[..FAST.len() - 1], DecisionReason::UnknownKey),
            (&with_prefix, DecisionReason::WrongSecret),
            (&SLOW[..PREFIX], DecisionReason::WrongSecret),
            (&SLOW[..PREFIX - 1], DecisionReason::UnknownKey),
            ("nobody's", DecisionReason::UnknownKey),
        ] {
            assert_eq!(reason(&a, wrong).await, expected, "{wrong}");
            refused(a.admin().call(LookupKeyRequest { token: wrong.into() }).await)
                .with(Code::NotFound, ErrorReason::KeyNotFound);
        }
    });
}

#[test]
fn the_first_use_moves_a_key_to_our_own_form_once_however_many_ask() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let ids = import_both(&a.admin()).await;
        assert_eq!(digests_left(d).await, 2);
        // What is denied moves nothing.
        let elsewhere = VerifyKeyRequest { resource: "logs/secret".into(), ..check(FAST) };
        let denied = a.admin().call(elsewhere).await.unwrap();
        assert_eq!(denied.reason(), DecisionReason::NoGrant);
        assert_eq!(life(&a.admin(), &ids[0]).await, ["key.imported"]);

        for (token, key_id) in [FAST, SLOW].into_iter().zip(&ids) {
            let asks = (0..20).map(|i| reason(if i % 2 == 0 { &a } else { &b }, token));
            let reasons: BTreeSet<DecisionReason> = join_all(asks).await.into_iter().collect();
            assert_eq!(reasons, [DecisionReason::Granted].into());
            for replica in [&a, &b] {
                let life = life(&replica.admin(), key_id).await;
                assert_eq!(life, ["key.imported", "key.verifier-migrated"]);
            }
        }
        // The digests are gone, and nobody misses them.
        assert_eq!(digests_left(d).await, 0);
        let c = d.replica().await;
        for replica in [&a, &b, &c] {
            assert_eq!(reason(replica, FAST).await, DecisionReason::Granted);
            assert_eq!(reason(replica, SLOW).await, DecisionReason::Granted);
            let wrong = format!("{}0", &SLOW[..SLOW.len() - 1]);
            assert_eq!(reason(replica, &wrong).await, DecisionReason::WrongSecret);
        }
        assert!(!c.log().contains("differs"), "{}", c.log());
    });
}

#[test]
fn a_replica_that_starts_from_the_projection_accepts_them_used_or_not() {
    scenario(async |d| {
        let a = d.replica().await;
        let [fast, _] = import_both(&a.admin()).await;
        assert_eq!(reason(&a, FAST).await, DecisionReason::Granted);
        let b = d.replica().await;
        assert_eq!(reason(&b, FAST).await, DecisionReason::Granted);
        assert_eq!(reason(&b, SLOW).await, DecisionReason::Granted);
        let results = b.admin().call(import(vec![sha256_of(FAST, user_import("bob"))])).await;
        assert_eq!(results.unwrap().results[0].error(), ErrorReason::ImportExists);
        assert!(!b.log().contains("differs"), "{}", b.log());
        // As it was before its first use.
        let as_of = Some(get_key_request::AsOf::AsOfPosition(
            a.admin()
                .call(GetKeyRequest { key_id: fast.clone(), as_of: None, include_traces: false })
                .await
                .unwrap()
                .key
                .unwrap()
                .position(),
        ));
        let before = b
            .admin()
            .call(GetKeyRequest { key_id: fast, as_of, include_traces: false })
            .await
            .unwrap();
        assert_eq!(before.key.unwrap().stream_version, 1);
    });
}

#[test]
fn an_imported_key_is_revoked_rotated_and_suspended_like_any_other() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let [fast, slow] = import_both(&a.admin()).await;
        let rotated = a.admin().call(rotate(&fast, 3600)).await.unwrap();
        assert!(rotated.token.starts_with("klk_"));
        assert_eq!(reason(&b, FAST).await, DecisionReason::Granted);
        assert_eq!(reason(&b, &rotated.token).await, DecisionReason::Granted);
        a.admin().call(rotate(&fast, 0)).await.unwrap();
        // As with a token of ours whose version is gone for good. A replica that had matched it before it heard of the second
        // rotation says that it was superseded.
        assert_eq!(reason(&a, FAST).await, DecisionReason::WrongSecret);
        let gone = [DecisionReason::WrongSecret, DecisionReason::Superseded];
        assert!(gone.contains(&reason(&b, FAST).await));
        a.admin().call(suspend(&slow)).await.unwrap();
        assert_eq!(reason(&b, SLOW).await, DecisionReason::Suspended);
        assert_eq!(life(&b.admin(), &slow).await, ["key.imported", "key.suspended"]);
        a.admin().call(resume(&slow)).await.unwrap();
        a.admin().call(revoke(&slow)).await.unwrap();
        for replica in [&a, &b] {
            assert_eq!(reason(replica, SLOW).await, DecisionReason::Revoked);
        }
    });
}

#[test]
fn whoever_holds_an_imported_token_that_leaked_can_end_its_key() {
    scenario(async |d| {
        let a = d.replica().await;
        let ids = import_both(&a.admin()).await;
        let found = |token: &str| RevokeBySecretRequest {
            token: token.into(),
            reason: "found in a public repository".into(),
        };
        let stranger = a.anonymous();
        let wrong = format!("{}0", &SLOW[..SLOW.len() - 1]);
        for nobodys in ["acme_live_nobody", &wrong] {
            let mark = d.mark().await;
            stranger.call(found(nobodys)).await.unwrap();
            let (ledger, left) = d.since_in_one(&mark).await;
            assert_eq!((ledger, left.len()), (0, 1));
            let (decision, reason) = verdict(left[0].as_use());
            assert_eq!(
                (decision, reason),
                (keyledger_ledger::body::Decision::Deny, DecisionReason::UnknownKey)
            );
        }
        for (token, key_id) in [FAST, SLOW].into_iter().zip(&ids) {
            assert_eq!(stranger.call(found(token)).await.unwrap(), RevokeBySecretResponse {});
            assert_eq!(reason(&a, token).await, DecisionReason::Revoked);
            assert_eq!(life(&a.admin(), key_id).await, ["key.imported", "key.revoked"]);
        }
    });
}

#[test]
fn an_imported_token_calls_nothing_and_its_hash_is_no_way_to_a_token_of_ours() {
    scenario(async |d| {
        let a = d.replica().await;
        let [fast, _] = import_both(&a.admin()).await;
        let secret = || Secret::new(Sha256::digest(FAST).into());
        let key_id = KeyId::parse(&fast).unwrap();
        let forged = Token { key_id, secret: secret() }.reveal();
        for use_it in [false, true] {
            if use_it {
                assert_eq!(reason(&a, FAST).await, DecisionReason::Granted);
            }
            for token in [FAST, &forged] {
                refused(a.caller(token).call(WhoAmIRequest {}).await)
                    .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            }
            assert_eq!(reason(&a, &forged).await, DecisionReason::WrongSecret);
        }
    });
}

#[test]
fn no_hash_and_no_prefix_is_imported_twice() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let [fast, _] = import_both(&a.admin()).await;
        a.admin().call(revoke(&fast)).await.unwrap();
        let same_prefix = format!("{}another", &SLOW[..PREFIX]);
        let other = "acme_live_another";
        let items = vec![
            sha256_of(FAST, user_import("bob@example.com")),
            sha256_of(other, user_import("bob@example.com")),
            argon2id_of(&same_prefix, PREFIX, user_import("bob@example.com")),
        ];
        let tried = ImportKeysRequest { validate_only: true, ..import(items.clone()) };
        for request in [tried, import(items)] {
            let results = b.admin().call(request.clone()).await.unwrap().results;
            let errors: Vec<ErrorReason> = results.iter().map(|r| r.error()).collect();
            let exists = ErrorReason::ImportExists;
            assert_eq!(errors, [exists, ErrorReason::Unspecified, exists]);
            assert_eq!(results[0].message, "a key with this hash or prefix was imported before");
            assert_eq!(results[1].key_id.is_empty(), request.validate_only);
        }
        assert_eq!(reason(&a, other).await, DecisionReason::Granted);
        // Two replicas at the same time.
        let rival = |replica: &Replica| {
            let (admin, key) = (replica.admin(), user_import("bob@example.com"));
            async move { admin.call(import(vec![sha256_of("acme_rival", key)])).await }
        };
        let both = join_all([rival(&a), rival(&b)]).await;
        let errors: BTreeSet<i32> = both.into_iter().map(|r| r.unwrap().results[0].error).collect();
        assert_eq!(errors, [0, ErrorReason::ImportExists as i32].into());
    });
}

#[test]
fn a_repeated_call_gives_the_same_answers_and_makes_nothing_twice() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let robots = |count: usize| {
            let token = |i| format!("acme_live_robot_{i}");
            let items = (0..count).map(|i| sha256_of(&token(i), user_import("alice@example.com")));
            ImportKeysRequest {
                request_id: "5f0c2a52-6f0e-4d6b-9f2c-3f8a5d3c1b7e".into(),
                ..import(items.collect())
            }
        };
        let first = a.admin().call(robots(100)).await.unwrap();
        assert!(first.results.iter().all(|r| !r.key_id.is_empty()));
        let ids: BTreeSet<&String> = first.results.iter().map(|r| &r.key_id).collect();
        assert_eq!(ids.len(), 100);
        assert_eq!(b.admin().call(robots(100)).await.unwrap(), first);
        // The same id for another request.
        let other = b.admin().call(robots(2)).await.unwrap().results;
        assert!(other.iter().all(|r| r.error() == ErrorReason::RequestIdReused));
        let verdicts = (0..100).map(|i| check(&format!("acme_live_robot_{i}"))).collect();
        let answers = a.admin().call(BatchVerifyKeysRequest { requests: verdicts }).await.unwrap();
        let seen: Vec<&String> = answers.responses.iter().map(|r| &r.key_id).collect();
        assert!(seen.iter().copied().eq(first.results.iter().map(|r| &r.key_id)), "in their order");
    });
}

#[test]
fn nobody_imports_more_than_they_hold() {
    scenario(async |d| {
        let a = d.replica().await;
        let office = Restrictions { networks: vec!["127.0.0.0/8".into()], ..Default::default() };
        let clerk = CreateKeyRequest {
            restrictions: Some(office.clone()),
            ..service_key(
                "clerk",
                vec![grant("keys.import", "keys"), grant("audit.read", "logs/error")],
            )
        };
        let clerk = a.caller(&a.admin().call(clerk).await.unwrap().token);
        let inside = |token: &str| KeyToImport {
            restrictions: Some(office.clone()),
            ..sha256_of(token, user_import("bob@example.com"))
        };
        let more = vec![grant("audit.read", "logs/**")];
        let never = key_to_import::Expiry::NoExpiry(true);
        let past =
            key_to_import::Expiry::ExpireTime(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let items = vec![
            KeyToImport { grants: more, ..inside("acme_one") },
            inside("acme_two"),
            KeyToImport { restrictions: None, ..inside("acme_three") },
            KeyToImport { expiry: Some(never), ..inside("acme_four") },
            KeyToImport { roles: vec!["admin".into()], ..inside("acme_five") },
            KeyToImport { expiry: Some(past), ..inside("acme_six") },
        ];
        let results = clerk.call(import(items)).await.unwrap().results;
        let errors: Vec<ErrorReason> = results.iter().map(|r| r.error()).collect();
        let expected = [
            ErrorReason::ExceedsOwnRights,
            ErrorReason::Unspecified,
            ErrorReason::ExceedsOwnRights,
            ErrorReason::PermissionDenied,
            ErrorReason::ExceedsOwnRights,
            ErrorReason::InvalidField,
        ];
        assert_eq!(errors, expected);
        assert_eq!(results[5].message, "expire_time must lie in the future");
        // Who may import nothing at all is told so, once.
        let weak = a.admin().call(service_key("weak", vec![])).await.unwrap();
        let mark = d.mark().await;
        let both = vec![inside("acme_seven"), inside("acme_eight")];
        let refusal = refused(a.caller(&weak.token).call(import(both)).await);
        assert_eq!(refusal.metadata["permission"], "keys.import");
        refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        assert_eq!(d.since_in_one(&mark).await.1.len(), 1);
    });
}

#[test]
fn an_import_keeps_to_the_policy_of_its_ledger_and_brings_one_of_its_own() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let policy = LedgerPolicy {
            approval_permissions: vec!["keys.import".into()],
            max_life: Some(seconds(7 * 86_400)),
            default_life: Some(seconds(86_400)),
            ..Default::default()
        };
        let fields = ["approval_permissions", "default_life", "max_life"];
        admin.call(update_policy(&fields, policy)).await.unwrap();
        let life = |days: i64| Some(key_to_import::Expiry::Ttl(seconds(days * 86_400)));
        let max_age = Some(seconds(30 * 86_400));
        let rotation = Some(RotationPolicy { max_age, suspend_after: None });
        let items = vec![
            KeyToImport { rotation, ..sha256_of("acme_one", user_import("bob@example.com")) },
            KeyToImport {
                expiry: life(8),
                ..sha256_of("acme_two", user_import("bob@example.com"))
            },
        ];
        let refusal = refused(admin.call(import(items.clone())).await);
        assert_eq!(refusal.metadata["permission"], "keys.import");
        refusal.with(Code::FailedPrecondition, ErrorReason::ApprovalRequired);
        let approved = ImportKeysRequest { approval_ref: "CHG-4711".into(), ..import(items) };
        let results = admin.call(approved).await.unwrap().results;
        let errors: Vec<ErrorReason> = results.iter().map(|r| r.error()).collect();
        assert_eq!(errors, [ErrorReason::Unspecified, ErrorReason::InvalidField]);
        let made =
            GetKeyRequest { key_id: results[0].key_id.clone(), as_of: None, include_traces: false };
        let key = admin.call(made).await.unwrap().key.unwrap();
        assert_eq!(key.rotation, rotation);
    });
}

#[test]
fn a_hundred_slow_hashes_are_computed_for_one_call() {
    scenario(async |d| {
        let replica = d.replica().await;
        let token = |i: usize| format!("acme.{i:04}.secret");
        let slow = |i| argon2id_of(&token(i), 10, user_import("alice@example.com"));
        let made = replica.admin().call(import((0..100).map(slow).collect())).await.unwrap();
        let requests = (0..100).map(|i| check(&token(i))).collect();
        let checked = replica.admin().call(BatchVerifyKeysRequest { requests }).await.unwrap();
        let made: Vec<String> = made.results.into_iter().map(|r| r.key_id).collect();
        let found: Vec<String> = checked.responses.into_iter().map(|r| r.key_id).collect();
        assert_eq!(found, made);
        assert_eq!(digests_left(d).await, 0);
    });
}

#[test]
fn what_can_not_be_imported_is_named_by_its_path_and_nothing_is_made() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let slow = |phc: &str, prefix: &str| KeyToImport {
            hash: Some(key_to_import::Hash::Argon2id(Argon2idHash {
                phc: phc.into(),
                prefix: prefix.into(),
            })),
            ..user_import("alice@example.com")
        };
        let good = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ";
        let items = vec![
            sha256_of(FAST, user_import("alice@example.com")),
            slow(&good.replace("m=64", "m=65537"), "acme_live_"),
            slow(good, "klk_0123456789"),
            slow(good, "KLK_0123456789"),
            slow(good, "seven77"),
            slow(good, "with a space"),
            KeyToImport { purpose: String::new(), ..slow(good, "acme_live_") },
        ];
        let refusal = refused(admin.call(import(items)).await);
        let expected = [
            "items[1].argon2id.phc",
            "items[2].argon2id.prefix",
            "items[3].argon2id.prefix",
            "items[4].argon2id.prefix",
            "items[5].argon2id.prefix",
            "items[6].purpose",
        ];
        assert_eq!(refusal.fields, expected);
        refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(digests_left(d).await, 0);
    });
}

#[test]
fn prefixes_have_at_most_eight_lengths_and_each_of_them_is_tried() {
    scenario(async |d| {
        let replica = d.replica().await;
        let key = || user_import("alice@example.com");
        // Each prefix is the beginning of the next one.
        let token = |length: usize| format!("{}~{length}", &"abcdefghijklmnopqrst"[..length]);
        let items = (8..=16).map(|length| argon2id_of(&token(length), length, key())).collect();
        let results = replica.admin().call(import(items)).await.unwrap().results;
        let refused = results.iter().filter(|r| r.error() == ErrorReason::ImportPrefixLengths);
        assert_eq!(refused.count(), 1);
        for (length, result) in (8..=16).zip(&results) {
            let verdict = replica.admin().call(check(&token(length))).await.unwrap();
            assert_eq!(verdict.key_id, result.key_id);
            assert_eq!(verdict.decision() == Decision::Allow, !result.key_id.is_empty());
        }
    });
}

#[test]
fn to_whom_may_not_know_an_imported_token_that_is_no_good_looks_like_any_other() {
    scenario(async |d| {
        let a = d.replica().await;
        let [fast, _] = import_both(&a.admin()).await;
        a.admin().call(revoke(&fast)).await.unwrap();
        let service = service_key("gateway", vec![grant("keys.verify", "keys")]);
        let service = a.caller(&a.admin().call(service).await.unwrap().token);
        let native = a.admin().call(user_key("bob@example.com")).await.unwrap();
        a.admin().call(revoke(&native.key.unwrap().key_id)).await.unwrap();
        let wrong = format!("{}0", &SLOW[..SLOW.len() - 1]);
        for token in [&native.token, FAST, &wrong, "acme_live_nobody"] {
            let answer = service.call(check(token)).await.unwrap();
            let expected = VerifyKeyResponse {
                decision: Decision::Deny as i32,
                reason: DecisionReason::NotValid as i32,
                position: answer.position,
                index: answer.index,
                ..VerifyKeyResponse::default()
            };
            assert_eq!(answer, expected);
        }
    });
}

#[test]
fn the_command_imports_a_file_and_answers_each_line() {
    scenario(async |d| {
        let replica = d.replica().await;
        let folder = tempfile::tempdir().unwrap();
        let (file, token) = (folder.path().join("keys.jsonl"), folder.path().join("token"));
        let line = |token: &str, purpose: &str| {
            let digest =
                base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Sha256::digest(token));
            let grant = r#"{"permissions":["audit.read"],"resource":"logs/error"}"#;
            format!(
                r#"{{"owner":{{"service":"billing"}},"purpose":"{purpose}","grants":[{grant}],"sha256":"{digest}"}}"#
            )
        };
        let text =
            [line("acme_one", "invoices"), String::new(), line("acme_two", "reminders")].join("\n");
        std::fs::write(&file, text).unwrap();
        std::fs::write(&token, &d.tokens.admin).unwrap();
        let import = async |more: &[&str]| {
            let (file, token) = (file.display().to_string(), token.display().to_string());
            let endpoint = format!("http://{}", replica.address);
            let line =
                ["keys", "import", "--file", &file, "--reason", "moving house", "--token-file"];
            let line =
                [line.as_slice(), [token.as_str(), "--endpoint", &endpoint].as_slice(), more]
                    .concat();
            let output = d.run(line.into_iter().map(String::from)).await;
            (output.status.code(), output.text)
        };
        let (code, tried) = import(&["--dry-run"]).await;
        assert_eq!(code, Some(0), "{tried}");
        assert!(
            tried.starts_with("line 1: could be imported\nline 3: could be imported\n"),
            "{tried}"
        );
        assert_eq!(digests_left(d).await, 0);
        let (code, made) = import(&[]).await;
        assert_eq!(code, Some(0), "{made}");
        assert!(made.starts_with("line 1: ") && made.contains("\nline 3: "), "{made}");
        assert_eq!(import(&[]).await, (Some(0), made), "whoever stopped may go on");
        assert_eq!(reason(&replica, "acme_two").await, DecisionReason::Granted);

        std::fs::write(&file, line("acme_one", "something else")).unwrap();
        let (code, refused) = import(&[]).await;
        assert_eq!(code, Some(10), "{refused}");
        let expected = "line 1: refused: a key with this hash or prefix was imported before\n";
        assert_eq!(refused, expected);
        std::fs::write(&file, "{\"purposes\":1}").unwrap();
        let (code, refused) = import(&[]).await;
        assert_eq!(code, Some(1));
        assert!(refused.contains("line 1 is not a key"), "{refused}");
    });
}
