//! Requests as scenarios begin with them; they change what they are about.

use keyledger_ledger::imported::Argon2id;
use keyledger_proto::entry::Grant;
use keyledger_proto::{
    Actor, Argon2idHash, Client, CreateKeyRequest, CreateRoleRequest, EventClient,
    ImportKeysRequest, KeyToImport, LedgerPolicy, NewEvent, NewPermission, Owner,
    PermissionOnResource, RecordEventsRequest, RegisterPermissionsRequest, ResumeKeyRequest,
    RetireRoleRequest, RevokeKeyRequest, RotateKeyRequest, SetOwnerStatusRequest,
    SuspendKeyRequest, TestPermissionsRequest, UpdateKeyRequest, UpdateLedgerPolicyRequest,
    UpdateRoleRequest, VerifyKeyRequest, actor, create_key_request, key_to_import, owner,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost_types::Duration;
use sha2::{Digest, Sha256};

use super::replica::Replica;

pub(crate) fn grant(permission: &str, resource: &str) -> Grant {
    grant_of(&[permission], resource)
}

pub(crate) fn grant_of(permissions: &[&str], resource: &str) -> Grant {
    let permissions = permissions.iter().map(|p| p.to_string()).collect();
    Grant { permissions, resource: resource.into(), give_only: false }
}

pub(crate) fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

/// A key for a person: `audit.read` on `logs/error`, for an hour.
pub(crate) fn user_key(name: &str) -> CreateKeyRequest {
    CreateKeyRequest {
        owner: Some(Owner { owner: Some(owner::Owner::User(name.into())) }),
        purpose: "export error logs".into(),
        grants: vec![grant("audit.read", "logs/error")],
        expiry: Some(create_key_request::Expiry::Ttl(seconds(3600))),
        reason: "ticket 4711".into(),
        ..CreateKeyRequest::default()
    }
}

/// A key for a service, with the given grants, for as long as keys live by default.
pub(crate) fn service_key(name: &str, grants: Vec<Grant>) -> CreateKeyRequest {
    CreateKeyRequest {
        owner: Some(Owner { owner: Some(owner::Owner::Service(name.into())) }),
        purpose: "runs the nightly export".into(),
        grants,
        expiry: None,
        ..user_key("")
    }
}

/// Keys that were made elsewhere.
pub(crate) fn import(items: Vec<KeyToImport>) -> ImportKeysRequest {
    let reason = "the old key table is given up".into();
    ImportKeysRequest { items, reason, ..ImportKeysRequest::default() }
}

/// What the key of [`user_key`] may do, for a key that was made elsewhere. Its hash is still to be said.
pub(crate) fn user_import(name: &str) -> KeyToImport {
    KeyToImport {
        owner: Some(Owner { owner: Some(owner::Owner::User(name.into())) }),
        purpose: "export error logs".into(),
        grants: vec![grant("audit.read", "logs/error")],
        expiry: Some(key_to_import::Expiry::Ttl(seconds(3600))),
        ..KeyToImport::default()
    }
}

/// Known by the SHA-256 of its token.
pub(crate) fn sha256_of(token: &str, key: KeyToImport) -> KeyToImport {
    let digest = Sha256::digest(token).to_vec();
    KeyToImport { hash: Some(key_to_import::Hash::Sha256(digest)), ..key }
}

/// Known by an Argon2id of its token, and by the first bytes of it.
pub(crate) fn argon2id_of(token: &str, prefix: usize, key: KeyToImport) -> KeyToImport {
    let params = argon2::Params::new(64, 1, 1, Some(32)).expect("they are in range");
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let (salt, mut output) = (b"a salt of its own", vec![0; 32]);
    argon2.hash_password_into(token.as_bytes(), salt, &mut output).expect("it is small");
    let hash = Argon2id { memory_kib: 64, passes: 1, lanes: 1, salt: salt.to_vec(), output };
    let hash = Argon2idHash { phc: hash.to_string(), prefix: token[..prefix].into() };
    KeyToImport { hash: Some(key_to_import::Hash::Argon2id(hash)), ..key }
}

pub(crate) fn role(name: &str, grants: Vec<Grant>) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        grants,
        description: "those who look at logs".into(),
        reason: "the audit team asked for it".into(),
        ..CreateRoleRequest::default()
    }
}

/// What the key of [`user_key`] may do.
pub(crate) fn check(token: &str) -> VerifyKeyRequest {
    VerifyKeyRequest {
        max_staleness: None,
        keep: None,
        token: token.into(),
        permission: "audit.read".into(),
        resource: "logs/error".into(),
        client: Some(Client { address: "203.0.113.7".into(), user_agent: "exporter/1.2".into() }),
        audience: String::new(),
        reason: "nightly export".into(),
    }
}

/// An id for a session of reports that begins now.
pub(crate) fn new_session_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = now.expect("it is after 1970").as_millis() as u64;
    session_id_of(millis)
}

/// An id for a session of reports that was made at a time, in milliseconds.
pub(crate) fn session_id_of(millis: u64) -> String {
    let random = uuid::Uuid::new_v4().into_bytes();
    let random: &[u8; 10] = random.last_chunk().expect("16 bytes");
    uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid().to_string()
}

pub(crate) fn rotate(key_id: &str, overlap: i64) -> RotateKeyRequest {
    RotateKeyRequest {
        key_id: key_id.into(),
        overlap: Some(seconds(overlap)),
        reason: "monthly rotation".into(),
        ..RotateKeyRequest::default()
    }
}

pub(crate) fn revoke(key_id: &str) -> RevokeKeyRequest {
    RevokeKeyRequest {
        key_id: key_id.into(),
        kind: keyledger_proto::entry::RevocationKind::OwnerLeft as i32,
        reason: "left the company".into(),
        ..RevokeKeyRequest::default()
    }
}

/// A person has left.
pub(crate) fn owner_left(name: &str) -> SetOwnerStatusRequest {
    SetOwnerStatusRequest {
        owner: Some(Owner { owner: Some(owner::Owner::User(name.into())) }),
        left: true,
        reason: "the last day was Friday".into(),
        ..SetOwnerStatusRequest::default()
    }
}

pub(crate) fn suspend(key_id: &str) -> SuspendKeyRequest {
    SuspendKeyRequest {
        key_id: key_id.into(),
        reason: "looks odd, being checked".into(),
        ..SuspendKeyRequest::default()
    }
}

pub(crate) fn resume(key_id: &str) -> ResumeKeyRequest {
    ResumeKeyRequest {
        key_id: key_id.into(),
        reason: "was a false alarm".into(),
        ..ResumeKeyRequest::default()
    }
}

/// An update of the named fields. Whoever calls fills them in.
pub(crate) fn update(key_id: &str, fields: &[&str]) -> UpdateKeyRequest {
    UpdateKeyRequest {
        key_id: key_id.into(),
        update_mask: Some(mask(fields)),
        reason: "the team moved offices".into(),
        ..UpdateKeyRequest::default()
    }
}

/// New grants for a role.
pub(crate) fn update_role(name: &str, grants: Vec<Grant>) -> UpdateRoleRequest {
    UpdateRoleRequest {
        name: name.into(),
        update_mask: Some(mask(&["grants"])),
        grants,
        reason: "the audit team asked for less".into(),
        ..UpdateRoleRequest::default()
    }
}

/// What holds in the first ledger is changed in these fields.
pub(crate) fn update_policy(fields: &[&str], policy: LedgerPolicy) -> UpdateLedgerPolicyRequest {
    UpdateLedgerPolicyRequest {
        name: "default".into(),
        update_mask: Some(mask(fields)),
        policy: Some(policy),
        reason: "the security team asked for it".into(),
        ..UpdateLedgerPolicyRequest::default()
    }
}

pub(crate) fn retire_role(name: &str) -> RetireRoleRequest {
    RetireRoleRequest {
        name: name.into(),
        reason: "nobody does this any more".into(),
        ..RetireRoleRequest::default()
    }
}

/// Permissions of a service, each by its name and with a sentence made of it.
pub(crate) fn register(prefix: &str, names: &[&str]) -> RegisterPermissionsRequest {
    let permission = |name: &&str| NewPermission {
        name: name.to_string(),
        description: format!("Lets do what {} means.", name.replace('.', " ")),
    };
    RegisterPermissionsRequest {
        prefix: prefix.into(),
        permissions: names.iter().map(permission).collect(),
        reason: "a service of its own".into(),
        ..RegisterPermissionsRequest::default()
    }
}

/// What is asked of TestPermissions about one permission.
pub(crate) fn test(key_id: &str, permission: &str, resource: &str) -> TestPermissionsRequest {
    let asked = PermissionOnResource { permission: permission.into(), resource: resource.into() };
    TestPermissionsRequest {
        key_id: key_id.into(),
        permissions: vec![asked],
        ..TestPermissionsRequest::default()
    }
}

pub(crate) fn mask(fields: &[&str]) -> prost_types::FieldMask {
    prost_types::FieldMask { paths: fields.iter().map(|f| f.to_string()).collect() }
}

/// Records events in one call, and returns their resources in the order that they got: those of one call come in any.
pub(crate) async fn record_in_order(replica: &Replica, events: Vec<NewEvent>) -> Vec<String> {
    let resources: Vec<String> = events.iter().map(|event| event.resource.clone()).collect();
    let reply = replica.admin().call(RecordEventsRequest { events, ..Default::default() }).await;
    let outcomes = reply.expect("an admin may record").outcomes;
    let positions = outcomes.into_iter().map(|outcome| outcome.position);
    let mut recorded: Vec<(Option<u64>, String)> = positions.zip(resources).collect();
    recorded.sort();
    recorded.into_iter().map(|(_, resource)| resource).collect()
}

/// What a service says of a person who has logged in.
pub(crate) fn login(person: &str, category: &str) -> NewEvent {
    NewEvent {
        actor: Some(Actor { actor: Some(actor::Actor::User(person.into())) }),
        action: "user.session.start".into(),
        resource: "portal/web".into(),
        category: category.into(),
        reason: "password and second factor".into(),
        client: Some(EventClient { address: "203.0.113.9".into(), ..EventClient::default() }),
        ..NewEvent::default()
    }
}

/// A log record as another service sends it, with a name and attributes that are texts.
pub(crate) fn log_record(name: &str, attributes: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        time_unix_nano: 1_790_000_000_000_005_000,
        event_name: name.into(),
        attributes: texts(attributes),
        ..LogRecord::default()
    }
}

/// Log records of one resource.
pub(crate) fn export_of(
    resource: &[(&str, &str)],
    log_records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let resource = Some(Resource { attributes: texts(resource), ..Resource::default() });
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }
}

fn texts(attributes: &[(&str, &str)]) -> Vec<KeyValue> {
    let text = |(name, text): &(&str, &str)| KeyValue {
        key: name.to_string(),
        value: Some(AnyValue { value: Some(Value::StringValue(text.to_string())) }),
        ..KeyValue::default()
    };
    attributes.iter().map(text).collect()
}
