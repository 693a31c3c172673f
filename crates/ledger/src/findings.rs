//! Findings: what is to be tidied up in a ledger. Pure: from a key, what it was used for and the time, to what is found and the
//! numbers that led to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::command::{DAY, EXPLAIN, EXTEND, WITHOUT_EXPIRY};
use crate::grant::{self, Grant};
use crate::id::Time;
use crate::roles;
use crate::state::{Key, KeyStatus, Owner, State};

/// What is found. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i32)]
pub enum Kind {
    KeyExpiring = 1,
    KeyRotationDue = 2,
    KeyUnused = 3,
    KeyNeverUsed = 4,
    KeyBroaderThanUsed = 5,
    KeyWithoutResponsible = 6,
    KeyOwnerLeft = 7,
    KeyResponsibleLeft = 8,
    RoleWithoutHolders = 9,
    RoleEqual = 10,
    OwnerManyKeys = 11,
}

impl Kind {
    pub const ALL: [Kind; 11] = [
        Kind::KeyExpiring,
        Kind::KeyRotationDue,
        Kind::KeyUnused,
        Kind::KeyNeverUsed,
        Kind::KeyBroaderThanUsed,
        Kind::KeyWithoutResponsible,
        Kind::KeyOwnerLeft,
        Kind::KeyResponsibleLeft,
        Kind::RoleWithoutHolders,
        Kind::RoleEqual,
        Kind::OwnerManyKeys,
    ];

    /// As the log has it, and as people type it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KeyExpiring => "key-expiring",
            Kind::KeyRotationDue => "key-rotation-due",
            Kind::KeyUnused => "key-unused",
            Kind::KeyNeverUsed => "key-never-used",
            Kind::KeyBroaderThanUsed => "key-broader-than-used",
            Kind::KeyWithoutResponsible => "key-without-responsible",
            Kind::KeyOwnerLeft => "key-owner-left",
            Kind::KeyResponsibleLeft => "key-responsible-left",
            Kind::RoleWithoutHolders => "role-without-holders",
            Kind::RoleEqual => "role-equal",
            Kind::OwnerManyKeys => "owner-many-keys",
        }
    }

    /// Whether it is mended by ending the key, so that of a key whose owner left nothing is gained by saying it, too.
    pub fn is_settled_by_ending(self) -> bool {
        matches!(
            self,
            Kind::KeyExpiring
                | Kind::KeyRotationDue
                | Kind::KeyUnused
                | Kind::KeyNeverUsed
                | Kind::KeyBroaderThanUsed
        )
    }
}

/// From when on something is a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A key ends within so many days.
    pub expiring_days: u32,
    /// A key, or a right of it, was not used for so many.
    pub unused_days: u32,
    /// A key that was never used is so many old.
    pub never_used_days: u32,
    /// An owner has more keys than so many.
    pub many_keys: u32,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { expiring_days: 30, unused_days: 90, never_used_days: 30, many_keys: 10 }
    }
}

/// A number that led to a finding: what it says, and how many.
pub type Number = (&'static str, i64);

/// What is found of one key, role or owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub numbers: Vec<Number>,
    /// What a key may do, and was not used for.
    pub unused: Vec<Grant>,
    /// The role that gives the same.
    pub other: String,
}

impl Found {
    fn new(kind: Kind, numbers: Vec<Number>) -> Found {
        Found { kind, numbers, unused: vec![], other: String::new() }
    }

    /// Whether a number is known of it.
    pub fn has(&self, name: &str) -> bool {
        self.numbers.iter().any(|(n, _)| *n == name)
    }

    /// What a number says of it.
    pub fn number(&self, name: &str) -> i64 {
        self.numbers.iter().find(|(n, _)| *n == name).map_or(0, |(_, value)| *value)
    }
}

/// What a key was used for, as far as it is known: with which permissions, and on which resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedFor {
    pub permissions: BTreeSet<String>,
    pub resources: BTreeSet<String>,
    /// Not all that it was used for is known: nothing is said of it then.
    pub incomplete: bool,
}

impl UsedFor {
    /// Counts in what some use asked for, as it is counted: for a change its kind, such as `key.created`.
    pub fn add_permission(&mut self, permission: &str) {
        let name = PERMISSION_OF.iter().find(|(kind, _)| *kind == permission);
        self.permissions.insert(name.map_or(permission, |(_, permission)| permission).into());
    }

    /// Counts in on what it was asked for. A key that is made has no id before: it is asked for on `keys`.
    pub fn add_resource(&mut self, resource: &str) {
        let parent = resource.split_once('/').map(|(parent, _)| parent.to_string());
        self.resources.extend(parent.filter(|p| p == "keys"));
        self.resources.insert(resource.into());
    }

    /// What of a grant no use needed. Where some use named no resource, any may have been meant.
    fn leaves(&self, grant: &Grant) -> Option<Grant> {
        let on = |resource: &String| {
            resource.is_empty() || grant::resource_matches(grant.resource(), resource)
        };
        let used_there = self.resources.iter().any(on);
        grant.only(|pattern| {
            let used = self.permissions.iter().any(|p| grant::pattern_matches(pattern, p));
            !(NEVER_COUNTED.contains(&pattern) || used && used_there)
        })
    }
}

/// The permission by which a kind of change is made. What isn't here is asked for by a name that is its own.
pub const PERMISSION_OF: &[(&str, &str)] = &[
    ("event.recorded", "audit.write"),
    ("key.created", "keys.create"),
    ("key.imported", "keys.import"),
    ("key.resumed", "keys.resume"),
    ("key.revoked", "keys.revoke"),
    ("key.rotated", "keys.rotate"),
    ("key.suspended", "keys.suspend"),
    ("key.updated", "keys.update"),
    ("ledger.policy-updated", "ledgers.update-policy"),
    ("ledger.registered", "ledgers.open"),
    ("owner.status-set", "owners.update"),
    ("permissions.registered", "permissions.register"),
    ("producer.keys-registered", "audit.write"),
    ("review.signed", "reviews.sign"),
    ("role.created", "roles.create"),
    ("role.retired", "roles.retire"),
    ("role.updated", "roles.update"),
];

/// What is asked for beside something else: no use names it.
const NEVER_COUNTED: &[&str] = &[WITHOUT_EXPIRY, EXPLAIN, EXTEND];

/// What is found of a key that is accepted now, in the order of the kinds. `used` is what it was used for in the last
/// `unused_days`; `None` if that isn't known.
pub fn of_key(
    state: &State,
    key: &Key,
    last_use: Option<Time>,
    used: Option<&UsedFor>,
    thresholds: &Thresholds,
    now: Time,
) -> Vec<Found> {
    if key.status(now) != KeyStatus::Active {
        return vec![];
    }
    let left = |owner: &Owner| state.left.get(owner).map(|since| days(*since, now));
    let responsible = key.responsible.map(Owner::User);
    [
        expiring(state, key, thresholds, now),
        rotation_due(state, key, now),
        unused(key, last_use, thresholds, now),
        never_used(key, last_use, thresholds, now),
        used.and_then(|used| broader(state, key, last_use, used, thresholds, now)),
        is_without_responsible(key).then(|| Found::new(Kind::KeyWithoutResponsible, vec![])),
        left(&key.owner).map(|days| Found::new(Kind::KeyOwnerLeft, vec![("days_since", days)])),
        responsible
            .and_then(|person| left(&person))
            .map(|days| Found::new(Kind::KeyResponsibleLeft, vec![("days_since", days)])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A person's key is that person's responsibility; Keyledger's own first keys have nobody but those who operate it.
pub fn is_without_responsible(key: &Key) -> bool {
    matches!(key.owner, Owner::Service(_)) && key.responsible.is_none()
}

/// A key that was made for less than two days is meant to end: nothing is found of it. The others may be wanted for as long
/// again, as far as the ledger's policy lets any key live.
fn expiring(state: &State, key: &Key, thresholds: &Thresholds, now: Time) -> Option<Found> {
    let end = key.expires?;
    let life = end.micros() - key.created.micros();
    let near = end <= now.plus_micros(i64::from(thresholds.expiring_days) * DAY);
    if life < 2 * DAY || !near {
        return None;
    }
    let again = life.min(state.policy.policy.max_life);
    let again = ("life_seconds", again / Time::MICROS_PER_SECOND);
    Some(Found::new(Kind::KeyExpiring, vec![("days_left", days(now, end)), again]))
}

fn rotation_due(state: &State, key: &Key, now: Time) -> Option<Found> {
    let due = state.rotation_due(key).filter(|due| *due <= now)?;
    let age = ("days_old", days(key.newest_version().created, now));
    Some(Found::new(Kind::KeyRotationDue, vec![age, ("days_overdue", days(due, now))]))
}

fn unused(key: &Key, last_use: Option<Time>, thresholds: &Thresholds, now: Time) -> Option<Found> {
    let since = crate::idle::since(key, Some(last_use?));
    let long = is_older(since, thresholds.unused_days, now);
    long.then(|| Found::new(Kind::KeyUnused, vec![("days_unused", days(since, now))]))
}

fn never_used(
    key: &Key,
    last_use: Option<Time>,
    thresholds: &Thresholds,
    now: Time,
) -> Option<Found> {
    let old = last_use.is_none() && is_older(key.created, thresholds.never_used_days, now);
    old.then(|| Found::new(Kind::KeyNeverUsed, vec![("days_old", days(key.created, now))]))
}

/// Of a key that is as old as one looks back, and was used since: what of its grants no use needed. A grant that hands on is
/// used by being handed on, which isn't counted: nothing is said of it.
fn broader(
    state: &State,
    key: &Key,
    last_use: Option<Time>,
    used: &UsedFor,
    thresholds: &Thresholds,
    now: Time,
) -> Option<Found> {
    let looked_back = now.plus_micros(-i64::from(thresholds.unused_days) * DAY);
    let known = !used.incomplete && key.created <= looked_back;
    if !known || last_use.is_none_or(|time| time < looked_back) {
        return None;
    }
    let grants = roles::of_key(state, key).flat_map(|(grants, _)| grants.to_vec());
    let held: Vec<Grant> = grants.filter(|g| !g.is_give_only()).collect();
    let rights: usize = held.iter().map(|g| g.permissions().count()).sum();
    let unused: Vec<Grant> = held.iter().filter_map(|g| used.leaves(g)).collect();
    let count: usize = unused.iter().map(|g| g.permissions().count()).sum();
    let numbers = vec![("rights", rights as i64), ("rights_unused", count as i64)];
    let found = Found { unused, ..Found::new(Kind::KeyBroaderThanUsed, numbers) };
    (count > 0).then_some(found)
}

/// What is found of the ledger's own roles that are not retired, by name. `holders` says how many keys that are accepted, or
/// suspended, hold each.
pub fn of_roles(state: &State, holders: &BTreeMap<Arc<str>, u64>) -> Vec<(Arc<str>, Vec<Found>)> {
    let live = || state.roles.values().filter(|role| role.retired.is_none());
    let mut first: BTreeMap<Vec<String>, Arc<str>> = BTreeMap::new();
    for role in roles::PREDEFINED.iter().filter(|role| role.parameter.is_none()) {
        first.entry(canonical(&role.shown_grants())).or_insert_with(|| role.name.into());
    }
    let found = |role: &Arc<crate::state::Role>| {
        let unheld = holders.get(&role.name).is_none_or(|count| *count == 0);
        let unheld = unheld.then(|| Found::new(Kind::RoleWithoutHolders, vec![("holders", 0)]));
        let held_by = |name: &str| holders.get(name).copied().unwrap_or_default() as i64;
        let mut numbers = vec![("holders", held_by(&role.name))];
        let other = first.entry(canonical(&role.grants)).or_insert_with(|| role.name.clone());
        if state.roles.contains_key(other) {
            numbers.push(("other_holders", held_by(other)));
        }
        let equal = (*other != role.name)
            .then(|| Found { other: other.to_string(), ..Found::new(Kind::RoleEqual, numbers) });
        (role.name.clone(), unheld.into_iter().chain(equal).collect())
    };
    live().map(found).filter(|(_, found): &(_, Vec<Found>)| !found.is_empty()).collect()
}

/// Grants in an order of their own: two roles that give the same in another order are equal.
fn canonical(grants: &[Grant]) -> Vec<String> {
    let line = |g: &Grant| {
        let mut permissions: Vec<&str> = g.permissions().collect();
        permissions.sort_unstable();
        permissions.dedup();
        format!("{} {} {}", permissions.join(","), g.resource(), g.is_give_only())
    };
    let mut lines: Vec<String> = grants.iter().map(line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// What is found of somebody with so many keys that are accepted.
pub fn of_owner(keys: u64, thresholds: &Thresholds) -> Option<Found> {
    let many = keys > u64::from(thresholds.many_keys);
    many.then(|| Found::new(Kind::OwnerManyKeys, vec![("keys", keys as i64)]))
}

fn is_older(since: Time, than_days: u32, now: Time) -> bool {
    since.plus_micros(i64::from(than_days) * DAY) <= now
}

/// Whole days from one time to another.
fn days(from: Time, to: Time) -> i64 {
    (to.micros() - from.micros()).max(0) / DAY
}
