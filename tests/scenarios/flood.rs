//! A flood of refusals. `KEYLEDGER_FLOOD=1000000` makes it a long one.

use futures_util::{StreamExt, stream};
use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;

/// Calls in flight.
const AT_ONCE: usize = 3_000;
const CONNECTIONS: usize = 30;

#[test]
fn a_flood_of_refusals_leaves_few_rows_and_exact_counts_while_others_are_served() {
    let calls = std::env::var("KEYLEDGER_FLOOD").map_or(12_000, |n| n.parse().expect("a number"));
    scenario(async move |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let weak = admin.call(service_key("weak", vec![])).await.unwrap();
        let target = admin.call(user_key("alice@example.com")).await.unwrap();
        let callers: Vec<Caller> =
            (0..CONNECTIONS).map(|_| replica.caller_on_new_connection(&weak.token)).collect();
        let good = replica.caller_on_new_connection(&d.tokens.admin);
        let (mark, begun) = (d.mark().await, std::time::Instant::now());
        let flood = stream::iter(0..calls).map(|n: usize| {
            let caller = callers[n % CONNECTIONS].clone();
            async move { caller.call(ListEventsRequest::default()).await }
        });
        let mut flood = flood.buffer_unordered(AT_ONCE);
        let (mut refusals, mut answers) = (0u64, 0);
        while let Some(answer) = flood.next().await {
            refused(answer).with(Code::PermissionDenied, ErrorReason::PermissionDenied);
            refusals += 1;
            if refusals % 100 == 0 {
                let verdict = good.call(check(&target.token)).await.unwrap();
                assert_eq!(verdict.decision(), Decision::Allow);
                answers += 1;
            }
        }
        let seconds = begun.elapsed().as_secs() + 2;
        // Besides, Keyledger tells the counts of categories once a minute.
        let left = d.since(&mark).await.remove(&1).expect("it was flooded");
        let refused = |record: &Record| match record {
            Record::Use { r#use, .. } if verdict(r#use).1 == DecisionReason::NoGrant => {
                Some(u64::from(r#use.count.max(1)))
            }
            _ => None,
        };
        let counts: Vec<u64> = left.iter().filter_map(refused).collect();
        let (rows, counted) = (counts.len() as u64, counts.iter().sum::<u64>());
        println!("{refusals} refusals in {rows} rows, {answers} others answered");
        assert_eq!(counted, refusals, "each refusal is counted once");
        // Ten of their own and one shared in each second.
        assert!(rows <= 11 * seconds, "{rows} rows in {seconds} s");
    });
}
