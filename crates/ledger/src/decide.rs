//! Deciding a change: pure, from state, command and time to the event that happens, or to a refusal.
//!
//! The ladder of each change goes from the cheapest, most specific refusal to the event. Who calls and whether they hold
//! the permission that stands on the method has been judged before (see [`crate::batch`]).

use crate::body::{self, Kind, OwnerKind};
use crate::command::{
    Change, ChangeKind, CreateKey, DAY, DEFAULT_LIFE, Expiry, MAX_LIFE, MAX_OVERLAP, NewSecret,
    OpenLedger, Refusal, RegisterLedger, WITHOUT_EXPIRY,
};
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::judge;
use crate::secret::{self, Peppers, Verifier};
use crate::state::{Key, KeyStatus, Owner, State};

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
        ChangeKind::CreateRole { name, grants } => {
            create_role(state, caller, name, grants).map(only)
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
    let roles = roles(state, &c.roles)?;
    check_hands_on(state, caller, c.grants.iter().chain(roles))?;
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
    let roles = key
        .roles
        .iter()
        .filter_map(|name| state.roles.get(name))
        .flat_map(|role| role.grants.iter());
    check_hands_on(state, caller, key.grants.iter().chain(roles))?;
    check_expiry_inside(caller, key.expires)?;
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

fn create_role(
    state: &State,
    caller: Option<&Key>,
    name: &str,
    grants: &[Grant],
) -> Result<Kind, Refusal> {
    if state.roles.contains_key(name) {
        return Err(Refusal::RoleExists);
    }
    check_hands_on(state, caller, grants.iter())?;
    Ok(Kind::RoleCreated(body::RoleCreated {
        name: name.to_string(),
        grants: grants.iter().map(Grant::to_body).collect(),
    }))
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

fn roles<'a>(
    state: &'a State,
    names: &'a [String],
) -> Result<impl Iterator<Item = &'a Grant> + use<'a>, Refusal> {
    if let Some(name) = names.iter().find(|name| !state.roles.contains_key(name.as_str())) {
        return Err(Refusal::RoleNotFound { name: name.clone() });
    }
    Ok(names
        .iter()
        .filter_map(|name| state.roles.get(name.as_str()))
        .flat_map(|role| role.grants.iter()))
}

/// A key never gives more than it holds: each grant lies inside one single grant of its own, else the call is refused.
fn check_hands_on<'a>(
    state: &State,
    caller: Option<&Key>,
    mut given: impl Iterator<Item = &'a Grant>,
) -> Result<(), Refusal> {
    let Some(caller) = caller else { return Ok(()) };
    let from_roles = caller
        .roles
        .iter()
        .filter_map(|name| state.roles.get(name))
        .flat_map(|role| role.grants.iter());
    let own: Vec<&Grant> = caller.grants.iter().chain(from_roles).collect();
    match given.find(|grant| !own.iter().any(|mine| mine.covers(grant))) {
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
