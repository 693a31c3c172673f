//! Teleport's audit events.

use keyledger_proto::entry::{Outcome, Severity};
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{first, text, time};

/// What an event is about, and the kind of thing that it is; the most telling first.
const NAMING: [(&str, &str); 10] = [
    ("db_service", "databases"),
    ("kubernetes_cluster", "kubernetes"),
    ("app_name", "apps"),
    ("desktop_addr", "desktops"),
    ("server_hostname", "nodes"),
    ("instance_id", "instances"),
    ("server_id", "nodes"),
    ("token_name", "tokens"),
    ("node_name", "nodes"),
    ("cluster_name", "clusters"),
];

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let action = text(record, "event").ok_or("it has no event")?;
    let code = text(record, "code").unwrap_or_default();
    let named = text(record, "name");
    let about_user = action.starts_with("user.") && named.is_some();
    let found = NAMING
        .iter()
        .find_map(|(field, kind)| text(record, field).map(|name| format!("{kind}/{name}")));
    let kind = action.split('.').next().unwrap_or_default().to_string();
    let resource = match (about_user, &named) {
        (true, _) => "users".into(),
        // The thing that was made, changed or deleted; its name may be that of a login.
        (false, Some(_)) => kind,
        (false, None) => found.unwrap_or(kind),
    };
    // The impersonator acted, as the user.
    let (who, on_behalf_of) = match text(record, "impersonator") {
        Some(person) => (Who::Person(person), vec![who(record)]),
        None => (who(record), vec![]),
    };
    Ok(Facts {
        id: text(record, "uid"),
        who: Some(who),
        on_behalf_of,
        action,
        resource,
        target: named
            .or_else(|| first(record, &["login", "db_user", "windows_user", "identity/user"])),
        outcome: outcome(record, &code),
        reason: first(record, &["reason", "error", "message", "status_message"]),
        severity: match code.chars().last() {
            Some('I') => Severity::Informational,
            Some('W') => Severity::Medium,
            Some('E') => Severity::High,
            _ => Severity::Unspecified,
        },
        time: time(record, &["time"])?,
        address: first(record, &["addr.remote", "client_ip", "src_addr"]),
        user_agent: text(record, "user_agent"),
        device: first(record, &["device/device_id", "trusted_device/device_id", "mfa_device_name"]),
        details: vec![("code", Some(code)), ("session", text(record, "sid"))],
        ..Facts::default()
    })
}

fn who(record: &Value) -> Who {
    // An impersonated user acts by the hand of its impersonator.
    let person = first(record, &["user", "user/user", "updated_by", "identity/user"]);
    match text(record, "user_kind").as_deref() {
        Some("2") => Who::Service(person.unwrap_or_else(|| "teleport".into())),
        _ => Who::person_or(person, "teleport"),
    }
}

/// `success` says it, else the last letter of the code: information, warning, error.
fn outcome(record: &Value, code: &str) -> Outcome {
    let denied = ["access denied", "not allowed", "permission"];
    let error = text(record, "error").unwrap_or_default();
    match first(record, &["success", "status/success"]).as_deref() {
        _ if denied.iter().any(|words| error.contains(words)) => Outcome::Denied,
        Some("false") => Outcome::Failure,
        Some(_) => Outcome::Success,
        None if text(record, "state").as_deref() == Some("DENIED") => Outcome::Denied,
        None if code.ends_with(['W', 'E']) => Outcome::Failure,
        None => Outcome::Success,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_login_tells_who_came_from_where_and_what_came_of_it() {
        let facts = map(&json!({
            "uid": "t1", "event": "user.login", "code": "T1000W", "user": "alice", "success": false,
            "error": "bad one-time code", "addr.remote": "203.0.113.7:3022", "time": "2026-11-22T07:00:00Z",
            "cluster_name": "main",
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice".into())));
        assert_eq!(
            (facts.action.as_str(), facts.resource.as_str()),
            ("user.login", "clusters/main")
        );
        assert_eq!((facts.outcome, facts.severity), (Outcome::Failure, Severity::Medium));
        assert_eq!(facts.reason.as_deref(), Some("bad one-time code"));
        assert_eq!(facts.address.as_deref(), Some("203.0.113.7:3022"));
    }

    #[test]
    fn whoever_is_changed_is_a_target_and_an_impersonator_acts_for_the_user() {
        let facts =
            map(&json!({"event": "user.delete", "code": "T1004I", "user": "alice", "name": "bob",
            "impersonator": "carol"}));
        let facts = facts.unwrap();
        assert_eq!((facts.resource.as_str(), facts.target.as_deref()), ("users", Some("bob")));
        assert_eq!(facts.who, Some(Who::Person("carol".into())));
        assert_eq!(facts.on_behalf_of, [Who::Person("alice".into())]);
        let query =
            map(&json!({"event": "db.session.query", "db_service": "shop", "db_user": "dba"}));
        let query = query.unwrap();
        assert_eq!(
            (query.resource.as_str(), query.target.as_deref()),
            ("databases/shop", Some("dba"))
        );
        assert!(map(&json!({"user": "alice"})).is_err());
    }
}
