//! What of a log record becomes what of an event. An attribute is looked for in the record, then in its scope, then in its resource.
//!
//! | of the event | from |
//! |---|---|
//! | category | `keyledger.category`; else `otlp` |
//! | actor | a person: `enduser.id`, `user.id`; else the service `service.name` |
//! | action | `keyledger.action`, the record's event name, `event.name`; else `log` |
//! | resource, reason | `keyledger.resource`, `keyledger.reason` |
//! | outcome | `keyledger.outcome`, `event.outcome`: `success`, `failure` or `denied` |
//! | severity | the severity number |
//! | time | the record's time; else when it was observed |
//! | client | `client.address`, `user_agent.original`, `device.id` |
//! | trace | the record's trace and span |
//! | id | `log.record.uid`; else a digest of all that the record says, and its number among equal records of the call |
//!
//! Of these, who a person is, the reason and the client are kept sealed, as with RecordEvents. So are the body (`body`) and all
//! other attributes, since nobody knows what stands in them: lists and maps as JSON, bytes in base64. Only `service.name` and the
//! name of the scope (`otel.scope.name`) stand in the clear too. `attributes` tells what becomes of those that don't fit.

use std::collections::HashMap;

use keyledger_ledger::body::{Outcome, Severity};
use keyledger_ledger::text::check_line;
use keyledger_proto::parse::events::{MAX_DEVICE, MAX_EVENT_ID};
use keyledger_proto::parse::{self, CheckedEvent, MAX_USER_AGENT, Violation};
use keyledger_proto::{Actor, EventAttribute, EventClient, NewEvent, actor};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use sha2::{Digest, Sha256};

use super::attributes::Attributes;
use crate::names;

/// What is recorded under if nothing else is said.
const CATEGORY: &str = "otlp";
/// What was done, if nothing is said.
const ACTION: &str = "log";
/// Under which name the body is kept.
const BODY: &str = "body";
/// Most attributes of a record, its scope and its resource together.
const MAX_JOINED: usize = 128;
/// No field of an event takes so much. What is longer is refused as too long, whatever its end.
const MAX_TAKEN: usize = 2_048;

/// What all log records of a resource share.
pub(super) struct OfResource<'a> {
    attributes: &'a [KeyValue],
    digest: [u8; 32],
}

impl<'a> OfResource<'a> {
    pub(super) fn new(resource: Option<&'a Resource>) -> OfResource<'a> {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        let mut digest = Sha256::new();
        for attribute in attributes {
            digest.update(attribute.encode_length_delimited_to_vec());
        }
        OfResource { attributes, digest: digest.finalize().into() }
    }
}

/// What all log records of a scope share.
pub(super) struct OfScope<'a> {
    resource: &'a [KeyValue],
    attributes: &'a [KeyValue],
    name: &'a str,
    /// Of all that resource and scope say.
    digest: [u8; 32],
}

impl<'a> OfScope<'a> {
    pub(super) fn new(
        resource: &OfResource<'a>,
        scope: Option<&'a InstrumentationScope>,
    ) -> OfScope<'a> {
        let said = scope.map(Message::encode_to_vec).unwrap_or_default();
        OfScope {
            resource: resource.attributes,
            attributes: scope.map_or(&[], |scope| &scope.attributes),
            name: scope.map_or("", |scope| &scope.name),
            digest: Sha256::new()
                .chain_update(resource.digest)
                .chain_update(said)
                .finalize()
                .into(),
        }
    }

    /// Whether Keyledger itself has sent them.
    pub(super) fn is_ours(&self) -> bool {
        self.name == names::OWN_SCOPE
    }

    /// A log record as an event, checked by itself.
    pub(super) fn event(&self, record: &LogRecord, equals: &mut Equals) -> CheckedEvent {
        let joined = record.attributes.len() + self.attributes.len() + self.resource.len();
        if joined > MAX_JOINED {
            let description =
                format!("must be at most {MAX_JOINED}, those of scope and resource among them");
            return Err(vec![Violation { field: "attributes".into(), description }]);
        }
        parse::event(Source::new(record, self).event(equals))
    }
}

/// How many equal log records of a call came before.
#[derive(Default)]
pub(super) struct Equals(HashMap<[u8; 32], u32>);

impl Equals {
    /// Which one of those that are equal, from 1.
    fn number(&mut self, digest: [u8; 32]) -> u32 {
        let number = self.0.entry(digest).or_default();
        *number += 1;
        *number
    }
}

/// A log record with what surrounds it.
struct Source<'a> {
    record: &'a LogRecord,
    scope: &'a OfScope<'a>,
    /// Each with its layer, nearest first.
    all: Vec<(usize, &'a KeyValue)>,
    /// Where in `all` the nearest of each name stands.
    nearest: HashMap<&'a str, usize>,
    /// Names of attributes that have become something else.
    used: Vec<&'static str>,
}

impl<'a> Source<'a> {
    fn new(record: &'a LogRecord, scope: &'a OfScope<'a>) -> Source<'a> {
        let layers = [&record.attributes, scope.attributes, scope.resource];
        let in_layer = |(i, layer): (usize, &'a [KeyValue])| layer.iter().map(move |a| (i, a));
        let all: Vec<_> = layers.into_iter().enumerate().flat_map(in_layer).collect();
        let mut nearest = HashMap::new();
        for (i, (_, attribute)) in all.iter().enumerate() {
            nearest.entry(attribute.key.as_str()).or_insert(i);
        }
        Source { record, scope, all, nearest, used: vec![] }
    }

    fn event(mut self, equals: &mut Equals) -> NewEvent {
        let record = self.record;
        let event_id = self.event_id(equals);
        let category = self.take(names::CATEGORY).unwrap_or(CATEGORY.into());
        let action = self.action();
        let actor = self.actor();
        let resource = self.take(names::RESOURCE).unwrap_or_default();
        let outcome = self.outcome();
        let reason = self.take(names::REASON).unwrap_or_default();
        let client = self.client();
        // A trace that isn't whole is none, as the data model says.
        let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|b| *b != 0);
        let trace = is_id(&record.trace_id, 16);
        let span = trace && is_id(&record.span_id, 8);
        NewEvent {
            actor,
            on_behalf_of: vec![],
            action,
            resource,
            outcome,
            reason,
            category,
            severity: severity(record.severity_number) as i32,
            occur_time: time(record),
            client,
            trace_id: if trace { hex::encode(&record.trace_id) } else { String::new() },
            span_id: if span { hex::encode(&record.span_id) } else { String::new() },
            attributes: self.attributes(),
            event_id,
            signature: None,
        }
    }

    /// A collector that repeats an export repeats all of it.
    fn event_id(&mut self, equals: &mut Equals) -> String {
        let id = self.take_if(names::LOG_RECORD_UID, |id| check_line(id, MAX_EVENT_ID).is_ok());
        if !id.is_empty() {
            return id;
        }
        let digest = Sha256::new().chain_update(self.scope.digest);
        let digest = digest.chain_update(self.record.encode_to_vec()).finalize().into();
        match equals.number(digest) {
            1 => format!("otlp {}", hex::encode(digest)),
            number => format!("otlp {} {number}", hex::encode(digest)),
        }
    }

    fn action(&mut self) -> String {
        let own = self.take(names::ACTION);
        let named = Some(&self.record.event_name).filter(|name| !name.is_empty()).cloned();
        own.or(named).or_else(|| self.take(names::EVENT_NAME)).unwrap_or(ACTION.into())
    }

    fn actor(&mut self) -> Option<Actor> {
        let person = self.take(names::ENDUSER_ID).or_else(|| self.take(names::USER_ID));
        let actor = match person {
            Some(name) => actor::Actor::User(name),
            None => actor::Actor::Service(self.take(names::SERVICE_NAME)?),
        };
        Some(Actor { actor: Some(actor) })
    }

    /// Our own word for it must be one of ours: another number than theirs is refused. What others call an outcome may be anything.
    fn outcome(&mut self) -> i32 {
        if let Some(ours) = self.take(names::OUTCOME) {
            return outcome(&ours).map_or(-1, |outcome| outcome as i32);
        }
        let found = self.text(names::EVENT_OUTCOME).and_then(outcome);
        found.map_or(0, |outcome| {
            self.used.push(names::EVENT_OUTCOME);
            outcome as i32
        })
    }

    /// What isn't of the form that a client has is kept as it is, among the other attributes.
    fn client(&mut self) -> Option<EventClient> {
        let line = |text: &str, most| check_line(text, most).is_ok();
        let address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
        let client = EventClient {
            address: self.take_if(names::CLIENT_ADDRESS, address),
            user_agent: self.take_if(names::USER_AGENT, |text| line(text, MAX_USER_AGENT)),
            device: self.take_if(names::DEVICE_ID, |text| line(text, MAX_DEVICE)),
        };
        Some(client)
    }

    /// The body, and all that has not become something else: the nearest of each name.
    fn attributes(&self) -> Vec<EventAttribute> {
        let mut attributes = Attributes::new();
        if let Some(body) = &self.record.body {
            attributes.add(BODY, body, true);
        }
        if !self.scope.name.is_empty() {
            let name = AnyValue { value: Some(Value::StringValue(self.scope.name.into())) };
            attributes.add(names::SCOPE_NAME, &name, false);
        }
        for (i, (layer, a)) in self.all.iter().enumerate() {
            let (name, Some(value)) = (a.key.as_str(), &a.value) else { continue };
            let nearest = self.nearest[name];
            if nearest != i {
                // Named twice, and not only nearer.
                if self.all[nearest].0 == *layer {
                    attributes.add_to_rest(name, value);
                }
            } else if !self.used.contains(&name) {
                attributes.add(name, value, name != names::SERVICE_NAME);
            }
        }
        attributes.finish()
    }

    /// The text of an attribute that says something.
    fn text(&self, name: &str) -> Option<&'a str> {
        let (_, found) = self.all[*self.nearest.get(name)?];
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        self.used.push(name);
        Some(text[..text.floor_char_boundary(MAX_TAKEN)].into())
    }

    fn take_if(&mut self, name: &'static str, good: impl Fn(&str) -> bool) -> String {
        match self.text(name).is_some_and(good) {
            true => self.take(name).unwrap_or_default(),
            false => String::new(),
        }
    }
}

fn outcome(text: &str) -> Option<Outcome> {
    let known =
        [("success", Outcome::Success), ("failure", Outcome::Failure), ("denied", Outcome::Denied)];
    known.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, outcome)| outcome)
}

/// What our own log records say comes back as it was.
fn severity(number: i32) -> Severity {
    match number {
        1..=9 => Severity::Informational,
        10..=12 => Severity::Low,
        13..=16 => Severity::Medium,
        17 => Severity::High,
        18..=20 => Severity::Critical,
        21..=24 => Severity::Fatal,
        _ => Severity::Unspecified,
    }
}

fn time(record: &LogRecord) -> Option<prost_types::Timestamp> {
    let nanos = match record.time_unix_nano {
        0 => record.observed_time_unix_nano,
        time => time,
    };
    (nanos > 0).then_some(prost_types::Timestamp {
        seconds: (nanos / 1_000_000_000) as i64,
        nanos: (nanos % 1_000_000_000) as i32,
    })
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::AttributeValue;
    use keyledger_proto::parse::{ActorName, RecordedEvent};
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn value(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn key(key: &str, of: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(value(of)), ..KeyValue::default() }
    }

    fn text(name: &str, text: &str) -> KeyValue {
        key(name, Value::StringValue(text.into()))
    }

    fn of(record: LogRecord, scope: Vec<KeyValue>, resource: Vec<KeyValue>) -> CheckedEvent {
        let scope = InstrumentationScope { attributes: scope, ..InstrumentationScope::default() };
        let resource = Resource { attributes: resource, ..Resource::default() };
        let resource = OfResource::new(Some(&resource));
        OfScope::new(&resource, Some(&scope)).event(&record, &mut Equals::default())
    }

    fn with(attributes: Vec<KeyValue>) -> RecordedEvent {
        let record = LogRecord { attributes, ..LogRecord::default() };
        of(record, vec![], vec![text("service.name", "cron")]).unwrap()
    }

    #[test]
    fn the_nearest_attribute_counts() {
        let resource = || vec![text("service.name", "cron"), text("keyledger.category", "far")];
        let scope = || vec![text("keyledger.category", "nearer")];
        let record = |attributes| LogRecord { attributes, ..LogRecord::default() };
        let category = |event: CheckedEvent| event.unwrap().category;
        assert_eq!(category(of(record(vec![]), vec![], vec![text("service.name", "x")])), "otlp");
        assert_eq!(category(of(record(vec![]), vec![], resource())), "far");
        assert_eq!(category(of(record(vec![]), scope(), resource())), "nearer");
        let nearest = vec![text("keyledger.category", "nearest")];
        assert_eq!(category(of(record(nearest), scope(), resource())), "nearest");
    }

    #[test]
    fn a_person_comes_before_a_service_and_both_names_of_people_are_known() {
        let actor = |attributes| with(attributes).actor;
        assert_eq!(actor(vec![]), ActorName::Service("cron".into()));
        for name in ["enduser.id", "user.id"] {
            let person = ActorName::User("alice".into());
            assert_eq!(actor(vec![text(name, "alice")]), person);
        }
        let nobody = of(LogRecord::default(), vec![], vec![]).unwrap_err();
        assert_eq!(nobody[0].field, "actor");
    }

    #[test]
    fn what_is_not_named_is_sealed_and_lists_and_maps_are_json() {
        let list = ArrayValue { values: vec![value(Value::IntValue(1)), AnyValue::default()] };
        let map = KeyValueList { values: vec![key("deep", Value::ArrayValue(list))] };
        let event = with(vec![
            key("map", Value::KvlistValue(map)),
            key("bytes", Value::BytesValue(vec![0xff])),
            key("none", Value::StringValue("x".into())),
            key("user.id", Value::IntValue(7)),
            text("client.address", "not an address"),
        ]);
        assert!(event.attributes.is_empty(), "{:?}", event.attributes);
        let personal = |name: &str| {
            let found = event.personal.iter().find(|a| a.name == name);
            found.and_then(|a| a.value.clone())
        };
        let text = |text: &str| Some(AttributeValue::Text(text.into()));
        assert_eq!(personal("map"), text(r#"{"deep":[1,null]}"#));
        assert_eq!(personal("bytes"), text("/w=="));
        assert_eq!(personal("user.id"), Some(AttributeValue::Integer(7)), "no name of a person");
        assert_eq!(personal("client.address"), text("not an address"));
        assert_eq!(event.address, None);
    }

    #[test]
    fn the_same_record_has_the_same_id_and_another_one_another() {
        let id = |attributes| with(attributes).event_id;
        assert_eq!(id(vec![text("a", "b")]), id(vec![text("a", "b")]));
        assert_ne!(id(vec![text("a", "b")]), id(vec![text("a", "c")]));
        assert_eq!(id(vec![text("log.record.uid", "01JD")]), "01JD");
        let elsewhere = of(LogRecord::default(), vec![], vec![text("service.name", "other")]);
        assert_ne!(id(vec![]), elsewhere.unwrap().event_id);
    }

    #[test]
    fn equal_records_of_a_call_are_told_apart_and_have_the_same_ids_when_it_comes_again() {
        let resource = OfResource::new(None);
        let scope = OfScope::new(&resource, None);
        let login = |user: &str| LogRecord {
            attributes: vec![text("user.id", user)],
            ..LogRecord::default()
        };
        let ids = || {
            let mut equals = Equals::default();
            let records = [login("alice"), login("bob"), login("alice")];
            records.map(|record| scope.event(&record, &mut equals).unwrap().event_id)
        };
        let [first, other, second] = ids();
        assert!(first != other && second == format!("{first} 2"), "{first}, {other}, {second}");
        assert_eq!(ids(), [first, other, second]);
    }

    #[test]
    fn what_does_not_fit_stands_in_one_sealed_attribute_and_no_record_is_lost_for_it() {
        let record = LogRecord {
            body: Some(value(Value::StringValue("a\0b".into()))),
            attributes: vec![
                text("body", "another"),
                text("a name", "x"),
                key(&"n".repeat(65), Value::IntValue(1)),
                text("twice", "1"),
                text("twice", "2"),
                key("nan", Value::DoubleValue(f64::NAN)),
                text("long", &"y".repeat(20_000)),
            ],
            ..LogRecord::default()
        };
        let many = (0..100).map(|n| text(&format!("r{n}"), "z"));
        let resource = many.chain([text("service.name", "cron")]).collect();
        let event = of(record, vec![], resource).unwrap();
        let personal = |name: &str| {
            let found = event.personal.iter().find(|a| a.name == name);
            match found.and_then(|a| a.value.clone()) {
                Some(AttributeValue::Text(text)) => text,
                other => panic!("{name} is {other:?}"),
            }
        };
        assert_eq!(personal("body"), "a␀b");
        assert_eq!(personal("nan"), "NaN");
        assert!(personal("long").ends_with("y… [cut]") && personal("long").len() <= 16_384);
        let rest: serde_json::Value = serde_json::from_str(&personal("otlp.rest")).unwrap();
        let rest = rest.as_array().unwrap();
        let expected = [
            serde_json::json!(["body", "another"]),
            serde_json::json!(["a name", "x"]),
            serde_json::json!(["n".repeat(65), 1]),
            serde_json::json!(["twice", "2"]),
        ];
        assert_eq!(rest[..4], expected);
        assert_eq!(event.personal.len(), 64, "with the rest");
        assert_eq!(rest.len() - 4 + event.personal.len() - 5, 100, "all of the resource");
    }

    #[test]
    fn no_size_of_values_loses_a_record_and_what_has_no_room_is_counted() {
        let list = ArrayValue { values: vec![value(Value::IntValue(7)); 50_000] };
        let long = (0..30).map(|n| text(&format!("t{n}"), &"\u{1}\"é".repeat(5_000)));
        let deep = [
            key("list", Value::ArrayValue(list)),
            key("bytes", Value::BytesValue(vec![1; 90_000])),
        ];
        let event = with(deep.into_iter().chain(long).collect());
        let rest = event.personal.iter().find(|a| a.name == "otlp.rest").unwrap();
        let Some(AttributeValue::Text(rest)) = &rest.value else { panic!("it is text") };
        let rest: Vec<(String, serde_json::Value)> = serde_json::from_str(rest).unwrap();
        let (last, left_out) = rest.last().unwrap();
        assert_eq!(last, "otlp.left_out");
        let named = event.personal.len() - 1;
        assert_eq!(named + rest.len() - 1 + left_out.as_u64().unwrap() as usize, 32);
    }

    #[test]
    fn a_record_with_very_many_attributes_is_refused() {
        let many = |count| (0..count).map(|n| text(&format!("a{n}"), "x")).collect::<Vec<_>>();
        let event = |count| {
            let record = LogRecord { attributes: many(count), ..LogRecord::default() };
            of(record, vec![], vec![text("service.name", "cron")])
        };
        assert!(event(127).is_ok());
        assert_eq!(event(128).unwrap_err()[0].field, "attributes");
    }

    #[test]
    fn an_outcome_of_ours_must_be_known_and_that_of_others_may_be_anything() {
        let event = |name: &str, outcome: &str| {
            let record =
                LogRecord { attributes: vec![text(name, outcome)], ..LogRecord::default() };
            of(record, vec![], vec![text("service.name", "cron")])
        };
        assert_eq!(event("keyledger.outcome", "DENIED").unwrap().outcome, Outcome::Denied);
        assert_eq!(event("keyledger.outcome", "maybe").unwrap_err()[0].field, "outcome");
        assert_eq!(event("event.outcome", "failure").unwrap().outcome, Outcome::Failure);
        let unknown = event("event.outcome", "unknown").unwrap();
        assert_eq!((unknown.outcome, unknown.personal.len()), (Outcome::Unspecified, 1));
    }
}
