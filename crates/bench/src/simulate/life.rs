//! What happens to clients without anybody meaning harm: the rates are in [`ASSUMPTIONS`], which the program's help shows.

use keyledger_ledger::anomaly::Observation;
use keyledger_ledger::body::DecisionReason;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::refusals::Network;

use super::clients::{Client, Networks, Profile, START, WEEK};
use super::random::Random;

/// What the traffic is assumed to be. Of these assumptions, not of anybody's traffic, the figures tell.
pub(crate) const ASSUMPTIONS: &str = "\
Traffic: 35 services, 12 nightly batches, 13 hourly jobs, 13 people in offices, 9 who travel, 5 builds on own and 8 on hosted \
machines, 5 monthly or quarterly reports of each 100 keys; a sixth begin in the course of it, some are forgotten. Each hour's \
count is Poisson around a mean that itself varies: log-normal with fat tails by hour (spread 0.05 for jobs to 1.0 for builds) \
and by day (0.15); levels from 1 to some 10,000 uses an hour, growth of -1 to 3 % a week. One key in ten is used through a gateway \
that doesn't pass addresses on.

Without harm, in a week and 100 keys, about: 15 deployments that change the level by a fifth, 0.4 that multiply it by 1.5 to 3 \
for good, 0.15 that move a service with all its keys to another network, 0.3 that lack a right (the same one or two things, \
tried every 2 to 60 s for up to 3 h), 0.2 with a wrong secret (every 5 to 60 s for up to 90 min); 0.2 load tests or \
campaigns of 3 to 8 times the level; 12 rotations, of which two fifths have a client that lags (some 4 tries with the old secret) \
and one in fifty a job that is forgotten and goes on for a week; 0.2 keys that expire unnoticed and are tried every 10 to 120 s for \
up to 8 h; 2 wrong tokens pasted in an office, 0.15 clients with a token of elsewhere (every 10 to 300 s for up to a day); 0.1 \
people who ask for a log that they may not read, 2 for something else; travellers come to a new network every third week and an \
office every year. Every third week an outage of up to 90 minutes, after which work is made up for and one client in ten \
is refused 20 to 400 times in ten minutes; two public holidays; clocks go forward once.";

/// What is known before the first hour is replayed.
pub(crate) struct Life<'a> {
    pub(crate) clients: &'a mut [Client],
    pub(crate) hours: i64,
    pub(crate) random: Random,
    pub(crate) networks: &'a mut Networks,
    /// What was observed besides ordinary uses.
    pub(crate) happened: Vec<Observation>,
    /// From an hour on the client with this number is used from there too (or only from there).
    pub(crate) moves: Vec<(i64, usize, Network, bool)>,
    pub(crate) holidays: Vec<i64>,
}

impl Life<'_> {
    pub(crate) fn plan(&mut self) {
        self.holidays =
            vec![self.random.whole(0, self.hours / 24), self.random.whole(0, self.hours / 24)];
        for week in 0..self.hours / WEEK {
            (0..self.clients.len()).for_each(|client| self.week_of(week * WEEK, client));
            self.week_of_all(week * WEEK);
        }
    }

    fn week_of(&mut self, week: i64, n: usize) {
        let hour = week + self.random.whole(0, WEEK - 1);
        if !self.clients[n].is_used_at(hour) {
            return;
        }
        let mut r = self.random.fork();
        if self.clients[n].is_machine() && r.chance(0.25) {
            self.deployment(hour, n, &mut r);
        }
        if r.chance(0.002) {
            let to = hour + r.whole(1, 5);
            self.clients[n].surges.push((hour, to, r.between(3.0, 8.0)));
        }
        if r.chance(0.12) {
            self.rotation(hour, n, &mut r);
        }
        if r.chance(0.002) {
            let hours = r.whole(1, 8);
            self.clients[n].gaps.push((hour, hour + hours));
            let every = r.between(10.0, 120.0);
            self.retries(n, hour, (hours as f64 * 3600.0, every), DecisionReason::Expired, &mut r);
        }
        match self.clients[n].profile {
            Profile::Person | Profile::Traveller => self.person(hour, n, &mut r),
            _ => {}
        }
    }

    fn deployment(&mut self, hour: i64, n: usize, r: &mut Random) {
        let by = if r.chance(0.027) { r.between(1.5, 3.0) } else { r.factor(0.2) };
        self.clients[n].levels.push((hour, by));
        if r.chance(0.02) {
            for _ in 0..r.whole(1, 2) {
                let thing = format!("data/{}", r.whole(0, 1000));
                let (every, long) = (r.between(2.0, 60.0), r.between(600.0, 10_800.0));
                self.repeat(
                    n,
                    hour,
                    (long, every),
                    DecisionReason::NoGrant,
                    ("data.write", &thing),
                    r,
                );
            }
        }
        if r.chance(0.013) {
            let (every, long) = (r.between(5.0, 60.0), r.between(300.0, 5_400.0));
            self.retries(n, hour, (long, every), DecisionReason::WrongSecret, r);
        }
        if r.chance(0.01) {
            self.relocation(hour, n, r);
        }
    }

    /// All keys of the service move, within a day.
    fn relocation(&mut self, hour: i64, n: usize, r: &mut Random) {
        let network = self.networks.next();
        let owner = self.clients[n].owner.clone();
        for other in 0..self.clients.len() {
            let along = owner.is_some() && self.clients[other].owner == owner;
            if (along || other == n) && !self.clients[other].networks.is_empty() {
                self.moves.push((hour + r.whole(0, 24), other, network, true));
            }
        }
    }

    fn rotation(&mut self, hour: i64, n: usize, r: &mut Random) {
        let forgotten = self.clients[n].is_machine() && r.chance(0.02);
        let (tries, every) = match (forgotten, r.chance(0.4)) {
            (true, _) => (168, 3600.0),
            (false, true) => (1 + r.poisson(3.0), r.between(10.0, 7200.0)),
            (false, false) => return,
        };
        self.retries(n, hour, (tries as f64 * every, every), DecisionReason::Superseded, r);
    }

    fn person(&mut self, hour: i64, n: usize, r: &mut Random) {
        if r.chance(0.005) {
            self.repeat(
                n,
                hour,
                (1.0, 10.0),
                DecisionReason::NoGrant,
                ("audit.read", "logs/payments/card"),
                r,
            );
        }
        if r.chance(0.1) {
            for _ in 0..r.whole(1, 2) {
                let thing = format!("data/{}", r.whole(0, 1000));
                self.repeat(
                    n,
                    hour,
                    (r.between(1.0, 60.0), 15.0),
                    DecisionReason::NoGrant,
                    ("data.read", &thing),
                    r,
                );
            }
        }
        if r.chance(0.1) {
            let tries = r.whole(1, 4) as f64;
            let place = self.clients[n].networks.first().copied();
            self.unknown(place, hour, tries * 20.0, 20.0, r);
        }
        let away = if self.clients[n].roams() { 0.33 } else { 0.02 };
        if r.chance(away) && !self.clients[n].networks.is_empty() {
            let network = match r.chance(0.4) {
                true => self.networks.beside(self.clients[n].networks[0], r),
                false => self.networks.next(),
            };
            self.moves.push((hour, n, network, false));
        }
    }

    fn week_of_all(&mut self, week: i64) {
        let mut r = self.random.fork();
        let hour = week + r.whole(0, WEEK - 2);
        if r.chance(0.15) {
            let network = Some(self.networks.next());
            let (every, long) = (r.between(10.0, 300.0), r.between(3_600.0, 86_400.0));
            self.unknown(network, hour, long, every, &mut r);
        }
        if r.chance(0.33) {
            let long = if r.chance(0.3) { 2 } else { 1 };
            for n in 0..self.clients.len() {
                self.clients[n].gaps.push((hour, hour + long));
                if self.clients[n].is_machine() {
                    self.clients[n].surges.push((
                        hour + long,
                        hour + long + 1,
                        r.between(1.2, 2.5),
                    ));
                }
                if r.chance(0.1) && self.clients[n].is_used_at(hour) {
                    let tries = r.between(20.0, 400.0);
                    let reason = *r.pick(&[DecisionReason::Audience, DecisionReason::Suspended]);
                    self.retries(n, hour + long, (600.0, 600.0 / tries), reason, &mut r);
                }
            }
        }
    }

    fn retries(
        &mut self,
        n: usize,
        hour: i64,
        (seconds, every): (f64, f64),
        reason: DecisionReason,
        r: &mut Random,
    ) {
        self.repeat(n, hour, (seconds, every), reason, ("data.read", "data/1"), r);
    }

    /// The same again and again, from where the client always is.
    fn repeat(
        &mut self,
        n: usize,
        hour: i64,
        (seconds, every): (f64, f64),
        reason: DecisionReason,
        what: (&str, &str),
        r: &mut Random,
    ) {
        let key = Some((self.clients[n].id, 1));
        let mut at = r.between(0.0, 3_000.0);
        let end = at + seconds.max(1.0);
        let network = self.clients[n].place();
        while at < end {
            self.happened.push(refused(key, time(hour, at), reason, what, network));
            at += every * r.between(0.5, 1.5);
        }
    }

    fn unknown(
        &mut self,
        network: Option<Network>,
        hour: i64,
        seconds: f64,
        every: f64,
        r: &mut Random,
    ) {
        let mut at = r.between(0.0, 3_000.0);
        let end = at + seconds;
        let reason = *r.pick(&[
            DecisionReason::UnknownKey,
            DecisionReason::Foreign,
            DecisionReason::Malformed,
        ]);
        while at < end {
            self.happened.push(refused(None, time(hour, at), reason, ("", ""), network));
            at += every * r.between(0.5, 1.5);
        }
    }
}

/// So many seconds into an hour since the start.
pub(crate) fn time(hour: i64, seconds: f64) -> Time {
    Time((START + hour) * 3_600_000_000 + (seconds * 1e6) as i64)
}

pub(crate) fn refused(
    key: Option<(KeyId, u32)>,
    time: Time,
    reason: DecisionReason,
    what: (&str, &str),
    network: Option<Network>,
) -> Observation {
    Observation {
        position: 0,
        time,
        key,
        allowed: false,
        reason,
        permission: what.0.into(),
        resource: what.1.into(),
        network,
        count: 1,
    }
}

pub(crate) fn allowed(key: KeyId, time: Time, count: u64, network: Option<Network>) -> Observation {
    Observation {
        allowed: true,
        count: count.clamp(1, u64::from(u32::MAX)) as u32,
        ..refused(Some((key, 1)), time, DecisionReason::Granted, ("data.read", "data/1"), network)
    }
}
