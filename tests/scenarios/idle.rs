//! Keys that nobody uses: suspended and later revoked as the policy says, once, whatever the number of replicas.

use keyledger_ledger::apply::{ApplyError, apply};
use keyledger_ledger::body::{self, Event, Kind, RevocationKind};
use keyledger_ledger::command::{Answer, ChangeKind, DAY, Expiry, Refusal, SECOND, UpdatePolicy};
use keyledger_ledger::decide::next_link;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::idle;
use keyledger_ledger::policy::Policy;
use keyledger_ledger::record::{decode_key, encode_key};
use keyledger_ledger::state::{Key, KeyStatus, Owner, Suspension};
use keyledger_proto::*;

use crate::harness::*;
use crate::world::{World, grant};

const SUSPEND: i64 = 7 * DAY;
const REVOKE: i64 = 5 * DAY;

/// A world whose policy ends idle keys, with an admin key and another one.
fn world() -> (World, KeyId, KeyId) {
    let mut world = World::new("keys.example.test/system");
    set_policy(&mut world, SUSPEND, REVOKE);
    let admin = new_key(&mut world, vec![grant(&["*"], "**", false)]);
    let key = new_key(&mut world, vec![grant(&["audit.read"], "logs/error", false)]);
    (world, admin, key)
}

fn set_policy(world: &mut World, suspend: i64, revoke: i64) {
    let to = Policy { idle_suspend_after: suspend, idle_revoke_after: revoke, ..Policy::default() };
    let changed = ["idle_suspend_after", "idle_revoke_after"].map(String::from).to_vec();
    let update = ChangeKind::UpdatePolicy(UpdatePolicy { etag: String::new(), changed, to });
    let update = world.by_itself(update, vec![]);
    world.run(vec![update]);
}

fn new_key(world: &mut World, grants: Vec<keyledger_ledger::grant::Grant>) -> KeyId {
    let token = world.new_key();
    let owner = Owner::Service("robot".into());
    let create = world.create_key(&token, owner, grants, vec![], Expiry::Never);
    let create = world.by_itself(create, vec![]);
    world.run(vec![create]);
    token.key_id
}

fn key(world: &World, id: KeyId) -> &Key {
    &world.head.state.keys[&id]
}

/// Lets two replicas look at the same time; says what was written.
fn look(world: &mut World, id: KeyId, last_use: Option<Time>) -> Vec<&'static str> {
    let before = world.entries.len();
    let idle_since = idle::since(key(world, id), last_use);
    let kind = ChangeKind::NoteIdle { key_id: id, idle_since };
    let looks = vec![world.by_itself(kind.clone(), vec![]), world.by_itself(kind, vec![])];
    let answers = world.run(looks);
    let refused = |a: &&Answer| matches!(a, Answer::Refused { refusal: Refusal::AlreadyDone });
    let written = world.entries.len() - before;
    assert_eq!(answers.iter().filter(refused).count() + written, 2);
    let name = |e: &keyledger_ledger::batch::NewEntry| e.event.kind.as_ref().unwrap().name();
    world.entries[before..].iter().map(name).collect()
}

fn change(world: &mut World, kind: ChangeKind) {
    let command = world.by_itself(kind, vec![]);
    let answers = world.run(vec![command]);
    assert!(matches!(answers[0], Answer::Changed { .. }), "{answers:?}");
}

#[test]
fn a_key_that_is_not_used_is_suspended_and_later_revoked_each_once() {
    let (mut world, _, id) = world();
    let begin = world.now;
    let mut noted = vec![];
    for hour in 0..20 * 24 {
        world.now = begin.plus_micros(hour * 3600 * SECOND);
        noted.extend(look(&mut world, id, None).into_iter().map(|what| (hour / 24, what)));
    }
    assert_eq!(noted, [(7, "key.suspended"), (12, "key.revoked")]);
    let revoked = key(&world, id).revoked.unwrap();
    assert_eq!(revoked.kind, RevocationKind::Unused);
}

#[test]
fn uses_and_resumptions_start_anew_whatever_their_order() {
    // The same numbers each time; another way through for each of the keys.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..40 {
        let (mut world, _, id) = world();
        let (mut last_use, mut resumed, mut suspended) = (None, None, None);
        let begin = world.now;
        for hour in 0..60 * 24 {
            world.now = begin.plus_micros(hour * 3600 * SECOND);
            let now = world.now;
            match (key(&world, id).status(now), draw(140)) {
                (KeyStatus::Active, 0) => last_use = Some(now),
                (KeyStatus::Suspended, 0) => {
                    change(&mut world, ChangeKind::ResumeKey { key_id: id });
                    (resumed, suspended) = (Some(now), None);
                }
                // Somebody does it for another reason: then it isn't revoked for being idle.
                (KeyStatus::Active, 1) => {
                    change(&mut world, ChangeKind::SuspendKey { key_id: id });
                    suspended = Some((now, false));
                }
                _ => {}
            }
            let since = [Some(begin), last_use, resumed].into_iter().flatten().max().unwrap();
            let due = |from: Time, after: i64| from.plus_micros(after) <= now;
            let expected = match (key(&world, id).status(now), suspended) {
                (KeyStatus::Active, _) if due(since, SUSPEND) => {
                    suspended = Some((now, true));
                    vec!["key.suspended"]
                }
                (KeyStatus::Suspended, Some((at, true))) if due(at, REVOKE) => {
                    vec!["key.revoked"]
                }
                _ => vec![],
            };
            assert_eq!(look(&mut world, id, last_use), expected, "hour {hour}");
            let kept = key(&world, id);
            let row = decode_key(&encode_key(kept), |name| name.into());
            assert_eq!(row.as_ref(), Some(kept), "a projected row says all of it");
        }
    }
}

#[test]
fn the_last_key_that_may_do_everything_is_never_suspended() {
    let (mut world, admin, _) = world();
    world.now = world.now.plus_micros(30 * DAY);
    assert_eq!(look(&mut world, admin, None), [""; 0]);
    let second = new_key(&mut world, vec![grant(&["*"], "**", false)]);
    assert_eq!(look(&mut world, admin, None), ["key.suspended"]);
    world.now = world.now.plus_micros(30 * DAY);
    assert_eq!(look(&mut world, second, None), [""; 0], "the other one is suspended");
    assert_eq!(look(&mut world, admin, None), ["key.revoked"]);
    // A key that may only hand everything on is none that may do everything.
    let giver = new_key(&mut world, vec![grant(&["*"], "**", true)]);
    assert_eq!(look(&mut world, second, None), [""; 0]);
    world.now = world.now.plus_micros(30 * DAY);
    assert_eq!(look(&mut world, giver, None), ["key.suspended"]);
}

#[test]
fn nothing_happens_without_a_policy_or_of_a_key_that_somebody_suspended() {
    let (mut world, _, id) = world();
    set_policy(&mut world, 0, 0);
    world.now = world.now.plus_micros(400 * DAY);
    assert_eq!(look(&mut world, id, None), [""; 0]);
    change(&mut world, ChangeKind::SuspendKey { key_id: id });
    set_policy(&mut world, SUSPEND, REVOKE);
    world.now = world.now.plus_micros(400 * DAY);
    assert_eq!(look(&mut world, id, None), [""; 0]);
    change(&mut world, ChangeKind::ResumeKey { key_id: id });
    assert_eq!(look(&mut world, id, None), [""; 0], "it starts anew");
    // Only suspended, never revoked.
    set_policy(&mut world, SUSPEND, 0);
    world.now = world.now.plus_micros(SUSPEND);
    assert_eq!(look(&mut world, id, None), ["key.suspended"]);
    world.now = world.now.plus_micros(400 * DAY);
    assert_eq!(look(&mut world, id, None), [""; 0]);
}

/// An entry of Keyledger's own at the head of a world.
fn entry(world: &World, kind: Kind) -> Event {
    let ledger = world.head.state.ledger.as_ref().unwrap();
    Event {
        ledger_id: ledger.id.to_vec(),
        epoch: ledger.epoch,
        time_us: world.now.micros(),
        kind: Some(kind),
        ..Event::default()
    }
}

#[test]
fn an_entry_that_the_policy_did_not_ask_for_stops_whoever_reads_it() {
    let (mut world, admin, id) = world();
    let created = world.now;
    let suspended = |world: &World, id, since: Time| {
        let link = Some(next_link(key(world, id)));
        let idle_since_us = since.micros();
        let kind = body::KeySuspended { link, idle_since_us, ..Default::default() };
        entry(world, Kind::KeySuspended(kind))
    };
    let revoked = |world: &World, kind, since: Time| {
        let link = Some(next_link(key(world, id)));
        let idle_since_us = since.micros();
        entry(world, Kind::KeyRevoked(body::KeyRevoked { link, kind, idle_since_us }))
    };
    let applied = |world: &World, event: &Event| {
        apply(&mut world.head.state.clone(), [0; 32], event).map_err(|e| e.to_string())
    };
    let refused = |world: &World, event: &Event| {
        assert_eq!(applied(world, event), Err(ApplyError::KeyState.to_string()));
    };
    let unused = RevocationKind::Unused as i32;
    world.now = created.plus_micros(SUSPEND - 1);
    refused(&world, &suspended(&world, id, created));
    world.now = created.plus_micros(SUSPEND);
    refused(&world, &suspended(&world, id, created.plus_micros(-1)));
    refused(&world, &suspended(&world, id, created.plus_micros(1)));
    refused(&world, &suspended(&world, admin, created));
    refused(&world, &revoked(&world, unused, created));
    let by_somebody = body::Caller { key_id: admin.as_bytes().to_vec(), version: 1 };
    let event = Event { caller: Some(by_somebody), ..suspended(&world, id, created) };
    refused(&world, &event);
    assert_eq!(applied(&world, &suspended(&world, id, created)), Ok(()));

    assert_eq!(look(&mut world, id, None), ["key.suspended"]);
    world.now = world.now.plus_micros(REVOKE - 1);
    refused(&world, &revoked(&world, unused, created));
    world.now = world.now.plus_micros(1);
    let other = revoked(&world, RevocationKind::Admin as i32, created);
    assert!(applied(&world, &other).is_err());
    assert_eq!(applied(&world, &revoked(&world, unused, created)), Ok(()));
    change(&mut world, ChangeKind::ResumeKey { key_id: id });
    assert!(matches!(key(&world, id).suspension, Suspension::Resumed(_)));
    refused(&world, &revoked(&world, unused, created));
    world.now = world.now.plus_micros(SUSPEND);
    refused(&world, &suspended(&world, id, created));
    set_policy(&mut world, 0, 0);
    refused(&world, &suspended(&world, id, world.now.plus_micros(-SUSPEND)));
}

/// Waits until a key has an entry of a type.
async fn until(caller: &Caller, key_id: &str, what: &str) {
    let from = StreamEventsRequest { from_position: Some(0), ..Default::default() };
    let mut events = caller.stream(from).await.unwrap();
    while let Some(reply) = events.message().await.unwrap() {
        if reply.event.iter().any(|e| e.r#type == what && e.key_id == key_id) {
            return;
        }
    }
    panic!("the stream ended");
}

async fn life(caller: &Caller, key_id: &str) -> Vec<String> {
    let of_key = ListEventsRequest {
        key_id: key_id.into(),
        category: "keyledger/lifecycle".into(),
        order: EventOrder::OldestFirst as i32,
        ..Default::default()
    };
    let events = caller.call(of_key).await.unwrap().events;
    events.into_iter().map(|event| event.r#type).collect()
}

#[test]
fn two_servers_suspend_and_later_revoke_idle_keys_once() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = async |name: &str| {
            let request = service_key(name, vec![grant_of(&["audit.read"], "logs/error")]);
            let made = admin.call(request).await.unwrap();
            (made.key.unwrap().key_id, made.token)
        };
        let (quiet, resumed, busy) =
            (made("quiet").await, made("resumed").await, made("busy").await);
        replica.stop().await;
        d.age(8).await;

        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        assert_eq!(b.admin().call(check(&busy.1)).await.unwrap().decision, 1);
        let idle = LedgerPolicy {
            idle_suspend_after: Some(seconds(7 * 86_400)),
            idle_revoke_after: Some(seconds(5 * 86_400)),
            ..LedgerPolicy::default()
        };
        let update = update_policy(&["idle_suspend_after", "idle_revoke_after"], idle);
        admin.call(UpdateLedgerPolicyRequest { name: "default".into(), ..update }).await.unwrap();
        until(&admin, &quiet.0, "key.suspended").await;
        until(&admin, &resumed.0, "key.suspended").await;
        admin.call(resume(&resumed.0)).await.unwrap();
        let why = b.admin().call(check(&quiet.1)).await.unwrap();
        assert_eq!(why.reason(), entry::DecisionReason::Suspended);
        a.stop().await;
        b.stop().await;
        d.age(6).await;

        let (a, b) = (d.replica().await, d.replica().await);
        until(&a.admin(), &quiet.0, "key.revoked").await;
        for admin in [a.admin(), b.admin()] {
            let suspended = ["key.created", "key.suspended"];
            assert_eq!(life(&admin, &quiet.0).await, [&suspended[..], &["key.revoked"]].concat());
            assert_eq!(life(&admin, &resumed.0).await, [&suspended[..], &["key.resumed"]].concat());
            assert_eq!(life(&admin, &busy.0).await, ["key.created"]);
            let get = GetKeyRequest { key_id: quiet.0.clone(), as_of: None, include_traces: false };
            let key = admin.call(get).await.unwrap().key.unwrap();
            assert_eq!(key.revocation.unwrap().kind(), entry::RevocationKind::Unused);
            // The only key that may do everything was idle, too.
            let own = admin.call(WhoAmIRequest {}).await.unwrap().key.unwrap();
            assert_eq!(own.state(), KeyState::Active);
        }
    });
}
