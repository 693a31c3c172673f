//! The catalogue: attacks, each with the rules that should notice it, and by whom it is seen.

use keyledger_ledger::anomaly::{Observation, Subject};
use keyledger_ledger::body::{DecisionReason, MonitoringRule as Rule};
use keyledger_ledger::id::Time;
use keyledger_ledger::refusals::Network;

use super::clients::{Client, Networks, Profile, WEEK};
use super::life::{allowed, refused, time};
use super::random::Random;

/// An attack that was made.
pub(crate) struct Attack {
    /// Number in the catalogue.
    pub(crate) kind: usize,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) from: Time,
    pub(crate) to: Time,
}

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) rules: &'static [Rule],
    make: fn(&mut Attacker) -> Option<Vec<Subject>>,
}

pub(crate) const CATALOGUE: [Kind; 18] = [
    Kind {
        name: "stolen key, used from elsewhere",
        rules: &[Rule::NewNetwork],
        make: |a| a.stolen(false),
    },
    Kind {
        name: "stolen key of a traveller or hosted build",
        rules: &[Rule::NewNetwork],
        make: |a| a.stolen(true),
    },
    Kind {
        name: "revoked key, tried from elsewhere",
        rules: &[Rule::NewNetwork],
        make: |a| a.revoked(),
    },
    Kind {
        name: "exfiltration by night, from its own network",
        rules: &[Rule::Spike],
        make: |a| a.exfiltration(true),
    },
    Kind {
        name: "exfiltration by day, from its own network",
        rules: &[Rule::Spike],
        make: |a| a.exfiltration(false),
    },
    Kind {
        name: "exfiltration that grows over three days",
        rules: &[Rule::Spike],
        make: |a| a.slow_spike(),
    },
    Kind {
        name: "all keys of an owner, each a little",
        rules: &[Rule::Spike],
        make: |a| a.owner_wide(),
    },
    Kind {
        name: "guessing the secret of a key, fast",
        rules: &[Rule::RefusalBurst, Rule::Scanning],
        make: |a| a.guessing(false),
    },
    Kind {
        name: "guessing the secret of a key, every minute",
        rules: &[Rule::Scanning],
        make: |a| a.guessing(true),
    },
    Kind {
        name: "guessing, spread over an owner's keys and 40 networks",
        rules: &[Rule::RefusalBurst],
        make: |a| a.guessing_widely(),
    },
    Kind {
        name: "scanning with unknown tokens, fast",
        rules: &[Rule::Scanning],
        make: |a| a.scanning(0.05, 400),
    },
    Kind {
        name: "scanning, every 7 minutes for two days",
        rules: &[Rule::Scanning],
        make: |a| a.scanning(450.0, 380),
    },
    Kind {
        name: "scanning, spread over 50 networks",
        rules: &[Rule::Scanning],
        make: |a| a.scanning_widely(),
    },
    Kind {
        name: "probing of log categories",
        rules: &[Rule::Forbidden],
        make: |a| a.probing(true),
    },
    Kind { name: "probing of resources", rules: &[Rule::Forbidden], make: |a| a.probing(false) },
    Kind {
        name: "dormant key, revived from its own network",
        rules: &[Rule::LongSilence],
        make: |a| a.dormant(),
    },
    Kind {
        name: "superseded secret, replayed from elsewhere",
        rules: &[Rule::SupersededVersion],
        make: |a| a.replay(true),
    },
    Kind {
        name: "superseded secret, replayed from its own network",
        rules: &[Rule::SupersededVersion],
        make: |a| a.replay(false),
    },
];

/// Makes attacks, in a week each.
pub(crate) struct Attacker<'a> {
    pub(crate) clients: &'a [Client],
    pub(crate) random: Random,
    pub(crate) networks: &'a mut Networks,
    pub(crate) happened: Vec<Observation>,
    /// The hour at which the attack begins.
    hour: i64,
    peer_of: fn(&Network) -> [u8; 16],
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(
        clients: &'a [Client],
        random: Random,
        networks: &'a mut Networks,
        peer_of: fn(&Network) -> [u8; 16],
    ) -> Attacker<'a> {
        Attacker { clients, random, networks, happened: vec![], hour: 0, peer_of }
    }

    /// `each` of every kind, at any time after the first `quiet` hours.
    pub(crate) fn attacks(&mut self, each: usize, quiet: i64, hours: i64) -> Vec<Attack> {
        let mut attacks = vec![];
        for (kind, one) in CATALOGUE.iter().enumerate() {
            for _ in 0..each {
                // A key of the wanted sort isn't there at every hour.
                let made = (0..50).find_map(|_| {
                    self.hour = self.random.whole(quiet, hours - 73);
                    let begin = self.happened.len();
                    let subjects = (one.make)(self)?;
                    let times = self.happened[begin..].iter().map(|o| o.time);
                    let (from, to) = (times.clone().min()?, times.max()?);
                    Some(Attack { kind, subjects, from, to })
                });
                attacks.extend(made);
            }
        }
        attacks
    }

    /// A key that has been in use for three weeks, and still is.
    fn victim(&mut self, wanted: impl Fn(&Client) -> bool) -> Option<&'a Client> {
        let hour = self.hour;
        let usual = |c: &&Client| c.born + 3 * WEEK < hour && hour + 73 < c.ends;
        let busy = |c: &&Client| c.profile != Profile::Report;
        let all: Vec<&Client> =
            self.clients.iter().filter(usual).filter(busy).filter(|c| wanted(c)).collect();
        if all.is_empty() { None } else { Some(*self.random.pick(&all)) }
    }

    fn stolen(&mut self, roaming: bool) -> Option<Vec<Subject>> {
        let victim = self.victim(|c| c.roams() == roaming && !c.networks.is_empty())?;
        let network = Some(self.networks.next());
        let (uses, long) = (self.random.whole(5, 200), self.random.between(60.0, 20_000.0));
        for _ in 0..uses {
            let at = time(self.hour, self.random.between(0.0, long));
            self.happened.push(allowed(victim.id, at, 1, network));
        }
        Some(vec![Subject::Key(victim.id)])
    }

    fn revoked(&mut self) -> Option<Vec<Subject>> {
        let victim = self.victim(|c| !c.roams() && !c.networks.is_empty())?;
        let network = Some(self.networks.next());
        let tries = self.random.whole(1, 30);
        self.tries(victim, tries, 20.0, DecisionReason::Revoked, network);
        Some(vec![Subject::Key(victim.id)])
    }

    /// Five to twenty times what its busiest hours have, and at least one a second, for one to three hours.
    fn exfiltration(&mut self, night: bool) -> Option<Vec<Subject>> {
        let of_day = if night { self.random.whole(0, 4) } else { self.random.whole(9, 15) };
        self.hour = self.hour / 24 * 24 + of_day;
        let victim = self.victim(|c| !matches!(c.profile, Profile::Batch))?;
        let times = self.random.between(5.0, 20.0);
        for later in 0..self.random.whole(1, 3) {
            self.pour(victim, self.hour + later, (victim.busy(self.hour) * times).max(3_600.0));
        }
        Some(victim_and_owner(victim))
    }

    /// From a half to six times, a little more each hour.
    fn slow_spike(&mut self) -> Option<Vec<Subject>> {
        let victim = self.victim(|c| !matches!(c.profile, Profile::Batch))?;
        for later in 0..72 {
            let times = 0.5 + 5.5 * later as f64 / 71.0;
            self.pour(
                victim,
                self.hour + later,
                (victim.busy(self.hour) * times).max(50.0 * later as f64),
            );
        }
        Some(victim_and_owner(victim))
    }

    /// One and a half to three times what it has at its busiest, on each of an owner's keys, for three hours.
    fn owner_wide(&mut self) -> Option<Vec<Subject>> {
        let first = self.victim(|c| c.owner.is_some())?;
        let hour = self.hour;
        let theirs: Vec<&Client> =
            self.clients.iter().filter(|c| c.owner == first.owner && c.is_used_at(hour)).collect();
        let times = self.random.between(1.5, 3.0);
        for client in &theirs {
            (0..3).for_each(|later| self.pour(client, hour + later, client.busy(hour) * times));
        }
        Some(theirs.into_iter().flat_map(victim_and_owner).collect())
    }

    fn guessing(&mut self, slow: bool) -> Option<Vec<Subject>> {
        let victim = self.victim(|_| true)?;
        let network = self.networks.next();
        let (tries, every) = match slow {
            true => (self.random.whole(300, 1_000), 60.0),
            false => (self.random.whole(200, 5_000), self.random.between(0.05, 1.0)),
        };
        self.tries(victim, tries, every, DecisionReason::WrongSecret, Some(network));
        Some(vec![Subject::Key(victim.id), Subject::Peer((self.peer_of)(&network))])
    }

    fn guessing_widely(&mut self) -> Option<Vec<Subject>> {
        let first = self.victim(|c| c.owner.is_some())?;
        let theirs: Vec<&Client> = self.clients.iter().filter(|c| c.owner == first.owner).collect();
        let from: Vec<Network> = (0..40).map(|_| self.networks.next()).collect();
        for _ in 0..self.random.whole(150, 400) {
            let at = time(self.hour, self.random.between(0.0, 600.0));
            let network = Some(*self.random.pick(&from));
            let key = Some((self.random.pick(&theirs).id, 1));
            self.happened.push(refused(key, at, DecisionReason::WrongSecret, ("", ""), network));
        }
        Some(theirs.into_iter().flat_map(victim_and_owner).collect())
    }

    fn scanning(&mut self, every: f64, tokens: usize) -> Option<Vec<Subject>> {
        let network = self.networks.next();
        self.tokens(network, every, tokens);
        Some(vec![Subject::Peer((self.peer_of)(&network))])
    }

    fn scanning_widely(&mut self) -> Option<Vec<Subject>> {
        let from: Vec<Network> = (0..50).map(|_| self.networks.next()).collect();
        from.iter().for_each(|network| self.tokens(*network, 5.0, 20));
        Some(from.iter().map(|network| Subject::Peer((self.peer_of)(network))).collect())
    }

    fn probing(&mut self, categories: bool) -> Option<Vec<Subject>> {
        let victim = self.victim(|_| true)?;
        let place = victim.networks.first().copied();
        let things = if categories { self.random.whole(1, 5) } else { self.random.whole(8, 50) };
        let every = self.random.between(1.0, 60.0);
        for n in 0..things {
            let what =
                if categories { format!("logs/finance/{n}") } else { format!("secrets/{n}") };
            let at = time(self.hour, n as f64 * every);
            let key = Some((victim.id, 1));
            let what = (if categories { "audit.read" } else { "data.read" }, what.as_str());
            self.happened.push(refused(key, at, DecisionReason::NoGrant, what, place));
        }
        Some(vec![Subject::Key(victim.id)])
    }

    fn dormant(&mut self) -> Option<Vec<Subject>> {
        let hour = self.hour;
        let asleep =
            |c: &Client| !self.happened.iter().any(|o| o.allowed && o.key == Some((c.id, 1)));
        let old = |c: &&Client| c.ends < hour - 60 * 24 && c.ends - c.born >= 2 * WEEK && asleep(c);
        let all: Vec<&Client> = self.clients.iter().filter(old).collect();
        let victim = if all.is_empty() { return None } else { *self.random.pick(&all) };
        let place = victim.networks.first().copied();
        for n in 0..self.random.whole(1, 50) {
            self.happened.push(allowed(victim.id, time(hour, n as f64 * 30.0), 1, place));
        }
        Some(vec![Subject::Key(victim.id)])
    }

    fn replay(&mut self, elsewhere: bool) -> Option<Vec<Subject>> {
        let victim = self.victim(|c| !c.networks.is_empty())?;
        let network = if elsewhere { self.networks.next() } else { victim.networks[0] };
        let tries = self.random.whole(1, 10);
        self.tries(victim, tries, 30.0, DecisionReason::Superseded, Some(network));
        Some(vec![Subject::Key(victim.id)])
    }

    fn tries(
        &mut self,
        victim: &Client,
        tries: i64,
        every: f64,
        reason: DecisionReason,
        network: Option<Network>,
    ) {
        for n in 0..tries {
            let at = time(self.hour, n as f64 * every * self.random.between(0.95, 1.05));
            self.happened.push(refused(Some((victim.id, 1)), at, reason, ("", ""), network));
        }
    }

    fn tokens(&mut self, network: Network, every: f64, tokens: usize) {
        for n in 0..tokens {
            let at = time(self.hour, n as f64 * every * self.random.between(0.95, 1.05));
            self.happened.push(refused(
                None,
                at,
                DecisionReason::UnknownKey,
                ("", ""),
                Some(network),
            ));
        }
    }

    /// So many uses in an hour, besides its own, a part each half minute.
    fn pour(&mut self, victim: &Client, hour: i64, uses: f64) {
        let place = victim.networks.first().copied();
        let part = uses / 120.0;
        let mut given = 0;
        for n in 0..120 {
            let due = (part * f64::from(n + 1)) as u64 - given;
            if due > 0 {
                given += due;
                self.happened.push(allowed(victim.id, time(hour, f64::from(n) * 30.0), due, place));
            }
        }
    }
}

fn victim_and_owner(victim: &Client) -> Vec<Subject> {
    let owner = victim.owner.clone().map(Subject::Owner);
    [Some(Subject::Key(victim.id)), owner].into_iter().flatten().collect()
}
