//! Tells at an interval how many events of each category a ledger holds, if it has grown. Every replica wants to; the first one
//! does, since `decide` tells the others that it was done.

use std::sync::Weak;
use std::time::Duration;

use keyledger_ledger::category::COUNT_INTERVAL;
use keyledger_ledger::command::{Change, ChangeKind};

use super::{Ledger, SequencerError};
use crate::replica::{by_itself, own_clock};
use crate::sealing::random;

/// How often it looks whether the ledger has grown.
const INTERVAL: Duration = Duration::from_micros(COUNT_INTERVAL as u64);

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once. Whoever asks before the second has the counts told.
    interval.tick().await;
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if ledger.stopped().is_some() {
            return;
        }
        if let Err(error) = ledger.count_categories().await {
            tracing::warn!(%error, "the events of categories could not be counted");
        }
    }
}

impl Ledger {
    /// Has the counts of categories told, unless that was done less than a minute ago, or nothing has happened since.
    pub(crate) async fn count_categories(&self) -> Result<(), SequencerError> {
        let state = &self.snapshot().state;
        if state.counts.is_due(state.next_position, own_clock().max(state.newest_time)) {
            let count = ChangeKind::CountCategories { seed: random() };
            by_itself(self, Change::new(count, vec![])).await?;
        }
        Ok(())
    }
}
