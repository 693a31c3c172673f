//! One run: everything in the order of time, through the Monitor that the server runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyledger_ledger::anomaly::{Observation, Subject};
use keyledger_ledger::body::MonitoringRule as Rule;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::monitor::{History, Monitor, Raise, Rules, Step};
use keyledger_ledger::refusals::Network;
use keyledger_ledger::state::Owner;

use super::attacks::{Attack, Attacker};
use super::clients::{self, Client, Networks, Profile, START, WEEK};
use super::life::{Life, allowed, time};
use super::random::Random;

/// Weeks at the beginning in which there are no attacks, and nothing is counted.
pub(crate) const LEARNING_WEEKS: i64 = 4;

pub(crate) struct Size {
    pub(crate) keys: usize,
    pub(crate) weeks: i64,
    /// Attacks of each kind.
    pub(crate) attacks: usize,
}

pub(crate) struct Run {
    pub(crate) attacks: Vec<Attack>,
    pub(crate) alarms: Vec<Alarm>,
    /// Keys in use, summed over the weeks that count.
    pub(crate) key_weeks: f64,
    pub(crate) observations: u64,
    /// How long the Monitor took for them.
    pub(crate) took: Duration,
}

/// What was raised in the weeks that count.
pub(crate) struct Alarm {
    pub(crate) rule: Rule,
    pub(crate) subject: Subject,
    pub(crate) time: Time,
    pub(crate) raise: Raise,
    /// Whose it was, for people who look at false alarms.
    pub(crate) profile: Option<Profile>,
}

pub(crate) fn run(size: &Size, seed: u64) -> Run {
    let mut random = Random::new(seed);
    let (hours, mut networks) = (size.weeks * WEEK, Networks::new());
    let mut clients = clients::clients(size.keys, hours, &mut random, &mut networks);
    let mut life = Life {
        clients: &mut clients,
        hours,
        random: random.fork(),
        networks: &mut networks,
        happened: vec![],
        moves: vec![],
        holidays: vec![],
    };
    life.plan();
    let (mut happened, mut moves, holidays) = (life.happened, life.moves, life.holidays);
    let mut attacker = Attacker::new(&clients, random.fork(), &mut networks, peer_of);
    let attacks = attacker.attacks(size.attacks, LEARNING_WEEKS * WEEK, hours);
    happened.append(&mut attacker.happened);
    happened.sort_by_key(|o| o.time);
    moves.sort_by_key(|(hour, ..)| *hour);
    let mut replay = Replay::new(&clients, random);
    let (mut happened, mut moves) = (happened.into_iter().peekable(), moves.into_iter().peekable());
    let mut key_hours = 0;
    for hour in 0..hours {
        while let Some((_, n, network, only)) = moves.next_if(|(at, ..)| *at <= hour) {
            relocate(&mut clients[n], network, only);
        }
        let holiday = holidays.contains(&(hour / 24));
        let mut now: Vec<Observation> = vec![];
        for client in &mut clients {
            ordinary(client, hour, holiday, &mut replay.random, &mut now);
            key_hours += i64::from(hour >= LEARNING_WEEKS * WEEK && client.is_used_at(hour));
        }
        let end = time(hour + 1, 0.0);
        now.extend(std::iter::from_fn(|| happened.next_if(|o| o.time < end)));
        replay.hour(now, end);
    }
    let profiles: BTreeMap<KeyId, Profile> = clients.iter().map(|c| (c.id, c.profile)).collect();
    let begin = time(LEARNING_WEEKS * WEEK, 0.0);
    let counted = replay.raised.into_iter().filter(|(at, _)| *at >= begin);
    let alarm = |(time, raise): (Time, Raise)| Alarm {
        rule: raise.rule,
        subject: raise.subject.clone(),
        time,
        profile: raise.key.and_then(|key| profiles.get(&key).copied()),
        raise,
    };
    Run {
        attacks,
        alarms: counted.map(alarm).collect(),
        key_weeks: key_hours as f64 / WEEK as f64,
        observations: replay.position,
        took: replay.took,
    }
}

fn relocate(client: &mut Client, network: Network, only: bool) {
    if only || !client.roams() {
        client.networks.clear();
    } else if client.networks.len() > 3 {
        client.networks.remove(1);
    }
    client.networks.push(network);
}

/// The uses of an hour, as two observations at some time in it: what happens within an hour matters only to attacks.
fn ordinary(
    client: &mut Client,
    hour: i64,
    holiday: bool,
    random: &mut Random,
    now: &mut Vec<Observation>,
) {
    let uses = client.uses(hour, holiday);
    for count in [uses - uses / 2, uses / 2] {
        if count > 0 {
            let at = time(hour, random.between(0.0, 3_599.0));
            now.push(allowed(client.id, at, count, client.place()));
        }
    }
}

struct Replay {
    monitor: Monitor,
    rules: Rules,
    owners: BTreeMap<KeyId, Owner>,
    random: Random,
    position: u64,
    raised: Vec<(Time, Raise)>,
    took: Duration,
}

impl Replay {
    fn new(clients: &[Client], random: Random) -> Replay {
        let owner = |c: &Client| Some((c.id, c.owner.clone()?));
        Replay {
            monitor: Monitor::default(),
            rules: Rules::default(),
            owners: clients.iter().filter_map(owner).collect(),
            random,
            position: 0,
            raised: vec![],
            took: Duration::ZERO,
        }
    }

    /// Within two seconds the order is left to chance, as between replicas.
    fn hour(&mut self, now: Vec<Observation>, end: Time) {
        let late = |o: Observation| (o.time.plus_micros(self.random.whole(0, 2_000_000)), o);
        let mut now: Vec<(Time, Observation)> = now.into_iter().map(late).collect();
        now.sort_by_key(|(at, _)| *at);
        let now: Vec<Observation> = now.into_iter().map(|(_, o)| o).collect();
        let owners = &self.owners;
        let begun = Instant::now();
        for subject in self.monitor.unknown(&now, |key| owners.get(&key)) {
            self.monitor.learn(subject, History::default());
        }
        for mut observation in now {
            self.position += 1;
            observation.position = self.position;
            let owner = observation.key.and_then(|(key, _)| owners.get(&key));
            let peer = observation.network.as_ref().map(peer_of);
            for step in self.monitor.observe(&self.rules, &observation, owner, peer) {
                if let Step::Raise(raise) = step {
                    self.raised.push((observation.time, raise));
                }
            }
        }
        self.monitor.pass(&self.rules, end);
        self.took += begun.elapsed();
    }
}

/// Where the server has a keyed digest, the network itself will do.
fn peer_of(network: &Network) -> [u8; 16] {
    let mut peer = [0; 16];
    peer[..7].copy_from_slice(network);
    peer
}

/// In weeks since the start.
pub(crate) fn week_of(time: Time) -> i64 {
    (time.micros() / 3_600_000_000 - START) / WEEK
}
