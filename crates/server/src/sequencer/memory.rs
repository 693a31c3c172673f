//! Answers from memory: how fresh this replica's state is, and the uses that wait to be recorded.
//!
//! Before the first answer the replica marks in the ledger that it serves so, and until when. Uses are numbered and recorded
//! in order, each exactly once: what isn't known to be recorded is asked again. While one waits for too long, nothing more is
//! answered from memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use keyledger_ledger::batch::internal_call;
use keyledger_ledger::body::{Bounded, DecisionReason, Use};
use keyledger_ledger::bounded::{BoundedUse, GRACE, LONGEST_SERVING};
use keyledger_ledger::command::{Action, Answer, Call, Change, ChangeKind, Command};
use keyledger_ledger::id::Time;
use keyledger_ledger::text::Sealed;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Ledger, SequencerError};
use crate::replica::{by_itself, own_clock};
use crate::sealing::random;

/// By when a use that was answered from memory is recorded.
pub(crate) const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// Most uses that wait.
const MAX_WAITING: usize = 16_384;
/// Most uses that are recorded at once.
const AT_ONCE: usize = 1_024;
/// How often the recorder looks when nobody wakes it; also its pause when the database can't be reached.
const INTERVAL: Duration = Duration::from_millis(200);
/// A serving is announced anew when less than this is left of it.
const RENEW_BEFORE: i64 = LONGEST_SERVING / 2;

#[derive(Default)]
pub(super) struct Memory {
    /// Everything that was durable then is in the published state.
    confirmed: Mutex<Option<Instant>>,
    database_ahead_us: AtomicI64,
    serving: Mutex<Serving>,
    wake: Arc<Notify>,
    /// Whoever records holds this: uses are recorded in the order of their numbers.
    recording: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Serving {
    /// `None`: nothing may be answered from memory yet, or any more.
    id: Option<[u8; 16]>,
    until: Time,
    /// The number of the next use.
    next: u64,
    /// Whether somebody wants answers from memory.
    wanted: bool,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    bounded: BoundedUse,
    texts: Vec<Sealed>,
    salt: [u8; 16],
    since: Instant,
}

impl Ledger {
    /// Everything that was durable at this moment is in the published state.
    pub(super) fn confirm(&self, at: Instant) {
        let mut confirmed = self.memory.confirmed.lock().expect("no holder of this lock panics");
        *confirmed = confirmed.max(Some(at));
    }

    /// How old the published state may be.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        let confirmed = *self.memory.confirmed.lock().expect("no holder of this lock panics");
        confirmed.map(|at| at.elapsed())
    }

    /// The database's clock, as far as this replica knows: verdicts from memory are given by it, too.
    pub(crate) fn database_now(&self) -> Time {
        let ahead = self.memory.database_ahead_us.load(Ordering::Relaxed);
        self.snapshot().state.newest_time.max(own_clock().plus_micros(ahead))
    }

    /// Notes how far the database's clock is ahead of ours.
    pub(super) fn note_clock(&self, database_us: i64) {
        let ahead = database_us - own_clock().micros();
        self.memory.database_ahead_us.store(ahead, Ordering::Relaxed);
    }

    /// Takes a use that is answered from memory as of a position: it will be recorded. False if it can't be promised, or not
    /// yet: then it must be answered strictly.
    pub(crate) fn remember(
        &self,
        r#use: Use,
        texts: Vec<Sealed>,
        as_of_position: u64,
        now: Time,
    ) -> bool {
        let mut serving = self.memory.serving.lock().expect("no holder of this lock panics");
        let Some(id) = serving.id.filter(|_| now < serving.until) else {
            serving.wanted = true;
            self.memory.wake.notify_one();
            return false;
        };
        let bytes = r#use.encoded_len() + texts.iter().map(|t| t.bytes.len()).sum::<usize>();
        if !self.take(bytes) {
            return false;
        }
        let late = serving.waiting.front().is_some_and(|w| w.since.elapsed() > RECORDED_WITHIN);
        if late || serving.waiting.len() >= MAX_WAITING {
            return false;
        }
        let number = serving.next;
        serving.next += 1;
        let bounded =
            Bounded { serving_id: id.to_vec(), number, as_of_position, time_us: now.micros() };
        let r#use = Use { bounded: Some(bounded), ..r#use };
        let bounded = BoundedUse { serving: id, number, r#use };
        serving.waiting.push_back(Waiting {
            bounded,
            texts,
            salt: random(),
            since: Instant::now(),
        });
        self.tally.count_verdict(DecisionReason::Granted);
        self.memory.wake.notify_one();
        true
    }

    /// Records what waits and says that this replica answers no more from memory. For when it stops.
    pub(crate) async fn end_memory(&self) -> Result<(), SequencerError> {
        let (id, uses) = {
            let mut serving = self.memory.serving.lock().expect("no holder of this lock panics");
            serving.wanted = false;
            (serving.id.take(), serving.next)
        };
        let Some(serving) = id else { return Ok(()) };
        while self.record_some().await? > 0 {}
        let kind = ChangeKind::EndBounded { serving, uses };
        by_itself(self, Change::new(kind, vec![])).await.map(drop)
    }

    /// Records the oldest uses that wait. Returns how many were.
    async fn record_some(&self) -> Result<usize, SequencerError> {
        let _recording = self.memory.recording.lock().await;
        let commands: Vec<Command> = {
            let serving = self.memory.serving.lock().expect("no holder of this lock panics");
            serving.waiting.iter().take(AT_ONCE).map(Waiting::command).collect()
        };
        let answers = join_all(commands.into_iter().map(|command| self.submit(command))).await;
        // Those after one that failed have the wrong number, and are asked again with it.
        let recorded = answers.iter().take_while(|a| matches!(a, Ok(Answer::Recorded))).count();
        let lapsed = matches!(answers.get(recorded), Some(Ok(Answer::Refused { .. })));
        let mut serving = self.memory.serving.lock().expect("no holder of this lock panics");
        serving.waiting.drain(..recorded);
        if lapsed && recorded == 0 {
            say_lost(serving.waiting.len());
            *serving = Serving::default();
        }
        drop(serving);
        match answers.into_iter().nth(recorded) {
            Some(Err(error)) => Err(error),
            _ => Ok(recorded),
        }
    }

    /// Announces that this replica answers from memory, or goes on to. A serving that has lapsed is over; another one begins.
    async fn announce(&self) -> Result<(), SequencerError> {
        let now = own_clock();
        let id = {
            let mut serving = self.memory.serving.lock().expect("no holder of this lock panics");
            if serving.id.is_some() && serving.until.plus_micros(GRACE) < now {
                say_lost(serving.waiting.len());
                *serving = Serving { wanted: serving.wanted, ..Serving::default() };
            }
            let left = serving.until.micros() - now.micros();
            if !serving.wanted || serving.id.is_some() && left > RENEW_BEFORE {
                return Ok(());
            }
            serving.id
        };
        let serving = id.unwrap_or_else(random);
        // A little less than may be: the database's clock may be behind ours.
        let until = now.plus_micros(LONGEST_SERVING - LONGEST_SERVING / 8);
        let kind = ChangeKind::StartBounded { serving, until };
        let answer = by_itself(self, Change::new(kind, vec![])).await?;
        let mut state = self.memory.serving.lock().expect("no holder of this lock panics");
        match answer {
            Answer::Changed { .. } => (state.id, state.until) = (Some(serving), until),
            // It had lapsed by the database's clock.
            _ => {
                say_lost(state.waiting.len());
                *state = Serving { wanted: true, ..Serving::default() };
            }
        }
        Ok(())
    }
}

/// A serving that lapsed records nothing any more: that it has no end in the ledger says so, too.
fn say_lost(lost: usize) {
    if lost > 0 {
        tracing::error!(lost, "uses that were answered from memory came too late to be recorded");
    }
}

impl Waiting {
    fn command(&self) -> Command {
        let call = internal_call("KeyService/VerifyKey");
        let call = Call { texts: self.texts.clone(), salt: self.salt, ..call };
        Command { call, action: Action::Record(Box::new(self.bounded.clone())) }
    }
}

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let Some(wake) = ledger.upgrade().map(|ledger| ledger.memory.wake.clone()) else { return };
    loop {
        let _ = tokio::time::timeout(INTERVAL, wake.notified()).await;
        let Some(ledger) = ledger.upgrade() else { return };
        if ledger.stopped().is_some() {
            return;
        }
        if let Err(error) = work(&ledger).await {
            tracing::warn!(%error, "uses that were answered from memory could not be recorded yet");
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

async fn work(ledger: &Ledger) -> Result<(), SequencerError> {
    ledger.announce().await?;
    while ledger.record_some().await? > 0 {}
    Ok(())
}
