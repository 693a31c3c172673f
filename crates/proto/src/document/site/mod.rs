//! A ledger as a site: an index with a search, and a page for each key, owner, role and permission. All pages are made of what
//! DescribeLedger gave, are whole in themselves and link to each other only, and to traces if it is said where those are shown.

mod index;
mod lists;
pub(super) mod names;
mod permission;
mod role;

use std::collections::{BTreeMap, BTreeSet};

use super::html::Html;
use super::html::frame::{Frame, Place, moment_of_time};
use super::key;
use super::trace_links::TraceLinks;
use super::words::{Catalogue, owner_name};
use crate::{
    Ability, DocumentMoment, Key, KeyDocument, LedgerDocument, Owner, Permission, Role, owner,
};

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
    /// By the name of their page.
    owners: BTreeMap<String, Holder>,
    /// Those of the ledger, and those that keys hold and whoever asked may not read.
    roles: Vec<Role>,
    /// The catalogue, and what keys name besides.
    permissions: Vec<Permission>,
    /// Where traces are shown.
    links: Option<TraceLinks>,
}

/// An owner, and the numbers of their keys in [`Site::keys`].
struct Holder {
    owner: Owner,
    /// Since when it is known that they have left, if they have.
    left: Option<prost_types::Timestamp>,
    keys: Vec<usize>,
}

impl Site {
    pub fn new(ledger: LedgerDocument, keys: Vec<KeyDocument>) -> Site {
        let roles = all_roles(&ledger.roles, &keys);
        let permissions = all_permissions(&ledger.permissions, &roles, &keys);
        let moment = ledger.moment.clone().unwrap_or_default();
        let name = ledger.ledger.clone().unwrap_or_default().name;
        let owners = all_owners(&keys);
        Site { ledger, keys, moment, name, owners, roles, permissions, links: None }
    }

    /// With links to where traces are shown: the only ones that leave the site.
    pub fn with_trace_links(self, links: Option<TraceLinks>) -> Site {
        Site { links, ..self }
    }

    /// All pages, one after the other: a large site is never in memory as a whole.
    pub fn pages(&self) -> impl Iterator<Item = SitePage> {
        let index =
            std::iter::once_with(|| SitePage { path: "index.html".into(), html: self.index() });
        let keys = self.keys.iter().map(|document| {
            let name = names::key_name(&key_of(document).key_id);
            let links = self.links.as_ref();
            let html = key::page_in(document, &self.name, &self.moment, Place::Below, links);
            SitePage { path: format!("keys/{name}.html"), html }
        });
        let owners = self.owners.iter().map(|(name, holder)| SitePage {
            path: format!("owners/{name}.html"),
            html: self.owner(holder),
        });
        let roles = self.roles.iter().map(|role| SitePage {
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
        1 + self.keys.len() + self.owners.len() + self.roles.len() + self.permissions.len()
    }

    fn frame(&self, title: &str, place: Place, content: impl FnOnce(&mut Html)) -> String {
        let frame = Frame { title, ledger: &self.name, moment: &self.moment, place };
        frame.around(content)
    }

    fn catalogue(&self) -> Catalogue {
        Catalogue::new(&self.permissions)
    }

    fn owner(&self, holder: &Holder) -> String {
        let keys: Vec<&KeyDocument> = holder.keys.iter().map(|n| &self.keys[*n]).collect();
        let name = owner_name(Some(&holder.owner));
        self.frame(name, Place::Below, |h| {
            h.classed("p", "kicker", |h| h.words("Owner"));
            h.plainly("h1", |h| h.text(name));
            if let Some(left) = &holder.left {
                h.classed("p", "note warn", |h| {
                    h.words("They have left, as is known since ");
                    moment_of_time(h, left);
                    h.words(".");
                });
            }
            lists::keys(h, "Keys", "keys", &keys, Place::Below);
        })
    }
}

/// Those of keys, and those who changed keys: they may have none here.
fn all_owners(keys: &[KeyDocument]) -> BTreeMap<String, Holder> {
    let mut owners: BTreeMap<String, Holder> = BTreeMap::new();
    let mut holder = |owner: &Owner, key: Option<usize>| {
        let place = owners.entry(names::owner_name(owner));
        let holder =
            place.or_insert_with(|| Holder { owner: owner.clone(), left: None, keys: vec![] });
        holder.keys.extend(key);
    };
    for (number, document) in keys.iter().enumerate() {
        owner_of(document).into_iter().for_each(|owner| holder(owner, Some(number)));
        let changes = document.history.iter().flat_map(|history| &history.entries);
        changes.filter_map(|change| change.caller.as_ref()).for_each(|owner| holder(owner, None));
    }
    who_left(&mut owners, keys);
    owners
}

/// Of people without a name, since they were erased, nobody can say which of them left.
fn who_left(owners: &mut BTreeMap<String, Holder>, keys: &[KeyDocument]) {
    for key in keys.iter().map(key_of) {
        let responsible = owner::Owner::User(key.responsible.clone());
        let responsible = Some(Owner { owner: Some(responsible) });
        for (owner, left) in
            [(&key.owner, key.owner_left_time), (&responsible, key.responsible_left_time)]
        {
            let Some(owner) = owner.as_ref().filter(|_| left.is_some()) else { continue };
            let nameless =
                matches!(&owner.owner, Some(owner::Owner::User(name)) if name.is_empty());
            let holder = owners.get_mut(&names::owner_name(owner)).filter(|_| !nameless);
            holder.into_iter().for_each(|holder| holder.left = left);
        }
    }
}

fn all_roles(known: &[Role], keys: &[KeyDocument]) -> Vec<Role> {
    let mut roles = known.to_vec();
    let mut names: BTreeSet<String> = known.iter().map(|role| role.name.clone()).collect();
    for held in keys.iter().flat_map(|document| &document.roles) {
        let name = names::without_parameter(&held.name).to_string();
        if names.insert(name.clone()) {
            roles.push(Role { name, predefined: held.predefined, ..Role::default() });
        }
    }
    roles
}

fn owner_of(document: &KeyDocument) -> Option<&Owner> {
    document.key.as_ref().and_then(|key| key.owner.as_ref())
}

fn key_of(document: &KeyDocument) -> &Key {
    static NONE: std::sync::LazyLock<Key> = std::sync::LazyLock::new(Key::default);
    document.key.as_ref().unwrap_or(&NONE)
}

/// Those of the catalogue, and the names (no patterns) that keys or roles hold and nobody has registered.
fn all_permissions(known: &[Permission], roles: &[Role], keys: &[KeyDocument]) -> Vec<Permission> {
    let of_keys = keys.iter().flat_map(|d| &d.abilities).map(|ability| &ability.permission);
    let of_roles = roles.iter().flat_map(|r| &r.grants).flat_map(|grant| &grant.permissions);
    let mut all: BTreeMap<String, Permission> = BTreeMap::new();
    for name in of_keys.chain(of_roles).filter(|name| !name.contains('*')) {
        let unknown = || Permission { name: name.clone(), ..Permission::default() };
        all.entry(name.clone()).or_insert_with(unknown);
    }
    all.extend(known.iter().map(|p| (p.name.clone(), p.clone())));
    all.into_values().collect()
}

/// Whether an ability gives a permission on anything.
fn names_permission(ability: &Ability, permission: &str) -> bool {
    keyledger_ledger::grant::pattern_matches(&ability.permission, permission)
}
