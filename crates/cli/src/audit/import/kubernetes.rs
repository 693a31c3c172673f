//! Kubernetes audit events (`audit.k8s.io/v1`, and the older shapes).

use keyledger_proto::entry::Outcome;
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{at, first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let verb = text(record, "verb").ok_or("it has no verb")?;
    let stage = text(record, "stage");
    let user = first(record, &["user/username", "user/uid"]).map(who);
    let impersonated = text(record, "impersonatedUser/username").map(who);
    let (resource, target) = resource(record);
    let id = text(record, "auditID");
    Ok(Facts {
        // One request makes an event in each of its stages.
        id: id.map(|id| format!("{id}/{}", stage.as_deref().unwrap_or_default())),
        who: Some(user.unwrap_or_else(|| Who::Service("kubernetes".into()))),
        on_behalf_of: impersonated.into_iter().collect(),
        action: format!("kubernetes.{verb}"),
        resource,
        target,
        outcome: outcome(record),
        reason: text(record, "responseStatus/message")
            .or_else(|| annotation(record, "authorization.k8s.io/reason")),
        time: time(record, &["requestReceivedTimestamp", "timestamp", "stageTimestamp"])?,
        address: text(record, "sourceIPs/0"),
        user_agent: text(record, "userAgent"),
        details: vec![
            ("stage", stage),
            ("code", text(record, "responseStatus/code")),
            ("failure", text(record, "responseStatus/reason")),
        ],
        ..Facts::default()
    })
}

/// A name that holds a slash is no path.
fn annotation(record: &Value, name: &str) -> Option<String> {
    let text = at(record, "annotations")?.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.into())
}

/// What the cluster itself runs as is a service; all others may be persons.
fn who(name: String) -> Who {
    match name.starts_with("system:") {
        true => Who::Service(name),
        false => Who::Person(name),
    }
}

/// `namespaces/shop/pods/web/log`, or the path of the request. An object that is a person stands in the target.
fn resource(record: &Value) -> (String, Option<String>) {
    let Some(kind) = text(record, "objectRef/resource") else {
        let path = text(record, "requestURI").unwrap_or_default();
        return (path.split('?').next().unwrap_or_default().into(), None);
    };
    let name = text(record, "objectRef/name");
    let person = matches!(kind.as_str(), "users" | "identities" | "useridentitymappings");
    let namespace = text(record, "objectRef/namespace").filter(|_| kind != "namespaces");
    let mut parts: Vec<String> = vec![];
    parts.extend(namespace.map(|namespace| format!("namespaces/{namespace}")));
    parts.push(kind);
    parts.extend(name.clone().filter(|_| !person));
    parts.extend(text(record, "objectRef/subresource"));
    (parts.join("/"), name.filter(|_| person))
}

fn outcome(record: &Value) -> Outcome {
    if annotation(record, "authorization.k8s.io/decision").as_deref() == Some("forbid") {
        return Outcome::Denied;
    }
    match text(record, "responseStatus/code").and_then(|code| code.parse::<u32>().ok()) {
        Some(401 | 403) => Outcome::Denied,
        Some(400..) => Outcome::Failure,
        Some(_) => Outcome::Success,
        None => Outcome::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_tells_who_did_what_to_which_object_and_for_whom() {
        let facts = map(&json!({
            "auditID": "a1", "stage": "ResponseComplete", "verb": "delete",
            "user": {"username": "alice"}, "impersonatedUser": {"username": "system:serviceaccount:shop:web"},
            "sourceIPs": ["203.0.113.7"], "userAgent": "kubectl",
            "objectRef": {"resource": "pods", "namespace": "shop", "name": "web", "subresource": "log"},
            "responseStatus": {"code": 403, "reason": "Forbidden", "message": "no rights"},
            "requestReceivedTimestamp": "2026-11-22T07:00:00.5Z",
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice".into())));
        assert_eq!(facts.on_behalf_of, [Who::Service("system:serviceaccount:shop:web".into())]);
        assert_eq!(facts.action, "kubernetes.delete");
        assert_eq!(facts.resource, "namespaces/shop/pods/web/log");
        assert_eq!((facts.outcome, facts.reason.as_deref()), (Outcome::Denied, Some("no rights")));
        assert_eq!(facts.id.as_deref(), Some("a1/ResponseComplete"));
    }

    #[test]
    fn a_user_is_a_target_and_a_path_has_no_query() {
        let user = json!({"verb": "get", "objectRef": {"resource": "users", "name": "bob"}});
        let facts = map(&user).unwrap();
        assert_eq!((facts.resource.as_str(), facts.target.as_deref()), ("users", Some("bob")));
        let path = map(&json!({"verb": "get", "requestURI": "/apis?timeout=32s",
            "annotations": {"authorization.k8s.io/reason": "RBAC"}}));
        let path = path.unwrap();
        assert_eq!((path.resource.as_str(), path.reason.as_deref()), ("/apis", Some("RBAC")));
        assert!(map(&json!({"auditID": "a1"})).is_err());
    }
}
