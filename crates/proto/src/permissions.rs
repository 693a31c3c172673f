//! The catalogue of permissions: what Keyledger itself asks for, with a sentence of plain language each.

use crate::methods;

/// Name, what it allows.
const SENTENCES: &[(&str, &str)] = &[
    ("audit.acknowledge", "Say what unusual use was found to be."),
    ("audit.checkpoint", "Get the signed size and root hash of the ledger."),
    ("audit.forwarders", "See what is sent on to other systems, and how far that has come."),
    ("audit.read", "Read, search and stream the log of a category."),
    ("audit.write", "Record events of a category."),
    ("keys.create", "Create keys that may do no more than the creator."),
    ("keys.create-without-expiry", "Create keys that never end."),
    ("keys.explain", "Be told why exactly a key is not valid."),
    ("keys.extend", "Move the end of a key's life to a later time."),
    (
        "keys.import",
        "Take over keys that were made elsewhere, which may do no more than the importer.",
    ),
    ("keys.lookup", "Find the key behind a token."),
    ("keys.read", "See keys, what they may do, and who has access to what."),
    ("keys.resume", "Accept a suspended key again."),
    ("keys.revoke", "End a key for good."),
    ("keys.rotate", "Give a key a new secret."),
    ("keys.suspend", "Stop a key until it is resumed."),
    ("keys.test", "Try what a key could do, without using it."),
    ("keys.update", "Change what a key is or may do."),
    ("keys.verify", "Check the keys that others present."),
    ("ledgers.open", "Open a new ledger."),
    ("ledgers.read", "See ledgers, and what holds in them."),
    ("ledgers.update-policy", "Change what keys and changes of a ledger must keep to."),
    ("owners.update", "Say that an owner of keys has left, or is back."),
    ("permissions.register", "Register a service's own permissions under its prefix."),
    ("reviews.sign", "Sign reports of who held what off."),
    ("roles.create", "Create roles that give no more than the creator holds."),
    ("roles.read", "See roles and permissions."),
    ("roles.retire", "Retire a role, for all its holders."),
    ("roles.update", "Change what a role gives, for all its holders."),
];

/// Where those are asked for that stand on no method of their own.
const ELSEWHERE: &[(&str, &str)] = &[
    ("audit.write", "logs/{category=**}"),
    ("keys.create-without-expiry", "keys"),
    ("keys.explain", "keys"),
    ("keys.extend", "keys/{key_id}"),
];

/// All of them, by name.
pub fn all() -> Vec<crate::Permission> {
    let methods = methods::all();
    let permission = |(name, description): &(&str, &str)| {
        let asked = methods.iter().filter(|m| m.permission == *name).map(|m| &*m.template);
        let elsewhere = ELSEWHERE.iter().filter(|(n, _)| n == name).map(|(_, resource)| *resource);
        let mut resources: Vec<String> = asked.chain(elsewhere).map(String::from).collect();
        resources.sort();
        resources.dedup();
        crate::Permission {
            name: name.to_string(),
            description: description.to_string(),
            resources,
            registered_by: String::new(),
        }
    };
    SENTENCES.iter().map(permission).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keyledger_ledger::permissions::RESERVED;
    use keyledger_ledger::roles::PREDEFINED;

    use super::*;

    fn is_known(name: &str) -> bool {
        SENTENCES.iter().any(|(known, _)| *known == name)
    }

    #[test]
    fn every_permission_of_a_method_or_predefined_role_has_a_sentence() {
        for method in methods::all() {
            assert!(method.permission.is_empty() || is_known(&method.permission), "{method:?}");
        }
        for grant in PREDEFINED.iter().flat_map(|r| r.shown_grants()) {
            for permission in grant.to_body().permissions {
                assert!(permission == "*" || is_known(&permission), "{permission}");
            }
        }
        assert!(SENTENCES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(all().iter().all(|p| !p.resources.is_empty()), "each is asked for somewhere");
    }

    #[test]
    fn every_prefix_of_a_permission_of_our_own_is_reserved_and_hardly_another() {
        let first = |(name, _): &(&'static str, &str)| name.split('.').next();
        let ours = SENTENCES.iter().filter_map(first).chain(["keyledger", "permissions"]);
        let ours: BTreeSet<&str> = ours.collect();
        assert_eq!(RESERVED, Vec::from_iter(ours));
    }
}
