//! From the collector's files: metrics count what was done, and name nobody.

use crate::example_story::Story;
use crate::process::Result;
use crate::replies::{ensure, passed};
use crate::telemetry::Metric;

/// Some of each kind; the README lists all.
const NAMES: [&str; 8] = [
    "rpc.server.call.duration",
    "db.client.operation.duration",
    "db.client.connection.count",
    "keyledger.batch.size",
    "keyledger.sequencer.lock.duration",
    "keyledger.sequencer.commit.duration",
    "keyledger.entries.appended",
    "keyledger.verdicts",
];

/// What grpcurl's session asks of VerifyKey: allowed and refused.
const IN_SESSION: (u64, u64) = (3, 3);
/// The same of each example.
const IN_EXAMPLE: (u64, u64) = (1, 2);

pub(crate) fn count_what_was_done(metrics: &[Metric], stories: &[Story]) -> Result {
    for name in NAMES {
        ensure(newest(metrics, name).is_some(), || format!("no metric {name} came"))?;
    }
    let examples = stories.len() as u64;
    let wanted = (IN_SESSION.0 + examples * IN_EXAMPLE.0, IN_SESSION.1 + examples * IN_EXAMPLE.1);
    let counted = (verdicts(metrics, "allow"), verdicts(metrics, "deny"));
    ensure(counted == wanted, || {
        format!("keyledger.verdicts should count {wanted:?} allowed and refused, not {counted:?}")
    })?;
    passed(&format!("metrics count {} allowed and {} refused", wanted.0, wanted.1));
    Ok(())
}

/// No label is ever a key, a trace or who somebody is.
pub(crate) fn name_nobody(metrics: &[Metric], stories: &[Story]) -> Result {
    let points = metrics.iter().flat_map(|metric| &metric.points);
    for (attributes, _) in points {
        for story in stories {
            let owner = format!("example/{}", story.language);
            for value in [&story.key_id, &story.trace_id, &owner] {
                ensure(!attributes.hold(value), || {
                    format!("a label says {value}: {attributes:?}")
                })?;
            }
        }
    }
    passed("no label of a metric names a key, a trace or an owner");
    Ok(())
}

/// What the newest export says.
fn newest<'a>(metrics: &'a [Metric], name: &str) -> Option<&'a Metric> {
    metrics.iter().rev().find(|metric| metric.name == name)
}

fn verdicts(metrics: &[Metric], decision: &str) -> u64 {
    let points = newest(metrics, "keyledger.verdicts").map(|metric| metric.points.as_slice());
    let points = points.unwrap_or_default().iter();
    let of_decision =
        points.filter(|(labels, _)| labels.get("keyledger.decision") == Some(decision));
    of_decision.map(|(_, count)| count).sum()
}
