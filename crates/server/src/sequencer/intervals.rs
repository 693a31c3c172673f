//! What every replica does for a ledger at an interval.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior::Delay;

use super::Ledger;

/// Works at an interval, at once for the first time, until the ledger is dropped or stopped. What has failed is logged, and tried
/// again the next time.
pub(super) async fn at_intervals<W, F, E>(
    ledger: Weak<Ledger>,
    interval: Duration,
    failed: &'static str,
    mut work: W,
) where
    W: FnMut(Arc<Ledger>) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(Delay);
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if ledger.stopped().is_some() {
            return;
        }
        if let Err(error) = work(ledger).await {
            tracing::warn!(%error, "{failed}");
        }
    }
}
