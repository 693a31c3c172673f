//! LogsService/Export of OpenTelemetry: log records of other services, each recorded as an event, as RecordEvents does.
//!
//! - `mapping`: what of a log record becomes what of an event.
//! - `attributes`: what becomes of all else that it says.
//!
//! What is answered is durable. Records that can't be recorded are counted and told in `partial_success`, and the collector does not
//! send them again; the others are recorded. What may be otherwise soon (the database, the rate of the caller's key) fails the whole
//! call with a code that collectors repeat: what was recorded already is not recorded again, since each record has an id. The end
//! of the caller's key fails the whole call too, with a code that they don't repeat: then the rest is theirs to keep.
//!
//! Our own log records are not taken back: each would leave an entry, which is a log record that comes back, without end.

mod attributes;
mod mapping;

use std::fmt::Write;

use keyledger_ledger::command::Refusal;
use keyledger_proto::parse::{CheckedEvent, Violation};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};

use self::mapping::{Equals, OfResource, OfScope};
use super::call::CallContext;
use super::record::attempt_each;
use super::status::{self, Failure};

/// Most log records of one call.
const MAX_RECORDS: usize = 4_096;
/// Most of them that are events at once, and recorded at once.
const CHUNK: usize = 100;
/// Of how many that could not be recorded it is said why.
const MAX_TOLD: usize = 8;

/// Only how many there are: what they hold is looked at when the caller is known to be allowed, and a few at a time.
pub(super) fn check(
    r: ExportLogsServiceRequest,
) -> Result<ExportLogsServiceRequest, Vec<Violation>> {
    if count(&r) > MAX_RECORDS {
        let description = format!("must hold at most {MAX_RECORDS} log records in all");
        return Err(vec![Violation { field: "resource_logs".into(), description }]);
    }
    Ok(r)
}

fn count(r: &ExportLogsServiceRequest) -> usize {
    let scopes = r.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
    scopes.map(|scope| scope.log_records.len()).sum()
}

pub(super) async fn export(
    mut call: CallContext,
    r: ExportLogsServiceRequest,
) -> Result<ExportLogsServiceResponse, Failure> {
    let count = count(&r);
    // Who may record nothing at all is refused as a whole, and recorded so. A call without records leaves a use, too.
    if count == 0 || !call.may("logs/**") {
        call.record_read().await?;
    }
    let (mut recording, mut equals) = (Recording::default(), Equals::default());
    for resource_logs in &r.resource_logs {
        let resource = OfResource::new(resource_logs.resource.as_ref());
        for scope_logs in &resource_logs.scope_logs {
            let scope = OfScope::new(&resource, scope_logs.scope.as_ref());
            for record in &scope_logs.log_records {
                match scope.is_ours() {
                    true => recording.refuse_ours(),
                    false => recording.add(scope.event(record, &mut equals)),
                }
                if recording.events.len() == CHUNK {
                    recording.record(&call).await?;
                }
            }
        }
    }
    recording.record(&call).await?;
    let mut rejected = recording.rejected;
    rejected.sort_by_key(|(index, _)| *index);
    let partial = (!rejected.is_empty()).then(|| partial_success(rejected, count));
    Ok(ExportLogsServiceResponse { partial_success: partial })
}

/// How far a call is.
#[derive(Default)]
struct Recording {
    /// How many log records were looked at.
    seen: usize,
    /// What is recorded next, and which log records these are.
    events: Vec<CheckedEvent>,
    indexes: Vec<usize>,
    rejected: Vec<(usize, Failure)>,
}

impl Recording {
    fn add(&mut self, event: CheckedEvent) {
        self.events.push(event);
        self.indexes.push(self.seen);
        self.seen += 1;
    }

    /// This leaves no entry, not even of a refusal: that would be sent, and come back.
    fn refuse_ours(&mut self) {
        let description = "must not be Keyledger's own: its log records are not taken back".into();
        let violation = Violation { field: "scope".into(), description };
        self.rejected.push((self.seen, Failure::Invalid(vec![violation])));
        self.seen += 1;
    }

    async fn record(&mut self, call: &CallContext) -> Result<(), Failure> {
        let (events, indexes) =
            (std::mem::take(&mut self.events), std::mem::take(&mut self.indexes));
        for (index, attempt) in indexes.into_iter().zip(attempt_each(call, events).await?) {
            match attempt {
                Ok(_) => {}
                Err(
                    failure @ Failure::Refused(Refusal::Rate { .. } | Refusal::Unauthenticated),
                ) => return Err(failure),
                Err(failure) => self.rejected.push((index, failure)),
            }
        }
        Ok(())
    }
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
