//! Every rule at its edge.

use super::rules::*;
use super::*;
use crate::body::{AnomalyResponse, RuleSetting};
use crate::command::DAY;
use crate::id::LedgerNumber;
use crate::policy::Policy;

/// A Monday at midnight.
pub(super) const T0: Time = Time(1_767_571_200 * SECOND);
pub(super) const HOME: Network = [4, 10, 0, 1, 0, 0, 0];
pub(super) const AWAY: Network = [4, 203, 0, 113, 0, 0, 0];
pub(super) const PEER: [u8; 16] = [9; 16];

pub(super) fn key(n: u64) -> KeyId {
    KeyId::new(T0, LedgerNumber(1), n)
}

pub(super) fn after(micros: i64) -> Time {
    T0.plus_micros(micros)
}

/// An allowed use from home.
pub(super) fn used(key: KeyId, time: Time, count: u32) -> Observation {
    Observation {
        position: (time.micros() - T0.micros()).max(0) as u64,
        time,
        key: Some((key, 1)),
        allowed: true,
        reason: DecisionReason::Granted,
        permission: "data.read".into(),
        resource: "data/1".into(),
        network: Some(HOME),
        count,
    }
}

pub(super) fn refused(key: KeyId, time: Time, reason: DecisionReason) -> Observation {
    Observation { allowed: false, reason, ..used(key, time, 1) }
}

fn unknown(time: Time) -> Observation {
    Observation { key: None, ..refused(key(0), time, DecisionReason::UnknownKey) }
}

fn from(network: Network, observation: Observation) -> Observation {
    Observation { network: Some(network), ..observation }
}

/// One that was used from home, 100 times in each hour of the last eight weeks.
fn steady() -> History {
    let now = hour_of(T0);
    History {
        first: Some(after(-56 * DAY)),
        last: Some(after(-HOUR)),
        networks: [(HOME, day_of(T0) - 56)].into(),
        hours: (now - 8 * 168..now).map(|hour| (hour, 100)).collect(),
    }
}

struct World {
    monitor: Monitor,
    rules: Rules,
    owner: Option<Owner>,
    raised: Vec<Raise>,
    ended: Vec<(MonitoringRule, u64)>,
}

impl World {
    fn new() -> World {
        let mut monitor = Monitor::default();
        monitor.learn(Subject::Key(key(1)), steady());
        let rules = Rules::default();
        World { monitor, rules, owner: None, raised: vec![], ended: vec![] }
    }

    fn with(settings: Vec<RuleSetting>) -> World {
        let policy = Policy { rules: settings, ..Policy::default() };
        World { rules: Rules::of(&policy), ..World::new() }
    }

    fn see(&mut self, observation: &Observation) {
        let peer = observation.network.map(|_| PEER);
        let steps = self.monitor.observe(&self.rules, observation, self.owner.as_ref(), peer);
        self.keep(steps);
    }

    fn pass(&mut self, now: Time) {
        let steps = self.monitor.pass(&self.rules, now);
        self.keep(steps);
    }

    fn keep(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Raise(raise) => self.raised.push(raise),
                Step::End { rule, occurrences, .. } => self.ended.push((rule, occurrences)),
            }
        }
    }

    fn rules_raised(&self) -> Vec<MonitoringRule> {
        self.raised.iter().map(|raise| raise.rule).collect()
    }
}

fn off(rule: MonitoringRule) -> RuleSetting {
    RuleSetting { rule: rule as i32, response: AnomalyResponse::Off as i32, threshold: 0 }
}

fn threshold(rule: MonitoringRule, threshold: u32) -> RuleSetting {
    RuleSetting { rule: rule as i32, response: AnomalyResponse::Note as i32, threshold }
}

#[test]
fn two_hundred_unknown_tokens_from_one_peer_raise_exactly_one_and_end_at_two_hundred() {
    let mut world = World::new();
    for n in 0..200 {
        world.see(&unknown(after(n * 10_000)));
        assert_eq!(world.raised.len(), usize::from(n + 1 >= i64::from(SCANNED_TOKENS)));
    }
    let raise = &world.raised[0];
    assert_eq!((raise.rule, &raise.subject), (MonitoringRule::Scanning, &Subject::Peer(PEER)));
    assert_eq!((raise.occurrences, raise.first, raise.key), (100, T0, None));
    assert_eq!(world.monitor.episodes().map(|e| e.occurrences).collect::<Vec<_>>(), [200]);
    world.pass(after(QUIET_BURST));
    assert_eq!(world.ended, []);
    world.pass(after(QUIET_BURST + 10 * SECOND));
    assert_eq!(world.ended, [(MonitoringRule::Scanning, 200)]);
    assert_eq!(world.monitor.episodes().count(), 0);
}

#[test]
fn a_count_of_many_alike_counts_in_full() {
    let mut world = World::new();
    world.see(&Observation { count: SCANNED_TOKENS - 1, ..unknown(T0) });
    assert_eq!(world.raised, []);
    world.see(&Observation { count: 40, ..unknown(after(SECOND)) });
    assert_eq!(world.raised[0].occurrences, 139);
}

#[test]
fn tokens_that_come_a_day_apart_are_no_scan() {
    let mut world = World::new();
    world.see(&Observation { count: SCANNED_TOKENS - 1, ..unknown(T0) });
    world.see(&Observation { count: SCANNED_TOKENS - 1, ..unknown(after(DAY)) });
    assert_eq!(world.raised, []);
}

#[test]
fn a_missing_token_is_no_scan() {
    let mut world = World::new();
    let missing = Observation { reason: DecisionReason::Missing, count: 10_000, ..unknown(T0) };
    world.see(&missing);
    assert_eq!(world.raised, []);
}

#[test]
fn refusals_from_elsewhere_are_a_burst_at_their_number() {
    let mut world = World::with(vec![off(MonitoringRule::Scanning)]);
    for n in 0..i64::from(REFUSALS) + 30 {
        let wrong = refused(key(1), after(n * SECOND), DecisionReason::WrongSecret);
        world.see(&from(AWAY, wrong));
        assert_eq!(world.raised.len(), usize::from(n + 1 >= i64::from(REFUSALS)));
    }
    assert_eq!(world.rules_raised(), [MonitoringRule::RefusalBurst]);
    assert_eq!(world.raised[0].key, Some(key(1)));
    assert_eq!(world.monitor.episodes().next().unwrap().occurrences, u64::from(REFUSALS) + 30);
}

#[test]
fn a_client_that_tries_again_from_its_own_network_gets_ten_times_as_far() {
    let mut world = World::with(vec![off(MonitoringRule::Scanning)]);
    let most = REFUSALS * OWN_REFUSALS as u32;
    let expired = refused(key(1), T0, DecisionReason::Expired);
    world.see(&Observation { count: most - 1, ..expired.clone() });
    assert_eq!(world.raised, []);
    world.see(&expired);
    assert_eq!(world.rules_raised(), [MonitoringRule::RefusalBurst]);
}

#[test]
fn too_many_requests_are_no_burst_of_refusals() {
    let mut world = World::new();
    for reason in [DecisionReason::Rate, DecisionReason::InvalidRequest, DecisionReason::Refused] {
        world.see(&Observation { count: 100_000, ..refused(key(1), T0, reason) });
    }
    assert_eq!(world.raised, []);
}

#[test]
fn the_first_try_at_a_log_that_a_key_may_not_read_names_key_and_category() {
    let mut world = World::new();
    let read = Observation {
        permission: "audit.read".into(),
        resource: "logs/finance/payments".into(),
        ..refused(key(1), T0, DecisionReason::NoGrant)
    };
    world.see(&read);
    world.see(&Observation { time: after(SECOND), ..read.clone() });
    let [raise] = &world.raised[..] else { panic!("{:?}", world.raised) };
    assert_eq!((raise.rule, raise.key), (MonitoringRule::Forbidden, Some(key(1))));
    assert_eq!(raise.permission, "audit.read");
    assert_eq!(raise.resource, "logs/finance/payments");
    assert_eq!(world.monitor.episodes().next().unwrap().occurrences, 2);
}

#[test]
fn different_forbidden_things_are_noticed_at_their_number_and_one_thing_only_after_many_tries() {
    let thing = |n: u32, count: u32| Observation {
        resource: format!("data/{n}"),
        count,
        ..refused(key(1), after(i64::from(n) * SECOND), DecisionReason::NoGrant)
    };
    let mut world = World::new();
    (1..FORBIDDEN_THINGS).for_each(|n| world.see(&thing(n, 1)));
    world.see(&thing(1, 1));
    assert_eq!(world.raised, []);
    world.see(&thing(FORBIDDEN_THINGS, 1));
    assert_eq!(world.rules_raised(), [MonitoringRule::Forbidden]);

    let mut world = World::new();
    let most = FORBIDDEN_REPEATS as u32 * (FORBIDDEN_THINGS - 1);
    world.see(&thing(1, most));
    assert_eq!(world.raised, []);
    world.see(&thing(1, 1));
    assert_eq!(world.rules_raised(), [MonitoringRule::Forbidden]);
}

#[test]
fn an_old_secret_is_noticed_at_once_from_elsewhere_and_after_some_tries_from_home() {
    let old = |time| refused(key(1), time, DecisionReason::Superseded);
    let mut world = World::new();
    world.see(&from(AWAY, old(T0)));
    world.see(&from(AWAY, old(after(SECOND))));
    assert_eq!(world.rules_raised(), [MonitoringRule::SupersededVersion]);

    let mut world = World::new();
    for n in 1..=OWN_SUPERSEDED as i64 {
        assert_eq!(world.raised, []);
        world.see(&old(after(n * SECOND)));
    }
    assert_eq!(world.rules_raised(), [MonitoringRule::SupersededVersion]);
}

#[test]
fn an_old_secret_of_a_key_of_today_is_noticed_at_once() {
    let mut world = World::new();
    world.monitor.learn(Subject::Key(key(2)), History::default());
    world.see(&used(key(2), T0, 5));
    world.see(&refused(key(2), after(SECOND), DecisionReason::Superseded));
    assert_eq!(world.rules_raised(), [MonitoringRule::SupersededVersion]);
}

#[test]
fn a_new_network_is_noticed_once_even_if_several_follow() {
    let mut world = World::new();
    world.see(&from(AWAY, used(key(1), T0, 3)));
    world.see(&from([4, 1, 1, 1, 0, 0, 0], used(key(1), after(HOUR), 2)));
    world.see(&used(key(1), after(2 * HOUR), 7));
    world.see(&from(AWAY, used(key(1), after(3 * HOUR), 4)));
    assert_eq!(world.rules_raised(), [MonitoringRule::NewNetwork]);
    assert_eq!(world.raised[0].network, Some(AWAY));
    world.pass(after(QUIET + HOUR));
    assert_eq!(world.ended, [(MonitoringRule::NewNetwork, 9)]);
    world.see(&from(AWAY, used(key(1), after(2 * DAY), 4)));
    assert_eq!(world.raised.len(), 1);
}

#[test]
fn networks_are_learned_before_a_new_one_is_noticed() {
    let days = i64::from(NETWORK_WARM_UP_DAYS);
    for (in_use, raised) in [(days - 1, 0), (days, 1)] {
        let mut world = World::new();
        let history = History { first: Some(after(-HOUR - in_use * DAY)), ..steady() };
        world.monitor.learn(Subject::Key(key(1)), history);
        world.see(&from(AWAY, used(key(1), T0, 1)));
        assert_eq!(world.raised.len(), raised);
    }
}

#[test]
fn a_key_that_roams_and_one_that_follows_its_owner_meet_no_new_network() {
    let mut world = World::new();
    let networks = (0..5).map(|n| ([4, 10, 0, n, 0, 0, 0], day_of(T0) - 50)).collect();
    world.monitor.learn(Subject::Key(key(1)), History { networks, ..steady() });
    world.see(&from(AWAY, used(key(1), T0, 1)));
    assert_eq!(world.raised, []);

    let mut world = World::new();
    world.owner = Some(Owner::Service("billing".into()));
    let owner = History { networks: [(AWAY, day_of(T0) - 3)].into(), ..steady() };
    world.monitor.learn(Subject::Owner(world.owner.clone().unwrap()), owner);
    world.see(&from(AWAY, used(key(1), T0, 1)));
    assert_eq!(world.raised, []);
}

#[test]
fn a_long_silence_is_noticed_at_its_number_of_days() {
    let days = i64::from(SILENT_DAYS) * DAY;
    for (silent, raised) in [(days - 1, 0), (days, 1)] {
        let mut world = World::new();
        let history =
            History { first: Some(after(-90 * DAY)), last: Some(after(-silent)), ..steady() };
        world.monitor.learn(Subject::Key(key(1)), history);
        world.see(&used(key(1), T0, 1));
        world.see(&used(key(1), after(HOUR), 4));
        assert_eq!(world.raised.len(), raised);
        world.pass(after(QUIET));
        assert_eq!(world.ended, vec![(MonitoringRule::LongSilence, 5); raised]);
    }
}

#[test]
fn a_key_that_was_hardly_used_before_breaks_no_silence() {
    let mut world = World::new();
    let history =
        History { first: Some(after(-91 * DAY)), last: Some(after(-90 * DAY)), ..steady() };
    world.monitor.learn(Subject::Key(key(1)), history);
    world.see(&used(key(1), T0, 1));
    assert_eq!(world.raised, []);
}

#[test]
fn a_spike_is_noticed_while_its_hour_runs_and_only_beyond_what_is_usual() {
    // Median 100, spread at least a quarter of it: 100 + 8 * 25 = 300; twice the busiest hour: 200; the floor is above both.
    let mut world = World::new();
    world.see(&used(key(1), T0, SPIKE_FLOOR as u32));
    assert_eq!(world.raised, []);
    world.see(&used(key(1), after(SECOND), 1));
    world.see(&used(key(1), after(2 * SECOND), 1));
    let [raise] = &world.raised[..] else { panic!("{:?}", world.raised) };
    assert_eq!((raise.rule, raise.occurrences), (MonitoringRule::Spike, SPIKE_FLOOR + 1));
    assert_eq!(world.monitor.episodes().next().unwrap().occurrences, SPIKE_FLOOR + 2);
    // The next hour is ordinary, the one after is not: it counts from its beginning.
    world.see(&used(key(1), after(HOUR), 90));
    world.see(&used(key(1), after(2 * HOUR), 600));
    world.see(&used(key(1), after(2 * HOUR), 600));
    assert_eq!(world.monitor.episodes().next().unwrap().occurrences, SPIKE_FLOOR + 2 + 1_200);
    assert_eq!(world.raised.len(), 1);
}

#[test]
fn the_numbers_of_a_spike_are_those_of_its_history() {
    let mut world = World::new();
    let hours = steady().hours.into_iter().map(|(hour, count)| (hour, count * 100)).collect();
    world.monitor.learn(Subject::Key(key(1)), History { hours, ..steady() });
    world.see(&used(key(1), T0, 30_000));
    assert_eq!(world.raised, []);
    world.see(&used(key(1), T0, 1));
    let measures = &world.raised[0].measures;
    let measure = |name: &str| measures.iter().find(|m| m.name == name).map(|m| m.value);
    assert_eq!(measure("uses"), Some(30_001));
    assert_eq!(measure("median_uses"), Some(10_000));
    assert_eq!(measure("mad_uses"), Some(0));
    assert_eq!(measure("peak_uses"), Some(10_000));
    assert_eq!(measure("threshold"), Some(30_000));
}

#[test]
fn nothing_is_a_spike_before_the_warm_up_is_over() {
    for (since, raised) in [(SPIKE_WARM_UP - 1, 0), (SPIKE_WARM_UP, 1)] {
        let mut world = World::new();
        let history = History { first: Some(after(-since)), ..steady() };
        world.monitor.learn(Subject::Key(key(1)), history);
        world.see(&used(key(1), T0, 100_000));
        assert_eq!(world.raised.len(), raised);
    }
}

#[test]
fn a_nightly_batch_that_runs_in_the_morning_is_no_spike() {
    let mut world = World::new();
    let now = hour_of(T0);
    let nightly = (1..56).map(|day| (now - day * 24 + 3, 50_000)).collect();
    world.monitor.learn(Subject::Key(key(1)), History { hours: nightly, ..steady() });
    world.see(&used(key(1), after(9 * HOUR), 50_000));
    assert_eq!(world.raised, []);
    world.see(&used(key(1), after(9 * HOUR), 60_000));
    assert_eq!(world.rules_raised(), [MonitoringRule::Spike]);
}

#[test]
fn keys_of_an_owner_that_are_each_below_are_noticed_together_and_one_above_alone() {
    let owner = Owner::Service("billing".into());
    let together = |world: &mut World| {
        world.owner = Some(owner.clone());
        world.monitor.learn(Subject::Owner(owner.clone()), steady());
        for n in 2..5 {
            world.monitor.learn(Subject::Key(key(n)), steady());
            world.see(&used(key(n), T0, 400));
        }
    };
    let mut world = World::new();
    together(&mut world);
    assert_eq!(world.raised.len(), 1);
    assert_eq!(world.raised[0].subject, Subject::Owner(owner.clone()));
    assert_eq!(world.raised[0].key, None);

    let mut world = World::new();
    world.owner = Some(owner.clone());
    world.monitor.learn(Subject::Owner(owner.clone()), steady());
    world.see(&used(key(1), T0, 5_000));
    together(&mut world);
    assert_eq!(world.raised.len(), 1);
    assert_eq!(world.raised[0].subject, Subject::Key(key(1)));
}

#[test]
fn refusals_over_the_keys_of_an_owner_are_noticed_at_twice_the_number() {
    let mut world = World::with(vec![off(MonitoringRule::Scanning)]);
    world.owner = Some(Owner::User([7; 16]));
    let most = u64::from(REFUSALS) * OWNER_TIMES;
    for n in 0..most {
        assert_eq!(world.raised, []);
        world.see(&from(AWAY, refused(key(10 + n % 5), T0, DecisionReason::WrongSecret)));
    }
    assert_eq!(world.raised[0].subject, Subject::Owner(Owner::User([7; 16])));
    assert_eq!(world.raised[0].occurrences, most);
}

#[test]
fn off_is_off_and_a_threshold_replaces_the_number() {
    let mut world = World::with(vec![
        off(MonitoringRule::Spike),
        off(MonitoringRule::RefusalBurst),
        off(MonitoringRule::Forbidden),
        off(MonitoringRule::NewNetwork),
        off(MonitoringRule::LongSilence),
        off(MonitoringRule::SupersededVersion),
        off(MonitoringRule::Scanning),
    ]);
    world.see(&from(AWAY, used(key(1), after(100 * DAY), 1_000_000)));
    for reason in [DecisionReason::NoGrant, DecisionReason::Superseded, DecisionReason::WrongSecret]
    {
        let many = Observation { count: 1_000_000, ..refused(key(1), T0, reason) };
        world.see(&from(AWAY, many));
    }
    assert_eq!(world.raised, []);

    let mut world = World::with(vec![threshold(MonitoringRule::Scanning, 3)]);
    (0..2).for_each(|n| world.see(&unknown(after(n))));
    assert_eq!(world.raised, []);
    world.see(&unknown(after(3)));
    assert_eq!(world.raised[0].measures[1], Measure { name: "threshold".into(), value: 3 });
}

#[test]
fn an_episode_that_is_over_is_ended_before_the_next_is_raised() {
    let mut world = World::with(vec![threshold(MonitoringRule::Scanning, 1)]);
    world.see(&unknown(T0));
    world.see(&unknown(after(QUIET_BURST - 1)));
    assert_eq!(world.raised.len(), 1);
    world.see(&unknown(after(2 * QUIET_BURST - 1)));
    assert_eq!(world.ended, [(MonitoringRule::Scanning, 2)]);
    assert_eq!(world.raised.len(), 2);
}

#[test]
fn a_quiet_key_raises_nothing() {
    let mut world = World::new();
    for hour in 0..60 * 24 {
        world.see(&used(key(1), after(hour * HOUR + 7 * SECOND), 100));
        world.pass(after(hour * HOUR + 8 * SECOND));
    }
    assert_eq!((world.raised, world.ended), (vec![], vec![]));
}

#[test]
fn histories_are_asked_for_once_and_of_owners_with_more_than_one_key() {
    let monitor = World::new().monitor;
    let owner = Owner::Service("billing".into());
    let observations =
        [used(key(3), T0, 1), used(key(1), T0, 1), used(key(2), T0, 1), used(key(3), T0, 1)];
    let unknown = monitor.unknown(&observations, |id| (id == key(3)).then_some(&owner));
    let owner = Subject::Owner(owner.clone());
    assert_eq!(unknown, [Subject::Key(key(2)), Subject::Key(key(3)), owner]);
}
