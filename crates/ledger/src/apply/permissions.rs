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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::OwnerKind;
    use crate::id::Time;

    fn entry(names: &[&str]) -> body::PermissionsRegistered {
        body::PermissionsRegistered {
            prefix: "billing".into(),
            owner: Some(body::Owner { owner: Some(OwnerKind::Service("billing".into())) }),
            names: names.iter().map(|name| name.to_string()).collect(),
        }
    }

    fn apply(state: &mut State, e: &body::PermissionsRegistered) -> Result<(), ApplyError> {
        let at = At { position: 7, time: Time(1), leaf_hash: [0; 32], caller: None };
        register(state, &at, e)
    }

    #[test]
    fn an_entry_that_is_not_as_we_write_it_is_refused_and_changes_nothing() {
        let mut state = State::default();
        let many: Vec<String> = (100..201).map(|n| format!("billing.p{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (e, field) in [
            (
                body::PermissionsRegistered { prefix: "Billing".into(), ..entry(&["Billing.a"]) },
                "prefix",
            ),
            (body::PermissionsRegistered { owner: None, ..entry(&["billing.a"]) }, "owner"),
            (entry(&[]), "names"),
            (entry(&many), "names"),
            (entry(&["billing"]), "names"),
            (entry(&["payroll.a"]), "names"),
            (entry(&["billing.*"]), "names"),
            (entry(&["billing.b", "billing.a"]), "names"),
            (entry(&["billing.a", "billing.a"]), "names"),
        ] {
            assert_eq!(apply(&mut state, &e), Err(ApplyError::Field(field)), "{e:?}");
        }
        assert!(state.permissions.is_empty());
        assert_eq!(apply(&mut state, &entry(&many[..100])), Ok(()));
    }

    #[test]
    fn a_prefix_stays_with_its_owner() {
        let mut state = State::default();
        apply(&mut state, &entry(&["billing.a"])).unwrap();
        let other = Some(body::Owner { owner: Some(OwnerKind::UserRef(vec![7; 16])) });
        let other = body::PermissionsRegistered { owner: other, ..entry(&["billing.b"]) };
        assert_eq!(apply(&mut state, &other), Err(ApplyError::PrefixTaken));
        apply(&mut state, &entry(&["billing.c"])).unwrap();
        assert_eq!(*state.permissions["billing"].names, ["billing.c".into()]);
    }
}
