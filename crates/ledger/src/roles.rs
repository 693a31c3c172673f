//! Roles: named sets of grants. A ledger's own are made by its entries; the predefined ones are the same in every ledger,
//! for ever, and can't be changed.
//!
//! A key names the roles it holds. `log-reader(error)` is a predefined role with its parameter.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use crate::grant::{Grant, check_resource};
use crate::state::{Key, State};

/// A role that every ledger has.
pub struct Predefined {
    pub name: &'static str,
    /// What stands in brackets after the name when it is given, if it takes something.
    pub parameter: Option<&'static str>,
    /// What it is for.
    pub description: &'static str,
    grants: fn(&str) -> Vec<Grant>,
}

/// All predefined roles. What one allows is never changed: keys hold it by its name.
pub static PREDEFINED: &[Predefined] = &[
    Predefined {
        name: "admin",
        parameter: None,
        description: "May do everything in its ledger, and hand it on.",
        grants: |_| vec![grant(&["*"], "**")],
    },
    Predefined {
        name: "key-manager",
        parameter: None,
        description: "Issues, changes, rotates, suspends and revokes keys that read or write logs, or check keys. \
                      What else it should issue, it is given as give-only grants.",
        grants: |_| {
            vec![
                grant(MANAGE_KEYS, "keys"),
                grant(MANAGE_KEYS, "keys/**"),
                grant(&["roles.read"], "roles"),
                grant(&["roles.read"], "roles/**"),
                to_give(&["audit.read", "audit.write"], "logs/**"),
                to_give(&["keys.verify"], "keys"),
            ]
        },
    },
    Predefined {
        name: "auditor",
        parameter: None,
        description: "Reads everything and changes nothing.",
        grants: |_| {
            vec![
                grant(&["audit.read"], "logs/**"),
                grant(&["audit.checkpoint"], "logs"),
                grant(&["audit.forwarders"], "forwarders"),
                grant(&["keys.read", "keys.explain", "keys.test"], "keys"),
                grant(&["keys.read", "keys.explain", "keys.test"], "keys/**"),
                grant(&["roles.read"], "roles"),
                grant(&["roles.read"], "roles/**"),
                grant(&["ledgers.read"], "ledgers"),
                grant(&["ledgers.read"], "ledgers/**"),
            ]
        },
    },
    Predefined {
        name: "log-writer",
        parameter: None,
        description: "Records events in every category.",
        grants: |_| vec![grant(&["audit.write"], "logs/**")],
    },
    Predefined {
        name: "log-reader",
        parameter: Some("category"),
        description: "Reads the log of one category, and nothing else.",
        grants: |category| vec![grant(&["audit.read"], &format!("logs/{category}"))],
    },
    Predefined {
        name: "verifier",
        parameter: None,
        description: "Checks the keys that are presented to a service.",
        grants: |_| vec![grant(&["keys.verify"], "keys")],
    },
];

const MANAGE_KEYS: &[&str] = &[
    "keys.create",
    "keys.explain",
    "keys.extend",
    "keys.read",
    "keys.resume",
    "keys.revoke",
    "keys.rotate",
    "keys.suspend",
    "keys.test",
    "keys.update",
    "keys.verify",
];

impl Predefined {
    /// What its holders may do; with a parameter's name in its place where it takes one.
    pub fn shown_grants(&self) -> Vec<Grant> {
        (self.grants)(self.parameter.unwrap_or_default())
    }
}

/// What was made of the predefined roles without a parameter, once.
static FIXED: LazyLock<Vec<(&'static str, Vec<Grant>)>> = LazyLock::new(|| {
    let fixed = PREDEFINED.iter().filter(|r| r.parameter.is_none());
    fixed.map(|r| (r.name, (r.grants)(""))).collect()
});

/// Whether a name is that of a predefined role: no ledger can make one of its own with it.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|r| r.name == name)
}

/// What a role gives, by the name that a key holds it by. `None` if there is no such role; a retired one gives nothing.
pub fn grants<'a>(state: &'a State, name: &str) -> Option<Cow<'a, [Grant]>> {
    if let Some(role) = state.roles.get(name) {
        return Some(Cow::Borrowed(if role.retired.is_none() { &role.grants } else { &[] }));
    }
    if let Some((_, grants)) = FIXED.iter().find(|(n, _)| *n == name) {
        return Some(Cow::Borrowed(grants));
    }
    let (name, parameter) = name.strip_suffix(')')?.split_once('(')?;
    let role = PREDEFINED.iter().find(|r| r.name == name && r.parameter.is_some())?;
    check_resource(parameter).ok()?;
    Some(Cow::Owned((role.grants)(parameter)))
}

/// All sets of grants that a key has: its own, and those of its roles with their names.
pub fn of_key<'a>(
    state: &'a State,
    key: &'a Key,
) -> impl Iterator<Item = (Cow<'a, [Grant]>, Option<&'a Arc<str>>)> {
    let own = std::iter::once((Cow::Borrowed(&*key.grants), None));
    own.chain(key.roles.iter().filter_map(|name| Some((grants(state, name)?, Some(name)))))
}

fn grant(permissions: &[&str], resource: &str) -> Grant {
    new(permissions, resource, false)
}

fn to_give(permissions: &[&str], resource: &str) -> Grant {
    new(permissions, resource, true)
}

fn new(permissions: &[&str], resource: &str, give_only: bool) -> Grant {
    let permissions: Vec<String> = permissions.iter().map(|p| p.to_string()).collect();
    Grant::new(&permissions, resource, give_only).expect("our own grants, with a checked parameter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_predefined_role_can_be_found_by_its_name() {
        let state = State::default();
        for role in PREDEFINED {
            let name = match role.parameter {
                Some(_) => format!("{}(security/login)", role.name),
                None => role.name.to_string(),
            };
            assert!(!grants(&state, &name).unwrap().is_empty(), "{name}");
            assert!(!role.shown_grants().is_empty());
        }
    }

    #[test]
    fn a_parameter_is_one_concrete_resource_and_stands_where_it_belongs() {
        let state = State::default();
        assert!(grants(&state, "log-reader(error)").unwrap()[0].allows("audit.read", "logs/error"));
        for bad in [
            "log-reader",
            "log-reader()",
            "log-reader(*)",
            "log-reader(a/**)",
            "log-reader(a",
            "log-reader(a)b",
            "admin(x)",
            "nobody",
            "nobody(x)",
            "",
        ] {
            assert!(grants(&state, bad).is_none(), "{bad}");
        }
    }
}
