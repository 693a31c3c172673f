//! Callers whose refusals are counted and not recorded singly: they are answered when the count is durable.

use keyledger_ledger::command::{Answer, Refusal};
use keyledger_ledger::refusals::Refusals;

use super::{AnswerTo, SequencerError};
use crate::replica::own_clock;

/// Most callers that wait for a count. Who comes beyond is counted and told to come back.
const MAX_WAITING: usize = 8_192;

#[derive(Default)]
pub(super) struct Folding {
    refusals: Refusals,
    waiting: Vec<(AnswerTo, Refusal)>,
}

impl Folding {
    /// Answers a caller, now or once the count that it is part of is durable.
    pub(super) fn answer(&mut self, to: AnswerTo, answer: Answer) {
        match answer {
            Answer::Folded { refusal } if self.waiting.len() < MAX_WAITING => {
                self.waiting.push((to, refusal))
            }
            Answer::Folded { .. } => drop(to.send(Err(SequencerError::Overloaded))),
            answer => drop(to.send(Ok(answer))),
        }
    }

    /// Whether a second has passed whose counts are not written yet.
    pub(super) fn is_due(&self) -> bool {
        self.refusals.has_folded() && own_clock().micros() / 1_000_000 > self.refusals.second()
    }

    pub(super) fn counted(&self) -> Refusals {
        self.refusals.clone()
    }

    /// A batch is durable. If it began a new second, it holds the counts that callers wait for.
    pub(super) fn recorded(&mut self, refusals: Refusals) {
        if refusals.second() != self.refusals.second() {
            for (to, refusal) in self.waiting.drain(..) {
                drop(to.send(Ok(Answer::Refused { refusal })));
            }
        }
        self.refusals = refusals;
    }
}
