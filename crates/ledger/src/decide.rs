//! Deciding a change: pure, from state, command and time to the event that happens, or to a refusal.
//!
//! The ladder of each change goes from the cheapest, most specific refusal to the event. Who calls and whether they hold
//! the permission that stands on the method has been judged before (see [`crate::batch`]).

mod permissions;

use std::sync::Arc;

use crate::body::{self, Kind, OwnerKind};
use crate::command::{
    Change, ChangeKind, CreateKey, DAY, DEFAULT_LIFE, EXTEND, Expiry, MAX_LIFE, MAX_OVERLAP,
    NewSecret, OpenLedger, Refusal, RegisterLedger, UpdateKey, WITHOUT_EXPIRY,
};
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::judge;
use crate::restrict::Restrictions;
use crate::roles;
use crate::secret::{self, Peppers, Verifier};
use crate::state::{Key, KeyStatus, Label, Owner, Role, State};

/// What a change will write.
#[derive(Clone, Debug)]
pub struct Decided {
    pub kind: Kind,
    pub secret: Option<SecretRow>,
}

/// A verifier, for the table beside the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    pub key_id: KeyId,
    pub version: u32,
    pub verifier: Verifier,
    pub salt: [u8; 32],
    pub pepper_id: u32,
}

/// Decides one change. `caller` is `None` when Keyledger itself acts, which may do everything.
pub fn decide(
    state: &State,
    peppers: &Peppers,
    caller: Option<&Key>,
    change: &Change,
    now: Time,
) -> Result<Decided, Refusal> {
    match &change.kind {
        ChangeKind::OpenLedger(_) if state.ledger.is_some() => Err(Refusal::LedgerExists),
        ChangeKind::OpenLedger(c) => Ok(only(open_ledger(c))),
        ChangeKind::RegisterLedger(c) => register_ledger(state, c).map(only),
        ChangeKind::StartServer { version, configuration_digest } => {
            Ok(only(Kind::ServerStarted(body::ServerStarted {
                version: version.clone(),
                configuration_digest: configuration_digest.to_vec(),
                number: state.next_start,
            })))
        }
        ChangeKind::CreateKey(c) => create_key(state, peppers, caller, c, now),
        ChangeKind::RotateKey { key_id, overlap_micros, secret } => {
            rotate_key(state, peppers, caller, *key_id, *overlap_micros, secret, now)
        }
        ChangeKind::RevokeKey { key_id, kind } => revoke_key(state, *key_id, *kind).map(only),
        ChangeKind::UpdateKey(c) => update_key(state, caller, c, now).map(only),
        ChangeKind::SuspendKey { key_id } => suspend_key(state, *key_id, now).map(only),
        ChangeKind::NoteEnd { key_id } => note_end(state, *key_id, now).map(only),
        ChangeKind::ResumeKey { key_id } => resume_key(state, caller, *key_id, now).map(only),
        ChangeKind::CreateRole { name, grants } => {
            create_role(state, caller, name, grants).map(only)
        }
        ChangeKind::UpdateRole { name, etag, grants, described } => {
            update_role(state, caller, name, etag, grants.as_deref(), *described).map(only)
        }
        ChangeKind::RetireRole { name, etag } => retire_role(state, name, etag).map(only),
        ChangeKind::RegisterPermissions { prefix, names } => {
            permissions::register(state, caller, prefix, names).map(only)
        }
    }
}

fn only(kind: Kind) -> Decided {
    Decided { kind, secret: None }
}

fn open_ledger(c: &OpenLedger) -> Kind {
    Kind::LedgerOpened(body::LedgerOpened {
        name: c.name.clone(),
        number: c.number.0,
        origin: c.origin.clone(),
        entry_public_key: c.entry_public_key.to_vec(),
        checkpoint_public_key: c.checkpoint_public_key.to_vec(),
    })
}

fn register_ledger(state: &State, c: &RegisterLedger) -> Result<Kind, Refusal> {
    let system = state.ledger.as_ref().is_some_and(|l| l.number == LedgerNumber::SYSTEM);
    if !system {
        return Err(Refusal::SystemLedgerOnly);
    }
    let own_name = state.ledger.as_ref().is_some_and(|l| l.name == c.name);
    if own_name || state.registered.values().any(|l| l.name == c.name) {
        return Err(Refusal::LedgerExists);
    }
    let number = state.registered.keys().next_back().map_or(1, |last| last.0 + 1);
    Ok(Kind::LedgerRegistered(body::LedgerRegistered {
        ledger_id: c.id.to_vec(),
        number,
        name: c.name.clone(),
        origin: c.origin.clone(),
    }))
}

fn create_key(
    state: &State,
    peppers: &Peppers,
    caller: Option<&Key>,
    c: &CreateKey,
    now: Time,
) -> Result<Decided, Refusal> {
    let expires = expiry(state, caller, c.expiry, now)?;
    check_gives(state, caller, &c.grants, &c.roles, Some(&c.restrictions))?;
    if state.keys.contains_key(&c.key_id) {
        return Err(Refusal::Internal);
    }
    let (version, secret) = new_version(peppers, c.key_id, 1, &c.secret)?;
    let kind = Kind::KeyCreated(body::KeyCreated {
        link: Some(body::KeyLink {
            key_id: c.key_id.as_bytes().to_vec(),
            stream_version: 1,
            previous_leaf_hash: vec![],
        }),
        owner: Some(owner(&c.owner)),
        grants: c.grants.iter().map(Grant::to_body).collect(),
        roles: c.roles.clone(),
        expire_time_us: expires.map_or(0, Time::micros),
        version: Some(version),
        restrictions: c.restrictions.to_body(),
        labels: c.labels.iter().map(Label::to_body).collect(),
        responsible_ref: c.responsible.map_or(vec![], |r| r.to_vec()),
    });
    Ok(Decided { kind, secret: Some(secret) })
}

fn rotate_key(
    state: &State,
    peppers: &Peppers,
    caller: Option<&Key>,
    key_id: KeyId,
    overlap_micros: i64,
    secret: &NewSecret,
    now: Time,
) -> Result<Decided, Refusal> {
    let key = find(state, key_id)?;
    require_active(key, now)?;
    if !(0..=MAX_OVERLAP).contains(&overlap_micros) {
        return Err(lifetime("overlap", "must be 0 to 30 days".into()));
    }
    // Whoever rotates learns the new secret, and so gains what the key may do.
    check_gives_key(state, caller, key)?;
    let number = key.newest_version().number + 1;
    let (version, secret) = new_version(peppers, key_id, number, secret)?;
    let overlap_end = now.plus_micros(overlap_micros);
    let kind = Kind::KeyRotated(body::KeyRotated {
        link: Some(next_link(key)),
        version: Some(version),
        previous_expire_time_us: key
            .expires
            .map_or(overlap_end, |end| end.min(overlap_end))
            .micros(),
    });
    Ok(Decided { kind, secret: Some(secret) })
}

fn revoke_key(state: &State, key_id: KeyId, kind: body::RevocationKind) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    // An expired key may still be revoked: the kind says more than its end.
    if key.revoked.is_some() {
        return Err(Refusal::KeyState { state: KeyStatus::Revoked });
    }
    Ok(Kind::KeyRevoked(body::KeyRevoked { link: Some(next_link(key)), kind: kind as i32 }))
}

fn suspend_key(state: &State, key_id: KeyId, now: Time) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    require_active(key, now)?;
    Ok(Kind::KeySuspended(body::KeySuspended { link: Some(next_link(key)) }))
}

/// Every replica looks for what is due; the first one notes it.
fn note_end(state: &State, key_id: KeyId, now: Time) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    let link = Some(next_link(key));
    match key.due_note(now) {
        None => Err(Refusal::AlreadyDone),
        Some(None) => Ok(Kind::KeyExpired(body::KeyExpired { link })),
        Some(Some(days)) => Ok(Kind::KeyExpiring(body::KeyExpiring { link, days })),
    }
}

/// Whoever resumes a key gives again what it may do.
fn resume_key(
    state: &State,
    caller: Option<&Key>,
    key_id: KeyId,
    now: Time,
) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    match key.status(now) {
        KeyStatus::Suspended => {}
        state => return Err(Refusal::KeyState { state }),
    }
    check_gives_key(state, caller, key)?;
    Ok(Kind::KeyResumed(body::KeyResumed { link: Some(next_link(key)) }))
}

fn update_key(
    state: &State,
    caller: Option<&Key>,
    c: &UpdateKey,
    now: Time,
) -> Result<Kind, Refusal> {
    let key = find(state, c.key_id)?;
    match key.status(now) {
        KeyStatus::Active | KeyStatus::Suspended => {}
        state => return Err(Refusal::KeyState { state }),
    }
    check_etag(&c.etag, &key.etag())?;
    let own_roles = || key.roles.iter().map(|r| r.to_string()).collect::<Vec<_>>();
    let unrestricted = Restrictions::default();
    let grants = c.grants.as_deref().unwrap_or(&key.grants);
    let roles = c.roles.clone().unwrap_or_else(own_roles);
    let old = key.restrictions.as_deref().unwrap_or(&unrestricted);
    let restrictions = &c.restrictions.as_ref().map_or(old.clone(), |change| change.of(old));
    let expires = match c.expiry {
        None => key.expires,
        Some(asked) => new_end(state, caller, key, asked, now)?,
    };
    // What may be used, or when, or from where: whoever changes one of them answers for the key as it will be.
    if c.grants.is_some() || c.roles.is_some() || c.restrictions.is_some() || c.expiry.is_some() {
        let given = c.roles.clone().unwrap_or_else(|| live_roles(state, key));
        check_gives(state, caller, grants, &given, Some(restrictions))?;
        check_expiry_inside(caller, expires)?;
    }
    let labels = c.labels.as_deref().unwrap_or(&key.labels);
    let responsible = c.responsible.unwrap_or(key.responsible);
    Ok(Kind::KeyUpdated(body::KeyUpdated {
        link: Some(next_link(key)),
        changed: c.changed.clone(),
        grants: grants.iter().map(Grant::to_body).collect(),
        roles,
        expire_time_us: expires.map_or(0, Time::micros),
        restrictions: restrictions.to_body(),
        labels: labels.iter().map(Label::to_body).collect(),
        responsible_ref: responsible.map_or(vec![], |r| r.to_vec()),
    }))
}

/// A later end than before needs a permission of its own.
fn new_end(
    state: &State,
    caller: Option<&Key>,
    key: &Key,
    asked: Expiry,
    now: Time,
) -> Result<Option<Time>, Refusal> {
    let end = expiry(state, caller, asked, now)?;
    let later = match (key.expires, end) {
        (Some(old), Some(new)) => new > old,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let resource = format!("keys/{}", key.id);
    let may = caller.is_none_or(|c| judge::matching_grant(state, c, EXTEND, &resource).is_some());
    match later && !may {
        true => Err(Refusal::PermissionDenied { permission: EXTEND.into(), resource }),
        false => Ok(end),
    }
}

fn create_role(
    state: &State,
    caller: Option<&Key>,
    name: &str,
    grants: &[Grant],
) -> Result<Kind, Refusal> {
    if state.roles.contains_key(name) || roles::is_predefined(name) {
        return Err(Refusal::RoleExists);
    }
    check_hands_on(state, caller, grants)?;
    Ok(Kind::RoleCreated(body::RoleCreated {
        name: name.to_string(),
        grants: grants.iter().map(Grant::to_body).collect(),
    }))
}

fn update_role(
    state: &State,
    caller: Option<&Key>,
    name: &str,
    etag: &str,
    grants: Option<&[Grant]>,
    described: bool,
) -> Result<Kind, Refusal> {
    let role = live_role(state, name)?;
    check_etag(etag, &role.etag())?;
    if let Some(grants) = grants {
        check_hands_on(state, caller, grants)?;
    }
    Ok(Kind::RoleUpdated(body::RoleUpdated {
        name: name.to_string(),
        grants: grants.unwrap_or(&role.grants).iter().map(Grant::to_body).collect(),
        described,
    }))
}

fn retire_role(state: &State, name: &str, etag: &str) -> Result<Kind, Refusal> {
    check_etag(etag, &live_role(state, name)?.etag())?;
    Ok(Kind::RoleRetired(body::RoleRetired { name: name.to_string() }))
}

/// A role of the ledger's own that still gives something.
fn live_role<'a>(state: &'a State, name: &str) -> Result<&'a Role, Refusal> {
    match state.roles.get(name) {
        Some(role) if role.retired.is_none() => Ok(role),
        Some(_) => Err(Refusal::RoleRetired),
        None if roles::is_predefined(name) => Err(Refusal::RolePredefined),
        None => Err(Refusal::RoleNotFound { name: name.into() }),
    }
}

/// Empty: the caller didn't ask for it (AIP-154).
fn check_etag(asked: &str, current: &str) -> Result<(), Refusal> {
    if asked.is_empty() || asked == current { Ok(()) } else { Err(Refusal::EtagMismatch) }
}

fn find(state: &State, key_id: KeyId) -> Result<&Key, Refusal> {
    state.keys.get(&key_id).map(|key| &**key).ok_or(Refusal::KeyNotFound)
}

fn require_active(key: &Key, now: Time) -> Result<(), Refusal> {
    match key.status(now) {
        KeyStatus::Active => Ok(()),
        state => Err(Refusal::KeyState { state }),
    }
}

/// A key never gives more than it holds, and nothing that is accepted where it isn't itself.
fn check_gives(
    state: &State,
    caller: Option<&Key>,
    grants: &[Grant],
    roles: &[String],
    restrictions: Option<&Restrictions>,
) -> Result<(), Refusal> {
    let mut from_roles = vec![];
    for name in roles {
        let retired = state.roles.get(name.as_str()).is_some_and(|r| r.retired.is_some());
        let given = roles::grants(state, name).filter(|_| !retired);
        from_roles.push(given.ok_or_else(|| Refusal::RoleNotFound { name: name.clone() })?);
    }
    check_hands_on(state, caller, grants)?;
    from_roles.iter().try_for_each(|grants| check_hands_on(state, caller, grants))?;
    let own = caller.and_then(|key| key.restrictions.as_ref());
    let free = Restrictions::default();
    match own.is_none_or(|own| restrictions.unwrap_or(&free).inside(own)) {
        true => Ok(()),
        false => Err(Refusal::ExceedsOwnRights {
            what: "networks or audiences beyond the caller's own".into(),
        }),
    }
}

/// The same for a key as it is.
fn check_gives_key(state: &State, caller: Option<&Key>, key: &Key) -> Result<(), Refusal> {
    let roles = live_roles(state, key);
    check_gives(state, caller, &key.grants, &roles, key.restrictions.as_deref())?;
    check_expiry_inside(caller, key.expires)
}

/// The roles of a key that still give something.
fn live_roles(state: &State, key: &Key) -> Vec<String> {
    let live = |name: &&Arc<str>| state.roles.get(*name).is_none_or(|r| r.retired.is_none());
    key.roles.iter().filter(live).map(|name| name.to_string()).collect()
}

/// Each grant lies inside one single grant of the caller's, else the call is refused.
fn check_hands_on(state: &State, caller: Option<&Key>, given: &[Grant]) -> Result<(), Refusal> {
    let Some(caller) = caller else { return Ok(()) };
    let held = |grant: &Grant| {
        roles::of_key(state, caller).any(|(own, _)| own.iter().any(|mine| mine.covers(grant)))
    };
    match given.iter().find(|grant| !held(grant)) {
        Some(grant) => Err(Refusal::ExceedsOwnRights { what: format!("the grant {grant}") }),
        None => Ok(()),
    }
}

/// A key never lives longer than the one that made it.
fn check_expiry_inside(caller: Option<&Key>, expires: Option<Time>) -> Result<(), Refusal> {
    let own_end = caller.and_then(|key| key.expires);
    match (own_end, expires) {
        (Some(own), Some(given)) if given > own => {
            Err(Refusal::ExceedsOwnRights { what: "a life beyond the caller's own".into() })
        }
        (Some(_), None) => Err(Refusal::ExceedsOwnRights { what: "a life without end".into() }),
        _ => Ok(()),
    }
}

fn expiry(
    state: &State,
    caller: Option<&Key>,
    asked: Expiry,
    now: Time,
) -> Result<Option<Time>, Refusal> {
    let expires = match asked {
        // A default is never more than the caller can give.
        Expiry::Default => {
            let end = now.plus_micros(DEFAULT_LIFE);
            Some(caller.and_then(|key| key.expires).map_or(end, |own| own.min(end)))
        }
        Expiry::After(micros) => Some(now.plus_micros(micros)),
        Expiry::At(end) => Some(end),
        Expiry::Never => None,
    };
    let field = if matches!(asked, Expiry::At(_)) { "expire_time" } else { "ttl" };
    match expires {
        Some(end) if end <= now => return Err(lifetime(field, "must lie in the future".into())),
        Some(end) if end > now.plus_micros(MAX_LIFE) => {
            return Err(lifetime(
                field,
                format!("must be at most {} days from now", MAX_LIFE / DAY),
            ));
        }
        Some(_) => {}
        None => {
            let may = caller.is_none_or(|key| {
                judge::matching_grant(state, key, WITHOUT_EXPIRY, "keys").is_some()
            });
            if !may {
                return Err(Refusal::PermissionDenied {
                    permission: WITHOUT_EXPIRY.into(),
                    resource: "keys".into(),
                });
            }
        }
    }
    check_expiry_inside(caller, expires)?;
    Ok(expires)
}

fn lifetime(field: &'static str, problem: String) -> Refusal {
    Refusal::Lifetime { field, problem }
}

fn new_version(
    peppers: &Peppers,
    key_id: KeyId,
    number: u32,
    new: &NewSecret,
) -> Result<(body::SecretVersion, SecretRow), Refusal> {
    let pepper = peppers.newest().ok_or(Refusal::Internal)?;
    let verifier = pepper.verifier(key_id, number, &new.secret);
    let version = body::SecretVersion {
        number,
        verifier_commitment: secret::commitment(&new.salt, &verifier).to_vec(),
        pepper_id: pepper.id,
    };
    Ok((
        version,
        SecretRow { key_id, version: number, verifier, salt: new.salt, pepper_id: pepper.id },
    ))
}

fn next_link(key: &Key) -> body::KeyLink {
    body::KeyLink {
        key_id: key.id.as_bytes().to_vec(),
        stream_version: key.stream_version + 1,
        previous_leaf_hash: key.leaf_hash.to_vec(),
    }
}

fn owner(owner: &Owner) -> body::Owner {
    let owner = match owner {
        Owner::User(reference) => OwnerKind::UserRef(reference.to_vec()),
        Owner::Service(name) => OwnerKind::Service(name.to_string()),
    };
    body::Owner { owner: Some(owner) }
}
