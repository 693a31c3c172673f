//! Answers that are kept, the stream that drops them, and the reports of their uses, together.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use keyledger_proto::entry::DecisionReason;
use keyledger_proto::{Keep, ReportedUse, VerifyKeyResponse};
use opentelemetry::trace::get_active_span;
use prost_types::Timestamp;
use sha2::Sha256;

use super::answers::{Answer, Answers, Digest, Moment};
use super::reports::{Reports, Unreported};
use super::{Ask, Source, Verified, watch};
use crate::call::Client;

/// How answers are kept, and for how long at most.
///
/// Their uses are reported in a session of each process, and Keyledger remembers 64 sessions of a key, each for up to an hour after
/// the process is gone without closing its guard: give at most 32 processes the same key. While reports are refused, checks are strict.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// For how long at most: what is granted may be less. By default 30 seconds; Keyledger grants up to 60.
    pub longest: Duration,
    /// Most answers that are kept. By default 10,000.
    pub answers: usize,
    /// Most uses that wait to be reported; when there are so many, checks are strict. By default 10,000.
    pub unreported: usize,
    /// How long uses may wait for others, so that they are reported together. By default 1 second.
    pub report_every: Duration,
    /// How long closing may take. By default 30 seconds.
    pub close_within: Duration,
}

impl Default for Keeping {
    fn default() -> Keeping {
        Keeping {
            longest: Duration::from_secs(30),
            answers: 10_000,
            unreported: 10_000,
            report_every: Duration::from_secs(1),
            close_within: Duration::from_secs(30),
        }
    }
}

pub(super) struct Kept {
    /// Of this process: what it keeps can be found by whoever holds the token, and tells nothing to others.
    secret: [u8; 32],
    answers: Arc<Mutex<Answers>>,
    reports: Reports,
    longest: Duration,
}

/// A question as it is looked for: an answer is for this client address alone, or for any.
pub(super) struct Question {
    here: Digest,
    anywhere: Digest,
    token: Digest,
}

impl Kept {
    /// Starts a task that follows WatchKeys and one that reports. Both end after `close`, or when all guards are gone and
    /// what waits was reported, or couldn't be within the same time.
    pub(super) fn start(client: &Client, keeping: Keeping) -> Arc<Kept> {
        let mut secret = [0; 32];
        let most = match getrandom::fill(&mut secret) {
            Ok(()) => keeping.answers,
            // Nothing is kept under a digest that others can compute.
            Err(_) => 0,
        };
        let answers = Arc::new(Mutex::new(Answers::new(most)));
        let longest = keeping.longest;
        let reports = Reports::start(client.clone(), &keeping);
        tokio::spawn(watch::follow(client.clone(), answers.clone(), reports.closing()));
        Arc::new(Kept { secret, answers, reports, longest })
    }

    pub(super) fn longest(&self) -> prost_types::Duration {
        prost_types::Duration::try_from(self.longest).unwrap_or_default()
    }

    pub(super) fn question(&self, token: &str, ask: &Ask, from: &Source) -> Question {
        let address = from.address_text();
        Question {
            here: self.digest(&[token, &ask.permission, &ask.resource, &ask.audience, &address]),
            anywhere: self.digest(&[token, &ask.permission, &ask.resource, &ask.audience]),
            token: self.digest(&[token]),
        }
    }

    /// Gives an answer again, if one may be given. Its use has a place among those that are reported before it is given.
    pub(super) fn answer(&self, question: &Question, from: &Source) -> Option<Verified> {
        let now = Moment::now();
        let answer = self.lock().find([&question.anywhere, &question.here], now)?;
        let passed = now.at.saturating_duration_since(answer.received.at);
        let (trace_id, span_id) = current_trace();
        let reported = self.reports.take(ReportedUse {
            receipt: answer.receipt.clone(),
            time: Some(Timestamp::from(answer.answer_time + passed)),
            client_address: from.address_text(),
            client_user_agent: from.user_agent_text(),
            reason: String::new(),
            trace_id,
            span_id,
        });
        reported.then(|| Verified { kept: true, ..answer.verified.clone() })
    }

    pub(super) fn keep(
        &self,
        question: Question,
        verified: &Verified,
        granted: Keep,
        sent: Moment,
    ) {
        let most = granted.max_staleness.and_then(|most| Duration::try_from(most).ok());
        let time = granted.answer_time.and_then(|time| SystemTime::try_from(time).ok());
        let (Some(most), Some(answer_time)) = (most, time) else { return };
        let received = Moment::now();
        self.reports.hear_time(answer_time, received.at);
        let answer = Answer {
            token: question.token,
            verified: verified.clone(),
            sent,
            received,
            granted: most.min(self.longest),
            answer_time,
            receipt: granted.receipt,
        };
        let question = if granted.any_address { question.anywhere } else { question.here };
        self.lock().keep(question, answer, received);
    }

    /// A token was refused, strictly: what is kept of it is dropped, and of its key, if that is what is not valid.
    pub(super) fn deny(&self, token: &str, answer: &VerifyKeyResponse) {
        use DecisionReason::{Audience, Expired, Network, NoGrant, Rate, Revoked, Suspended};
        let key = match answer.reason() {
            // The key is good for other questions.
            NoGrant | Network | Audience | Rate => return,
            Revoked | Suspended | Expired => answer.key_id.as_str(),
            _ => "",
        };
        self.lock().drop_denied(&self.digest(&[token]), key);
    }

    pub(super) async fn close(&self) -> Result<(), Unreported> {
        self.reports.close().await
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().expect("no holder of this lock panics")
    }

    /// Of parts, each after its length: no two questions are alike.
    fn digest(&self, parts: &[&str]) -> Digest {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret);
        let mut mac = mac.expect("an HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

/// Ids of the current span, if it is sampled: a trace that nobody keeps is not named.
fn current_trace() -> (String, String) {
    let span = get_active_span(|span| span.span_context().clone());
    match span.is_valid() && span.is_sampled() {
        true => (span.trace_id().to_string(), span.span_id().to_string()),
        false => (String::new(), String::new()),
    }
}
