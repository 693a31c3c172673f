//! A ledger as a site: an index with a search, and a page for each key, owner, role and permission. All pages are made of what
//! DescribeLedger gave, are whole in themselves and link to each other only.

mod index;
mod lists;
pub(super) mod names;
mod permission;
mod role;

use std::collections::BTreeMap;

use super::html::Html;
use super::html::frame::{Frame, Place};
use super::key;
use super::words::{Catalogue, owner_name};
use crate::{Ability, DocumentMoment, Key, KeyDocument, LedgerDocument, Owner, Permission};

/// A page of the site: where it lies, and what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SitePage {
    pub path: String,
    pub html: String,
}

/// All that a site shows.
pub struct Site {
    ledger: LedgerDocument,
    keys: Vec<KeyDocument>,
    moment: DocumentMoment,
    name: String,
    /// Keys of each owner, by the name of the owner's page: their numbers in `keys`.
    owners: BTreeMap<String, Vec<usize>>,
    /// The catalogue, and what keys name besides.
    permissions: Vec<Permission>,
}

impl Site {
    pub fn new(ledger: LedgerDocument, keys: Vec<KeyDocument>) -> Site {
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, document) in keys.iter().enumerate() {
            if let Some(owner) = owner_of(document) {
                owners.entry(names::owner_name(owner)).or_default().push(number);
            }
        }
        let permissions = all_permissions(&ledger.permissions, &keys);
        let moment = ledger.moment.clone().unwrap_or_default();
        let name = ledger.ledger.clone().unwrap_or_default().name;
        Site { ledger, keys, moment, name, owners, permissions }
    }

    /// All pages, one after the other: a large site is never in memory as a whole.
    pub fn pages(&self) -> impl Iterator<Item = SitePage> {
        let index =
            std::iter::once_with(|| SitePage { path: "index.html".into(), html: self.index() });
        let keys = self.keys.iter().map(|document| {
            let name = names::key_name(&key_of(document).key_id);
            let html = key::page_in(document, &self.name, &self.moment, Place::Below);
            SitePage { path: format!("keys/{name}.html"), html }
        });
        let owners = self.owners.iter().map(|(name, numbers)| SitePage {
            path: format!("owners/{name}.html"),
            html: self.owner(numbers),
        });
        let roles = self.ledger.roles.iter().map(|role| SitePage {
            path: format!("roles/{}.html", names::role_name(&role.name)),
            html: self.role(role),
        });
        let permissions = self.permissions.iter().map(|permission| SitePage {
            path: format!("permissions/{}.html", names::permission_name(&permission.name)),
            html: self.permission(permission),
        });
        index.chain(keys).chain(owners).chain(roles).chain(permissions)
    }

    /// How many pages it has.
    pub fn size(&self) -> usize {
        1 + self.keys.len() + self.owners.len() + self.ledger.roles.len() + self.permissions.len()
    }

    fn frame(&self, title: &str, place: Place, content: impl FnOnce(&mut Html)) -> String {
        let frame = Frame { title, ledger: &self.name, moment: &self.moment, place };
        frame.around(content)
    }

    fn catalogue(&self) -> Catalogue {
        Catalogue::new(&self.permissions)
    }

    fn owner(&self, numbers: &[usize]) -> String {
        let keys: Vec<&KeyDocument> = numbers.iter().map(|n| &self.keys[*n]).collect();
        let owner = keys.first().and_then(|document| owner_of(document));
        let name = owner_name(owner);
        self.frame(name, Place::Below, |h| {
            h.classed("p", "kicker", |h| h.words("Owner"));
            h.plainly("h1", |h| h.text(name));
            lists::keys(h, "Keys", "keys", &keys, Place::Below);
        })
    }
}

fn owner_of(document: &KeyDocument) -> Option<&Owner> {
    document.key.as_ref().and_then(|key| key.owner.as_ref())
}

fn key_of(document: &KeyDocument) -> &Key {
    static NONE: std::sync::LazyLock<Key> = std::sync::LazyLock::new(Key::default);
    document.key.as_ref().unwrap_or(&NONE)
}

/// Those of the catalogue, and the names (no patterns) that keys hold and nobody has registered.
fn all_permissions(known: &[Permission], keys: &[KeyDocument]) -> Vec<Permission> {
    let mut all: BTreeMap<String, Permission> = BTreeMap::new();
    let abilities = keys.iter().flat_map(|document| &document.abilities);
    for ability in abilities.filter(|a| !a.permission.contains('*')) {
        all.entry(ability.permission.clone()).or_insert_with(|| Permission {
            name: ability.permission.clone(),
            ..Permission::default()
        });
    }
    all.extend(known.iter().map(|p| (p.name.clone(), p.clone())));
    all.into_values().collect()
}

/// Whether an ability gives a permission on anything.
fn names_permission(ability: &Ability, permission: &str) -> bool {
    keyledger_ledger::grant::pattern_matches(&ability.permission, permission)
}
