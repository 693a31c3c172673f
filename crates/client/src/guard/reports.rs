//! Uses that were answered from kept answers, on their way into the ledger: in order, each until Keyledger says that it is recorded.
//! How they are numbered: `numbering`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use keyledger_proto::{ReportUsesRequest, ReportedUse};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::keeping::Keeping;
use super::numbering::{Next, Numbering, Sent};
use crate::backoff::{Backoff, random};
use crate::call::Client;
use crate::error::CallError;

/// Uses that are answered and could not be reported: they are in no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{uses} uses could not be reported")]
pub struct Unreported {
    pub uses: usize,
}

/// Where uses wait. When it is dropped, what waits is still reported, for at most the time that closing may take and while the
/// runtime lives; the log says how many were not.
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
    /// Reports fail in a way that may last: no use is taken until one succeeds.
    strict: bool,
    /// The time that Keyledger has told last, and when it was heard.
    told: Option<(SystemTime, Instant)>,
}

impl Queue {
    /// The time by Keyledger's clock, about: ours may be wrong.
    fn time(&self) -> SystemTime {
        let told = self.told.and_then(|(time, heard)| time.checked_add(heard.elapsed()));
        told.unwrap_or_else(SystemTime::now)
    }
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
            numbering: Numbering::new(),
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

    /// Takes a use, which is then sent until it is recorded. `false`: there is no place, or reports fail.
    pub(super) fn take(&self, r#use: ReportedUse) -> bool {
        let mut queue = self.waiting.lock();
        if queue.closed || queue.strict || queue.uses.len() >= self.waiting.most {
            return false;
        }
        queue.uses.push_back(r#use);
        drop(queue);
        self.waiting.came.notify_one();
        true
    }

    /// Keyledger has answered: the time by its clock, and when that was heard.
    pub(super) fn hear_time(&self, time: SystemTime, heard: Instant) {
        let mut queue = self.waiting.lock();
        if queue.told.is_none_or(|(_, newest)| newest < heard) {
            queue.told = Some((time, heard));
        }
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
    numbering: Numbering,
    backoff: Backoff,
}

impl Reporter {
    /// A moment after uses have come, so that others come along. A session that reports nothing for long is ended.
    async fn report_until_closed(&mut self) {
        loop {
            let waiting = self.waiting.clone();
            let uses = async {
                while waiting.lock().uses.is_empty() {
                    waiting.came.notified().await;
                }
                sleep(self.every).await;
            };
            let idle_at = self.numbering.idle_at();
            let idle = async {
                match idle_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let mut closes = self.closes.clone();
            let idle = tokio::select! {
                _ = closes.wait_for(|closing| *closing) => return,
                () = uses => false,
                () = idle => true,
            };
            tokio::select! {
                _ = closes.wait_for(|closing| *closing) => return,
                () = self.report_or_end(idle) => {}
            }
        }
    }

    async fn report_or_end(&mut self, idle: bool) {
        match idle {
            true => self.end_session().await,
            false => self.report_all().await,
        }
    }

    /// All that waits, and then that the session ends.
    async fn report_the_rest(&mut self) {
        self.backoff = Backoff::default();
        self.report_all().await;
        self.end_session().await;
    }

    /// One that can't be told ends by itself.
    async fn end_session(&mut self) {
        if let Some(end) = self.numbering.end() {
            let (mut keys, end) = (self.client.keys(), self.client.timed(end));
            let _ = self.client.within_timeout(keys.report_uses(end)).await;
        }
    }

    /// May be dropped at any await: what was sent meanwhile waits still, and is sent again under the same numbers.
    async fn report_all(&mut self) {
        while let Some((request, sent)) = self.next_request() {
            let (mut keys, request) = (self.client.keys(), self.client.timed(request));
            match self.client.within_timeout(keys.report_uses(request)).await {
                Ok(answer) => {
                    let mut queue = self.waiting.lock();
                    self.numbering.recorded(&mut queue.uses, sent, &answer);
                    queue.strict = false;
                    self.backoff = Backoff::default();
                }
                Err(error) => self.failed(sent, error).await,
            }
        }
    }

    fn next_request(&mut self) -> Option<(ReportUsesRequest, Sent)> {
        let queue = self.waiting.lock();
        let now = queue.time();
        (!queue.uses.is_empty()).then(|| self.numbering.next_request(&queue.uses, now))
    }

    async fn failed(&mut self, sent: Sent, error: CallError) {
        let next = {
            let mut queue = self.waiting.lock();
            let next = self.numbering.failed(&mut queue.uses, sent, &error);
            // Where nothing waits any more, nothing would ever end this.
            queue.strict = !queue.uses.is_empty() && (queue.strict || next == Next::LaterAndStrict);
            next
        };
        if next == Next::AtOnce {
            return;
        }
        if next == Next::LaterAndStrict {
            tracing::error!(%error, "uses are not reported, and wait; no kept answers are given");
        }
        sleep(self.backoff.next(error.retry_after, random())).await;
    }
}

impl Drop for Reporter {
    /// Also when the runtime ends: then nobody else says it.
    fn drop(&mut self) {
        let mut queue = self.waiting.lock();
        queue.closed = true;
        let uses = queue.uses.len();
        if uses > 0 {
            tracing::error!(uses, "uses were answered from kept answers and may be in no ledger");
        }
    }
}
