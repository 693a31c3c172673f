//! What all streams share: they follow a ledger from a cursor on, tell where they are when nothing happens, and end when
//! their reader is too slow or gone, or may not read any more.
//!
//! Why nothing is missed: positions are gapless and become visible in order (they are given under the ledger's lock), so all
//! that a reader needs is `position >= cursor`:
//!
//! ```text
//! writer A: lock ── 7 ── COMMIT             reader: … 6 | reads >= 7: [7] | reads >= 8: [] | reads >= 8: [8]
//! writer B:               lock ── 8 ────────────────────────────────────── COMMIT
//! ```
//!
//! Why nothing comes too late: position p is sent only after this replica has applied p, and the reader's key is judged by
//! that newest state. What comes after the end of the key is not sent.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::Status;

use super::replies::{Given, Giving, Replies, replies};
use super::status::Failure;
use crate::sequencer::Ledger;
use crate::streams::{OpenStream, Streams};

/// How long a reader waits for a message at most.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the end of a stream may take that is to be recorded.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// What a stream tells of a ledger.
pub(super) trait Source: Send + 'static {
    type Reply: Message + 'static;

    /// Sends what there is of some entries from the cursor on, none of them at `end` or after it, and moves the cursor past
    /// them. It is asked again until the cursor has come to `end`.
    fn send_some(
        &mut self,
        reader: &mut Reader<Self::Reply>,
        end: u64,
    ) -> impl Future<Output = Result<(), Ended>> + Send;

    /// What tells the reader where it is. An error if it may not read any more.
    fn heartbeat(&self, next_position: u64) -> Result<Self::Reply, Failure>;

    /// The stream has given so many events, and gives no more.
    fn closed(&mut self, events: u64) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Whoever reads a stream.
pub(super) struct Reader<Reply> {
    /// How far the source has come: everything before was sent, or isn't for the reader.
    pub(super) next: u64,
    giving: Giving<Reply>,
    /// When it was last sent something.
    heard: Option<Instant>,
}

/// Why a stream has ended.
pub(super) enum Ended {
    /// The reader has gone away.
    Gone,
    /// The reader has taken nothing for too long.
    TooSlow,
    /// The server stops.
    Stopping,
    Because(Failure),
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::Because(error.into())
    }
}

/// Follows a ledger from a position on, for ever or up to the position where it is to stop. The task outlives the stream by as
/// long as it takes to record its end.
pub(super) fn follow<S: Source>(
    streams: &Streams,
    ledger: Arc<Ledger>,
    mut source: S,
    next: u64,
    stop_at: Option<u64>,
) -> Result<Replies<S::Reply>, Failure> {
    let place = ledger.open_stream()?;
    let mut open = streams.open();
    let (giving, replies) = replies(next, streams.patience);
    tokio::spawn(async move {
        let mut reader = Reader { next, giving, heard: None };
        let ended = run(&ledger, &mut source, &mut reader, stop_at, &mut open).await;
        end(source, reader.giving, ended).await;
        drop((place, open));
    });
    Ok(replies)
}

async fn run<S: Source>(
    ledger: &Ledger,
    source: &mut S,
    reader: &mut Reader<S::Reply>,
    stop_at: Option<u64>,
    open: &mut OpenStream,
) -> Result<Given, Ended> {
    let mut size = ledger.watch_size();
    loop {
        let known = *size.borrow_and_update();
        let end = stop_at.unwrap_or(known);
        if reader.next < end {
            tokio::select! {
                sent = source.send_some(reader, end) => sent?,
                () = open.stopping() => return Err(Ended::Stopping),
            }
        } else if stop_at.is_some() {
            return reader.giving.all_left().await;
        } else {
            tokio::select! {
                changed = size.changed() => if changed.is_err() { return Err(Ended::Stopping) },
                () = tokio::time::sleep_until(reader.heartbeat_due()) => {}
                () = reader.giving.gone() => return Err(Ended::Gone),
                () = open.stopping() => return Err(Ended::Stopping),
            }
        }
        // Also while the ledger holds, or grows by, what isn't for this reader.
        if reader.heartbeat_due() <= Instant::now() {
            let reply = source.heartbeat(reader.next)?;
            reader.send(reply, reader.next, 0).await?;
        }
    }
}

/// Ends a stream and records its end. One that came to where it was to stop is ended when its end is durable, all others at once.
async fn end<S: Source>(mut source: S, giving: Giving<S::Reply>, ended: Result<Given, Ended>) {
    match ended {
        Ok(given) => match close(&mut source, given).await {
            Ok(()) => giving.end(),
            Err(failure) => giving.cut(|_| failure.into()),
        },
        Err(ended) => {
            giving.cut(|given| why(ended, given));
            if let Err(failure) = close(&mut source, giving.given()).await {
                tracing::warn!(
                    ?failure,
                    "the end of a stream was refused, or could not be recorded"
                );
            }
        }
    }
}

async fn close(source: &mut impl Source, given: Given) -> Result<(), Failure> {
    let closed = tokio::time::timeout(CLOSED_WITHIN, source.closed(given.events)).await;
    closed.unwrap_or(Err(Failure::Deadline { changing: false }))
}

fn why(ended: Ended, given: Given) -> Status {
    let next_position = given.next;
    let failure = match ended {
        // Nobody hears it.
        Ended::Gone | Ended::Stopping => Failure::Stopping { next_position: Some(next_position) },
        Ended::TooSlow => Failure::ReaderTooSlow { next_position },
        Ended::Because(failure) => failure,
    };
    failure.into()
}

impl<Reply: Message> Reader<Reply> {
    /// Sends a reply that holds so many events, and after which the reader continues at `next`.
    pub(super) async fn send(&mut self, reply: Reply, next: u64, events: u64) -> Result<(), Ended> {
        self.giving.give(reply, next, events).await?;
        self.heard = Some(Instant::now());
        Ok(())
    }

    /// A stream begins by telling where it is.
    fn heartbeat_due(&self) -> Instant {
        self.heard.map_or_else(Instant::now, |heard| heard + HEARTBEAT)
    }
}
