//! Findings of a whole ledger, looked for in bounded steps: keys in the order of their ids, then roles, then owners.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use keyledger_ledger::command::DAY;
use keyledger_ledger::findings::{self, Found, Kind, Thresholds, UsedFor};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::{Key, KeyStatus, Owner, State};
use keyledger_ledger::usage::{Dimension, Meter, Usage, Values, hour_of};

use crate::sequencer::Ledger;
use crate::store::{StoreError, usage};
use crate::{last_uses, observer};

/// How many keys are looked at in one step.
const KEYS: usize = 1_000;
/// The keys of how many owners are counted in one step.
const OWNERS: usize = 100_000;

/// What is looked for, and in what.
pub(crate) struct Search {
    pub(crate) state: State,
    pub(crate) now: Time,
    pub(crate) thresholds: Thresholds,
    /// Empty: all kinds.
    pub(crate) kinds: BTreeSet<Kind>,
}

/// What was found of one thing.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) about: About,
    pub(crate) found: Found,
}

#[derive(Clone)]
pub(crate) enum About {
    Key(Arc<Key>),
    Role(Arc<str>),
    /// With one of their keys.
    Owner(Arc<Key>),
}

/// How far it was looked: all of these, up to and with this kind of finding of the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    stage: Stage,
    /// The last one; `None` at the begin.
    last: Option<Vec<u8>>,
    kind: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Keys = 1,
    Roles = 2,
    Owners = 3,
}

/// One step: what it found, in order, and where the next one begins; `None` after the last one.
pub(crate) struct Step {
    pub(crate) items: Vec<Item>,
    pub(crate) next: Option<Place>,
}

impl Place {
    pub(crate) fn begin() -> Place {
        Place::at(Stage::Keys)
    }

    fn at(stage: Stage) -> Place {
        Place { stage, last: None, kind: u8::MAX }
    }

    /// Just after a finding.
    pub(crate) fn after(item: &Item) -> Place {
        let (stage, last) = match &item.about {
            About::Key(key) => (Stage::Keys, key.id.as_bytes().to_vec()),
            About::Role(name) => (Stage::Roles, name.as_bytes().to_vec()),
            About::Owner(key) => (Stage::Owners, owner_order(&key.owner)),
        };
        Place { stage, last: Some(last), kind: item.found.kind as u8 }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let known = [self.stage as u8, self.kind, u8::from(self.last.is_some())];
        [&known[..], self.last.as_deref().unwrap_or_default()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Place> {
        let (&[stage, kind, known], last) = bytes.split_first_chunk::<3>()?;
        let stage =
            [Stage::Keys, Stage::Roles, Stage::Owners].into_iter().find(|s| *s as u8 == stage)?;
        let last = (known == 1).then(|| last.to_vec());
        if stage == Stage::Keys && last.as_ref().is_some_and(|id| KeyId::from_slice(id).is_none()) {
            return None;
        }
        Some(Place { stage, last, kind })
    }

    /// Whether what is found of something was given already.
    fn covers(&self, last: &[u8], kind: Kind) -> bool {
        self.last.as_deref() == Some(last) && kind as u8 <= self.kind
    }
}

/// People by reference, then services by name.
fn owner_order(owner: &Owner) -> Vec<u8> {
    match owner {
        Owner::User(reference) => [&[0], reference.as_slice()].concat(),
        Owner::Service(name) => [&[1], name.as_bytes()].concat(),
    }
}

impl Search {
    /// Looks on from a place.
    pub(crate) async fn step(&self, ledger: &Ledger, from: &Place) -> Result<Step, StoreError> {
        match from.stage {
            Stage::Keys => self.keys(ledger, from).await,
            Stage::Roles => Ok(self.roles(from)),
            Stage::Owners => Ok(self.owners(from)),
        }
    }

    fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    fn wants_any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|kind| self.wants(*kind))
    }

    async fn keys(&self, ledger: &Ledger, from: &Place) -> Result<Step, StoreError> {
        let of_keys: Vec<Kind> =
            Kind::ALL.into_iter().filter(|k| *k < Kind::RoleWithoutHolders).collect();
        if !self.wants_any(&of_keys) {
            return Ok(Step { items: vec![], next: Some(Place::at(Stage::Roles)) });
        }
        let first = from.last.as_deref().and_then(KeyId::from_slice);
        let begin = match (first, from.kind) {
            (None, _) => Bound::Unbounded,
            (Some(id), u8::MAX) => Bound::Excluded(id),
            (Some(id), _) => Bound::Included(id),
        };
        let some: Vec<Arc<Key>> = self
            .state
            .keys
            .range((begin, Bound::Unbounded))
            .take(KEYS)
            .map(|(_, key)| key.clone())
            .collect();
        let next = match some.last().filter(|_| some.len() == KEYS) {
            Some(key) => {
                Place { stage: Stage::Keys, last: Some(key.id.as_bytes().to_vec()), kind: u8::MAX }
            }
            None => Place::at(Stage::Roles),
        };
        let mut items = self.of_keys(ledger, &some).await?;
        items.retain(|item| match &item.about {
            About::Key(key) => {
                let settled = self.state.left.contains_key(&key.owner)
                    && item.found.kind.is_settled_by_ending();
                !settled && !from.covers(key.id.as_bytes(), item.found.kind)
            }
            _ => true,
        });
        Ok(Step { items, next: Some(next) })
    }

    /// What is found of some keys.
    pub(crate) async fn of_keys(
        &self,
        ledger: &Ledger,
        keys: &[Arc<Key>],
    ) -> Result<Vec<Item>, StoreError> {
        let by_use = [Kind::KeyUnused, Kind::KeyNeverUsed, Kind::KeyBroaderThanUsed];
        let active = keys.iter().filter(|key| key.status(self.now) == KeyStatus::Active);
        let ids: Vec<KeyId> = active.map(|key| key.id).collect();
        let (mut last_uses, mut used_for) = (HashMap::new(), HashMap::new());
        if self.wants_any(&by_use) && !ids.is_empty() {
            last_uses = last_uses::of_keys(ledger, &ids).await?;
        }
        if self.wants(Kind::KeyBroaderThanUsed) && !ids.is_empty() {
            let since = self.now.plus_micros(-i64::from(self.thresholds.unused_days) * DAY);
            used_for = used_for_since(ledger, &ids, since).await?;
        }
        let mut items = vec![];
        for key in keys {
            let last_use = last_uses.get(&key.id).and_then(|uses| uses.values().max().copied());
            let used = used_for.get(&key.id);
            let found =
                findings::of_key(&self.state, key, last_use, used, &self.thresholds, self.now);
            let wanted = found.into_iter().filter(|found| self.wants(found.kind));
            items.extend(wanted.map(|found| Item { about: About::Key(key.clone()), found }));
        }
        Ok(items)
    }

    /// There are at most as many roles as a ledger may hold: all are looked at in one step.
    fn roles(&self, from: &Place) -> Step {
        let next = Some(Place::at(Stage::Owners));
        if !self.wants_any(&[Kind::RoleWithoutHolders, Kind::RoleEqual]) {
            return Step { items: vec![], next };
        }
        let mut holders: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for key in self.state.keys.values().filter(|key| self.lives(key)) {
            for role in key.roles.iter().filter(|role| self.state.roles.contains_key(&***role)) {
                *holders.entry(role.clone()).or_default() += 1;
            }
        }
        let mut items = vec![];
        for (name, found) in findings::of_roles(&self.state, &holders) {
            let after = from.last.as_deref().is_none_or(|last| name.as_bytes() >= last);
            for found in found.into_iter().filter(|f| after && self.wants(f.kind)) {
                if !from.covers(name.as_bytes(), found.kind) {
                    items.push(Item { about: About::Role(name.clone()), found });
                }
            }
        }
        Step { items, next }
    }

    fn lives(&self, key: &Key) -> bool {
        matches!(key.status(self.now), KeyStatus::Active | KeyStatus::Suspended)
    }

    /// The keys of so many owners are counted, in the order of owners. Of those who come after them nothing is kept meanwhile,
    /// so that it costs the same however many there are.
    fn owners(&self, from: &Place) -> Step {
        if !self.wants(Kind::OwnerManyKeys) {
            return Step { items: vec![], next: None };
        }
        let mut owners: BTreeMap<Vec<u8>, (Arc<Key>, u64)> = BTreeMap::new();
        let mut more = false;
        let active = |key: &&Arc<Key>| key.status(self.now) == KeyStatus::Active;
        for key in self.state.keys.values().filter(active) {
            let order = owner_order(&key.owner);
            if from.last.as_ref().is_some_and(|last| order <= *last) {
                continue;
            }
            owners.entry(order).or_insert_with(|| (key.clone(), 0)).1 += 1;
            if owners.len() > OWNERS {
                owners.pop_last();
                more = true;
            }
        }
        let last = owners.last_key_value().map(|(order, _)| order.clone()).filter(|_| more);
        let next = last.map(|last| Place { stage: Stage::Owners, last: Some(last), kind: u8::MAX });
        let many = |(key, count): (Arc<Key>, u64)| {
            let found = findings::of_owner(count, &self.thresholds)?;
            Some(Item { about: About::Owner(key), found })
        };
        Step { items: owners.into_values().filter_map(many).collect(), next }
    }
}

/// How many findings of each kind a whole ledger has, by their names; kinds of which there is none are left out. Looked for step by
/// step, so that others go on meanwhile.
pub(crate) async fn count_all(
    ledger: &Ledger,
    thresholds: Thresholds,
    now: Time,
) -> Result<BTreeMap<&'static str, u64>, StoreError> {
    let state = ledger.snapshot().state.clone();
    let search = Search { state, now, thresholds, kinds: BTreeSet::new() };
    let (mut counts, mut place) = (BTreeMap::new(), Some(Place::begin()));
    while let Some(from) = place {
        let step = search.step(ledger, &from).await?;
        for item in step.items {
            *counts.entry(item.found.kind.name()).or_default() += 1;
        }
        place = step.next;
        tokio::task::yield_now().await;
    }
    Ok(counts)
}

/// Of how many keys the usage is read at once.
const USAGES: usize = 100;

/// What keys were used for since a time. The roll-ups are brought to the head first, so that no use is missed.
async fn used_for_since(
    ledger: &Ledger,
    keys: &[KeyId],
    since: Time,
) -> Result<HashMap<KeyId, UsedFor>, StoreError> {
    observer::advance(ledger).await?;
    let mut used = HashMap::new();
    for some in keys.chunks(USAGES) {
        let meters: Vec<Meter> = some.iter().map(|id| Meter::key(*id)).collect();
        let client = ledger.database.client().await?;
        let since = hour_of(since);
        let usages = usage::of_each_meter(&client, ledger.id, &meters, since).await?;
        for (id, meter) in some.iter().zip(&meters) {
            match usages.get(meter) {
                None => drop(used.insert(*id, UsedFor::default())),
                Some(Some(usage)) => drop(used.insert(*id, used_for(usage))),
                // What can't be read says nothing of a key.
                Some(None) => {}
            }
        }
    }
    Ok(used)
}

/// What was allowed. Permissions and resources are counted each for itself.
fn used_for(usage: &Usage) -> UsedFor {
    let (permissions, resources) =
        (usage.values(Dimension::Permission), usage.values(Dimension::Resource));
    let allowed = |values: &Values| -> Vec<String> {
        let told = values.told.iter().filter(|(_, tally)| tally.allowed > 0);
        told.map(|(value, _)| String::from_utf8_lossy(value).into_owned()).collect()
    };
    let incomplete = permissions.others.allowed > 0 || resources.others.allowed > 0;
    let mut used = UsedFor { incomplete, ..UsedFor::default() };
    allowed(permissions).iter().for_each(|permission| used.add_permission(permission));
    allowed(resources).iter().for_each(|resource| used.add_resource(resource));
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_was_written_and_nothing_else_does() {
        for place in [
            Place::begin(),
            Place { stage: Stage::Roles, last: Some(b"ops".to_vec()), kind: 9 },
            Place { stage: Stage::Owners, last: Some(vec![1, b'a']), kind: u8::MAX },
        ] {
            assert_eq!(Place::decode(&place.encode()), Some(place));
        }
        for bad in [&b""[..], &[1, 2], &[9, 0, 0], &[1, 0, 1, 7]] {
            assert_eq!(Place::decode(bad), None);
        }
    }
}
