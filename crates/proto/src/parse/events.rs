//! Events that other services record: each is checked alone, so that one that is wrong leaves the others unharmed.

use std::net::IpAddr;

use keyledger_ledger::body::{Attribute, AttributeValue, Outcome, Severity};
use keyledger_ledger::grant::check_resource;
use keyledger_ledger::id::Time;
use keyledger_ledger::producer::{MAX_KEYS, MAX_PAYLOAD, Producer};
use keyledger_ledger::text::{MAX_TEXT, check_line, check_required_line};

use prost::Message;

use super::changes::parse_common;
use super::{
    Common, MAX_ITEMS, MAX_USER, MAX_USER_AGENT, Violation, Violations, micros, parse_address,
};
use crate::event_attribute::Value;
use crate::{NewEvent, actor};

/// Longest action, and name of a service that acts.
pub const MAX_ACTION: usize = 256;
pub const MAX_RESOURCE: usize = 512;
const MAX_CATEGORY: usize = 128;
pub const MAX_DEVICE: usize = 256;
pub const MAX_EVENT_ID: usize = 128;
pub const MAX_CHAIN: usize = 8;
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest text of one attribute, and all that is said in attributes.
pub const MAX_ATTRIBUTE: usize = 16_384;
pub const MAX_ATTRIBUTES_BYTES: usize = 32_768;
/// Categories below it are Keyledger's own.
const OWN_CATEGORIES: &str = "keyledger";

/// Who is said to have acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorName {
    User(String),
    Service(String),
}

/// What is asked of RegisterProducerKeys.
pub struct RegisterProducerKeys {
    pub public_keys: Vec<Vec<u8>>,
    pub common: Common,
}

pub fn register_producer_keys(
    r: crate::RegisterProducerKeysRequest,
) -> Result<RegisterProducerKeys, Vec<Violation>> {
    let mut v = Violations::default();
    if Producer::new(&r.public_keys, 0).is_none() {
        let problem = format!("must hold at most {MAX_KEYS} Ed25519 public keys, each once");
        v.add("public_keys", problem);
    }
    let common = parse_common(&mut v, r.reason, &r.request_id, r.validate_only, r.approval_ref);
    v.finish(Some(RegisterProducerKeys { public_keys: r.public_keys, common }))
}

/// An event as it will be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedEvent {
    pub actor: ActorName,
    pub on_behalf_of: Vec<ActorName>,
    pub action: String,
    pub resource: String,
    pub outcome: Outcome,
    pub reason: String,
    pub category: String,
    pub severity: Severity,
    /// `None`: now.
    pub occurred: Option<Time>,
    pub address: Option<IpAddr>,
    pub user_agent: String,
    pub device: String,
    pub trace: Option<([u8; 16], [u8; 8])>,
    pub attributes: Vec<Attribute>,
    /// Those that are kept sealed.
    pub personal: Vec<Attribute>,
    pub event_id: String,
    /// What its producer has signed, and by which key.
    pub signed: Option<Signed>,
}

/// One event, checked by itself.
pub type CheckedEvent = Result<RecordedEvent, Vec<Violation>>;

/// The events of a call.
pub struct CheckedEvents {
    pub events: Vec<CheckedEvent>,
    /// All of them are recorded, or none.
    pub atomic: bool,
}

pub fn record_events(r: crate::RecordEventsRequest) -> Result<CheckedEvents, Vec<Violation>> {
    let mut v = Violations::default();
    if !(1..=MAX_ITEMS).contains(&r.events.len()) {
        v.add("events", format!("must hold 1 to {MAX_ITEMS} events"));
    }
    let events = r.events.into_iter().take(MAX_ITEMS).map(event).collect();
    v.finish(Some(CheckedEvents { events, atomic: r.atomic }))
}

/// What a producer has signed, and by which key.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    pub payload: Vec<u8>,
    pub public_key_sha256: [u8; 32],
    pub signature: [u8; 64],
}

/// Checks one event, signed or not.
pub fn event(mut e: NewEvent) -> CheckedEvent {
    let Some(signed) = e.signature.take() else { return plain_event(e) };
    let mut v = Violations::default();
    if e != NewEvent::default() {
        v.add("signature", "must stand alone: all else is in what was signed");
    }
    let public_key: Option<[u8; 32]> = signed.public_key_sha256.as_slice().try_into().ok();
    if public_key.is_none() {
        v.add("signature.public_key_sha256", "must be 32 bytes");
    }
    let signature: Option<[u8; 64]> = signed.signature.as_slice().try_into().ok();
    if signature.is_none() {
        v.add("signature.signature", "must be 64 bytes");
    }
    let inner = (signed.payload.len() <= MAX_PAYLOAD)
        .then(|| NewEvent::decode(signed.payload.as_slice()).ok())
        .flatten()
        .filter(|inner| inner.signature.is_none());
    if inner.is_none() {
        let problem =
            format!("must be a NewEvent without a signature, at most {MAX_PAYLOAD} bytes");
        v.add("signature.payload", problem);
    }
    let given = (|| Some((inner?, public_key?, signature?)))();
    let (inner, public_key_sha256, signature) = v.finish(given)?;
    let event = plain_event(inner).map_err(|wrong| {
        let at = |v: Violation| Violation { field: format!("signature.payload.{}", v.field), ..v };
        wrong.into_iter().map(at).collect::<Vec<_>>()
    })?;
    // The payload is kept whole, under the key of one person.
    let is_another = |name: &ActorName| matches!(name, ActorName::User(_)) && *name != event.actor;
    if event.on_behalf_of.iter().any(is_another) {
        let mut v = Violations::default();
        v.add("signature.payload.on_behalf_of", "must name no person but the actor");
        v.finish(Some(()))?;
    }
    let signed = Signed { payload: signed.payload, public_key_sha256, signature };
    Ok(RecordedEvent { signed: Some(signed), ..event })
}

/// Checks one event. Whether it lies too far in the future is for the ledger's clock to say.
fn plain_event(e: NewEvent) -> CheckedEvent {
    let mut v = Violations::default();
    let actor = parse_actor(&mut v, "actor", e.actor);
    if e.on_behalf_of.len() > MAX_CHAIN {
        v.add("on_behalf_of", format!("must name at most {MAX_CHAIN}"));
    }
    let chain = e.on_behalf_of.into_iter().take(MAX_CHAIN).enumerate();
    let on_behalf_of =
        chain.filter_map(|(i, a)| parse_actor(&mut v, &format!("on_behalf_of[{i}]"), Some(a)));
    let on_behalf_of = on_behalf_of.collect();
    v.take("action", check_required_line(&e.action, MAX_ACTION));
    v.take("resource", check_line(&e.resource, MAX_RESOURCE));
    v.take("reason", check_line(&e.reason, MAX_TEXT));
    v.take("category", check_category(&e.category));
    let outcome = Outcome::try_from(e.outcome);
    let severity = Severity::try_from(e.severity);
    if outcome.is_err() {
        v.add("outcome", "must be one of the named outcomes");
    }
    if severity.is_err() {
        v.add("severity", "must be one of the named severities");
    }
    let occurred = e.occur_time.map(|t| micros(t.seconds, t.nanos).filter(|m| *m > 0));
    if occurred == Some(None) {
        v.add("occur_time", "must be a valid time after 1970");
    }
    let client = e.client.unwrap_or_default();
    let address = parse_address(&mut v, "client.address", &client.address);
    v.take("client.user_agent", check_line(&client.user_agent, MAX_USER_AGENT));
    v.take("client.device", check_line(&client.device, MAX_DEVICE));
    let trace = parse_trace(&mut v, &e.trace_id, &e.span_id);
    let (attributes, personal) = parse_attributes(&mut v, e.attributes);
    v.take("event_id", check_line(&e.event_id, MAX_EVENT_ID));
    let parsed = (|| {
        Some(RecordedEvent {
            actor: actor?,
            on_behalf_of,
            action: e.action,
            resource: e.resource,
            outcome: outcome.ok()?,
            reason: e.reason,
            category: e.category,
            severity: severity.ok()?,
            occurred: occurred.flatten().map(Time),
            address,
            user_agent: client.user_agent,
            device: client.device,
            trace,
            attributes,
            personal,
            event_id: e.event_id,
            signed: None,
        })
    })();
    v.finish(parsed)
}

fn parse_actor(v: &mut Violations, field: &str, actor: Option<crate::Actor>) -> Option<ActorName> {
    match actor.and_then(|a| a.actor) {
        Some(actor::Actor::User(name)) => v
            .take(format!("{field}.user"), check_required_line(&name, MAX_USER))
            .map(|()| ActorName::User(name)),
        Some(actor::Actor::Service(name)) => v
            .take(format!("{field}.service"), check_required_line(&name, MAX_ACTION))
            .map(|()| ActorName::Service(name)),
        None => {
            v.add(field, "must name a user or a service");
            None
        }
    }
}

fn check_category(category: &str) -> Result<(), String> {
    if category.len() > MAX_CATEGORY {
        return Err(format!("must be at most {MAX_CATEGORY} bytes"));
    }
    check_resource(category).map_err(|e| e.to_string())?;
    match category.split('/').next() == Some(OWN_CATEGORIES) {
        true => Err("must not lie below `keyledger`: those are Keyledger's own".into()),
        false => Ok(()),
    }
}

/// Both or none: a span without its trace says nothing.
pub(super) fn parse_trace(
    v: &mut Violations,
    trace: &str,
    span: &str,
) -> Option<([u8; 16], [u8; 8])> {
    if trace.is_empty() && span.is_empty() {
        return None;
    }
    let trace_id = hex_bytes::<16>(trace).filter(|id| *id != [0; 16]);
    let span_id = if span.is_empty() { Some([0; 8]) } else { hex_bytes::<8>(span) };
    if trace_id.is_none() {
        v.add("trace_id", "must be 32 hexadecimal digits, not all 0");
    }
    if span_id.is_none() {
        v.add("span_id", "must be 16 hexadecimal digits");
    }
    trace_id.zip(span_id)
}

pub(super) fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok();
    let bytes: Option<Vec<u8>> = (0..N).map(byte).collect();
    bytes?.try_into().ok()
}

/// Those that stand in the clear, and those that are personal.
fn parse_attributes(
    v: &mut Violations,
    attributes: Vec<crate::EventAttribute>,
) -> (Vec<Attribute>, Vec<Attribute>) {
    let (mut clear, mut personal, mut bytes) = (vec![], vec![], 0);
    if attributes.len() > MAX_ATTRIBUTES {
        v.add("attributes", format!("must hold at most {MAX_ATTRIBUTES} attributes"));
        return (clear, personal);
    }
    let mut names = std::collections::BTreeSet::new();
    for (i, a) in attributes.into_iter().enumerate() {
        let at = |field: &str| format!("attributes[{i}].{field}");
        if !is_attribute_name(&a.name) {
            v.add(at("name"), "must be 1 to 64 bytes of `A-Z a-z 0-9 . _ - /`");
        }
        if !names.insert(a.name.clone()) {
            v.add(at("name"), "is named twice");
        }
        bytes += a.name.len() + 8;
        let value = match a.value {
            Some(Value::Text(text)) => {
                bytes += text.len();
                if text.len() > MAX_ATTRIBUTE || text.contains('\0') {
                    v.add(at("text"), format!("must be at most {MAX_ATTRIBUTE} bytes without NUL"));
                }
                AttributeValue::Text(text)
            }
            Some(Value::Integer(number)) => AttributeValue::Integer(number),
            Some(Value::Number(number)) => {
                if !number.is_finite() {
                    v.add(at("number"), "must be finite");
                }
                AttributeValue::Number(number)
            }
            Some(Value::Flag(flag)) => AttributeValue::Flag(flag),
            None => {
                v.add(at("value"), "must be given");
                continue;
            }
        };
        let attribute = Attribute { name: a.name, value: Some(value) };
        if a.personal { personal.push(attribute) } else { clear.push(attribute) }
    }
    if bytes > MAX_ATTRIBUTES_BYTES {
        v.add("attributes", format!("must hold at most {MAX_ATTRIBUTES_BYTES} bytes together"));
    }
    (clear, personal)
}

pub fn is_attribute_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> NewEvent {
        NewEvent {
            actor: Some(crate::Actor {
                actor: Some(actor::Actor::User("alice@example.com".into())),
            }),
            action: "user.session.start".into(),
            category: "security/login".into(),
            ..NewEvent::default()
        }
    }

    #[test]
    fn each_thing_that_is_wrong_with_an_event_is_named_by_its_path() {
        assert!(event(good()).is_ok());
        let text = |name: &str, text: String| crate::EventAttribute {
            name: name.into(),
            value: Some(Value::Text(text)),
            personal: false,
        };
        type Change = Box<dyn Fn(&mut NewEvent)>;
        let table: Vec<(Change, &str)> = vec![
            (Box::new(|e| e.actor = None), "actor"),
            (Box::new(|e| e.action = "a\nb".into()), "action"),
            (Box::new(|e| e.resource = "x\u{202e}".into()), "resource"),
            (Box::new(|e| e.category = "keyledger/use".into()), "category"),
            (Box::new(|e| e.category = "a b".into()), "category"),
            (Box::new(|e| e.category = "x".repeat(129)), "category"),
            (Box::new(|e| e.outcome = 99), "outcome"),
            (Box::new(|e| e.severity = -1), "severity"),
            (Box::new(|e| e.trace_id = "0".repeat(32)), "trace_id"),
            (Box::new(|e| e.span_id = "12".into()), "trace_id"),
            (Box::new(|e| e.on_behalf_of = vec![crate::Actor::default()]), "on_behalf_of[0]"),
            (Box::new(move |e| e.attributes = vec![text("a b", "x".into())]), "attributes[0].name"),
            (
                Box::new(move |e| e.attributes = vec![text("a", "x".repeat(16_385))]),
                "attributes[0].text",
            ),
            (
                Box::new(move |e| {
                    e.attributes = vec![text("a", "x".into()), text("a", "y".into())];
                }),
                "attributes[1].name",
            ),
            (
                Box::new(move |e| {
                    let many = (0..65).map(|i| text(&format!("a{i}"), String::new()));
                    e.attributes = many.collect();
                }),
                "attributes",
            ),
        ];
        for (change, field) in table {
            let mut e = good();
            change(&mut e);
            let wrong = event(e).expect_err(field);
            assert_eq!(wrong[0].field, field, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_one_event_leaves_the_others_unharmed() {
        let events = vec![good(), NewEvent::default()];
        let parsed = record_events(crate::RecordEventsRequest { events, atomic: false }).unwrap();
        assert!(parsed.events[0].is_ok() && parsed.events[1].is_err());
        let too_many = crate::RecordEventsRequest { events: vec![good(); 101], atomic: false };
        assert_eq!(record_events(too_many).err().unwrap()[0].field, "events");
    }
}
