//! Roles: made, changed and retired for all their holders. A role has neither an end nor restrictions of its own: those are the
//! holders'. So who changes a role answers for what it gives, and not for how long or where from.

use super::check_etag;
use super::gives::check_hands_on;
use crate::body::{self, Kind};
use crate::command::{Refusal, UpdateRole};
use crate::grant::Grant;
use crate::policy::Rotation;
use crate::roles;
use crate::state::{Key, Role, State};

pub(super) fn create_role(
    state: &State,
    caller: Option<&Key>,
    name: &str,
    grants: &[Grant],
    rotation: Option<Rotation>,
    max_staleness: i64,
) -> Result<Kind, Refusal> {
    if state.roles.contains_key(name) || roles::is_predefined(name) {
        return Err(Refusal::RoleExists);
    }
    let most = state.policy.policy.limits.roles;
    if state.roles.len() as u64 >= most {
        return Err(Refusal::LedgerFull { what: "roles", most });
    }
    check_hands_on(state, caller, grants)?;
    Ok(Kind::RoleCreated(body::RoleCreated {
        name: name.to_string(),
        grants: grants.iter().map(Grant::to_body).collect(),
        rotation: rotation.map(Rotation::to_body),
        max_staleness_us: max_staleness,
    }))
}

pub(super) fn update_role(
    state: &State,
    caller: Option<&Key>,
    c: &UpdateRole,
) -> Result<Kind, Refusal> {
    let role = live_role(state, &c.name)?;
    check_etag(&c.etag, &role.etag())?;
    if let Some(grants) = &c.grants {
        check_hands_on(state, caller, grants)?;
    }
    // A policy of secrets may suspend all holders; an answer from memory is less strict.
    if c.rotation.is_some() || c.max_staleness.is_some() {
        check_hands_on(state, caller, &role.grants)?;
    }
    let grants = c.grants.as_deref().unwrap_or(&role.grants);
    let rotation = c.rotation.unwrap_or(role.rotation);
    Ok(Kind::RoleUpdated(body::RoleUpdated {
        name: c.name.clone(),
        grants: grants.iter().map(Grant::to_body).collect(),
        described: c.described,
        rotation: rotation.map(Rotation::to_body),
        max_staleness_us: c.max_staleness.unwrap_or(role.max_staleness),
    }))
}

pub(super) fn retire_role(state: &State, name: &str, etag: &str) -> Result<Kind, Refusal> {
    check_etag(etag, &live_role(state, name)?.etag())?;
    Ok(Kind::RoleRetired(body::RoleRetired { name: name.to_string() }))
}

/// A role of the ledger's own that still gives something.
fn live_role<'a>(state: &'a State, name: &str) -> Result<&'a Role, Refusal> {
    match state.roles.get(name) {
        Some(role) if role.retired.is_none() => Ok(role),
        Some(_) => Err(Refusal::RoleRetired),
        None if roles::is_predefined(name) => Err(Refusal::RolePredefined),
        None => Err(Refusal::RoleNotFound { name: name.into() }),
    }
}
