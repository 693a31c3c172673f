//! LogsService/Export of OpenTelemetry: log records of other services, each recorded as an event, as RecordEvents does.
//!
//! - `mapping`: what of a log record becomes what of an event.
//!
//! What is answered is durable. Records that can't be recorded are counted and told in `partial_success`, and the collector does not
//! send them again; the others are recorded. What may be otherwise soon (the database, the rate of the caller's key) fails the whole
//! call with a code that collectors repeat: what was recorded already is not recorded again, since each record has an id. So does
//! the end of the caller's key.

mod mapping;

use std::fmt::Write;

use keyledger_ledger::command::Refusal;
use keyledger_proto::parse::{CheckedEvent, Violation};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};

use super::call::CallContext;
use super::record::attempt_each;
use super::status::{self, Failure};

/// Most log records of one call.
const MAX_RECORDS: usize = 4_096;
/// Most of them that are recorded at once.
const CHUNK: usize = 100;
/// Of how many that could not be recorded it is said why.
const MAX_TOLD: usize = 8;

/// All log records of a call as events, each checked by itself.
pub(super) fn check(r: ExportLogsServiceRequest) -> Result<Vec<CheckedEvent>, Vec<Violation>> {
    let scopes = r.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    if scopes.map(|scope| scope.log_records.len()).sum::<usize>() > MAX_RECORDS {
        let description = format!("must hold at most {MAX_RECORDS} log records in all");
        return Err(vec![Violation { field: "resource_logs".into(), description }]);
    }
    Ok(mapping::events(r))
}

pub(super) async fn export(
    mut call: CallContext,
    mut events: Vec<CheckedEvent>,
) -> Result<ExportLogsServiceResponse, Failure> {
    // Who may record nothing at all is refused as a whole, and recorded so. A call without records leaves a use, too.
    if events.is_empty() || !call.may("logs/**") {
        call.record_read().await?;
    }
    let (count, mut rejected) = (events.len(), vec![]);
    let mut index = 0;
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(CHUNK));
        for attempt in attempt_each(&call, events).await? {
            match attempt {
                Ok(_) => {}
                Err(
                    failure @ Failure::Refused(Refusal::Rate { .. } | Refusal::Unauthenticated),
                ) => return Err(failure),
                Err(failure) => rejected.push((index, failure)),
            }
            index += 1;
        }
        events = rest;
    }
    let partial = (!rejected.is_empty()).then(|| partial_success(rejected, count));
    Ok(ExportLogsServiceResponse { partial_success: partial })
}

fn partial_success(rejected: Vec<(usize, Failure)>, count: usize) -> ExportLogsPartialSuccess {
    let number = rejected.len();
    let mut text = format!("{number} of {count} log records are not recorded");
    for (index, failure) in rejected.into_iter().take(MAX_TOLD) {
        let (reason, _, why) = status::item(failure);
        let _ = write!(text, "; number {}: {} ({})", index + 1, why, reason.as_str_name());
    }
    if number > MAX_TOLD {
        let _ = write!(text, "; and {} more", number - MAX_TOLD);
    }
    ExportLogsPartialSuccess { rejected_log_records: number as i64, error_message: text }
}
