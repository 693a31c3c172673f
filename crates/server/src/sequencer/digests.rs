//! Counts at an interval of the policy what is to be tidied up, for those who are told by notices. Every replica wants to; the first
//! one does, since `decide` tells the others that it was done.

use std::sync::Weak;
use std::time::Duration;

use keyledger_ledger::body::FindingCount;
use keyledger_ledger::command::{Change, ChangeKind};
use keyledger_ledger::findings::Thresholds;

use super::{Ledger, SequencerError};
use crate::findings;
use crate::replica::{by_itself, own_clock};

/// How often it looks whether it is time.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long it waits after a failure: counting reads every key.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        if ledger.stopped().is_some() {
            return;
        }
        if let Err(error) = digest(&ledger).await {
            tracing::warn!(%error, "what is to be tidied up could not be counted");
            interval.reset_after(AFTER_FAILURE);
        }
    }
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
