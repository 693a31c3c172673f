//! Deciding a change: pure, from state, command and time to the event that happens, or to a refusal.
//!
//! The ladder of each change goes from the cheapest, most specific refusal to the event. Who calls and whether they hold
//! the permission that stands on the method has been judged before (see [`crate::batch`]).

mod anomalies;
mod gives;
mod ledgers;
mod permissions;
mod producers;
mod reviews;
mod roles;

use prost::Message;

use crate::body::{self, Kind, OwnerKind};
use crate::category::{self, MAX_CATEGORIES};
use crate::command::{
    Change, ChangeKind, CreateKey, FirstSecret, MAX_AHEAD, NewSecret, NoteDelivery, Refusal,
    RotateKey, UpdateKey,
};
use crate::grant::Grant;
use crate::id::{KeyId, Time};
use crate::idle;
use crate::imported::{self, ImportedRow};
use crate::policy::Rotation;
use crate::restrict::Restrictions;
use crate::secret::{self, Peppers, Verifier};
use crate::state::{DueNote, Key, KeyStatus, Label, Owner, State};

use gives::{
    By, check_expiry_inside, check_gives, check_gives_key, expiry, live_roles, new_end, show_life,
};
use ledgers::{end_bounded, open_ledger, register_ledger, start_bounded, update_policy};
use roles::{create_role, retire_role, update_role};

/// What a change will write.
#[derive(Clone, Debug)]
pub struct Decided {
    pub kind: Kind,
    pub beside: Beside,
}

/// What is kept beside an entry.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// The verifier of a new secret.
    pub secret: Option<SecretRow>,
    /// The digest of a secret that was made elsewhere.
    pub imported: Option<ImportedRow>,
    /// The counts of categories, serialised.
    pub counts: Vec<u8>,
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
    let by = By { caller, approval_ref: &change.approval_ref };
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
        ChangeKind::StartBounded { serving, until } => {
            start_bounded(state, *serving, *until, now).map(only)
        }
        ChangeKind::EndBounded { serving, uses } => end_bounded(state, *serving, *uses).map(only),
        ChangeKind::CreateKey(c) => create_key(state, peppers, by, c, now),
        ChangeKind::RotateKey(c) => rotate_key(state, peppers, caller, c, now),
        ChangeKind::RevokeKey { key_id, kind } => revoke_key(state, *key_id, *kind).map(only),
        ChangeKind::UpdateKey(c) => update_key(state, by, c, now).map(only),
        ChangeKind::SuspendKey { key_id } => suspend_key(state, *key_id, now).map(only),
        ChangeKind::Anomaly(change) => anomalies::decide(state, change, now).map(only),
        ChangeKind::NoteDue { key_id } => note_due(state, *key_id, now).map(only),
        ChangeKind::NoteIdle { key_id, idle_since } => {
            idle::decide(state, *key_id, *idle_since, now).map(only)
        }
        ChangeKind::SetOwnerStatus { owner, left } => {
            reviews::set_owner_status(state, owner, *left).map(only)
        }
        ChangeKind::SignReview(c) => reviews::sign(state, c, now).map(only),
        ChangeKind::ResumeKey { key_id } => resume_key(state, caller, *key_id, now).map(only),
        ChangeKind::CreateRole { name, grants, rotation, max_staleness } => {
            create_role(state, caller, name, grants, *rotation, *max_staleness).map(only)
        }
        ChangeKind::DigestFindings { findings, as_of } => {
            digest_findings(state, findings, *as_of, now).map(only)
        }
        ChangeKind::NoteDelivery(c) => Ok(only(note_delivery(c))),
        ChangeKind::UpdateRole(c) => update_role(state, caller, c).map(only),
        ChangeKind::CountCategories { seed } => count_categories(state, seed, now),
        ChangeKind::RecordEvent(event) => record_event(state, caller, event, now).map(only),
        ChangeKind::RegisterProducerKeys { public_keys } => {
            producers::register(caller, public_keys).map(only)
        }
        ChangeKind::UpdatePolicy(c) => update_policy(state, caller, c).map(only),
        ChangeKind::RetireRole { name, etag } => retire_role(state, name, etag).map(only),
        ChangeKind::RegisterPermissions { prefix, names } => {
            permissions::register(state, caller, prefix, names).map(only)
        }
    }
}

fn only(kind: Kind) -> Decided {
    Decided { kind, beside: Beside::default() }
}

/// When it happened is for the service to say, but not much later than now.
fn record_event(
    state: &State,
    caller: Option<&Key>,
    event: &body::EventRecorded,
    now: Time,
) -> Result<Kind, Refusal> {
    producers::check_signer(state, caller, event)?;
    if event.occurred_time_us > now.plus_micros(MAX_AHEAD).micros() {
        return Err(wrong("occur_time", "must be at most 5 minutes in the future"));
    }
    if !state.counts.takes(&event.category) {
        return Err(Refusal::LedgerFull { what: "categories", most: MAX_CATEGORIES as u64 });
    }
    let occurred_time_us = match event.occurred_time_us {
        0 => now.micros(),
        said => said,
    };
    let number = state.next_event;
    Ok(Kind::EventRecorded(body::EventRecorded { occurred_time_us, number, ..event.clone() }))
}

/// Every replica wants to tell the counts; the first one does.
fn count_categories(state: &State, seed: &[u8; 32], now: Time) -> Result<Decided, Refusal> {
    if !state.counts.is_due(state.next_position, now) {
        return Err(Refusal::AlreadyDone);
    }
    let counts = state.counts.salted(seed);
    let kind = Kind::CategoryCounted(body::CategoryCounted {
        categories: counts.len() as u32,
        root: category::root(&counts).to_vec(),
        number: state.counts.next_number,
    });
    let counts = body::CountColumn { counts }.encode_to_vec();
    Ok(Decided { kind, beside: Beside { counts, ..Beside::default() } })
}

/// Every replica wants to count; the first one does.
fn digest_findings(
    state: &State,
    findings: &[body::FindingCount],
    as_of: u64,
    now: Time,
) -> Result<Kind, Refusal> {
    if !state.digest_is_due(now) {
        return Err(Refusal::AlreadyDone);
    }
    Ok(Kind::FindingsDigested(body::FindingsDigested {
        findings: findings.to_vec(),
        as_of_position: as_of,
    }))
}

/// Every delivery is noted, also one that was repeated since nobody knew of the first.
fn note_delivery(c: &NoteDelivery) -> Kind {
    Kind::NoticeDelivered(body::NoticeDelivered {
        receiver: c.receiver.clone(),
        positions: c.positions.clone(),
        failures: c.failures,
        body_sha256: c.body_sha256.to_vec(),
    })
}

fn create_key(
    state: &State,
    peppers: &Peppers,
    by: By<'_>,
    c: &CreateKey,
    now: Time,
) -> Result<Decided, Refusal> {
    let most = state.policy.policy.limits.keys;
    if state.keys.len() as u64 >= most {
        return Err(Refusal::LedgerFull { what: "keys", most });
    }
    let expires = expiry(state, by, c.expiry, now)?;
    check_gives(state, by.caller, &c.grants, &c.roles, Some(&c.restrictions))?;
    if state.keys.contains_key(&c.key_id) {
        return Err(Refusal::Internal);
    }
    let created = body::KeyCreated {
        link: Some(body::KeyLink {
            key_id: c.key_id.as_bytes().to_vec(),
            stream_version: 1,
            previous_leaf_hash: vec![],
        }),
        owner: Some(owner(&c.owner)),
        grants: c.grants.iter().map(Grant::to_body).collect(),
        roles: c.roles.clone(),
        expire_time_us: expires.map_or(0, Time::micros),
        version: None,
        restrictions: c.restrictions.to_body(),
        labels: c.labels.iter().map(Label::to_body).collect(),
        responsible_ref: c.responsible.map_or(vec![], |r| r.to_vec()),
        rotation: c.rotation.map(Rotation::to_body),
    };
    match &c.secret {
        FirstSecret::New(secret) => {
            let (version, secret) = new_version(peppers, c.key_id, 1, secret)?;
            let kind = Kind::KeyCreated(body::KeyCreated { version: Some(version), ..created });
            Ok(Decided { kind, beside: Beside { secret: Some(secret), ..Beside::default() } })
        }
        FirstSecret::Imported(import) => {
            let (verifier, row) = imported::decide_verifier(state, peppers, c.key_id, import)?;
            let kind = Kind::KeyImported(body::KeyImported::new(created, verifier));
            Ok(Decided { kind, beside: Beside { imported: Some(row), ..Beside::default() } })
        }
    }
}

fn rotate_key(
    state: &State,
    peppers: &Peppers,
    caller: Option<&Key>,
    c: &RotateKey,
    now: Time,
) -> Result<Decided, Refusal> {
    let key = find(state, c.key_id)?;
    require_active(key, now)?;
    let longest = state.policy.policy.max_overlap;
    if !(0..=longest).contains(&c.overlap_micros) {
        return Err(wrong("overlap", format!("must be 0 to {}", show_life(longest))));
    }
    // Whoever rotates learns the new secret, and so gains what the key may do.
    check_gives_key(state, caller, key)?;
    let number = key.newest_version().number + 1;
    let (version, secret) = new_version(peppers, c.key_id, number, &c.secret)?;
    let overlap_end = now.plus_micros(c.overlap_micros);
    let kind = Kind::KeyRotated(body::KeyRotated {
        link: Some(next_link(key)),
        version: Some(version),
        previous_expire_time_us: key
            .expires
            .map_or(overlap_end, |end| end.min(overlap_end))
            .micros(),
        until_first_use: c.until_first_use,
    });
    Ok(Decided { kind, beside: Beside { secret: Some(secret), ..Beside::default() } })
}

fn revoke_key(state: &State, key_id: KeyId, kind: body::RevocationKind) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    // An expired key may still be revoked: the kind says more than its end.
    if key.revoked.is_some() {
        return Err(Refusal::KeyState { state: KeyStatus::Revoked });
    }
    Ok(Kind::KeyRevoked(body::KeyRevoked {
        link: Some(next_link(key)),
        kind: kind as i32,
        idle_since_us: 0,
    }))
}

fn suspend_key(state: &State, key_id: KeyId, now: Time) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    require_active(key, now)?;
    let link = Some(next_link(key));
    Ok(Kind::KeySuspended(body::KeySuspended { link, ..body::KeySuspended::default() }))
}

/// Every replica looks for what is due; the first one notes it.
fn note_due(state: &State, key_id: KeyId, now: Time) -> Result<Kind, Refusal> {
    let key = find(state, key_id)?;
    let link = Some(next_link(key));
    Ok(match state.due_note(key, now).ok_or(Refusal::AlreadyDone)? {
        DueNote::Expired => Kind::KeyExpired(body::KeyExpired { link }),
        DueNote::Expiring { days } => Kind::KeyExpiring(body::KeyExpiring { link, days }),
        DueNote::RotationDue { version } => Kind::RotationDue(body::RotationDue { link, version }),
        DueNote::Overdue { version } => Kind::KeySuspended(body::KeySuspended {
            link,
            overdue_version: version,
            ..body::KeySuspended::default()
        }),
    })
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

fn update_key(state: &State, by: By<'_>, c: &UpdateKey, now: Time) -> Result<Kind, Refusal> {
    let (key, caller) = (find(state, c.key_id)?, by.caller);
    match key.status(now) {
        KeyStatus::Active | KeyStatus::Suspended => {}
        state => return Err(Refusal::KeyState { state }),
    }
    check_etag(&c.etag, &key.etag())?;
    if matches!((&c.responsible, &key.owner), (Some(Some(_)), Owner::User(_))) {
        let problem = "must be empty: a person's key is that person's responsibility";
        return Err(wrong("responsible", problem));
    }
    let own_roles = || key.roles.iter().map(|r| r.to_string()).collect::<Vec<_>>();
    let unrestricted = Restrictions::default();
    let grants = c.grants.as_deref().unwrap_or(&key.grants);
    let roles = c.roles.clone().unwrap_or_else(own_roles);
    let old = key.restrictions.as_deref().unwrap_or(&unrestricted);
    let restrictions = &c.restrictions.as_ref().map_or(old.clone(), |change| change.of(old));
    let expires = match c.expiry {
        None => key.expires,
        Some(asked) => new_end(state, by, key, asked, now)?,
    };
    // What may be used, or when, or from where: whoever changes one of them answers for the key as it will be.
    let gives =
        c.grants.is_some() || c.roles.is_some() || c.restrictions.is_some() || c.expiry.is_some();
    // A policy of its secrets may suspend it, and its absence lets them live.
    if gives || c.rotation.is_some() {
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
        rotation: c.rotation.unwrap_or(key.rotation.as_deref().copied()).map(Rotation::to_body),
    }))
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

fn wrong(field: &'static str, problem: impl Into<String>) -> Refusal {
    Refusal::Field { field: field.into(), problem: problem.into() }
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

/// What ties the next entry of a key to the ones before.
pub fn next_link(key: &Key) -> body::KeyLink {
    body::KeyLink {
        key_id: key.id.as_bytes().to_vec(),
        stream_version: key.stream_version + 1,
        previous_leaf_hash: key.leaf_hash.to_vec(),
    }
}

fn owner(owner: &Owner) -> body::Owner {
    body::Owner { owner: Some(OwnerKind::from(owner)) }
}
