//! OCSF events, 1.0 and later.

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let class = first(record, &["class_name", "class_uid"]).ok_or("it has no class")?;
    let activity = first(record, &["activity_name", "activity_id"]).unwrap_or_default();
    let operation = text(record, "api/operation");
    let product = first(record, &["metadata/product/name", "metadata/product/vendor_name"]);
    let product = product.unwrap_or_else(|| "ocsf".into());
    let person = first(record, &["actor/user/name", "actor/user/uid", "actor/user/email_addr"]);
    let invoked_by = text(record, "actor/invoked_by");
    let machine = person.as_deref().is_some_and(|name| name.starts_with("system:"));
    let who = match person {
        Some(name) if machine => Who::Service(name),
        name => Who::person_or(name, &product),
    };
    let (who, on_behalf_of) = match invoked_by {
        Some(service) => (Who::Service(service), vec![who]),
        None => (who, vec![]),
    };
    // In an account's change, `user` is the one who was changed.
    let target = first(record, &["user/name", "user/uid", "user/email_addr"]);
    let resource = resource(record, target.is_some());
    Ok(Facts {
        id: text(record, "metadata/uid"),
        who: Some(who),
        on_behalf_of,
        action: operation.unwrap_or_else(|| format!("{class}: {activity}")),
        resource: resource.unwrap_or(product),
        target,
        outcome: outcome(record),
        reason: first(
            record,
            &[
                "status_detail",
                "status_details/0",
                "api/response/message",
                "message",
                "finding/title",
            ],
        ),
        severity: severity(record),
        time: time(record, &["time", "time_dt"])?,
        address: first(
            record,
            &["src_endpoint/ip", "src_endpoint/hostname", "src_endpoint/domain"],
        ),
        user_agent: text(record, "http_request/user_agent"),
        device: first(record, &["device/name", "device/hostname", "src_endpoint/instance_uid"]),
        trace: text(record, "metadata/trace_uid"),
        details: vec![
            ("class", Some(class)),
            ("activity", Some(activity)),
            ("error_code", text(record, "api/response/error")),
        ],
        ..Facts::default()
    })
}

fn resource(record: &Value, person: bool) -> Option<String> {
    let typed = text(record, "resources/0/type")
        .zip(first(record, &["resources/0/uid", "resources/0/name"]))
        .map(|(kind, id)| format!("{kind}/{id}"));
    let host = || first(record, &["query/hostname", "dst_endpoint/ip", "dst_endpoint/hostname"]);
    let path = || first(record, &["http_request/url/path", "api/service/name"]);
    if person { Some("users".into()) } else { typed.or_else(host).or_else(path) }
}

fn outcome(record: &Value) -> Outcome {
    let code = text(record, "api/response/error").unwrap_or_default();
    let blocked = text(record, "disposition").is_some_and(|d| d == "Blocked");
    match text(record, "status_id").as_deref() {
        _ if blocked || ["AccessDenied", "Unauthorized"].iter().any(|c| code.contains(c)) => {
            Outcome::Denied
        }
        Some("1") => Outcome::Success,
        Some("2") => Outcome::Failure,
        _ => http_outcome(record),
    }
}

fn http_outcome(record: &Value) -> Outcome {
    let code = first(record, &["api/response/code", "http_response/code"]);
    match code.and_then(|code| code.parse::<u32>().ok()) {
        Some(401 | 403) => Outcome::Denied,
        Some(400..) => Outcome::Failure,
        Some(200..) => Outcome::Success,
        _ => Outcome::Unspecified,
    }
}

fn severity(record: &Value) -> Severity {
    let id = text(record, "severity_id").and_then(|id| id.parse::<i32>().ok());
    id.and_then(|id| Severity::try_from(id).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_api_activity_tells_who_called_what_and_what_came_of_it() {
        let facts = map(&json!({
            "class_name": "API Activity", "class_uid": 6003, "activity_name": "Delete", "severity_id": 3,
            "status_id": 2, "status_detail": "no rights", "time": 1795330800123_u64,
            "metadata": {"uid": "o1", "product": {"name": "Shop"}},
            "actor": {"user": {"name": "alice"}, "invoked_by": "batch"},
            "api": {"operation": "DeleteInvoice", "response": {"error": "AccessDenied"}},
            "resources": [{"type": "invoice", "uid": "4711"}], "src_endpoint": {"ip": "203.0.113.7"},
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Service("batch".into())));
        assert_eq!(facts.on_behalf_of, [Who::Person("alice".into())]);
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("DeleteInvoice", "invoice/4711")
        );
        assert_eq!((facts.outcome, facts.severity), (Outcome::Denied, Severity::Medium));
        assert_eq!(facts.reason.as_deref(), Some("no rights"));
        assert_eq!(facts.time.unwrap().to_string(), "2026-11-22T07:00:00.123Z");
    }

    #[test]
    fn an_account_that_is_changed_is_a_target_and_a_product_acts_where_nobody_is_named() {
        let facts = map(&json!({"class_name": "Account Change", "activity_name": "Create",
            "user": {"name": "bob"}, "metadata": {"product": {"name": "Shop"}}, "status_id": 1}));
        let facts = facts.unwrap();
        assert_eq!((facts.resource.as_str(), facts.target.as_deref()), ("users", Some("bob")));
        assert_eq!(
            (facts.who, facts.outcome),
            (Some(Who::Service("Shop".into())), Outcome::Success)
        );
        assert_eq!(facts.action, "Account Change: Create");
        assert!(map(&json!({"time": 1})).is_err());
    }
}
