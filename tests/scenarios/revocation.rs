//! A revoked key is never accepted again, on any replica, from the moment its revocation was answered.
//!
//! 1,000 rounds; `KEYLEDGER_ROUNDS=10000 cargo test -p keyledger-tests --test scenarios revocation` runs more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;
use prost::Message;
use tonic::Code;

use crate::harness::*;

/// Rounds that run side by side.
const LANES: usize = 16;
/// Callers who do nothing but check a key that stands.
const LOAD: usize = 8;

#[test]
fn a_key_revoked_through_one_replica_is_refused_by_the_other_in_the_very_next_call() {
    scenario(async |d| {
        let replicas = [d.replica().await, d.replica().await];
        let done = Arc::new(AtomicBool::new(false));
        let standing = replicas[0].admin().call(user_key("bob@example.com")).await.unwrap().token;
        let load = (0..LOAD).map(|n| {
            let caller = replicas[n % 2].caller_on_new_connection(&d.tokens.admin);
            tokio::spawn(keep_checking(caller, standing.clone(), done.clone()))
        });
        let load: Vec<_> = load.collect();
        let lanes = (0..LANES).map(|lane| {
            let (a, b) = (replicas[lane % 2].clone(), replicas[1 - lane % 2].clone());
            let rounds = rounds() / LANES + usize::from(lane < rounds() % LANES);
            tokio::spawn(async move {
                for round in 0..rounds {
                    refused_in_the_next_call(&a, &b, round % 2 == 0).await;
                }
            })
        });
        for lane in join_all(lanes).await {
            lane.expect("no lane panics");
        }
        done.store(true, Ordering::Relaxed);
        for caller in load {
            assert!(caller.await.expect("no caller panics") > 0, "there was load");
        }
    });
}

fn rounds() -> usize {
    std::env::var("KEYLEDGER_ROUNDS").map_or(1_000, |n| n.parse().expect("a number of rounds"))
}

async fn keep_checking(caller: Caller, token: String, done: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !done.load(Ordering::Relaxed) {
        let verdict = caller.call(check(&token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);
        calls += 1;
    }
    calls
}

/// Replica B has accepted the key. Once it is revoked through A, the next call to B refuses it: as the key that is asked
/// about or, in every other round, as the key of the caller.
async fn refused_in_the_next_call(a: &Replica, b: &Replica, as_subject: bool) {
    let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
    let (holder, asker) = (b.caller(&made.token), b.admin());
    let verdict = asker.call(check(&made.token)).await.unwrap();
    assert_eq!(verdict.decision(), Decision::Allow);
    holder.call(WhoAmIRequest {}).await.unwrap();

    a.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
    if !as_subject {
        refused(holder.call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
    }
    is_revoked(asker.call(check(&made.token)).await.unwrap());
    if as_subject {
        refused(holder.call(WhoAmIRequest {}).await)
            .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
    }
}

#[track_caller]
fn is_revoked(verdict: VerifyKeyResponse) {
    assert_eq!(
        (verdict.decision(), verdict.reason()),
        (Decision::Deny, DecisionReason::Revoked),
        "{verdict:?}"
    );
}

#[test]
fn a_call_that_reached_a_stopped_replica_before_the_revocation_is_denied_when_it_goes_on() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        for _ in 0..3 {
            let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
            let (asker, holder) = (b.admin(), b.caller_on_new_connection(&made.token));
            let verdict = asker.call(check(&made.token)).await.unwrap();
            assert_eq!(verdict.decision(), Decision::Allow);
            holder.call(WhoAmIRequest {}).await.unwrap();

            b.freeze();
            let question = check(&made.token);
            let size = question.encoded_len();
            let asked = tokio::spawn(async move { asker.call(question).await });
            let held = tokio::spawn(async move { holder.call(WhoAmIRequest {}).await });
            while unread(&b).is_some_and(|bytes| bytes < size) {
                assert!(!asked.is_finished(), "the call reaches the stopped replica");
                tokio::task::yield_now().await;
            }
            a.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
            b.thaw();
            is_revoked(asked.await.unwrap().unwrap());
            refused(held.await.unwrap())
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
        }
    });
}

/// Bytes that the kernel holds for a server and that it hasn't read (Linux: proc(5), `/proc/net/tcp`). `None` where that
/// can't be seen.
fn unread(replica: &Replica) -> Option<usize> {
    let (_, port) = replica.address.rsplit_once(':')?;
    let port = format!(":{:04X}", port.parse::<u16>().ok()?);
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let queued = table.lines().skip(1).filter_map(|line| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let (_, received) = columns.nth(2)?.split_once(':')?;
        local.ends_with(&port).then(|| usize::from_str_radix(received, 16).ok())?
    });
    Some(queued.max().unwrap_or(0))
}

#[test]
fn a_replica_stopped_while_it_holds_the_lock_loses_it_and_allows_nothing_when_it_goes_on() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let made = a.admin().call(user_key("alice@example.com")).await.unwrap();
        let asker = b.admin();
        let verdict = asker.call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);

        // We hold the lock until B waits for it with the call, and B is stopped: then the lock is B's.
        let mut client = d.superuser().await;
        let lock = client.transaction().await.unwrap();
        lock.execute("SELECT FROM ledgers WHERE number = 1 FOR UPDATE", &[]).await.unwrap();
        let question = check(&made.token);
        let queued = tokio::spawn({
            let asker = asker.clone();
            async move { asker.call(question).await }
        });
        let observer = d.superuser().await;
        while waiting_for_a_lock(&observer).await == 0 {
            assert!(!queued.is_finished(), "the call waits for the lock");
        }
        b.freeze();
        lock.rollback().await.unwrap();

        a.admin().call(revoke(&made.key.unwrap().key_id)).await.unwrap();
        b.thaw();
        // Its batch was rolled back when it lost the lock: callers are told to come back, or the verdict is made anew.
        match queued.await.unwrap() {
            Ok(verdict) => is_revoked(verdict),
            lost => {
                let lost = refused(lost);
                assert!(lost.code == Code::Unavailable && lost.retry, "{lost:?}");
            }
        }
        is_revoked(asker.call(check(&made.token)).await.unwrap());
    });
}

/// Sessions that wait for a lock.
async fn waiting_for_a_lock(observer: &tokio_postgres::Client) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    observer.query_one(waiting, &[]).await.unwrap().get(0)
}
