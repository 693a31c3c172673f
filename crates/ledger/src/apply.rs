//! Applying an entry to the state. Pure, and strict: an entry that doesn't fit the state stops whoever reads it.

mod bounded;
mod due;
mod keys;
mod noticed;
mod permissions;
mod producers;
mod reports;

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;

use crate::body::{self, ActorKind, Event, Kind, Outcome, Severity};
use crate::grant::{Grant, PatternError, check_resource};
use crate::id::{KeyId, LedgerNumber, Time};
use crate::merkle::Hash;
use crate::page;
use crate::policy::{CurrentPolicy, Policy, PolicyError, Rotation};
use crate::restrict::RestrictionError;
use crate::state::{Key, LedgerInfo, RegisteredLedger, Role, State};
use crate::text::check_approval_ref;

use bounded::{count_bounded, end_bounded, start_bounded};
use keys::{
    complete_rotation, counted, counted_caller, create_key, forget_used, import_key,
    migrate_verifier, note_expired, note_expiring, note_rotation, resume_key, revoke_key,
    rotate_key, set_used, suspend_key, update_key,
};
use reports::count_reported;

/// Why an entry doesn't fit the state before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("position 0 must be the opening of the ledger, and only position 0")]
    Opening,
    #[error("it belongs to another ledger or epoch")]
    OtherLedger,
    #[error("its time is before that of the entry before it")]
    TimeRunsBackwards,
    #[error("it comes before what was applied already")]
    Order,
    #[error("its caller is not a live key")]
    Caller,
    #[error("a field is missing or malformed: {0}")]
    Field(&'static str),
    #[error("a grant is malformed: {0}")]
    Grant(#[from] PatternError),
    #[error("a restriction is malformed: {0}")]
    Restriction(#[from] RestrictionError),
    #[error("a policy is malformed: {0}")]
    Policy(#[from] PolicyError),
    #[error("the limits of a ledger are not for its own keys to set")]
    Limits,
    #[error("the key exists already")]
    KeyExists,
    #[error("the key doesn't exist")]
    NoSuchKey,
    #[error("it doesn't continue the key's own chain of entries")]
    Chain,
    #[error("its number is not the next one: an entry of its kind was left out, or written twice")]
    Number,
    #[error("a key with this hash or prefix was imported before")]
    ImportExists,
    #[error("the key's state doesn't allow it")]
    KeyState,
    #[error("the role exists already")]
    RoleExists,
    #[error("the role doesn't exist, or was retired")]
    NoSuchRole,
    #[error("the prefix belongs to somebody else")]
    PrefixTaken,
    #[error("the ledger is registered already")]
    LedgerExists,
    #[error("this kind of entry belongs to the system ledger")]
    SystemOnly,
}

/// Applies the entry at `state.next_position`. On an error the state is as it was.
pub fn apply(state: &mut State, leaf_hash: Hash, event: &Event) -> Result<(), ApplyError> {
    let kind = event.kind.as_ref().ok_or(ApplyError::Field("kind"))?;
    let time = Time(event.time_us);
    if let (0, Kind::LedgerOpened(opened)) = (state.next_position, kind) {
        state.ledger = Some(Arc::new(ledger_info(event, opened)?));
        state.counts.note(event);
        return advance(state, time);
    }
    let at = check(state, state.next_position, leaf_hash, event, kind)?;
    let used = counted_caller(state, &at, kind)?;
    apply_kind(state, &at, kind)?;
    used.into_iter().for_each(|used| set_used(state, used));
    state.counts.note(event);
    advance(state, time)
}

/// Applies the change at a position, where the pages of uses before it were left out: for a look back in time. All is checked
/// that [`apply`] checks, except what only pages tell: how often keys were used. So no key says how often. On an error the
/// state is as it was.
pub fn apply_change(
    state: &mut State,
    position: u64,
    leaf_hash: Hash,
    event: &Event,
) -> Result<(), ApplyError> {
    let kind = event.kind.as_ref().ok_or(ApplyError::Field("kind"))?;
    if position < state.next_position {
        return Err(ApplyError::Order);
    }
    if let (0, Kind::LedgerOpened(_)) = (position, kind) {
        return apply(state, leaf_hash, event);
    }
    if !kind.is_change() {
        return Err(ApplyError::Field("kind"));
    }
    let at = check(state, position, leaf_hash, event, kind)?;
    // How many uses were answered from memory only pages tell, too.
    let served = matches!(kind, Kind::BoundedServingStarted(_) | Kind::BoundedServingEnded(_));
    if !served {
        apply_kind(state, &at, kind)?;
    }
    if let Some(id) = kind.key_link().and_then(|l| KeyId::from_slice(&l.key_id)) {
        forget_used(state, id);
    }
    state.next_position = position;
    advance(state, at.time)
}

/// What must hold of an entry of any kind.
fn check(
    state: &State,
    position: u64,
    leaf_hash: Hash,
    event: &Event,
    kind: &Kind,
) -> Result<At, ApplyError> {
    check_envelope(state, event)?;
    let at = At { position, time: Time(event.time_us), leaf_hash, caller: caller_id(event)? };
    due::check(state, &at, kind)?;
    Ok(at)
}

/// What an entry does, of whatever kind.
fn apply_kind(state: &mut State, at: &At, kind: &Kind) -> Result<(), ApplyError> {
    match kind {
        Kind::LedgerOpened(_) => Err(ApplyError::Opening),
        Kind::LedgerRegistered(e) => register_ledger(state, at, e),
        Kind::KeyCreated(e) => create_key(state, at, e),
        Kind::KeyRotated(e) => rotate_key(state, at, e),
        Kind::KeyRevoked(e) => revoke_key(state, at, e),
        Kind::KeyUpdated(e) => update_key(state, at, e),
        Kind::KeySuspended(e) => suspend_key(state, at, e),
        Kind::KeyResumed(e) => resume_key(state, at, e),
        Kind::KeyExpiring(e) => note_expiring(state, at, e),
        Kind::KeyExpired(e) => note_expired(state, at, e),
        Kind::RotationDue(e) => note_rotation(state, at, e),
        Kind::RotationCompleted(e) => complete_rotation(state, at, e),
        Kind::LedgerPolicyUpdated(e) => update_policy(state, at, e),
        Kind::BoundedServingStarted(e) => start_bounded(state, at, e),
        Kind::BoundedServingEnded(e) => end_bounded(state, at, e),
        Kind::KeyImported(e) => import_key(state, at, e),
        Kind::VerifierMigrated(e) => migrate_verifier(state, at, e),
        Kind::RoleCreated(e) => create_role(state, at, e),
        Kind::RoleUpdated(e) => update_role(state, at, e),
        Kind::RoleRetired(e) => retire_role(state, at, e),
        Kind::PermissionsRegistered(e) => permissions::register(state, at, e),
        Kind::ServerStarted(e) => start_server(state, e),
        Kind::EventRecorded(e) => count_event(state, at, e),
        Kind::ProducerKeysRegistered(e) => producers::register(state, at, e),
        Kind::CategoryCounted(e) => tell_counts(state, at, e),
        Kind::UsePage(e) => count_page(state, at, e),
        Kind::AnomalyRaised(e) => noticed::raise(state, at, e),
        Kind::AnomalyEnded(e) => noticed::end(state, at, e),
        Kind::AnomalyAcknowledged(e) => noticed::acknowledge(at, e),
        Kind::OwnerStatusSet(e) => noticed::set_owner_status(state, at, e),
        Kind::ReviewSigned(e) => noticed::sign_review(at, e),
        Kind::NoticeDelivered(e) => noticed::deliver(at, e),
        Kind::FindingsDigested(e) => noticed::digest_findings(state, at, e),
    }
}

/// One key as its own lifecycle entries leave it: for a look back in time, and to rebuild a projected row. `state` gives the
/// ledger and its roles.
pub fn fold_key(
    state: &State,
    history: &[(u64, Hash, Event)],
) -> Result<Option<Arc<Key>>, ApplyError> {
    let mut scratch =
        State { ledger: state.ledger.clone(), roles: state.roles.clone(), ..State::default() };
    for (position, leaf_hash, event) in history {
        let at = At {
            position: *position,
            time: Time(event.time_us),
            leaf_hash: *leaf_hash,
            caller: caller_id(event)?,
        };
        let about_a_key = event.kind.as_ref().filter(|kind| kind.key_link().is_some());
        apply_kind(&mut scratch, &at, about_a_key.ok_or(ApplyError::Chain)?)?;
    }
    Ok(scratch.keys.values().next().map(|key| {
        // Its own entries don't say how often it was used.
        Arc::new(Key { used: None, ..Key::clone(key) })
    }))
}

/// What every lifecycle entry brings along.
struct At {
    position: u64,
    time: Time,
    leaf_hash: Hash,
    caller: Option<KeyId>,
}

fn advance(state: &mut State, time: Time) -> Result<(), ApplyError> {
    state.next_position += 1;
    state.newest_time = time;
    Ok(())
}

fn ledger_info(event: &Event, opened: &body::LedgerOpened) -> Result<LedgerInfo, ApplyError> {
    Ok(LedgerInfo {
        id: bytes(&event.ledger_id, "ledger_id")?,
        epoch: event.epoch,
        number: LedgerNumber(opened.number),
        name: opened.name.clone(),
        origin: opened.origin.clone(),
        entry_key: public_key(&opened.entry_public_key)?,
        checkpoint_key: public_key(&opened.checkpoint_public_key)?,
    })
}

fn check_envelope(state: &State, event: &Event) -> Result<(), ApplyError> {
    let ledger = state.ledger.as_ref().ok_or(ApplyError::Opening)?;
    if event.ledger_id != ledger.id || event.epoch != ledger.epoch {
        return Err(ApplyError::OtherLedger);
    }
    if Time(event.time_us) < state.newest_time {
        return Err(ApplyError::TimeRunsBackwards);
    }
    for (field, length, name) in [
        (&event.trace_id, 16, "trace_id"),
        (&event.span_id, 8, "span_id"),
        (&event.request_id, 16, "request_id"),
    ] {
        if !field.is_empty() && field.len() != length {
            return Err(ApplyError::Field(name));
        }
    }
    page::check_texts(&event.texts).map_err(|_| ApplyError::Field("texts"))?;
    check_approval_ref(&event.approval_ref).map_err(|_| ApplyError::Field("approval_ref"))?;
    match &event.caller {
        None => Ok(()),
        Some(caller) => {
            let id = KeyId::from_slice(&caller.key_id).ok_or(ApplyError::Field("caller"))?;
            // A key of the system ledger was judged there; here it can do nothing but set what holds for this ledger.
            if is_system_key(ledger.number, id) {
                let policy = matches!(event.kind, Some(Kind::LedgerPolicyUpdated(_)));
                return if policy { Ok(()) } else { Err(ApplyError::Caller) };
            }
            let key = state.keys.get(&id).ok_or(ApplyError::Caller)?;
            // Whoever holds its secret may end a key, in whatever state it is.
            if ends(event) == Some(id) {
                return Ok(());
            }
            crate::judge::standing(key, caller.version, Time(event.time_us))
                .map_err(|_| ApplyError::Caller)
        }
    }
}

/// Whether a key, in a ledger of this number, is one of the system ledger that called from there.
pub(crate) fn is_system_key(ledger: LedgerNumber, id: KeyId) -> bool {
    ledger != LedgerNumber::SYSTEM && id.ledger() == LedgerNumber::SYSTEM
}

/// The key that an entry ends.
fn ends(event: &Event) -> Option<KeyId> {
    match &event.kind {
        Some(Kind::KeyRevoked(e)) => e.link.as_ref().and_then(|l| KeyId::from_slice(&l.key_id)),
        _ => None,
    }
}

fn caller_id(event: &Event) -> Result<Option<KeyId>, ApplyError> {
    event
        .caller
        .as_ref()
        .map(|c| KeyId::from_slice(&c.key_id).ok_or(ApplyError::Field("caller")))
        .transpose()
}

fn register_ledger(
    state: &mut State,
    at: &At,
    e: &body::LedgerRegistered,
) -> Result<(), ApplyError> {
    if state.ledger.as_ref().is_none_or(|l| l.number != LedgerNumber::SYSTEM) {
        return Err(ApplyError::SystemOnly);
    }
    let number = LedgerNumber(e.number);
    if number == LedgerNumber::SYSTEM
        || state.registered.values().any(|l| l.number == number || l.name == e.name)
    {
        return Err(ApplyError::LedgerExists);
    }
    let ledger = RegisteredLedger {
        id: bytes(&e.ledger_id, "ledger_id")?,
        number,
        name: e.name.clone(),
        origin: e.origin.clone(),
        position: at.position,
    };
    state.registered.insert(number, Arc::new(ledger));
    Ok(())
}

/// The limits are not the ledger's own to set: they keep it from taking a replica for itself.
fn update_policy(
    state: &mut State,
    at: &At,
    e: &body::LedgerPolicyUpdated,
) -> Result<(), ApplyError> {
    let policy = Policy::from_body(e.policy.as_ref().ok_or(ApplyError::Field("policy"))?)?;
    let by_system = at.caller.is_none_or(|id| id.ledger() == LedgerNumber::SYSTEM);
    let old = state.policy.clone();
    if policy.limits != old.policy.limits && !by_system {
        return Err(ApplyError::Limits);
    }
    let notices_changed = policy.notice_days != old.policy.notice_days;
    let current = CurrentPolicy { policy, position: at.position, leaf_hash: at.leaf_hash };
    state.policy = Arc::new(current);
    if notices_changed {
        state.forget_due();
    }
    Ok(())
}

fn create_role(state: &mut State, at: &At, e: &body::RoleCreated) -> Result<(), ApplyError> {
    if state.roles.contains_key(e.name.as_str()) {
        return Err(ApplyError::RoleExists);
    }
    let name: Arc<str> = e.name.as_str().into();
    let role = Role {
        name: name.clone(),
        grants: grants(&e.grants)?,
        rotation: e.rotation.as_ref().map(Rotation::from_body).transpose()?,
        max_staleness: staleness(e.max_staleness_us)?,
        created: at.time,
        retired: None,
        position: at.position,
        leaf_hash: at.leaf_hash,
        described_position: at.position,
    };
    state.roles.insert(name, Arc::new(role));
    Ok(())
}

fn update_role(state: &mut State, at: &At, e: &body::RoleUpdated) -> Result<(), ApplyError> {
    let mut role = next_of_role(state, at, &e.name)?;
    role.grants = grants(&e.grants)?;
    role.max_staleness = staleness(e.max_staleness_us)?;
    if e.described {
        role.described_position = at.position;
    }
    let rotation = e.rotation.as_ref().map(Rotation::from_body).transpose()?;
    let rotation_changed = role.rotation != rotation;
    role.rotation = rotation;
    state.roles.insert(role.name.clone(), Arc::new(role));
    if rotation_changed {
        state.forget_due();
    }
    Ok(())
}

fn retire_role(state: &mut State, at: &At, e: &body::RoleRetired) -> Result<(), ApplyError> {
    let mut role = next_of_role(state, at, &e.name)?;
    role.retired = Some(at.time);
    let had_rotation = role.rotation.is_some();
    state.roles.insert(role.name.clone(), Arc::new(role));
    if had_rotation {
        state.forget_due();
    }
    Ok(())
}

/// The live role that an entry continues, with the entry counted in.
fn next_of_role(state: &State, at: &At, name: &str) -> Result<Role, ApplyError> {
    let live = state.roles.get(name).filter(|r| r.retired.is_none());
    let mut role = live.map(|r| Role::clone(r)).ok_or(ApplyError::NoSuchRole)?;
    role.position = at.position;
    role.leaf_hash = at.leaf_hash;
    Ok(role)
}

fn start_server(state: &mut State, e: &body::ServerStarted) -> Result<(), ApplyError> {
    if state.ledger.as_ref().is_none_or(|l| l.number != LedgerNumber::SYSTEM) {
        return Err(ApplyError::SystemOnly);
    }
    bytes::<32>(&e.configuration_digest, "configuration_digest")?;
    if e.number != state.next_start {
        return Err(ApplyError::Number);
    }
    state.next_start += 1;
    Ok(())
}

fn count_page(state: &mut State, at: &At, e: &body::UsePage) -> Result<(), ApplyError> {
    bytes::<32>(&e.root, "root")?;
    if e.count == 0 || e.count as usize > page::MAX_USES {
        return Err(ApplyError::Field("count"));
    }
    if e.number != state.next_page {
        return Err(ApplyError::Number);
    }
    if !e.spent.is_sorted_by(|a, b| a.key_id < b.key_id) {
        return Err(ApplyError::Field("spent"));
    }
    let spent = |s: &body::Spent| {
        let id = KeyId::from_slice(&s.key_id).ok_or(ApplyError::Field("spent"))?;
        counted(state, id, s.uses, at.time)?.ok_or(ApplyError::Field("spent"))
    };
    let used = e.spent.iter().map(spent).collect::<Result<Vec<_>, _>>()?;
    let (servings, sessions) = (count_bounded(state, at, e)?, count_reported(state, at, e)?);
    (state.servings, state.sessions) = (servings, sessions);
    used.into_iter().for_each(|used| set_used(state, used));
    state.next_page += 1;
    Ok(())
}

fn staleness(micros: i64) -> Result<i64, ApplyError> {
    let good = (0..=crate::policy::LONGEST_STALENESS).contains(&micros);
    if good { Ok(micros) } else { Err(ApplyError::Field("max_staleness_us")) }
}

/// What other services record changes nothing but their number; and it must be well-formed.
fn count_event(state: &mut State, at: &At, e: &body::EventRecorded) -> Result<(), ApplyError> {
    let good = |actor: &body::Actor| match &actor.actor {
        Some(ActorKind::UserRef(reference)) => reference.len() == 16,
        Some(ActorKind::Service(name)) => !name.is_empty(),
        None => false,
    };
    if !e.actor.iter().chain(&e.on_behalf_of).all(good) || e.actor.is_none() {
        return Err(ApplyError::Field("actor"));
    }
    check_resource(&e.category).map_err(|_| ApplyError::Field("category"))?;
    let values = e.attributes.iter().all(|a| a.value.is_some());
    let known = Outcome::try_from(e.outcome).is_ok() && Severity::try_from(e.severity).is_ok();
    if !values || !known {
        return Err(ApplyError::Field("event"));
    }
    if !producers::may_have_signed(state, at.caller, e) {
        return Err(ApplyError::Field("signature"));
    }
    if e.number != state.next_event {
        return Err(ApplyError::Number);
    }
    state.next_event += 1;
    Ok(())
}

/// Whether the counts are right can be seen from what lies beside the entry alone.
fn tell_counts(state: &mut State, at: &At, e: &body::CategoryCounted) -> Result<(), ApplyError> {
    bytes::<32>(&e.root, "root")?;
    if e.number != state.counts.next_number {
        return Err(ApplyError::Number);
    }
    if !state.counts.is_due(at.position, at.time) || at.caller.is_some() {
        return Err(ApplyError::Field("time_us"));
    }
    state.counts.tell(at.position, at.time);
    Ok(())
}

fn grants(grants: &[body::Grant]) -> Result<Box<[Grant]>, ApplyError> {
    Ok(grants.iter().map(Grant::from_body).collect::<Result<_, _>>()?)
}

fn bytes<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], ApplyError> {
    bytes.try_into().map_err(|_| ApplyError::Field(field))
}

fn public_key(key: &[u8]) -> Result<VerifyingKey, ApplyError> {
    VerifyingKey::from_bytes(&bytes(key, "public_key")?)
        .map_err(|_| ApplyError::Field("public_key"))
}
