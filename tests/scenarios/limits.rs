//! Limits on how often a key is used: exact, whoever asks, through whichever replica, and after a restart.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use keyledger_ledger::body::Kind;
use keyledger_ledger::command::{Answer, ChangeKind, Expiry};
use keyledger_ledger::state::Owner;
use keyledger_ledger::verify::{Found, NoKeys, Verifier};
use keyledger_proto::entry::{DecisionReason, Grant, Rate, Restrictions};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;
use crate::world::{World, grant as world_grant, verify};

fn limited(max_uses: u64, rate: Option<Rate>, grants: Vec<Grant>) -> CreateKeyRequest {
    let restrictions = Restrictions { max_uses, rate, ..Restrictions::default() };
    CreateKeyRequest { restrictions: Some(restrictions), ..service_key("robot", grants) }
}

fn error_logs() -> Vec<Grant> {
    vec![grant("audit.read", "logs/error")]
}

#[test]
fn of_500_parallel_checks_over_two_replicas_a_key_with_100_uses_is_allowed_exactly_100() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let made = a.admin().call(limited(100, None, error_logs())).await.unwrap();
        let checks = (0..500).map(|i| {
            let caller = if i % 2 == 0 { a.admin() } else { b.admin() };
            let request = check(&made.token);
            async move { caller.call(request).await.unwrap().reason() }
        });
        let mut counts: BTreeMap<DecisionReason, u32> = BTreeMap::new();
        for reason in join_all(checks).await {
            *counts.entry(reason).or_default() += 1;
        }
        let expected = [(DecisionReason::Granted, 100), (DecisionReason::UsesSpent, 400)];
        assert_eq!(counts, expected.into());
        let get =
            GetKeyRequest { key_id: made.key.unwrap().key_id, as_of: None, include_traces: false };
        // Also for a replica that starts now.
        for replica in [a, d.replica().await] {
            let key = replica.admin().call(get.clone()).await.unwrap().key.unwrap();
            assert_eq!(key.uses_left, Some(0));
            let verdict = replica.admin().call(check(&made.token)).await.unwrap();
            assert_eq!(verdict.reason(), DecisionReason::UsesSpent);
        }
    });
}

#[test]
fn every_call_and_every_change_is_a_use_of_the_key_that_calls() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let may = vec![grant("*", "**")];
        let made = admin.call(limited(5, None, may)).await.unwrap();
        let subject = admin.call(user_key("alice@example.com")).await.unwrap();
        let caller = replica.caller(&made.token);
        let me =
            GetKeyRequest { key_id: made.key.unwrap().key_id, as_of: None, include_traces: false };
        let left = async || admin.call(me.clone()).await.unwrap().key.unwrap().uses_left;
        // A read, a change, a check, a dry run: one each. What fails and what is always allowed: none.
        caller.call(ListKeysRequest::default()).await.unwrap();
        let gives = limited(1, None, error_logs());
        caller.call(gives.clone()).await.unwrap();
        caller.call(check(&subject.token)).await.unwrap();
        refused(
            caller
                .call(GetKeyRequest { key_id: "x".into(), as_of: None, include_traces: false })
                .await,
        )
        .with(Code::InvalidArgument, ErrorReason::InvalidField);
        refused(caller.call(limited(6, None, error_logs())).await)
            .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        caller.call(WhoAmIRequest {}).await.unwrap();
        assert_eq!(left().await, Some(2));
        caller.call(CreateKeyRequest { validate_only: true, ..gives.clone() }).await.unwrap();
        caller.call(gives).await.unwrap();
        assert_eq!(left().await, Some(0));
        refused(caller.call(ListKeysRequest::default()).await)
            .with(Code::ResourceExhausted, ErrorReason::UsesSpent);
        caller.call(WhoAmIRequest {}).await.unwrap();
        // More are given by whoever may.
        let more = UpdateKeyRequest {
            restrictions: Some(Restrictions { max_uses: 6, ..Restrictions::default() }),
            ..update(&me.key_id, &["restrictions"])
        };
        assert_eq!(admin.call(more).await.unwrap().key.unwrap().uses_left, Some(1));
        caller.call(ListKeysRequest::default()).await.unwrap();
        refused(caller.call(ListKeysRequest::default()).await)
            .with(Code::ResourceExhausted, ErrorReason::UsesSpent);
        caller.call(revoke(&me.key_id)).await.unwrap();
    });
}

#[test]
fn a_rate_holds_over_all_replicas_and_says_when_to_come_back() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        // A day: so that no window ends while the test runs, but at midnight, when twice as many are right.
        let rate = Rate { uses: 10, window_us: 86_400_000_000 };
        let may = vec![grant("*", "**")];
        let made = a.admin().call(limited(0, Some(rate), may)).await.unwrap();
        let checks = (0..60).map(|i| {
            let caller = if i % 2 == 0 { a.admin() } else { b.admin() };
            let request = check(&made.token);
            async move { caller.call(request).await.unwrap().reason() }
        });
        let reasons = join_all(checks).await;
        let granted = reasons.iter().filter(|r| **r == DecisionReason::Granted).count();
        let held = reasons.iter().filter(|r| **r == DecisionReason::Rate).count();
        assert!(granted == 10 || granted == 20, "{granted} were granted");
        assert_eq!(granted + held, 60);
        if granted == 10 {
            let status = a.caller(&made.token).call(ListKeysRequest::default()).await;
            let wait = tonic_types::StatusExt::get_details_retry_info(status.as_ref().unwrap_err());
            assert!(wait.unwrap().retry_delay.unwrap().as_secs() < 86_400);
            refused(status).with(Code::ResourceExhausted, ErrorReason::Rate);
        }
    });
}

#[test]
fn uses_of_very_many_limited_keys_at_once_take_as_many_pages_as_they_need() {
    let mut world = World::new("keys.example.test/system");
    let admin = world.new_key();
    let everything = vec![world_grant(&["*"], "**", false)];
    let owner = Owner::Service("admin".into());
    let create = world.create_key(&admin, owner, everything, vec![], Expiry::Never);
    let create = world.by_itself(create, vec![]);
    world.run(vec![create]);
    let body = entry::Restrictions { max_uses: 2, ..Default::default() };
    let limits = keyledger_ledger::restrict::Restrictions::from_body(Some(&body)).unwrap();
    let (mut tokens, mut creations) = (vec![], vec![]);
    for _ in 0..2_500 {
        let token = world.new_key();
        let may = vec![world_grant(&["a.x"], "r/1", false)];
        let owner = Owner::Service("robot".into());
        let mut create = world.create_key(&token, owner, may, vec![], Expiry::Default);
        if let ChangeKind::CreateKey(create) = &mut create {
            create.restrictions = limits.clone();
        }
        creations.push(world.by_itself(create, vec![]));
        tokens.push(token);
    }
    world.run(creations);
    let before = world.entries.len();
    let checks = tokens.iter().map(|token| {
        let call = world.call(&admin.reveal(), "KeyService/VerifyKey", "keys.verify", "keys");
        verify(call, &token.reveal(), "a.x", "r/1", vec![])
    });
    let checks: Vec<_> = checks.collect();
    let answers = world.run(checks);
    let mut verifier = Verifier::default();
    for entry in &world.entries {
        let found = Found {
            position: entry.position,
            entry: entry.entry.clone(),
            sealed: Some(entry.sealed.clone()),
            uses: entry.uses.clone(),
            columns: None,
        };
        verifier.push(&found, &mut NoKeys).unwrap();
    }
    assert!(verifier.state().same_fold(&world.head.state));
    assert_eq!(world.entries.len() - before, 2, "pages");
    for answer in answers {
        let Answer::Verdict(verdict) = answer else { panic!("{answer:?}") };
        assert_eq!(verdict.reason, DecisionReason::Granted);
        let page = &world.entries[verdict.at.position as usize];
        let Some(Kind::UsePage(page)) = &page.event.kind else { panic!("not a page") };
        assert!(verdict.at.index < page.count);
    }
}
