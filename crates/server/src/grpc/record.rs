//! RecordEvents and RecordEventStream: what other services say happened there. Each event is a change of its own: authorised
//! for its category, sealed under the keys of the people in it, and recorded once for each id that its producer gives it.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use keyledger_ledger::body::{self, ActorKind, EventRecorded, ProducerSignature, Texts};
use keyledger_ledger::command::{ChangeKind, Refusal};
use keyledger_ledger::id::Time;
use keyledger_ledger::producer::has_signed;
use keyledger_ledger::text::Sealed;
use keyledger_proto::parse::{
    self, ActorName, CheckedEvent, CheckedEvents, Common, RecordedEvent, Signed, Violation,
};
use keyledger_proto::{
    EventOutcome, EventRefusal, FieldProblem, RecordEventStreamRequest, RecordEventStreamResponse,
    RecordEventsResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::call::{CallContext, Outcome};
use super::status::{self, Failure};
use crate::sealing::About;
use crate::streams::OpenStream;

/// Most events of a stream that are recorded at once.
const CHUNK: usize = 100;
/// Most answers that wait for the producer. While it takes none, no more of its events are read.
const BUFFER: usize = 4;
/// How long a producer that takes no answers is waited for when its stream has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of one event, or why it alone could not be recorded.
pub(super) type Attempt = Result<EventOutcome, Failure>;

/// An event that is ready to be recorded.
struct Ready {
    call: CallContext,
    kind: ChangeKind,
    texts: Vec<Sealed>,
    request_id: Option<[u8; 16]>,
}

pub(super) async fn record_events(
    mut call: CallContext,
    checked: CheckedEvents,
) -> Result<RecordEventsResponse, Failure> {
    // Who may record nothing at all is refused as a whole, and recorded so.
    if !call.may("logs/**") {
        call.record_read().await?;
    }
    let outcomes = match checked.atomic {
        true => record_all(&call, checked.events).await?,
        false => record_each(&call, checked.events).await?,
    };
    Ok(RecordEventsResponse { outcomes })
}

/// The producer's events as they come, in their order. What is answered is durable; whatever isn't by the end of the stream
/// is to be sent again, with the same ids.
pub(super) async fn record_event_stream(
    mut call: CallContext,
    events: Streaming<RecordEventStreamRequest>,
) -> Result<ReceiverStream<Result<RecordEventStreamResponse, Status>>, Failure> {
    if !call.may("logs/**") {
        call.record_read().await?;
    }
    let place = call.ledger.open_stream()?;
    let mut open = call.replica.streams.open();
    let (replies, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(async move {
        let mut answered = 0;
        let answering = answer_all(&call, events, &replies, &mut open, &mut answered);
        let ended = match answering.await {
            // Each event has left its own record. A stream without any leaves this one.
            Ok(()) if answered == 0 => call.record_read().await,
            ended => ended,
        };
        if let Err(failure) = ended {
            let _ = tokio::time::timeout(PATIENCE, replies.send(Err(failure.into()))).await;
        }
        drop((place, open));
    });
    Ok(ReceiverStream::new(receiver))
}

/// Until the producer ends its side, goes away, or its key ends.
async fn answer_all(
    call: &CallContext,
    events: Streaming<RecordEventStreamRequest>,
    replies: &mpsc::Sender<Result<RecordEventStreamResponse, Status>>,
    open: &mut OpenStream,
    answered: &mut u64,
) -> Result<(), Failure> {
    let mut chunks = events.ready_chunks(CHUNK);
    let mut size = call.ledger.watch_size();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => match chunk { Some(chunk) => chunk, None => return Ok(()) },
            changed = size.changed() => match changed.is_ok() && call.still_stands() {
                true => continue,
                false => return Err(Failure::KeyEnded),
            },
            () = replies.closed() => return Ok(()),
            () = open.stopping() => return Err(Failure::Stopping { next_position: None }),
        };
        let whole = chunk.iter().take_while(|message| message.is_ok()).count();
        let broken = whole < chunk.len();
        let read = chunk.into_iter().flatten().take(whole);
        let checked = read.map(|message| parse::event(message.event.unwrap_or_default()));
        let outcomes = record_each(call, checked.collect()).await?;
        if !call.still_stands() {
            return Err(Failure::KeyEnded);
        }
        *answered += outcomes.len() as u64;
        if !outcomes.is_empty() {
            let reply = RecordEventStreamResponse { outcomes, answered: *answered };
            tokio::select! {
                sent = replies.send(Ok(reply)) => if sent.is_err() { return Ok(()) },
                () = open.stopping() => return Err(Failure::Stopping { next_position: None }),
            }
        }
        if broken {
            call.again().refuse(body::DecisionReason::InvalidRequest).await?;
            return Err(Failure::MalformedMessage);
        }
    }
}

/// Each for itself, in order. What is wrong with one alone is its outcome; what is wrong with the whole call is an error of the
/// call.
async fn record_each(
    call: &CallContext,
    events: Vec<CheckedEvent>,
) -> Result<Vec<EventOutcome>, Failure> {
    let attempts = attempt_each(call, events).await?;
    Ok(attempts.into_iter().map(|done| done.unwrap_or_else(refused)).collect())
}

/// The same; why one alone could not be recorded is left as it is.
pub(super) async fn attempt_each(
    call: &CallContext,
    events: Vec<CheckedEvent>,
) -> Result<Vec<Attempt>, Failure> {
    let ready = join_all(events.into_iter().map(|event| prepare(call, event))).await;
    let recorded = ready.into_iter().map(async |ready| match ready? {
        Ok(ready) => record(ready).await,
        Err(violations) => {
            call.again().refuse(body::DecisionReason::InvalidRequest).await?;
            Ok(Err(Failure::Invalid(violations)))
        }
    });
    join_all(recorded).await.into_iter().collect()
}

/// All of them, or none.
async fn record_all(
    call: &CallContext,
    events: Vec<CheckedEvent>,
) -> Result<Vec<EventOutcome>, Failure> {
    let count = events.len();
    let ready = join_all(events.into_iter().map(|event| prepare(call, event))).await;
    let mut all = vec![];
    for (index, ready) in ready.into_iter().enumerate() {
        match ready? {
            Ok(ready) => all.push(ready.call.to_change(ready.kind, ready.texts, ready.request_id)),
            Err(violations) => {
                call.again().refuse(body::DecisionReason::InvalidRequest).await?;
                return Ok(aborted(count, index, Failure::Invalid(violations)));
            }
        }
    }
    match call.record_all(all).await {
        Ok(outcomes) => outcomes.into_iter().map(outcome).collect(),
        Err(Failure::Refused(Refusal::OneOfAll { index, refusal })) => {
            Ok(aborted(count, index, Failure::Refused(*refusal)))
        }
        Err(failure) => Err(failure),
    }
}

/// Nothing was recorded, since one event can't be.
fn aborted(count: usize, index: usize, failure: Failure) -> Vec<EventOutcome> {
    let mut outcomes: Vec<EventOutcome> =
        (0..count).map(|_| refused(Failure::BatchAborted { index })).collect();
    outcomes[index] = refused(failure);
    outcomes
}

async fn prepare(
    call: &CallContext,
    event: CheckedEvent,
) -> Result<Result<Ready, Vec<Violation>>, Failure> {
    let event = match event {
        Ok(event) => event,
        Err(violations) => return Ok(Err(violations)),
    };
    let mut call = call.again_on(format!("logs/{}", event.category));
    let request_id = (!event.event_id.is_empty()).then(|| request_id_of(&call, &event.event_id));
    call.digest_event(&event);
    if let Some((trace_id, span_id)) = event.trace {
        call.set_trace(trace_id, span_id);
    }
    if let Some(signed) = &event.signed
        && !is_signed(&call, signed).await?
    {
        let description = "is not one of the caller's registered keys over this payload".into();
        return Ok(Err(vec![Violation { field: "signature.signature".into(), description }]));
    }
    let (kind, texts) = seal(&call, event).await?;
    Ok(Ok(Ready { call, kind, texts, request_id }))
}

/// Whether one of the caller's registered keys has signed it. This replica may only be behind.
async fn is_signed(call: &CallContext, signed: &Signed) -> Result<bool, Failure> {
    let caller = call.caller()?.id;
    let key = || {
        let head = call.head();
        head.state.producers.get(&caller)?.key(&signed.public_key_sha256).copied()
    };
    let known = match key() {
        Some(key) => Some(key),
        None => {
            call.ledger.catch_up().await?;
            key()
        }
    };
    Ok(known.is_some_and(|key| has_signed(&key, &signed.payload, &signed.signature)))
}

async fn record(ready: Ready) -> Result<Attempt, Failure> {
    let Ready { mut call, kind, texts, request_id } = ready;
    let common = Common {
        reason: String::new(),
        request_id,
        validate_only: false,
        approval_ref: String::new(),
    };
    match call.change(kind, texts, &common).await {
        Ok(done) => outcome(done).map(Ok),
        Err(failure @ Failure::Refused(_)) => Ok(Err(failure)),
        Err(failure) => Err(failure),
    }
}

fn outcome(outcome: Outcome) -> Result<EventOutcome, Failure> {
    match outcome {
        Outcome::Done { position, .. } => {
            Ok(EventOutcome { position: Some(position), ..EventOutcome::default() })
        }
        Outcome::Replayed { position } => {
            Ok(EventOutcome { position: Some(position), repeated: true, refusal: None })
        }
        Outcome::Validated { .. } | Outcome::Seen => {
            Err(Failure::Internal("an event was answered otherwise"))
        }
    }
}

fn refused(failure: Failure) -> EventOutcome {
    let (reason, violations, message) = status::item(failure);
    let problem = |v: Violation| FieldProblem { field: v.field, description: v.description };
    let problems = violations.into_iter().map(problem).collect();
    let refusal = Some(EventRefusal { reason: reason as i32, problems, message });
    EventOutcome { refusal, ..EventOutcome::default() }
}

/// The texts about the actor come first, then the names of those on whose behalf it acted, each sealed under that person's key.
async fn seal(
    call: &CallContext,
    event: RecordedEvent,
) -> Result<(ChangeKind, Vec<Sealed>), Failure> {
    let mut texts = Texts {
        reason: event.reason,
        client_address: event.address.map(|a| a.to_string()).unwrap_or_default(),
        client_user_agent: event.user_agent,
        device: event.device,
        attributes: event.personal,
        signed: event.signed.as_ref().map(|s| s.payload.clone()).unwrap_or_default(),
        ..Texts::default()
    };
    let (actor, mut sealed) = match event.actor {
        ActorName::Service(name) => {
            let sealed = match texts == Texts::default() {
                true => vec![],
                false => call.seal(About::Nobody, &texts).await?,
            };
            (ActorKind::Service(name), sealed)
        }
        ActorName::User(name) => {
            texts.actor.clone_from(&name);
            let sealed = call.seal(About::Person(&name), &texts).await?;
            (ActorKind::UserRef(sealed[0].subject_ref.to_vec()), sealed)
        }
    };
    let mut on_behalf_of = vec![];
    for name in event.on_behalf_of {
        // The first texts are the actor's, also where there is nothing to say of it.
        if sealed.is_empty() {
            sealed = call.seal(About::Nobody, &Texts::default()).await?;
        }
        on_behalf_of.push(match name {
            ActorName::Service(name) => ActorKind::Service(name),
            ActorName::User(name) => {
                let texts = Texts { actor: name.clone(), ..Texts::default() };
                let about_them = call.seal(About::Person(&name), &texts).await?;
                let reference = about_them[0].subject_ref.to_vec();
                sealed.extend(about_them);
                ActorKind::UserRef(reference)
            }
        });
    }
    let actor_of = |kind| body::Actor { actor: Some(kind) };
    let recorded = EventRecorded {
        actor: Some(actor_of(actor)),
        on_behalf_of: on_behalf_of.into_iter().map(actor_of).collect(),
        action: event.action,
        resource: event.resource,
        outcome: event.outcome as i32,
        category: event.category,
        severity: event.severity as i32,
        occurred_time_us: event.occurred.map_or(0, Time::micros),
        attributes: event.attributes,
        number: 0,
        signature: event.signed.map(|s| ProducerSignature {
            public_key_sha256: s.public_key_sha256.to_vec(),
            signature: s.signature.to_vec(),
        }),
    };
    Ok((ChangeKind::RecordEvent(Box::new(recorded)), sealed))
}

/// The ids of producers are texts; those of requests are 16 bytes.
fn request_id_of(call: &CallContext, event_id: &str) -> [u8; 16] {
    let digest = call.keyed_digest("producer's event", event_id.as_bytes());
    digest[..16].try_into().expect("an HMAC-SHA-256 has 32 bytes")
}
