//! AWS CloudTrail: records of `{"Records": […]}`, or one a line.

use keyledger_proto::entry::Outcome;
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time};

/// Parameters that name what a call is about, the most telling first.
const NAMING: [&str; 14] = [
    "bucketName",
    "functionName",
    "roleName",
    "groupName",
    "policyArn",
    "secretId",
    "keyId",
    "tableName",
    "instanceId",
    "trailName",
    "clusterName",
    "queueUrl",
    "topicArn",
    "name",
];

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let name = text(record, "eventName").ok_or("it has no eventName")?;
    let source = text(record, "eventSource").ok_or("it has no eventSource")?;
    let service = source.trim_end_matches(".amazonaws.com");
    let target = text(record, "requestParameters/userName");
    let resource = match &target {
        Some(_) => "users".into(),
        None => resource(record).unwrap_or_else(|| service.into()),
    };
    let (who, on_behalf_of) = who(record);
    let error = text(record, "errorCode");
    Ok(Facts {
        id: text(record, "eventID"),
        who: Some(who),
        on_behalf_of,
        action: format!("{service}:{name}"),
        resource,
        target,
        outcome: outcome(record, error.as_deref()),
        reason: first(record, &["errorMessage", "additionalEventData/reason"]),
        time: time(record, &["eventTime"])?,
        address: text(record, "sourceIPAddress"),
        user_agent: text(record, "userAgent"),
        details: vec![
            ("region", text(record, "awsRegion")),
            ("account", text(record, "recipientAccountId")),
            ("error_code", error),
            ("request_id", text(record, "requestID")),
        ],
        ..Facts::default()
    })
}

/// A service that AWS runs may act for someone: then it acted, on behalf of the identity.
fn who(record: &Value) -> (Who, Vec<Who>) {
    let identity = identity(record);
    match (text(record, "userIdentity/invokedBy"), identity) {
        (Some(service), Some(identity)) => (Who::Service(service), vec![identity]),
        (Some(service), None) => (Who::Service(service), vec![]),
        (None, Some(identity)) => (identity, vec![]),
        (None, None) => (Who::Service("aws".into()), vec![]),
    }
}

fn identity(record: &Value) -> Option<Who> {
    let user = at(record, "userIdentity")?;
    let named = first(user, &["userName", "arn", "principalId"]);
    match text(user, "type")?.as_str() {
        "AWSService" => None,
        "AWSAccount" => first(user, &["accountId", "principalId"]).map(Who::Service),
        "Root" => Some(Who::Person(format!("root of {}", text(user, "accountId")?))),
        "AssumedRole" => {
            let role = text(user, "sessionContext/sessionIssuer/userName");
            let session = first(user, &["arn", "principalId"])?;
            let session = session.rsplit(['/', ':']).next().unwrap_or_default().to_string();
            match (role, session.starts_with("i-")) {
                // The instance profile of a machine.
                (Some(role), true) => Some(Who::Service(format!("{role}/{session}"))),
                (Some(role), false) => Some(Who::Person(format!("{role}/{session}"))),
                (None, _) => named.map(Who::Person),
            }
        }
        _ => named.map(Who::Person),
    }
}

fn resource(record: &Value) -> Option<String> {
    let named = || {
        let parameters = at(record, "requestParameters")?;
        let name = first(parameters, &NAMING)?;
        // The object in a bucket.
        Some(text(parameters, "key").map_or(name.clone(), |key| format!("{name}/{key}")))
    };
    text(record, "resources/0/ARN").or_else(named)
}

fn outcome(record: &Value, error: Option<&str>) -> Outcome {
    let login = text(record, "responseElements/ConsoleLogin");
    match error {
        Some(code)
            if ["AccessDenied", "Unauthorized", "Forbidden"].iter().any(|d| code.contains(d)) =>
        {
            Outcome::Denied
        }
        Some(_) => Outcome::Failure,
        None if login.as_deref() == Some("Failure") => Outcome::Failure,
        None => Outcome::Success,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_tells_who_did_what_from_where_and_what_came_of_it() {
        let facts = map(&json!({
            "eventID": "e1", "eventName": "GetObject", "eventSource": "s3.amazonaws.com",
            "eventTime": "2026-11-22T07:00:00Z", "sourceIPAddress": "203.0.113.7", "userAgent": "aws-cli",
            "userIdentity": {"type": "IAMUser", "userName": "alice"},
            "requestParameters": {"bucketName": "invoices", "key": "2026.pdf"},
            "errorCode": "AccessDenied", "errorMessage": "no rights",
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("s3:GetObject", "invoices/2026.pdf")
        );
        assert_eq!((facts.outcome, facts.reason.as_deref()), (Outcome::Denied, Some("no rights")));
        assert_eq!(
            (facts.id.as_deref(), facts.address.as_deref()),
            (Some("e1"), Some("203.0.113.7"))
        );
    }

    #[test]
    fn whoever_acts_for_another_is_told_from_him() {
        let map = |identity: Value| {
            let record = json!({"eventName": "X", "eventSource": "iam.amazonaws.com",
                "userIdentity": identity, "requestParameters": {"userName": "bob"}});
            map(&record).unwrap()
        };
        let service = map(
            json!({"type": "IAMUser", "userName": "alice", "invokedBy": "health.amazonaws.com"}),
        );
        assert_eq!(service.who, Some(Who::Service("health.amazonaws.com".into())));
        assert_eq!(service.on_behalf_of, [Who::Person("alice".into())]);
        assert_eq!((service.resource.as_str(), service.target.as_deref()), ("users", Some("bob")));
        let role = |session: &str| {
            map(json!({"type": "AssumedRole",
            "arn": format!("arn:aws:sts::1:assumed-role/ops/{session}"),
            "sessionContext": {"sessionIssuer": {"userName": "ops"}}}))
        };
        assert_eq!(role("alice").who, Some(Who::Person("ops/alice".into())));
        assert_eq!(role("i-0123").who, Some(Who::Service("ops/i-0123".into())));
    }
}
