//! What goes into one call of RecordEvents, and what its answer says of each event.

use keyledger_proto::{ErrorReason, EventOutcome, EventRefusal};

use super::{RecordError, Recorded, Waiting};
use crate::error::CallError;

/// Most events in one call.
pub(super) const MOST_AT_ONCE: usize = 100;
/// Most bytes in one call, unless one event alone is larger: a message may have 1 MiB.
const MOST_BYTES: usize = 768 * 1024;

/// How many of the first events go into one call.
pub(super) fn fitting(sizes: impl IntoIterator<Item = usize>) -> usize {
    let mut sum = 0;
    let fits = |size: &usize| {
        sum += size + FRAME;
        sum <= MOST_BYTES
    };
    sizes.into_iter().take(MOST_AT_ONCE).take_while(fits).count().max(1)
}

/// Around an event in a message: a tag and a length.
const FRAME: usize = 6;

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
    use ErrorReason::*;
    let reason = ErrorReason::try_from(reason).unwrap_or(Unspecified);
    match reason {
        StorageUnavailable | OutcomeUnknown | Overloaded | ClockSkew | ServerStopping => None,
        _ => Some(Err(RecordError::Refused { reason, problems, message })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_holds_what_fits_and_at_least_one_event() {
        assert_eq!(fitting(vec![10; 1_000]), MOST_AT_ONCE);
        assert_eq!(fitting([2_000_000, 1]), 1);
        assert_eq!(fitting([400_000, 300_000, 200_000]), 2);
        assert_eq!(fitting([1]), 1);
    }

    #[test]
    fn an_event_is_decided_or_sent_again() {
        let refused = |reason: ErrorReason| EventOutcome {
            refusal: Some(EventRefusal { reason: reason as i32, ..EventRefusal::default() }),
            ..EventOutcome::default()
        };
        let recorded = EventOutcome { position: Some(7), repeated: true, refusal: None };
        assert_eq!(decided(recorded), Some(Ok(Recorded { position: 7, repeated: true })));
        assert_eq!(decided(refused(ErrorReason::OutcomeUnknown)), None);
        assert_eq!(decided(EventOutcome::default()), None);
        let answer = decided(refused(ErrorReason::PermissionDenied));
        assert!(matches!(
            answer,
            Some(Err(RecordError::Refused { reason: ErrorReason::PermissionDenied, .. }))
        ));
    }
}
