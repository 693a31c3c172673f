//! Who uses keys, and how: rhythm, level, noise and networks of each kind of client.

use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::refusals::Network;
use keyledger_ledger::state::Owner;

use super::random::Random;

/// The first hour: Monday 2026-01-05 00:00 UTC, in hours since 1970.
pub(crate) const START: i64 = 1_767_571_200 / 3_600;
pub(crate) const WEEK: i64 = 168;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// A service for people: days, evenings, weekends.
    Service,
    /// Some hours each night.
    Batch,
    /// A few calls every hour.
    Cron,
    /// Somebody at work, from the office.
    Person,
    /// Somebody who works from home, trains and hotels.
    Traveller,
    /// Builds, from a machine of one's own.
    Builds,
    /// Builds, from hosted runners with ever other addresses.
    HostedBuilds,
    /// A report each month, or each quarter.
    Report,
}

/// How many of a hundred.
const MIX: [(Profile, usize); 8] = [
    (Profile::Service, 35),
    (Profile::Batch, 12),
    (Profile::Cron, 13),
    (Profile::Person, 13),
    (Profile::Traveller, 9),
    (Profile::Builds, 5),
    (Profile::HostedBuilds, 8),
    (Profile::Report, 5),
];

pub(crate) struct Client {
    pub(crate) id: KeyId,
    pub(crate) profile: Profile,
    /// Of those with more than one key.
    pub(crate) owner: Option<Owner>,
    /// Hours since the start: first and last in use.
    pub(crate) born: i64,
    pub(crate) ends: i64,
    /// Uses of an ordinary busy hour.
    pub(crate) base: f64,
    /// Where it is used from; empty if the gateway doesn't say.
    pub(crate) networks: Vec<Network>,
    /// From an hour on, by how much its level is changed.
    pub(crate) levels: Vec<(i64, f64)>,
    /// From one hour to another by how much more.
    pub(crate) surges: Vec<(i64, i64, f64)>,
    /// Hours in which nothing arrives.
    pub(crate) gaps: Vec<(i64, i64)>,
    night: f64,
    weekend: f64,
    /// When its day begins, in UTC; and how much a week makes it grow.
    shift: i64,
    growth: f64,
    /// Of the day: what is the same all day long.
    day: (i64, f64, i64),
    random: Random,
}

/// A network that nobody had before.
pub(crate) struct Networks(u32);

impl Networks {
    pub(crate) fn new() -> Networks {
        Networks(0)
    }

    /// Of another provider each.
    pub(crate) fn next(&mut self) -> Network {
        self.0 += 1;
        [4, 20 + (self.0 / 250) as u8, (self.0 % 250) as u8, 7, 0, 0, 0]
    }

    /// Another one of the same provider.
    pub(crate) fn beside(&mut self, network: Network, random: &mut Random) -> Network {
        let [v, a, b, _, ..] = network;
        [v, a, b, random.whole(10, 250) as u8, 0, 0, 0]
    }
}

/// Who there is: `keys` in the proportions above, a sixth of them new in the course of it.
pub(crate) fn clients(
    keys: usize,
    hours: i64,
    random: &mut Random,
    networks: &mut Networks,
) -> Vec<Client> {
    let kinds = MIX.iter().flat_map(|(profile, n)| std::iter::repeat_n(*profile, *n));
    let mut kinds: Vec<Profile> = kinds.cycle().take(keys.max(100)).collect();
    (1..kinds.len()).rev().for_each(|i| kinds.swap(i, random.whole(0, i as i64) as usize));
    let mut clients: Vec<Client> = kinds[..keys]
        .iter()
        .enumerate()
        .map(|(n, p)| client(n, *p, hours, random, networks))
        .collect();
    own(&mut clients, random, networks);
    clients
}

/// Services of the same owner sit in the same networks: two to four keys each, for about two thirds of them.
fn own(clients: &mut [Client], random: &mut Random, networks: &mut Networks) {
    let machines = [Profile::Service, Profile::Batch, Profile::Cron];
    let mut left: Vec<usize> =
        (0..clients.len()).filter(|i| machines.contains(&clients[*i].profile)).collect();
    let mut number = 0;
    while left.len() > 4 {
        let mut team = left.split_off(left.len() - random.whole(2, 4) as usize);
        if random.chance(0.33) {
            continue;
        }
        number += 1;
        let home = [networks.next(), networks.next()];
        for i in team.drain(..) {
            clients[i].owner = Some(Owner::Service(format!("service-{number}").into()));
            if !clients[i].networks.is_empty() {
                clients[i].networks = home.to_vec();
            }
        }
    }
}

fn client(
    n: usize,
    profile: Profile,
    hours: i64,
    random: &mut Random,
    networks: &mut Networks,
) -> Client {
    let born = if random.chance(1.0 / 6.0) { random.whole(0, hours * 3 / 4) } else { -1 };
    // A few are forgotten after some weeks: nobody revokes them.
    let ends = match profile {
        Profile::Service | Profile::Cron | Profile::Person if born < 0 && random.chance(0.08) => {
            random.whole(2 * WEEK, 5 * WEEK)
        }
        _ => hours,
    };
    let base = match profile {
        Profile::Service => 300.0 * random.factor(1.1),
        Profile::Batch => 3_000.0 * random.factor(0.8),
        Profile::Cron => random.between(1.0, 60.0),
        Profile::Person | Profile::Traveller => random.between(5.0, 40.0),
        Profile::Builds | Profile::HostedBuilds => 60.0 * random.factor(0.7),
        Profile::Report => random.between(50.0, 2_000.0),
    };
    let places = match profile {
        Profile::Traveller => 3,
        Profile::HostedBuilds => 8,
        Profile::Service => 2,
        _ => 1,
    };
    // One gateway in ten doesn't pass the client's address on.
    let blind = places < 3 && random.chance(0.1);
    let places = (0..places).map(|_| networks.next()).collect();
    Client {
        id: KeyId::new(Time(n as i64), LedgerNumber(1), random.next()),
        profile,
        owner: None,
        born,
        ends,
        base,
        networks: if blind { vec![] } else { places },
        levels: vec![],
        surges: vec![],
        gaps: vec![],
        night: random.between(0.05, 0.5),
        weekend: random.between(0.2, 0.9),
        shift: *random.pick(&[-8, -5, 0, 0, 0, 1, 1, 5]),
        growth: random.between(0.99, 1.03),
        day: (-1, 1.0, 0),
        random: random.fork(),
    }
}

impl Client {
    pub(crate) fn is_used_at(&self, hour: i64) -> bool {
        self.born <= hour && hour < self.ends
    }

    /// Uses of an hour. Clocks go forward an hour for half of the clients in the tenth week.
    pub(crate) fn uses(&mut self, hour: i64, holiday: bool) -> u64 {
        let down = self.gaps.iter().any(|(from, to)| (*from..*to).contains(&hour));
        if !self.is_used_at(hour) || down {
            return 0;
        }
        let summer = i64::from(self.id.as_bytes()[15].is_multiple_of(2) && hour > 10 * WEEK);
        let local = hour + self.shift + summer;
        let (day, of_day) = (local.div_euclid(24), local.rem_euclid(24));
        if self.day.0 != day {
            self.day = (day, self.random.factor(0.15), self.random.whole(-1, 1));
        }
        let free = day.rem_euclid(7) >= 5 || holiday;
        let level = self.level(hour) * self.day.1;
        let mean = self.base * level * self.rhythm(day, of_day, free);
        // Hours vary by more than chance (Poisson) alone would.
        let spread = match self.profile {
            Profile::Service | Profile::Batch => 0.2,
            Profile::Cron => 0.05,
            Profile::Person | Profile::Traveller => 0.8,
            Profile::Builds | Profile::HostedBuilds => 1.0,
            Profile::Report => 0.5,
        };
        let noise = self.random.factor(spread);
        self.random.poisson(mean * noise)
    }

    fn level(&self, hour: i64) -> f64 {
        let mut level = 1.0;
        self.levels.iter().filter(|(from, _)| *from <= hour).for_each(|(_, by)| level *= by);
        let surge = self.surges.iter().find(|(from, to, _)| (*from..*to).contains(&hour));
        (0..hour / WEEK).for_each(|_| level *= self.growth);
        level * surge.map_or(1.0, |(_, _, by)| *by)
    }

    /// The part of a busy hour that an hour of the day has.
    fn rhythm(&mut self, day: i64, of_day: i64, free: bool) -> f64 {
        let at_work = (8..18).contains(&of_day);
        match self.profile {
            Profile::Service => {
                let by_day = match of_day {
                    0..6 => self.night,
                    6..9 | 18..24 => 0.6,
                    _ => 1.0,
                };
                if free { by_day * self.weekend } else { by_day }
            }
            // Begins an hour sooner or later; one night in fifty it fails, and is done in the morning.
            Profile::Batch => {
                let failed = (day * 7 + self.base as i64).rem_euclid(50) == 0;
                let begins = if failed { 9 } else { 3 + self.day.2 };
                if (begins..begins + 2).contains(&of_day) { 1.0 } else { 0.0 }
            }
            Profile::Cron => 1.0,
            Profile::Person | Profile::Traveller => {
                let there = at_work && !free && self.random.chance(0.6);
                if there {
                    1.0
                } else if self.random.chance(0.01) {
                    0.5
                } else {
                    0.0
                }
            }
            Profile::Builds | Profile::HostedBuilds => match (free, at_work) {
                (false, true) => 1.0,
                (false, false) => 0.2,
                (true, _) => 0.1,
            },
            // Every fourth week, or every thirteenth, on a morning.
            Profile::Report => {
                let every = if self.base > 1_500.0 { 91 } else { 28 };
                if of_day == 7 && day.rem_euclid(every) == 3 { 1.0 } else { 0.0 }
            }
        }
    }

    /// From where the uses of an hour come: one or two of its networks.
    pub(crate) fn place(&mut self) -> Option<Network> {
        if self.networks.is_empty() {
            return None;
        }
        if self.profile == Profile::HostedBuilds {
            // Any machine of the provider's eight blocks.
            let block = *self.random.pick(&self.networks);
            return Some([4, block[1], block[2], self.random.whole(0, 40) as u8, 0, 0, 0]);
        }
        Some(*self.random.pick(&self.networks))
    }

    /// Uses of its busiest hours, about.
    pub(crate) fn busy(&self, hour: i64) -> f64 {
        let noisy = matches!(self.profile, Profile::Builds | Profile::HostedBuilds);
        self.base * self.level(hour) * if noisy { 3.0 } else { 1.0 }
    }

    pub(crate) fn roams(&self) -> bool {
        matches!(self.profile, Profile::Traveller | Profile::HostedBuilds)
    }

    pub(crate) fn is_machine(&self) -> bool {
        matches!(self.profile, Profile::Service | Profile::Batch | Profile::Cron)
    }
}
