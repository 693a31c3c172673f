//! Counts at an interval of the policy what is to be tidied up, for those who are told by notices. Every replica wants to; the first
//! one does, since `decide` tells the others that it was done.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keyledger_ledger::body::FindingCount;
use keyledger_ledger::command::{Change, ChangeKind};
use keyledger_ledger::findings::Thresholds;

use super::intervals::at_intervals;
use super::{Ledger, SequencerError};
use crate::findings;
use crate::replica::{by_itself, own_clock};

/// How often it looks whether it is time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let look = |ledger: Arc<Ledger>| async move { digest(&ledger).await };
    at_intervals(ledger, INTERVAL, "what is to be tidied up could not be counted", look).await;
}

async fn digest(ledger: &Ledger) -> Result<(), SequencerError> {
    let (state, now) = (ledger.snapshot().state.clone(), own_clock());
    if !state.digest_is_due(now) {
        return Ok(());
    }
    let as_of = state.next_position;
    let counts = findings::count_all(ledger, Thresholds::default(), now).await?;
    let count = |(finding, count): (&str, u64)| FindingCount { finding: finding.into(), count };
    let findings = counts.into_iter().map(count).collect();
    let change = Change::new(ChangeKind::DigestFindings { findings, as_of }, vec![]);
    by_itself(ledger, change).await?;
    Ok(())
}
