//! One sequencer per ledger and replica: it takes all that must be written, in batches, and answers when it is durable.
//!
//! - [`Ledger`]: what the rest of the server holds: submit a command, look at a snapshot, wait for news.
//! - `run`: the write path, told from top to bottom.
//! - `bulk`: very many events at once, for benches.
//! - `checkpoint`: signs size and root at an interval.
//! - `counts`: tells how many events of each category there are.
//! - `digests`: counts what is to be tidied up.
//! - `ends`: notes that keys end soon, or have ended.
//! - `folding`: refusals beyond ten equal ones a second wait, and share a record.
//! - `history`: its state as it was.
//! - `idle`: suspends keys that nobody uses.
//! - `intervals`: what is done again and again.
//! - `load`: how a replica gets to the head when it starts.
//! - `memory`: answers from memory, and the recording of their uses.
//! - `quota`: how much one ledger may take of this replica.
//! - `tally`: what was done, counted for metrics.
//! - `catch_up`: how it takes over what other replicas appended.

pub mod bulk;
mod catch_up;
mod checkpoint;
mod counts;
mod digests;
mod ends;
mod folding;
mod history;
mod idle;
mod intervals;
mod load;
mod memory;
mod quota;
mod run;
mod tally;

pub(crate) use checkpoint::SignedCheckpoint;
pub(crate) use history::{History, PastError};
pub(crate) use load::{key_as_of, load};
pub(crate) use memory::RECORDED_WITHIN;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use keyledger_ledger::batch::Head;
use keyledger_ledger::command::{Answer, Command};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::keydir::KeyDirectory;
use crate::last_uses::NewestUses;
use crate::observer::Observer;
use crate::recent::Recent;
use crate::sealing::Sealing;
use crate::store::StoreError;
use crate::store::connect::Database;
use crate::telemetry::{self, Place};

/// Most commands that wait for a batch. Beyond this, callers are told to come back.
const MAX_WAITING: usize = 8_192;

/// A ledger on this replica.
pub(crate) struct Ledger {
    pub(crate) id: Uuid,
    pub(crate) number: u32,
    /// For reads of handlers.
    pub(crate) database: Database,
    /// For the sequencer, and for the scrubber to make sure: readers can't take its connections.
    pub(crate) writer: Database,
    /// As spans name it.
    pub(crate) place: Place,
    pub(crate) keys: Arc<KeyDirectory>,
    pub(crate) sealing: Arc<Sealing>,
    queue: mpsc::Sender<Waiting>,
    published: ArcSwap<Head>,
    size: watch::Sender<u64>,
    stopped: OnceLock<String>,
    stopping: watch::Sender<bool>,
    shed: AtomicU64,
    pub(crate) tally: tally::Tally,
    quota: quota::Quota,
    memory: memory::Memory,
    checkpoint: watch::Sender<Option<Arc<SignedCheckpoint>>>,
    /// How far the scrubber has come on its present walk.
    pub(crate) scrubbed: AtomicU64,
    /// Rows of keys that differed, or were missing, on its last walk.
    pub(crate) rows_differ: AtomicU64,
    pub(crate) newest_uses: NewestUses,
    pub(crate) observer: Observer,
    pub(crate) recent: Recent,
}

type AnswerTo = oneshot::Sender<Result<Answer, SequencerError>>;

/// Connections to the ledger database: those of the sequencers, and those of everyone else.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) readers: Database,
    pub(crate) writers: Database,
}

/// What waits for the sequencer.
enum Waiting {
    Command(Box<Command>, AnswerTo, Option<telemetry::Request>),
    /// Somebody needs what other replicas have appended.
    CatchUp(oneshot::Sender<Result<(), SequencerError>>),
}

/// Why a command has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SequencerError {
    #[error("the database can't be reached; nothing was changed: {0}")]
    Unavailable(String),
    #[error("it is not known whether the change was made: {0}")]
    OutcomeUnknown(String),
    #[error("too much is waiting already; nothing was changed")]
    Overloaded,
    #[error("the ledger may take no more of this replica than {most} {what}; nothing was changed")]
    LedgerLimit { what: &'static str, most: u64 },
    #[error("this ledger is stopped on this replica: {0}")]
    Stopped(String),
    #[error("this replica's clock and the database's differ by {0} ms")]
    ClockSkew(i64),
}

impl SequencerError {
    /// In a word, for telemetry.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            SequencerError::Unavailable(_) => "unavailable",
            SequencerError::OutcomeUnknown(_) => "outcome_unknown",
            SequencerError::Overloaded => "overloaded",
            SequencerError::LedgerLimit { .. } => "ledger_limit",
            SequencerError::Stopped(_) => "stopped",
            SequencerError::ClockSkew(_) => "clock_skew",
        }
    }
}

impl From<StoreError> for SequencerError {
    fn from(error: StoreError) -> SequencerError {
        match error {
            StoreError::OutcomeUnknown(text) => SequencerError::OutcomeUnknown(text),
            StoreError::Damaged(text) => SequencerError::Stopped(text),
            other => SequencerError::Unavailable(other.to_string()),
        }
    }
}

impl Ledger {
    /// Loads a ledger to its head and starts its sequencer.
    pub(crate) async fn start(
        id: Uuid,
        number: u32,
        databases: &Connections,
        sealing: Arc<Sealing>,
        keys: Arc<KeyDirectory>,
    ) -> Result<Arc<Ledger>, StoreError> {
        let Connections { readers: database, writers: writer } = databases.clone();
        let head = load::load(&writer, id, number, &keys).await?;
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let ledger = Arc::new(Ledger {
            id,
            number,
            place: Place::new(id, number, database.clone()),
            database,
            writer,
            keys,
            sealing,
            queue,
            size: watch::Sender::new(head.state.next_position),
            published: ArcSwap::from_pointee(head),
            stopped: OnceLock::new(),
            stopping: watch::Sender::new(false),
            shed: AtomicU64::new(0),
            tally: tally::Tally::default(),
            quota: quota::Quota::default(),
            memory: memory::Memory::default(),
            checkpoint: watch::Sender::new(None),
            scrubbed: AtomicU64::new(0),
            rows_differ: AtomicU64::new(0),
            newest_uses: NewestUses::default(),
            observer: Observer::default(),
            recent: Recent::default(),
        });
        // The projection may stand a little behind the head, or was not believed at all.
        catch_up::without_lock(&ledger).await.map_err(|error| match error {
            SequencerError::Stopped(why) => StoreError::Damaged(why),
            other => StoreError::Unavailable(other.to_string()),
        })?;
        let sequencer = tokio::spawn(run::run(Arc::downgrade(&ledger), waiting));
        let watched = Arc::downgrade(&ledger);
        tokio::spawn(async move {
            // It is cancelled only when the whole process ends.
            if let (Err(error), Some(ledger)) = (sequencer.await, watched.upgrade())
                && error.is_panic()
            {
                ledger.stop(&format!("its sequencer has ended, which is a bug of ours: {error}"));
            }
        });
        tokio::spawn(checkpoint::run(Arc::downgrade(&ledger)));
        tokio::spawn(counts::run(Arc::downgrade(&ledger)));
        tokio::spawn(digests::run(Arc::downgrade(&ledger)));
        tokio::spawn(ends::run(Arc::downgrade(&ledger)));
        tokio::spawn(idle::run(Arc::downgrade(&ledger)));
        tokio::spawn(memory::run(Arc::downgrade(&ledger)));
        Ok(ledger)
    }

    /// Waits until the command is durable, and tells what became of it. What waits holds nothing but its place.
    pub(crate) fn submit(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Answer, SequencerError>> + Send + use<> {
        let (sender, answer) = oneshot::channel();
        let request = telemetry::request();
        let admitted = self.take_bytes(&command);
        let queued = admitted
            .and_then(|()| self.enqueue(Waiting::Command(Box::new(command), sender, request)));
        async move {
            queued?;
            answer
                .await
                .unwrap_or_else(|_| Err(SequencerError::Stopped("the sequencer has ended".into())))
        }
    }

    /// Returns when this replica knows everything that was durable before the call.
    pub(crate) async fn catch_up(&self) -> Result<(), SequencerError> {
        let (sender, done) = oneshot::channel();
        self.enqueue(Waiting::CatchUp(sender))?;
        done.await
            .unwrap_or_else(|_| Err(SequencerError::Stopped("the sequencer has ended".into())))
    }

    /// The newest state that this replica knows to be durable.
    pub(crate) fn snapshot(&self) -> Arc<Head> {
        self.published.load_full()
    }

    /// Tells when the ledger has grown.
    pub(crate) fn watch_size(&self) -> watch::Receiver<u64> {
        self.size.subscribe()
    }

    /// Why this replica serves the ledger no more, if so.
    pub(crate) fn stopped(&self) -> Option<&str> {
        self.stopped.get().map(String::as_str)
    }

    /// Returns when this replica serves the ledger no more.
    pub(crate) async fn until_stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender is ours: it lives as long as we do.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Counts a call that was shed before anyone knew whose it was. The next page says how many.
    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.tally.count_shed();
    }

    /// How much waits for the next batch.
    pub(crate) fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    fn enqueue(&self, waiting: Waiting) -> Result<(), SequencerError> {
        if let Some(why) = self.stopped() {
            return Err(SequencerError::Stopped(why.into()));
        }
        self.queue.try_send(waiting).map_err(|_| SequencerError::Overloaded)
    }

    fn publish(&self, head: Arc<Head>) {
        let size = head.state.next_position;
        self.published.store(head);
        self.size.send_replace(size);
    }

    /// Serves this ledger no more.
    pub(crate) fn stop(&self, why: &str) {
        if self.stopped.set(why.into()).is_ok() {
            tracing::error!(ledger_id = %self.id, why, "a ledger was stopped: run `keyledger verify`");
            self.stopping.send_replace(true);
        }
    }
}
