//! Entries and uses as log records of OpenTelemetry.
//!
//! A record is made of signed bytes alone, and of the owner's reference that the state holds: no sealed text is opened, so nothing
//! personal can be in one. Its name is that of what happened (`keyledger.key.rotated`, `keyledger.key.used`, …), its time is that
//! of the entry or of the use, and its trace is what was signed; flags were not, so they are 0.
//!
//! An entry proves itself by `keyledger.entry.leaf_hash`, a leaf of the tree whose root the checkpoint names that closes the
//! export. A page of uses leaves as its uses: each names its own leaf in the tree of the page, besides the page's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyledger_ledger::body::{
    ActorKind, Decision, Event, Kind, Outcome, OwnerKind, Reported, RevocationKind, Severity, Use,
    UseColumn, UsePage, decode_canonical,
};
use keyledger_ledger::category;
use keyledger_ledger::facets::outcome_name;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::merkle::{Hash, root_of};
use keyledger_ledger::page::use_leaf;
use keyledger_ledger::state::State;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use prost::Message;
use uuid::Uuid;

use crate::event_names::{
    decision, doubt, event_name, reason_code, revocation_kind, rule_name, subject_ref,
};
use crate::names;
use crate::replica::own_clock;
use crate::sequencer::SignedCheckpoint;
use crate::store::entries::FullEntry;

/// What is the same for all records of a ledger.
pub(super) struct Mapping<'a> {
    pub(super) ledger_id: Uuid,
    /// Says whose the keys are.
    pub(super) state: &'a State,
}

/// An entry as it was read, with what stands in it.
pub(super) struct Read<'a> {
    pub(super) position: u64,
    pub(super) event: &'a Event,
    leaf_hash: String,
    /// Of the entry, in standard base64.
    signature: String,
}

impl<'a> Read<'a> {
    pub(super) fn new(entry: &FullEntry, event: &'a Event) -> Read<'a> {
        Read {
            position: entry.position,
            event,
            leaf_hash: hex::encode(entry.entry.leaf_hash()),
            signature: STANDARD.encode(entry.entry.signature),
        }
    }
}

/// The uses of a page, each with its leaf in the tree of the page. `None`: they are not the ones that were signed.
pub(super) fn uses_of(page: &UsePage, column: &[u8]) -> Option<Vec<(Use, Hash)>> {
    let column: UseColumn = decode_canonical(column, "UseColumn").ok()?;
    let leaves: Vec<Hash> = column.uses.iter().map(|u| use_leaf(&u.salt, &u.r#use)).collect();
    if root_of(&leaves).as_slice() != page.root {
        return None;
    }
    let uses = column.uses.iter().zip(leaves);
    uses.map(|(read, leaf)| Some((Use::decode(read.r#use.as_slice()).ok()?, leaf))).collect()
}

impl Mapping<'_> {
    /// An entry that is no page.
    pub(super) fn entry(&self, read: &Read<'_>) -> LogRecord {
        let event = read.event;
        let mut attributes = self.common(read, category::of_entry(event));
        let kind = event.kind.as_ref();
        let key_id = kind.and_then(|kind| {
            let link = kind.key_link().and_then(|link| KeyId::from_slice(&link.key_id));
            link.or_else(|| kind.key_of_anomaly())
        });
        self.about_key(&mut attributes, key_id, kind.and_then(version_of));
        if key_id.is_none()
            && let Some(owner) = kind.and_then(owner_of)
        {
            attributes.text(names::SUBJECT_REF, owner);
        }
        let caller = event.caller.as_ref().map(|c| c.key_id.as_slice());
        attributes.key(names::CALLER_KEY_ID, caller);
        let mut severity = SeverityNumber::Info;
        match kind {
            Some(Kind::EventRecorded(recorded)) => {
                severity = severity_number(recorded.severity());
                let actor = recorded.actor.as_ref().and_then(|a| a.actor.as_ref());
                attributes.some_text(names::ACTOR_REF, &actor.map(actor_ref).unwrap_or_default());
                attributes.some_text(names::ACTION, &recorded.action);
                attributes.some_text(names::RESOURCE, &recorded.resource);
                if recorded.outcome() != Outcome::Unspecified {
                    let outcome = outcome_name(recorded.outcome());
                    let outcome = outcome.strip_prefix("OUTCOME_").unwrap_or(outcome);
                    attributes.text(names::OUTCOME, outcome);
                }
            }
            Some(Kind::AnomalyRaised(raised)) => {
                severity = SeverityNumber::Warn;
                attributes.text(names::ANOMALY_RULE, rule_name(raised.rule()));
                attributes.number(names::ANOMALY_OCCURRENCES, raised.occurrences);
            }
            Some(Kind::KeyRevoked(revoked)) => {
                if revoked.kind() == RevocationKind::Compromised {
                    severity = SeverityNumber::Warn;
                }
                attributes.text(names::REVOCATION_KIND, revocation_kind(revoked.kind()));
            }
            _ => {}
        }
        LogRecord {
            time_unix_nano: nanos(event.time_us),
            severity_number: severity as i32,
            severity_text: severity_text(severity),
            body: Some(text(kind.map_or("", Kind::name))),
            attributes: attributes.0,
            trace_id: event.trace_id.clone(),
            span_id: event.span_id.clone(),
            event_name: kind.map_or("", event_name).into(),
            ..observed()
        }
    }

    /// One use of a page.
    pub(super) fn r#use(
        &self,
        read: &Read<'_>,
        page: &UsePage,
        index: usize,
        (u, leaf): &(Use, Hash),
    ) -> LogRecord {
        let mut attributes = self.common(read, category::of_use(page, u));
        attributes.number(names::ENTRY_INDEX, index as u64);
        attributes.text(names::USE_LEAF_HASH, hex::encode(leaf));
        let version = (u.version > 0).then_some(u.version);
        self.about_key(&mut attributes, KeyId::from_slice(&u.key_id), version);
        let caller = u.caller.as_ref().map(|c| c.key_id.as_slice());
        attributes.key(names::CALLER_KEY_ID, caller);
        let decision = decision(u.decision() == Decision::Allow);
        let reason = reason_code(u.reason());
        attributes.text(names::DECISION, decision);
        attributes.text(names::REASON_CODE, reason);
        attributes.some_text(names::METHOD, &u.method);
        attributes.some_text(names::PERMISSION, &u.permission);
        attributes.some_text(names::RESOURCE, &u.resource);
        if u.count > 1 {
            attributes.number(names::USE_COUNT, u.count.into());
        }
        if let Some(reported) = &u.reported {
            attributes.reported(reported);
        }
        let doubtful = u.reported.as_ref().is_some_and(|reported| !reported.doubts.is_empty());
        let severity = match u.decision() {
            _ if doubtful => SeverityNumber::Warn,
            Decision::Deny => SeverityNumber::Info2,
            _ => SeverityNumber::Info,
        };
        // What a service let happen is no verdict of Keyledger.
        let verdict = if u.reported.is_some() { "reported" } else { decision };
        LogRecord {
            time_unix_nano: nanos(time_of(u, read.event)),
            severity_number: severity as i32,
            severity_text: severity_text(severity),
            body: Some(text(&format!("{} {verdict} {reason}", u.method))),
            attributes: attributes.0,
            trace_id: u.trace_id.clone(),
            span_id: u.span_id.clone(),
            event_name: names::EVENT_KEY_USED.into(),
            ..observed()
        }
    }

    fn common(&self, read: &Read<'_>, category: &str) -> Attributes {
        let mut attributes = Attributes(Vec::with_capacity(18));
        attributes.text(names::LEDGER_ID, self.ledger_id.to_string());
        attributes.number(names::ENTRY_POSITION, read.position);
        attributes.text(names::ENTRY_LEAF_HASH, read.leaf_hash.as_str());
        attributes.text(names::ENTRY_SIGNATURE, read.signature.as_str());
        attributes.text(names::CATEGORY, category);
        attributes
    }

    fn about_key(&self, attributes: &mut Attributes, id: Option<KeyId>, version: Option<u32>) {
        let Some(id) = id else { return };
        attributes.text(names::KEY_ID, id.to_string());
        if let Some(version) = version {
            attributes.number(names::KEY_VERSION, version.into());
        }
        if let Some(key) = self.state.keys.get(&id) {
            attributes.text(names::SUBJECT_REF, subject_ref(&key.owner));
        }
    }
}

/// What closes an export: the signed note that covers all entries in it.
pub(super) fn checkpoint(ledger_id: Uuid, signed: &SignedCheckpoint) -> LogRecord {
    let mut attributes = Attributes(vec![]);
    attributes.text(names::LEDGER_ID, ledger_id.to_string());
    attributes.text(names::CHECKPOINT_NOTE, signed.note.as_str());
    attributes.text(names::CHECKPOINT_ORIGIN, signed.checkpoint.origin.as_str());
    attributes.number(names::CHECKPOINT_SIZE, signed.checkpoint.size);
    attributes.text(names::CHECKPOINT_ROOT_HASH, hex::encode(signed.checkpoint.root));
    let record = observed();
    LogRecord {
        time_unix_nano: record.observed_time_unix_nano,
        severity_number: SeverityNumber::Info as i32,
        severity_text: severity_text(SeverityNumber::Info),
        body: Some(text(&format!("checkpoint of size {}", signed.checkpoint.size))),
        attributes: attributes.0,
        event_name: names::EVENT_CHECKPOINT.into(),
        ..record
    }
}

fn observed() -> LogRecord {
    LogRecord { observed_time_unix_nano: nanos(own_clock().micros()), ..LogRecord::default() }
}

/// When a use happened: the first of those that it counts. One that names no time happened at that of its page. One that was reported
/// happened when its service says, as far as it can have: neither before the strict answer nor after the page, whatever was said.
fn time_of(u: &Use, page: &Event) -> i64 {
    match (&u.bounded, &u.reported) {
        (Some(bounded), _) => bounded.time_us,
        (None, Some(reported)) => reported.time_us.max(reported.answer_time_us).min(page.time_us),
        (None, None) if u.first_time_us > 0 => u.first_time_us,
        (None, None) => page.time_us,
    }
}

fn nanos(micros: i64) -> u64 {
    micros.max(0) as u64 * 1_000
}

/// The version of the secret that an entry is about.
fn version_of(kind: &Kind) -> Option<u32> {
    let number = match kind {
        Kind::KeyCreated(e) => e.version.as_ref()?.number,
        Kind::KeyRotated(e) => e.version.as_ref()?.number,
        Kind::VerifierMigrated(e) => e.version.as_ref()?.number,
        Kind::KeyImported(e) => e.verifier.as_ref()?.number,
        Kind::RotationDue(e) => e.version,
        Kind::RotationCompleted(e) => e.version,
        Kind::KeySuspended(e) => e.overdue_version,
        _ => return None,
    };
    (number > 0).then_some(number)
}

/// Whom an entry is about that is about no key.
fn owner_of(kind: &Kind) -> Option<String> {
    match kind {
        Kind::OwnerStatusSet(e) => match e.owner.as_ref()?.owner.as_ref()? {
            OwnerKind::UserRef(reference) => Some(hex::encode(reference)),
            OwnerKind::Service(name) => Some(name.clone()),
        },
        kind => keyledger_ledger::anomaly::owner_of(kind).as_ref().map(subject_ref),
    }
}

fn actor_ref(actor: &ActorKind) -> String {
    match actor {
        ActorKind::UserRef(reference) => hex::encode(reference),
        ActorKind::Service(name) => name.clone(),
    }
}

/// The short name of a severity: `INFO`, `WARN2`.
fn severity_text(severity: SeverityNumber) -> String {
    let name = severity.as_str_name();
    name.strip_prefix("SEVERITY_NUMBER_").unwrap_or(name).into()
}

/// As the data model of OpenTelemetry maps those of syslog.
fn severity_number(severity: Severity) -> SeverityNumber {
    match severity {
        Severity::Unspecified | Severity::Informational => SeverityNumber::Info,
        Severity::Low => SeverityNumber::Info2,
        Severity::Medium => SeverityNumber::Warn,
        Severity::High => SeverityNumber::Error,
        Severity::Critical => SeverityNumber::Error2,
        Severity::Fatal => SeverityNumber::Fatal,
    }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.into())) }
}

/// Attributes that are texts.
pub(super) fn texts(texts: Vec<(String, String)>) -> Vec<KeyValue> {
    let mut attributes = Attributes(vec![]);
    texts.into_iter().for_each(|(name, text)| attributes.text(&name, text));
    attributes.0
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, name: &str, value: Value) {
        let value = Some(AnyValue { value: Some(value) });
        self.0.push(KeyValue { key: name.into(), value, key_strindex: 0 });
    }

    fn text(&mut self, name: &str, text: impl Into<String>) {
        self.add(name, Value::StringValue(text.into()));
    }

    fn some_text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.add(name, Value::IntValue(number as i64));
    }

    fn reported(&mut self, r: &Reported) {
        let session = Uuid::from_slice(&r.session_id).unwrap_or_default();
        self.text(names::REPORT_SESSION_ID, session.to_string());
        self.number(names::REPORT_NUMBER, r.number);
        self.number(names::REPORT_ANSWER_POSITION, r.answer_position);
        self.number(names::REPORT_ANSWER_INDEX, r.answer_index.into());
        if !r.doubts.is_empty() {
            let values = r.doubts.iter().map(|d| text(doubt(*d))).collect();
            self.add(names::REPORT_DOUBTS, Value::ArrayValue(ArrayValue { values }));
        }
    }

    fn key(&mut self, name: &str, id: Option<&[u8]>) {
        if let Some(id) = id.and_then(KeyId::from_slice) {
            self.text(name, id.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::{
        Actor, Attribute, AttributeValue, Caller, EventRecorded, ReportDoubt,
    };
    use keyledger_ledger::entry::EntrySigner;
    use keyledger_ledger::page::PageWriter;

    use super::*;

    fn text<'a>(record: &'a LogRecord, name: &str) -> &'a str {
        let found = record.attributes.iter().find(|a| a.key == name);
        match found.and_then(|a| a.value.as_ref()?.value.as_ref()) {
            Some(Value::StringValue(text)) => text,
            _ => "",
        }
    }

    fn full(position: u64, event: &Event, uses: Vec<u8>) -> FullEntry {
        let signer = EntrySigner::new(ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
        let entry = signer.sign(event.encode_to_vec()).unwrap();
        let columns = keyledger_ledger::record::Columns::derive(event, entry.leaf_hash());
        FullEntry { position, entry, sealed: vec![], uses, columns }
    }

    #[test]
    fn an_event_says_what_stands_in_the_clear_but_its_attributes() {
        let attribute = Attribute {
            name: "note".into(),
            value: Some(AttributeValue::Text("anything at all".into())),
        };
        let recorded = EventRecorded {
            actor: Some(Actor { actor: Some(ActorKind::UserRef(vec![0xab; 16])) }),
            action: "login".into(),
            resource: "portal".into(),
            outcome: Outcome::Denied as i32,
            category: "security/login".into(),
            severity: Severity::High as i32,
            attributes: vec![attribute],
            ..EventRecorded::default()
        };
        let event = Event {
            time_us: 1_790_000_000_000_005,
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            caller: Some(Caller { key_id: vec![9; 16], version: 1 }),
            kind: Some(Kind::EventRecorded(recorded)),
            ..Event::default()
        };
        let entry = full(17, &event, vec![]);
        let mapping = Mapping { ledger_id: Uuid::nil(), state: &State::default() };
        let record = mapping.entry(&Read::new(&entry, &event));
        assert_eq!(record.event_name, "keyledger.event.recorded");
        assert_eq!(record.severity_number(), SeverityNumber::Error);
        assert_eq!(record.time_unix_nano, 1_790_000_000_000_005_000);
        assert_eq!((&record.trace_id, &record.span_id), (&event.trace_id, &event.span_id));
        assert_eq!(text(&record, names::ACTOR_REF), "ab".repeat(16));
        assert_eq!(text(&record, names::OUTCOME), "DENIED");
        assert_eq!(text(&record, names::CATEGORY), "security/login");
        assert_eq!(text(&record, names::ENTRY_LEAF_HASH), hex::encode(entry.entry.leaf_hash()));
        assert!(!format!("{record:?}").contains("anything at all"));
    }

    #[test]
    fn a_use_that_a_service_reported_says_so_with_its_time_and_what_is_doubtful() {
        let page = Event { time_us: 9_000, ..Event::default() };
        let entry = full(17, &page, vec![]);
        let mapping = Mapping { ledger_id: Uuid::nil(), state: &State::default() };
        let record = |time_us, doubts: &[ReportDoubt]| {
            let reported = Reported {
                session_id: vec![7; 16],
                number: 3,
                answer_time_us: 5_000,
                time_us,
                doubts: doubts.iter().map(|doubt| *doubt as i32).collect(),
                ..Reported::default()
            };
            let allowed = Decision::Allow as i32;
            let r#use = Use { decision: allowed, reported: Some(reported), ..Use::default() };
            let page_of_it = UsePage::default();
            mapping.r#use(&Read::new(&entry, &page), &page_of_it, 0, &(r#use, [0; 32]))
        };
        let held = record(6_000, &[]);
        assert_eq!(
            (held.severity_number(), held.time_unix_nano),
            (SeverityNumber::Info, 6_000_000)
        );
        assert_eq!(text(&held, names::REPORT_SESSION_ID), Uuid::from_bytes([7; 16]).to_string());
        let body = held.body.as_ref().and_then(|body| body.value.clone());
        assert_eq!(body, Some(Value::StringValue(" reported UNSPECIFIED".into())));
        let doubtful = record(i64::MAX, &[ReportDoubt::Stale, ReportDoubt::Ahead]);
        assert_eq!(doubtful.severity_number(), SeverityNumber::Warn);
        assert_eq!(doubtful.time_unix_nano, 9_000_000, "not after the page");
        let doubts = doubtful.attributes.iter().find(|a| a.key == names::REPORT_DOUBTS).unwrap();
        let values = ["STALE", "AHEAD"].map(super::text).to_vec();
        let expected = Value::ArrayValue(ArrayValue { values });
        assert_eq!(doubts.value.as_ref().and_then(|v| v.value.as_ref()), Some(&expected));
        assert_eq!(record(1, &[ReportDoubt::BeforeAnswer]).time_unix_nano, 5_000_000);
    }

    #[test]
    fn uses_that_are_not_those_of_their_page_are_not_sent() {
        let mut writer = PageWriter::default();
        let allowed = Use { decision: Decision::Allow as i32, ..Use::default() };
        writer.add(&allowed, [1; 16], vec![]);
        let time = keyledger_ledger::id::Time(5);
        let (page, column) = writer.finish(0, time, 0, vec![], vec![], vec![]);
        let uses = uses_of(&page, &column).unwrap();
        assert_eq!(uses[0].1.as_slice(), page.root, "the only leaf is the root");
        let mut other = UseColumn::decode(column.as_slice()).unwrap();
        other.uses[0].salt = vec![2; 16];
        assert!(uses_of(&page, &other.encode_to_vec()).is_none());
    }
}
