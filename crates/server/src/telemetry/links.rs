//! Links from a span that uses or changes a key to the span of the key's newest lifecycle entry before. Where that span is,
//! stands in the signed body of the entry; what this replica wrote lately is remembered. Otherwise the span waits, with the
//! time of its end, for a finisher, which reads many entries at once. No request waits for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use keyledger_ledger::batch::NewEntry;
use keyledger_ledger::body::Event;
use keyledger_ledger::id::{KeyId, Trace};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanRef, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::names;
use crate::sequencer::Ledger;
use crate::store::connect::Database;
use crate::store::{StoreError, entries};

/// Entries whose traces are remembered: some two megabytes.
const MAX_REMEMBERED: usize = 16_384;
/// Most spans that wait for the finisher. Those beyond it end without links that are not remembered.
const MAX_WAITING: usize = 4_096;
/// Most spans that are finished at once.
const AT_ONCE: usize = 256;
/// How long the finisher waits for the database; and the end of a server for the finisher.
const PATIENCE: Duration = Duration::from_secs(2);
const AT_THE_END: Duration = Duration::from_secs(1);

static REMEMBERED: LazyLock<Mutex<Remembered>> = LazyLock::new(Mutex::default);
static FINISHER: OnceLock<mpsc::Sender<ToFinish>> = OnceLock::new();

/// A ledger, and where its entries are. Its copies share one.
#[derive(Clone)]
pub(crate) struct Place(Arc<Where>);

struct Where {
    id: Uuid,
    /// The id as attributes hold it.
    text: Arc<str>,
    number: u32,
    database: Database,
}

/// The entry that a link is to lead to.
pub(super) struct Wanted {
    pub(super) place: Place,
    pub(super) key: KeyId,
    pub(super) position: u64,
}

enum ToFinish {
    Span {
        context: Context,
        wanted: Vec<Wanted>,
        ended: SystemTime,
    },
    /// Tells when all before it are finished.
    Flush(oneshot::Sender<()>),
}

/// Traces of entries, by ledger and position. Those that came first go first.
#[derive(Default)]
struct Remembered {
    traces: HashMap<(u32, u64), Trace>,
    order: VecDeque<(u32, u64)>,
}

impl Place {
    pub(crate) fn new(id: Uuid, number: u32, database: Database) -> Place {
        Place(Arc::new(Where { id, text: id.to_string().into(), number, database }))
    }

    pub(crate) fn of(ledger: &Ledger) -> Place {
        ledger.place.clone()
    }

    /// Which ledger it is.
    pub(super) fn attribute(&self) -> KeyValue {
        KeyValue::new(names::LEDGER_ID, self.0.text.clone())
    }
}

impl Remembered {
    fn note(&mut self, at: (u32, u64), trace: Trace) {
        if self.traces.insert(at, trace).is_none() {
            self.order.push_back(at);
        }
        if self.order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.traces.remove(&oldest);
        }
    }

    fn find(&self, wanted: &Wanted) -> Option<Trace> {
        self.traces.get(&(wanted.place.0.number, wanted.position)).copied()
    }
}

/// Starts the finisher.
pub(super) fn start() {
    let (sender, waiting) = mpsc::channel(MAX_WAITING);
    if FINISHER.set(sender).is_ok() {
        tokio::spawn(finish(waiting));
    }
}

/// Remembers where the lifecycle entries of a batch were written.
pub(crate) fn remember(ledger: &Ledger, entries: &[NewEntry]) {
    if FINISHER.get().is_none() {
        return;
    }
    let of_keys =
        entries.iter().filter(|e| e.event.kind.as_ref().is_some_and(|k| k.key_link().is_some()));
    let mut remembered = remembered();
    for entry in of_keys {
        remembered.note((ledger.number, entry.position), trace_of(&entry.event));
    }
}

/// Adds the links that are remembered, and ends the span, unless others have to be found.
pub(super) fn add_and_end(context: Context, wanted: Vec<Wanted>, ended: SystemTime) {
    let span = context.span();
    let missing = add_remembered(&span, wanted);
    if !missing.is_empty()
        && let Some(finisher) = FINISHER.get()
    {
        let waits = ToFinish::Span { context: context.clone(), wanted: missing, ended };
        if finisher.try_send(waits).is_ok() {
            return;
        }
    }
    span.end_with_timestamp(ended);
}

/// Waits until the spans that ended before this are finished. For when a server stops.
pub(crate) async fn flush() {
    let Some(finisher) = FINISHER.get() else { return };
    let (sender, done) = oneshot::channel();
    let flushed = async {
        if finisher.send(ToFinish::Flush(sender)).await.is_ok() {
            let _ = done.await;
        }
    };
    let _ = tokio::time::timeout(AT_THE_END, flushed).await;
}

/// Returns those that are not remembered.
fn add_remembered(span: &SpanRef<'_>, wanted: Vec<Wanted>) -> Vec<Wanted> {
    if wanted.is_empty() {
        return wanted;
    }
    let remembered = remembered();
    let missing = |wanted: &Wanted| match remembered.find(wanted) {
        Some(trace) => {
            add(span, wanted, trace);
            false
        }
        None => true,
    };
    wanted.into_iter().filter(missing).collect()
}

/// An entry that Keyledger made by itself has no trace.
fn add(span: &SpanRef<'_>, wanted: &Wanted, trace: Trace) {
    if trace == Trace::default() {
        return;
    }
    let (trace_id, span_id) =
        (TraceId::from_bytes(trace.trace_id), SpanId::from_bytes(trace.span_id));
    let state = TraceState::default();
    let to = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, state);
    let attributes = vec![
        KeyValue::new(names::KEY_ID, wanted.key.to_string()),
        KeyValue::new(names::ENTRY_POSITION, wanted.position as i64),
    ];
    span.add_link(to, attributes);
}

async fn finish(mut waiting: mpsc::Receiver<ToFinish>) {
    let mut some = Vec::with_capacity(AT_ONCE);
    while waiting.recv_many(&mut some, AT_ONCE).await > 0 {
        look_up(&some).await;
        for one in some.drain(..) {
            match one {
                ToFinish::Span { context, wanted, ended } => {
                    // What is still not known, couldn't be read.
                    add_remembered(&context.span(), wanted);
                    context.span().end_with_timestamp(ended);
                }
                ToFinish::Flush(done) => drop(done.send(())),
            }
        }
    }
}

/// Reads what all of them want, ledger by ledger.
async fn look_up(some: &[ToFinish]) {
    let mut ledgers: BTreeMap<u32, (&Place, Vec<u64>)> = BTreeMap::new();
    for one in some {
        let ToFinish::Span { wanted, .. } = one else { continue };
        for wanted in wanted {
            let place = &wanted.place;
            ledgers.entry(place.0.number).or_insert((place, vec![])).1.push(wanted.position);
        }
    }
    for (place, mut positions) in ledgers.into_values() {
        positions.sort_unstable();
        positions.dedup();
        match tokio::time::timeout(PATIENCE, read(place, &positions)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "spans end without some of their links"),
            Err(_) => tracing::debug!("spans end without some of their links: no answer in time"),
        }
    }
}

async fn read(place: &Place, positions: &[u64]) -> Result<(), StoreError> {
    let Where { id, number, database, .. } = &*place.0;
    let client = database.client().await?;
    let found = entries::at_positions(&client, *id, positions).await?;
    drop(client);
    let mut remembered = remembered();
    for entry in found {
        let event = Event::from_signed(&entry.entry.body);
        let trace = event.map_or(Trace::default(), |event| trace_of(&event));
        remembered.note((*number, entry.position), trace);
    }
    Ok(())
}

fn trace_of(event: &Event) -> Trace {
    Trace {
        trace_id: event.trace_id.as_slice().try_into().unwrap_or_default(),
        span_id: event.span_id.as_slice().try_into().unwrap_or_default(),
    }
}

fn remembered() -> std::sync::MutexGuard<'static, Remembered> {
    REMEMBERED.lock().expect("no holder of this lock panics")
}
