//! What goes into one call of RecordEvents, and what its answer says of each event.

use keyledger_proto::{ErrorReason, EventOutcome, EventRefusal};

use super::{RecordError, Recorded, Waiting};
use crate::error::{CallError, is_transient};

/// Most events in one call.
pub(super) const MOST_AT_ONCE: usize = 100;
/// Tells those whose events are decided, and gives back those that are to be sent again.
pub(super) fn settle(sent: Vec<Waiting>, outcomes: Vec<EventOutcome>) -> Vec<Waiting> {
    let mut outcomes = outcomes.into_iter();
    let mut again = vec![];
    for waiting in sent {
        match outcomes.next().map(decided) {
            Some(Some(decided)) => tell(waiting, decided),
            // Not decided, or an answer that is too short, which no server of ours gives: the id makes a repeat safe.
            Some(None) | None => again.push(waiting),
        }
    }
    again
}

/// The whole call failed in a way that a repeat won't mend.
pub(super) fn fail(sent: Vec<Waiting>, error: &CallError) {
    for waiting in sent {
        tell(waiting, Err(RecordError::Call(error.clone())));
    }
}

/// Nobody need listen: then the log says it, without a word of the event.
fn tell(waiting: Waiting, decided: Result<Recorded, RecordError>) {
    if let Err(unheard) = waiting.answer.send(decided)
        && let Err(error) = unheard
    {
        tracing::warn!(%error, "an event was not recorded");
    }
}

/// `None` where a repeat may go better.
fn decided(outcome: EventOutcome) -> Option<Result<Recorded, RecordError>> {
    if let Some(position) = outcome.position {
        return Some(Ok(Recorded { position, repeated: outcome.repeated }));
    }
    let EventRefusal { reason, problems, message } = outcome.refusal?;
    let reason = ErrorReason::try_from(reason).unwrap_or(ErrorReason::Unspecified);
    let refused = || Err(RecordError::Refused { reason, problems, message });
    (!is_transient(reason)).then(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_decided_or_sent_again() {
        let refused = |reason: ErrorReason| EventOutcome {
            refusal: Some(EventRefusal { reason: reason as i32, ..EventRefusal::default() }),
            ..EventOutcome::default()
        };
        let recorded = EventOutcome { position: Some(7), repeated: true, refusal: None };
        assert_eq!(decided(recorded), Some(Ok(Recorded { position: 7, repeated: true })));
        for later in [ErrorReason::OutcomeUnknown, ErrorReason::Rate] {
            assert_eq!(decided(refused(later)), None);
        }
        assert_eq!(decided(EventOutcome::default()), None);
        let answer = decided(refused(ErrorReason::PermissionDenied));
        assert!(matches!(
            answer,
            Some(Err(RecordError::Refused { reason: ErrorReason::PermissionDenied, .. }))
        ));
    }
}
