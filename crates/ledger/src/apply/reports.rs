//! Applying what pages say of uses that services reported.

use super::{ApplyError, At, bytes};
use crate::body::{self, ReportedUses};
use crate::id::KeyId;
use crate::reports::{Session, Sessions, may_begin};
use crate::state::State;

/// The sessions after a page. Those that have lapsed are forgotten by the way.
pub(super) fn count_reported(
    state: &State,
    at: &At,
    e: &body::UsePage,
) -> Result<Sessions, ApplyError> {
    if e.reported.is_empty() {
        return Ok(state.sessions.clone());
    }
    let id = |r: &ReportedUses| (r.reporter.clone(), r.session_id.clone());
    if !e.reported.is_sorted_by(|a, b| id(a) < id(b)) {
        return Err(ApplyError::Field("reported"));
    }
    let live = state.sessions.iter().filter(|(_, s)| !s.has_lapsed(at.time));
    let mut sessions: Sessions = live.map(|(id, s)| (*id, *s)).collect();
    for r in &e.reported {
        count_session(state, at, r, &mut sessions)?;
    }
    Ok(sessions)
}

fn count_session(
    state: &State,
    at: &At,
    r: &ReportedUses,
    sessions: &mut Sessions,
) -> Result<(), ApplyError> {
    let wrong = ApplyError::Field("reported");
    let reporter = KeyId::from_slice(&r.reporter).filter(|id| state.keys.contains_key(id));
    let id = (reporter.ok_or(wrong.clone())?, bytes(&r.session_id, "reported.session_id")?);
    let session = match sessions.get(&id) {
        Some(session) => *session,
        None => {
            may_begin(sessions.keys(), id, at.time).map_err(|_| wrong.clone())?;
            Session { recorded: 0, newest: at.time, ended: false }
        }
    };
    if session.ended || r.uses == 0 && !r.ended {
        return Err(wrong);
    }
    let recorded = session.recorded + u64::from(r.uses);
    sessions.insert(id, Session { recorded, newest: at.time, ended: r.ended });
    Ok(())
}
