//! Applying what replicas say that answer from memory, and the uses that they record.

use imbl::OrdMap;

use super::{ApplyError, At, bytes};
use crate::body;
use crate::bounded::{LONGEST_SERVING, Serving};
use crate::id::Time;
use crate::state::State;

/// What a page says of servings: only those that were announced and haven't lapsed record anything.
pub(super) fn count_bounded(
    state: &State,
    at: &At,
    e: &body::UsePage,
) -> Result<OrdMap<[u8; 16], Serving>, ApplyError> {
    let wrong = ApplyError::Field("bounded");
    if !e.bounded.is_sorted_by(|a, b| a.serving_id < b.serving_id) {
        return Err(wrong);
    }
    let mut servings = state.servings.clone();
    for b in &e.bounded {
        let id = bytes(&b.serving_id, "bounded.serving_id")?;
        let serving = servings.get(&id).filter(|s| !s.has_lapsed(at.time)).copied();
        let serving = serving.filter(|_| b.uses > 0).ok_or(wrong.clone())?;
        let recorded = serving.recorded + u64::from(b.uses);
        servings.insert(id, Serving { recorded, ..serving });
    }
    Ok(servings)
}

/// Servings that have lapsed are forgotten by the way: that they have no end stays in the ledger.
pub(super) fn start_bounded(
    state: &mut State,
    at: &At,
    e: &body::BoundedServingStarted,
) -> Result<(), ApplyError> {
    let (id, until) = (bytes(&e.serving_id, "serving_id")?, Time(e.until_us));
    if until <= at.time || until > at.time.plus_micros(LONGEST_SERVING) || at.caller.is_some() {
        return Err(ApplyError::Field("until_us"));
    }
    state.servings = state
        .servings
        .iter()
        .filter(|(_, s)| !s.has_lapsed(at.time))
        .map(|(id, s)| (*id, *s))
        .collect();
    let recorded = state.servings.get(&id).map_or(0, |serving| serving.recorded);
    state.servings.insert(id, Serving { until, recorded });
    Ok(())
}

pub(super) fn end_bounded(
    state: &mut State,
    at: &At,
    e: &body::BoundedServingEnded,
) -> Result<(), ApplyError> {
    let id: [u8; 16] = bytes(&e.serving_id, "serving_id")?;
    let recorded = state.servings.get(&id).map(|serving| serving.recorded);
    if recorded != Some(e.uses) || at.caller.is_some() {
        return Err(ApplyError::Field("uses"));
    }
    state.servings.remove(&id);
    Ok(())
}
