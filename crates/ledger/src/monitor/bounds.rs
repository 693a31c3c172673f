//! What holds for any sequence: stored or not, in whatever order, however many.

use proptest::prelude::*;

use super::tests::{AWAY, HOME, PEER, T0, after, key, refused, used};
use super::*;
use crate::command::DAY;

/// As the roll-ups have them: what was observed before.
fn history_of(subject: &Subject, before: &[Observation]) -> History {
    let mut history = History::default();
    for o in before.iter().filter(|o| o.allowed) {
        let theirs = match subject {
            Subject::Key(id) => o.key.is_some_and(|(used, _)| used == *id),
            _ => o.key.is_some_and(|(id, _)| id != key(0)),
        };
        if theirs {
            history.first = Some(history.first.map_or(o.time, |first| first.min(o.time)));
            history.last = history.last.max(Some(o.time));
            *history.hours.entry(hour_of(o.time)).or_default() += u64::from(o.count);
            if let Some(network) = o.network {
                let day = history.networks.entry(network).or_insert(day_of(o.time));
                *day = day_of(o.time).min(*day);
            }
        }
    }
    history
}

struct Observer {
    monitor: Monitor,
    owner: Owner,
    seen: Vec<Observation>,
}

impl Observer {
    fn new() -> Observer {
        let owner = Owner::Service("billing".into());
        Observer { monitor: Monitor::default(), owner, seen: vec![] }
    }

    fn see(&mut self, o: &Observation) -> Vec<Step> {
        let rules = Rules::default();
        // Two keys have an owner in common.
        let owner = o.key.filter(|(id, _)| *id != key(0)).map(|_| self.owner.clone());
        for subject in self.monitor.unknown(std::slice::from_ref(o), |_| owner.as_ref()) {
            let history = history_of(&subject, &self.seen);
            self.monitor.learn(subject, history);
        }
        let mut steps = self.monitor.pass(&rules, o.time);
        let peer = o.network.map(|_| PEER);
        steps.extend(self.monitor.observe(&rules, o, owner.as_ref(), peer));
        self.seen.push(o.clone());
        steps
    }

    fn store_and_restore(&mut self) {
        let bytes = self.monitor.encode();
        self.monitor = Monitor::decode(&bytes).unwrap();
        assert_eq!(self.monitor.encode(), bytes);
    }
}

/// Any use or refusal, up to three days after the one before.
fn observations() -> impl Strategy<Value = Vec<Observation>> {
    use DecisionReason as R;
    let reasons =
        [R::Granted, R::NoGrant, R::Superseded, R::WrongSecret, R::Expired, R::UnknownKey];
    let one = (
        0u64..3,
        prop::sample::select(reasons.to_vec()),
        prop::sample::select(vec![Some(HOME), Some(AWAY), Some([4, 8, 8, 8, 0, 0, 0]), None]),
        prop::sample::select(vec![1u32, 1, 1, 30, 700, 40_000]),
        prop::sample::select(vec![SECOND, 40 * SECOND, HOUR, DAY, 3 * DAY, 20 * DAY]),
        0u32..8,
    );
    prop::collection::vec(one, 1..80).prop_map(|all| {
        let mut time = T0;
        let make = |(n, reason, network, count, later, thing): (u64, R, _, _, i64, u32)| {
            time = time.plus_micros(later);
            let base = match reason {
                R::Granted => used(key(n), time, count),
                _ => Observation { count, ..refused(key(n), time, reason) },
            };
            let resource = format!("data/{thing}");
            let key = base.key.filter(|_| reason != R::UnknownKey);
            Observation { network, resource, key, ..base }
        };
        all.into_iter().map(make).collect()
    })
}

proptest! {
    #[test]
    fn being_stored_and_restored_at_any_time_changes_nothing(
        observations in observations(),
        stops in prop::collection::vec(any::<bool>(), 80),
    ) {
        let (mut one, mut other) = (Observer::new(), Observer::new());
        for (o, stop) in observations.iter().zip(stops) {
            prop_assert_eq!(one.see(o), other.see(o));
            if stop {
                other.store_and_restore();
            }
        }
        let episodes: Vec<Episode> = one.monitor.episodes().collect();
        prop_assert_eq!(episodes, other.monitor.episodes().collect::<Vec<_>>());
    }

    #[test]
    fn each_is_raised_once_until_it_ends(observations in observations()) {
        let mut observer = Observer::new();
        let mut open = BTreeSet::new();
        for o in &observations {
            for step in observer.see(o) {
                match step {
                    Step::Raise(raise) => {
                        prop_assert!(raise.first <= raise.last && raise.last <= o.time);
                        prop_assert!(raise.occurrences > 0 && raise.observed == o.position);
                        prop_assert!(open.insert((raise.rule, raise.subject)));
                    }
                    Step::End { rule, subject, last, .. } => {
                        prop_assert!(last <= o.time);
                        prop_assert!(open.remove(&(rule, subject)));
                    }
                }
            }
            let going_on = observer.monitor.episodes().map(|e| (e.rule, e.subject));
            prop_assert_eq!(going_on.collect::<BTreeSet<_>>(), open.clone());
        }
    }

    #[test]
    fn the_order_within_a_page_does_no_harm(
        order in Just((0..260usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let page: Vec<Observation> = (0..260).map(|n| {
            let time = after(40 * DAY + n * 1_000);
            match n % 4 {
                0 => Observation { key: None, ..refused(key(0), time, DecisionReason::UnknownKey) },
                1 => Observation { network: Some(AWAY), ..refused(key(1), time, DecisionReason::Expired) },
                2 => Observation { network: Some(AWAY), ..used(key(0), time, 50) },
                _ => used(key(1), time, 10),
            }
        }).collect();
        let outcome = |order: &mut dyn Iterator<Item = usize>| {
            let mut observer = Observer::new();
            for day in 0..40 {
                observer.see(&used(key(1), after(day * DAY), 40));
                observer.see(&used(key(0), after(day * DAY + 1), 40));
            }
            let raised: usize = order.map(|n| observer.see(&page[n]).len()).sum();
            (raised, observer.monitor.episodes().map(|e| (e.rule, e.subject)).collect::<Vec<_>>())
        };
        prop_assert_eq!(outcome(&mut order.into_iter()), outcome(&mut (0..260)));
    }

    #[test]
    fn bytes_that_are_no_state_are_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(monitor) = Monitor::decode(&bytes) {
            prop_assert!(Monitor::decode(&monitor.encode()).is_some());
        }
    }
}

#[test]
fn a_million_subjects_stay_within_the_bounds() {
    let mut monitor = Monitor::default();
    let rules = Rules::default();
    let long = "s".repeat(128);
    for n in 0..1_000_000u64 {
        let time = after(n as i64 * 1_000);
        let owner = Owner::Service(format!("{long}{n}").into());
        let o = match n % 4 {
            0 => used(key(n), time, 1),
            1 => refused(key(n), time, DecisionReason::NoGrant),
            2 => Observation { count: 5_000, ..refused(key(n), time, DecisionReason::WrongSecret) },
            _ => Observation { key: None, ..refused(key(0), time, DecisionReason::Malformed) },
        };
        for subject in monitor.unknown(std::slice::from_ref(&o), |_| Some(&owner)) {
            monitor.learn(subject, History::default());
        }
        let mut peer = [0; 16];
        peer[..8].copy_from_slice(&n.to_be_bytes());
        monitor.observe(&rules, &o, Some(&owner), Some(peer));
    }
    assert!(monitor.episodes().count() <= MAX_EPISODES);
    assert!(monitor.histories() <= MAX_HISTORIES + MAX_OWNER_HISTORIES);
    let bytes = monitor.encode();
    assert!(bytes.len() <= 1 << 20, "{} bytes", bytes.len());
    assert_eq!(Monitor::decode(&bytes).unwrap().encode(), bytes);
}
