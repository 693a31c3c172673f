//! Google Cloud's LogEntry: audit logs, and what else such a log holds.

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let log = text(record, "logName").ok_or("it has no logName")?;
    let kind = text(record, "resource/type").unwrap_or_else(|| "gcp".into());
    let payload = at(record, "protoPayload").unwrap_or(&Value::Null);
    let message = first(record, &["textPayload", "jsonPayload/message"]);
    // The last part of the name says which log it is; its slashes are written %2F.
    let log_id = log.rsplit('/').next().unwrap_or_default().replace("%2F", "/");
    let action = first(payload, &["methodName"])
        .or_else(|| first(record, &["jsonPayload/event_subtype", "httpRequest/requestMethod"]));
    let service = text(payload, "serviceName");
    let (who, on_behalf_of) = who(record, payload, service.as_deref().unwrap_or(&kind));
    Ok(Facts {
        id: text(record, "insertId")
            .map(|id| format!("{log}/{id}/{}", text(record, "timestamp").unwrap_or_default())),
        who: Some(who),
        on_behalf_of,
        action: action.unwrap_or_else(|| log_id.clone()),
        resource: first(record, &["protoPayload/resourceName", "jsonPayload/resource/name"])
            .unwrap_or(kind),
        outcome: outcome(record, payload),
        reason: first(payload, &["status/message", "metadata/reason"]).or(message),
        severity: severity(record),
        time: time(record, &["timestamp", "receiveTimestamp"])?,
        address: first(record, &["protoPayload/requestMetadata/callerIp", "httpRequest/remoteIp"]),
        user_agent: first(
            record,
            &["protoPayload/requestMetadata/callerSuppliedUserAgent", "httpRequest/userAgent"],
        ),
        trace: text(record, "trace").and_then(|t| t.rsplit('/').next().map(Into::into)),
        span: text(record, "spanId"),
        details: vec![
            ("log", Some(log_id)),
            ("service", service),
            ("operation", text(record, "operation/id")),
            ("code", text(payload, "status/code")),
        ],
        ..Facts::default()
    })
}

/// Service accounts act for those who delegated to them: the first of the chain is the one who began.
fn who(record: &Value, payload: &Value, otherwise: &str) -> (Who, Vec<Who>) {
    let info = "authenticationInfo";
    let principal =
        first(payload, &[&format!("{info}/principalEmail"), &format!("{info}/principalSubject")]);
    let principal = principal.or_else(|| text(record, "jsonPayload/actor/user"));
    let chain = at(payload, &format!("{info}/serviceAccountDelegationInfo"));
    let chain = chain.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let link = |link: &Value| {
        let paths = ["firstPartyPrincipal/principalEmail", "principalSubject"];
        first(link, &paths).map(account)
    };
    let who = principal.map_or_else(|| Who::Service(otherwise.into()), account);
    (who, chain.iter().rev().filter_map(link).collect())
}

fn account(name: String) -> Who {
    match name.ends_with(".gserviceaccount.com") || name.starts_with("system:") {
        true => Who::Service(name),
        false => Who::Person(name),
    }
}

/// The codes of google.rpc; an entry without a status says that it went well only if it is an audit log.
fn outcome(record: &Value, payload: &Value) -> Outcome {
    let denied = |grant: &Value| at(grant, "granted") == Some(&Value::Bool(false));
    let grants = at(payload, "authorizationInfo").and_then(Value::as_array);
    let code = text(payload, "status/code").and_then(|code| code.parse::<i64>().ok());
    let status = text(record, "httpRequest/status").and_then(|code| code.parse::<i64>().ok());
    match (code, status) {
        (Some(7 | 16), _) | (_, Some(401 | 403)) => Outcome::Denied,
        (Some(1..), _) | (_, Some(400..)) => Outcome::Failure,
        (None, None) if payload.is_null() => Outcome::Unspecified,
        (None, None) if grants.is_some_and(|g| g.iter().any(denied)) => Outcome::Denied,
        _ => Outcome::Success,
    }
}

fn severity(record: &Value) -> Severity {
    match text(record, "severity").as_deref() {
        Some("DEBUG" | "INFO") => Severity::Informational,
        Some("NOTICE") => Severity::Low,
        Some("WARNING") => Severity::Medium,
        Some("ERROR") => Severity::High,
        Some("CRITICAL" | "ALERT") => Severity::Critical,
        Some("EMERGENCY") => Severity::Fatal,
        _ => Severity::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_audit_entry_tells_who_did_what_and_for_whom() {
        let facts = map(&json!({
            "insertId": "i1", "logName": "projects/p/logs/cloudaudit.googleapis.com%2Factivity",
            "timestamp": "2026-11-22T07:00:00Z", "severity": "NOTICE", "spanId": "b7ad6b7169203331",
            "trace": "projects/p/traces/0af7651916cd43dd8448eb211c80319c",
            "protoPayload": {
                "methodName": "storage.buckets.delete", "serviceName": "storage.googleapis.com",
                "resourceName": "projects/_/buckets/b", "status": {"code": 7, "message": "no rights"},
                "authenticationInfo": {
                    "principalEmail": "robot@p.iam.gserviceaccount.com",
                    "serviceAccountDelegationInfo": [{"firstPartyPrincipal": {"principalEmail": "alice@example.com"}}],
                },
                "requestMetadata": {"callerIp": "203.0.113.7", "callerSuppliedUserAgent": "curl"},
            },
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Service("robot@p.iam.gserviceaccount.com".into())));
        assert_eq!(facts.on_behalf_of, [Who::Person("alice@example.com".into())]);
        assert_eq!(facts.action, "storage.buckets.delete");
        assert_eq!((facts.outcome, facts.severity), (Outcome::Denied, Severity::Low));
        assert_eq!(facts.reason.as_deref(), Some("no rights"));
        assert_eq!(facts.trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    }

    #[test]
    fn an_entry_that_is_no_audit_log_says_nothing_of_its_outcome() {
        let facts = map(&json!({"logName": "projects/p/logs/syslog", "textPayload": "hello",
            "resource": {"type": "gce_instance"}}));
        let facts = facts.unwrap();
        assert_eq!((facts.action.as_str(), facts.resource.as_str()), ("syslog", "gce_instance"));
        assert_eq!((facts.outcome, facts.reason.as_deref()), (Outcome::Unspecified, Some("hello")));
        assert!(map(&json!({"textPayload": "hello"})).is_err());
    }
}
