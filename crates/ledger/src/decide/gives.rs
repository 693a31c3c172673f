//! What a caller may give: rights inside its own, a life inside its own, and what needs a permission besides the method's.

use std::sync::Arc;

use super::wrong;
use crate::command::{DAY, EXTEND, Expiry, Refusal, SECOND, WITHOUT_EXPIRY};
use crate::grant::Grant;
use crate::id::Time;
use crate::judge;
use crate::restrict::Restrictions;
use crate::roles;
use crate::state::{Key, State};

/// Who changes something, and with whose approval.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    /// `None` when Keyledger itself acts, which may do everything.
    pub(super) caller: Option<&'a Key>,
    pub(super) approval_ref: &'a str,
}

impl By<'_> {
    /// A permission that is asked for besides the one of the method.
    fn check(self, state: &State, permission: &str, resource: &str) -> Result<(), Refusal> {
        let Some(caller) = self.caller else { return Ok(()) };
        if judge::matching_grant(state, caller, permission, resource).is_none() {
            let (permission, resource) = (permission.into(), resource.into());
            return Err(Refusal::PermissionDenied { permission, resource });
        }
        state.policy.policy.check_approval(permission, self.approval_ref)
    }
}

/// A later end than before needs a permission of its own.
pub(super) fn new_end(
    state: &State,
    by: By<'_>,
    key: &Key,
    asked: Expiry,
    now: Time,
) -> Result<Option<Time>, Refusal> {
    let end = expiry(state, by, asked, now)?;
    let later = match (key.expires, end) {
        (Some(old), Some(new)) => new > old,
        (Some(_), None) => true,
        (None, _) => false,
    };
    if later {
        by.check(state, EXTEND, &format!("keys/{}", key.id))?;
    }
    Ok(end)
}

/// A key never gives more than it holds, and nothing that is accepted where it isn't itself.
pub(super) fn check_gives(
    state: &State,
    caller: Option<&Key>,
    grants: &[Grant],
    roles: &[String],
    restrictions: Option<&Restrictions>,
) -> Result<(), Refusal> {
    let mut from_roles = vec![];
    for name in roles {
        let retired = state.roles.get(name.as_str()).is_some_and(|r| r.retired.is_some());
        let given = roles::grants(state, name).filter(|_| !retired);
        from_roles.push(given.ok_or_else(|| Refusal::RoleNotFound { name: name.clone() })?);
    }
    check_hands_on(state, caller, grants)?;
    from_roles.iter().try_for_each(|grants| check_hands_on(state, caller, grants))?;
    let own = caller.and_then(|key| key.restrictions.as_ref());
    let free = Restrictions::default();
    match own.and_then(|own| restrictions.unwrap_or(&free).beyond(own)) {
        None => Ok(()),
        Some(what) => {
            let what = format!("{what} beyond the caller's own");
            Err(Refusal::ExceedsOwnRights { what })
        }
    }
}

/// The same for a key as it is.
pub(super) fn check_gives_key(
    state: &State,
    caller: Option<&Key>,
    key: &Key,
) -> Result<(), Refusal> {
    let roles = live_roles(state, key);
    check_gives(state, caller, &key.grants, &roles, key.restrictions.as_deref())?;
    check_expiry_inside(caller, key.expires)
}

/// The roles of a key that still give something.
pub(super) fn live_roles(state: &State, key: &Key) -> Vec<String> {
    let live = |name: &&Arc<str>| state.roles.get(*name).is_none_or(|r| r.retired.is_none());
    key.roles.iter().filter(live).map(|name| name.to_string()).collect()
}

/// Each grant lies inside one single grant of the caller's, else the call is refused.
pub(super) fn check_hands_on(
    state: &State,
    caller: Option<&Key>,
    given: &[Grant],
) -> Result<(), Refusal> {
    let Some(caller) = caller else { return Ok(()) };
    let held = |grant: &Grant| {
        roles::of_key(state, caller).any(|(own, _)| own.iter().any(|mine| mine.covers(grant)))
    };
    match given.iter().find(|grant| !held(grant)) {
        Some(grant) => Err(Refusal::ExceedsOwnRights { what: format!("the grant {grant}") }),
        None => Ok(()),
    }
}

/// A key never lives longer than the one that made it.
pub(super) fn check_expiry_inside(
    caller: Option<&Key>,
    expires: Option<Time>,
) -> Result<(), Refusal> {
    let own_end = caller.and_then(|key| key.expires);
    match (own_end, expires) {
        (Some(own), Some(given)) if given > own => {
            Err(Refusal::ExceedsOwnRights { what: "a life beyond the caller's own".into() })
        }
        (Some(_), None) => Err(Refusal::ExceedsOwnRights { what: "a life without end".into() }),
        _ => Ok(()),
    }
}

/// When a key ends that is asked for so, within what the ledger's policy and the caller's own life allow.
pub(super) fn expiry(
    state: &State,
    by: By<'_>,
    asked: Expiry,
    now: Time,
) -> Result<Option<Time>, Refusal> {
    let (policy, caller) = (&state.policy.policy, by.caller);
    let expires = match asked {
        // A default is never more than the caller can give.
        Expiry::Default => {
            let end = now.plus_micros(policy.default_life);
            Some(caller.and_then(|key| key.expires).map_or(end, |own| own.min(end)))
        }
        Expiry::After(micros) => Some(now.plus_micros(micros)),
        Expiry::At(end) => Some(end),
        Expiry::Never => None,
    };
    let field = if matches!(asked, Expiry::At(_)) { "expire_time" } else { "ttl" };
    match expires {
        Some(end) if end <= now => return Err(wrong(field, "must lie in the future")),
        Some(end) if end > now.plus_micros(policy.max_life) => {
            let most = policy.max_life;
            return Err(wrong(field, format!("must be at most {} from now", show_life(most))));
        }
        Some(_) => {}
        None => by.check(state, WITHOUT_EXPIRY, "keys")?,
    }
    check_expiry_inside(caller, expires)?;
    Ok(expires)
}

/// In days where it is whole days.
pub(super) fn show_life(micros: i64) -> String {
    match micros % DAY {
        0 => format!("{} days", micros / DAY),
        _ => format!("{} seconds", micros / SECOND),
    }
}
