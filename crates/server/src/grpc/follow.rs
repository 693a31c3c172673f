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

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status::Failure;
use crate::sequencer::Ledger;

/// Most messages that wait for a reader.
const BUFFER: usize = 64;
/// How long a reader may leave its buffer full.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader waits for a message at most.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a stream tells of a ledger.
pub(super) trait Source: Send + 'static {
    type Reply: Send + 'static;

    /// Sends what there is of some entries from the cursor on, none of them at `end` or after it, and moves the cursor past
    /// them. It is asked again until the cursor has come to `end`.
    fn send_some(
        &mut self,
        reader: &mut Reader<Self::Reply>,
        end: u64,
    ) -> impl Future<Output = Result<(), Ended>> + Send;

    /// What tells the reader where it is. An error if it may not read any more.
    fn heartbeat(&self, next_position: u64) -> Result<Self::Reply, Failure>;
}

/// Whoever reads a stream.
pub(super) struct Reader<Reply> {
    /// Where it continues after a break: everything before was sent, or isn't for it.
    pub(super) next: u64,
    replies: mpsc::Sender<Result<Reply, Status>>,
    /// Since when nothing was sent.
    quiet_since: Instant,
}

/// Why a stream has ended.
pub(super) enum Ended {
    /// The reader has gone away.
    Gone,
    Because(Failure),
}

impl<E: Into<Failure>> From<E> for Ended {
    fn from(error: E) -> Ended {
        Ended::Because(error.into())
    }
}

/// Follows a ledger from a position on, for ever or up to the position where it is to stop.
pub(super) fn follow<S: Source>(
    ledger: Arc<Ledger>,
    mut source: S,
    next: u64,
    stop_at: Option<u64>,
) -> Result<ReceiverStream<Result<S::Reply, Status>>, Failure> {
    let place = ledger.open_stream()?;
    let (replies, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let _place = place;
        let mut reader = Reader { next, replies, quiet_since: Instant::now() };
        if let Err(Ended::Because(failure)) = run(&ledger, &mut source, &mut reader, stop_at).await
        {
            let _ = tokio::time::timeout(PATIENCE, reader.replies.send(Err(failure.into()))).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

async fn run<S: Source>(
    ledger: &Ledger,
    source: &mut S,
    reader: &mut Reader<S::Reply>,
    stop_at: Option<u64>,
) -> Result<(), Ended> {
    let mut size = ledger.watch_size();
    loop {
        let known = *size.borrow_and_update();
        let end = stop_at.unwrap_or(known);
        if reader.next < end {
            source.send_some(reader, end).await?;
        } else if stop_at.is_some() {
            return Ok(());
        } else {
            tokio::select! {
                changed = size.changed() => if changed.is_err() { return Ok(()) },
                _ = tokio::time::sleep_until(reader.quiet_since + HEARTBEAT) => {}
                () = reader.replies.closed() => return Err(Ended::Gone),
            }
        }
        // Also while the ledger holds, or grows by, what isn't for this reader.
        if reader.quiet_since.elapsed() >= HEARTBEAT {
            let reply = source.heartbeat(reader.next)?;
            reader.send(reply).await?;
        }
    }
}

impl<Reply> Reader<Reply> {
    pub(super) async fn send(&mut self, reply: Reply) -> Result<(), Ended> {
        match tokio::time::timeout(PATIENCE, self.replies.send(Ok(reply))).await {
            Ok(Ok(())) => {
                self.quiet_since = Instant::now();
                Ok(())
            }
            Ok(Err(_)) => Err(Ended::Gone),
            Err(_) => Err(Failure::ReaderTooSlow { next_position: self.next }.into()),
        }
    }
}
