//! Tells at an interval how many events of each category a ledger holds, if it has grown. Every replica wants to; the first one
//! does, since `decide` tells the others that it was done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keyledger_ledger::category::COUNT_INTERVAL;
use keyledger_ledger::command::{Change, ChangeKind};

use super::intervals::at_intervals;
use super::{Ledger, SequencerError};
use crate::replica::{by_itself, own_clock};
use crate::sealing::random;

/// How often it looks whether the ledger has grown.
const INTERVAL: Duration = Duration::from_micros(COUNT_INTERVAL as u64);

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    // Whoever asks before has the counts told.
    tokio::time::sleep(INTERVAL).await;
    let count = |ledger: Arc<Ledger>| async move { ledger.count_categories().await };
    at_intervals(ledger, INTERVAL, "the events of categories could not be counted", count).await;
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
