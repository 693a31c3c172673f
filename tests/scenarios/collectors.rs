//! Telemetry fails open: a collector that is away, that says nothing or that refuses costs no call, and no memory that grows.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use keyledger_ledger::body::Decision;
use tokio::net::TcpListener;

use crate::harness::*;

/// Calls before memory is measured, and after.
const WARM_UP: usize = 2_000;
const CALLS: usize = 6_000;
/// Calls at once.
const AT_ONCE: usize = 64;
/// Most bytes by which a server may grow meanwhile.
const MOST_GROWTH: u64 = 64 << 20;

/// A server that samples every trace and exports all it can, often.
async fn talkative(d: &Deployment, endpoint: &str) -> Arc<Replica> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "50"),
    ];
    d.replica_with_all(&variables).await
}

/// Asks so often whether a key is allowed what it is. Each call is answered, and says that it is.
async fn ask(admin: &Caller, token: &str, calls: usize) {
    let mut asked = 0;
    let mut open = FuturesUnordered::new();
    while asked < calls || !open.is_empty() {
        while asked < calls && open.len() < AT_ONCE {
            open.push(admin.call(check(token)));
            asked += 1;
        }
        let verdict = open.next().await.expect("one is open").unwrap();
        assert_eq!(verdict.decision(), Decision::Allow);
    }
}

/// Memory is measured when `trouble` begins; it must not grow much. At its end the server stops well.
async fn stands(replica: &Replica, trouble: impl FnOnce()) {
    let admin = replica.admin();
    let made = admin.call(user_key("alice@example.com")).await.unwrap();
    ask(&admin, &made.token, WARM_UP).await;
    let before = replica.resident();
    trouble();
    ask(&admin, &made.token, CALLS).await;
    let after = replica.resident();
    assert!(after <= before + MOST_GROWTH, "it grew from {before} to {after} bytes");
    let status = replica.stop().await;
    assert!(status.success(), "{status}");
}

#[test]
fn a_dead_collector_costs_no_call_and_little_memory() {
    scenario(async |d| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let replica = talkative(d, &nobody).await;
        stands(&replica, || {}).await;
    });
}

#[test]
fn a_collector_that_accepts_connections_and_says_nothing_costs_no_call_and_little_memory() {
    scenario(async |d| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}", listener.local_addr().unwrap());
        // Nobody takes the connections that the kernel accepts.
        let replica = talkative(d, &silent).await;
        stands(&replica, || {}).await;
        drop(listener);
    });
}

#[test]
fn a_collector_that_stalls_under_load_costs_no_call_and_little_memory() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = talkative(d, &collector.endpoint).await;
        stands(&replica, || collector.stall()).await;
    });
}

#[test]
fn a_collector_that_refuses_under_load_costs_no_call_and_little_memory() {
    scenario(async |d| {
        let collector = Collector::start().await;
        let replica = talkative(d, &collector.endpoint).await;
        stands(&replica, || collector.refuse()).await;
    });
}
