//! The life of a key between its creation and its end: suspended, resumed, updated, and dry runs of all of it.

use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::entry::{Decision, DecisionReason, Label, Restrictions};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::*;

fn state_of(key: Option<Key>) -> KeyState {
    key.expect("a reply has its key").state()
}

#[test]
fn a_suspended_key_is_refused_everywhere_until_it_is_resumed() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let verdict = async |replica: &Replica| {
            replica.admin().call(check(&made.token)).await.unwrap().reason()
        };
        for _ in 0..20 {
            let suspended = a.admin().call(suspend(&key_id)).await.unwrap();
            assert_eq!(state_of(suspended.key), KeyState::Suspended);
            assert_eq!(verdict(&b).await, DecisionReason::Suspended);
            refused(b.caller(&made.token).call(WhoAmIRequest {}).await)
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            b.admin().call(resume(&key_id)).await.unwrap();
            assert_eq!(verdict(&a).await, DecisionReason::Granted);
        }
    });
}

#[test]
fn a_key_can_only_go_where_its_state_lets_it() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let key =
            async || admin.call(user_key("alice@example.com")).await.unwrap().key.unwrap().key_id;
        let (active, suspended, revoked) = (key().await, key().await, key().await);
        admin.call(suspend(&suspended)).await.unwrap();
        admin.call(revoke(&revoked)).await.unwrap();
        let in_state = |result: Result<(), tonic::Status>, state: &str| {
            let refusal = refused(result);
            assert_eq!(refusal.metadata["state"], state);
            refusal.with(Code::FailedPrecondition, ErrorReason::KeyState);
        };
        let purpose = |id: &str| UpdateKeyRequest {
            purpose: "export warnings".into(),
            ..update(id, &["purpose"])
        };
        in_state(admin.call(resume(&active)).await.map(drop), "KEY_STATE_ACTIVE");
        in_state(admin.call(suspend(&suspended)).await.map(drop), "KEY_STATE_SUSPENDED");
        in_state(admin.call(rotate(&suspended, 0)).await.map(drop), "KEY_STATE_SUSPENDED");
        in_state(admin.call(suspend(&revoked)).await.map(drop), "KEY_STATE_REVOKED");
        in_state(admin.call(resume(&revoked)).await.map(drop), "KEY_STATE_REVOKED");
        in_state(admin.call(purpose(&revoked)).await.map(drop), "KEY_STATE_REVOKED");
        // What is suspended may be changed, and ended.
        admin.call(purpose(&suspended)).await.unwrap();
        admin.call(revoke(&suspended)).await.unwrap();
    });
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let robot = CreateKeyRequest {
            labels: vec![label("team", "billing"), label("env", "prod")],
            responsible: "carol@example.com".into(),
            ..service_key("robot/export", vec![grant("audit.read", "logs/error")])
        };
        let made = admin.call(robot).await.unwrap();
        let before = made.key.unwrap();
        assert_eq!(before.labels, [label("env", "prod"), label("team", "billing")]);
        assert_eq!(before.responsible, "carol@example.com");

        let change = UpdateKeyRequest {
            purpose: "exports warnings, too".into(),
            grants: vec![grant("audit.read", "logs/*")],
            // Not named, so not looked at.
            roles: vec!["auditor".into()],
            ..update(&before.key_id, &["grants", "purpose"])
        };
        let after = admin.call(change).await.unwrap().key.unwrap();
        let expected = Key {
            purpose: "exports warnings, too".into(),
            grants: vec![grant("audit.read", "logs/*")],
            stream_version: 2,
            position: after.position,
            etag: after.etag.clone(),
            ..before.clone()
        };
        assert_eq!(after, expected);
        assert_ne!(after.etag, before.etag);

        let responsible = UpdateKeyRequest {
            responsible: "dave@example.com".into(),
            labels: vec![],
            roles: vec!["log-reader(security/login)".into()],
            ..update(&before.key_id, &["responsible", "labels", "roles"])
        };
        admin.call(responsible).await.unwrap();
        let get =
            GetKeyRequest { key_id: before.key_id.clone(), as_of: None, include_traces: false };
        let shown = admin.call(get).await.unwrap().key.unwrap();
        assert_eq!((shown.responsible.as_str(), shown.labels.len()), ("dave@example.com", 0));
        assert_eq!(shown.purpose, "exports warnings, too");
        let login =
            VerifyKeyRequest { resource: "logs/security/login".into(), ..check(&made.token) };
        let verdict = admin.call(login).await.unwrap();
        assert_eq!(verdict.matched_role, "log-reader(security/login)");
    });
}

#[test]
fn one_restriction_is_changed_and_the_others_stay() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let all = Restrictions {
            networks: vec!["203.0.113.0/24".into()],
            audiences: vec!["billing".into()],
            max_uses: 9,
            rate: Some(entry::Rate { uses: 5, window_us: 1_000_000 }),
        };
        let robot = CreateKeyRequest {
            restrictions: Some(all.clone()),
            ..service_key("robot", vec![grant("audit.read", "logs/error")])
        };
        let key_id = admin.call(robot).await.unwrap().key.unwrap().key_id;
        let change = async |fields: &[&str], to: Restrictions| {
            let request = UpdateKeyRequest { restrictions: Some(to), ..update(&key_id, fields) };
            admin.call(request).await.unwrap().key.unwrap().restrictions
        };
        let other =
            || Restrictions { networks: vec!["10.0.0.0/8".into()], ..Restrictions::default() };
        let moved = Restrictions { networks: other().networks, ..all };
        assert_eq!(change(&["restrictions.networks"], other()).await, Some(moved.clone()));
        let paced = Restrictions { rate: None, ..moved };
        assert_eq!(change(&["restrictions.rate"], other()).await, Some(paced));
        assert_eq!(change(&["restrictions"], other()).await, Some(other()));
        assert_eq!(change(&["restrictions.networks"], Restrictions::default()).await, None);
    });
}

#[test]
fn an_update_with_an_old_etag_is_aborted_and_changes_nothing() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let key = admin.call(user_key("alice@example.com")).await.unwrap().key.unwrap();
        let with_etag = |etag: &str| UpdateKeyRequest {
            purpose: "export warnings".into(),
            etag: etag.into(),
            ..update(&key.key_id, &["purpose"])
        };
        admin.call(with_etag(&key.etag)).await.unwrap();
        refused(admin.call(with_etag(&key.etag)).await)
            .with(Code::Aborted, ErrorReason::EtagMismatch);
        let get = GetKeyRequest { key_id: key.key_id.clone(), as_of: None, include_traces: false };
        assert_eq!(admin.call(get).await.unwrap().key.unwrap().stream_version, 2);
    });
}

#[test]
fn a_life_is_extended_only_with_the_permission_for_it_and_never_by_a_rotation() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let mut grants = vec![grant_of(&["keys.update", "keys.rotate"], "keys/**")];
        grants.push(grant("audit.read", "logs/**"));
        let clerk = admin.call(service_key("clerk", grants)).await.unwrap();
        let clerk = replica.caller(&clerk.token);
        let key = admin.call(user_key("alice@example.com")).await.unwrap().key.unwrap();
        let end = |life: i64| UpdateKeyRequest {
            expiry: Some(update_key_request::Expiry::Ttl(seconds(life))),
            ..update(&key.key_id, &["expiry"])
        };
        let shorter = clerk.call(end(1800)).await.unwrap().key.unwrap();
        assert!(seconds_of(&shorter.expire_time) < seconds_of(&key.expire_time));
        let refusal = refused(clerk.call(end(7200)).await);
        assert_eq!(refusal.metadata["permission"], "keys.extend");
        refusal.with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let rotated = clerk.call(rotate(&key.key_id, 86_400)).await.unwrap().key.unwrap();
        assert_eq!(rotated.expire_time, shorter.expire_time);
        let longer = admin.call(end(7200)).await.unwrap().key.unwrap();
        assert!(seconds_of(&longer.expire_time) > seconds_of(&key.expire_time));
    });
}

#[test]
fn a_dry_run_says_what_would_be_and_changes_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key = made.key.clone().unwrap();
        let mark = d.mark().await;
        let create = CreateKeyRequest { validate_only: true, ..user_key("bob@example.com") };
        let tried = admin.call(create).await.unwrap();
        assert_eq!((tried.token.as_str(), tried.position), ("", None));
        let shown = tried.key.unwrap();
        assert_eq!(shown.purpose, "export error logs");
        assert_eq!(shown.owner, user_key("bob@example.com").owner);
        let tried = admin
            .call(SuspendKeyRequest { validate_only: true, ..suspend(&key.key_id) })
            .await
            .unwrap();
        assert_eq!(state_of(tried.key), KeyState::Suspended);
        admin.call(RevokeKeyRequest { validate_only: true, ..revoke(&key.key_id) }).await.unwrap();
        let tried = admin.call(RotateKeyRequest { validate_only: true, ..rotate(&key.key_id, 0) });
        assert_eq!(tried.await.unwrap().token, "");
        let nobody = suspend("01a2009e-7983-8000-8000-06eea8bb72ed");
        let again = SuspendKeyRequest { validate_only: true, ..nobody };
        refused(admin.call(again).await).with(Code::NotFound, ErrorReason::KeyNotFound);
        let left = d.since(&mark).await.remove(&1).unwrap();
        let verdicts: Vec<_> = left.iter().map(|r| verdict(r.as_use())).collect();
        let validated = (Decision::Allow, DecisionReason::Validated);
        let mut expected = vec![validated; 4];
        expected.push((Decision::Deny, DecisionReason::Refused));
        assert_eq!(verdicts, expected);
        assert_eq!(admin.call(check(&made.token)).await.unwrap().decision(), Decision::Allow);
    });
}

#[test]
fn a_key_may_always_end_itself() {
    scenario(async |d| {
        let replica = d.replica().await;
        let made = replica.admin().call(service_key("robot", vec![])).await.unwrap();
        let other = replica.admin().call(service_key("other", vec![])).await.unwrap();
        let robot = replica.caller(&made.token);
        refused(robot.call(revoke(&other.key.unwrap().key_id)).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let ended = robot.call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        assert_eq!(state_of(ended.key), KeyState::Revoked);
        refused(robot.call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
    });
}

#[test]
fn a_key_is_shown_as_it_was_at_any_position_or_time() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.as_ref().unwrap().key_id.clone();
        let mut steps = vec![(made.position.unwrap(), made.key.unwrap())];
        let purpose = UpdateKeyRequest {
            purpose: "export warnings".into(),
            grants: vec![grant("audit.read", "logs/warning")],
            ..update(&key_id, &["purpose", "grants"])
        };
        let updated = admin.call(purpose).await.unwrap();
        steps.push((updated.position.unwrap(), updated.key.unwrap()));
        let suspended = admin.call(suspend(&key_id)).await.unwrap();
        steps.push((suspended.position.unwrap(), suspended.key.unwrap()));
        let revoked = admin.call(revoke(&key_id)).await.unwrap();
        steps.push((revoked.position.unwrap(), revoked.key.unwrap()));
        let at = async |as_of| {
            let request =
                GetKeyRequest { key_id: key_id.clone(), as_of: Some(as_of), include_traces: false };
            replica.admin().call(request).await
        };
        use get_key_request::AsOf::{AsOfPosition, AsOfTime};
        for (i, (position, expected)) in steps.iter().enumerate() {
            let shown = at(AsOfPosition(position + 1)).await.unwrap();
            assert_eq!((shown.position, shown.key.as_ref()), (Some(position + 1), Some(expected)));
            // The time of the entry is in the entry.
            let event = GetEventRequest { position: Some(*position), ..Default::default() };
            let time = admin.call(event).await.unwrap().event.unwrap().time.unwrap();
            let shown = at(AsOfTime(time)).await.unwrap();
            assert_eq!(shown.key.as_ref(), Some(expected));
            let before = at(AsOfPosition(*position)).await;
            match i {
                0 => drop(refused(before).with(Code::NotFound, ErrorReason::KeyNotFound)),
                _ => assert_eq!(before.unwrap().key.as_ref(), Some(&steps[i - 1].1)),
            }
        }
        assert_eq!(refused(at(AsOfPosition(1_000_000)).await).fields, ["as_of_position"]);
        let long_ago = prost_types::Timestamp { seconds: 1, nanos: 0 };
        refused(at(AsOfTime(long_ago)).await).with(Code::NotFound, ErrorReason::KeyNotFound);
    });
}

#[test]
fn whoever_holds_a_leaked_token_can_end_it_and_learns_nothing() {
    scenario(async |d| {
        let replica = d.replica().await;
        let (admin, stranger) = (replica.admin(), replica.anonymous());
        let found = |token: &str| RevokeBySecretRequest {
            token: token.into(),
            reason: "found in a public repository".into(),
        };
        let restricted =
            Restrictions { networks: vec!["192.0.2.0/24".into()], ..Default::default() };
        let elsewhere =
            CreateKeyRequest { restrictions: Some(restricted), ..service_key("elsewhere", vec![]) };
        let (plain, suspended, elsewhere) = (
            admin.call(user_key("alice@example.com")).await.unwrap(),
            admin.call(user_key("bob@example.com")).await.unwrap(),
            admin.call(elsewhere).await.unwrap(),
        );
        let id = |made: &CreateKeyResponse| made.key.as_ref().unwrap().key_id.clone();
        admin.call(suspend(&id(&suspended))).await.unwrap();
        for made in [&plain, &suspended, &elsewhere] {
            let mark = d.mark().await;
            assert_eq!(stranger.call(found(&made.token)).await.unwrap(), RevokeBySecretResponse {});
            let left = d.since(&mark).await.remove(&1).unwrap();
            let [ended] = &left[..] else { panic!("{left:?}") };
            let caller = ended.as_change().caller.as_ref().expect("its own secret ended it");
            assert_eq!(caller.version, 1);
            let get = GetKeyRequest { key_id: id(made), as_of: None, include_traces: false };
            let key = admin.call(get).await.unwrap().key.unwrap();
            assert_eq!(key.revocation.unwrap().kind(), entry::RevocationKind::Compromised);
        }
        // Ended before, never made, of another ledger, no token: the same answer, a refused use, and nothing changes.
        let other = admin.call(user_key("carol@example.com")).await.unwrap();
        let token = Token::parse(&other.token).unwrap();
        let wrong = Token { secret: Secret::new([9; 32]), ..token.clone() }.reveal();
        let unknown = KeyId::new(Time(1), LedgerNumber(1), 4711);
        let foreign = KeyId::new(Time(1), LedgerNumber(77), 4711);
        let with_id = |key_id| Token { key_id, ..token.clone() }.reveal();
        let rotated = admin.call(user_key("dave@example.com")).await.unwrap();
        admin.call(rotate(&id(&rotated), 0)).await.unwrap();
        for (token, ledger, reason) in [
            (plain.token.clone(), 1, DecisionReason::Refused),
            (rotated.token.clone(), 1, DecisionReason::Superseded),
            (wrong, 1, DecisionReason::WrongSecret),
            (with_id(unknown), 1, DecisionReason::UnknownKey),
            (with_id(foreign), 0, DecisionReason::Foreign),
            ("klk_4711".into(), 0, DecisionReason::Malformed),
            (String::new(), 0, DecisionReason::Missing),
        ] {
            let mark = d.mark().await;
            let answer = stranger.call(found(&token)).await.unwrap();
            assert_eq!(answer, RevokeBySecretResponse {});
            let (found, left) = d.since_in_one(&mark).await;
            assert_eq!((found, left.len()), (ledger, 1));
            assert_eq!(verdict(left[0].as_use()), (Decision::Deny, reason));
        }
        assert_eq!(admin.call(check(&other.token)).await.unwrap().decision(), Decision::Allow);
        let silent = RevokeBySecretRequest { reason: String::new(), ..found(&other.token) };
        assert_eq!(refused(stranger.call(silent).await).fields, ["reason"]);
    });
}

#[test]
fn what_a_key_is_survives_a_restart() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let networks = vec!["203.0.113.0/24".to_string()];
        let robot = CreateKeyRequest {
            labels: vec![label("team", "billing")],
            responsible: "carol@example.com".into(),
            restrictions: Some(Restrictions {
                networks,
                audiences: vec!["billing".into()],
                max_uses: 100,
                ..Default::default()
            }),
            ..service_key("robot/export", vec![grant("audit.read", "logs/error")])
        };
        let key_id = admin.call(robot).await.unwrap().key.unwrap().key_id;
        let purpose = UpdateKeyRequest {
            purpose: "exports warnings, too".into(),
            ..update(&key_id, &["purpose"])
        };
        admin.call(purpose).await.unwrap();
        admin.call(suspend(&key_id)).await.unwrap();
        let get = GetKeyRequest { key_id, as_of: None, include_traces: false };
        let before = admin.call(get.clone()).await.unwrap().key.unwrap();
        let other = d.replica().await;
        assert_eq!(other.admin().call(get).await.unwrap().key.unwrap(), before);
    });
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn seconds_of(time: &Option<Timestamp>) -> i64 {
    time.as_ref().expect("it has an end").seconds
}
