//! To the wire: values of the core become replies.

mod anomalies;
mod given;
mod traces;
mod usage;

use std::collections::BTreeMap;

use keyledger_ledger::body::{self, Event, Kind, OwnerKind, Texts, Use, UsePage};
use keyledger_ledger::category;
use keyledger_ledger::command::CheckAnswer;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::judge::{Match, Verdict};
use keyledger_ledger::policy::{Limits, Policy, Rotation};
use keyledger_ledger::roles::Predefined;
use keyledger_ledger::state::{
    self, Key, KeyStatus, LedgerInfo, RegisteredLedger, RegisteredPermissions, Role, State,
};
use prost::Message;
use uuid::Uuid;

use crate::{
    Actor, AuditEvent, EventAttribute, KeyState, KeyVersion, Ledger, LedgerLimits, LedgerPolicy,
    Owner, Revocation, RotationPolicy, SignedByProducer, VerifyKeyResponse, actor, event_attribute,
    owner,
};

use anomalies::anomaly_event;
pub use anomalies::{acknowledgement, raised_anomaly};
pub use given::{given, why_changed};
pub use traces::{change_trace, span_reference, use_traces};
pub use usage::{network, usage};

pub fn timestamp(time: Time) -> prost_types::Timestamp {
    let micros = time.micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: (micros.rem_euclid(1_000_000) * 1000) as i32,
    }
}

pub fn duration(micros: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: micros.div_euclid(1_000_000),
        nanos: (micros.rem_euclid(1_000_000) * 1000) as i32,
    }
}

/// A key as of `now`; `texts` are those of the entries that say whose it is and what for, as far as they could be opened.
/// `ledger` gives its roles.
pub fn key(ledger: &State, key: &Key, texts: &Texts, now: Time) -> crate::Key {
    let state = match key.status(now) {
        KeyStatus::Active => KeyState::Active,
        KeyStatus::Suspended => KeyState::Suspended,
        KeyStatus::Revoked => KeyState::Revoked,
        KeyStatus::Expired => KeyState::Expired,
    };
    let lives = matches!(state, KeyState::Active | KeyState::Suspended);
    let live = |v: &&state::Version| lives && v.expires.is_none_or(|end| now < end);
    crate::Key {
        key_id: key.id.to_string(),
        state: state as i32,
        owner: Some(key_owner(&key.owner, texts)),
        purpose: texts.purpose.clone(),
        grants: key.grants.iter().map(|g| g.to_body()).collect(),
        roles: key.roles.iter().map(|r| r.to_string()).collect(),
        create_time: Some(timestamp(key.created)),
        expire_time: key.expires.map(timestamp),
        creator_key_id: key.creator.map_or(String::new(), |id| id.to_string()),
        versions: key.versions.iter().filter(live).map(|v| key_version(key, v)).collect(),
        revocation: key
            .revoked
            .map(|r| Revocation { kind: r.kind as i32, time: Some(timestamp(r.time)) }),
        stream_version: key.stream_version,
        position: Some(key.position),
        restrictions: key.restrictions.as_ref().and_then(|r| r.to_body()),
        labels: key.labels.iter().map(|l| l.to_body()).collect(),
        responsible: texts.responsible.clone(),
        suspend_time: key.suspended().map(timestamp),
        etag: key.etag(),
        uses_left: key
            .restrictions
            .as_ref()
            .zip(key.used.as_ref())
            .and_then(|(r, u)| r.uses_left(u)),
        rotation: key.rotation.as_deref().copied().map(rotation),
        rotation_due_time: ledger.rotation_due(key).map(timestamp),
        last_use_time: None,
        owner_left_time: ledger.left.get(&key.owner).copied().map(timestamp),
        responsible_left_time: key
            .responsible
            .and_then(|reference| ledger.left.get(&state::Owner::User(reference)))
            .copied()
            .map(timestamp),
    }
}

/// A key with when it was last used, by version of its secret.
pub fn with_last_uses(key: crate::Key, last_uses: &BTreeMap<u32, Time>) -> crate::Key {
    let with_last_use = |version: KeyVersion| KeyVersion {
        last_use_time: last_uses.get(&version.number).copied().map(timestamp),
        ..version
    };
    crate::Key {
        versions: key.versions.into_iter().map(with_last_use).collect(),
        last_use_time: last_uses.values().max().copied().map(timestamp),
        ..key
    }
}

/// A key as it was: how often it had been used is not known of the past, nor what its roles said of the age of secrets.
pub fn of_the_past(key: crate::Key) -> crate::Key {
    crate::Key { uses_left: None, rotation_due_time: None, ..key }
}

/// An owner; a person by the name in the texts.
pub fn key_owner(owner: &state::Owner, texts: &Texts) -> Owner {
    let owner = match owner {
        state::Owner::User(_) => owner::Owner::User(texts.owner.clone()),
        state::Owner::Service(name) => owner::Owner::Service(name.to_string()),
    };
    Owner { owner: Some(owner) }
}

fn rotation(rotation: Rotation) -> RotationPolicy {
    RotationPolicy {
        max_age: Some(duration(rotation.max_age)),
        suspend_after: rotation.suspend_after.map(duration),
    }
}

fn key_version(key: &Key, version: &state::Version) -> KeyVersion {
    KeyVersion {
        until_first_use: key.until_first_use && version.number < key.newest_version().number,
        number: version.number,
        create_time: Some(timestamp(version.created)),
        expire_time: version.expires.map(timestamp),
        last_use_time: None,
    }
}

pub fn role(role: &Role, texts: &Texts) -> crate::Role {
    crate::Role {
        name: role.name.to_string(),
        grants: role.grants.iter().map(|g| g.to_body()).collect(),
        description: texts.description.clone(),
        create_time: Some(timestamp(role.created)),
        position: Some(role.position),
        retire_time: role.retired.map(timestamp),
        etag: role.etag(),
        rotation: role.rotation.map(rotation),
        max_staleness: (role.max_staleness != 0).then(|| duration(role.max_staleness)),
        predefined: false,
        parameter: String::new(),
    }
}

/// A role that every ledger has.
pub fn predefined_role(role: &Predefined) -> crate::Role {
    crate::Role {
        name: role.name.into(),
        grants: role.shown_grants().iter().map(|g| g.to_body()).collect(),
        description: role.description.into(),
        predefined: true,
        parameter: role.parameter.unwrap_or_default().into(),
        ..crate::Role::default()
    }
}

/// All permissions under one prefix; `texts` are those of the entry that registered them.
pub fn registered_permissions<'a>(
    registered: &'a RegisteredPermissions,
    texts: &'a Texts,
) -> impl Iterator<Item = crate::Permission> + 'a {
    let registered_by = match &registered.owner {
        state::Owner::Service(name) => name.to_string(),
        state::Owner::User(_) => String::new(),
    };
    let descriptions = texts.descriptions.iter().cloned().chain(std::iter::repeat(String::new()));
    registered.names.iter().zip(descriptions).map(move |(name, description)| crate::Permission {
        name: name.to_string(),
        description,
        resources: vec![],
        registered_by: registered_by.clone(),
    })
}

/// A change as those see it who keep what keys may do. `key` is the key that it is about, as it is at `now`: without texts.
pub fn key_change(
    ledger: &State,
    position: u64,
    event: &Event,
    key: Option<&Key>,
    now: Time,
) -> crate::KeyChange {
    let kind = event.kind.as_ref();
    crate::KeyChange {
        position: Some(position),
        time: Some(timestamp(Time(event.time_us))),
        r#type: kind.map_or("", Kind::name).into(),
        key_id: kind.and_then(Kind::key_link).map_or(String::new(), |l| id_text(&l.key_id)),
        key: key.map(|key| self::key(ledger, key, &Texts::default(), now)),
        role: match kind {
            Some(Kind::RoleCreated(role)) => role.name.clone(),
            Some(Kind::RoleUpdated(role)) => role.name.clone(),
            Some(Kind::RoleRetired(role)) => role.name.clone(),
            _ => String::new(),
        },
    }
}

pub fn ledger(ledger: &LedgerInfo) -> Ledger {
    Ledger {
        ledger_id: Uuid::from_bytes(ledger.id).to_string(),
        name: ledger.name.clone(),
        number: ledger.number.0,
        origin: ledger.origin.clone(),
    }
}

pub fn policy(policy: &Policy) -> LedgerPolicy {
    LedgerPolicy {
        default_life: Some(duration(policy.default_life)),
        max_life: Some(duration(policy.max_life)),
        max_overlap: Some(duration(policy.max_overlap)),
        notice_days: policy.notice_days.clone(),
        approval_permissions: policy.approvals.clone(),
        max_staleness: Some(duration(policy.max_staleness)),
        rules: policy.rules.clone(),
        idle_suspend_after: Some(duration(policy.idle_suspend_after)),
        idle_revoke_after: Some(duration(policy.idle_revoke_after)),
        digest_days: policy.digest_days,
    }
}

pub fn limits(limits: &Limits) -> LedgerLimits {
    LedgerLimits {
        max_keys: limits.keys,
        max_roles: limits.roles,
        max_streams: limits.streams,
        max_bytes_per_second: limits.bytes_per_second,
    }
}

pub fn registered_ledger(ledger: &RegisteredLedger) -> Ledger {
    Ledger {
        ledger_id: Uuid::from_bytes(ledger.id).to_string(),
        name: ledger.name.clone(),
        number: ledger.number.0,
        origin: ledger.origin.clone(),
    }
}

/// The verdict. Why a key is not valid is told only to those who may know; the ledger knows in any case.
pub fn verdict(answer: &CheckAnswer) -> VerifyKeyResponse {
    use body::{Decision, DecisionReason as R};
    let granted = answer.reason == R::Granted;
    // With a good secret in hand, these tell nothing about other keys.
    let valid = granted
        || matches!(answer.reason, R::NoGrant | R::Network | R::Audience | R::UsesSpent | R::Rate);
    let reason = match answer.reason {
        R::UnknownKey
        | R::Foreign
        | R::WrongSecret
        | R::Revoked
        | R::Expired
        | R::Superseded
        | R::Suspended
            if !answer.explain =>
        {
            R::NotValid
        }
        reason => reason,
    };
    let key = answer.key.as_ref().filter(|_| valid || answer.explain);
    VerifyKeyResponse {
        decision: if granted { Decision::Allow } else { Decision::Deny } as i32,
        reason: reason as i32,
        key_id: key.map_or(String::new(), |k| k.id.to_string()),
        matched_grant: answer.matched.as_ref().map(|m| m.grant.to_body()),
        matched_role: answer.matched.as_ref().and_then(|m| m.role.clone()).unwrap_or_default(),
        expire_time: key.and_then(|k| k.expires).map(timestamp),
        position: Some(answer.at.position),
        index: Some(answer.at.index),
        as_of_time: None,
        kept: None,
        version: key.map_or(0, |_| answer.version),
    }
}

/// What memory says of a key that may.
pub fn remembered(
    (key_id, version): (KeyId, u32),
    expires: Option<Time>,
    matched: &Match,
    now: Time,
) -> VerifyKeyResponse {
    VerifyKeyResponse {
        decision: body::Decision::Allow as i32,
        reason: body::DecisionReason::Granted as i32,
        key_id: key_id.to_string(),
        matched_grant: Some(matched.grant.to_body()),
        matched_role: matched.role.clone().unwrap_or_default(),
        expire_time: expires.map(timestamp),
        position: None,
        index: None,
        as_of_time: Some(timestamp(now)),
        kept: None,
        version,
    }
}

/// What would become of one permission.
pub fn permission_test(verdict: &Verdict) -> crate::PermissionTest {
    let decision = if verdict.allowed() { body::Decision::Allow } else { body::Decision::Deny };
    crate::PermissionTest {
        decision: decision as i32,
        reason: verdict.reason as i32,
        matched_grant: verdict.matched.as_ref().map(|m| m.grant.to_body()),
        matched_role: verdict.matched.as_ref().and_then(|m| m.role.clone()).unwrap_or_default(),
    }
}

/// The texts of one entry as one: they lie apart only because they are about several people.
pub fn merged(texts: &[Texts]) -> Texts {
    let mut all = Texts::default();
    for text in texts.iter().rev() {
        all.merge(text.encode_to_vec().as_slice()).expect("texts that were just encoded");
    }
    all
}

/// An entry that is no page, as an event of the log.
pub fn entry_event(position: u64, leaf_hash: &[u8], event: &Event, texts: &[Texts]) -> AuditEvent {
    match &event.kind {
        Some(Kind::EventRecorded(_)) => recorded_event(position, leaf_hash, event, texts),
        _ if category::of_entry(event) == category::ANOMALY => {
            anomaly_event(position, leaf_hash, event, texts)
        }
        _ => change_event(position, leaf_hash, event, texts),
    }
}

/// A change as an event of the log.
fn change_event(position: u64, leaf_hash: &[u8], event: &Event, texts: &[Texts]) -> AuditEvent {
    let kind = event.kind.as_ref();
    let created = match kind {
        Some(Kind::KeyCreated(created)) => created.owner.as_ref().and_then(|o| o.owner.as_ref()),
        Some(Kind::KeyImported(key)) => key.owner.as_ref().and_then(|o| o.owner.as_ref()),
        Some(Kind::OwnerStatusSet(status)) => status.owner.as_ref().and_then(|o| o.owner.as_ref()),
        _ => None,
    };
    let about = merged(texts);
    AuditEvent {
        position: Some(position),
        r#type: kind.map_or("", Kind::name).to_string(),
        category: category::of_entry(event).into(),
        time: Some(timestamp(Time(event.time_us))),
        key_id: kind.and_then(Kind::key_link).map_or(String::new(), |l| id_text(&l.key_id)),
        caller_key_id: event.caller.as_ref().map_or(String::new(), |c| id_text(&c.key_id)),
        reason: about.reason.clone(),
        owner: created.map(|owner| Owner {
            owner: Some(match owner {
                OwnerKind::UserRef(_) => owner::Owner::User(about.owner.clone()),
                OwnerKind::Service(name) => owner::Owner::Service(name.clone()),
            }),
        }),
        purpose: about.purpose.clone(),
        address: about.peer_address.clone(),
        approval_ref: event.approval_ref.clone(),
        trace_id: hex(&event.trace_id),
        span_id: hex(&event.span_id),
        leaf_hash: leaf_hash.to_vec(),
        body: Some(event.clone()),
        ..AuditEvent::default()
    }
}

/// What another service recorded. The first texts are about the actor, then come the names of those on whose behalf it acted.
fn recorded_event(position: u64, leaf_hash: &[u8], event: &Event, texts: &[Texts]) -> AuditEvent {
    let Some(Kind::EventRecorded(recorded)) = &event.kind else {
        return change_event(position, leaf_hash, event, texts);
    };
    let empty = Texts::default();
    let about = texts.first().unwrap_or(&empty);
    let mut people = texts.iter().skip(1).map(|t| t.actor.clone());
    let mut actor = |actor: &body::Actor, own: Option<&str>| crate::Actor {
        actor: actor.actor.as_ref().map(|kind| match kind {
            body::ActorKind::Service(name) => crate::actor::Actor::Service(name.clone()),
            body::ActorKind::UserRef(_) => {
                let name = own.map(String::from).or_else(|| people.next());
                crate::actor::Actor::User(name.unwrap_or_default())
            }
        }),
    };
    let clear = recorded.attributes.iter().map(|a| attribute(a, false));
    let personal = about.attributes.iter().map(|a| attribute(a, true));
    AuditEvent {
        category: recorded.category.clone(),
        actor: recorded.actor.as_ref().map(|a| actor(a, Some(&about.actor))),
        on_behalf_of: recorded.on_behalf_of.iter().map(|a| actor(a, None)).collect(),
        action: recorded.action.clone(),
        resource: recorded.resource.clone(),
        outcome: recorded.outcome,
        severity: recorded.severity,
        occur_time: Some(timestamp(Time(recorded.occurred_time_us))),
        address: about.client_address.clone(),
        user_agent: about.client_user_agent.clone(),
        device: about.device.clone(),
        attributes: clear.chain(personal).collect(),
        signature: recorded.signature.as_ref().map(|s| SignedByProducer {
            payload: about.signed.clone(),
            public_key_sha256: s.public_key_sha256.clone(),
            signature: s.signature.clone(),
        }),
        ..change_event(position, leaf_hash, event, std::slice::from_ref(about))
    }
}

fn attribute(attribute: &body::Attribute, personal: bool) -> EventAttribute {
    use body::AttributeValue as V;
    use event_attribute::Value;
    let value = attribute.value.as_ref().map(|value| match value {
        V::Text(text) => Value::Text(text.clone()),
        V::Integer(number) => Value::Integer(*number),
        V::Number(number) => Value::Number(*number),
        V::Flag(flag) => Value::Flag(*flag),
    });
    EventAttribute { name: attribute.name.clone(), value, personal }
}

/// A use as an event of the log.
pub fn use_event(
    position: u64,
    index: u32,
    time: Time,
    leaf_hash: &[u8],
    page: &UsePage,
    u: &Use,
    texts: &[Texts],
) -> AuditEvent {
    let empty = Texts::default();
    let about = texts.first().unwrap_or(&empty);
    let address =
        if about.client_address.is_empty() { &about.peer_address } else { &about.client_address };
    AuditEvent {
        position: Some(position),
        index: Some(index),
        r#type: "key.used".into(),
        category: category::of_use(page, u).into(),
        time: Some(timestamp(time)),
        key_id: id_text(&u.key_id),
        key_version: u.version,
        caller_key_id: u.caller.as_ref().map_or(String::new(), |c| id_text(&c.key_id)),
        method: u.method.clone(),
        permission: u.permission.clone(),
        resource: u.resource.clone(),
        decision: u.decision,
        decision_reason: u.reason,
        reason: about.reason.clone(),
        address: address.clone(),
        user_agent: about.client_user_agent.clone(),
        trace_id: hex(&u.trace_id),
        span_id: hex(&u.span_id),
        leaf_hash: leaf_hash.to_vec(),
        count: u.count,
        spans: u.folded_spans().map(|(trace, span)| span_reference(trace, span)).collect(),
        first_time: time_of_folded(u.first_time_us),
        last_time: time_of_folded(u.last_time_us),
        returned: u.returned,
        asked: about.asked.clone(),
        actor: searched_person(texts),
        occur_time: u.reported.as_ref().map(|reported| timestamp(Time(reported.time_us))),
        reported: u.reported.clone(),
        ..AuditEvent::default()
    }
}

fn time_of_folded(micros: i64) -> Option<prost_types::Timestamp> {
    (micros != 0).then(|| timestamp(Time(micros)))
}

/// Whom a caller that read the log looked for.
fn searched_person(texts: &[Texts]) -> Option<Actor> {
    let name = texts.iter().map(|t| &t.actor).find(|name| !name.is_empty())?;
    Some(Actor { actor: Some(actor::Actor::User(name.clone())) })
}

fn id_text(bytes: &[u8]) -> String {
    KeyId::from_slice(bytes).map_or(String::new(), |id| id.to_string())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
