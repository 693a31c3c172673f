//! Answers that a service keeps: given again only while WatchKeys tells of every change, only where they may be, and each use
//! of them in the ledger once.

use std::time::Duration;

use keyledger_client::{Ask, Guard, GuardConfig, Keeping, Refusal, Source, Verified};
use keyledger_ledger::body::Use;
use keyledger_proto::entry::DecisionReason;
use keyledger_proto::*;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};

use super::guard;
use super::road::Road;
use crate::harness::*;

/// A replica on whose ledger holders of the role `readers` may be answered from what was kept.
async fn allowing(d: &Deployment) -> std::sync::Arc<Replica> {
    let replica = d.replica().await;
    let policy = LedgerPolicy { max_staleness: Some(seconds(60)), ..Default::default() };
    replica.admin().call(update_policy(&["max_staleness"], policy)).await.unwrap();
    let readers = CreateRoleRequest {
        max_staleness: Some(seconds(60)),
        ..role("readers", vec![grant("audit.read", "logs/*")])
    };
    replica.admin().call(readers).await.unwrap();
    replica
}

/// A key with that role alone.
fn reader() -> CreateKeyRequest {
    CreateKeyRequest { roles: vec!["readers".into()], ..service_key("reader", vec![]) }
}

/// A guard that keeps answers for up to a minute.
async fn keeping(replica: &Replica, endpoint: &str, keeping: Keeping) -> Guard {
    let grants = ["keys.verify", "keys.explain", "keys.read"].map(|name| grant(name, "keys"));
    let key = replica.admin().call(service_key("shop/gateway", grants.to_vec())).await.unwrap();
    let config = GuardConfig {
        patience: Duration::from_millis(500),
        keeping: Some(Keeping { longest: Duration::from_secs(60), ..keeping }),
        ..GuardConfig::default()
    };
    guard(endpoint, &key.token, config)
}

fn endpoint(replica: &Replica) -> String {
    format!("http://{}", replica.address)
}

fn ask() -> Ask {
    Ask::new("audit.read", "logs/error")
}

fn from(last: u8) -> Source {
    Source { address: Some([203, 0, 113, last].into()), user_agent: "reader/1".into() }
}

/// Asks until it is answered from what was kept: not before the stream of changes stands.
async fn kept(guard: &Guard, token: &str) -> Verified {
    loop {
        match guard.check(token, &ask(), &from(7)).await {
            Ok(verified) if verified.kept => return verified,
            Ok(_) | Err(Refusal::Unavailable { .. }) => {}
            Err(refusal) => panic!("{refusal:?}"),
        }
    }
}

/// All uses of a key by a check: strict ones, and those that were reported, in the order of their numbers.
async fn checks(d: &Deployment, key_id: &str) -> (Vec<Use>, Vec<Use>) {
    let key_id = uuid::Uuid::parse_str(key_id).unwrap();
    let records = d.records(1).await.into_iter();
    let uses = records.filter_map(|record| match record {
        Record::Use { r#use, .. } if r#use.key_id == key_id.as_bytes() => Some(*r#use),
        _ => None,
    });
    let (mut reported, strict): (Vec<Use>, Vec<Use>) = uses.partition(|u| u.reported.is_some());
    reported.sort_by_key(|u| u.reported.as_ref().unwrap().number);
    (strict, reported)
}

#[test]
fn each_use_of_an_answer_that_was_kept_is_in_the_ledger_once() {
    scenario(async |d| {
        let replica = allowing(d).await;
        let made = replica.admin().call(reader()).await.unwrap();
        let guard = keeping(&replica, &endpoint(&replica), Keeping::default()).await;
        let answer = kept(&guard, &made.token).await;
        let key_id = made.key.unwrap().key_id;
        assert_eq!((answer.key_id.as_str(), answer.matched_role.as_str()), (&*key_id, "readers"));
        let (trace, span) = (TraceId::from(7), SpanId::from(8));
        let here = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
        let here = Context::new().with_remote_span_context(here);
        let (question, source) = (ask(), from(7));
        // A stream that was silent for a moment makes an answer strict, here and below.
        loop {
            let traced = guard.check(&made.token, &question, &source).with_context(here.clone());
            if traced.await.unwrap().kept {
                break;
            }
        }
        // The two that were kept, and of all addresses: the key isn't restricted to networks.
        let mut given = 2;
        for call in 0..1_500 {
            given +=
                u64::from(guard.check(&made.token, &ask(), &from(call as u8)).await.unwrap().kept);
        }
        let other = Ask::new("audit.read", "logs/payroll");
        assert!(!guard.check(&made.token, &other, &from(7)).await.unwrap().kept);
        assert!(!guard.check(&made.token, &ask().strictly(), &from(7)).await.unwrap().kept);
        guard.close().await.unwrap();
        assert!(!guard.check(&made.token, &ask(), &from(7)).await.unwrap().kept, "closed");

        let (_, reported) = checks(d, &key_id).await;
        let numbers: Vec<u64> =
            reported.iter().map(|u| u.reported.as_ref().unwrap().number).collect();
        assert_eq!(numbers, (0..given).collect::<Vec<_>>(), "each once, in order");
        for u in &reported {
            let reported = u.reported.as_ref().unwrap();
            assert!(reported.doubts.is_empty(), "{u:?}");
            assert_eq!(verdict(u).1, DecisionReason::Granted);
        }
        assert_eq!(reported[1].trace_id, 7_u128.to_be_bytes());
        assert_eq!(reported[1].span_id, 8_u64.to_be_bytes());
    });
}

#[test]
fn a_revocation_ends_what_was_kept_of_its_key_long_before_it_would_have_run_out() {
    scenario(async |d| {
        let (a, b) = (allowing(d).await, d.replica().await);
        let revoked = a.admin().call(reader()).await.unwrap();
        let other = a.admin().call(reader()).await.unwrap();
        let guard = keeping(&a, &endpoint(&b), Keeping::default()).await;
        kept(&guard, &other.token).await;
        kept(&guard, &revoked.token).await;
        let key_id = revoked.key.unwrap().key_id;
        a.admin().call(revoke(&key_id)).await.unwrap();
        // No later than the stream tells of it, and a minute before what was kept would have run out.
        let refusal = loop {
            if let Err(refusal) = guard.check(&revoked.token, &ask(), &from(7)).await {
                break refusal;
            }
        };
        assert_eq!(refusal, Refusal::NotValid(DecisionReason::Revoked));
        kept(&guard, &other.token).await;
        guard.check(&revoked.token, &ask(), &from(7)).await.unwrap_err();
        guard.close().await.unwrap();
        let (_, reported) = checks(d, &key_id).await;
        assert!(!reported.is_empty());
        assert!(reported.iter().all(|u| u.reported.as_ref().unwrap().doubts.is_empty()));
    });
}

#[test]
fn nothing_kept_is_given_while_the_stream_of_changes_is_broken_or_silent() {
    scenario(async |d| {
        let replica = allowing(d).await;
        let made = replica.admin().call(reader()).await.unwrap();
        let road = Road::to(&replica.address).await;
        let guard = keeping(&replica, &road.endpoint, Keeping::default()).await;
        let break_it: [&dyn Fn(); 2] = [&|| road.cut(), &|| replica.freeze()];
        let mend_it: [&dyn Fn(); 2] = [&|| road.lead_to(&replica.address), &|| replica.thaw()];
        for (break_it, mend_it) in break_it.into_iter().zip(mend_it) {
            kept(&guard, &made.token).await;
            break_it();
            // Until it is noticed; then nothing, not even what was kept a moment ago.
            while let Ok(verified) = guard.check(&made.token, &ask(), &from(7)).await {
                assert!(verified.kept, "nobody is there to be asked");
            }
            for _ in 0..3 {
                let refused = guard.check(&made.token, &ask(), &from(7)).await;
                assert!(matches!(refused, Err(Refusal::Unavailable { .. })), "{refused:?}");
            }
            mend_it();
        }
        kept(&guard, &made.token).await;
        guard.close().await.unwrap();
    });
}

#[test]
fn what_is_counted_or_not_given_by_such_a_role_is_never_kept() {
    scenario(async |d| {
        let replica = allowing(d).await;
        let admin = replica.admin();
        let guard = keeping(&replica, &endpoint(&replica), Keeping::default()).await;
        let uncounted = admin.call(reader()).await.unwrap();
        kept(&guard, &uncounted.token).await;
        let limited =
            |restrictions| CreateKeyRequest { restrictions: Some(restrictions), ..reader() };
        let uses = entry::Restrictions { max_uses: 100, ..Default::default() };
        let networks = vec!["203.0.113.0/28".to_string()];
        let networks = entry::Restrictions { networks, ..Default::default() };
        let own = service_key("own", vec![grant("audit.read", "logs/*")]);
        for request in [limited(uses), own] {
            let token = admin.call(request).await.unwrap().token;
            for _ in 0..5 {
                assert!(!guard.check(&token, &ask(), &from(7)).await.unwrap().kept);
            }
        }
        // Of a key that is restricted to networks an answer is for one address.
        let token = admin.call(limited(networks)).await.unwrap().token;
        kept(&guard, &token).await;
        assert!(!guard.check(&token, &ask(), &from(8)).await.unwrap().kept);
        guard.check(&token, &ask(), &from(99)).await.unwrap_err();
        guard.close().await.unwrap();
    });
}

#[test]
fn when_as_many_uses_wait_as_may_checks_are_strict_and_none_is_lost() {
    scenario(async |d| {
        let replica = allowing(d).await;
        let made = replica.admin().call(reader()).await.unwrap();
        let few = Keeping {
            unreported: 5,
            report_every: Duration::from_secs(3_600),
            ..Keeping::default()
        };
        let guard = keeping(&replica, &endpoint(&replica), few).await;
        for _ in 0..5 {
            kept(&guard, &made.token).await;
        }
        for _ in 0..20 {
            assert!(!guard.check(&made.token, &ask(), &from(7)).await.unwrap().kept);
        }
        guard.close().await.unwrap();
        let (_, reported) = checks(d, &made.key.unwrap().key_id).await;
        assert_eq!(reported.len(), 5);
    });
}
