//! Instruments that are told of what happens. What can be looked at instead is in `gauges`. Where nothing exports metrics there are no
//! instruments: then telling costs a look whether there are.

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use tonic::Code;

use super::span::{is_error, name_of};
use crate::names;

/// Bounds in seconds that the conventions advise for calls.
const OF_CALLS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds in seconds that they advise for statements.
const OF_STATEMENTS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
const OF_BATCHES: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();

struct Instruments {
    meter: Meter,
    calls: Histogram<f64>,
    statements: Histogram<f64>,
    batch_sizes: Histogram<u64>,
    locks: Histogram<f64>,
    commits: Histogram<f64>,
}

/// From now on there are instruments.
pub(super) fn start(meter: Meter) {
    let seconds = |name, description, bounds: &[f64]| {
        let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
        histogram.with_boundaries(bounds.to_vec()).build()
    };
    let instruments = Instruments {
        calls: seconds(names::RPC_SERVER_CALL_DURATION, "Duration of calls.", &OF_CALLS),
        statements: seconds(
            names::DB_CLIENT_OPERATION_DURATION,
            "Duration of statements to Postgres.",
            &OF_STATEMENTS,
        ),
        batch_sizes: meter
            .u64_histogram(names::BATCH_SIZE)
            .with_unit("{command}")
            .with_description("Commands that were written together.")
            .with_boundaries(OF_BATCHES.to_vec())
            .build(),
        locks: seconds(
            names::LOCK_DURATION,
            "How long a batch waited for a connection and the ledger's lock.",
            &OF_STATEMENTS,
        ),
        commits: seconds(
            names::COMMIT_DURATION,
            "How long a batch took from its last INSERT until it was durable.",
            &OF_STATEMENTS,
        ),
        meter: meter.clone(),
    };
    // Telemetry starts once in a process.
    let _ = INSTRUMENTS.set(instruments);
}

pub(super) fn are_on() -> bool {
    INSTRUMENTS.get().is_some()
}

/// For instruments that read what is there.
pub(super) fn meter() -> Option<&'static Meter> {
    INSTRUMENTS.get().map(|instruments| &instruments.meter)
}

pub(super) fn statement_ended(took: Duration, attributes: &[KeyValue]) {
    if let Some(instruments) = INSTRUMENTS.get() {
        instruments.statements.record(took.as_secs_f64(), attributes);
    }
}

/// A call has ended: `method` is `keyledger.v1.KeyService/CreateKey`. Where its status is a fault of ours, that is the type of the
/// error too.
pub(crate) fn call_ended(method: &'static str, code: Code, took: Duration) {
    let Some(instruments) = INSTRUMENTS.get() else { return };
    let status = name_of(code);
    let attributes = [
        KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
        KeyValue::new(names::RPC_METHOD, method),
        KeyValue::new(names::RPC_RESPONSE_STATUS_CODE, status),
        KeyValue::new(names::ERROR_TYPE, status),
    ];
    let told = if is_error(code) { &attributes[..] } else { &attributes[..3] };
    instruments.calls.record(took.as_secs_f64(), told);
}

/// The sequencer has had a ledger's lock, and what it waited for it.
pub(crate) fn lock_had(waited: Duration) {
    if let Some(instruments) = INSTRUMENTS.get() {
        instruments.locks.record(waited.as_secs_f64(), &[]);
    }
}

/// A batch of so many commands is durable.
pub(crate) fn batch_committed(commands: usize, took: Duration) {
    if let Some(instruments) = INSTRUMENTS.get() {
        instruments.batch_sizes.record(commands as u64, &[]);
        instruments.commits.record(took.as_secs_f64(), &[]);
    }
}
