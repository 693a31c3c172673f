//! Okta's System Log, and the findings on it that detections make (a score for a user, without an event type).

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let Some(action) = text(record, "eventType") else { return finding(record) };
    let (resource, target) = resource(record);
    Ok(Facts {
        id: text(record, "uuid"),
        who: Some(who(record)),
        action,
        resource,
        target,
        outcome: match text(record, "outcome/result").as_deref() {
            Some("SUCCESS" | "ALLOW") => Outcome::Success,
            Some("DENY") => Outcome::Denied,
            Some("FAILURE" | "ABANDONED") => Outcome::Failure,
            _ => Outcome::Unspecified,
        },
        reason: first(record, &["outcome/reason", "displayMessage"]),
        severity: match text(record, "severity").as_deref() {
            Some("DEBUG" | "INFO") => Severity::Informational,
            Some("LOW") => Severity::Low,
            Some("WARN" | "MEDIUM") => Severity::Medium,
            Some("ERROR" | "HIGH") => Severity::High,
            Some("CRITICAL") => Severity::Critical,
            _ => Severity::Unspecified,
        },
        time: time(record, &["published"])?,
        address: first(record, &["client/ipAddress", "request/ipChain/0/ip"]),
        user_agent: text(record, "client/userAgent/rawUserAgent"),
        device: first(record, &["device/name", "client/device"]),
        details: vec![
            ("transaction", text(record, "transaction/id")),
            ("session_risk", text(record, "debugContext/debugData/threatSuspected")),
        ],
        ..Facts::default()
    })
}

/// Only what Okta itself calls no user is a service.
fn who(record: &Value) -> Who {
    let name = first(record, &["actor/alternateId", "actor/displayName", "actor/id"]);
    match text(record, "actor/type").as_deref() {
        Some("SystemPrincipal" | "PublicClientApp" | "ServiceClient") => {
            Who::Service(name.unwrap_or_else(|| "okta".into()))
        }
        _ => Who::person_or(name, "okta"),
    }
}

/// Persons among the targets stand apart; the first other one is the resource.
fn resource(record: &Value) -> (String, Option<String>) {
    let targets = at(record, "target").and_then(Value::as_array).map(Vec::as_slice);
    let (mut resource, mut person) = (None, None);
    for target in targets.unwrap_or_default() {
        let kind = text(target, "type").unwrap_or_default();
        match kind.as_str() {
            "User" | "AppUser" | "" => {
                let name = first(target, &["alternateId", "displayName", "id"]);
                person = person.or(name);
            }
            _ => {
                let id = text(target, "id").map(|id| format!("/{id}")).unwrap_or_default();
                resource = resource.or(Some(format!("{}{id}", kind.replace(' ', ""))));
            }
        }
    }
    match (&resource, &person) {
        (None, Some(_)) => ("users".into(), person),
        _ => (resource.unwrap_or_default(), person),
    }
}

fn finding(record: &Value) -> Result<Facts, Unmapped> {
    let score = text(record, "anomaly_severity_score").ok_or("it has no eventType")?;
    let person = text(record, "user_email");
    Ok(Facts {
        who: Some(Who::Service("okta".into())),
        action: "okta.anomaly".into(),
        resource: "users".into(),
        target: person,
        severity: Severity::Medium,
        time: time(record, &["detection_timestamp", "last_anomaly_hour"])?,
        address: text(record, "all_recent_ips/0"),
        details: vec![("score", Some(score))],
        ..Facts::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_tells_who_did_what_to_whom_and_why() {
        let facts = map(&json!({
            "uuid": "u1", "eventType": "user.account.lock", "severity": "WARN", "published": "2026-11-22T07:00:00Z",
            "actor": {"alternateId": "alice@example.com", "type": "User"},
            "outcome": {"result": "DENY", "reason": "too many tries"},
            "client": {"ipAddress": "203.0.113.7", "device": "Computer", "userAgent": {"rawUserAgent": "Firefox"}},
            "target": [{"type": "User", "alternateId": "bob@example.com"}, {"type": "AppInstance", "id": "0oa1"}],
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice@example.com".into())));
        assert_eq!(
            (facts.resource.as_str(), facts.target.as_deref()),
            ("AppInstance/0oa1", Some("bob@example.com"))
        );
        assert_eq!((facts.outcome, facts.severity), (Outcome::Denied, Severity::Medium));
        assert_eq!(facts.reason.as_deref(), Some("too many tries"));
        assert_eq!(
            (facts.device.as_deref(), facts.user_agent.as_deref()),
            (Some("Computer"), Some("Firefox"))
        );
    }

    #[test]
    fn names_without_case_are_read_and_a_finding_is_no_act_of_the_user() {
        let facts =
            map(&json!({"eventtype": "user.session.start", "actor": {"alternateid": "alice"}}));
        assert_eq!(facts.unwrap().who, Some(Who::Person("alice".into())));
        let finding =
            map(&json!({"user_email": "bob@example.com", "anomaly_severity_score": 27.5}));
        let finding = finding.unwrap();
        assert_eq!(finding.who, Some(Who::Service("okta".into())));
        assert_eq!(finding.target.as_deref(), Some("bob@example.com"));
        assert!(map(&json!({"uuid": "u1"})).is_err());
    }
}
