//! Events as lines of a file that others read: JSON Lines with proofs, CloudEvents, OCSF, CSV. Pure: the same event gives the
//! same bytes, on any replica.

pub mod cloud_events;
pub mod csv;
pub mod json_lines;
pub mod ocsf;

use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::json::harmless;
use crate::{AuditEvent, methods};

pub use json_lines::Evidence;
pub use keyledger_ledger::export::ExportFormat;

/// Of which ledger the events are, and what writes them.
#[derive(Clone, Debug)]
pub struct Exporter {
    pub origin: String,
    /// UUID of the ledger.
    pub ledger_id: String,
    /// Version of the software.
    pub version: String,
}

impl Exporter {
    /// One event as one line, with its line break. `evidence` is for JSON Lines alone.
    pub fn line(&self, format: ExportFormat, event: &AuditEvent, evidence: Evidence) -> Vec<u8> {
        match format {
            ExportFormat::Unspecified | ExportFormat::JsonLines => {
                let line = json_lines::Line::new(event, evidence);
                json_line(serde_json::to_string(&line).expect("a line of ours is JSON"))
            }
            ExportFormat::CloudEvents => json_line(cloud_events::of(self, event).to_string()),
            ExportFormat::Ocsf => json_line(ocsf::of(self, event).to_string()),
            ExportFormat::Csv => csv::line(event),
        }
    }

    /// What stands before the first event.
    pub fn header(&self, format: ExportFormat) -> Option<Vec<u8>> {
        (format == ExportFormat::Csv).then(csv::header)
    }
}

/// JSON in one line, with its line break.
fn json_line(json: String) -> Vec<u8> {
    harmless(&(json + "\n")).into_bytes()
}

/// A message as the proto JSON mapping says. `name` is its full name.
fn proto_json(name: &str, message: &impl Message) -> Value {
    let descriptor = methods::pool().get_message_by_name(name).expect("our own protos declare it");
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message of ours is of the published form");
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .expect("a message of ours can be written as JSON")
}

/// An event as the proto JSON mapping says.
pub fn event_json(event: &AuditEvent) -> Value {
    proto_json("keyledger.v1.AuditEvent", event)
}

/// The name of an enum's value without the prefix that all its names share, in lower case; empty for the first, which says
/// nothing. `name` is the full name of the enum.
fn enum_word(name: &str, number: i32) -> String {
    let descriptor = methods::pool().get_enum_by_name(name).expect("our own protos declare it");
    match (descriptor.get_value(number), descriptor.get_value(0)) {
        (Some(value), Some(zero)) if number != 0 => {
            let prefix = zero.name().trim_end_matches("UNSPECIFIED");
            value.name().strip_prefix(prefix).unwrap_or(value.name()).to_lowercase()
        }
        (None, _) => number.to_string(),
        _ => String::new(),
    }
}

/// Where an event stands, unique in its ledger: `17` or `17.0`.
fn place(event: &AuditEvent) -> String {
    let position = event.position.unwrap_or_default();
    match event.index {
        Some(index) => format!("{position}.{index}"),
        None => position.to_string(),
    }
}

/// Puts in what there is to say: no empty texts.
fn put(object: &mut serde_json::Map<String, Value>, name: &str, value: impl Into<Value>) {
    let value = value.into();
    if !value.is_null() && value != "" {
        object.insert(name.into(), value);
    }
}

#[cfg(test)]
pub(crate) mod sample {
    //! One event of each sort.

    use keyledger_ledger::body::{
        AnomalyResponse, Decision, DecisionReason, Event, KeyLink, KeyRevoked, Kind,
        MonitoringRule, Outcome, RoleCreated, Severity,
    };

    use super::*;
    use crate::{Actor, AnomalyFacts, EventAttribute, actor, event_attribute};

    pub(crate) fn exporter() -> Exporter {
        Exporter {
            origin: "keys.example/main".into(),
            ledger_id: "0198c5a0-0000-8000-8000-00000000000a".into(),
            version: "1.2.3".into(),
        }
    }

    fn base() -> AuditEvent {
        AuditEvent {
            position: Some(17),
            time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 123_456_000 }),
            leaf_hash: vec![0xab; 32],
            caller_key_id: "0198c5a0-0000-8000-8000-000000000001".into(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
            span_id: "b7ad6b7169203331".into(),
            address: "203.0.113.9".into(),
            reason: "ticket 4711".into(),
            ..AuditEvent::default()
        }
    }

    pub(crate) fn change() -> AuditEvent {
        let link = Some(KeyLink { key_id: vec![1; 16], ..KeyLink::default() });
        let revoked = Kind::KeyRevoked(KeyRevoked { link, kind: 2, idle_since_us: 0 });
        AuditEvent {
            r#type: "key.revoked".into(),
            category: "keyledger/lifecycle".into(),
            key_id: "0198c5a0-0000-8000-8000-000000000002".into(),
            body: Some(Event { kind: Some(revoked), ..Event::default() }),
            ..base()
        }
    }

    pub(crate) fn of_a_role() -> AuditEvent {
        let role = Kind::RoleCreated(RoleCreated { name: "ops".into(), ..RoleCreated::default() });
        AuditEvent {
            r#type: "role.created".into(),
            category: "keyledger/lifecycle".into(),
            caller_key_id: String::new(),
            body: Some(Event { kind: Some(role), ..Event::default() }),
            ..base()
        }
    }

    pub(crate) fn a_use() -> AuditEvent {
        AuditEvent {
            index: Some(3),
            r#type: "key.used".into(),
            category: "keyledger/use".into(),
            key_id: "0198c5a0-0000-8000-8000-000000000002".into(),
            key_version: 1,
            method: "KeyService/VerifyKey".into(),
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            decision: Decision::Deny as i32,
            decision_reason: DecisionReason::NoGrant as i32,
            user_agent: "exporter/1.2".into(),
            count: 4,
            ..base()
        }
    }

    pub(crate) fn recorded() -> AuditEvent {
        let user = Actor { actor: Some(actor::Actor::User("alice@example.com".into())) };
        let service = Actor { actor: Some(actor::Actor::Service("batch".into())) };
        AuditEvent {
            r#type: "event.recorded".into(),
            category: "security/login".into(),
            actor: Some(user),
            on_behalf_of: vec![service],
            action: "user.session.start".into(),
            resource: "portal/web".into(),
            outcome: Outcome::Denied as i32,
            severity: Severity::Medium as i32,
            occur_time: Some(prost_types::Timestamp { seconds: 1_789_999_999, nanos: 0 }),
            device: "laptop 4711".into(),
            attributes: vec![EventAttribute {
                name: "rows".into(),
                value: Some(event_attribute::Value::Integer(17)),
                personal: false,
            }],
            ..base()
        }
    }

    pub(crate) fn anomaly() -> AuditEvent {
        let facts = AnomalyFacts {
            position: Some(17),
            rule: MonitoringRule::Forbidden as i32,
            network: "192.0.2.0/24".into(),
            first_time: base().time,
            last_time: base().time,
            occurrences: 3,
            response: AnomalyResponse::Suspend as i32,
            ..AnomalyFacts::default()
        };
        AuditEvent {
            r#type: "anomaly.raised".into(),
            category: "keyledger/anomaly".into(),
            key_id: "0198c5a0-0000-8000-8000-000000000002".into(),
            caller_key_id: String::new(),
            address: String::new(),
            permission: "audit.read".into(),
            resource: "logs/error".into(),
            anomaly: Some(facts),
            ..base()
        }
    }

    pub(crate) fn all() -> [AuditEvent; 5] {
        [change(), of_a_role(), a_use(), recorded(), anomaly()]
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::text::is_unsafe_in_a_line;

    use super::*;

    #[test]
    fn every_line_is_one_line_whatever_stands_in_the_texts() {
        let hostile = "a\r\nb\u{0}\u{202e}c\u{2028},\"=cmd()\"\t\u{1b}[31m\u{85}";
        let formats = [
            ExportFormat::JsonLines,
            ExportFormat::CloudEvents,
            ExportFormat::Ocsf,
            ExportFormat::Csv,
        ];
        for format in formats {
            for event in sample::all() {
                let mut event = event;
                event.reason = hostile.into();
                event.address = hostile.into();
                event.resource = hostile.into();
                event.action = hostile.into();
                event.device = hostile.into();
                let line = sample::exporter().line(format, &event, Evidence::default());
                let line = String::from_utf8(line).unwrap();
                let text = line.strip_suffix('\n').unwrap();
                let text = text.strip_suffix('\r').unwrap_or(text);
                assert!(!text.contains(is_unsafe_in_a_line), "{format:?}: {text:?}");
                if format != ExportFormat::Csv {
                    let read: Value = serde_json::from_str(text).unwrap();
                    let whole = read.to_string();
                    assert!(whole.contains("\\r\\n") && whole.contains('\u{202e}'), "{whole}");
                }
            }
        }
    }

    #[test]
    fn every_line_names_position_index_and_leaf_hash() {
        for event in sample::all() {
            let line = |format| {
                let line = sample::exporter().line(format, &event, Evidence::default());
                String::from_utf8(line).unwrap()
            };
            let hash = "ab".repeat(32);
            for format in [ExportFormat::CloudEvents, ExportFormat::Ocsf, ExportFormat::Csv] {
                assert!(line(format).contains(&hash), "{}", line(format));
                assert!(line(format).contains("17"));
            }
            assert!(line(ExportFormat::JsonLines).starts_with("{\"position\":17,"));
        }
    }
}
