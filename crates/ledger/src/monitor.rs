//! Notices unusual use while it happens. Pure: the server feeds it what it reads behind the commit, the simulation what it makes up,
//! and both run this code. Time comes from the observations and from [`Monitor::pass`].

use std::collections::BTreeMap;

use crate::anomaly::{Observation, Subject};
use crate::body::{Measure, MonitoringRule};
use crate::id::{KeyId, Time};
use crate::policy::Policy;
use crate::refusals::Network;
use crate::state::Owner;

/// The rules with the numbers that hold in a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rules {}

impl Rules {
    pub fn of(_policy: &Policy) -> Rules {
        Rules::default()
    }
}

/// What is known of a key's or an owner's use up to now: the server reads it from the roll-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When it was first used, as far as is known (an hour or day early does no harm).
    pub first: Option<Time>,
    /// When it was last used.
    pub last: Option<Time>,
    /// Networks from which it was used with success, each with the day (since 1970-01-01 UTC) on which it first was.
    pub networks: BTreeMap<Network, i64>,
    /// Hours since 1970-01-01 UTC -> uses, allowed and refused, up to 8 weeks back; hours without any may be left out.
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
    /// The key of that observation, if the subject is a key or an owner.
    pub key: Option<KeyId>,
    pub network: Option<Network>,
    /// Position of that observation.
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
pub struct Monitor {}

impl Monitor {
    /// Windows and episodes, at most about 1 MiB. Histories are not in it.
    pub fn encode(&self) -> Vec<u8> {
        vec![]
    }

    pub fn decode(_bytes: &[u8]) -> Option<Monitor> {
        Some(Monitor::default())
    }

    /// Whose history must be learned before these are observed: each once, in order. `owner_of` gives the owner of a key who has
    /// more than one.
    pub fn unknown<'a>(
        &self,
        _observations: &[Observation],
        _owner_of: impl Fn(KeyId) -> Option<&'a Owner>,
    ) -> Vec<Subject> {
        vec![]
    }

    /// History of what came before the next observation. From now on it is kept here.
    pub fn learn(&mut self, _subject: Subject, _history: History) {}

    /// `owner`: the key's, if they have more than one key. `peer`: digest of the observation's network, if it has one.
    pub fn observe(
        &mut self,
        _rules: &Rules,
        _observation: &Observation,
        _owner: Option<&Owner>,
        _peer: Option<[u8; 16]>,
    ) -> Vec<Step> {
        vec![]
    }

    /// What is over by now. To be called before observing what happened later, and when nothing happens.
    pub fn pass(&mut self, _rules: &Rules, _now: Time) -> Vec<Step> {
        vec![]
    }

    /// What goes on, in the order of rule and subject.
    pub fn episodes(&self) -> impl Iterator<Item = Episode> + '_ {
        std::iter::empty()
    }
}
