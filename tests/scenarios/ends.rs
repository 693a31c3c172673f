//! Ends of keys: noted on time, once, whatever the number of replicas; and refused on time, noted or not.

use keyledger_ledger::body::Kind;
use keyledger_ledger::command::{Answer, ChangeKind, DAY, Expiry, Refusal, SECOND};
use keyledger_ledger::id::Time;
use keyledger_ledger::state::Owner;
use keyledger_ledger::token::Token;
use keyledger_proto::create_key_request::Expiry as Life;
use keyledger_proto::entry::DecisionReason;
use keyledger_proto::*;

use crate::harness::*;
use crate::world::World;

/// Creates a key in a world of its own.
fn key_with(expiry: Expiry) -> (World, Token) {
    let mut world = World::new("keys.example.test/system");
    let token = world.new_key();
    let create = world.create_key(&token, Owner::Service("robot".into()), vec![], vec![], expiry);
    let create = world.by_itself(create, vec![]);
    world.run(vec![create]);
    (world, token)
}

/// Lets two replicas look at the same time; says what was noted.
fn look(world: &mut World, token: &Token) -> Vec<String> {
    let before = world.entries.len();
    let kind = ChangeKind::NoteDue { key_id: token.key_id };
    let looks = vec![world.by_itself(kind.clone(), vec![]), world.by_itself(kind, vec![])];
    let answers = world.run(looks);
    let refused = |a: &&Answer| matches!(a, Answer::Refused { refusal: Refusal::AlreadyDone });
    let noted = world.entries.len() - before;
    assert_eq!(answers.iter().filter(refused).count() + noted, 2);
    let note = |kind: &Option<Kind>| match kind {
        Some(Kind::KeyExpiring(e)) => format!("in {} days", e.days),
        Some(Kind::KeyExpired(_)) => "expired".into(),
        other => panic!("{other:?} was written"),
    };
    world.entries[before..].iter().map(|e| note(&e.event.kind)).collect()
}

#[test]
fn the_end_of_a_key_is_noted_at_each_distance_once() {
    let (mut world, token) = key_with(Expiry::After(40 * DAY));
    let begin = world.now;
    let mut noted = vec![];
    for hour in 0..41 * 24 {
        world.now = begin.plus_micros(hour * 3600 * SECOND);
        noted.extend(look(&mut world, &token).into_iter().map(|note| (hour / 24, note)));
    }
    let days = |day: i64, note: &str| (day, note.to_string());
    let expected =
        [days(10, "in 30 days"), days(33, "in 7 days"), days(39, "in 1 days"), days(40, "expired")];
    assert_eq!(noted, expected);
    assert!(world.head.state.due.is_empty());
}

#[test]
fn what_was_past_when_an_end_was_set_or_is_past_after_an_outage_is_not_noted() {
    // A life of an hour: no distance is ever reached.
    let (mut world, token) = key_with(Expiry::After(3600 * SECOND));
    world.now = world.now.plus_micros(1800 * SECOND);
    assert_eq!(look(&mut world, &token), [""; 0]);
    world.now = world.now.plus_micros(1800 * SECOND);
    assert_eq!(look(&mut world, &token), ["expired"]);
    // Nobody looked for 35 days: of two distances only the nearest one is noted.
    let (mut world, token) = key_with(Expiry::After(40 * DAY));
    world.now = world.now.plus_micros(35 * DAY);
    assert_eq!(look(&mut world, &token), ["in 7 days"]);
    assert_eq!(look(&mut world, &token), [""; 0]);
    world.now = world.now.plus_micros(35 * DAY);
    assert_eq!(look(&mut world, &token), ["expired"]);
    // A key without an end.
    let (mut world, token) = key_with(Expiry::Never);
    world.now = Time(i64::MAX / 2);
    assert_eq!(look(&mut world, &token), [""; 0]);
}

#[test]
fn two_replicas_note_the_end_of_a_key_once() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let soon = CreateKeyRequest {
            expiry: Some(Life::Ttl(seconds(1))),
            ..user_key("alice@example.com")
        };
        let made = admin.call(soon).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let from = StreamEventsRequest { from_position: Some(0), ..Default::default() };
        let mut events = admin.stream(from).await.unwrap();
        while let Some(reply) = events.message().await.unwrap() {
            let ended = |e: &AuditEvent| e.r#type == "key.expired" && e.key_id == key_id;
            if reply.event.iter().any(ended) {
                break;
            }
        }
        let verdict = b.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::Expired);
        let of_key = ListEventsRequest {
            key_id: key_id.clone(),
            category: "keyledger/lifecycle".into(),
            ..Default::default()
        };
        for replica in [&a, &b] {
            let listed = replica.admin().call(of_key.clone()).await.unwrap().events;
            let types: Vec<&str> = listed.iter().map(|e| e.r#type.as_str()).collect();
            assert_eq!(types, ["key.expired", "key.created"]);
        }
    });
}
