//! What was noticed is raised once and ended once, whatever the number of replicas that look and wherever they begin again; and
//! a key is suspended for it once. The core alone, without a server.

use keyledger_ledger::anomaly::{AnomalyChange, Subject};
use keyledger_ledger::batch::NewEntry;
use keyledger_ledger::body::{AnomalyResponse, AnomalyVerdict, Kind, MonitoringRule, RuleSetting};
use keyledger_ledger::command::{Answer, ChangeKind, Expiry, Refusal, SECOND, UpdatePolicy};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::monitor::Raise;
use keyledger_ledger::policy::Policy;
use keyledger_ledger::record::{Columns, decode_key, encode_key};
use keyledger_ledger::state::{KeyStatus, Owner};
use keyledger_ledger::token::Token;
use keyledger_ledger::verify::{Found, NoKeys, Verifier};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::World;

/// So many entries are there to be noticed something at.
const ENTRIES: u64 = 80;
const RULE: MonitoringRule = MonitoringRule::Scanning;

fn peer(number: u8) -> Subject {
    Subject::Peer([number; 16])
}

fn raise(subject: Subject, observed: u64, at: Time) -> Raise {
    Raise {
        rule: RULE,
        subject,
        first: at,
        last: at,
        occurrences: 20,
        measures: vec![],
        permission: String::new(),
        resource: String::new(),
        key: None,
        network: None,
        observed,
    }
}

/// A world with some keys, the first of them last.
fn world_with_keys(count: u64) -> (World, Token) {
    let mut world = World::new("keys.example.test/system");
    let mut first = None;
    for _ in 0..count {
        let token = world.new_key();
        let owner = Owner::Service("robot".into());
        let create = world.create_key(&token, owner, vec![], vec![], Expiry::Never);
        let create = world.by_itself(create, vec![]);
        world.run(vec![create]);
        first.get_or_insert(token);
    }
    world.now = world.now.plus_micros(3_600 * SECOND);
    (world, first.expect("at least one"))
}

/// What is noticed in a ledger, in order: each peer begins and ends by turns, at positions and times that rise.
fn steps(world: &World, picks: &[(u8, u64)]) -> Vec<ChangeKind> {
    let mut open = [false; 4];
    let (mut observed, mut at) = (0, world.now.plus_micros(-1_000 * SECOND));
    let mut step = |(number, gap): &(u8, u64)| {
        let open = &mut open[usize::from(*number)];
        // Several may be noticed at one position, but none is noticed and over at the same one.
        observed = observed + gap + u64::from(*open);
        at = at.plus_micros(SECOND);
        *open = !*open;
        match *open {
            true => ChangeKind::Anomaly(AnomalyChange::Raise(Box::new(raise(
                peer(*number),
                observed,
                at,
            )))),
            false => {
                let (rule, subject) = (RULE, peer(*number));
                ChangeKind::Anomaly(AnomalyChange::End {
                    rule,
                    subject,
                    observed,
                    last: at,
                    occurrences: 30,
                })
            }
        }
    };
    picks.iter().map(&mut step).collect()
}

fn told(entry: &NewEntry) -> Option<(bool, i64)> {
    match &entry.event.kind {
        Some(Kind::AnomalyRaised(e)) => Some((true, e.last_time_us)),
        Some(Kind::AnomalyEnded(e)) => Some((false, e.last_time_us)),
        _ => None,
    }
}

fn asked(step: &ChangeKind) -> (bool, i64) {
    match step {
        ChangeKind::Anomaly(AnomalyChange::Raise(raise)) => (true, raise.last.micros()),
        ChangeKind::Anomaly(AnomalyChange::End { last, .. }) => (false, last.micros()),
        other => panic!("{other:?} is no step"),
    }
}

/// The entries verify, and add up to the same state.
fn check_entries(world: &World) {
    let mut verifier = Verifier::default();
    for entry in &world.entries {
        let found = Found {
            position: entry.position,
            entry: entry.entry.clone(),
            sealed: Some(entry.sealed.clone()),
            uses: entry.uses.clone(),
            columns: Some(Columns::derive(&entry.event, entry.leaf_hash)),
        };
        verifier.push(&found, &mut NoKeys).expect("what the core writes verifies");
    }
    assert!(verifier.state().same_fold(&world.head.state));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    /// Each replica goes through the same steps in order, and begins again where it likes: it was killed before it had saved.
    #[test]
    fn replicas_that_notice_the_same_raise_and_end_each_once(
        picks in vec((0u8..4, 0u64..3), 1..24),
        turns in vec((0usize..3, prop::option::of(0usize..24)), 0..120),
    ) {
        let (mut world, _) = world_with_keys(ENTRIES);
        let steps = steps(&world, &picks);
        let mut next = [0; 3];
        // In the end one of them goes through all.
        let rest = steps.iter().map(|_| (0, None));
        for (replica, again) in turns.into_iter().chain(rest) {
            let next = &mut next[replica];
            *next = again.map_or(*next, |from| from.min(*next));
            if let Some(step) = steps.get(*next) {
                *next += 1;
                world.now = world.now.plus_micros(SECOND);
                let command = world.by_itself(step.clone(), vec![]);
                let answer = world.run(vec![command]).remove(0);
                let done = Answer::Refused { refusal: Refusal::AlreadyDone };
                let fine = matches!(answer, Answer::Changed { .. })
                    || format!("{answer:?}") == format!("{done:?}");
                prop_assert!(fine, "{answer:?}");
            }
        }
        let expected: Vec<(bool, i64)> = steps.iter().map(asked).collect();
        let found: Vec<(bool, i64)> = world.entries.iter().filter_map(told).collect();
        prop_assert_eq!(found, expected);
        check_entries(&world);
    }
}

/// A world with a key that a rule suspends, and the first anomaly of it raised.
fn with_suspending_rule() -> (World, KeyId) {
    let (mut world, token) = world_with_keys(3);
    let setting = RuleSetting {
        rule: MonitoringRule::Forbidden as i32,
        response: AnomalyResponse::Suspend as i32,
        threshold: 0,
    };
    let to = Policy { rules: vec![setting], ..Policy::default() };
    let (etag, changed) = (String::new(), vec!["rules".to_string()]);
    does(&mut world, ChangeKind::UpdatePolicy(UpdatePolicy { etag, changed, to }));
    (world, token.key_id)
}

/// Says whether something was written.
fn does(world: &mut World, kind: ChangeKind) -> bool {
    world.now = world.now.plus_micros(SECOND);
    let command = world.by_itself(kind, vec![]);
    match world.run(vec![command]).remove(0) {
        Answer::Changed { .. } => true,
        Answer::Refused { refusal: Refusal::AlreadyDone } => false,
        other => panic!("{other:?}"),
    }
}

fn forbidden(world: &World, key: Option<KeyId>) -> ChangeKind {
    let subject = key.map_or(peer(1), Subject::Key);
    let observed = world.head.state.next_position - 1;
    let raise = raise(subject, observed, world.now);
    ChangeKind::Anomaly(AnomalyChange::Raise(Box::new(Raise {
        rule: MonitoringRule::Forbidden,
        key,
        ..raise
    })))
}

fn end(world: &World, key: KeyId) -> ChangeKind {
    ChangeKind::Anomaly(AnomalyChange::End {
        rule: MonitoringRule::Forbidden,
        subject: Subject::Key(key),
        observed: world.head.state.next_position,
        last: world.now,
        occurrences: 30,
    })
}

#[test]
fn a_key_is_suspended_once_for_each_anomaly_and_stays_resumed() {
    let (mut world, key) = with_suspending_rule();
    let status = |world: &World| world.head.state.keys[&key].status(world.now);
    for _ in 0..2 {
        let raised = forbidden(&world, Some(key));
        assert!(does(&mut world, raised.clone()));
        assert!(!does(&mut world, raised), "it goes on already");
        let position = world.entries.last().unwrap().position;
        assert_eq!(status(&world), KeyStatus::Active);
        assert!(does(&mut world, ChangeKind::Anomaly(AnomalyChange::Suspend { position })));
        assert_eq!(status(&world), KeyStatus::Suspended);
        assert!(!does(&mut world, ChangeKind::Anomaly(AnomalyChange::Suspend { position })));
        assert!(does(&mut world, ChangeKind::ResumeKey { key_id: key }));
        assert!(!does(&mut world, ChangeKind::Anomaly(AnomalyChange::Suspend { position })));
        let row = encode_key(&world.head.state.keys[&key]);
        let read = decode_key(&row, |name| name.into());
        assert_eq!(read.as_ref(), Some(&*world.head.state.keys[&key]));
        let ended = end(&world, key);
        assert!(does(&mut world, ended));
        assert!(
            !does(&mut world, ChangeKind::Anomaly(AnomalyChange::Suspend { position })),
            "it is over"
        );
    }
    check_entries(&world);
}

#[test]
fn where_no_key_was_used_there_is_none_to_suspend() {
    let (mut world, _) = with_suspending_rule();
    let raised = forbidden(&world, None);
    assert!(does(&mut world, raised));
    let (_, open) = world.head.state.anomalies.open.iter().next().unwrap();
    assert_eq!((open.response, open.key), (AnomalyResponse::Note, None));
    check_entries(&world);
}

#[test]
fn what_no_rule_is_to_notice_is_not_raised_and_what_is_over_may_be_looked_at() {
    let (mut world, key) = with_suspending_rule();
    let off = RuleSetting {
        rule: MonitoringRule::Forbidden as i32,
        response: AnomalyResponse::Off as i32,
        threshold: 0,
    };
    let raised = forbidden(&world, Some(key));
    assert!(does(&mut world, raised));
    let position = world.entries.last().unwrap().position;
    let ended = end(&world, key);
    assert!(does(&mut world, ended));
    let to = Policy { rules: vec![off], ..Policy::default() };
    let (etag, changed) = (String::new(), vec!["rules".to_string()]);
    does(&mut world, ChangeKind::UpdatePolicy(UpdatePolicy { etag, changed, to }));
    let raised = forbidden(&world, Some(key));
    assert!(!does(&mut world, raised));
    for verdict in [AnomalyVerdict::Unclear, AnomalyVerdict::Misuse] {
        assert!(does(
            &mut world,
            ChangeKind::Anomaly(AnomalyChange::Acknowledge { position, verdict })
        ));
    }
    check_entries(&world);
}
