//! Idle keys: what a ledger's policy does about those that nobody uses. First a key is suspended, so that whoever still needs it
//! says so; later it is revoked.

use crate::body::{self, Kind, RevocationKind};
use crate::command::Refusal;
use crate::decide::next_link;
use crate::grant::Grant;
use crate::id::{KeyId, Time};
use crate::judge;
use crate::state::{Key, KeyStatus, State, Suspension};

/// What is to be done about a key that isn't used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleEnd {
    Suspend,
    Revoke,
}

/// From when on it counts that a key isn't used, even if it never was: since it was made, or since somebody resumed it.
fn begin(key: &Key) -> Time {
    match key.suspension {
        Suspension::Resumed(time) => time.max(key.created),
        Suspension::Never | Suspension::Since { .. } => key.created,
    }
}

/// Since when a key isn't used, by when it was last.
pub fn since(key: &Key, last_use: Option<Time>) -> Time {
    begin(key).max(last_use.unwrap_or(begin(key)))
}

/// Whether something might be to be done about a key, if it was never used: others needn't be looked at.
pub fn might_end(state: &State, key: &Key, now: Time) -> bool {
    end_by_policy(state, key, begin(key), now).is_some()
}

/// What is to be done about a key that has not been used since a time, which [`since`] gives. The last key that is accepted and
/// may do everything stays: without it nobody could resume the others.
pub fn end_of(state: &State, key: &Key, idle_since: Time, now: Time) -> Option<IdleEnd> {
    let end = end_by_policy(state, key, idle_since, now)?;
    let last_resort = end == IdleEnd::Suspend && is_last_resort(state, key, now);
    (!last_resort).then_some(end)
}

fn end_by_policy(state: &State, key: &Key, idle_since: Time, now: Time) -> Option<IdleEnd> {
    let policy = &state.policy.policy;
    if idle_since < begin(key) {
        return None;
    }
    let over = |from: Time, after: i64| after != 0 && from.plus_micros(after) <= now;
    match (key.status(now), key.suspension) {
        (KeyStatus::Active, _) => {
            over(idle_since, policy.idle_suspend_after).then_some(IdleEnd::Suspend)
        }
        (KeyStatus::Suspended, Suspension::Since { time, idle: true }) => {
            let revoke = idle_since <= time && over(time, policy.idle_revoke_after);
            revoke.then_some(IdleEnd::Revoke)
        }
        _ => None,
    }
}

/// Whether a key may do everything, and no other that is accepted may.
pub(crate) fn is_last_resort(state: &State, key: &Key, now: Time) -> bool {
    let everything =
        Grant::new(&["*".to_string()], "**", false).expect("a constant, and well-formed");
    let may = |key: &Key| judge::holds(state, key, &everything);
    let other =
        |other: &Key| other.id != key.id && other.status(now) == KeyStatus::Active && may(other);
    may(key) && !state.keys.values().any(|key| other(key))
}

/// Every replica looks; the first one does it.
pub(crate) fn decide(
    state: &State,
    key_id: KeyId,
    idle_since: Time,
    now: Time,
) -> Result<Kind, Refusal> {
    let key = state.keys.get(&key_id).ok_or(Refusal::KeyNotFound)?;
    let (link, idle_since_us) = (Some(next_link(key)), idle_since.micros());
    Ok(match end_of(state, key, idle_since, now).ok_or(Refusal::AlreadyDone)? {
        IdleEnd::Suspend => Kind::KeySuspended(body::KeySuspended {
            link,
            idle_since_us,
            ..body::KeySuspended::default()
        }),
        IdleEnd::Revoke => {
            let kind = RevocationKind::Unused as i32;
            Kind::KeyRevoked(body::KeyRevoked { link, kind, idle_since_us })
        }
    })
}
