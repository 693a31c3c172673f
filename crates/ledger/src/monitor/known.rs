//! What is known of the use of keys and owners: a cache of histories, kept up from what is observed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use super::History;
use super::rules::{HOUR, ROAMING_WEEKS, SILENCE_IN_USE};
use crate::anomaly::Subject;
use crate::command::DAY;
use crate::id::{KeyId, Time};
use crate::refusals::Network;
use crate::state::Owner;

/// Most histories of keys, and of owners: the ones that were used longest ago are forgotten first, an eighth at once, and must be
/// learned again. One takes up to about 14 KiB (room for 2,740 hours, 128 networks), and mostly far less.
pub const MAX_HISTORIES: usize = 20_000;
pub const MAX_OWNER_HISTORIES: usize = 2_000;
/// Networks of a key that are told apart; a key with more is at home everywhere.
pub const MAX_NETWORKS: usize = 128;
/// Whole weeks that are looked back.
pub(super) const WEEKS: usize = 8;
pub(super) const HOURS_OF_WEEK: usize = 168;
/// Hours that are kept: the weeks, the running day, and an hour on either side.
const MAX_HOURS: usize = WEEKS * HOURS_OF_WEEK + 26;

/// Uses by hour, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hours {
    newest: i64,
    counts: VecDeque<u32>,
}

/// One history.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) first: Option<Time>,
    pub(super) last: Option<Time>,
    networks: BTreeMap<Network, i64>,
    pub(super) hours: Hours,
    /// The hour whose measure was taken last, so that it is taken once.
    pub(super) measured: Option<(i64, Option<super::spike::Usual>)>,
    touched: u64,
}

/// All of them. A HashMap is only looked into: what is forgotten goes by `touched`, which no two have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    keys: HashMap<KeyId, Known>,
    owners: HashMap<Owner, Known>,
    clock: u64,
}

impl Hours {
    /// Counts uses, and says how many the hour has now. What is older than is kept is left out.
    pub(super) fn add(&mut self, hour: i64, count: u64) -> u64 {
        if self.counts.is_empty() || hour - self.newest >= MAX_HOURS as i64 {
            self.counts.clear();
            self.counts.push_front(0);
            self.newest = hour;
        }
        while self.newest < hour {
            self.counts.push_front(0);
            self.newest += 1;
        }
        let back = (self.newest - hour) as usize;
        if back >= MAX_HOURS {
            return 0;
        }
        if back >= self.counts.len() {
            self.counts.resize(back + 1, 0);
        }
        self.counts.truncate(MAX_HOURS);
        let sum = &mut self.counts[back];
        *sum = sum.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        u64::from(*sum)
    }

    pub(super) fn at(&self, hour: i64) -> u64 {
        let back = usize::try_from(self.newest - hour).ok();
        back.and_then(|back| self.counts.get(back)).copied().map_or(0, u64::from)
    }
}

impl Known {
    fn of(history: History) -> Known {
        let mut known = Known { first: history.first, last: history.last, ..Known::default() };
        for (hour, count) in &history.hours {
            known.hours.add(*hour, *count);
        }
        known.networks = history.networks.into_iter().take(MAX_NETWORKS).collect();
        known
    }

    /// Whole days since it was last used, if it had been in use before.
    pub(super) fn silent_days(&self, time: Time) -> Option<u64> {
        let (first, last) = (self.first?, self.last?);
        let in_use = last.micros() - first.micros() >= SILENCE_IN_USE;
        let silent = time.micros() - last.micros();
        (in_use && silent > 0).then_some((silent / DAY) as u64)
    }

    /// Whether it is usual that it is used from there: it was, with success, on a day before; or from more networks than are told
    /// apart; or it is never known from where it is used.
    pub(super) fn is_own(&self, network: Option<Network>, time: Time) -> bool {
        let before = |day: i64| day < day_of(time);
        match network {
            Some(network) => {
                let full = self.networks.len() >= MAX_NETWORKS;
                full || self.networks.get(&network).is_some_and(|day| before(*day))
            }
            None => {
                self.networks.is_empty() && self.first.is_some_and(|first| before(day_of(first)))
            }
        }
    }

    /// The day on which it was first used from there.
    pub(super) fn network_since(&self, network: &Network) -> Option<i64> {
        self.networks.get(network).copied()
    }

    pub(super) fn networks(&self) -> usize {
        self.networks.len()
    }

    /// Whether a network from which it never was used is worth noticing: its networks were learned, and it doesn't roam.
    pub(super) fn notices_networks(&self, warm_up_days: u64) -> bool {
        !self.networks.is_empty() && self.days_in_use() >= warm_up_days as i64 && !self.roams()
    }

    /// Whether new networks come too often to say anything.
    fn roams(&self) -> bool {
        let news = self.networks.len().saturating_sub(2) as i64;
        self.networks.len() >= MAX_NETWORKS || news * ROAMING_WEEKS * 7 > self.days_in_use()
    }

    fn days_in_use(&self) -> i64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) => (last.micros() - first.micros()) / DAY,
            _ => 0,
        }
    }

    /// An allowed use. Says how many its hour has now.
    pub(super) fn count(&mut self, time: Time, network: Option<Network>, count: u64) -> u64 {
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        if let Some(network) = network {
            self.learn_network(network, day_of(time));
        }
        self.hours.add(hour_of(time), count)
    }

    fn learn_network(&mut self, network: Network, day: i64) {
        let full = self.networks.len() >= MAX_NETWORKS;
        match self.networks.get_mut(&network) {
            Some(since) => *since = day.min(*since),
            None if full => {}
            None => drop(self.networks.insert(network, day)),
        }
    }
}

impl Cache {
    pub(super) fn has_key(&self, id: KeyId) -> bool {
        self.keys.contains_key(&id)
    }

    pub(super) fn has_owner(&self, owner: &Owner) -> bool {
        self.owners.contains_key(owner)
    }

    pub(super) fn learn(&mut self, subject: Subject, history: History) {
        self.clock += 1;
        let known = Known { touched: self.clock, ..Known::of(history) };
        match subject {
            Subject::Key(id) => {
                make_room(&mut self.keys, MAX_HISTORIES);
                self.keys.insert(id, known);
            }
            Subject::Owner(owner) => {
                make_room(&mut self.owners, MAX_OWNER_HISTORIES);
                self.owners.insert(owner, known);
            }
            Subject::Peer(_) => {}
        }
    }

    pub(super) fn key(&mut self, id: KeyId) -> Option<&mut Known> {
        self.clock += 1;
        let known = self.keys.get_mut(&id)?;
        known.touched = self.clock;
        Some(known)
    }

    pub(super) fn owner(&mut self, owner: &Owner) -> Option<&mut Known> {
        self.clock += 1;
        let known = self.owners.get_mut(owner)?;
        known.touched = self.clock;
        Some(known)
    }

    /// Whether keys of this owner were used from there.
    pub(super) fn owner_has(&self, owner: &Owner, network: Option<Network>) -> bool {
        let known = network.zip(self.owners.get(owner));
        known.is_some_and(|(network, known)| known.networks.contains_key(&network))
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.owners.len()
    }
}

/// Forgets the eighth that was used longest ago, if there are as many as there may be.
fn make_room<K: Eq + Hash>(map: &mut HashMap<K, Known>, most: usize) {
    if map.len() < most {
        return;
    }
    let mut touched: Vec<u64> = map.values().map(|known| known.touched).collect();
    let (_, last, _) = touched.select_nth_unstable(most / 8);
    let last = *last;
    map.retain(|_, known| known.touched > last);
}

pub(super) fn hour_of(time: Time) -> i64 {
    time.micros().div_euclid(HOUR)
}

pub(super) fn day_of(time: Time) -> i64 {
    time.micros().div_euclid(DAY)
}
