//! CSV (RFC 4180), guarded: no cell is a formula to a spreadsheet, and nothing in a cell changes what a person sees of it or of
//! others. A line is a record, whatever stands in it.

use std::fmt::Write;

use keyledger_ledger::body::Kind;
use keyledger_ledger::text::is_unsafe_in_a_line;
use serde_json::{Map, Value};

use super::{enum_word, event_json, put};
use crate::{Actor, AnomalyFacts, AuditEvent, actor, event_attribute, owner, show};

/// Name and content of each column.
type Column = (&'static str, fn(&AuditEvent) -> String);

const COLUMNS: [Column; 42] = [
    ("position", |e| number(e.position)),
    ("index", |e| number(e.index)),
    ("leaf_hash", |e| show::hex(&e.leaf_hash)),
    ("time", |e| time(&e.time)),
    ("category", |e| e.category.clone()),
    ("type", |e| e.r#type.clone()),
    ("key_id", |e| e.key_id.clone()),
    ("key_version", |e| number((e.key_version != 0).then_some(e.key_version))),
    ("caller_key_id", |e| e.caller_key_id.clone()),
    ("method", |e| e.method.clone()),
    ("permission", |e| e.permission.clone()),
    ("resource", |e| e.resource.clone()),
    ("decision", |e| enum_word("keyledger.entry.v1.Decision", e.decision)),
    ("decision_reason", |e| enum_word("keyledger.entry.v1.DecisionReason", e.decision_reason)),
    ("reason", |e| e.reason.clone()),
    ("owner_user", |e| user_of(e)),
    ("owner_service", |e| service_of(e)),
    ("purpose", |e| e.purpose.clone()),
    ("address", |e| e.address.clone()),
    ("user_agent", |e| e.user_agent.clone()),
    ("device", |e| e.device.clone()),
    ("trace_id", |e| e.trace_id.clone()),
    ("span_id", |e| e.span_id.clone()),
    ("approval_ref", |e| e.approval_ref.clone()),
    ("actor_user", |e| named(e.actor.as_ref(), true)),
    ("actor_service", |e| named(e.actor.as_ref(), false)),
    ("on_behalf_of", |e| json_of(e.on_behalf_of.iter().map(actor_json).collect())),
    ("action", |e| e.action.clone()),
    ("outcome", |e| enum_word("keyledger.entry.v1.Outcome", e.outcome)),
    ("severity", |e| enum_word("keyledger.entry.v1.Severity", e.severity)),
    ("occur_time", |e| time(&e.occur_time)),
    // Of a use that a service answered by itself: `holds`, or what is doubtful.
    ("reported", reported),
    ("attributes", attributes),
    ("count", |e| number((e.count > 1).then_some(e.count))),
    ("returned", |e| number(e.returned)),
    ("asked", |e| e.asked.clone()),
    ("anomaly", |e| number(e.anomaly.as_ref().and_then(|a| a.position))),
    ("rule", |e| of_anomaly(e, |a| enum_word("keyledger.entry.v1.MonitoringRule", a.rule))),
    ("network", |e| of_anomaly(e, |a| a.network.clone())),
    ("occurrences", |e| of_anomaly(e, |a| number((a.occurrences > 0).then_some(a.occurrences)))),
    ("verdict", |e| of_anomaly(e, |a| enum_word("keyledger.entry.v1.AnomalyVerdict", a.verdict))),
    ("body", body),
];

/// The names of the columns.
pub fn header() -> Vec<u8> {
    record(COLUMNS.iter().map(|(name, _)| name.to_string()))
}

/// An event as a record.
pub fn line(event: &AuditEvent) -> Vec<u8> {
    record(COLUMNS.iter().map(|(_, content)| content(event)))
}

pub(crate) fn record(cells: impl Iterator<Item = String>) -> Vec<u8> {
    let mut line = cells.map(|text| quoted(&guarded(&text))).collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line.into_bytes()
}

/// A text that a spreadsheet takes for a text, and that shows all that stands in it. What begins like a formula gets an
/// apostrophe; control, bidirectional and invisible characters are written as `\u{…}`.
fn guarded(text: &str) -> String {
    let begins =
        |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '＝' | '＋' | '－' | '＠');
    let first = |text: &str| text.chars().next().is_some_and(begins);
    let mut cell = String::with_capacity(text.len());
    // Some programs cut spaces first.
    if first(text) || first(text.trim_start()) {
        cell.push('\'');
    }
    for c in text.chars() {
        match is_unsafe_in_a_line(c) {
            true => write!(cell, "\\u{{{:x}}}", c as u32).expect("a String takes all text"),
            false => cell.push(c),
        }
    }
    cell
}

/// Each cell is quoted, so that no program takes another character than the comma for the end of one.
fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

fn number(number: Option<impl ToString>) -> String {
    number.map(|n| n.to_string()).unwrap_or_default()
}

fn time(time: &Option<prost_types::Timestamp>) -> String {
    time.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn of_anomaly(event: &AuditEvent, content: impl Fn(&AnomalyFacts) -> String) -> String {
    event.anomaly.as_ref().map(content).unwrap_or_default()
}

fn user_of(event: &AuditEvent) -> String {
    match event.owner.as_ref().and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::User(name)) => name.clone(),
        _ => String::new(),
    }
}

fn service_of(event: &AuditEvent) -> String {
    match event.owner.as_ref().and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::Service(name)) => name.clone(),
        _ => String::new(),
    }
}

fn named(actor: Option<&Actor>, user: bool) -> String {
    match actor.and_then(|a| a.actor.as_ref()) {
        Some(actor::Actor::User(name)) if user && name.is_empty() => "(erased)".into(),
        Some(actor::Actor::User(name)) if user => name.clone(),
        Some(actor::Actor::Service(name)) if !user => name.clone(),
        _ => String::new(),
    }
}

fn reported(event: &AuditEvent) -> String {
    let Some(reported) = &event.reported else { return String::new() };
    if reported.doubts.is_empty() {
        return "holds".into();
    }
    let word = |doubt: &i32| enum_word("keyledger.entry.v1.ReportDoubt", *doubt);
    reported.doubts.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn actor_json(actor: &Actor) -> Value {
    let mut object = Map::new();
    put(&mut object, "user", named(Some(actor), true));
    put(&mut object, "service", named(Some(actor), false));
    object.into()
}

/// Empty for nothing.
fn json_of(values: Vec<Value>) -> String {
    if values.is_empty() { String::new() } else { Value::from(values).to_string() }
}

fn attributes(event: &AuditEvent) -> String {
    let values = attribute_values(event);
    if values.is_empty() { String::new() } else { Value::from(values).to_string() }
}

/// Attributes by name.
pub(super) fn attribute_values(event: &AuditEvent) -> Map<String, Value> {
    let mut object = Map::new();
    for attribute in &event.attributes {
        use event_attribute::Value as V;
        let value: Value = match &attribute.value {
            Some(V::Text(text)) => text.as_str().into(),
            Some(V::Integer(number)) => (*number).into(),
            Some(V::Number(number)) => (*number).into(),
            Some(V::Flag(flag)) => (*flag).into(),
            None => Value::Null,
        };
        object.insert(attribute.name.clone(), value);
    }
    object
}

/// What was changed, as JSON; what others recorded stands in columns of its own.
fn body(event: &AuditEvent) -> String {
    let is_change = |kind: &Kind| !matches!(kind, Kind::EventRecorded(_));
    let kind = event.body.as_ref().and_then(|body| body.kind.as_ref());
    match kind.is_some_and(is_change) {
        true => event_json(event)["body"].to_string(),
        false => String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::sample;
    use super::*;

    /// The records of a CSV, as RFC 4180 has them.
    pub(crate) fn parse(text: &str) -> Vec<Vec<String>> {
        let (mut records, mut record, mut cell) = (vec![], vec![], String::new());
        let (mut inside, mut chars) = (false, text.chars().peekable());
        while let Some(c) = chars.next() {
            match (inside, c) {
                (true, '"') if chars.peek() == Some(&'"') => {
                    cell.push('"');
                    chars.next();
                }
                (_, '"') => inside = !inside,
                (false, ',') => record.push(std::mem::take(&mut cell)),
                (false, '\r') => {}
                (false, '\n') => {
                    record.push(std::mem::take(&mut cell));
                    records.push(std::mem::take(&mut record));
                }
                (_, c) => cell.push(c),
            }
        }
        assert!(!inside && cell.is_empty() && record.is_empty(), "it ends with a line break");
        records
    }

    #[test]
    fn what_begins_like_a_formula_gets_an_apostrophe() {
        for formula in ["=cmd()", "+1", "-1", "@SUM(A1)", " =1", "＝1", "＋1", "－1", "＠1"] {
            assert_eq!(guarded(formula), format!("'{formula}"));
        }
        assert_eq!(guarded("\t=1"), "'\\u{9}=1");
        assert_eq!(guarded("\r=1"), "'\\u{d}=1");
        for text in ["", "a=b", "1-2", "alice@example.com", "'=1", "{\"a\":-1}"] {
            assert_eq!(guarded(text), text);
        }
    }

    #[test]
    fn nothing_in_a_cell_changes_what_a_person_sees() {
        let hostile = "a\nb\r\u{0}\u{202e}c\u{200b}d\u{feff}\u{85}\u{2028}";
        let cell = guarded(hostile);
        assert_eq!(cell, "a\\u{a}b\\u{d}\\u{0}\\u{202e}c\\u{200b}d\\u{feff}\\u{85}\\u{2028}");
        assert_eq!(guarded("Zürich 日本語 👍"), "Zürich 日本語 👍");
    }

    #[test]
    fn every_record_has_every_column_and_quotes_stay_in_their_cell() {
        let mut event = sample::recorded();
        event.reason = "a \"quoted\", text; with = signs".into();
        event.resource = "\",=cmd(),\"".into();
        let others = [sample::a_use(), sample::change(), sample::anomaly()];
        let text = [header(), line(&event), others.each_ref().map(line).concat()];
        let records = parse(&String::from_utf8(text.concat()).unwrap());
        assert!(records.iter().all(|r| r.len() == COLUMNS.len()));
        let cell = |row: usize, name: &str| {
            let column = records[0].iter().position(|c| c == name).unwrap();
            records[row][column].as_str()
        };
        assert_eq!(cell(1, "reason"), event.reason);
        assert_eq!(cell(1, "resource"), event.resource);
        assert_eq!(cell(1, "actor_user"), "alice@example.com");
        assert_eq!(cell(1, "on_behalf_of"), r#"[{"service":"batch"}]"#);
        assert_eq!(cell(1, "attributes"), r#"{"rows":17}"#);
        assert_eq!((cell(1, "outcome"), cell(1, "severity")), ("denied", "medium"));
        assert_eq!((cell(2, "index"), cell(2, "decision_reason")), ("3", "no_grant"));
        assert_eq!(cell(2, "body"), "");
        assert_eq!((cell(4, "rule"), cell(4, "anomaly")), ("forbidden", "17"));
        assert_eq!((cell(4, "network"), cell(4, "occurrences")), ("192.0.2.0/24", "3"));
        assert!(cell(3, "body").contains("keyRevoked"));
    }
}
