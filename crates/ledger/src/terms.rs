//! Terms: what entries are found by. An index holds, for each term, the positions at which something is found by it; a term
//! is a digest, so that all have the same length. People stand in it by reference, as in the signed bytes.
//!
//! What is frequent (an action, an outcome, a severity, a caller) has a term within its category too, so that a rare category
//! is not looked for among all events.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::anomaly;
use crate::body::{ActorKind, Event, Kind, Outcome, Severity, Use};
use crate::category::{self, ANOMALY};
use crate::id::KeyId;
use crate::page::ReadUse;
use crate::state::Owner;

/// Of how many segments of a path the index knows.
const MAX_SEGMENTS: usize = 8;

/// What entries are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term([u8; 16]);

impl Term {
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A use of this key, or by it.
    pub fn key(id: KeyId) -> Term {
        Term::of("key", None, id.as_bytes())
    }

    /// Whose key it is about, or called.
    pub fn owner(owner: &Owner) -> Term {
        match owner {
            Owner::User(reference) => Term::of("owner user", None, reference),
            Owner::Service(name) => Term::of("owner service", None, name.as_bytes()),
        }
    }

    /// Who is said to have acted.
    pub fn actor(actor: &ActorKind) -> Term {
        match actor {
            ActorKind::UserRef(reference) => Term::of("actor user", None, reference),
            ActorKind::Service(name) => Term::of("actor service", None, name.as_bytes()),
        }
    }

    /// Who is said to have done what: what both by themselves find too much of.
    pub fn actor_and_action(actor: &ActorKind, action: &str) -> Term {
        let digest = Term::actor(actor);
        Term::of("actor and action", None, &[digest.0.as_slice(), action.as_bytes()].concat())
    }

    pub fn action(category: Option<&str>, action: &str) -> Term {
        Term::of("action", category, action.as_bytes())
    }

    pub fn outcome(category: Option<&str>, outcome: Outcome) -> Term {
        Term::of("outcome", category, &(outcome as i32).to_be_bytes())
    }

    pub fn severity(category: Option<&str>, severity: Severity) -> Term {
        Term::of("severity", category, &(severity as i32).to_be_bytes())
    }

    /// The key that recorded an event, in its category.
    pub fn caller(category: &str, id: KeyId) -> Term {
        Term::of("caller", Some(category), id.as_bytes())
    }

    /// An anomaly of this key.
    pub fn anomaly_of(id: KeyId) -> Term {
        Term::of("anomaly of key", None, id.as_bytes())
    }

    /// A resource below this folder, which ends with `/`.
    pub fn folder(folder: &str) -> Term {
        Term::of("folder", None, folder.as_bytes())
    }

    /// A use in this trace.
    pub fn trace(trace_id: &[u8]) -> Term {
        Term::of("trace", None, trace_id)
    }

    /// A page of uses whose traces and folders are in no index, since there were too many at once.
    pub fn without_details() -> Term {
        Term::of("without details", None, &[])
    }

    fn of(dimension: &str, category: Option<&str>, value: &[u8]) -> Term {
        let mut hash = Sha256::new_with_prefix(b"keyledger term v1\n");
        // A category is never empty.
        for part in [dimension.as_bytes(), category.unwrap_or_default().as_bytes(), value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        Term(*digest.first_chunk().expect("a SHA-256 has 32 bytes"))
    }
}

/// The longest folder that the index knows and that all resources with this beginning lie in, if there is one.
pub fn folder_of_prefix(prefix: &str) -> Option<&str> {
    folders(prefix).last()
}

/// `a/` and `a/b/` of `a/b/c`.
fn folders(resource: &str) -> impl Iterator<Item = &str> {
    resource.match_indices('/').take(MAX_SEGMENTS).map(|(at, _)| &resource[..=at])
}

/// By what an entry that is no page is found. `owner_of` tells whose a key is.
pub fn of_entry(event: &Event, owner_of: impl Fn(KeyId) -> Option<Owner>) -> BTreeSet<Term> {
    let link = event.kind.as_ref().and_then(Kind::key_link);
    let about = link.and_then(|link| KeyId::from_slice(&link.key_id));
    let caller = event.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
    let unusual = event.kind.as_ref().and_then(Kind::key_of_anomaly);
    let owners = [about, caller, unusual].into_iter().flatten().filter_map(owner_of);
    let owners = owners.chain(event.kind.as_ref().and_then(anomaly::owner_of));
    let mut terms: BTreeSet<Term> = owners.map(|owner| Term::owner(&owner)).collect();
    terms.extend(unusual.map(Term::anomaly_of));
    if category::of_entry(event) == ANOMALY {
        terms.extend(caller.map(|id| Term::caller(ANOMALY, id)));
    }
    if let Some(Kind::AnomalyRaised(raised)) = &event.kind {
        terms.extend(folders(&raised.resource).map(Term::folder));
    }
    if let Some(Kind::EventRecorded(recorded)) = &event.kind {
        let category = recorded.category.as_str();
        terms.extend(caller.map(|id| Term::caller(category, id)));
        for within in [None, Some(category)] {
            terms.insert(Term::action(within, &recorded.action));
            terms.insert(Term::outcome(within, recorded.outcome()));
            terms.insert(Term::severity(within, recorded.severity()));
        }
        let actor = recorded.actor.as_ref().and_then(|a| a.actor.as_ref());
        terms.extend(actor.map(Term::actor));
        terms.extend(actor.map(|actor| Term::actor_and_action(actor, &recorded.action)));
        terms.extend(folders(&recorded.resource).map(Term::folder));
    }
    terms
}

/// By what a page is found: the keys in it, and the people whose events were looked for. Whose the keys are would be a row
/// more for each: who looks for an owner asks for the owner's keys.
pub fn of_page(uses: &[ReadUse]) -> BTreeSet<Term> {
    let keys: BTreeSet<KeyId> = uses.iter().flat_map(|read| keys_of_use(&read.r#use)).collect();
    let people = uses.iter().flat_map(|read| people_searched(&read.r#use));
    let people = people.map(|reference| Term::actor(&reference));
    keys.into_iter().map(Term::key).chain(people).collect()
}

/// By what else a page is found: the traces of its uses, and the folders of what was asked for. They may be as many as the uses.
pub fn details_of_page(uses: &[ReadUse]) -> BTreeSet<Term> {
    let uses = || uses.iter().map(|read| &read.r#use);
    let traces: BTreeSet<&[u8]> = uses().flat_map(Use::trace_ids).collect();
    let resources: BTreeSet<&str> = uses().map(|u| u.resource.as_str()).collect();
    let folders: BTreeSet<&str> = resources.into_iter().flat_map(folders).collect();
    let traces = traces.into_iter().map(Term::trace);
    traces.chain(folders.into_iter().map(Term::folder)).collect()
}

/// The key that was used, and the one that asked.
fn keys_of_use(r#use: &Use) -> impl Iterator<Item = KeyId> + use<> {
    let asker = r#use.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
    [KeyId::from_slice(&r#use.key_id), asker].into_iter().flatten()
}

/// The first texts of a use are about whoever called; any others name a person whose events were looked for.
pub fn people_searched(r#use: &Use) -> impl Iterator<Item = ActorKind> {
    let others = r#use.texts.iter().skip(1);
    others.map(|text| ActorKind::UserRef(text.subject_ref.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_that_ends_inside_a_segment_is_looked_up_by_the_folder_before_it() {
        for (prefix, expected) in [
            ("", None),
            ("inv", None),
            ("invoices/", Some("invoices/")),
            ("invoices/2026", Some("invoices/")),
            ("invoices/2026/7", Some("invoices/2026/")),
            ("/x", Some("/")),
            ("1/2/3/4/5/6/7/8/9/10/", Some("1/2/3/4/5/6/7/8/")),
        ] {
            assert_eq!(folder_of_prefix(prefix), expected, "{prefix}");
        }
    }

    #[test]
    fn every_folder_of_a_beginning_is_one_of_each_resource_that_begins_so() {
        let resource = "a/b//c/d";
        for end in 0..=resource.len() {
            let folder = folder_of_prefix(&resource[..end]);
            assert!(folder.is_none_or(|f| folders(resource).any(|own| own == f)));
        }
    }

    #[test]
    fn a_term_says_in_which_category_and_of_which_kind_it_is() {
        let terms = [
            Term::action(None, "login"),
            Term::action(Some("login"), ""),
            Term::action(Some("security"), "login"),
            Term::actor(&ActorKind::Service("login".into())),
            Term::actor(&ActorKind::UserRef(b"login".to_vec())),
            Term::owner(&Owner::Service("login".into())),
            Term::folder("login"),
        ];
        assert_eq!(terms.iter().collect::<BTreeSet<_>>().len(), terms.len());
    }
}
