//! Applying what a service registers in the catalogue of permissions.

use std::sync::Arc;

use super::keys::owner;
use super::{ApplyError, At};
use crate::body;
use crate::permissions::{MAX_OF_PREFIX, is_prefix, is_under};
use crate::state::{RegisteredPermissions, State};

/// Which prefixes are reserved isn't looked at: what was registered before Keyledger asked for it stays as it is.
pub(super) fn register(
    state: &mut State,
    at: &At,
    e: &body::PermissionsRegistered,
) -> Result<(), ApplyError> {
    if !is_prefix(&e.prefix) {
        return Err(ApplyError::Field("prefix"));
    }
    // In order, each once: the sentences beside the entry are found by it.
    let well_formed = (1..=MAX_OF_PREFIX).contains(&e.names.len())
        && e.names.iter().all(|name| is_under(&e.prefix, name))
        && e.names.is_sorted_by(|a, b| a < b);
    if !well_formed {
        return Err(ApplyError::Field("names"));
    }
    let owner = owner(e.owner.as_ref())?;
    // Whoever folds what is about no key has no callers. What they found was checked by whoever appended it.
    let caller = at.caller.and_then(|id| state.keys.get(&id));
    if caller.is_some_and(|key| key.owner != owner) {
        return Err(ApplyError::Field("owner"));
    }
    if state.permissions.get(e.prefix.as_str()).is_some_and(|earlier| earlier.owner != owner) {
        return Err(ApplyError::PrefixTaken);
    }
    let prefix: Arc<str> = e.prefix.as_str().into();
    let registered = RegisteredPermissions {
        prefix: prefix.clone(),
        names: e.names.iter().map(|name| name.as_str().into()).collect(),
        owner,
        position: at.position,
    };
    state.permissions.insert(prefix, Arc::new(registered));
    Ok(())
}
