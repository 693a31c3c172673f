//! The systemd journal, as `journalctl -o json` prints it (systemd's "Journal JSON Format").

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, moment, text};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let message = message(record).ok_or("it has no MESSAGE")?;
    let time = first(record, &["_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"]);
    let unit = first(record, &["UNIT", "_SYSTEMD_UNIT", "_KERNEL_SUBSYSTEM"]);
    let program = first(record, &["SYSLOG_IDENTIFIER", "_COMM", "_TRANSPORT"]);
    let program = program.unwrap_or_else(|| "journal".into());
    // The instance of a template may be named after a person: `backup@alice.service`.
    let template = unit.as_deref().and_then(|unit| unit.split('@').next()).map(String::from);
    let instance = unit.filter(|unit| unit.contains('@'));
    // The person who logged in, however often the process changed its user since.
    let login = text(record, "_AUDIT_LOGINUID").filter(|id| id != "4294967295");
    Ok(Facts {
        id: text(record, "__CURSOR"),
        who: Some(Who::person_or(login.map(|id| format!("uid {id}")), &program)),
        action: format!("{program}.message"),
        resource: template.unwrap_or_else(|| program.clone()),
        target: text(record, "USER_ID").or(instance),
        outcome: match text(record, "RESULT").as_deref() {
            Some("done" | "success") => Outcome::Success,
            Some(_) => Outcome::Failure,
            None => Outcome::Unspecified,
        },
        reason: Some(message),
        severity: severity(record),
        time: time.map(|t| moment(&t)).transpose()?,
        device: text(record, "_HOSTNAME"),
        details: vec![
            ("message_id", text(record, "MESSAGE_ID")),
            ("boot_id", text(record, "_BOOT_ID")),
            ("transport", text(record, "_TRANSPORT")),
        ],
        ..Facts::default()
    })
}

/// Text, or the bytes of what is no UTF-8; the first one if there are several.
fn message(record: &Value) -> Option<String> {
    match at(record, "MESSAGE")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.first().is_some_and(Value::is_string) => {
            items.first()?.as_str().map(Into::into)
        }
        Value::Array(items) => {
            let byte = |item: &Value| item.as_u64().and_then(|n| u8::try_from(n).ok());
            let bytes: Option<Vec<u8>> = items.iter().map(byte).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

/// Syslog's eight steps (RFC 5424).
fn severity(record: &Value) -> Severity {
    match text(record, "PRIORITY").as_deref() {
        Some("0") => Severity::Fatal,
        Some("1" | "2") => Severity::Critical,
        Some("3") => Severity::High,
        Some("4") => Severity::Medium,
        Some("5") => Severity::Low,
        Some("6" | "7") => Severity::Informational,
        _ => Severity::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_of_a_unit_tells_which_program_said_what_and_how_grave_it_is() {
        let facts = map(&json!({
            "MESSAGE": "Failed to start backup.", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "systemd",
            "UNIT": "backup.service", "RESULT": "failed", "_HOSTNAME": "db1", "__CURSOR": "s=1;i=2",
            "__REALTIME_TIMESTAMP": "1795330800123456",
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Service("systemd".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("systemd.message", "backup.service")
        );
        assert_eq!((facts.outcome, facts.severity), (Outcome::Failure, Severity::High));
        assert_eq!(facts.reason.as_deref(), Some("Failed to start backup."));
        assert_eq!(facts.time.unwrap().to_string(), "2026-11-22T07:00:00.123456Z");
        assert_eq!((facts.id.as_deref(), facts.device.as_deref()), (Some("s=1;i=2"), Some("db1")));
    }

    #[test]
    fn a_message_of_bytes_is_read_and_a_login_is_a_person() {
        let facts = map(&json!({"MESSAGE": [104, 105, 255], "_AUDIT_LOGINUID": "1000"})).unwrap();
        assert_eq!(facts.reason.as_deref(), Some("hi\u{fffd}"));
        assert_eq!(facts.who, Some(Who::Person("uid 1000".into())));
        let instance = map(&json!({"MESSAGE": "x", "UNIT": "backup@alice.service"})).unwrap();
        assert_eq!(
            (instance.resource.as_str(), instance.target.as_deref()),
            ("backup", Some("backup@alice.service"))
        );
        assert!(map(&json!({"PRIORITY": "3"})).is_err());
    }
}
