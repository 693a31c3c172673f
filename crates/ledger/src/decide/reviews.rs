//! Deciding what is said of owners and reviews.

use super::{find, owner, wrong};
use crate::body::{self, Kind};
use crate::command::{Refusal, SignReview};
use crate::id::Time;
use crate::state::{Owner, State};

/// Most owners that are marked as having left.
const MAX_LEFT: usize = 100_000;

pub(super) fn set_owner_status(state: &State, who: &Owner, left: bool) -> Result<Kind, Refusal> {
    if state.left.contains_key(who) == left {
        return Err(Refusal::OwnerStatus { left });
    }
    if left && state.left.len() >= MAX_LEFT {
        return Err(Refusal::LedgerFull { what: "owners who left", most: MAX_LEFT as u64 });
    }
    Ok(Kind::OwnerStatusSet(body::OwnerStatusSet { owner: Some(owner(who)), left }))
}

/// Nobody signs what is still to come: neither a time nor a position.
pub(super) fn sign(state: &State, c: &SignReview, now: Time) -> Result<Kind, Refusal> {
    if c.from >= c.to {
        return Err(wrong("to_time", "must be after from_time"));
    }
    if c.to > now {
        return Err(wrong("to_time", "must not be in the future"));
    }
    if c.as_of_position > state.next_position {
        let problem = format!("must be at most {}, the size of the ledger", state.next_position);
        return Err(wrong("as_of_position", problem));
    }
    if let Some(key_id) = c.key_id {
        find(state, key_id)?;
    }
    Ok(Kind::ReviewSigned(body::ReviewSigned {
        from_us: c.from.micros(),
        to_us: c.to.micros(),
        as_of_position: c.as_of_position,
        report_sha256: c.report_sha256.to_vec(),
        approved: c.approved,
        key_id: c.key_id.map_or(vec![], |id| id.as_bytes().to_vec()),
    }))
}
