//! What holds in a ledger: lives, overlaps, approvals, limits; and keys of the system ledger, which call about other ledgers.

use keyledger_ledger::body::Kind;
use keyledger_proto::create_key_request::Expiry;
use keyledger_proto::entry::{
    AnomalyResponse, Decision, DecisionReason, MonitoringRule, RuleSetting,
};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

const DAY: i64 = 86_400;

fn life(days: i64) -> Option<prost_types::Duration> {
    Some(seconds(days * DAY))
}

fn ledger(name: &str) -> GetLedgerRequest {
    GetLedgerRequest { name: name.into() }
}

fn lives(key: &Key) -> i64 {
    key.expire_time.unwrap().seconds - key.create_time.unwrap().seconds
}

#[test]
fn a_policy_holds_on_every_replica_from_its_entry_on() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let before = b.admin().call(ledger("default")).await.unwrap();
        assert_eq!(before.policy.as_ref().unwrap().max_life, life(400));
        let made = b.admin().call(user_key("early@example.com")).await.unwrap().key.unwrap();

        let policy = LedgerPolicy {
            default_life: life(10),
            max_life: life(20),
            max_overlap: Some(seconds(60)),
            ..Default::default()
        };
        let fields = ["default_life", "max_life", "max_overlap"];
        let request = UpdateLedgerPolicyRequest {
            etag: before.etag.clone(),
            ..update_policy(&fields, policy)
        };
        let changed = a.admin().call(request.clone()).await.unwrap();
        let shown = b.admin().call(ledger("default")).await.unwrap();
        assert_eq!((&shown.policy, &shown.etag), (&changed.policy, &changed.etag));
        assert_eq!(shown.policy.unwrap().notice_days, [30, 7, 1], "not named, not changed");
        refused(b.admin().call(request).await).with(Code::Aborted, ErrorReason::EtagMismatch);

        let usual = CreateKeyRequest { expiry: None, ..user_key("usual@example.com") };
        let usual = b.admin().call(usual).await.unwrap().key.unwrap();
        assert_eq!(lives(&usual), 10 * DAY);
        let expiry = Some(Expiry::Ttl(seconds(21 * DAY)));
        let long = CreateKeyRequest { expiry, ..user_key("long@example.com") };
        let refusal = refused(b.admin().call(long).await);
        assert_eq!(refusal.fields, ["ttl"]);
        refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        let refusal = refused(b.admin().call(rotate(&usual.key_id, 61)).await);
        assert_eq!(refusal.fields, ["overlap"]);
        // Keys that were made before stay as they are.
        let early =
            GetKeyRequest { key_id: made.key_id.clone(), as_of: None, include_traces: false };
        assert_eq!(lives(&b.admin().call(early).await.unwrap().key.unwrap()), lives(&made));

        let records = d.records(1).await;
        let position = changed.position;
        let entry = records.iter().find(|r| Some(r.address().0) == position).unwrap();
        assert!(matches!(entry.as_change().kind, Some(Kind::LedgerPolicyUpdated(_))));
        // A replica that starts later knows it, too.
        let late = d.replica().await;
        assert_eq!(late.admin().call(ledger("default")).await.unwrap().etag, shown.etag);
    });
}

#[test]
fn a_policy_that_does_not_hold_together_changes_nothing() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let before = admin.call(ledger("default")).await.unwrap();
        let wrong = async |field: &str, policy: LedgerPolicy| {
            let refusal = refused(admin.call(update_policy(&[field], policy)).await);
            assert_eq!(refusal.fields, [field]);
            refusal.with(Code::InvalidArgument, ErrorReason::InvalidField);
        };
        let days = LedgerPolicy { notice_days: vec![1, 7], ..Default::default() };
        let default = LedgerPolicy { default_life: life(401), ..Default::default() };
        let most = LedgerPolicy { max_life: life(3_661), ..Default::default() };
        let overlap = LedgerPolicy { max_overlap: life(91), ..Default::default() };
        let stale = LedgerPolicy { max_staleness: Some(seconds(61)), ..Default::default() };
        let approvals =
            LedgerPolicy { approval_permissions: vec!["Keys".into()], ..Default::default() };
        wrong("notice_days", days).await;
        wrong("default_life", default).await;
        wrong("max_life", most).await;
        wrong("max_overlap", overlap).await;
        wrong("max_staleness", stale).await;
        wrong("approval_permissions", approvals).await;
        let set = |rule: MonitoringRule, response: AnomalyResponse, threshold| RuleSetting {
            rule: rule as i32,
            response: response as i32,
            threshold,
        };
        let (scanning, spike) = (MonitoringRule::Scanning, MonitoringRule::Spike);
        for rules in [
            vec![set(scanning, AnomalyResponse::Suspend, 0)],
            vec![set(spike, AnomalyResponse::Off, 3)],
            vec![set(spike, AnomalyResponse::Note, 0), set(spike, AnomalyResponse::Off, 0)],
        ] {
            wrong("rules", LedgerPolicy { rules, ..Default::default() }).await;
        }
        let nothing = update_policy(&["life"], LedgerPolicy::default());
        assert_eq!(refused(admin.call(nothing).await).fields, ["update_mask"]);
        let after = admin.call(ledger("default")).await.unwrap();
        assert_eq!((after.policy, after.etag), (before.policy, before.etag));
    });
}

#[test]
fn an_auditor_sees_the_policy_and_changes_nothing_of_it() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let key =
            CreateKeyRequest { roles: vec!["auditor".into()], ..service_key("auditor", vec![]) };
        let auditor = admin.with_token(&admin.call(key).await.unwrap().token);
        let seen = auditor.call(ledger("default")).await.unwrap();
        assert_eq!(seen.etag, admin.call(ledger("default")).await.unwrap().etag);
        let policy = LedgerPolicy { max_life: life(20), ..Default::default() };
        refused(auditor.call(update_policy(&["max_life"], policy)).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}

#[test]
fn what_needs_an_approval_is_refused_without_one() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let policy = LedgerPolicy {
            approval_permissions: vec![
                "keys.revoke".into(),
                "keys.create-without-expiry".into(),
                "roles.*".into(),
            ],
            ..Default::default()
        };
        admin.call(update_policy(&["approval_permissions"], policy)).await.unwrap();
        let needs = |refusal: Refused, permission: &str| {
            assert_eq!(refusal.metadata["permission"], permission);
            refusal.with(Code::FailedPrecondition, ErrorReason::ApprovalRequired);
        };
        needs(refused(b.admin().call(revoke(&key_id)).await), "keys.revoke");
        let grants = vec![grant("audit.read", "logs/error")];
        needs(refused(b.admin().call(role("readers", grants)).await), "roles.create");
        let forever = CreateKeyRequest {
            expiry: Some(Expiry::NoExpiry(true)),
            ..user_key("bob@example.com")
        };
        needs(refused(b.admin().call(forever.clone()).await), "keys.create-without-expiry");
        b.admin().call(user_key("carol@example.com")).await.unwrap();

        let malformed =
            RevokeKeyRequest { approval_ref: "because I say so".into(), ..revoke(&key_id) };
        assert_eq!(refused(b.admin().call(malformed).await).fields, ["approval_ref"]);
        let approval_ref = "CHG-2026/4711".to_string();
        let forever = CreateKeyRequest { approval_ref: approval_ref.clone(), ..forever };
        b.admin().call(forever).await.unwrap();
        let approved = RevokeKeyRequest { approval_ref: approval_ref.clone(), ..revoke(&key_id) };
        let revoked = b.admin().call(approved).await.unwrap();
        let event = GetEventRequest { position: revoked.position, ..Default::default() };
        let event = a.admin().call(event).await.unwrap().event.unwrap();
        assert_eq!(event.approval_ref, approval_ref);

        // A key may always end itself, and whoever holds a leaked token may end that.
        let own = admin.call(service_key("robot", vec![grant("keys.*", "keys/**")])).await.unwrap();
        let own_id = own.key.unwrap().key_id;
        a.caller(&own.token).call(revoke(&own_id)).await.unwrap();
        let leaked = admin.call(user_key("dave@example.com")).await.unwrap();
        let request = RevokeBySecretRequest { token: leaked.token.clone(), reason: "found".into() };
        a.anonymous().call(request).await.unwrap();
        let verdict = b.admin().call(check(&leaked.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::Revoked);
    });
}

fn limits(limits: LedgerLimits, fields: &[&str]) -> UpdateLedgerPolicyRequest {
    UpdateLedgerPolicyRequest {
        limits: Some(limits),
        ..update_policy(fields, LedgerPolicy::default())
    }
}

#[test]
fn a_ledger_takes_no_more_than_its_limits_and_its_own_keys_do_not_set_them() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let few = LedgerLimits { max_keys: 3, max_roles: 1, max_streams: 2, ..Default::default() };
        let fields = ["limits.max_keys", "limits.max_roles", "limits.max_streams"];
        refused(admin.call(limits(few, &fields)).await)
            .with(Code::FailedPrecondition, ErrorReason::SystemLedgerOnly);
        a.system_admin().call(limits(few, &fields)).await.unwrap();
        let shown = b.admin().call(ledger("default")).await.unwrap().limits.unwrap();
        assert_eq!((shown.max_keys, shown.max_streams), (3, 2));
        assert_eq!(shown.max_bytes_per_second, 256 << 20, "not named, not changed");

        let full = |refusal: Refused, limit: &str, most: &str| {
            let metadata = (&*refusal.metadata["limit"], &*refusal.metadata["most"]);
            assert_eq!(metadata, (limit, most));
            refusal.with(Code::ResourceExhausted, ErrorReason::LedgerLimit);
        };
        for name in ["one@example.com", "two@example.com"] {
            admin.call(user_key(name)).await.unwrap();
        }
        full(refused(b.admin().call(user_key("three@example.com")).await), "keys", "3");
        let grants = || vec![grant("audit.read", "logs/error")];
        admin.call(role("one", grants())).await.unwrap();
        full(refused(b.admin().call(role("two", grants())).await), "roles", "1");
        let from = StreamEventsRequest { from_position: Some(0), ..Default::default() };
        let first = admin.stream(from.clone()).await.unwrap();
        let second = admin.stream(from.clone()).await.unwrap();
        full(refused(admin.stream(from.clone()).await), "streams", "2");
        drop((first, second));
        // The ledger next door has limits of its own.
        a.system_admin().call(user_key("operator@example.com")).await.unwrap();
    });
}

#[test]
fn a_ledger_writes_no_more_bytes_a_second_than_it_may() {
    scenario(async |d| {
        let replica = d.replica().await;
        let slow = LedgerLimits { max_bytes_per_second: 1_024, ..Default::default() };
        let fields = ["limits.max_bytes_per_second"];
        replica.system_admin().call(limits(slow, &fields)).await.unwrap();
        let asked = (0..50).map(|_| replica.admin()).collect::<Vec<_>>();
        let answers = asked.iter().map(|caller| caller.call(WhoAmIRequest {}));
        let answers = futures_util::future::join_all(answers).await;
        let refusals: Vec<Refused> =
            answers.into_iter().filter(Result::is_err).map(refused).collect();
        assert!(refusals.len() > 30, "{} of 50 were refused", refusals.len());
        for refusal in refusals {
            assert_eq!(refusal.metadata["limit"], "bytes per second");
            assert!(refusal.retry);
            refusal.with(Code::ResourceExhausted, ErrorReason::LedgerLimit);
        }
        replica.system_admin().call(WhoAmIRequest {}).await.unwrap();
        let much = LedgerLimits { max_bytes_per_second: 1 << 20, ..Default::default() };
        replica.system_admin().call(limits(much, &fields)).await.unwrap();
    });
}

fn open(name: &str) -> OpenLedgerRequest {
    let (name, reason) = (name.into(), "a new tenant".into());
    OpenLedgerRequest { name, reason, ..Default::default() }
}

#[test]
fn a_gateway_checks_the_tokens_of_every_tenant_with_one_key() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let system = a.system_admin();
        let opened = system.call(open("billing")).await.unwrap();
        let tenant = a.caller(&opened.token);
        let made = tenant.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let gateway = service_key("gateway", vec![grant("keys.verify", "ledgers/*/keys")]);
        let gateway = system.call(gateway).await.unwrap();
        let gateway_id = gateway.key.unwrap().key_id;
        let (gateway, token) = (b.caller(&gateway.token), gateway.token);

        let mark = d.mark().await;
        let verdict_there = gateway.call(check(&made.token)).await.unwrap();
        assert_eq!(verdict_there.decision(), Decision::Allow);
        assert_eq!(verdict_there.key_id, key_id);
        // First its own use in ledger 0, then the verdict in the tenant's, which names both keys.
        let left = d.since(&mark).await;
        assert_eq!(left.keys().copied().collect::<Vec<_>>(), [0, 2]);
        let (own, theirs) = (left[&0][0].as_use(), left[&2][0].as_use());
        assert_eq!((left[&0].len(), left[&2].len()), (1, 1));
        assert_eq!(own.resource, "ledgers/billing/keys");
        let id = |bytes: &[u8]| keyledger_ledger::id::KeyId::from_slice(bytes).unwrap().to_string();
        assert_eq!((id(&own.key_id), id(&theirs.key_id)), (gateway_id.clone(), key_id.clone()));
        assert_eq!(id(&theirs.caller.as_ref().unwrap().key_id), gateway_id);

        let both = BatchVerifyKeysRequest { requests: vec![check(&made.token); 3] };
        let verdicts = gateway.call(both).await.unwrap().responses;
        assert!(verdicts.iter().all(|v| v.decision() == Decision::Allow));
        tenant.call(revoke(&key_id)).await.unwrap();
        let ended = gateway.call(check(&made.token)).await.unwrap();
        assert_eq!(ended.reason(), DecisionReason::NotValid, "it may not be told why");
        let explained = system.call(check(&made.token)).await.unwrap();
        assert_eq!(explained.reason(), DecisionReason::Revoked);

        // Nothing else crosses: it can't read there, nor call with this token anything else.
        let read = GetKeyRequest { key_id: key_id.clone(), as_of: None, include_traces: false };
        refused(gateway.call(read.clone()).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        refused(system.call(read).await).with(Code::NotFound, ErrorReason::KeyNotFound);
        // A key of a tenant sees nothing of another one's.
        let stranger = a.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(stranger.reason(), DecisionReason::Foreign);
        // Nor does one of ledger 0 that was not given it.
        let clerk = service_key("clerk", vec![grant("keys.verify", "keys")]);
        let clerk = system.call(clerk).await.unwrap();
        let seen = b.caller(&clerk.token).call(check(&made.token)).await.unwrap();
        assert_eq!(seen.reason(), DecisionReason::NotValid);
        // From the moment that its own key has ended, it checks nothing.
        system.call(revoke(&gateway_id)).await.unwrap();
        refused(b.caller(&token).call(check(&made.token)).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
    });
}

#[test]
fn a_key_of_the_system_ledger_reads_and_sets_what_holds_in_others_and_no_tenant_does() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let system = a.system_admin();
        let opened = system.call(open("billing")).await.unwrap();
        let billing = b.caller(&opened.token);
        let strict = |name: &str| UpdateLedgerPolicyRequest {
            name: name.into(),
            request_id: "0198c5a0-0000-8000-8000-000000000007".into(),
            ..update_policy(
                &["max_life", "default_life"],
                LedgerPolicy { max_life: life(30), default_life: life(3), ..Default::default() },
            )
        };
        let changed = system.call(strict("billing")).await.unwrap();
        let again = b.system_admin().call(strict("billing")).await.unwrap();
        assert_eq!(again.position, changed.position, "a repeat gives the first answer");
        let shown = billing.call(ledger("billing")).await.unwrap();
        assert_eq!(shown.policy.as_ref().unwrap().max_life, life(30));
        let seen = system.call(ledger("billing")).await.unwrap();
        assert_eq!((&seen.policy, &seen.ledger), (&shown.policy, &shown.ledger));
        // An admin of a tenant may do everything in its own ledger, and that is all.
        for name in ["default", "system", "nowhere"] {
            refused(billing.call(ledger(name)).await)
                .with(Code::NotFound, ErrorReason::LedgerNotFound);
            refused(billing.call(strict(name)).await)
                .with(Code::NotFound, ErrorReason::LedgerNotFound);
        }
        refused(system.call(ledger("nowhere")).await)
            .with(Code::NotFound, ErrorReason::LedgerNotFound);
        let reader = service_key("ops", vec![grant("ledgers.read", "ledgers/billing")]);
        let reader = a.caller(&system.call(reader).await.unwrap().token);
        reader.call(ledger("billing")).await.unwrap();
        refused(reader.call(ledger("default")).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        refused(reader.call(strict("billing")).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
    });
}
