//! The replies of a stream on their way to its reader: bounded in bytes, counted when they leave, and dropped when the stream
//! is cut off, so that a reader that takes nothing keeps nothing of ours.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::Status;

use super::follow::Ended;
use super::status::Failure;

/// Most bytes that wait for a reader, in units: a larger reply takes all of them, and no reply less than one.
const UNITS: usize = 1_024;
const UNIT: usize = 1_024;

/// What the reader takes its replies from.
pub(super) struct Replies<Reply> {
    shared: Arc<Mutex<Shared<Reply>>>,
    /// Dropped with the reader.
    _here: oneshot::Sender<()>,
}

/// What the stream gives its replies to.
pub(super) struct Giving<Reply> {
    shared: Arc<Mutex<Shared<Reply>>>,
    room: Arc<Semaphore>,
    gone: oneshot::Receiver<()>,
    patience: Duration,
}

/// Why whoever gives something long has stopped before its end.
pub(super) enum Stopped {
    /// The reader has gone away.
    Gone,
    Because(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Stopped {
        Stopped::Because(error.into())
    }
}

struct Shared<Reply> {
    waiting: VecDeque<Waiting<Reply>>,
    given: Given,
    end: Option<End>,
    reader: Option<Waker>,
}

struct Waiting<Reply> {
    reply: Reply,
    next: u64,
    events: u64,
    _room: OwnedSemaphorePermit,
}

enum End {
    /// After what waits, well or with why not.
    Last(Option<Box<Status>>),
    Told,
}

/// What has left for the reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    /// Where the reader continues.
    pub(super) next: u64,
    pub(super) events: u64,
}

/// Both ends of a stream that begins at a position.
pub(super) fn replies<Reply>(next: u64, patience: Duration) -> (Giving<Reply>, Replies<Reply>) {
    let shared = Shared {
        waiting: VecDeque::new(),
        given: Given { next, events: 0 },
        end: None,
        reader: None,
    };
    let shared = Arc::new(Mutex::new(shared));
    let (here, gone) = oneshot::channel();
    let room = Arc::new(Semaphore::new(UNITS));
    (Giving { shared: shared.clone(), room, gone, patience }, Replies { shared, _here: here })
}

impl<Reply: Message> Giving<Reply> {
    /// Gives a reply that holds so many events, and after which the reader continues at `next`. Waits for room.
    pub(super) async fn give(&mut self, reply: Reply, next: u64, events: u64) -> Result<(), Ended> {
        let units = (reply.encoded_len() / UNIT + 1).min(UNITS);
        let room = self.room(units).await?;
        let mut shared = lock(&self.shared);
        shared.waiting.push_back(Waiting { reply, next, events, _room: room });
        wake(shared);
        Ok(())
    }

    /// Returns when all replies have left.
    pub(super) async fn all_left(&mut self) -> Result<Given, Ended> {
        drop(self.room(UNITS).await?);
        Ok(self.given())
    }

    /// Returns when the reader is gone.
    pub(super) async fn gone(&mut self) {
        let _ = (&mut self.gone).await;
    }

    /// What has left so far.
    pub(super) fn given(&self) -> Given {
        lock(&self.shared).given
    }

    /// Ends the stream well.
    pub(super) fn end(&self) {
        self.end_with(None);
    }

    /// Ends the stream at once: what waits is dropped. `why` is told what has left by then.
    pub(super) fn cut(&self, why: impl FnOnce(Given) -> Status) {
        let mut shared = lock(&self.shared);
        shared.waiting.clear();
        let status = why(shared.given);
        drop(shared);
        self.end_with(Some(Box::new(status)));
    }

    fn end_with(&self, status: Option<Box<Status>>) {
        let mut shared = lock(&self.shared);
        shared.end = Some(End::Last(status));
        wake(shared);
    }

    async fn room(&mut self, units: usize) -> Result<OwnedSemaphorePermit, Ended> {
        let room = self.room.clone().acquire_many_owned(units as u32);
        tokio::select! {
            biased;
            room = tokio::time::timeout(self.patience, room) => match room {
                Ok(room) => Ok(room.expect("nobody closes it")),
                Err(_) => Err(Ended::TooSlow),
            },
            _ = &mut self.gone => Err(Ended::Gone),
        }
    }
}

/// Whatever becomes of the stream's task, its reader hears of an end.
impl<Reply> Drop for Giving<Reply> {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        let bug = || Box::new(Failure::Internal("a stream was given up without an end").into());
        shared.end.get_or_insert_with(|| End::Last(Some(bug())));
        wake(shared);
    }
}

impl<Reply> tokio_stream::Stream for Replies<Reply> {
    type Item = Result<Reply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut shared = lock(&self.shared);
        if let Some(Waiting { reply, next, events, .. }) = shared.waiting.pop_front() {
            shared.given = Given { next, events: shared.given.events + events };
            return Poll::Ready(Some(Ok(reply)));
        }
        match shared.end.replace(End::Told) {
            Some(End::Last(Some(status))) => Poll::Ready(Some(Err(*status))),
            Some(End::Last(None) | End::Told) => Poll::Ready(None),
            None => {
                shared.end = None;
                shared.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn lock<Reply>(shared: &Mutex<Shared<Reply>>) -> MutexGuard<'_, Shared<Reply>> {
    shared.lock().expect("no holder of this lock panics")
}

fn wake<Reply>(mut shared: MutexGuard<'_, Shared<Reply>>) {
    let reader = shared.reader.take();
    drop(shared);
    if let Some(reader) = reader {
        reader.wake();
    }
}
