//! The file audit device of Vault: requests and responses.

use keyledger_proto::entry::Outcome;
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let kind = text(record, "type").ok_or("it has no type")?;
    let operation = text(record, "request/operation").ok_or("it has no operation")?;
    let path = text(record, "request/path").unwrap_or_default();
    let (resource, target) = resource(path);
    let error = first(record, &["error", "response/data/error"]);
    let name = first(record, &["auth/display_name", "auth/entity_id", "auth/accessor"]);
    Ok(Facts {
        // A request and its response share an id.
        id: text(record, "request/id").map(|id| format!("{id}/{kind}")),
        who: Some(Who::person_or(name, "vault")),
        action: format!("vault.{operation}.{kind}"),
        resource,
        target,
        outcome: match error.as_deref() {
            Some(error) if error.contains("permission denied") => Outcome::Denied,
            Some(_) => Outcome::Failure,
            // A request is written before anyone knows what will come of it.
            None if kind == "request" => Outcome::Unspecified,
            None => Outcome::Success,
        },
        reason: error,
        time: time(record, &["time"])?,
        address: text(record, "request/remote_address"),
        user_agent: text(record, "request/headers/user-agent/0"),
        details: vec![
            ("namespace", first(record, &["request/namespace/path", "request/namespace/id"])),
            ("token_kind", text(record, "auth/token_type")),
        ],
        ..Facts::default()
    })
}

/// Names of entities are names of persons; what is below `login` and `users` is hidden for all formats.
fn resource(path: String) -> (String, Option<String>) {
    for below in ["identity/entity/name/", "identity/entity-alias/name/"] {
        if path.starts_with(below) {
            return (below.trim_end_matches('/').into(), Some(path));
        }
    }
    (path, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_response_tells_who_read_what_and_a_request_leaves_the_outcome_open() {
        let entry = |kind: &str, error: &str| {
            map(&json!({
                "time": "2026-11-22T07:00:00.8408876Z", "type": kind, "error": error,
                "auth": {"display_name": "userpass-alice", "token_type": "service"},
                "request": {"id": "r1", "operation": "read", "path": "kv/data/shop", "remote_address": "203.0.113.7"},
            }))
            .unwrap()
        };
        let facts = entry("response", "");
        assert_eq!(facts.who, Some(Who::Person("userpass-alice".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("vault.read.response", "kv/data/shop")
        );
        assert_eq!((facts.outcome, facts.id.as_deref()), (Outcome::Success, Some("r1/response")));
        assert_eq!(entry("request", "").outcome, Outcome::Unspecified);
        let denied = entry("response", "1 error occurred: permission denied");
        assert_eq!(denied.outcome, Outcome::Denied);
        assert!(denied.reason.is_some());
    }

    #[test]
    fn an_entity_is_a_person() {
        let entry = json!({"type": "request", "request": {"operation": "read", "path": "identity/entity/name/bob"}});
        let facts = map(&entry).unwrap();
        assert_eq!(facts.resource, "identity/entity/name");
        assert_eq!(facts.target.as_deref(), Some("identity/entity/name/bob"));
        assert!(map(&json!({"type": "request"})).is_err());
    }
}
