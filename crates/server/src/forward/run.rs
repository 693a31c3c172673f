//! One forwarder on one replica, told from top to bottom: it waits for its turn, reads what comes next, sends it, and moves its
//! cursor.
//!
//! Where a crash may fall: before the cursor has moved the batch is sent again, by whoever has the forwarder then. A webhook is
//! told the end of its batch beforehand, in the row: so the same batch is made again, with the same id.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::config::{Forwarder, Target};
use super::lease::{Change, Lease, Trouble};
use super::reader::{Batch, Reader};
use super::{Failed, notice, retry, webhook};
use crate::grpc::Failure;
use crate::replica::Replica;
use crate::sealing::random;
use crate::sequencer::Ledger;
use crate::store::forwarders::{Cursor, Taken};

/// How often a cursor is written that only passes what the filter doesn't mean.
const QUIET: Duration = Duration::from_secs(1);

/// How long new entries gather before they are read: a busy ledger isn't asked at each of its batches.
const GATHER: Duration = Duration::from_millis(20);

/// What all forwarders of a server have.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) replica: Arc<Replica>,
    /// This replica, among those that could have a forwarder.
    pub(super) me: Uuid,
    pub(super) places: Arc<Semaphore>,
    /// Who sends, in the words of OpenTelemetry.
    pub(super) resource: Arc<Resource>,
}

pub(super) struct Running {
    pub(super) shared: Shared,
    pub(super) ledger: Arc<Ledger>,
    pub(super) forwarder: Arc<Forwarder>,
}

impl Running {
    /// Runs until it is told to stop.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let name = self.forwarder.name.as_str();
        loop {
            // What doesn't verify is not sent on: another replica may see it otherwise.
            if self.ledger.stopped().is_none() {
                match Lease::take(&self.ledger, &self.forwarder, self.shared.me).await {
                    Ok(Some((lease, taken))) => self.hold(lease, taken, &mut stop).await,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, name, "a forwarder could not be taken"),
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(self.forwarder.pace.lease / 3) => {}
            }
        }
    }

    /// Has the forwarder, until it is lost or left.
    async fn hold(&self, lease: Lease<'_>, taken: Taken, stop: &mut watch::Receiver<bool>) {
        let (name, position) = (self.forwarder.name.as_str(), taken.next.position);
        let ledger = self.forwarder.ledger.as_str();
        tracing::info!(name, ledger, position, "this replica has a forwarder");
        tokio::select! {
            () = self.work(&lease, taken) => {}
            () = lease.keep() => {}
            () = self.ledger.until_stopped() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        tracing::info!(name, ledger, "this replica leaves a forwarder");
        lease.release().await;
    }

    /// Sends, for ever. Returns when it turns out that somebody else has the forwarder, or that the ledger is stopped here.
    async fn work(&self, lease: &Lease<'_>, taken: Taken) {
        let (mut failures, mut work) = (taken.failures, Work::new(self, taken));
        let (name, ledger) = (self.forwarder.name.as_str(), self.forwarder.ledger.as_str());
        while self.ledger.stopped().is_none() {
            let failed = match work.step(self, lease, failures).await {
                Ok(()) => {
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!(name, ledger, "a forwarder works again");
                    }
                    continue;
                }
                Err(Trouble::Lost) => return,
                Err(Trouble::Failed(failed)) => failed,
            };
            work.let_go();
            failures = failures.saturating_add(1);
            let head = self.ledger.snapshot().state.next_position;
            let behind = head.saturating_sub(work.saved.position);
            let why = failed.text.as_str();
            tracing::warn!(name, ledger, why, failures, behind, "a forwarder could not send");
            if let Err(Trouble::Lost) = lease.change(Change::Fail(bounded(why))).await {
                return;
            }
            sleep(self.wait(failures, &failed)).await;
        }
    }

    fn wait(&self, failures: u32, failed: &Failed) -> Duration {
        let (pace, random) = (&self.forwarder.pace, u64::from_be_bytes(random()));
        retry::wait(failures, pace.retry_initial, pace.retry_max, failed.retry_after, random)
    }

    /// Log records are given away: a batch that was not sent is read again.
    async fn send(&self, batch: &mut Batch) -> Result<(), Failed> {
        let sent = async {
            match &self.forwarder.target {
                Target::Webhook(webhook) => {
                    let body = webhook::body(batch);
                    let id = webhook::id(self.ledger.id, &self.forwarder.name, batch, &body);
                    webhook.send(&id, body).await
                }
                Target::Syslog(syslog) => syslog.send(&batch.events).await,
                Target::File(lines) => lines.append(&batch.events).await,
                Target::Otlp(otlp) => otlp.send(self.ledger.id, &self.shared.resource, batch).await,
            }
        };
        let sent = timeout(self.forwarder.pace.timeout, sent).await;
        sent.unwrap_or_else(|_| Err(Failed::new("it took too long")))
    }
}

impl Running {
    /// That a notice was taken is recorded. If that fails it is sent again, with the same id.
    async fn record(&self, batch: &Batch, failures: u32) -> Result<(), Failed> {
        if self.forwarder.notice.is_none() {
            return Ok(());
        }
        let (name, body) = (self.forwarder.name.as_str(), webhook::body(batch));
        notice::record(&self.ledger, name, batch, &body, failures).await
    }
}

/// How far a forwarder is.
struct Work {
    reader: Reader,
    /// What is sent now, and whether it was sent already and only the cursor is still to be moved.
    batch: Option<(Batch, bool)>,
    /// The end of a batch that whoever had it before may have sent.
    begun: Option<Cursor>,
    /// Where the row's cursor stands.
    saved: Cursor,
    saved_at: Instant,
}

impl Work {
    fn new(running: &Running, taken: Taken) -> Work {
        let (saved, begun) = (taken.next, taken.batch_end);
        let reader = Reader::new(
            running.shared.replica.clone(),
            running.ledger.clone(),
            running.forwarder.clone(),
            running.shared.places.clone(),
            saved,
        );
        Work { reader, batch: None, begun, saved, saved_at: Instant::now() }
    }

    /// Reads and sends one batch, or passes entries that the filter doesn't mean, or waits for new ones.
    async fn step(
        &mut self,
        running: &Running,
        lease: &Lease<'_>,
        failures: u32,
    ) -> Result<(), Trouble> {
        if self.batch.is_none() {
            let batch = self.reader.batch(self.begun).await.map_err(unread)?;
            self.batch = batch.map(|batch| (batch, false));
        }
        let Some((batch, sent)) = &mut self.batch else {
            return self.pass(running, lease).await;
        };
        if !*sent {
            if matches!(running.forwarder.target, Target::Webhook(_)) {
                lease.change(Change::Begin(batch.next)).await?;
            }
            running.send(batch).await.map_err(Trouble::Failed)?;
            running.record(batch, failures).await.map_err(Trouble::Failed)?;
            *sent = true;
        }
        let next = batch.next;
        self.save(lease, next, true).await?;
        self.batch = None;
        Ok(())
    }

    /// After a failure nothing is held but the cursor, however long the receiver is away: the same batch is read again.
    fn let_go(&mut self) {
        if let Some((batch, sent)) = &mut self.batch {
            match sent {
                true => batch.events = vec![],
                false => {
                    self.begun = Some(batch.next);
                    self.reader.again_from(batch.first);
                    self.batch = None;
                }
            }
        }
    }

    /// There is nothing to send: the cursor moves all the same, now and then, and at the head we wait.
    async fn pass(&mut self, running: &Running, lease: &Lease<'_>) -> Result<(), Trouble> {
        let moved = self.reader.cursor > self.saved;
        if moved && self.saved_at.elapsed() >= QUIET {
            return self.save(lease, self.reader.cursor, false).await;
        }
        let mut size = running.ledger.watch_size();
        let mut checkpoint = running.ledger.watch_checkpoint();
        if !self.reader.is_at_head() {
            return Ok(());
        }
        let of_records = self.reader.is_of_records();
        tokio::select! {
            _ = checkpoint.changed(), if of_records => {}
            _ = size.changed(), if !of_records => sleep(GATHER).await,
            () = sleep_until(self.saved_at + QUIET), if moved => {}
        }
        Ok(())
    }

    async fn save(&mut self, lease: &Lease<'_>, next: Cursor, sent: bool) -> Result<(), Trouble> {
        lease.change(Change::Advance { next, sent }).await?;
        (self.saved, self.saved_at, self.begun) = (next, Instant::now(), None);
        Ok(())
    }
}

fn unread(failure: Failure) -> Trouble {
    let text = match failure {
        Failure::Internal(what) => what,
        Failure::Sequencer(error) => {
            tracing::warn!(%error, "a forwarder could not read");
            "the database can't be reached"
        }
        _ => "the ledger can't be read",
    };
    Trouble::Failed(Failed::new(text))
}

/// What a row takes.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(512)]
}
