//! OCSF 1.6.0: changes as Entity Management (3004), uses of keys as Authorize Session (3003), unusual use as Detection Finding
//! (2004), events of other services as API Activity (6003). Whatever OCSF has no attribute for stands in `unmapped`.

use keyledger_ledger::body::{AnomalyResponse, Decision, Kind, Outcome};
use serde_json::{Map, Value, json};

use super::csv::attribute_values;
use super::{Exporter, enum_word, event_json, place, put};
use crate::{Actor, AuditEvent, actor, owner, show};

/// Of the schema that this follows.
const VERSION: &str = "1.6.0";
const OTHER: u32 = 99;
const SUCCESS: u32 = 1;
const FAILURE: u32 = 2;

/// A class of events.
struct Class {
    uid: u32,
    name: &'static str,
    category_uid: u32,
    category: &'static str,
}

const ENTITY_MANAGEMENT: Class =
    Class { uid: 3004, name: "Entity Management", category_uid: 3, category: IAM };
const AUTHORIZE_SESSION: Class =
    Class { uid: 3003, name: "Authorize Session", category_uid: 3, category: IAM };
const API_ACTIVITY: Class =
    Class { uid: 6003, name: "API Activity", category_uid: 6, category: "Application Activity" };
const DETECTION_FINDING: Class =
    Class { uid: 2004, name: "Detection Finding", category_uid: 2, category: "Findings" };
const IAM: &str = "Identity & Access Management";

/// An event as an OCSF event.
pub fn of(exporter: &Exporter, event: &AuditEvent) -> Value {
    let mut object = match event.r#type.as_str() {
        "key.used" => authorize_session(event),
        "event.recorded" => api_activity(event),
        "anomaly.raised" | "anomaly.ended" | "anomaly.acknowledged" => detection_finding(event),
        _ => entity_management(event),
    };
    put(&mut object, "metadata", metadata(exporter, event));
    put(&mut object, "message", event.reason.as_str());
    put(&mut object, "unmapped", unmapped(event));
    json!(object)
}

fn entity_management(event: &AuditEvent) -> Map<String, Value> {
    let (activity, name) = change_activity(&event.r#type);
    let mut object = classified(&ENTITY_MANAGEMENT, activity, name);
    severity(&mut object, 1);
    status(&mut object, SUCCESS);
    put(&mut object, "time", millis(event.time));
    put(&mut object, "entity", entity(event));
    put(&mut object, "actor", caller(event));
    put(&mut object, "comment", event.reason.as_str());
    put_source(&mut object, event);
    object
}

/// The activity of a change, by its type. One that OCSF has no word for keeps its own.
fn change_activity(kind: &str) -> (u32, &str) {
    match kind {
        "key.created"
        | "key.imported"
        | "role.created"
        | "ledger.opened"
        | "ledger.registered"
        | "permissions.registered" => (1, "Create"),
        "key.updated"
        | "key.rotated"
        | "key.rotation-completed"
        | "key.verifier-migrated"
        | "role.updated"
        | "ledger.policy-updated" => (3, "Update"),
        "server.started" | "bounded.started" => (10, "Activate"),
        "key.revoked" | "key.expired" | "role.retired" | "bounded.ended" => (11, "Deactivate"),
        "key.suspended" => (12, "Suspend"),
        "key.resumed" => (13, "Resume"),
        other => (OTHER, other),
    }
}

/// What was changed.
fn entity(event: &AuditEvent) -> Value {
    let kind = event.body.as_ref().and_then(|body| body.kind.as_ref());
    let (sort, name) = match kind {
        _ if !event.key_id.is_empty() => ("Provisioning Key", ""),
        Some(Kind::RoleCreated(role)) => ("Role", role.name.as_str()),
        Some(Kind::RoleUpdated(role)) => ("Role", role.name.as_str()),
        Some(Kind::RoleRetired(role)) => ("Role", role.name.as_str()),
        Some(Kind::LedgerOpened(ledger)) => ("Ledger", ledger.name.as_str()),
        Some(Kind::LedgerRegistered(ledger)) => ("Ledger", ledger.name.as_str()),
        Some(Kind::PermissionsRegistered(registered)) => {
            ("Permissions", registered.prefix.as_str())
        }
        Some(Kind::ServerStarted(_)) => ("Server", "Keyledger"),
        _ => ("Ledger", event.r#type.as_str()),
    };
    let mut entity = Map::new();
    put(&mut entity, "type", sort);
    put(&mut entity, "type_id", OTHER);
    put(&mut entity, "name", name);
    put(&mut entity, "uid", event.key_id.as_str());
    entity.into()
}

fn authorize_session(event: &AuditEvent) -> Map<String, Value> {
    let mut object = classified(&AUTHORIZE_SESSION, 1, "Assign Privileges");
    let allowed = event.decision == Decision::Allow as i32;
    severity(&mut object, if allowed { 1 } else { 2 });
    status(&mut object, if allowed { SUCCESS } else { FAILURE });
    put(
        &mut object,
        "status_code",
        enum_word("keyledger.entry.v1.DecisionReason", event.decision_reason),
    );
    // What a service answered by itself is its word, and no verdict.
    let reported = event.reported.as_ref().map(|reported| match reported.doubts.is_empty() {
        true => "reported by the actor",
        false => "reported by the actor, doubtful",
    });
    put(&mut object, "status_detail", reported);
    put(&mut object, "time", millis(event.occur_time.or(event.time)));
    let user = match event.key_id.as_str() {
        "" => json!({ "name": "Unknown", "type_id": 0, "type": "Unknown" }),
        id => key_user(id),
    };
    put(&mut object, "user", user);
    let privilege = match event.permission.as_str() {
        "" => event.method.clone(),
        permission => format!("{permission} on {}", event.resource),
    };
    put(&mut object, "privileges", json!([privilege]));
    let asked_for_itself = event.caller_key_id.is_empty() && !event.key_id.is_empty();
    let asker = if asked_for_itself { &event.key_id } else { &event.caller_key_id };
    if !asker.is_empty() {
        put(&mut object, "actor", json!({ "user": key_user(asker) }));
    }
    put(&mut object, "count", (event.count > 1).then_some(event.count));
    put_source(&mut object, event);
    object
}

/// What was noticed, and what became of it: one finding, by the position at which it was raised.
fn detection_finding(event: &AuditEvent) -> Map<String, Value> {
    let facts = event.anomaly.clone().unwrap_or_default();
    let (activity, name, state) = match event.r#type.as_str() {
        "anomaly.raised" => (1, "Create", (1, "New")),
        "anomaly.ended" => (3, "Close", (4, "Resolved")),
        _ => (2, "Update", (2, "In Progress")),
    };
    let mut object = classified(&DETECTION_FINDING, activity, name);
    let suspends = facts.response() == AnomalyResponse::Suspend;
    severity(&mut object, if suspends { 4 } else { 3 });
    put(&mut object, "status_id", state.0);
    put(&mut object, "status", state.1);
    put(&mut object, "time", millis(event.time));
    let rule = enum_word("keyledger.entry.v1.MonitoringRule", facts.rule);
    let mut finding = Map::new();
    put(&mut finding, "uid", facts.position.unwrap_or_default().to_string());
    put(&mut finding, "title", if rule.is_empty() { "anomaly" } else { &rule });
    put(&mut finding, "types", json!([if rule.is_empty() { "anomaly" } else { &rule }]));
    put(&mut finding, "first_seen_time", millis(facts.first_time));
    put(&mut finding, "last_seen_time", millis(facts.last_time));
    put(&mut object, "finding_info", finding);
    put(&mut object, "start_time", millis(facts.first_time));
    put(&mut object, "end_time", millis(facts.last_time));
    put(&mut object, "count", (facts.occurrences > 1).then_some(facts.occurrences));
    put(&mut object, "comment", event.reason.as_str());
    let mut evidence = Map::new();
    if !facts.network.is_empty() {
        // A network is no address: it has no `ip`.
        put(&mut evidence, "src_endpoint", json!({ "subnet_uid": facts.network }));
    }
    if !event.key_id.is_empty() {
        put(&mut evidence, "actor", json!({ "user": key_user(&event.key_id) }));
    }
    if !evidence.is_empty() {
        put(&mut object, "evidences", json!([evidence]));
    }
    object
}

fn api_activity(event: &AuditEvent) -> Map<String, Value> {
    let mut object = classified(&API_ACTIVITY, OTHER, &event.action);
    severity(&mut object, event.severity.max(0) as u32);
    match Outcome::try_from(event.outcome) {
        Ok(Outcome::Success) => status(&mut object, SUCCESS),
        Ok(Outcome::Failure | Outcome::Denied) => status(&mut object, FAILURE),
        _ => status(&mut object, 0),
    }
    put(&mut object, "status_detail", enum_word("keyledger.entry.v1.Outcome", event.outcome));
    put(&mut object, "time", millis(event.occur_time.or(event.time)));
    put(&mut object, "actor", event.actor.as_ref().map(claimed).unwrap_or_else(|| caller(event)));
    put(&mut object, "api", json!({ "operation": event.action }));
    if !event.resource.is_empty() {
        let target = json!({ "name": event.resource, "role_id": 1, "role": "Target" });
        put(&mut object, "resources", json!([target]));
    }
    put_source(&mut object, event);
    // The class requires it, also where nobody said from where.
    object.entry("src_endpoint").or_insert_with(|| json!({ "name": "Unknown" }));
    if !event.trace_id.is_empty() {
        put(&mut object, "trace", json!({ "uid": event.trace_id }));
    }
    object
}

/// Class, category, activity and type, each by number and name.
fn classified(class: &Class, activity: u32, name: &str) -> Map<String, Value> {
    let mut object = Map::new();
    put(&mut object, "class_uid", class.uid);
    put(&mut object, "class_name", class.name);
    put(&mut object, "category_uid", class.category_uid);
    put(&mut object, "category_name", class.category);
    put(&mut object, "activity_id", activity);
    put(&mut object, "activity_name", name);
    put(&mut object, "type_uid", class.uid * 100 + activity);
    put(&mut object, "type_name", format!("{}: {name}", class.name));
    object
}

fn severity(object: &mut Map<String, Value>, id: u32) {
    const NAMES: [&str; 7] =
        ["Unknown", "Informational", "Low", "Medium", "High", "Critical", "Fatal"];
    let known = NAMES.get(id as usize);
    put(object, "severity_id", if known.is_some() { id } else { OTHER });
    put(object, "severity", *known.unwrap_or(&"Other"));
}

fn status(object: &mut Map<String, Value>, id: u32) {
    put(object, "status_id", id);
    put(object, "status", ["Unknown", "Success", "Failure"][id as usize]);
}

fn metadata(exporter: &Exporter, event: &AuditEvent) -> Value {
    let product =
        json!({ "name": "Keyledger", "vendor_name": "Keyledger", "version": exporter.version });
    let mut metadata = Map::new();
    put(&mut metadata, "version", VERSION);
    put(&mut metadata, "product", product);
    put(&mut metadata, "uid", place(event));
    put(&mut metadata, "tenant_uid", exporter.ledger_id.as_str());
    put(&mut metadata, "log_provider", exporter.origin.as_str());
    put(&mut metadata, "log_name", event.category.as_str());
    put(&mut metadata, "event_code", event.r#type.as_str());
    put(&mut metadata, "correlation_uid", event.trace_id.as_str());
    put(&mut metadata, "logged_time", millis(event.time));
    if event.r#type == "event.recorded" && !event.trace_id.is_empty() {
        put(&mut metadata, "profiles", json!(["trace"]));
    }
    metadata.into()
}

/// A key as OCSF's user: what acts is the key, not the person it belongs to.
fn key_user(key_id: &str) -> Value {
    json!({ "uid": key_id, "credential_uid": key_id, "type_id": OTHER, "type": "Provisioning Key" })
}

/// The key that called, or Keyledger itself.
fn caller(event: &AuditEvent) -> Value {
    match event.caller_key_id.as_str() {
        "" => json!({ "app_name": "Keyledger" }),
        id => json!({ "user": key_user(id) }),
    }
}

/// Who is said to have acted.
fn claimed(actor: &Actor) -> Value {
    match &actor.actor {
        Some(actor::Actor::Service(name)) => json!({ "app_name": name }),
        Some(actor::Actor::User(name)) if !name.is_empty() => {
            json!({ "user": { "name": name, "type_id": 1, "type": "User" } })
        }
        _ => json!({ "user": { "name": "(erased)", "type_id": 1, "type": "User" } }),
    }
}

/// Address, device and user agent, where they are known.
fn put_source(object: &mut Map<String, Value>, event: &AuditEvent) {
    let mut endpoint = Map::new();
    put(&mut endpoint, "ip", event.address.as_str());
    put(&mut endpoint, "name", event.device.as_str());
    if !endpoint.is_empty() {
        put(object, "src_endpoint", endpoint);
    }
    if !event.user_agent.is_empty() {
        put(object, "http_request", json!({ "user_agent": event.user_agent }));
    }
}

fn unmapped(event: &AuditEvent) -> Value {
    let mut object = Map::new();
    put(&mut object, "position", event.position);
    put(&mut object, "index", event.index);
    put(&mut object, "leaf_hash", show::hex(&event.leaf_hash));
    put(&mut object, "span_id", event.span_id.as_str());
    put(&mut object, "approval_ref", event.approval_ref.as_str());
    put(&mut object, "purpose", event.purpose.as_str());
    match event.owner.as_ref().and_then(|o| o.owner.as_ref()) {
        Some(owner::Owner::User(name)) => put(&mut object, "owner_user", name.as_str()),
        Some(owner::Owner::Service(name)) => put(&mut object, "owner_service", name.as_str()),
        None => {}
    }
    put(&mut object, "method", event.method.as_str());
    put(&mut object, "key_version", (event.key_version != 0).then_some(event.key_version));
    put(&mut object, "returned", event.returned);
    put(&mut object, "asked", event.asked.as_str());
    if event.anomaly.is_some() {
        put(&mut object, "anomaly", event_json(event)["anomaly"].clone());
        put(&mut object, "permission", event.permission.as_str());
        put(&mut object, "resource", event.resource.as_str());
    }
    let recorded = event.r#type == "event.recorded";
    if recorded {
        put(&mut object, "recorded_by", event.caller_key_id.as_str());
    } else if let Some(person) = event.actor.as_ref().filter(|_| event.r#type == "key.used") {
        put(&mut object, "searched_for", claimed(person));
    }
    if !event.on_behalf_of.is_empty() {
        let behalf: Vec<Value> = event.on_behalf_of.iter().map(claimed).collect();
        put(&mut object, "on_behalf_of", behalf);
    }
    let attributes = attribute_values(event);
    if !attributes.is_empty() {
        put(&mut object, "attributes", attributes);
    }
    if event.body.is_some() && !recorded {
        put(&mut object, "body", event_json(event)["body"].clone());
    }
    object.into()
}

fn millis(time: Option<prost_types::Timestamp>) -> Value {
    time.map_or(Value::Null, |t| (t.seconds * 1_000 + i64::from(t.nanos) / 1_000_000).into())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn mapped(event: &AuditEvent) -> Value {
        of(&sample::exporter(), event)
    }

    #[test]
    fn every_event_has_what_its_class_requires() {
        for event in sample::all() {
            let event = mapped(&event);
            for name in ["class_uid", "category_uid", "activity_id", "type_uid", "severity_id"] {
                assert!(event[name].is_u64(), "{name} of {event}");
            }
            assert!(event["time"].is_i64());
            let (class, activity) =
                (event["class_uid"].as_u64().unwrap(), event["activity_id"].as_u64().unwrap());
            assert_eq!(event["type_uid"], class * 100 + activity);
            assert_eq!(event["category_uid"], class / 1000);
            assert_eq!(event["metadata"]["version"], "1.6.0");
            assert_eq!(event["metadata"]["product"]["name"], "Keyledger");
            let required: &[&str] = match class {
                2004 => &["finding_info", "status_id"],
                3004 => &["entity"],
                3003 => &["user", "privileges"],
                6003 => &["actor", "api", "src_endpoint"],
                other => panic!("{other}"),
            };
            assert!(required.iter().all(|name| !event[*name].is_null()), "{event}");
            // Of privileges and group an Authorize Session has just one.
            assert!(event["group"].is_null());
        }
    }

    #[test]
    fn a_change_is_entity_management() {
        let revoked = mapped(&sample::change());
        assert_eq!(revoked["type_uid"], 300_411);
        assert_eq!(revoked["entity"]["uid"], "0198c5a0-0000-8000-8000-000000000002");
        assert_eq!(revoked["actor"]["user"]["uid"], "0198c5a0-0000-8000-8000-000000000001");
        assert_eq!(
            (&revoked["comment"], &revoked["status_id"]),
            (&json!("ticket 4711"), &json!(1))
        );
        assert_eq!(revoked["time"], 1_790_000_000_123_i64);
        assert_eq!(revoked["src_endpoint"]["ip"], "203.0.113.9");
        let role = mapped(&sample::of_a_role());
        assert_eq!(
            (&role["activity_name"], &role["entity"]["name"]),
            (&json!("Create"), &json!("ops"))
        );
        assert_eq!(role["actor"]["app_name"], "Keyledger");
        let new = AuditEvent { r#type: "notice.delivered".into(), ..sample::of_a_role() };
        assert_eq!(mapped(&new)["type_uid"], 300_499);
        assert_eq!(mapped(&new)["activity_name"], "notice.delivered");
    }

    #[test]
    fn unusual_use_is_a_detection_finding() {
        let raised = mapped(&sample::anomaly());
        assert_eq!((&raised["type_uid"], &raised["status"]), (&json!(200_401), &json!("New")));
        assert_eq!(raised["finding_info"]["uid"], "17");
        assert_eq!(raised["finding_info"]["title"], "forbidden");
        assert_eq!((&raised["count"], &raised["severity_id"]), (&json!(3), &json!(4)));
        let evidence = &raised["evidences"][0];
        assert_eq!(evidence["actor"]["user"]["uid"], "0198c5a0-0000-8000-8000-000000000002");
        assert_eq!(evidence["src_endpoint"]["subnet_uid"], "192.0.2.0/24");
        assert_eq!(raised["unmapped"]["resource"], "logs/error");
        let ended = AuditEvent { r#type: "anomaly.ended".into(), ..sample::anomaly() };
        assert_eq!(mapped(&ended)["type_uid"], 200_403);
        let seen = AuditEvent { r#type: "anomaly.acknowledged".into(), ..sample::anomaly() };
        assert_eq!(mapped(&seen)["status"], "In Progress");
    }

    #[test]
    fn a_use_is_authorize_session() {
        let used = mapped(&sample::a_use());
        assert_eq!(used["type_uid"], 300_301);
        assert_eq!(used["user"]["uid"], "0198c5a0-0000-8000-8000-000000000002");
        assert_eq!(used["privileges"], json!(["audit.read on logs/error"]));
        assert_eq!(
            (&used["status"], &used["status_code"]),
            (&json!("Failure"), &json!("no_grant"))
        );
        assert_eq!((&used["count"], &used["unmapped"]["index"]), (&json!(4), &json!(3)));
        let unknown = AuditEvent {
            key_id: String::new(),
            permission: String::new(),
            caller_key_id: String::new(),
            ..sample::a_use()
        };
        let unknown = mapped(&unknown);
        assert_eq!(unknown["user"]["name"], "Unknown");
        assert_eq!(unknown["privileges"], json!(["KeyService/VerifyKey"]));
    }

    #[test]
    fn what_others_recorded_is_api_activity() {
        let event = mapped(&sample::recorded());
        assert_eq!(event["type_uid"], 600_399);
        assert_eq!(event["api"]["operation"], "user.session.start");
        assert_eq!(event["actor"]["user"]["name"], "alice@example.com");
        assert_eq!((&event["status_id"], &event["severity_id"]), (&json!(2), &json!(3)));
        assert_eq!(event["time"], 1_789_999_999_000_i64);
        assert_eq!(event["metadata"]["logged_time"], 1_790_000_000_123_i64);
        assert_eq!(event["resources"][0]["name"], "portal/web");
        assert_eq!(event["unmapped"]["attributes"]["rows"], 17);
        assert_eq!(event["unmapped"]["on_behalf_of"][0]["app_name"], "batch");
        let unsaid = AuditEvent {
            address: String::new(),
            device: String::new(),
            outcome: 0,
            severity: 0,
            ..sample::recorded()
        };
        let unsaid = mapped(&unsaid);
        assert_eq!(unsaid["src_endpoint"]["name"], "Unknown");
        assert_eq!((&unsaid["status_id"], &unsaid["severity_id"]), (&json!(0), &json!(0)));
    }
}
