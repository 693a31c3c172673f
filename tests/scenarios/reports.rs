//! Uses that a service answered by itself: only from answers that it may keep, recorded exactly once, and never like a verdict.

use std::sync::Arc;

use keyledger_ledger::body::{Decision, DecisionReason, ReportDoubt, Use};
use keyledger_proto::entry::Restrictions;
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::Code;

use crate::harness::*;

/// Lets answers about a role be kept, as long as the policy does.
async fn allow(d: &Deployment, most: i64) -> Arc<Replica> {
    let replica = d.replica().await;
    let policy = LedgerPolicy { max_staleness: Some(seconds(most)), ..Default::default() };
    replica.admin().call(update_policy(&["max_staleness"], policy)).await.unwrap();
    let readers = CreateRoleRequest {
        max_staleness: Some(seconds(60)),
        ..role("readers", vec![grant("audit.read", "logs/*")])
    };
    replica.admin().call(readers).await.unwrap();
    replica
}

fn reader(role: &str) -> CreateKeyRequest {
    CreateKeyRequest { roles: vec![role.into()], ..service_key("reader", vec![]) }
}

/// A key for a gateway, which checks the keys of others: its id, and its token.
async fn gateway_key(replica: &Replica) -> (String, String) {
    let grants = vec![grant("keys.verify", "keys")];
    let made = replica.admin().call(service_key("gateway", grants)).await.unwrap();
    (made.key.unwrap().key_id, made.token)
}

async fn gateway(replica: &Replica) -> (String, Caller) {
    let (key_id, token) = gateway_key(replica).await;
    (key_id, replica.caller(&token))
}

fn keep(token: &str, most: i64) -> VerifyKeyRequest {
    VerifyKeyRequest { keep: Some(seconds(most)), ..check(token) }
}

/// The answer to a question, which may be kept.
async fn kept(caller: &Caller, token: &str, most: i64) -> (VerifyKeyResponse, Keep) {
    let answer = caller.call(keep(token, most)).await.unwrap();
    let kept = answer.kept.clone().expect("it may be kept");
    (answer, kept)
}

/// A use so many microseconds after the answer.
fn used(answer: &Keep, micros: i64) -> ReportedUse {
    let Timestamp { seconds, nanos } = answer.answer_time.unwrap();
    let micros = seconds * 1_000_000 + i64::from(nanos) / 1_000 + micros;
    let (seconds, nanos) =
        (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) as i32 * 1_000);
    ReportedUse {
        receipt: answer.receipt.clone(),
        time: Some(Timestamp { seconds, nanos }),
        client_address: "203.0.113.7".into(),
        client_user_agent: "exporter/1.2".into(),
        reason: "nightly export".into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        span_id: "00f067aa0ba902b7".into(),
    }
}

fn report(session_id: &str, first_number: u64, uses: Vec<ReportedUse>) -> ReportUsesRequest {
    ReportUsesRequest { session_id: session_id.into(), first_number, uses, end: false }
}

/// All uses that were reported, in the order of the ledger.
async fn reported(d: &Deployment) -> Vec<Use> {
    let records = d.records(1).await;
    let uses = records.into_iter().filter_map(|record| match record {
        Record::Use { r#use, .. } => Some(*r#use),
        _ => None,
    });
    uses.filter(|u| u.reported.is_some()).collect()
}

fn doubts(u: &Use) -> Vec<ReportDoubt> {
    let reported = u.reported.as_ref().unwrap();
    reported.doubts.iter().map(|doubt| ReportDoubt::try_from(*doubt).unwrap()).collect()
}

#[test]
fn what_a_service_answered_stands_in_the_log_as_reported_by_its_key() {
    scenario(async |d| {
        let replica = allow(d, 30).await;
        let (gateway_id, gateway) = gateway(&replica).await;
        let made = replica.admin().call(reader("readers")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let (answer, kept) = kept(&gateway, &made.token, 60).await;
        assert_eq!((answer.decision(), answer.version), (Decision::Allow, 1));
        assert!(answer.as_of_time.is_none() && kept.any_address, "it was answered strictly");
        assert_eq!(kept.max_staleness, Some(seconds(30)), "as long as the policy lets it");
        let uses = (0..3).map(|n| used(&kept, n)).collect();
        let reply = gateway.call(report(&new_session_id(), 0, uses)).await.unwrap();
        assert_eq!(reply.recorded, Some(3));
        // Who looks at the log sees whose word it is.
        let of_key = ListEventsRequest { key_id: key_id.clone(), ..Default::default() };
        let events = replica.admin().call(of_key).await.unwrap().events;
        let reported: Vec<&AuditEvent> = events.iter().filter(|e| e.reported.is_some()).collect();
        assert_eq!(reported.len(), 3);
        for event in reported {
            assert_eq!(event.method, "KeyService/ReportUses");
            assert_eq!((&event.caller_key_id, &event.key_id), (&gateway_id, &key_id));
            assert_eq!(
                (event.permission.as_str(), event.resource.as_str()),
                ("audit.read", "logs/error")
            );
            assert_eq!(
                (event.address.as_str(), event.reason.as_str()),
                ("203.0.113.7", "nightly export")
            );
            assert_eq!(event.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
            assert!(
                event
                    .occur_time
                    .is_some_and(|time| time.seconds >= kept.answer_time.unwrap().seconds)
            );
            let reported = event.reported.as_ref().unwrap();
            assert_eq!(Some(reported.answer_position), answer.position);
            assert_eq!(Some(reported.answer_index), answer.index);
            assert_eq!((reported.max_staleness_us, reported.doubts.len()), (30_000_000, 0));
        }
        // They count as uses of the key: the strict one, and those three.
        let usage = GetKeyUsageRequest { key_id, ..Default::default() };
        let usage = replica.admin().call(usage).await.unwrap().usage.unwrap();
        assert_eq!(usage.allowed, 4);
    });
}

#[test]
fn each_number_is_recorded_once_whichever_replica_is_asked_and_whenever_it_starts() {
    scenario(async |d| {
        let (a, b) = (allow(d, 60).await, d.replica().await);
        let (_, gateway_token) = gateway_key(&a).await;
        let gateway = a.caller(&gateway_token);
        let token = a.admin().call(reader("readers")).await.unwrap().token;
        let (_, kept) = kept(&gateway, &token, 60).await;
        let session = new_session_id();
        let from = |first: u64, count: i64| {
            let uses = (0..count).map(|n| used(&kept, first as i64 + n)).collect();
            report(&session, first, uses)
        };
        let there = b.caller(&gateway_token);
        assert_eq!(gateway.call(from(0, 2)).await.unwrap().recorded, Some(2));
        // A repeat changes nothing; one that goes further adds what is new.
        assert_eq!(there.call(from(0, 2)).await.unwrap().recorded, Some(2));
        assert_eq!(there.call(from(1, 4)).await.unwrap().recorded, Some(5));
        assert_eq!(gateway.call(from(0, 1)).await.unwrap().recorded, Some(5));
        let gap = refused(gateway.call(from(6, 1)).await);
        let gap = gap.with(Code::FailedPrecondition, ErrorReason::ReportGap);
        assert_eq!(gap.metadata["recorded"], "5");
        // The same at once through both.
        let (one, two) = tokio::join!(gateway.call(from(5, 5)), there.call(from(5, 5)));
        assert_eq!((one.unwrap().recorded, two.unwrap().recorded), (Some(10), Some(10)));
        // A replica that starts later knows how far it came.
        a.kill().await;
        b.stop().await;
        let next = d.replica().await.caller(&gateway_token);
        assert_eq!(next.call(from(8, 4)).await.unwrap().recorded, Some(12));
        let uses = reported(d).await;
        let numbers: Vec<u64> = uses.iter().map(|u| u.reported.as_ref().unwrap().number).collect();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>(), "each once, in order");
    });
}

#[test]
fn a_replica_that_dies_loses_no_number_and_doubles_none() {
    scenario(async |d| {
        let (a, b) = (allow(d, 60).await, d.replica().await);
        let (_, token) = gateway_key(&a).await;
        let (first, second) = (a.caller(&token), b.caller(&token));
        let subject = a.admin().call(reader("readers")).await.unwrap().token;
        let (_, kept) = kept(&first, &subject, 60).await;
        let session = new_session_id();
        let from = |number: u64| {
            let uses = (0..50).map(|n| used(&kept, n)).collect();
            report(&session, number, uses)
        };
        let reporting = async {
            let mut recorded = 0;
            while let Ok(reply) = first.call(from(recorded)).await {
                recorded = reply.recorded.unwrap();
            }
            recorded
        };
        let killing = async {
            while reported(d).await.len() < 500 {}
            a.kill().await;
        };
        let (told, ()) = tokio::join!(reporting, killing);
        // What it was not told of may be recorded, or not: it is sent again.
        let recorded = second.call(from(told)).await.unwrap().recorded.unwrap();
        assert_eq!(recorded, told + 50);
        let uses = reported(d).await;
        let numbers: Vec<u64> = uses.iter().map(|u| u.reported.as_ref().unwrap().number).collect();
        assert_eq!(numbers, (0..recorded).collect::<Vec<_>>(), "each once, in order");
    });
}

#[test]
fn what_was_answered_after_its_time_is_recorded_and_marked() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (_, gateway) = gateway(&replica).await;
        let made = replica.admin().call(reader("readers")).await.unwrap();
        let (_, kept) = kept(&gateway, &made.token, 10).await;
        replica.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        const SECOND: i64 = 1_000_000;
        let times = [0, 1, -1, 11 * SECOND, 20_000 * SECOND, -4_000 * SECOND];
        let uses = times.iter().map(|time| used(&kept, *time)).collect();
        gateway.call(report(&new_session_id(), 0, uses)).await.unwrap();
        let uses = reported(d).await;
        use ReportDoubt::{Ahead, BeforeAnswer, Late, Stale};
        let marked: Vec<_> = uses.iter().map(|u| (doubts(u), verdict(u))).collect();
        let held = (vec![], (Decision::Allow, DecisionReason::Granted));
        let doubtful =
            |doubts: &[ReportDoubt]| (doubts.to_vec(), (Decision::Allow, DecisionReason::Revoked));
        assert_eq!(
            marked,
            [
                held.clone(),
                held,
                doubtful(&[BeforeAnswer]),
                doubtful(&[Stale, Ahead]),
                doubtful(&[Stale, Ahead]),
                doubtful(&[BeforeAnswer, Late]),
            ],
            "what the service let happen, and what Keyledger says of it"
        );
    });
}

#[test]
fn only_what_role_and_policy_leave_to_it_may_be_kept() {
    scenario(async |d| {
        let replica = allow(d, 30).await;
        let (_, gateway) = gateway(&replica).await;
        let admin = replica.admin();
        let never = async |caller: &Caller, request: VerifyKeyRequest| {
            let answer = caller.call(request).await.unwrap();
            assert_eq!(answer.kept, None);
            answer.decision()
        };
        let limited = |key: CreateKeyRequest| CreateKeyRequest {
            restrictions: Some(Restrictions { max_uses: 100, ..Default::default() }),
            ..key
        };
        let grants = || vec![grant("audit.read", "logs/*")];
        admin.call(role("strict", grants())).await.unwrap();
        for key in [reader("strict"), service_key("own", grants()), limited(reader("readers"))] {
            let token = admin.call(key).await.unwrap().token;
            assert_eq!(never(&gateway, keep(&token, 30)).await, Decision::Allow);
        }
        let token = admin.call(reader("readers")).await.unwrap().token;
        assert_eq!(never(&gateway, check(&token)).await, Decision::Allow, "nobody asked");
        let other = VerifyKeyRequest { resource: "other".into(), ..keep(&token, 30) };
        assert_eq!(never(&gateway, other).await, Decision::Deny);
        let counted = limited(service_key("counted", vec![grant("keys.verify", "keys")]));
        let counted = replica.caller(&admin.call(counted).await.unwrap().token);
        assert_eq!(never(&counted, keep(&token, 30)).await, Decision::Allow);
        let both = VerifyKeyRequest { max_staleness: Some(seconds(1)), ..keep(&token, 1) };
        for bad in [both, keep(&token, 61), keep(&token, -1)] {
            assert_eq!(refused(gateway.call(bad).await).fields, ["keep"]);
        }
        // No longer than the key lives.
        let short = create_key_request::Expiry::Ttl(seconds(5));
        let short = CreateKeyRequest { expiry: Some(short), ..reader("readers") };
        let token_of_short = admin.call(short).await.unwrap().token;
        let (_, of_short) = kept(&gateway, &token_of_short, 30).await;
        assert!(of_short.max_staleness.unwrap().seconds < 5, "{of_short:?}");
        // Once the policy doesn't any more, nothing is.
        let policy = LedgerPolicy { max_staleness: Some(seconds(0)), ..Default::default() };
        admin.call(update_policy(&["max_staleness"], policy)).await.unwrap();
        assert_eq!(never(&gateway, keep(&token, 30)).await, Decision::Allow);
    });
}

#[test]
fn a_receipt_proves_something_only_in_the_hands_of_who_got_it() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (_, gateway) = gateway(&replica).await;
        let admin = replica.admin();
        let token = admin.call(reader("readers")).await.unwrap().token;
        let (_, open) = kept(&gateway, &token, 60).await;
        let session = new_session_id();
        let bad = async |caller: &Caller, uses: Vec<ReportedUse>, field: &str| {
            let refusal = refused(caller.call(report(&session, 0, uses)).await);
            assert_eq!(refusal.fields, [field]);
        };
        let spoilt = |at: usize| {
            let mut kept = open.clone();
            kept.receipt[at] ^= 1;
            used(&kept, 0)
        };
        let last = open.receipt.len() - 1;
        for at in [0, 31, 32, last] {
            bad(&gateway, vec![used(&open, 0), spoilt(at)], "uses[1].receipt").await;
        }
        let short = ReportedUse { receipt: vec![7; 31], ..used(&open, 0) };
        bad(&gateway, vec![short], "uses[0].receipt").await;
        bad(&admin, vec![used(&open, 0)], "uses[0].receipt").await;
        let both = vec![spoilt(0), used(&open, 0), spoilt(last)];
        let refusal = refused(gateway.call(report(&session, 0, both)).await);
        assert_eq!(refusal.fields, ["uses[0].receipt", "uses[2].receipt"]);
        // A key of the system ledger reports there alone.
        let elsewhere = replica.system_admin();
        bad(&elsewhere, vec![used(&open, 0)], "uses[0].receipt").await;
        // Where it matters where a key is used from, the answer is for that address.
        let networks = vec!["203.0.113.0/24".into()];
        let restricted = CreateKeyRequest {
            restrictions: Some(Restrictions { networks, ..Default::default() }),
            ..reader("readers")
        };
        let token = admin.call(restricted).await.unwrap().token;
        let (_, here) = kept(&gateway, &token, 60).await;
        assert!(!here.any_address);
        let there = ReportedUse { client_address: "203.0.113.8".into(), ..used(&here, 0) };
        bad(&gateway, vec![there], "uses[0].client_address").await;
        assert!(reported(d).await.is_empty(), "nothing of such a call is recorded");
        gateway.call(report(&session, 0, vec![used(&here, 0), used(&open, 0)])).await.unwrap();
        assert_eq!(reported(d).await.len(), 2);
    });
}

#[test]
fn uses_of_an_answer_that_stands_there_no_more_are_refused_each_by_its_index() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (_, gateway) = gateway(&replica).await;
        let token = replica.admin().call(reader("readers")).await.unwrap().token;
        let (answer, gone) = kept(&gateway, &token, 60).await;
        let (_, there) = kept(&gateway, &token, 60).await;
        // As after a restore, when another page has come to stand at that position.
        let superuser = d.superuser().await;
        let moved = async |by: &str| {
            let position = answer.position.unwrap();
            let sql = format!(
                "SET session_replication_role = replica;
                 ALTER TABLE entries DISABLE TRIGGER append_only;
                 UPDATE entries SET time_us = time_us {by} WHERE position = {position}
                     AND ledger_id = (SELECT ledger_id FROM ledgers WHERE number = 1);
                 ALTER TABLE entries ENABLE ALWAYS TRIGGER append_only"
            );
            superuser.batch_execute(&sql).await.unwrap();
        };
        let session = new_session_id();
        let uses = || vec![used(&there, 0), used(&gone, 0), used(&there, 1), used(&gone, 1)];
        moved("+ 1").await;
        let refusal = refused(gateway.call(report(&session, 0, uses())).await);
        assert_eq!(refusal.fields, ["uses[1].receipt", "uses[3].receipt"]);
        assert!(reported(d).await.is_empty(), "nothing of such a call is recorded");
        moved("- 1").await;
        let all = gateway.call(report(&session, 0, uses())).await.unwrap();
        assert_eq!(all.recorded, Some(4));
    });
}

#[test]
fn who_may_not_check_keys_reports_none() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (gateway_id, gateway) = gateway(&replica).await;
        let token = replica.admin().call(reader("readers")).await.unwrap().token;
        let (_, kept) = kept(&gateway, &token, 60).await;
        let fewer = UpdateKeyRequest {
            grants: vec![grant("keys.read", "keys")],
            ..update(&gateway_id, &["grants"])
        };
        replica.admin().call(fewer).await.unwrap();
        refused(gateway.call(report(&new_session_id(), 0, vec![used(&kept, 0)])).await)
            .with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        let reader = replica.caller(&token);
        let end = ReportUsesRequest { end: true, ..report(&new_session_id(), 0, vec![]) };
        refused(reader.call(end).await).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
        assert!(reported(d).await.is_empty());
    });
}

#[test]
fn a_session_that_is_over_stays_over_and_there_are_not_too_many() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (_, gateway) = gateway(&replica).await;
        let token = replica.admin().call(reader("readers")).await.unwrap().token;
        let (_, kept) = kept(&gateway, &token, 60).await;
        let over = async |request: ReportUsesRequest| {
            refused(gateway.call(request).await)
                .with(Code::FailedPrecondition, ErrorReason::ReportSessionOver);
        };
        let use_of = |n: i64| vec![used(&kept, n)];
        let session = new_session_id();
        gateway.call(report(&session, 0, use_of(0))).await.unwrap();
        let last = ReportUsesRequest { end: true, ..report(&session, 1, use_of(1)) };
        assert_eq!(gateway.call(last.clone()).await.unwrap().recorded, Some(2));
        assert_eq!(gateway.call(last).await.unwrap().recorded, Some(2), "as before");
        assert_eq!(gateway.call(report(&session, 0, use_of(0))).await.unwrap().recorded, Some(2));
        over(report(&session, 2, use_of(2))).await;
        // One that nobody knows doesn't begin in the middle, nor with an id that was made long ago, or ahead.
        over(report(&new_session_id(), 1, use_of(0))).await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_millis() as u64;
        for made in [now - 600_000, now + 600_000] {
            over(report(&session_id_of(made), 0, use_of(0))).await;
        }
        for _ in 1..64 {
            gateway.call(report(&new_session_id(), 0, use_of(0))).await.unwrap();
        }
        let refusal = refused(gateway.call(report(&new_session_id(), 0, use_of(0))).await);
        let refusal = refusal.with(Code::ResourceExhausted, ErrorReason::ReportSessions);
        assert_eq!(refusal.metadata["most"], "64");
        assert!(refusal.retry);
        assert_eq!(reported(d).await.len(), 2 + 63);
    });
}

#[test]
fn many_reports_at_once_fill_more_than_one_page() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let (_, gateway) = gateway(&replica).await;
        let token = replica.admin().call(reader("readers")).await.unwrap().token;
        let (_, kept) = kept(&gateway, &token, 60).await;
        let uses = |n: i64| ReportedUse {
            client_address: String::new(),
            client_user_agent: String::new(),
            reason: String::new(),
            ..used(&kept, n)
        };
        let reports = (0..12).map(|_| {
            let uses = (0..1_000).map(uses).collect();
            gateway.call(report(&new_session_id(), 0, uses))
        });
        for reply in futures_util::future::join_all(reports).await {
            assert_eq!(reply.unwrap().recorded, Some(1_000));
        }
        let uses = reported(d).await;
        assert_eq!(uses.len(), 12_000);
        assert!(uses.iter().all(|u| doubts(u).is_empty()));
    });
}
