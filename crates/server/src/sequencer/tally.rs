//! What this replica has done for a ledger since it started: counted here, read by metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use keyledger_ledger::batch::Batch;
use keyledger_ledger::body::{DecisionReason, Kind, MonitoringRule};
use keyledger_ledger::command::Answer;

const REASONS: usize = DecisionReason::Rate as usize + 1;
const RULES: usize = MonitoringRule::Scanning as usize + 1;

#[derive(Default)]
pub(crate) struct Tally {
    entries: AtomicU64,
    shed: AtomicU64,
    verdicts: [AtomicU64; REASONS],
    anomalies: [AtomicU64; RULES],
}

impl Tally {
    /// A batch is durable.
    pub(super) fn count(&self, batch: &Batch) {
        add(&self.entries, batch.entries.len() as u64);
        for answer in &batch.answers {
            if let Answer::Verdict(verdict) = answer {
                self.count_verdict(verdict.reason);
            }
        }
        for entry in &batch.entries {
            if let Some(Kind::AnomalyRaised(raised)) = &entry.event.kind
                && let Some(count) = self.anomalies.get(raised.rule as usize)
            {
                add(count, 1);
            }
        }
    }

    /// Somebody was told whether a key is allowed what was asked.
    pub(super) fn count_verdict(&self, reason: DecisionReason) {
        add(&self.verdicts[reason as usize], 1);
    }

    pub(super) fn count_shed(&self) {
        add(&self.shed, 1);
    }

    /// Entries that this replica has appended.
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Calls that were turned away before anyone knew whose they were.
    pub(crate) fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Verdicts by reason, as far as there were any.
    pub(crate) fn verdicts(&self) -> impl Iterator<Item = (DecisionReason, u64)> {
        counted(&self.verdicts, |reason| DecisionReason::try_from(reason).ok())
    }

    /// Anomalies that this replica has raised, by rule, as far as there were any.
    pub(crate) fn anomalies(&self) -> impl Iterator<Item = (MonitoringRule, u64)> {
        counted(&self.anomalies, |rule| MonitoringRule::try_from(rule).ok())
    }
}

fn counted<T>(counts: &[AtomicU64], of: fn(i32) -> Option<T>) -> impl Iterator<Item = (T, u64)> {
    let counts = (0..).zip(counts).map(|(number, count)| (number, count.load(Ordering::Relaxed)));
    counts
        .filter(|(_, count)| *count > 0)
        .filter_map(move |(number, count)| Some((of(number)?, count)))
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
