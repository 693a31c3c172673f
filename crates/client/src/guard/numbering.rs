//! How uses that wait are numbered and sent: in order, without gaps, in sessions that Keyledger knows by an id and the number of
//! the next use. Pure: the queue and Keyledger's time are arguments.
//!
//! In a session each use is recorded once, however often it is sent. If a session ends while it isn't known whether the last call was
//! recorded, what was sent is sent again in a new session: it may then be recorded twice, rather than never.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use keyledger_proto::{ErrorReason, ReportUsesRequest, ReportUsesResponse, ReportedUse};
use prost::Message;
use uuid::{NoContext, Timestamp, Uuid};

use crate::error::CallError;
use crate::fitting::fitting;

/// Most uses in one call.
const MOST_AT_ONCE: usize = 1_000;
/// A session that reported nothing for so long is ended.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// What is to be done after a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send what waits now.
    AtOnce,
    /// Send it again after a while.
    Later,
    /// The same, and give no kept answers until a report succeeds: whether one ever will is open.
    LaterAndStrict,
}

/// The session that goes on, and how much goes into a call.
#[derive(Debug)]
pub(super) struct Numbering {
    session: Option<Session>,
    at_once: usize,
}

/// The first use that waits is number `next`.
#[derive(Debug)]
struct Session {
    id: Uuid,
    next: u64,
    reported: Instant,
    /// Whether it is open what became of a call: what was sent may be recorded, so it is sent again under the same numbers.
    unsure: bool,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    first: u64,
    count: usize,
    /// Whether an earlier call was unsure when it was sent.
    was_unsure: bool,
}

impl Numbering {
    pub(super) fn new() -> Numbering {
        Numbering { session: None, at_once: MOST_AT_ONCE }
    }

    /// The first uses that wait. From now on it is open what becomes of them, until an answer says it.
    pub(super) fn next_request(
        &mut self,
        uses: &VecDeque<ReportedUse>,
        now: SystemTime,
    ) -> (ReportUsesRequest, Sent) {
        let count = fitting(uses.iter().map(Message::encoded_len), self.at_once).min(uses.len());
        let begin =
            || Session { id: made_at(now), next: 0, reported: Instant::now(), unsure: false };
        let session = self.session.get_or_insert_with(begin);
        let sent = Sent { first: session.next, count, was_unsure: session.unsure };
        session.unsure = true;
        let request = ReportUsesRequest {
            session_id: session.id.to_string(),
            first_number: session.next,
            uses: uses.iter().take(count).cloned().collect(),
            end: false,
        };
        (request, sent)
    }

    pub(super) fn recorded(
        &mut self,
        uses: &mut VecDeque<ReportedUse>,
        sent: Sent,
        answer: &ReportUsesResponse,
    ) {
        let Some(session) = &mut self.session else { return };
        let recorded = answer.recorded.unwrap_or(sent.first).saturating_sub(sent.first);
        let done = usize::try_from(recorded).unwrap_or(sent.count).min(sent.count);
        uses.drain(..done);
        session.next += done as u64;
        session.reported = Instant::now();
        session.unsure = false;
        self.at_once = (self.at_once * 2).min(MOST_AT_ONCE);
    }

    pub(super) fn failed(
        &mut self,
        uses: &mut VecDeque<ReportedUse>,
        sent: Sent,
        error: &CallError,
    ) -> Next {
        match error.reason {
            Some(ErrorReason::ReportSessionOver) => {
                self.session = None;
                // A session that nothing was sent in before is not over: its id is refused.
                let refused = sent.first == 0 && !sent.was_unsure;
                if refused { Next::LaterAndStrict } else { Next::Later }
            }
            Some(ErrorReason::ReportGap) => {
                self.session = None;
                Next::Later
            }
            // Nothing of the call is recorded.
            Some(ErrorReason::InvalidField | ErrorReason::MessageTooLarge) => {
                self.session.iter_mut().for_each(|session| session.unsure = sent.was_unsure);
                match self.mend(uses, sent, error) {
                    true => Next::AtOnce,
                    false => Next::LaterAndStrict,
                }
            }
            _ if error.may_be_repeated() => Next::Later,
            _ => Next::LaterAndStrict,
        }
    }

    /// Since when there is a session of which nothing waits to be known.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let session = self.session.as_ref().filter(|session| !session.unsure)?;
        session.reported.checked_add(SESSION_IDLE)
    }

    /// Leaves the session, and says how to end it: without that it counts for another hour.
    pub(super) fn end(&mut self) -> Option<ReportUsesRequest> {
        let session = self.session.take()?;
        Some(ReportUsesRequest {
            session_id: session.id.to_string(),
            first_number: session.next,
            uses: vec![],
            end: true,
        })
    }

    /// Makes what was refused fit to be sent: texts that are refused are sent without, and only a use that can't be mended is
    /// dropped. If it isn't said which use is wrong, fewer are sent together. `false`: the uses are not what is wrong.
    fn mend(&mut self, uses: &mut VecDeque<ReportedUse>, sent: Sent, error: &CallError) -> bool {
        let mut named: Vec<(usize, &str)> = error.fields.iter().filter_map(named_use).collect();
        named.retain(|(index, _)| *index < sent.count);
        let together = error.reason == Some(ErrorReason::MessageTooLarge)
            || error.fields.iter().any(|problem| problem.field == "uses");
        let dropped = match (named.is_empty(), together) {
            (true, false) => return false,
            (true, true) if sent.count > 1 => {
                self.at_once = sent.count / 2;
                return true;
            }
            (true, true) => vec![0],
            (false, _) => without_texts(uses, &named),
        };
        let mut index = 0..;
        uses.retain(|_| index.next().is_none_or(|index| !dropped.contains(&index)));
        if !dropped.is_empty() {
            // The numbers after them would no longer be those of an earlier call.
            if sent.was_unsure {
                self.session = None;
            }
            tracing::error!(%error, dropped = dropped.len(), "uses were refused and are in no ledger");
        }
        true
    }
}

/// `uses[3].reason`: 3 and `reason`.
fn named_use(problem: &keyledger_proto::FieldProblem) -> Option<(usize, &str)> {
    let (index, field) = problem.field.strip_prefix("uses[")?.split_once("].")?;
    Some((index.parse().ok()?, field))
}

/// Clears texts that are refused. Says which uses can't be mended so.
fn without_texts(uses: &mut VecDeque<ReportedUse>, named: &[(usize, &str)]) -> Vec<usize> {
    let indexes: BTreeSet<usize> = named.iter().map(|(index, _)| *index).collect();
    let is_lost = |index: &usize| {
        let Some(r#use) = uses.get_mut(*index) else { return false };
        let before = r#use.clone();
        let fields = named.iter().filter(|(of, _)| of == index);
        let all_cleared = fields.fold(true, |all, (_, field)| clear(r#use, field) && all);
        !all_cleared || *r#use == before
    };
    indexes.into_iter().filter(is_lost).collect()
}

/// `false`: a use must have it.
fn clear(r#use: &mut ReportedUse, field: &str) -> bool {
    match field {
        "client_address" => r#use.client_address.clear(),
        "client_user_agent" => r#use.client_user_agent.clear(),
        "reason" => r#use.reason.clear(),
        "trace_id" | "span_id" => {
            r#use.trace_id.clear();
            r#use.span_id.clear();
        }
        _ => return false,
    }
    true
}

/// An id that says when it was made.
fn made_at(now: SystemTime) -> Uuid {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use keyledger_proto::FieldProblem;
    use tonic::{Code, Status};

    use super::*;

    struct Story {
        numbering: Numbering,
        uses: VecDeque<ReportedUse>,
    }

    impl Story {
        fn new(uses: Vec<ReportedUse>) -> Story {
            Story { numbering: Numbering::new(), uses: uses.into() }
        }

        fn send(&mut self) -> (ReportUsesRequest, Sent) {
            self.numbering.next_request(&self.uses, SystemTime::now())
        }

        fn record(&mut self, sent: Sent) {
            let recorded = Some(sent.first + sent.count as u64);
            self.numbering.recorded(&mut self.uses, sent, &ReportUsesResponse { recorded });
        }

        fn fail(&mut self, sent: Sent, reason: Option<ErrorReason>, fields: &[&str]) -> Next {
            let field =
                |field: &&str| FieldProblem { field: field.to_string(), ..FieldProblem::default() };
            let fields = fields.iter().map(field).collect();
            let error = CallError { reason, fields, ..Status::new(Code::Unavailable, "no").into() };
            self.numbering.failed(&mut self.uses, sent, &error)
        }
    }

    /// As large as a use may be.
    fn largest() -> ReportedUse {
        ReportedUse {
            receipt: vec![7; 2_048],
            time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 999_999_999 }),
            client_address: "x".repeat(45),
            client_user_agent: "x".repeat(512),
            reason: "x".repeat(1_024),
            trace_id: "7".repeat(32),
            span_id: "7".repeat(16),
        }
    }

    #[test]
    fn a_thousand_uses_as_large_as_they_may_be_go_in_calls_of_less_than_a_mebibyte() {
        let mut story = Story::new(vec![largest(); 1_000]);
        let mut sizes = vec![];
        while !story.uses.is_empty() {
            let (request, sent) = story.send();
            sizes.push(request.encoded_len());
            story.record(sent);
        }
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 1024 * 1024), "{sizes:?}");
    }

    #[test]
    fn a_call_that_is_too_large_is_halved_until_it_fits() {
        let mut story = Story::new(vec![ReportedUse::default(); 1_000]);
        for most in [1_000, 500, 250] {
            let (request, sent) = story.send();
            assert_eq!(request.uses.len(), most);
            assert_eq!(story.fail(sent, Some(ErrorReason::MessageTooLarge), &[]), Next::AtOnce);
        }
        let (_, sent) = story.send();
        story.record(sent);
        assert_eq!(story.send().0.uses.len(), 250);
    }

    #[test]
    fn texts_that_are_refused_are_left_out_and_uses_only_for_their_receipt_or_time() {
        let mut story = Story::new(vec![largest(); 4]);
        let fields = ["uses[0].reason", "uses[1].trace_id", "uses[1].span_id", "uses[3].receipt"];
        let (_, sent) = story.send();
        assert_eq!(story.fail(sent, Some(ErrorReason::InvalidField), &fields), Next::AtOnce);
        let (request, sent) = story.send();
        let uses = request.uses;
        assert_eq!(uses.len(), 3);
        assert_eq!(uses[0], ReportedUse { reason: String::new(), ..largest() });
        let (trace_id, span_id) = (String::new(), String::new());
        assert_eq!(uses[1], ReportedUse { trace_id, span_id, ..largest() });
        assert_eq!(uses[2], largest());
        // What isn't there can't be left out.
        story.fail(sent, Some(ErrorReason::InvalidField), &["uses[0].reason"]);
        assert_eq!(story.uses.len(), 2);
    }

    #[test]
    fn a_use_that_is_wrong_by_itself_is_found_though_nobody_names_it() {
        let mut story = Story::new(vec![ReportedUse::default(); 3]);
        for most in [3, 1] {
            let (request, sent) = story.send();
            assert_eq!(request.uses.len(), most);
            assert_eq!(story.fail(sent, Some(ErrorReason::InvalidField), &["uses"]), Next::AtOnce);
        }
        assert_eq!(story.uses.len(), 2);
        let (_, sent) = story.send();
        let wrong = story.fail(sent, Some(ErrorReason::InvalidField), &["session_id"]);
        assert_eq!(wrong, Next::LaterAndStrict);
    }

    #[test]
    fn what_may_be_recorded_is_sent_again_under_the_same_numbers() {
        let mut story = Story::new(vec![ReportedUse::default(); 2]);
        let (first, sent) = story.send();
        assert_eq!(story.fail(sent, None, &[]), Next::Later);
        // A call that was dropped in the middle is unsure, too.
        let (second, _) = story.send();
        let (third, sent) = story.send();
        assert!(first == second && second == third && sent.was_unsure);
        assert_eq!(story.numbering.idle_at(), None);
        story.record(sent);
        assert!(story.uses.is_empty() && story.numbering.idle_at().is_some());
        let end = story.numbering.end().unwrap();
        assert_eq!((end.session_id, end.first_number, end.end), (first.session_id, 2, true));
        assert_eq!(story.numbering.end(), None);
    }

    #[test]
    fn a_session_that_is_over_is_followed_by_another_and_one_that_can_not_begin_makes_checks_strict()
     {
        let mut story = Story::new(vec![ReportedUse::default(); 2]);
        let (first, sent) = story.send();
        story.record(sent);
        story.uses.push_back(ReportedUse::default());
        let over = Some(ErrorReason::ReportSessionOver);
        let (_, sent) = story.send();
        assert_eq!(story.fail(sent, over, &[]), Next::Later);
        let (second, sent) = story.send();
        assert!(second.first_number == 0 && second.session_id != first.session_id);
        assert_eq!(story.fail(sent, over, &[]), Next::LaterAndStrict, "a new one is refused");
        let (_, sent) = story.send();
        let most = story.fail(sent, Some(ErrorReason::ReportSessions), &[]);
        assert_eq!(most, Next::LaterAndStrict);
        let (_, sent) = story.send();
        let denied = story.fail(sent, Some(ErrorReason::PermissionDenied), &[]);
        assert_eq!(denied, Next::LaterAndStrict);
    }

    #[test]
    fn the_id_of_a_session_says_the_time_of_keyledger() {
        let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let (seconds, nanos) = made_at(then).get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos / 1_000_000), (1_700_000_000, 123));
    }
}
