//! Notices unusual use while it happens. Pure: the server feeds it what it reads behind the commit, the simulation what it makes up,
//! and both run this code. Time comes from the observations and from [`Monitor::pass`].
//!
//! - [`rules`]: the numbers, and why.
//! - `track`: what is followed: windows of what came lately, and episodes of what goes on; the part that is stored.
//! - `known`: histories, a cache: what is forgotten is asked for again ([`Monitor::unknown`]).
//! - `spike`: what is usual for an hour.
//! - `stored`: the bytes of what is stored.
//!
//! An episode is raised once, counts what belongs to it while it goes on, and is over after a quiet time. Who observes the same
//! from the same state and histories gets the same steps. Everything has a bound: see [`MAX_WINDOWS`], [`MAX_EPISODES`],
//! [`MAX_HISTORIES`] for what is forgotten first. A rule that needs a history says nothing of a subject whose history it hasn't.

mod known;
pub mod rules;
mod spike;
mod stored;
mod track;

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::anomaly::{Observation, Subject};
use crate::body::{DecisionReason, Measure, MonitoringRule};
use crate::command::SECOND;
use crate::id::{KeyId, Time};
use crate::refusals::Network;
use crate::state::Owner;

use known::{Cache, Known, day_of, hour_of};
pub use known::{MAX_HISTORIES, MAX_NETWORKS, MAX_OWNER_HISTORIES};
pub use rules::Rules;
use rules::{
    FORBIDDEN_REMEMBERED, FORBIDDEN_REPEATS, HOUR, OWN_REFUSALS, OWN_SUPERSEDED, OWNER_TIMES,
    SPIKE_FLOOR, quiet, window,
};
use spike::Usual;
pub use track::{MAX_EPISODES, MAX_PEER_EPISODES, MAX_PEER_WINDOWS, MAX_WINDOWS};
use track::{Track, Tracks};

/// What is known of a key's or an owner's use up to now: the server reads it from the roll-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When it was first used with success, as far as is known (an hour or a day too early does no harm).
    pub first: Option<Time>,
    /// When it was last used with success.
    pub last: Option<Time>,
    /// Networks from which it was used with success, each with the day (since 1970-01-01 UTC) on which it first was.
    pub networks: BTreeMap<Network, i64>,
    /// Hours since 1970-01-01 UTC -> allowed uses, 8 weeks back (and up to a day more); hours without any may be left out.
    pub hours: BTreeMap<i64, u64>,
}

/// What is to be done about what was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Raise(Raise),
    /// It is over: no more of it came for as long as the rule waits.
    End {
        rule: MonitoringRule,
        subject: Subject,
        last: Time,
        occurrences: u64,
    },
}

/// Something unusual began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    pub rule: MonitoringRule,
    pub subject: Subject,
    pub first: Time,
    pub last: Time,
    pub occurrences: u64,
    /// The numbers that led to it.
    pub measures: Vec<Measure>,
    /// What was asked for by the observation that raised it.
    pub permission: String,
    pub resource: String,
    /// The key, if the subject is one.
    pub key: Option<KeyId>,
    pub network: Option<Network>,
    /// Position of the observation that raised it.
    pub observed: u64,
}

/// Something unusual that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    pub rule: MonitoringRule,
    pub subject: Subject,
    pub occurrences: u64,
    pub first: Time,
    pub last: Time,
}

/// Windows and episodes, and beside them a cache of histories.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    tracks: Tracks,
    cache: Cache,
}

impl Monitor {
    /// Windows and episodes, at most about 1 MiB. Histories are not in it.
    pub fn encode(&self) -> Vec<u8> {
        stored::encode(&self.tracks)
    }

    /// `None` if these bytes are none of [`Monitor::encode`]. Nothing: a monitor that has seen nothing.
    pub fn decode(bytes: &[u8]) -> Option<Monitor> {
        Some(Monitor { tracks: stored::decode(bytes)?, cache: Cache::default() })
    }

    /// Whose history must be learned before these are observed: each once, in order. `owner_of` gives the owner of a key who has
    /// more than one.
    pub fn unknown<'a>(
        &self,
        observations: &[Observation],
        owner_of: impl Fn(KeyId) -> Option<&'a Owner>,
    ) -> Vec<Subject> {
        let keys: BTreeSet<KeyId> =
            observations.iter().filter_map(|o| o.key).map(|(key, _)| key).collect();
        let owners: BTreeSet<&Owner> = keys.iter().filter_map(|key| owner_of(*key)).collect();
        let keys = keys.into_iter().filter(|key| !self.cache.has_key(*key)).map(Subject::Key);
        let owners = owners.into_iter().filter(|owner| !self.cache.has_owner(owner));
        keys.chain(owners.cloned().map(Subject::Owner)).collect()
    }

    /// What came before the next observation. From now on it is kept up here.
    pub fn learn(&mut self, subject: Subject, history: History) {
        self.cache.learn(subject, history);
    }

    /// How many histories are in the cache.
    pub fn histories(&self) -> usize {
        self.cache.len()
    }

    /// `owner`: the key's, if they have more than one key. `peer`: digest of the observation's network, if it has one.
    pub fn observe(
        &mut self,
        rules: &Rules,
        observation: &Observation,
        owner: Option<&Owner>,
        peer: Option<[u8; 16]>,
    ) -> Vec<Step> {
        let mut steps = vec![];
        let o = observation;
        if let Some((key, _)) = o.key {
            let mut watch = Watch { tracks: &mut self.tracks, rules, o, steps: &mut steps };
            let mut own = false;
            let with_owner = owner.is_some_and(|owner| self.cache.owner_has(owner, o.network));
            if let Some(known) = self.cache.key(key) {
                own = known.is_own(o.network, o.time);
                watch.key(key, known, with_owner);
            }
            if o.allowed
                && let Some(owner) = owner
            {
                watch.uses_of_owner(key, owner, &mut self.cache);
            }
            if let Some(limit) = Limit::of(rules, o, own) {
                watch.refused(key, owner, limit);
            }
        }
        let unknown_token = !o.allowed && is_of_no_key(o.reason);
        if let (Some(peer), Some(limit), true) = (peer, Limit::of_peer(rules), unknown_token) {
            let mut watch = Watch { tracks: &mut self.tracks, rules, o, steps: &mut steps };
            watch.follow(Subject::Peer(peer), limit);
        }
        steps
    }

    /// What is over by now. To be called before observing what happened later, and when nothing happens.
    pub fn pass(&mut self, _rules: &Rules, now: Time) -> Vec<Step> {
        self.tracks.pass(now)
    }

    /// What goes on, in the order of rule and subject.
    pub fn episodes(&self) -> impl Iterator<Item = Episode> + '_ {
        self.tracks.episodes()
    }
}

/// One observation as it is looked at.
struct Watch<'a> {
    tracks: &'a mut Tracks,
    rules: &'a Rules,
    o: &'a Observation,
    steps: &'a mut Vec<Step>,
}

/// When refusals are too many.
#[derive(Clone, Copy)]
struct Limit {
    rule: MonitoringRule,
    number: u64,
    /// How many of its own networks count as one, and whether this is one.
    own_worth: u64,
    own: bool,
    /// What was tried, where different things count.
    thing: Option<u64>,
    at_once: bool,
}

/// An hour that has more uses than is usual.
struct Excess {
    uses: u64,
    most: u64,
    usual: Usual,
}

impl Limit {
    /// The rule under which a refusal of a key falls; `None` if none, or it is off.
    fn of(rules: &Rules, o: &Observation, own: bool) -> Option<Limit> {
        use DecisionReason as R;
        if o.allowed {
            return None;
        }
        let (rule, own_worth) = match o.reason {
            R::WrongSecret | R::Revoked | R::Expired | R::Suspended => {
                (MonitoringRule::RefusalBurst, OWN_REFUSALS)
            }
            R::Network | R::Audience | R::UsesSpent | R::NotValid => {
                (MonitoringRule::RefusalBurst, OWN_REFUSALS)
            }
            R::NoGrant | R::ExceedsOwnRights => (MonitoringRule::Forbidden, 1),
            R::Superseded => (MonitoringRule::SupersededVersion, OWN_SUPERSEDED),
            // Requests that are wrong in themselves, or too many of those that are allowed, say nothing of who sends them.
            _ => return None,
        };
        let forbidden = rule == MonitoringRule::Forbidden;
        Some(Limit {
            rule,
            number: rules.number(rule)?,
            own_worth,
            own: own && !forbidden,
            thing: forbidden.then(|| thing(o)),
            at_once: forbidden && o.permission == "audit.read" && o.resource.starts_with("logs/"),
        })
    }

    fn of_peer(rules: &Rules) -> Option<Limit> {
        let rule = MonitoringRule::Scanning;
        let number = rules.number(rule)?;
        Some(Limit { rule, number, own_worth: 1, own: false, thing: None, at_once: false })
    }

    fn of_owner(self) -> Limit {
        Limit { number: self.number.saturating_mul(OWNER_TIMES), at_once: false, ..self }
    }
}

impl Watch<'_> {
    /// A refusal of a key, and of its owner: as long as an anomaly of one of their keys goes on, it stands for the owner.
    fn refused(&mut self, key: KeyId, owner: Option<&Owner>, limit: Limit) {
        let belongs = self.follow(Subject::Key(key), limit);
        let Some(owner) = owner else { return };
        match limit.rule {
            MonitoringRule::SupersededVersion => {}
            _ if belongs => self.cover(limit.rule, owner),
            _ => drop(self.follow(Subject::Owner(owner.clone()), limit.of_owner())),
        }
    }

    /// Counts in the window, or to the episode. Says whether it belongs to an episode.
    fn follow(&mut self, subject: Subject, limit: Limit) -> bool {
        let (rule, time, count) = (limit.rule, self.o.time, u64::from(self.o.count));
        let which = (rule, subject);
        if let Some(track) = self.tracks.episode(&which, time, self.steps) {
            track.more(time, count);
            track.due = track.last.plus_micros(quiet(rule));
            return true;
        }
        if self.tracks.covered(&which, time) {
            return false;
        }
        let track = self.tracks.window(&which, time);
        track.add(rule, time, count, limit.own);
        let things = limit.thing.map(|thing| track.tried(rule, time, thing));
        let sum = track.sum();
        let reached = match things {
            None => sum.reaches(limit.number, limit.own_worth),
            Some(things) => {
                let number = limit.number.min(FORBIDDEN_REMEMBERED as u64);
                limit.at_once || things + (sum.all() - 1) / FORBIDDEN_REPEATS >= number
            }
        };
        if !reached {
            return false;
        }
        // At once means that one is enough.
        let threshold = if limit.at_once { 1 } else { limit.number };
        let counted = if rule == MonitoringRule::Scanning { "unknown_tokens" } else { "refusals" };
        let mut measures = vec![(counted, sum.all()), ("threshold", threshold)];
        match things {
            Some(things) => measures.push(("different_things", things)),
            None if rule == MonitoringRule::Scanning => {}
            None => measures.push(("from_other_networks", sum.strange)),
        }
        measures.push(("window_seconds", (window(rule) / SECOND) as u64));
        self.raise(which, time, sum.all(), measures).is_some()
    }

    /// What needs the key's history. A network in which other keys of the owner are used isn't new.
    fn key(&mut self, key: KeyId, known: &mut Known, with_owner: bool) {
        let o = self.o;
        if o.allowed || knows_the_secret(o.reason) {
            self.silence(key, known);
            self.network(key, known, with_owner);
        }
        if o.allowed
            && let Some(excess) = self.excess(known)
        {
            self.spike((MonitoringRule::Spike, Subject::Key(key)), excess);
        }
    }

    fn uses_of_owner(&mut self, key: KeyId, owner: &Owner, cache: &mut Cache) {
        let rule = MonitoringRule::Spike;
        let excess = cache.owner(owner).and_then(|known| self.excess(known));
        let of_key = (rule, Subject::Key(key));
        if self.tracks.episode(&of_key, self.o.time, self.steps).is_some() {
            self.cover(rule, owner);
        } else if let Some(excess) = excess {
            self.spike((rule, Subject::Owner(owner.clone())), excess);
        }
    }

    /// Counts a use. `Some` if the running hour has more than is usual.
    fn excess(&self, known: &mut Known) -> Option<Excess> {
        let uses = known.count(self.o.time, self.o.network, u64::from(self.o.count));
        let spreads = self.rules.number(MonitoringRule::Spike)?;
        if uses <= SPIKE_FLOOR {
            return None;
        }
        let usual = known.usual(hour_of(self.o.time))?;
        let most = usual.most(spreads);
        (uses > most).then_some(Excess { uses, most, usual })
    }

    fn spike(&mut self, which: (MonitoringRule, Subject), excess: Excess) {
        let Excess { uses, most, usual } = excess;
        let (time, count) = (self.o.time, u64::from(self.o.count));
        if let Some(track) = self.tracks.episode(&which, time, self.steps) {
            let crossed_now = uses.saturating_sub(count) <= most;
            track.more(time, if crossed_now { uses } else { count });
            track.due = track.last.plus_micros(quiet(which.0));
            return;
        }
        if self.tracks.covered(&which, time) {
            return;
        }
        let measures = vec![
            ("uses", uses),
            ("median_uses", usual.median),
            ("mad_uses", usual.mad),
            ("peak_uses", usual.peak),
            ("threshold", most),
            ("window_seconds", (HOUR / SECOND) as u64),
        ];
        self.raise(which, Time(hour_of(time) * HOUR), uses, measures);
    }

    /// Used again after a long time.
    fn silence(&mut self, key: KeyId, known: &Known) {
        let rule = MonitoringRule::LongSilence;
        let which = (rule, Subject::Key(key));
        if let Some(track) = self.tracks.episode(&which, self.o.time, self.steps) {
            return track.more(self.o.time, u64::from(self.o.count));
        }
        let (Some(number), Some(days)) = (self.rules.number(rule), known.silent_days(self.o.time))
        else {
            return;
        };
        if days >= number {
            let measures = vec![("silent_days", days), ("threshold", number)];
            self.raise(which, self.o.time, u64::from(self.o.count), measures);
        }
    }

    /// Used from where it never was.
    fn network(&mut self, key: KeyId, known: &Known, with_owner: bool) {
        let rule = MonitoringRule::NewNetwork;
        let Some(network) = self.o.network.filter(|network| network[0] != 0) else { return };
        let (time, count) = (self.o.time, u64::from(self.o.count));
        let since = known.network_since(&network);
        if since.is_some_and(|day| day_of(time) - day > 2) {
            return;
        }
        let which = (rule, Subject::Key(key));
        if let Some(track) = self.tracks.episode(&which, time, self.steps) {
            if since.is_none() {
                track.met(network);
                track.due = time.max(track.last).plus_micros(quiet(rule));
            }
            if track.networks.contains(&network) {
                track.more(time, count);
            }
            return;
        }
        let Some(number) = self.rules.number(rule).filter(|_| since.is_none()) else { return };
        if !with_owner && known.notices_networks(number) {
            let measures =
                vec![("known_networks", known.networks() as u64), ("warm_up_days", number)];
            if let Some(track) = self.raise(which, time, count, measures) {
                track.met(network);
            }
        }
    }

    /// What is noticed of a key isn't noticed of its owner too.
    fn cover(&mut self, rule: MonitoringRule, owner: &Owner) {
        let which = (rule, Subject::Owner(owner.clone()));
        let until = self.o.time.plus_micros(quiet(rule));
        if self.tracks.episode(&which, self.o.time, self.steps).is_none() {
            let track = self.tracks.window(&which, self.o.time);
            *track = Track { last: self.o.time, covered: until, ..Track::default() };
        }
    }

    fn raise(
        &mut self,
        which: (MonitoringRule, Subject),
        first: Time,
        occurrences: u64,
        measures: Vec<(&str, u64)>,
    ) -> Option<&mut Track> {
        let o = self.o;
        let track = self.tracks.raise(&which, first, o.time, occurrences)?;
        let measure = |(name, value): (&str, u64)| Measure {
            name: name.into(),
            value: i64::try_from(value).unwrap_or(i64::MAX),
        };
        let key = match which.1 {
            Subject::Key(id) => Some(id),
            Subject::Owner(_) | Subject::Peer(_) => None,
        };
        self.steps.push(Step::Raise(Raise {
            rule: which.0,
            subject: which.1,
            first: track.first,
            last: track.last,
            occurrences,
            measures: measures.into_iter().map(measure).collect(),
            permission: o.permission.clone(),
            resource: o.resource.clone(),
            key,
            network: o.network,
            observed: o.position,
        }));
        Some(track)
    }
}

/// Whoever got such an answer holds the key's secret.
fn knows_the_secret(reason: DecisionReason) -> bool {
    use DecisionReason as R;
    match reason {
        R::Revoked | R::Expired | R::Suspended | R::NoGrant | R::InvalidRequest | R::Refused => {
            true
        }
        R::ExceedsOwnRights | R::Replayed | R::Network | R::Audience | R::Validated => true,
        R::UsesSpent | R::Rate | R::Granted => true,
        R::Unspecified | R::Malformed | R::Missing | R::UnknownKey | R::Foreign => false,
        // An old secret has a rule of its own.
        R::WrongSecret | R::Superseded | R::NotValid => false,
    }
}

/// Not MISSING: health checks and browsers come without a token.
fn is_of_no_key(reason: DecisionReason) -> bool {
    use DecisionReason as R;
    matches!(reason, R::UnknownKey | R::Malformed | R::Foreign | R::WrongSecret)
}

/// By which different tries are told apart.
fn thing(o: &Observation) -> u64 {
    let mut digest = Sha256::new();
    digest.update((o.permission.len() as u64).to_be_bytes());
    digest.update(&o.permission);
    digest.update(&o.resource);
    let digest = digest.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
