//! The task that sends: one call at a time, with all that waits, and again until it is decided.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Waiting;
use super::batch::{MOST_AT_ONCE, fail, settle};
use crate::backoff::{Backoff, random};
use crate::call::Client;
use crate::fitting::fitting;

/// Until the recorder is closed, or all of them are gone, and nothing waits any more. Says how many events were given up.
pub(super) async fn run(
    client: Client,
    waiting: mpsc::Receiver<Waiting>,
    mut closes: watch::Receiver<bool>,
    close_within: Duration,
    end: watch::Sender<Option<usize>>,
) {
    let mut sender =
        Sender { client, waiting, taken: VecDeque::new(), backoff: Backoff::default() };
    let all_sent = tokio::select! {
        // An error: all recorders are gone.
        _ = closes.wait_for(|closing| *closing) => false,
        () = sender.send_all() => true,
    };
    if !all_sent {
        // Nothing is lost by stopping in the middle: what was sent and not decided is still there.
        sender.waiting.close();
        sender.backoff = Backoff::default();
        let _ = timeout(close_within, sender.send_all()).await;
    }
    let left = sender.left();
    // Whoever waits hears of it, since its sender goes.
    drop(sender);
    end.send_replace(Some(left));
}

struct Sender {
    client: Client,
    waiting: mpsc::Receiver<Waiting>,
    /// At most twice as many as a call holds.
    taken: VecDeque<Waiting>,
    backoff: Backoff,
}

impl Sender {
    fn left(&self) -> usize {
        self.taken.len() + self.waiting.len()
    }

    /// Until no more can come. May be dropped at any await.
    async fn send_all(&mut self) {
        while self.take().await {
            self.send().await;
        }
    }

    /// `false`: nothing is there, and nothing comes any more.
    async fn take(&mut self) -> bool {
        if self.taken.is_empty() {
            match self.waiting.recv().await {
                Some(waiting) => self.taken.push_back(waiting),
                None => return false,
            }
        }
        while self.taken.len() < MOST_AT_ONCE
            && let Ok(waiting) = self.waiting.try_recv()
        {
            self.taken.push_back(waiting);
        }
        true
    }

    async fn send(&mut self) {
        let count = fitting(self.taken.iter().map(|waiting| waiting.size), MOST_AT_ONCE);
        let events = self.taken.iter().take(count).map(|waiting| waiting.event.clone());
        let answer = self.client.record(events.collect()).await;
        let undecided = match answer {
            Ok(outcomes) => {
                let sent = self.taken.drain(..count).collect();
                let again = settle(sent, outcomes);
                let (undecided, decided) = (!again.is_empty(), again.len() < count);
                again.into_iter().rev().for_each(|waiting| self.taken.push_front(waiting));
                // A key whose rate is reached goes on as soon as some were accepted.
                if decided {
                    self.backoff = Backoff::default();
                }
                undecided.then_some(None)
            }
            Err(error) if error.may_be_repeated() => Some(error.retry_after),
            Err(error) => {
                fail(self.taken.drain(..count).collect(), &error);
                None
            }
        };
        if let Some(retry_after) = undecided {
            sleep(self.backoff.next(retry_after, random())).await;
        }
    }
}

impl Drop for Sender {
    /// Also when the runtime ends: not everybody listens to their receipt.
    fn drop(&mut self) {
        let events = self.left();
        if events > 0 {
            tracing::error!(events, "events were not recorded before the recorder ended");
        }
    }
}
