//! Uses that were answered from kept answers, on their way into the ledger: in order, numbered without gaps, each until
//! Keyledger says that it is recorded. So each is recorded once, however often it is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use keyledger_proto::{ErrorReason, ReportUsesRequest, ReportUsesResponse, ReportedUse};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::keeping::Keeping;
use crate::backoff::{Backoff, random};
use crate::call::Client;
use crate::error::CallError;

/// Most uses in one call.
const MOST_AT_ONCE: usize = 1_000;
/// A session that reported nothing for so long is left to end: Keyledger ends it after an hour.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Uses that are answered and could not be reported: they are in no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{uses} uses could not be reported")]
pub struct Unreported {
    pub uses: usize,
}

/// Where uses wait. When it is dropped, what waits is still reported.
pub(super) struct Reports {
    waiting: Arc<Waiting>,
    closing: watch::Sender<bool>,
    /// How many were not reported, once the reporter has ended.
    ended: watch::Receiver<Option<usize>>,
}

struct Waiting {
    uses: Mutex<Queue>,
    most: usize,
    came: Notify,
}

#[derive(Default)]
struct Queue {
    uses: VecDeque<ReportedUse>,
    closed: bool,
}

impl Reports {
    pub(super) fn start(client: Client, keeping: &Keeping) -> Reports {
        let waiting = Arc::new(Waiting {
            uses: Mutex::default(),
            most: keeping.unreported,
            came: Notify::new(),
        });
        let (closing, closes) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        let mut reporter = Reporter {
            client,
            waiting: waiting.clone(),
            closes,
            every: keeping.report_every,
            session: None,
            backoff: Backoff::default(),
        };
        let within = keeping.close_within;
        tokio::spawn(async move {
            reporter.report_until_closed().await;
            let _ = timeout(within, reporter.report_the_rest()).await;
            end.send_replace(Some(reporter.waiting.lock().uses.len()));
        });
        Reports { waiting, closing, ended }
    }

    /// Takes a use that will be reported, whatever happens but the end of this process. `false`: there is no place.
    pub(super) fn take(&self, r#use: ReportedUse) -> bool {
        let mut queue = self.waiting.lock();
        if queue.closed || queue.uses.len() >= self.waiting.most {
            return false;
        }
        queue.uses.push_back(r#use);
        drop(queue);
        self.waiting.came.notify_one();
        true
    }

    /// Turns true when no more uses are taken.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    pub(super) async fn close(&self) -> Result<(), Unreported> {
        self.waiting.lock().closed = true;
        self.closing.send_replace(true);
        let mut ended = self.ended.clone();
        // Its sender goes away without a word only if the runtime does.
        let left = ended.wait_for(Option::is_some).await.map_or(None, |left| *left);
        match left.unwrap_or_else(|| self.waiting.lock().uses.len()) {
            0 => Ok(()),
            uses => Err(Unreported { uses }),
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.uses.lock().expect("no holder of this lock panics")
    }
}

struct Reporter {
    client: Client,
    waiting: Arc<Waiting>,
    closes: watch::Receiver<bool>,
    every: Duration,
    session: Option<Session>,
    backoff: Backoff,
}

/// Numbers the uses: the first that waits is number `next`.
struct Session {
    id: Uuid,
    next: u64,
    reported: Instant,
    /// Whether a call failed since: what was sent may be recorded, so it is sent again under the same numbers.
    unsure: bool,
}

impl Reporter {
    /// A moment after uses have come, so that others come along.
    async fn report_until_closed(&mut self) {
        loop {
            let waiting = self.waiting.clone();
            let wait = async {
                while waiting.lock().uses.is_empty() {
                    waiting.came.notified().await;
                }
                sleep(self.every).await;
            };
            let mut closes = self.closes.clone();
            tokio::select! {
                _ = closes.wait_for(|closing| *closing) => return,
                () = wait => {}
            }
            tokio::select! {
                _ = closes.wait_for(|closing| *closing) => return,
                () = self.report_all() => {}
            }
        }
    }

    /// All that waits, and then that the session ends.
    async fn report_the_rest(&mut self) {
        self.backoff = Backoff::default();
        self.report_all().await;
        if let Some(session) = &self.session {
            let end = ReportUsesRequest {
                session_id: session.id.to_string(),
                first_number: session.next,
                uses: vec![],
                end: true,
            };
            // One that isn't told ends by itself.
            let _ = self.client.keys().report_uses(self.client.timed(end)).await;
        }
    }

    /// May be dropped at any await: what was sent meanwhile waits still, and is sent again under the same numbers.
    async fn report_all(&mut self) {
        while !self.waiting.lock().uses.is_empty() {
            let request = self.next_request();
            let (first, count) = (request.first_number, request.uses.len());
            let answer = self.client.keys().report_uses(self.client.timed(request)).await;
            match answer {
                Ok(answer) => self.recorded(first, count, &answer.into_inner()),
                Err(status) => self.failed(status.into()).await,
            }
        }
    }

    fn next_request(&mut self) -> ReportUsesRequest {
        let idle = |session: &Session| !session.unsure && session.reported.elapsed() > SESSION_IDLE;
        if self.session.as_ref().is_some_and(idle) {
            self.session = None;
        }
        let begin =
            || Session { id: Uuid::now_v7(), next: 0, reported: Instant::now(), unsure: false };
        let session = self.session.get_or_insert_with(begin);
        let queue = self.waiting.lock();
        ReportUsesRequest {
            session_id: session.id.to_string(),
            first_number: session.next,
            uses: queue.uses.iter().take(MOST_AT_ONCE).cloned().collect(),
            end: false,
        }
    }

    fn recorded(&mut self, first: u64, sent: usize, answer: &ReportUsesResponse) {
        let Some(session) = &mut self.session else { return };
        let recorded = answer.recorded.unwrap_or(first).saturating_sub(first);
        let done = usize::try_from(recorded).unwrap_or(sent).min(sent);
        self.waiting.lock().uses.drain(..done);
        session.next += done as u64;
        session.reported = Instant::now();
        session.unsure = false;
        self.backoff = Backoff::default();
    }

    async fn failed(&mut self, error: CallError) {
        match error.reason {
            Some(ErrorReason::ReportSessionOver | ErrorReason::ReportGap) => self.session = None,
            Some(ErrorReason::InvalidField) if self.drop_refused(&error) => return,
            _ => self.session.iter_mut().for_each(|session| session.unsure = true),
        }
        if !error.may_be_repeated() {
            tracing::error!(%error, "uses are not reported, and wait");
        }
        sleep(self.backoff.next(error.retry_after, random())).await;
    }

    /// Of a call in which uses are refused nothing is recorded: without them the others are. `false` if it names none.
    fn drop_refused(&mut self, error: &CallError) -> bool {
        let index = |field: &str| -> Option<usize> {
            field.strip_prefix("uses[")?.split_once(']')?.0.parse().ok()
        };
        let refused: Vec<usize> = error.fields.iter().filter_map(|p| index(&p.field)).collect();
        let mut queue = self.waiting.lock();
        let before = queue.uses.len();
        let mut number = 0;
        queue.uses.retain(|_| {
            number += 1;
            !refused.contains(&(number - 1))
        });
        let dropped = before - queue.uses.len();
        if dropped > 0 {
            tracing::error!(%error, dropped, "uses were refused and are in no ledger");
        }
        dropped > 0
    }
}
