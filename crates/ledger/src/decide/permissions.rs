//! Deciding what a service registers in the catalogue of permissions.

use super::{owner, wrong};
use crate::body::{self, Kind};
use crate::command::Refusal;
use crate::permissions::{MAX_PREFIXES, is_reserved};
use crate::state::{Key, State};

/// The first registrar owns a prefix. Keyledger itself registers nothing: its own permissions are built in.
pub(super) fn register(
    state: &State,
    caller: Option<&Key>,
    prefix: &str,
    names: &[String],
) -> Result<Kind, Refusal> {
    let caller = caller.ok_or(Refusal::Internal)?;
    if is_reserved(prefix) {
        return Err(wrong("prefix", "is one of Keyledger's own"));
    }
    match state.permissions.get(prefix) {
        Some(registered) if registered.owner != caller.owner => {
            return Err(Refusal::PrefixTaken { prefix: prefix.into() });
        }
        None if state.permissions.len() >= MAX_PREFIXES => {
            return Err(Refusal::LedgerFull { what: "prefixes", most: MAX_PREFIXES as u64 });
        }
        Some(_) | None => {}
    }
    Ok(Kind::PermissionsRegistered(body::PermissionsRegistered {
        prefix: prefix.into(),
        owner: Some(owner(&caller.owner)),
        names: names.to_vec(),
    }))
}
