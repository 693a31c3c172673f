//! The audit log of Azure AD (Entra ID), as Log Analytics and the diagnostic settings export it.

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time, unfold};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    // Diagnostic settings put most of it below `properties`.
    let inner = at(record, "properties").unwrap_or(record);
    let find = |paths: &[&str]| first(inner, paths).or_else(|| first(record, paths));
    let action = find(&["ActivityDisplayName", "OperationName"]).ok_or("it has no operation")?;
    let initiated = unfold(inner, "InitiatedBy").unwrap_or(Value::Null);
    let targets = unfold(inner, "TargetResources").unwrap_or(Value::Null);
    let (resource, target) = resource(&targets, find(&["Resource", "LoggedByService"]));
    let application =
        first(&initiated, &["app/displayName", "app/appId", "app/servicePrincipalId"]);
    let person = first(&initiated, &["user/userPrincipalName", "user/displayName", "user/id"]);
    let time = match time(inner, &["ActivityDateTime", "TimeGenerated"])? {
        Some(moment) => Some(moment),
        None => time(record, &["time", "TimeGenerated"])?,
    };
    let who = person.or_else(|| find(&["Identity"])).map(Who::Person);
    let who = who.or(application.map(Who::Service));
    Ok(Facts {
        id: find(&["Id"]),
        who: Some(who.unwrap_or_else(|| Who::Service("azuread".into()))),
        action,
        resource,
        target,
        outcome: match find(&["Result", "ResultType"]).map(|r| r.to_lowercase()).as_deref() {
            Some("success" | "0") => Outcome::Success,
            Some("failure" | "timeout") => Outcome::Failure,
            _ => Outcome::Unspecified,
        },
        reason: find(&["ResultReason", "ResultDescription"]),
        severity: match find(&["Level"]).as_deref() {
            Some("1" | "Critical") => Severity::Critical,
            Some("2" | "Error") => Severity::High,
            Some("3" | "Warning") => Severity::Medium,
            Some("4" | "5" | "Informational") => Severity::Informational,
            _ => Severity::Unspecified,
        },
        time,
        address: first(&initiated, &["user/ipAddress", "app/ipAddress"])
            .or_else(|| find(&["CallerIpAddress"])),
        user_agent: find(&["UserAgent"]).or_else(|| user_agent(inner)),
        details: vec![
            ("operation_kind", find(&["Category"])),
            ("correlation", find(&["CorrelationId"])),
        ],
        ..Facts::default()
    })
}

/// The first target: `Application/<id>`, or `User` with the person apart.
fn resource(targets: &Value, otherwise: Option<String>) -> (String, Option<String>) {
    let Some(kind) = text(targets, "0/type") else {
        return (otherwise.unwrap_or_default(), None);
    };
    let name = first(targets, &["0/userPrincipalName", "0/displayName", "0/id"]);
    match (kind.as_str(), text(targets, "0/id")) {
        ("User", _) => ("users".into(), name),
        (kind, Some(id)) => (format!("{kind}/{id}"), None),
        (kind, None) => (kind.into(), name),
    }
}

fn user_agent(record: &Value) -> Option<String> {
    let details = unfold(record, "AdditionalDetails")?;
    let is_agent = |detail: &&Value| text(detail, "key").as_deref() == Some("User-Agent");
    text(details.as_array()?.iter().find(is_agent)?, "value")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_tells_who_did_what_to_which_application() {
        let facts = map(&json!({
            "Id": "Directory_1", "ActivityDisplayName": "Update application", "Result": "success", "Level": "4",
            "ActivityDateTime": "2026-11-22T07:00:00Z", "ResultReason": "asked for",
            "InitiatedBy": r#"{"user":{"userPrincipalName":"alice@example.com","ipAddress":"203.0.113.7"}}"#,
            "TargetResources": r#"[{"id":"42","displayName":"Shop","type":"Application"}]"#,
            "AdditionalDetails": r#"[{"key":"User-Agent","value":"PowerShell"}]"#,
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice@example.com".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("Update application", "Application/42")
        );
        assert_eq!((facts.outcome, facts.reason.as_deref()), (Outcome::Success, Some("asked for")));
        assert_eq!(facts.user_agent.as_deref(), Some("PowerShell"));
        assert_eq!(facts.address.as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn an_application_acts_as_a_service_and_a_user_is_a_target() {
        let facts = map(&json!({"time": "2026-11-22T07:00:00Z", "properties": {
            "activityDisplayName": "Add user", "result": "failure",
            "initiatedBy": {"app": {"displayName": "Sync"}},
            "targetResources": [{"id": "7", "userPrincipalName": "bob@example.com", "type": "User"}],
        }}))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Service("Sync".into())));
        assert_eq!(
            (facts.resource.as_str(), facts.target.as_deref()),
            ("users", Some("bob@example.com"))
        );
        assert_eq!(facts.outcome, Outcome::Failure);
        assert!(facts.time.is_some());
        assert!(map(&json!({"Id": "1"})).is_err());
    }
}
