//! Answers from memory: which replica gives them, how many of its uses are recorded, and when one may be given.
//!
//! A use that is answered from memory is recorded a moment later. Before a replica answers the first one it says so in the
//! ledger, and until when; when it stops it says how many there were. Uses of one serving are numbered without gaps, so each
//! is recorded exactly once, and a crash leaves a window that anyone can see.

use crate::body;
use crate::command::{DAY, SECOND};
use crate::id::{KeyId, Time};
use crate::judge::{self, Asked, Match};
use crate::state::State;

/// Longest time for which a serving is announced.
pub const LONGEST_SERVING: i64 = DAY / 24;
/// How long after its end the last uses of a serving may be recorded.
pub const GRACE: i64 = 60 * SECOND;

/// A replica that answers from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serving {
    /// It answers nothing after this time.
    pub until: Time,
    /// How many of its uses are recorded.
    pub recorded: u64,
}

impl Serving {
    /// Whether it ended without saying so.
    pub fn has_lapsed(&self, now: Time) -> bool {
        self.until.plus_micros(GRACE) < now
    }
}

/// A use that was answered from memory.
#[derive(Clone, Debug)]
pub struct BoundedUse {
    pub serving: [u8; 16],
    pub number: u64,
    pub r#use: body::Use,
}

/// Who asks for an answer from memory, about whom.
#[derive(Clone, Copy)]
pub struct Parties {
    pub caller: (KeyId, u32),
    pub subject: (KeyId, u32),
}

/// What may be answered from memory, and how old that may be in microseconds.
#[derive(Clone, Debug)]
pub struct MayAnswer {
    pub matched: Match,
    pub max_staleness: i64,
}

/// Whether a check may be answered from this state. `None`: it is to be answered strictly, which is never wrong. Only what is
/// allowed is answered so, by a role that allows it, and for keys whose uses aren't counted or waited for.
pub fn may_answer(
    state: &State,
    parties: Parties,
    by_caller: Asked<'_>,
    of_subject: Asked<'_>,
    asked: i64,
    now: Time,
) -> Option<MayAnswer> {
    let uncounted = |id: &KeyId| {
        state.keys.get(id).is_some_and(|key| {
            key.used.is_none() && !key.until_first_use && key.digest_commitment().is_none()
        })
    };
    let ((caller, caller_version), (subject, version)) = (parties.caller, parties.subject);
    if !uncounted(&caller) || !uncounted(&subject) {
        return None;
    }
    if !judge::judge(state, caller, caller_version, by_caller, now).allowed() {
        return None;
    }
    let matched = judge::judge(state, subject, version, of_subject, now).matched?;
    let role = state.roles.get(matched.role.as_deref()?)?;
    let max_staleness = asked.min(role.max_staleness).min(state.policy.policy.max_staleness);
    (max_staleness > 0).then_some(MayAnswer { matched, max_staleness })
}

/// For how long a strict answer may be kept by the caller and given again, in microseconds; 0: not at all. Where it could be answered from
/// memory, and never beyond the end of the key or of its secret.
pub fn may_keep(
    state: &State,
    parties: Parties,
    by_caller: Asked<'_>,
    of_subject: Asked<'_>,
    asked: i64,
    now: Time,
) -> i64 {
    let may = may_answer(state, parties, by_caller, of_subject, asked, now);
    let (id, version) = parties.subject;
    let (Some(may), Some(key)) = (may, state.keys.get(&id)) else { return 0 };
    let of_version = key.versions.iter().find(|v| v.number == version).and_then(|v| v.expires);
    let ends = [key.expires, of_version].into_iter().flatten();
    let left = ends.map(|end| end.micros() - now.micros()).min();
    may.max_staleness.min(left.unwrap_or(may.max_staleness)).max(0)
}

/// Whether something that counts for a verdict has changed since a position: then an answer from memory as of it may differ
/// from a strict one now.
pub fn has_changed_since(state: &State, id: KeyId, position: u64, since: Time, now: Time) -> bool {
    let Some(key) = state.keys.get(&id) else { return false };
    let ends = |end: &Option<Time>| end.is_some_and(|end| since < end && end <= now);
    let roles = || key.roles.iter().filter_map(|name| state.roles.get(name));
    key.position >= position
        || ends(&key.expires)
        || key.versions.iter().any(|v| ends(&v.expires))
        || roles().any(|role| role.position >= position)
        || state.policy.position >= position
}
