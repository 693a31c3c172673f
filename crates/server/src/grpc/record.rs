//! RecordEvents: what other services say happened there. Each event is a change of its own: authorised for its category,
//! sealed under the keys of the people in it, and recorded once for each id that its producer gives it.

use futures_util::future::join_all;
use keyledger_ledger::body::{self, ActorKind, EventRecorded, Texts};
use keyledger_ledger::command::ChangeKind;
use keyledger_ledger::id::Time;
use keyledger_ledger::text::Sealed;
use keyledger_proto::parse::{ActorName, CheckedEvents, Common, RecordedEvent, Violation};
use keyledger_proto::{EventOutcome, EventRefusal, FieldProblem, RecordEventsResponse};

use super::call::{CallContext, Outcome};
use super::status::{self, Failure};
use crate::sealing::About;

pub(super) async fn record_events(
    mut call: CallContext,
    events: CheckedEvents,
) -> Result<RecordEventsResponse, Failure> {
    // Who may record nothing at all is refused as a whole, and recorded so.
    if !call.may("logs/**") {
        call.record_read().await?;
    }
    let recorded = events.into_iter().map(|event| record(&call, event));
    let outcomes = join_all(recorded).await.into_iter().collect::<Result<_, _>>()?;
    Ok(RecordEventsResponse { outcomes })
}

/// One event. What is wrong with it alone is its outcome; what is wrong with the whole call is an error of the call.
async fn record(
    call: &CallContext,
    event: Result<RecordedEvent, Vec<Violation>>,
) -> Result<EventOutcome, Failure> {
    let event = match event {
        Ok(event) => event,
        Err(violations) => {
            call.again().refuse(body::DecisionReason::InvalidRequest).await?;
            return Ok(refused(Failure::Invalid(violations)));
        }
    };
    let mut one = call.again_on(format!("logs/{}", event.category));
    let request_id = (!event.event_id.is_empty()).then(|| request_id_of(&one, &event.event_id));
    one.digest_event(&event);
    if let Some((trace_id, span_id)) = event.trace {
        one.set_trace(trace_id, span_id);
    }
    let (kind, sealed) = seal(&one, event).await?;
    let common = Common {
        reason: String::new(),
        request_id,
        validate_only: false,
        approval_ref: String::new(),
    };
    match one.change(kind, sealed, &common).await {
        Ok(Outcome::Done { position, .. }) => {
            Ok(EventOutcome { position: Some(position), ..EventOutcome::default() })
        }
        Ok(Outcome::Replayed { position }) => {
            Ok(EventOutcome { position: Some(position), repeated: true, refusal: None })
        }
        Ok(Outcome::Validated { .. } | Outcome::Seen) => {
            Err(Failure::Internal("an event was answered otherwise"))
        }
        Err(failure @ Failure::Refused(_)) => Ok(refused(failure)),
        Err(failure) => Err(failure),
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
    };
    Ok((ChangeKind::RecordEvent(Box::new(recorded)), sealed))
}

/// The ids of producers are texts; those of requests are 16 bytes.
fn request_id_of(call: &CallContext, event_id: &str) -> [u8; 16] {
    let digest = call.keyed_digest("producer's event", event_id.as_bytes());
    digest[..16].try_into().expect("an HMAC-SHA-256 has 32 bytes")
}
