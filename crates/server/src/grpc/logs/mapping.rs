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
//! | id | `log.record.uid`; else a digest of all that the record says |
//!
//! Of these, who a person is, the reason and the client are kept sealed, as with RecordEvents. So are the body (`body`) and all
//! other attributes, since nobody knows what stands in them: lists and maps as JSON, bytes in base64. Only `service.name` and the
//! name of the scope (`otel.scope.name`) stand in the clear too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyledger_ledger::body::{Outcome, Severity};
use keyledger_ledger::text::check_line;
use keyledger_proto::event_attribute::Value as Attribute;
use keyledger_proto::parse::events::MAX_DEVICE;
use keyledger_proto::parse::{self, CheckedEvent, MAX_USER_AGENT};
use keyledger_proto::{Actor, EventAttribute, EventClient, NewEvent, actor};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::names;

/// What is recorded under if nothing else is said.
const CATEGORY: &str = "otlp";
/// What was done, if nothing is said.
const ACTION: &str = "log";
/// Under which name the body is kept.
const BODY: &str = "body";

/// Each log record as an event, checked by itself.
pub(super) fn events(r: ExportLogsServiceRequest) -> Vec<CheckedEvent> {
    let mut events = vec![];
    for resource_logs in r.resource_logs {
        let resource = resource_logs.resource.unwrap_or_default();
        for scope_logs in resource_logs.scope_logs {
            let scope = scope_logs.scope.unwrap_or_default();
            for record in &scope_logs.log_records {
                let source = Source::new(record, &scope, &resource.attributes);
                events.push(parse::event(source.event()));
            }
        }
    }
    events
}

/// A log record with what surrounds it.
struct Source<'a> {
    record: &'a LogRecord,
    scope: &'a InstrumentationScope,
    /// Nearest first.
    layers: [&'a [KeyValue]; 3],
    /// Names of attributes that have become something else.
    used: Vec<&'static str>,
}

impl<'a> Source<'a> {
    fn new(
        record: &'a LogRecord,
        scope: &'a InstrumentationScope,
        resource: &'a [KeyValue],
    ) -> Source<'a> {
        let layers = [&record.attributes, &scope.attributes, resource];
        Source { record, scope, layers, used: vec![] }
    }

    fn event(mut self) -> NewEvent {
        let record = self.record;
        let event_id = self.event_id();
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

    /// A collector that repeats a record repeats all of it.
    fn event_id(&mut self) -> String {
        if let Some(id) = self.take(names::LOG_RECORD_UID) {
            return id;
        }
        let mut digest = Sha256::new();
        for attribute in self.layers[2] {
            digest.update(attribute.encode_length_delimited_to_vec());
        }
        digest.update(self.scope.encode_length_delimited_to_vec());
        digest.update(self.record.encode_to_vec());
        format!("otlp {}", hex::encode(digest.finalize()))
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
        let mut attributes: Vec<EventAttribute> = vec![];
        let mut add = |name: &str, value: Option<Attribute>, personal| {
            if let Some(value) = value {
                attributes.push(EventAttribute { name: name.into(), value: Some(value), personal });
            }
        };
        add(BODY, self.record.body.as_ref().and_then(attribute), true);
        if !self.scope.name.is_empty() {
            add(names::SCOPE_NAME, Some(Attribute::Text(self.scope.name.clone())), false);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let nearer = |name: &str| {
                self.layers[..i].iter().any(|layer| layer.iter().any(|a| a.key == name))
            };
            for a in layer.iter().filter(|a| !self.used.contains(&a.key.as_str())) {
                if !nearer(&a.key) {
                    let personal = a.key != names::SERVICE_NAME;
                    add(&a.key, a.value.as_ref().and_then(attribute), personal);
                }
            }
        }
        attributes
    }

    /// The text of an attribute that says something.
    fn text(&self, name: &str) -> Option<&'a str> {
        let mut all = self.layers.iter().flat_map(|layer| layer.iter());
        let found = all.find(|attribute| attribute.key == name)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn take(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        self.used.push(name);
        Some(text.into())
    }

    fn take_if(&mut self, name: &'static str, good: impl Fn(&str) -> bool) -> String {
        match self.text(name).is_some_and(good) {
            true => self.take(name).unwrap_or_default(),
            false => String::new(),
        }
    }
}

fn outcome(text: &str) -> Option<Outcome> {
    match text.to_ascii_lowercase().as_str() {
        "success" => Some(Outcome::Success),
        "failure" => Some(Outcome::Failure),
        "denied" => Some(Outcome::Denied),
        _ => None,
    }
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

/// `None`: it says nothing.
fn attribute(value: &AnyValue) -> Option<Attribute> {
    Some(match value.value.as_ref()? {
        Value::StringValue(text) => Attribute::Text(text.clone()),
        Value::BoolValue(flag) => Attribute::Flag(*flag),
        Value::IntValue(number) => Attribute::Integer(*number),
        Value::DoubleValue(number) => Attribute::Number(*number),
        Value::BytesValue(bytes) => Attribute::Text(STANDARD.encode(bytes)),
        Value::ArrayValue(_) | Value::KvlistValue(_) => Attribute::Text(json(value).to_string()),
        Value::StringValueStrindex(_) => return None,
    })
}

/// As deep as a message can be: a hundred levels.
fn json(value: &AnyValue) -> serde_json::Value {
    match &value.value {
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::BoolValue(flag)) => (*flag).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::BytesValue(bytes)) => STANDARD.encode(bytes).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(json).collect(),
        Some(Value::KvlistValue(list)) => {
            let of = |a: &KeyValue| (a.key.clone(), a.value.as_ref().map(json).unwrap_or_default());
            list.values.iter().map(of).collect::<serde_json::Map<_, _>>().into()
        }
        Some(Value::StringValueStrindex(_)) | None => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::AttributeValue;
    use keyledger_proto::parse::{ActorName, RecordedEvent};
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;

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
        let scope_logs = vec![ScopeLogs {
            scope: Some(scope),
            log_records: vec![record],
            ..ScopeLogs::default()
        }];
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
        events(ExportLogsServiceRequest { resource_logs }).remove(0)
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
