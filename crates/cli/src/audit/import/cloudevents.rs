//! CloudEvents 1.0 and 0.3, structured JSON. What the specification doesn't allow is refused.

use keyledger_proto::entry::Outcome;
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time};

/// Attributes and members of both versions that are no extensions.
const KNOWN: [&str; 12] = [
    "specversion",
    "id",
    "type",
    "source",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "schemaurl",
    "datacontentencoding",
    "data",
    "data_base64",
];

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    check(record)?;
    let source = required(record, "source")?;
    let parent = text(record, "traceparent").unwrap_or_default();
    let mut parent = parent.split('-').skip(1).map(String::from);
    let data = at(record, "data").unwrap_or(&Value::Null);
    let person = first(data, &["actor/user", "actor/name", "user/name", "user"]);
    Ok(Facts {
        // A source gives each id once.
        id: Some(format!("{source} {}", required(record, "id")?)),
        who: Some(person.map_or(Who::Service(source.clone()), Who::Person)),
        action: required(record, "type")?,
        resource: text(record, "subject").unwrap_or(source),
        outcome: match text(data, "outcome").map(|o| o.to_lowercase()).as_deref() {
            Some("success") => Outcome::Success,
            Some("failure") => Outcome::Failure,
            Some("denied") => Outcome::Denied,
            _ => Outcome::Unspecified,
        },
        reason: text(data, "reason"),
        time: time(record, &["time"])?,
        address: first(data, &["client/address", "client/ip"]),
        user_agent: text(data, "client/user_agent"),
        trace: parent.next(),
        span: parent.next(),
        details: vec![("content", text(record, "datacontenttype"))],
        ..Facts::default()
    })
}

fn required(record: &Value, name: &str) -> Result<String, Unmapped> {
    let value = record.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    value.map(Into::into).ok_or_else(|| format!("`{name}` must be a text that is not empty"))
}

fn check(record: &Value) -> Result<(), Unmapped> {
    let version = required(record, "specversion")?;
    if !["1.0", "0.3"].contains(&version.as_str()) {
        return Err("`specversion` must be 1.0 or 0.3".into());
    }
    for name in ["subject", "time", "datacontenttype", "dataschema", "schemaurl"] {
        if record.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            return Err(format!("`{name}` must be a text"));
        }
    }
    if record.get("data").is_some() && record.get("data_base64").is_some() {
        return Err("it has both `data` and `data_base64`".into());
    }
    let fields = record.as_object().ok_or("it is no object")?;
    fields.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str())).try_for_each(extension)
}

/// Texts, flags and whole numbers of 32 bits. Small letters and digits ought to make the name; the version of Java's library
/// takes capitals as well, and so do we.
fn extension((name, value): (&String, &Value)) -> Result<(), Unmapped> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("the name of an extension must be letters and digits".into());
    }
    match value {
        Value::Null | Value::String(_) | Value::Bool(_) => Ok(()),
        Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Value::Number(n) if n.is_f64() => Err("an extension must not be a fraction".into()),
        Value::Number(_) => Err("a number in an extension must fit into 32 bits".into()),
        _ => Err("an extension must be a text, a flag or a whole number".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(name: &str, value: Value) -> Value {
        let mut event =
            json!({"specversion": "1.0", "id": "1", "type": "invoice.paid", "source": "/shop"});
        event[name] = value;
        event
    }

    #[test]
    fn an_event_tells_its_source_type_and_subject_and_belongs_to_a_trace() {
        let mut event = with("subject", json!("invoices/4711"));
        event["time"] = json!("2026-11-22T09:00:00+02:00");
        event["traceparent"] = json!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        event["data"] = json!({"user": "alice@example.com", "reason": "monthly"});
        let facts = map(&event).unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice@example.com".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("invoice.paid", "invoices/4711")
        );
        assert_eq!(
            (facts.id.as_deref(), facts.reason.as_deref()),
            (Some("/shop 1"), Some("monthly"))
        );
        assert_eq!(facts.trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(facts.span.as_deref(), Some("b7ad6b7169203331"));
        let bare = map(&with("subject", Value::Null)).unwrap();
        assert_eq!(bare.who, Some(Who::Service("/shop".into())));
    }

    #[test]
    fn what_the_specification_forbids_is_refused_with_its_reason() {
        for (name, value, reason) in [
            ("specversion", json!("2.0"), "`specversion`"),
            ("id", json!(""), "`id`"),
            ("type", json!(1), "`type`"),
            ("source", Value::Null, "`source`"),
            ("time", json!(1), "`time`"),
            ("time", json!("soon"), "time"),
            ("fraction", json!(42.5), "fraction"),
            ("long", json!(4_247_483_647_u64), "32 bits"),
            ("an_extension", json!("x"), "name of an extension"),
            ("object", json!({}), "an extension must be"),
        ] {
            let refused = map(&with(name, value)).err().unwrap();
            assert!(refused.contains(reason), "{name}: {refused}");
        }
        assert!(map(&with("number", json!(10))).is_ok());
        let mut both = with("data", json!({}));
        both["data_base64"] = json!("e30=");
        assert!(map(&both).is_err());
    }
}
