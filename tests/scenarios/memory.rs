//! Answers from memory: given only where they may be, never older than asked for, and each recorded exactly once.

use std::collections::BTreeMap;

use keyledger_ledger::body::Kind;
use keyledger_proto::entry::{Decision, Grant};
use keyledger_proto::*;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::harness::*;

/// Lets a role be answered for from memory, if the policy does.
async fn allow(d: &Deployment, most: i64) -> std::sync::Arc<Replica> {
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

/// A key with this role alone.
fn reader(roles: &[&str]) -> CreateKeyRequest {
    let roles = roles.iter().map(|r| r.to_string()).collect();
    CreateKeyRequest { roles, ..service_key("reader", vec![]) }
}

fn soon(token: &str, most: i64) -> VerifyKeyRequest {
    VerifyKeyRequest { max_staleness: Some(seconds(most)), ..check(token) }
}

fn micros(time: &Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000
}

/// Asks until it is answered from memory: the first answers are strict, while the replica marks that it serves so.
async fn remembered(caller: &Caller, token: &str, most: i64) -> VerifyKeyResponse {
    loop {
        let answer = caller.call(soon(token, most)).await.unwrap();
        assert_eq!(answer.decision(), Decision::Allow);
        assert_eq!(answer.as_of_time.is_some(), answer.position.is_none());
        if answer.as_of_time.is_some() {
            return answer;
        }
    }
}

/// By serving: whether it has ended, and the numbers of the uses that pages hold.
async fn servings(d: &Deployment) -> BTreeMap<Vec<u8>, (Option<u64>, Vec<u64>)> {
    let mut servings: BTreeMap<Vec<u8>, (Option<u64>, Vec<u64>)> = BTreeMap::new();
    for record in d.records(1).await {
        if let Record::Use { r#use, .. } = &record {
            if let Some(b) = &r#use.bounded {
                servings.get_mut(&b.serving_id).unwrap().1.push(b.number);
            }
            continue;
        }
        match &record.as_change().kind {
            Some(Kind::BoundedServingStarted(e)) => {
                servings.entry(e.serving_id.clone()).or_default();
            }
            Some(Kind::BoundedServingEnded(e)) => {
                servings.get_mut(&e.serving_id).unwrap().0 = Some(e.uses);
            }
            _ => {}
        }
    }
    servings
}

#[test]
fn what_is_answered_from_memory_is_recorded_exactly_once_and_its_end_is_said() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let admin = replica.admin();
        let made = admin.call(reader(&["readers"])).await.unwrap();
        let first = remembered(&admin, &made.token, 60).await;
        assert_eq!(first.matched_role, "readers");
        let mut answered = 1;
        for _ in 0..300 {
            let answer = admin.call(soon(&made.token, 60)).await.unwrap();
            answered += u64::from(answer.as_of_time.is_some());
        }
        let batch = BatchVerifyKeysRequest { requests: vec![soon(&made.token, 60); 100] };
        let answers = admin.call(batch).await.unwrap().responses;
        answered += answers.iter().filter(|a| a.as_of_time.is_some()).count() as u64;
        replica.stop().await;
        let servings = servings(d).await;
        let (ended, numbers) = servings.values().next().unwrap();
        assert_eq!((servings.len(), *ended), (1, Some(answered)));
        assert_eq!(*numbers, (0..answered).collect::<Vec<_>>(), "each once, in order");
        // Another replica starts from the projection, and goes on with a serving of its own.
        let other = d.replica().await;
        remembered(&other.admin(), &made.token, 60).await;
    });
}

#[test]
fn memory_answers_nothing_that_role_or_policy_do_not_leave_to_it() {
    scenario(async |d| {
        let replica = allow(d, 2).await;
        let admin = replica.admin();
        let made = admin.call(reader(&["readers"])).await.unwrap();
        remembered(&admin, &made.token, 60).await;
        let strictly = async |caller: &Caller, request: VerifyKeyRequest| {
            let answer = caller.call(request).await.unwrap();
            assert!(answer.as_of_time.is_none() && answer.position.is_some(), "{answer:?}");
            answer.decision()
        };
        assert_eq!(strictly(&admin, check(&made.token)).await, Decision::Allow);
        assert_eq!(strictly(&admin, soon(&made.token, 0)).await, Decision::Allow);
        // Nobody tries a token without leaving a use by asking for what no memory can give.
        let instant = Some(prost_types::Duration { seconds: 0, nanos: 1_000 });
        let instant = VerifyKeyRequest { max_staleness: instant, ..check(&made.token) };
        assert_eq!(strictly(&admin, instant).await, Decision::Allow);
        // What is denied is never an answer of memory.
        let other = VerifyKeyRequest { resource: "other".into(), ..soon(&made.token, 2) };
        assert_eq!(strictly(&admin, other).await, Decision::Deny);
        // A role that doesn't say so; a grant of the key's own; limited uses; a limited caller.
        let grants = || vec![grant("audit.read", "logs/*")];
        admin.call(role("strict", grants())).await.unwrap();
        let limited = |key: CreateKeyRequest| CreateKeyRequest {
            restrictions: Some(entry::Restrictions { max_uses: 100, ..Default::default() }),
            ..key
        };
        for key in
            [reader(&["strict"]), service_key("own", grants()), limited(reader(&["readers"]))]
        {
            let token = admin.call(key).await.unwrap().token;
            assert_eq!(strictly(&admin, soon(&token, 2)).await, Decision::Allow);
        }
        let asker: Vec<Grant> = vec![grant("keys.verify", "keys")];
        let asker = admin.call(limited(service_key("asker", asker))).await.unwrap();
        let asker = replica.caller(&asker.token);
        assert_eq!(strictly(&asker, soon(&made.token, 2)).await, Decision::Allow);
        let refusal = refused(admin.call(soon(&made.token, 61)).await);
        assert_eq!(refusal.fields, ["max_staleness"]);
        // Once the policy doesn't any more, nothing is.
        let never = LedgerPolicy { max_staleness: Some(seconds(0)), ..Default::default() };
        admin.call(update_policy(&["max_staleness"], never)).await.unwrap();
        assert_eq!(strictly(&admin, soon(&made.token, 60)).await, Decision::Allow);
    });
}

#[test]
fn a_revoked_key_passes_for_no_longer_than_was_asked_for() {
    scenario(async |d| {
        let (a, b) = (allow(d, 60).await, d.replica().await);
        for _ in 0..5 {
            let made = a.admin().call(reader(&["readers"])).await.unwrap();
            let key_id = made.key.unwrap().key_id;
            remembered(&b.admin(), &made.token, 1).await;
            a.admin().call(revoke(&key_id)).await.unwrap();
            // It is durable by now, on a machine that shares its clock with the database.
            let ended = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let ended = ended.unwrap().as_micros() as i64;
            loop {
                let answer = b.admin().call(soon(&made.token, 1)).await.unwrap();
                let Some(time) = answer.as_of_time else { break };
                let late = micros(&time) - ended;
                assert!(late <= 1_000_000, "{late} microseconds after its end");
            }
            let strict = b.admin().call(check(&made.token)).await.unwrap();
            assert_eq!(strict.decision(), Decision::Deny);
        }
    });
}

#[test]
fn while_the_database_is_away_memory_answers_no_longer_than_it_may_and_nothing_is_lost() {
    scenario(async |d| {
        let made = {
            let first = allow(d, 60).await;
            let made = first.admin().call(reader(&["readers"])).await.unwrap();
            first.stop().await;
            made
        };
        let link = Link::new(d);
        let replica = d.replica_on(&link.databases).await;
        let admin = replica.admin();
        remembered(&admin, &made.token, 60).await;
        link.freeze();
        let mut answered = 1;
        let refusal: Status = loop {
            match admin.call(soon(&made.token, 1)).await {
                Ok(answer) => answered += u64::from(answer.as_of_time.is_some()),
                Err(status) => break status,
            }
        };
        // Strictly, then, which can't be done either.
        assert_eq!(refused(Err::<(), _>(refusal)).code, Code::Unavailable);
        link.restore();
        // It goes on when the database is back.
        loop {
            match admin.call(soon(&made.token, 60)).await {
                Ok(answer) if answer.as_of_time.is_some() => break,
                _ => {}
            }
        }
        answered += 1;
        replica.stop().await;
        let servings = servings(d).await;
        let recorded: Vec<_> =
            servings.values().filter(|(_, numbers)| !numbers.is_empty()).collect();
        let (ended, numbers) = recorded[recorded.len() - 1];
        assert_eq!(*ended, Some(answered));
        assert_eq!(*numbers, (0..answered).collect::<Vec<_>>(), "each once, in order");
    });
}

#[test]
fn a_crash_leaves_a_window_that_anyone_can_see() {
    scenario(async |d| {
        let replica = allow(d, 60).await;
        let admin = replica.admin();
        let made = admin.call(reader(&["readers"])).await.unwrap();
        for _ in 0..50 {
            remembered(&admin, &made.token, 60).await;
        }
        replica.kill().await;
        let servings = servings(d).await;
        let (ended, numbers) = servings.values().next().unwrap();
        assert_eq!(*ended, None, "it never said that all is recorded");
        assert_eq!(*numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        // Whoever comes next records its own.
        let next = d.replica().await;
        remembered(&next.admin(), &made.token, 60).await;
    });
}
