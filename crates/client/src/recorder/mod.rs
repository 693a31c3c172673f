//! Records audit events: in batches, again and again until each is durable, and each once, since its id is made before it is first
//! sent.
//!
//! - `batch`: what goes into one call, and what its answer says of each event.
//! - `run`: the task that sends.

mod batch;
mod run;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, SystemTime};

use keyledger_proto::{ErrorReason, FieldProblem, NewEvent};
use opentelemetry::trace::get_active_span;
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::call::Client;
use crate::error::CallError;

/// How a recorder works.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Most events that wait. By default 10,000.
    pub events: usize,
    /// Most bytes of events that wait, as they are sent. By default 16 MiB.
    pub bytes: usize,
    /// How long closing may take. By default 30 seconds.
    pub close_within: Duration,
}

impl Default for RecorderConfig {
    fn default() -> RecorderConfig {
        RecorderConfig {
            events: 10_000,
            bytes: 16 * 1024 * 1024,
            close_within: Duration::from_secs(30),
        }
    }
}

/// Where an event stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Position of its entry.
    pub position: u64,
    /// Whether an earlier try had recorded it.
    pub repeated: bool,
}

/// Why an event was not recorded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// It waits nowhere: there is no place. `record` waits for one instead.
    #[error("as many events wait as may")]
    Full,
    /// The recorder was closed.
    #[error("the recorder is closed")]
    Closed,
    /// It can't be repeated safely, or is larger than all that may wait.
    #[error("the event can't be sent: {0}")]
    Unfit(&'static str),
    /// Keyledger refused this event.
    #[error("the event was refused: {message}")]
    Refused { reason: ErrorReason, problems: Vec<FieldProblem>, message: String },
    /// Keyledger refused the call: a repeat would not help.
    #[error("events can't be recorded: {0}")]
    Call(CallError),
    /// It was not recorded before the recorder had to end. The last try may have recorded it: a repeat with the same `event_id`
    /// finds out.
    #[error("the recorder ended before the event was recorded")]
    Unsent,
}

/// That closing took too long: these events may be in no ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{events} events were not recorded before the recorder had to end")]
pub struct Unsent {
    pub events: usize,
}

/// Records events in batches. Cheap to clone; all clones share one buffer.
///
/// ```no_run
/// use keyledger_client::proto::{Actor, NewEvent, actor};
/// use keyledger_client::{Client, Config, Recorder, RecorderConfig};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(Config::new("https://keys.example.com:7420", "klk_…")).await?;
/// let recorder = Recorder::start(client, RecorderConfig::default());
/// let paid = NewEvent {
///     actor: Some(Actor { actor: Some(actor::Actor::Service("shop/checkout".into())) }),
///     action: "order.pay".into(),
///     resource: "orders/4711".into(),
///     category: "shop/payments".into(),
///     ..NewEvent::default()
/// };
/// // Durable when it answers.
/// println!("recorded at {}", recorder.record(paid.clone()).await?.position);
/// // Doesn't wait; says when the buffer is full. What came of it can be awaited, or dropped.
/// let receipt = recorder.try_record(paid)?;
/// drop(receipt);
/// recorder.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Waiting>,
    /// Bytes that may still wait.
    room: Arc<Semaphore>,
    bytes: usize,
    closing: Arc<watch::Sender<bool>>,
    /// How many were not recorded, once the task has ended.
    ended: watch::Receiver<Option<usize>>,
}

/// An event that waits, with its place, and whom to tell.
struct Waiting {
    event: NewEvent,
    size: usize,
    answer: oneshot::Sender<Result<Recorded, RecordError>>,
    _room: OwnedSemaphorePermit,
}

impl Recorder {
    /// Starts the task that sends. It ends after `close`, or when all recorders are gone: what waits then is sent for at most the time
    /// that closing may take, and while the runtime lives; the log says how many events were not.
    pub fn start(client: Client, config: RecorderConfig) -> Recorder {
        let (queue, waiting) = mpsc::channel(config.events.max(1));
        let (closing, closes) = watch::channel(false);
        let (end, ended) = watch::channel(None);
        tokio::spawn(run::run(client, waiting, closes, config.close_within, end));
        let bytes = config.bytes.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(bytes));
        Recorder { queue, room, bytes, closing: Arc::new(closing), ended }
    }

    /// Waits for a place and then until the event is durable. Whoever stops waiting doesn't stop the event.
    pub async fn record(&self, event: NewEvent) -> Result<Recorded, RecordError> {
        let (event, size) = self.prepare(event)?;
        let room = self.room.clone().acquire_many_owned(size as u32).await;
        let (waiting, receipt) = waiting(event, size, room.map_err(|_| RecordError::Closed)?);
        self.queue.send(waiting).await.map_err(|_| RecordError::Closed)?;
        receipt.await
    }

    /// Takes the event if there is a place. It is then sent whether or not the receipt is awaited.
    pub fn try_record(&self, event: NewEvent) -> Result<Receipt, RecordError> {
        let (event, size) = self.prepare(event)?;
        let room = self.room.clone().try_acquire_many_owned(size as u32);
        let (waiting, receipt) = waiting(event, size, room.map_err(|_| RecordError::Full)?);
        match self.queue.try_send(waiting) {
            Ok(()) => Ok(receipt),
            Err(mpsc::error::TrySendError::Full(_)) => Err(RecordError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(RecordError::Closed),
        }
    }

    /// Takes no more events, and waits until those that wait are recorded, for at most the time that is configured.
    pub async fn close(&self) -> Result<(), Unsent> {
        self.closing.send_replace(true);
        let mut ended = self.ended.clone();
        // Its sender goes away without a word only if the runtime does.
        match ended.wait_for(Option::is_some).await.map_or(None, |left| *left) {
            None | Some(0) => Ok(()),
            Some(events) => Err(Unsent { events }),
        }
    }

    fn prepare(&self, event: NewEvent) -> Result<(NewEvent, usize), RecordError> {
        let event = complete(event)?;
        let size = event.encoded_len().max(1);
        match size <= self.bytes {
            true => Ok((event, size)),
            false => Err(RecordError::Unfit("it is larger than all that may wait")),
        }
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

/// What becomes of an event that was taken: await it, or drop it.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Recorded, RecordError>>);

impl Future for Receipt {
    type Output = Result<Recorded, RecordError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        // Dropped without an answer: the task that sends has ended.
        Pin::new(&mut self.0).poll(task).map(|answer| answer.unwrap_or(Err(RecordError::Unsent)))
    }
}

fn waiting(event: NewEvent, size: usize, room: OwnedSemaphorePermit) -> (Waiting, Receipt) {
    let (answer, receipt) = oneshot::channel();
    (Waiting { event, size, answer, _room: room }, Receipt(receipt))
}

/// Gives an event what it must have before it is sent for the first time, so that a repeat is the same: an id, a time, and the
/// trace in which it happened.
fn complete(mut event: NewEvent) -> Result<NewEvent, RecordError> {
    if let Some(signed) = &event.signature {
        let inner = NewEvent::decode(signed.payload.as_slice());
        let inner = inner.map_err(|_| RecordError::Unfit("its signed payload is no NewEvent"))?;
        return match inner.event_id.is_empty() {
            true => Err(RecordError::Unfit("a signed event needs an event_id to be repeated")),
            false => Ok(event),
        };
    }
    if event.event_id.is_empty() {
        event.event_id = Uuid::new_v4().to_string();
    }
    if event.occur_time.is_none() {
        // To the microsecond, as the ledger keeps it.
        let mut now = Timestamp::from(SystemTime::now());
        now.nanos -= now.nanos % 1_000;
        event.occur_time = Some(now);
    }
    if event.trace_id.is_empty() && event.span_id.is_empty() {
        let span = get_active_span(|span| span.span_context().clone());
        if span.is_valid() && span.is_sampled() {
            event.trace_id = span.trace_id().to_string();
            event.span_id = span.span_id().to_string();
        }
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use keyledger_proto::SignedByProducer;
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };

    use super::*;

    #[test]
    fn an_event_gets_its_id_time_and_trace_before_it_is_sent() {
        let span = |flags| {
            let (trace, span) = (TraceId::from(1), SpanId::from(2));
            SpanContext::new(trace, span, flags, false, TraceState::default())
        };
        let sampled = Context::new().with_remote_span_context(span(TraceFlags::SAMPLED));
        let event = {
            let _attached = sampled.attach();
            complete(NewEvent::default()).unwrap()
        };
        assert!(Uuid::parse_str(&event.event_id).is_ok() && event.occur_time.is_some());
        assert_eq!(event.trace_id, "00000000000000000000000000000001");
        assert_eq!(event.span_id, "0000000000000002");
        assert_eq!(complete(event.clone()).unwrap(), event, "what is there stays");
        let unsampled = Context::new().with_remote_span_context(span(TraceFlags::default()));
        let _attached = unsampled.attach();
        assert_eq!(complete(NewEvent::default()).unwrap().trace_id, "");
    }

    #[test]
    fn a_signed_event_is_sent_as_it_is_if_it_can_be_repeated() {
        let signed = |event_id: &str| {
            let payload = NewEvent { event_id: event_id.into(), ..NewEvent::default() };
            let payload = payload.encode_to_vec();
            let signature = SignedByProducer { payload, ..SignedByProducer::default() };
            NewEvent { signature: Some(signature), ..NewEvent::default() }
        };
        assert_eq!(complete(signed("77")).unwrap(), signed("77"));
        assert!(matches!(complete(signed("")), Err(RecordError::Unfit(_))));
    }
}
