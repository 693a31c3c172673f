//! Where the operator's own variables name a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`, …), each ledger has a forwarder to it, also
//! a ledger that is opened later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use keyledger_proto::parse::EventFilter;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{Forwarder, Pace, Target};
use super::otlp::Otlp;
use super::run::{Running, Shared};
use crate::sequencer::Ledger;
use crate::telemetry::config;

/// How the forwarder of each ledger is called.
pub(super) const NAME: &str = "otlp";
/// How often it is looked for ledgers that were opened.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until it is told to stop.
pub(super) async fn run(shared: Shared, to: config::Otlp, mut stop: watch::Receiver<bool>) {
    let timeout = to.timeout;
    let otlp = Arc::new(Otlp::of_operator(to));
    let (mut tasks, mut known) = (JoinSet::new(), HashSet::new());
    let mut look = tokio::time::interval(LOOK);
    // All that happens in a ledger that was opened while we run is sent.
    let mut is_new = false;
    loop {
        for ledger in shared.replica.all() {
            if known.insert(ledger.id) {
                let forwarder = Arc::new(forwarder(&ledger, is_new, timeout, otlp.clone()));
                let running = Running { shared: shared.clone(), ledger, forwarder };
                tasks.spawn(running.run(stop.clone()));
            }
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = look.tick() => is_new = true,
        }
    }
    while tasks.join_next().await.is_some() {}
}

fn forwarder(ledger: &Ledger, is_new: bool, timeout: Duration, otlp: Arc<Otlp>) -> Forwarder {
    let info = &ledger.snapshot().state.ledger;
    Forwarder {
        name: NAME.into(),
        ledger: info.as_ref().map(|info| info.name.clone()).unwrap_or_default(),
        from_beginning: is_new,
        categories: vec![],
        filter: EventFilter::default(),
        notice: None,
        pace: Pace {
            lease: Duration::from_secs(30),
            retry_initial: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            timeout,
        },
        target: Target::Otlp(otlp),
    }
}
