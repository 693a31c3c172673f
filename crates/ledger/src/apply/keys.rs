//! Applying what happens to keys.

use std::sync::Arc;

use super::{ApplyError, At, bytes, grants};
use crate::body::{self, ImportAlgorithm, Kind, OwnerKind, RevocationKind};
use crate::id::{KeyId, Time};
use crate::imported::{self, Imported};
use crate::policy::Rotation;
use crate::restrict::{Restrictions, Used};
use crate::roles;
use crate::state::{Key, KeyStatus, Label, Owner, Revoked, State, Suspension, Version};

pub(super) fn create_key(
    state: &mut State,
    at: &At,
    e: &body::KeyCreated,
) -> Result<(), ApplyError> {
    new_key(state, at, e, None)
}

/// A key that was made elsewhere: what it is found by is no other key's.
pub(super) fn import_key(
    state: &mut State,
    at: &At,
    e: &body::KeyImported,
) -> Result<(), ApplyError> {
    let verifier = e.verifier.as_ref().ok_or(ApplyError::Field("verifier"))?;
    let algorithm = ImportAlgorithm::try_from(verifier.algorithm).ok();
    let imported = algorithm.and_then(|algorithm| {
        let (pepper_id, prefix_length) = (verifier.pepper_id, verifier.prefix_length);
        Imported::new(algorithm, &verifier.lookup, pepper_id, prefix_length)
    });
    let imported = imported.ok_or(ApplyError::Field("verifier"))?;
    if state.imported.contains_key(&imported.lookup) {
        return Err(ApplyError::ImportExists);
    }
    if !state.takes_prefix_length(imported.prefix_length) {
        return Err(ApplyError::Field("verifier.prefix_length"));
    }
    new_key(state, at, &e.to_created(), Some(Box::new(imported)))
}

/// Keyledger itself puts a verifier of its own in the place of the digest, once, while the key is accepted.
pub(super) fn migrate_verifier(
    state: &mut State,
    at: &At,
    e: &body::VerifierMigrated,
) -> Result<(), ApplyError> {
    if at.caller.is_some() {
        return Err(ApplyError::Caller);
    }
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if key.status(at.time) != KeyStatus::Active || !key.accepts(imported::VERSION, at.time) {
        return Err(ApplyError::KeyState);
    }
    let new = version(e.version.as_ref(), at, imported::VERSION)?;
    let imported = key.imported.as_mut().filter(|i| !i.migrated).ok_or(ApplyError::KeyState)?;
    imported.migrated = true;
    for old in key.versions.iter_mut().filter(|v| v.number == new.number) {
        (old.commitment, old.pepper_id) = (new.commitment, new.pepper_id);
    }
    state.digests.remove(&key.id);
    state.put_key(key);
    Ok(())
}

fn new_key(
    state: &mut State,
    at: &At,
    e: &body::KeyCreated,
    imported: Option<Box<Imported>>,
) -> Result<(), ApplyError> {
    let link = e.link.as_ref().ok_or(ApplyError::Field("link"))?;
    let id = KeyId::from_slice(&link.key_id).ok_or(ApplyError::Field("link.key_id"))?;
    if state.keys.contains_key(&id) {
        return Err(ApplyError::KeyExists);
    }
    if state.ledger.as_ref().is_none_or(|l| l.number != id.ledger()) {
        return Err(ApplyError::OtherLedger);
    }
    if link.stream_version != 1 || !link.previous_leaf_hash.is_empty() {
        return Err(ApplyError::Chain);
    }
    let version = version(e.version.as_ref(), at, 1)?;
    let mut key = Key {
        id,
        owner: owner(e.owner.as_ref())?,
        creator: at.caller,
        grants: grants(&e.grants)?.into(),
        roles: role_names(state, &e.roles)?,
        created: at.time,
        expires: expiry(at, e.expire_time_us)?,
        noted: at.time,
        rotation: rotation(e.rotation.as_ref())?,
        rotation_noted: 0,
        rotation_suspended: 0,
        until_first_use: false,
        suspension: Suspension::Never,
        revoked: None,
        restrictions: restrictions(e.restrictions.as_ref())?,
        used: None,
        labels: labels(&e.labels)?,
        responsible: responsible(&e.responsible_ref)?,
        versions: vec![version],
        imported,
        stream_version: 1,
        leaf_hash: at.leaf_hash,
        position: at.position,
        created_position: at.position,
        purpose_position: at.position,
        responsible_position: at.position,
    };
    begin_counting(&mut key);
    state.put_key(key);
    Ok(())
}

pub(super) fn rotate_key(
    state: &mut State,
    at: &At,
    e: &body::KeyRotated,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if key.status(at.time) != KeyStatus::Active {
        return Err(ApplyError::KeyState);
    }
    let mut previous = key.newest_version().clone();
    let new = version(e.version.as_ref(), at, previous.number + 1)?;
    let end = Time(e.previous_expire_time_us);
    if end < at.time || key.expires.is_some_and(|expires| end > expires) {
        return Err(ApplyError::Field("previous_expire_time_us"));
    }
    previous.expires = Some(end);
    key.versions = vec![previous, new];
    key.until_first_use = e.until_first_use;
    state.put_key(key);
    Ok(())
}

pub(super) fn revoke_key(
    state: &mut State,
    at: &At,
    e: &body::KeyRevoked,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if key.revoked.is_some() {
        return Err(ApplyError::KeyState);
    }
    let kind = RevocationKind::try_from(e.kind).ok().filter(|k| *k != RevocationKind::Unspecified);
    key.revoked = Some(Revoked { kind: kind.ok_or(ApplyError::Field("kind"))?, time: at.time });
    state.put_key(key);
    Ok(())
}

pub(super) fn update_key(
    state: &mut State,
    at: &At,
    e: &body::KeyUpdated,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if !matches!(key.status(at.time), KeyStatus::Active | KeyStatus::Suspended) {
        return Err(ApplyError::KeyState);
    }
    let new_responsible = responsible(&e.responsible_ref)?;
    if new_responsible != key.responsible || e.changed.iter().any(|c| c == "responsible") {
        key.responsible_position = at.position;
    }
    if e.changed.iter().any(|c| c == "purpose") {
        key.purpose_position = at.position;
    }
    key.grants = grants(&e.grants)?.into();
    key.roles = role_names(state, &e.roles)?;
    let expires = expiry(at, e.expire_time_us)?;
    if expires != key.expires {
        key.expires = expires;
        key.noted = at.time;
    }
    key.restrictions = restrictions(e.restrictions.as_ref())?;
    begin_counting(&mut key);
    key.labels = labels(&e.labels)?;
    key.rotation = rotation(e.rotation.as_ref())?;
    key.responsible = new_responsible;
    // A secret never outlives its key.
    for version in &mut key.versions {
        version.expires = match (version.expires, key.expires) {
            (Some(own), Some(end)) => Some(own.min(end)),
            (own, _) => own,
        };
    }
    state.put_key(key);
    Ok(())
}

/// Uses are counted from when they are first limited, for as long as they are.
fn begin_counting(key: &mut Key) {
    let limited = key.restrictions.as_ref().is_some_and(|r| r.is_limited());
    let used = key.used.take().unwrap_or_default();
    key.used = limited.then_some(used);
}

/// What a key whose uses are limited was used with some more; `None` for other keys.
pub(super) fn counted(
    state: &State,
    id: KeyId,
    uses: u32,
    now: Time,
) -> Result<Option<(KeyId, Used)>, ApplyError> {
    let key = state.keys.get(&id).ok_or(ApplyError::NoSuchKey)?;
    let (Some(limits), Some(used)) = (&key.restrictions, &key.used) else { return Ok(None) };
    let used = limits.count(used, uses, now).ok_or(ApplyError::Field("spent"))?;
    Ok(Some((id, used)))
}

/// A change counts as one use of its caller; that a key ends itself never does.
pub(super) fn counted_caller(
    state: &State,
    at: &At,
    kind: &Kind,
) -> Result<Option<(KeyId, Used)>, ApplyError> {
    let own = state.ledger.as_ref().map(|ledger| ledger.number);
    let Some(caller) = at.caller.filter(|id| Some(id.ledger()) == own) else { return Ok(None) };
    let ended = match kind {
        Kind::KeyRevoked(e) => e.link.as_ref().and_then(|l| KeyId::from_slice(&l.key_id)),
        _ => None,
    };
    if ended == Some(caller) { Ok(None) } else { counted(state, caller, 1, at.time) }
}

pub(super) fn set_used(state: &mut State, (id, used): (KeyId, Used)) {
    let Some(key) = state.keys.get(&id).filter(|k| k.used.is_some()) else { return };
    let key = Key { used: Some(Box::new(used)), ..Key::clone(key) };
    state.put_key(key);
}

/// Where pages were left out, nobody can say how often a key was used.
pub(super) fn forget_used(state: &mut State, id: KeyId) {
    let Some(key) = state.keys.get(&id).filter(|k| k.used.is_some()) else { return };
    let key = Key { used: None, ..Key::clone(key) };
    state.put_key(key);
}

pub(super) fn suspend_key(
    state: &mut State,
    at: &At,
    e: &body::KeySuspended,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if key.status(at.time) != KeyStatus::Active {
        return Err(ApplyError::KeyState);
    }
    key.suspension = Suspension::Since { time: at.time, idle: e.idle_since_us != 0 };
    if e.overdue_version != 0 {
        if e.overdue_version != key.newest_version().number {
            return Err(ApplyError::Field("overdue_version"));
        }
        key.rotation_suspended = e.overdue_version;
    }
    state.put_key(key);
    Ok(())
}

pub(super) fn resume_key(
    state: &mut State,
    at: &At,
    e: &body::KeyResumed,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if key.status(at.time) != KeyStatus::Suspended {
        return Err(ApplyError::KeyState);
    }
    key.suspension = Suspension::Resumed(at.time);
    state.put_key(key);
    Ok(())
}

pub(super) fn note_expiring(
    state: &mut State,
    at: &At,
    e: &body::KeyExpiring,
) -> Result<(), ApplyError> {
    note(state, at, e.link.as_ref())
}

pub(super) fn note_expired(
    state: &mut State,
    at: &At,
    e: &body::KeyExpired,
) -> Result<(), ApplyError> {
    note(state, at, e.link.as_ref())
}

/// Whether it was due was checked before, where roles and policy are those of that time.
fn note(state: &mut State, at: &At, link: Option<&body::KeyLink>) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, link)?;
    key.noted = at.time;
    state.put_key(key);
    Ok(())
}

pub(super) fn note_rotation(
    state: &mut State,
    at: &At,
    e: &body::RotationDue,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if e.version != key.newest_version().number {
        return Err(ApplyError::Field("version"));
    }
    key.rotation_noted = e.version;
    state.put_key(key);
    Ok(())
}

/// The new secret was used: the one before it ends here.
pub(super) fn complete_rotation(
    state: &mut State,
    at: &At,
    e: &body::RotationCompleted,
) -> Result<(), ApplyError> {
    let mut key = next_in_chain(state, at, e.link.as_ref())?;
    if !key.until_first_use || e.version != key.newest_version().number || at.caller.is_some() {
        return Err(ApplyError::KeyState);
    }
    key.until_first_use = false;
    if let [previous, _] = key.versions.as_mut_slice() {
        previous.expires = Some(previous.expires.map_or(at.time, |end| end.min(at.time)));
    }
    state.put_key(key);
    Ok(())
}

/// The key that an entry continues, with the entry counted in.
fn next_in_chain(state: &State, at: &At, link: Option<&body::KeyLink>) -> Result<Key, ApplyError> {
    let link = link.ok_or(ApplyError::Field("link"))?;
    let id = KeyId::from_slice(&link.key_id).ok_or(ApplyError::Field("link.key_id"))?;
    let mut key = state.keys.get(&id).map(|k| Key::clone(k)).ok_or(ApplyError::NoSuchKey)?;
    if link.stream_version != key.stream_version + 1 || link.previous_leaf_hash != key.leaf_hash {
        return Err(ApplyError::Chain);
    }
    key.stream_version = link.stream_version;
    key.leaf_hash = at.leaf_hash;
    key.position = at.position;
    Ok(key)
}

fn version(
    version: Option<&body::SecretVersion>,
    at: &At,
    number: u32,
) -> Result<Version, ApplyError> {
    let version = version.ok_or(ApplyError::Field("version"))?;
    if version.number != number {
        return Err(ApplyError::Field("version.number"));
    }
    Ok(Version {
        number,
        created: at.time,
        expires: None,
        commitment: bytes(&version.verifier_commitment, "version.verifier_commitment")?,
        pepper_id: version.pepper_id,
    })
}

pub(super) fn owner(owner: Option<&body::Owner>) -> Result<Owner, ApplyError> {
    match owner.and_then(|o| o.owner.as_ref()) {
        Some(OwnerKind::UserRef(reference)) => Ok(Owner::User(bytes(reference, "owner.user_ref")?)),
        Some(OwnerKind::Service(name)) => Ok(Owner::Service(name.as_str().into())),
        None => Err(ApplyError::Field("owner")),
    }
}

/// The names that a key holds roles by; those of the ledger's own are shared among keys.
fn role_names(state: &State, names: &[String]) -> Result<Box<[Arc<str>]>, ApplyError> {
    let name = |name: &String| match state.roles.get(name.as_str()) {
        Some(role) => Ok(role.name.clone()),
        None if roles::grants(state, name).is_some() => Ok(name.as_str().into()),
        None => Err(ApplyError::NoSuchRole),
    };
    names.iter().map(name).collect()
}

fn expiry(at: &At, micros: i64) -> Result<Option<Time>, ApplyError> {
    let expires = (micros != 0).then_some(Time(micros));
    match expires.is_some_and(|end| end <= at.time) {
        true => Err(ApplyError::Field("expire_time_us")),
        false => Ok(expires),
    }
}

fn restrictions(
    restrictions: Option<&body::Restrictions>,
) -> Result<Option<Box<Restrictions>>, ApplyError> {
    let restrictions = Restrictions::from_body(restrictions)?;
    Ok((!restrictions.is_empty()).then(|| Box::new(restrictions)))
}

fn rotation(rotation: Option<&body::Rotation>) -> Result<Option<Box<Rotation>>, ApplyError> {
    Ok(rotation.map(Rotation::from_body).transpose()?.map(Box::new))
}

fn labels(labels: &[body::Label]) -> Result<Box<[Label]>, ApplyError> {
    if !labels.is_sorted_by(|a, b| a.name < b.name) {
        return Err(ApplyError::Field("labels"));
    }
    Ok(labels.iter().map(Label::from_body).collect())
}

fn responsible(reference: &[u8]) -> Result<Option<[u8; 16]>, ApplyError> {
    match reference {
        [] => Ok(None),
        reference => bytes(reference, "responsible_ref").map(Some),
    }
}
