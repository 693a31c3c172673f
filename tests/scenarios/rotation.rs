//! Rotation: until the new secret is used, when a policy asks for it, and what happens to keys that are overdue.

use keyledger_ledger::body::Kind;
use keyledger_ledger::command::{Answer, ChangeKind, DAY, Expiry, RotateKey, SECOND};
use keyledger_ledger::policy::Rotation;
use keyledger_ledger::state::Owner;
use keyledger_ledger::token::{Secret, Token};
use keyledger_proto::entry::DecisionReason;
use keyledger_proto::*;
use tonic::Code;

use crate::harness::*;
use crate::world::World;

fn until_first_use(key_id: &str, overlap: i64) -> RotateKeyRequest {
    RotateKeyRequest { until_first_use: true, ..rotate(key_id, overlap) }
}

#[test]
fn the_old_secret_ends_when_the_new_one_is_used_anywhere() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let admin = a.admin();
        let made = admin.call(service_key("robot", vec![grant("keys.verify", "keys")])).await;
        let made = made.unwrap();
        let key_id = made.key.unwrap().key_id;
        let accepted = async |replica: &Replica, token: &str| {
            replica.caller(token).call(WhoAmIRequest {}).await.map(drop)
        };
        let mut old = made.token;
        for round in 0..12 {
            let rotated = admin.call(until_first_use(&key_id, 3600)).await.unwrap();
            let versions = rotated.key.unwrap().versions;
            assert_eq!(versions.len(), 2);
            assert!(versions[0].until_first_use && !versions[1].until_first_use);
            // Until the new one is seen, the old one goes on.
            accepted(&b, &old).await.unwrap();
            // By a call of its own, by a verdict on it, or by a change.
            match round % 3 {
                0 => accepted(&a, &rotated.token).await.unwrap(),
                1 => {
                    let request = VerifyKeyRequest {
                        permission: "keys.verify".into(),
                        resource: "keys".into(),
                        ..check(&rotated.token)
                    };
                    let verdict = a.admin().call(request).await.unwrap();
                    assert_eq!(verdict.reason(), DecisionReason::Granted);
                }
                _ => {
                    let asks = check(&old);
                    a.caller(&rotated.token).call(asks).await.unwrap();
                }
            }
            refused(accepted(&b, &old).await)
                .with(Code::Unauthenticated, ErrorReason::CredentialInvalid);
            accepted(&b, &rotated.token).await.unwrap();
            old = rotated.token;
        }
        let done = d.records(1).await;
        let completed = done.iter().filter(|record| {
            matches!(record, Record::Change { event, .. }
                if matches!(event.kind, Some(Kind::RotationCompleted(_))))
        });
        assert_eq!(completed.count(), 12, "noted once for each");
        let nothing = RotateKeyRequest { until_first_use: true, ..rotate(&key_id, 0) };
        assert_eq!(refused(admin.call(nothing).await).fields, ["overlap"]);
    });
}

#[test]
fn a_denied_use_of_the_new_secret_does_not_end_the_old_one() {
    scenario(async |d| {
        let replica = d.replica().await;
        let admin = replica.admin();
        let made = admin.call(user_key("alice@example.com")).await.unwrap();
        let key_id = made.key.unwrap().key_id;
        let rotated = admin.call(until_first_use(&key_id, 3600)).await.unwrap();
        let beyond = VerifyKeyRequest { resource: "logs/other".into(), ..check(&rotated.token) };
        let verdict = admin.call(beyond).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::NoGrant);
        let verdict = admin.call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::Granted);
    });
}

/// A world with one key that its policy, or its role's, asks to be rotated.
struct Aging {
    world: World,
    token: Token,
}

impl Aging {
    fn new(own: Option<Rotation>, of_role: Option<Rotation>) -> Aging {
        let mut world = World::new("keys.example.test/system");
        let role = ChangeKind::CreateRole {
            name: "aging".into(),
            grants: vec![],
            rotation: of_role,
            max_staleness: 0,
        };
        let role = world.by_itself(role, vec![]);
        let token = world.new_key();
        let owner = Owner::Service("robot".into());
        let roles = vec!["aging".to_string()];
        let mut create = world.create_key(&token, owner, vec![], roles, Expiry::After(400 * DAY));
        if let ChangeKind::CreateKey(create) = &mut create {
            create.rotation = own;
        }
        let create = world.by_itself(create, vec![]);
        world.run(vec![role, create]);
        Aging { world, token }
    }

    /// Two replicas look at every hour of so many days; says what was noted, and on which day.
    fn look(&mut self, days: std::ops::Range<i64>) -> Vec<(i64, String)> {
        let (begin, mut noted) = (self.world.now, vec![]);
        for hour in 0..(days.end - days.start) * 24 {
            self.world.now = begin.plus_micros(hour * 3600 * SECOND);
            let before = self.world.entries.len();
            let kind = ChangeKind::NoteDue { key_id: self.token.key_id };
            let look = || kind.clone();
            let looks =
                vec![self.world.by_itself(look(), vec![]), self.world.by_itself(look(), vec![])];
            self.world.run(looks);
            for entry in &self.world.entries[before..] {
                let kind = entry.event.kind.as_ref().unwrap();
                noted.push((days.start + hour / 24, kind.name().to_string()));
            }
        }
        self.world.now = begin.plus_micros((days.end - days.start) * DAY);
        noted
    }

    fn change(&mut self, kind: ChangeKind) {
        let command = self.world.by_itself(kind, vec![]);
        let answers = self.world.run(vec![command]);
        assert!(matches!(answers[0], Answer::Changed { .. }), "{answers:?}");
    }

    fn rotate(&mut self) {
        let key_id = self.token.key_id;
        let token = Token { key_id, secret: Secret::new(self.world.draw()) };
        let secret = self.world.new_secret(&token);
        let (overlap_micros, until_first_use) = (0, false);
        let rotate = RotateKey { key_id, overlap_micros, until_first_use, secret };
        self.change(ChangeKind::RotateKey(rotate));
    }
}

fn noted(days: &[(i64, &str)]) -> Vec<(i64, String)> {
    days.iter().map(|(day, note)| (*day, note.to_string())).collect()
}

#[test]
fn a_secret_that_grows_too_old_is_noted_once_and_its_key_suspended_if_asked_for() {
    let policy = Rotation { max_age: 30 * DAY, suspend_after: Some(7 * DAY) };
    let mut aging = Aging::new(Some(policy), None);
    assert_eq!(
        aging.look(0..60),
        noted(&[(30, "key.rotation-due"), (37, "key.suspended")]),
        "noted once, whatever the number of replicas"
    );
    // Whoever resumes it without rotating it has decided so: it isn't suspended for the same secret again.
    let key_id = aging.token.key_id;
    aging.change(ChangeKind::ResumeKey { key_id });
    assert_eq!(aging.look(60..120), []);
    aging.rotate();
    assert_eq!(aging.look(120..150), []);
    assert_eq!(aging.look(150..152), noted(&[(150, "key.rotation-due")]));
    // Rotated in time: nothing follows.
    aging.rotate();
    assert_eq!(aging.look(152..180), []);
}

#[test]
fn the_strictest_policy_counts_and_a_role_may_bring_it_later() {
    let month = Rotation { max_age: 30 * DAY, suspend_after: None };
    let week = Rotation { max_age: 7 * DAY, suspend_after: None };
    assert_eq!(Aging::new(Some(month), Some(week)).look(0..90), noted(&[(7, "key.rotation-due")]));
    assert_eq!(Aging::new(Some(week), Some(month)).look(0..90), noted(&[(7, "key.rotation-due")]));
    let mut aging = Aging::new(None, None);
    assert_eq!(aging.look(0..90), []);
    let update = |rotation| keyledger_ledger::command::UpdateRole {
        name: "aging".into(),
        etag: String::new(),
        grants: None,
        described: false,
        rotation: Some(rotation),
        max_staleness: None,
    };
    // Too old already when the role says so.
    aging.change(ChangeKind::UpdateRole(update(Some(month))));
    assert_eq!(aging.look(90..91), noted(&[(90, "key.rotation-due")]));
    aging.rotate();
    aging.change(ChangeKind::UpdateRole(update(None)));
    assert_eq!(aging.look(91..200), [], "and nothing once it says nothing any more");
    aging.change(ChangeKind::UpdateRole(update(Some(month))));
    let retire = ChangeKind::RetireRole { name: "aging".into(), etag: String::new() };
    aging.change(retire);
    assert_eq!(aging.look(200..300), [], "nor once it is retired");
}

#[test]
fn an_overdue_key_is_suspended_by_whichever_replica_looks_first() {
    scenario(async |d| {
        let (a, b) = (d.replica().await, d.replica().await);
        let rotation =
            RotationPolicy { max_age: Some(seconds(1)), suspend_after: Some(seconds(0)) };
        let request =
            CreateKeyRequest { rotation: Some(rotation), ..user_key("alice@example.com") };
        let made = a.admin().call(request).await.unwrap();
        let key = made.key.unwrap();
        assert_eq!(key.rotation, Some(rotation));
        assert!(key.rotation_due_time.is_some());
        let from = StreamEventsRequest { from_position: Some(0), ..Default::default() };
        let mut events = b.admin().stream(from).await.unwrap();
        while let Some(reply) = events.message().await.unwrap() {
            let suspended = |e: &AuditEvent| e.r#type == "key.suspended" && e.key_id == key.key_id;
            if reply.event.iter().any(suspended) {
                break;
            }
        }
        let verdict = a.admin().call(check(&made.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::Suspended);
        let of_key = ListEventsRequest {
            key_id: key.key_id.clone(),
            category: "keyledger/lifecycle".into(),
            ..Default::default()
        };
        let listed = b.admin().call(of_key).await.unwrap().events;
        let types: Vec<&str> = listed.iter().map(|e| e.r#type.as_str()).collect();
        assert_eq!(types, ["key.suspended", "key.rotation-due", "key.created"]);
        // The operator takes the policy away, resumes the key, and rotates it.
        let changed = update(&key.key_id, &["rotation"]);
        let free = a.admin().call(changed).await.unwrap().key.unwrap();
        assert_eq!((free.rotation, free.rotation_due_time), (None, None));
        a.admin().call(resume(&key.key_id)).await.unwrap();
        let rotated = b.admin().call(rotate(&key.key_id, 0)).await.unwrap();
        let verdict = a.admin().call(check(&rotated.token)).await.unwrap();
        assert_eq!(verdict.reason(), DecisionReason::Granted);
    });
}

#[test]
fn whoever_sets_a_policy_of_secrets_must_hold_what_they_open() {
    scenario(async |d| {
        let admin = d.replica().await.admin();
        let grants = vec![grant("audit.read", "logs/error")];
        admin.call(role("readers", grants)).await.unwrap();
        let subject = admin.call(service_key("robot", vec![grant("*", "**")])).await.unwrap();
        let subject = subject.key.unwrap().key_id;
        let clerk = vec![grant("keys.update", "keys/**"), grant("roles.update", "roles/**")];
        let clerk = admin.call(service_key("clerk", clerk)).await.unwrap();
        let clerk = admin.with_token(&clerk.token);
        let rotation =
            Some(RotationPolicy { max_age: Some(seconds(1)), suspend_after: Some(seconds(0)) });
        let of_key = UpdateKeyRequest { rotation, ..update(&subject, &["rotation"]) };
        let of_role = UpdateRoleRequest {
            rotation,
            update_mask: Some(mask(&["rotation"])),
            ..update_role("readers", vec![])
        };
        let stale = UpdateRoleRequest {
            max_staleness: Some(seconds(60)),
            update_mask: Some(mask(&["max_staleness"])),
            ..update_role("readers", vec![])
        };
        refused(clerk.call(of_key.clone()).await)
            .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        refused(clerk.call(of_role.clone()).await)
            .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        refused(clerk.call(stale.clone()).await)
            .with(Code::PermissionDenied, ErrorReason::ExceedsOwnRights);
        admin.call(of_role).await.unwrap();
        admin.call(stale).await.unwrap();
        admin.call(of_key).await.unwrap();
    });
}
