//! GitHub's audit log of an organisation or enterprise.

use keyledger_proto::entry::Outcome;
use serde_json::Value;

use super::facts::{Facts, Unmapped, Who};
use super::record::{first, text, time};

pub(super) fn map(record: &Value) -> Result<Facts, Unmapped> {
    let action = text(record, "action").ok_or("it has no action")?;
    let organisation = first(record, &["org", "org/0", "business"]);
    let person = text(record, "user").or_else(|| text(record, "invitee"));
    let (resource, owner) = resource(record, organisation.as_deref());
    let actor = first(record, &["actor", "actor_id"]);
    let robot = text(record, "actor_is_bot").as_deref() == Some("true")
        || actor.as_deref().is_some_and(|name| name.ends_with("[bot]"));
    let who = match actor {
        Some(name) if robot => Who::Service(name),
        name => Who::person_or(name, "github"),
    };
    Ok(Facts {
        id: text(record, "_document_id"),
        who: Some(who),
        action,
        resource,
        target: person.or(owner),
        outcome: outcome(record),
        reason: first(record, &["reason", "message", "explanation"]),
        time: time(record, &["@timestamp", "created_at", "at_sign_timestamp", "timestamp"])?,
        address: text(record, "actor_ip"),
        user_agent: text(record, "user_agent"),
        details: vec![
            ("organisation", organisation),
            ("operation", text(record, "operation_type")),
            ("request_id", text(record, "request_id")),
        ],
        ..Facts::default()
    })
}

/// A repository of the organisation stands in the clear; one below another owner may be a person's.
fn resource(record: &Value, organisation: Option<&str>) -> (String, Option<String>) {
    let inside = |path: &str| {
        organisation.is_none_or(|o| path.split('/').next() == Some(o)) && path.contains('/')
    };
    match first(record, &["repo", "repository", "repo/0"]) {
        Some(repo) if organisation.is_some() && inside(&repo) => (format!("repos/{repo}"), None),
        Some(repo) => ("repos".into(), Some(repo)),
        None => match (first(record, &["team", "data/team"]), organisation) {
            (Some(team), _) => (format!("teams/{team}"), None),
            (None, Some(organisation)) => (format!("orgs/{organisation}"), None),
            (None, None) => ("github".into(), None),
        },
    }
}

/// The log holds what was done; a run says how it ended.
fn outcome(record: &Value) -> Outcome {
    match text(record, "conclusion").as_deref() {
        Some("failure" | "timed_out" | "startup_failure" | "cancelled") => Outcome::Failure,
        _ => Outcome::Success,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_action_tells_who_did_what_to_whom_and_where() {
        let facts = map(&json!({
            "_document_id": "d1", "action": "repo.add_member", "actor": "alice", "user": "bob", "org": "acme",
            "repo": "acme/shop", "created_at": 1795330800123_u64, "actor_ip": "203.0.113.7", "user_agent": "git",
        }))
        .unwrap();
        assert_eq!(facts.who, Some(Who::Person("alice".into())));
        assert_eq!(
            (facts.resource.as_str(), facts.target.as_deref()),
            ("repos/acme/shop", Some("bob"))
        );
        assert_eq!(facts.outcome, Outcome::Success);
        assert_eq!(facts.time.unwrap().to_string(), "2026-11-22T07:00:00.123Z");
        assert_eq!(facts.address.as_deref(), Some("203.0.113.7"));
    }

    #[test]
    fn a_robot_is_a_service_and_the_repository_of_a_person_is_a_target() {
        let facts =
            map(&json!({"action": "workflows.completed_workflow_run", "actor": "dependabot[bot]",
            "conclusion": "failure", "repo": "carol/notes", "org": "acme"}));
        let facts = facts.unwrap();
        assert_eq!(facts.who, Some(Who::Service("dependabot[bot]".into())));
        assert_eq!(
            (facts.resource.as_str(), facts.target.as_deref()),
            ("repos", Some("carol/notes"))
        );
        assert_eq!(facts.outcome, Outcome::Failure);
        assert!(map(&json!({"actor": "alice"})).is_err());
    }
}
