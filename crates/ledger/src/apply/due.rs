//! Whether what Keyledger does to keys by itself was due: applied only if it was.

use super::{ApplyError, At};
use crate::body::{self, Kind, RevocationKind};
use crate::id::{KeyId, Time};
use crate::idle::{self, IdleEnd};
use crate::state::{DueNote, State};

/// What Keyledger notes of a key by itself is what was to be noted by then: neither too early nor twice.
pub(super) fn check(state: &State, at: &At, kind: &Kind) -> Result<(), ApplyError> {
    let (link, note) = match kind {
        Kind::KeySuspended(e) if e.anomaly_position.is_some() => {
            return check_suspended(state, at, e);
        }
        Kind::KeySuspended(e) if e.idle_since_us != 0 => {
            return check_idle(state, at, &e.link, IdleEnd::Suspend, e.idle_since_us);
        }
        Kind::KeyRevoked(e) if e.idle_since_us != 0 => {
            if e.kind != RevocationKind::Unused as i32 {
                return Err(ApplyError::Field("kind"));
            }
            return check_idle(state, at, &e.link, IdleEnd::Revoke, e.idle_since_us);
        }
        Kind::KeyExpiring(e) => (&e.link, DueNote::Expiring { days: e.days }),
        Kind::KeyExpired(e) => (&e.link, DueNote::Expired),
        Kind::RotationDue(e) => (&e.link, DueNote::RotationDue { version: e.version }),
        Kind::KeySuspended(e) if e.overdue_version != 0 => {
            (&e.link, DueNote::Overdue { version: e.overdue_version })
        }
        _ => return Ok(()),
    };
    let id = link.as_ref().and_then(|l| KeyId::from_slice(&l.key_id));
    let key = id.and_then(|id| state.keys.get(&id)).ok_or(ApplyError::NoSuchKey)?;
    let due = state.due_note(key, at.time) == Some(note) && at.caller.is_none();
    if due { Ok(()) } else { Err(ApplyError::KeyState) }
}

/// Whether the policy of that time asked for it. When a key was last used is nothing that the state knows: that it wasn't
/// since is Keyledger's word, and the log's uses show it.
fn check_idle(
    state: &State,
    at: &At,
    link: &Option<body::KeyLink>,
    end: IdleEnd,
    since_us: i64,
) -> Result<(), ApplyError> {
    let id = link.as_ref().and_then(|l| KeyId::from_slice(&l.key_id));
    let key = id.and_then(|id| state.keys.get(&id)).ok_or(ApplyError::NoSuchKey)?;
    let asked = idle::end_of(state, key, Time(since_us), at.time) == Some(end);
    if asked && at.caller.is_none() { Ok(()) } else { Err(ApplyError::KeyState) }
}

/// A key is suspended only for what goes on, only if that says so, and only once for it.
fn check_suspended(state: &State, at: &At, e: &body::KeySuspended) -> Result<(), ApplyError> {
    let open = e.anomaly_position.and_then(|at| state.anomalies.at(at)).map(|(_, open)| open);
    let key = open.and_then(|open| state.to_suspend(open, at.time));
    let link = e.link.as_ref().and_then(|link| KeyId::from_slice(&link.key_id));
    let one_cause = e.overdue_version == 0 && e.idle_since_us == 0;
    let due = key.is_some_and(|key| Some(key.id) == link) && one_cause && at.caller.is_none();
    if due { Ok(()) } else { Err(ApplyError::Field("anomaly_position")) }
}
