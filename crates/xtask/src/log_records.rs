//! From the collector's files: what happened left as log records, and what came as a log record stands in the ledger.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::example_story::word_after;
use crate::examples::Example;
use crate::grpcurl::Grpcurl;
use crate::process::Result;
use crate::replies::{ensure, passed};
use crate::telemetry::{Record, records_in};
use crate::traces::{Event, events_of_trace};

/// A record leaves after the commit, and the collector writes files once a second.
const LIMIT: Duration = Duration::from_secs(60);
const CHECKPOINT: &str = "keyledger.checkpoint";

/// Waits until a checkpoint that covers this position has arrived: it closes the batch of records that holds it.
pub(crate) fn wait_until_covered(files: &Path, position: u64) -> Result {
    let deadline = Instant::now() + LIMIT;
    let covers = |record: &Record| {
        let size = record.attributes.get("keyledger.checkpoint.size");
        record.event_name == CHECKPOINT
            && size.and_then(|size| size.parse().ok()).is_some_and(|size: u64| size > position)
    };
    while !records_in(files)?.iter().any(covers) {
        ensure(Instant::now() < deadline, || {
            let seconds = LIMIT.as_secs();
            format!("no log record of a checkpoint over position {position} within {seconds} s")
        })?;
        thread::sleep(Duration::from_millis(500));
    }
    passed(&format!("a checkpoint over position {position} came as a log record"));
    Ok(())
}

/// Each event has a record that names the same span, the entry, its leaf and its signature.
pub(crate) fn tell_of(records: &[Record], trace_id: &str, events: &[Event]) -> Result {
    for event in events {
        let is_it = |record: &&Record| {
            let attribute = |name: &str| record.attributes.get(name).unwrap_or_default();
            record.service == "keyledger"
                && record.event_name == format!("keyledger.{}", event.name)
                && record.trace_id == trace_id
                && record.span_id == event.span_id
                && attribute("keyledger.entry.position") == event.position.to_string()
                && attribute("keyledger.key.id") == event.key_id
                && attribute("keyledger.category") == event.category
        };
        let record = records.iter().find(is_it);
        let record = record.ok_or_else(|| format!("no log record of {event:?} in {trace_id}"))?;
        for name in ["keyledger.entry.leaf_hash", "keyledger.entry.signature"] {
            ensure(record.attributes.get(name).is_some(), || format!("no {name}: {record:?}"))?;
        }
    }
    passed(&format!("log records of the {} events of trace {trace_id}", events.len()));
    Ok(())
}

/// A service logs to the collector, which sends it on; gives the trace and what the ledger holds of it.
pub(crate) fn come_in(
    service: &Example,
    collector: &str,
    client: &Grpcurl,
) -> Result<(String, Vec<Event>)> {
    let said = service.run_with_logs_to(collector)?;
    let trace_id = word_after(&said, "trace")?;
    let events = events_of_trace(client, &trace_id)?;
    let [event] = &events[..] else {
        return Err(format!("one event, not these, should stand in the ledger: {events:?}"));
    };
    let said = [&event.name, &event.category, &event.action, &event.user];
    let wanted = ["event.recorded", "services/payroll", "payslip.deleted", "alice@example.com"];
    ensure(said == wanted, || format!("the ledger should say {wanted:?}: {event:?}"))?;
    passed(&format!("an audit log came through the collector into the ledger: {trace_id}"));
    Ok((trace_id, events))
}
