//! The ladders, as tables: what is wrong is put right from the top, one thing at a time, and each time the next refusal is
//! the one that is given. This is the specification of `judge` and `decide`.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use keyledger_ledger::body::{self, DecisionReason, RevocationKind};
use keyledger_ledger::command::{
    Change, ChangeKind, CreateKey, DAY, Expiry, NewSecret, Refusal, RotateKey, SECOND, UpdateKey,
    UpdatePolicy, UpdateRole,
};
use keyledger_ledger::decide::decide;
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::judge::{Asked, judge};
use keyledger_ledger::permissions::MAX_PREFIXES;
use keyledger_ledger::policy::{CurrentPolicy, Policy};
use keyledger_ledger::restrict::{Circumstances, Restrictions, Source, Used};
use keyledger_ledger::secret::{Pepper, Peppers};
use keyledger_ledger::state::{
    Key, KeyStatus, LedgerInfo, Owner, RegisteredPermissions, Revoked, Role, State, Suspension,
    Version,
};
use keyledger_ledger::token::Secret;

use crate::world::grant;

pub(crate) const NOW: Time = Time(1_800_000_000_000_000);
const SUSPENDED: Suspension = Suspension::Since { time: NOW, idle: false };

pub(crate) fn key(number: u64, grants: Vec<Grant>) -> Key {
    Key {
        id: KeyId::new(NOW, LedgerNumber(1), number),
        owner: Owner::Service("robot".into()),
        creator: None,
        grants: grants.into(),
        roles: Box::new([]),
        created: Time(1),
        expires: None,
        noted: Time(1),
        rotation: None,
        rotation_noted: 0,
        rotation_suspended: 0,
        until_first_use: false,
        suspension: Suspension::Never,
        revoked: None,
        restrictions: None,
        used: None,
        labels: Box::new([]),
        responsible: None,
        versions: vec![Version {
            number: 1,
            created: Time(1),
            expires: None,
            commitment: [0; 32],
            pepper_id: 1,
        }],
        imported: None,
        stream_version: 1,
        leaf_hash: [7; 32],
        position: 1,
        created_position: 1,
        purpose_position: 1,
        responsible_position: 1,
    }
}

fn restrictions(max_uses: u64) -> Restrictions {
    let body = body::Restrictions {
        networks: vec!["203.0.113.0/24".into()],
        audiences: vec!["billing".into()],
        max_uses,
        rate: Some(body::Rate { uses: 1, window_us: SECOND }),
    };
    Restrictions::from_body(Some(&body)).unwrap()
}

#[test]
fn a_use_is_refused_for_the_first_reason_of_the_ladder() {
    let mut subject = key(1, vec![]);
    subject.revoked = Some(Revoked { kind: RevocationKind::Unused, time: NOW });
    subject.expires = Some(NOW);
    subject.suspension = SUSPENDED;
    subject.versions[0].expires = Some(NOW);
    subject.restrictions = Some(Box::new(restrictions(5)));
    let window = NOW.micros() - NOW.micros().rem_euclid(SECOND);
    subject.used = Some(Box::new(Used { total: 5, window, in_window: 1 }));
    let id = subject.id;
    let (mut state, mut from, mut audience) = (State::default(), Source::Unknown, "other");
    type Fix<'a> = &'a dyn Fn(&mut Key, &mut Source, &mut &str);
    let fixes: [(DecisionReason, Fix<'_>); 10] = [
        (DecisionReason::Revoked, &|k, _, _| k.revoked = None),
        (DecisionReason::Expired, &|k, _, _| k.expires = Some(NOW.plus_micros(1))),
        (DecisionReason::Suspended, &|k, _, _| k.suspension = Suspension::Never),
        (DecisionReason::Superseded, &|k, _, _| k.versions[0].expires = None),
        (DecisionReason::Network, &|_, f, _| *f = Source::Address("203.0.113.7".parse().unwrap())),
        (DecisionReason::Audience, &|_, _, a| *a = "billing"),
        (DecisionReason::NoGrant, &|k, _, _| {
            k.grants = vec![grant(&["audit.read"], "logs/error", false)].into();
        }),
        (DecisionReason::UsesSpent, &|k, _, _| k.restrictions = Some(Box::new(restrictions(6)))),
        (DecisionReason::Rate, &|k, _, _| {
            k.used.as_mut().unwrap().in_window = 0;
        }),
        (DecisionReason::Granted, &|_, _, _| {}),
    ];
    let reason = |state: &State, from, audience| {
        let circumstances = Circumstances { from, audience: Some(audience) };
        let (permission, resource) = ("audit.read", "logs/error");
        let asked = Asked { permission, resource, circumstances, more_uses: 0 };
        judge(state, id, 1, asked, NOW).reason
    };
    assert_eq!(reason(&state, from, audience), DecisionReason::UnknownKey);
    for (expected, fix) in fixes {
        state.put_key(subject.clone());
        assert_eq!(reason(&state, from, audience), expected);
        fix(&mut subject, &mut from, &mut audience);
    }
}

/// A state, who asks, and what they ask.
struct Desk {
    state: State,
    peppers: Peppers,
    caller: Key,
    kind: ChangeKind,
    approval_ref: String,
}

impl Desk {
    fn new(kind: ChangeKind) -> Desk {
        let peppers = Peppers::new(vec![Pepper::new(1, [1; 32])]);
        let (caller, approval_ref) = (key(99, vec![]), String::new());
        Desk { state: State::default(), peppers, caller, kind, approval_ref }
    }

    fn refusal(&self) -> Option<Refusal> {
        let approval_ref = self.approval_ref.clone();
        let change = Change { approval_ref, ..Change::new(self.kind.clone(), vec![]) };
        decide(&self.state, &self.peppers, Some(&self.caller), &change, NOW).err()
    }
}

type Step<'a> = (Refusal, &'a dyn Fn(&mut Desk));

/// Each refusal is given, then what caused it is put right. At the end there is none.
fn climb(mut desk: Desk, steps: &[Step<'_>]) {
    for (expected, fix) in steps {
        assert_eq!(desk.refusal().as_ref(), Some(expected));
        fix(&mut desk);
    }
    assert_eq!(desk.refusal(), None);
}

fn secret() -> NewSecret {
    NewSecret { secret: Secret::new([3; 32]), salt: [4; 32] }
}

fn everything() -> Arc<[Grant]> {
    vec![grant(&["*"], "**", false)].into()
}

fn wrong(field: &'static str, problem: &str) -> Refusal {
    Refusal::Field { field: field.into(), problem: problem.into() }
}

fn exceeds(what: &str) -> Refusal {
    Refusal::ExceedsOwnRights { what: what.into() }
}

fn in_state(state: KeyStatus) -> Refusal {
    Refusal::KeyState { state }
}

fn role(name: &str) -> Role {
    Role {
        name: name.into(),
        grants: vec![grant(&["audit.read"], "logs/error", false)].into(),
        rotation: None,
        max_staleness: 0,
        created: Time(1),
        retired: None,
        position: 2,
        leaf_hash: [8; 32],
        described_position: 2,
    }
}

fn put_role(desk: &mut Desk, role: Role) {
    desk.state.roles.insert(role.name.clone(), Arc::new(role));
}

fn create(desk: &mut Desk) -> &mut CreateKey {
    match &mut desk.kind {
        ChangeKind::CreateKey(create) => create,
        _ => unreachable!("the desk was made for it"),
    }
}

fn update(desk: &mut Desk) -> &mut UpdateKey {
    match &mut desk.kind {
        ChangeKind::UpdateKey(update) => update,
        _ => unreachable!("the desk was made for it"),
    }
}

#[test]
fn a_creation_is_refused_for_the_first_reason_of_the_ladder() {
    let wanted = CreateKey {
        key_id: KeyId::new(NOW, LedgerNumber(1), 1),
        owner: Owner::Service("robot".into()),
        grants: vec![grant(&["audit.write"], "logs/error", false)],
        roles: vec!["readers".into()],
        expiry: Expiry::At(NOW),
        restrictions: Restrictions::default(),
        labels: vec![],
        responsible: None,
        rotation: None,
        secret: secret().into(),
    };
    let mut desk = Desk::new(ChangeKind::CreateKey(wanted));
    desk.caller.expires = Some(NOW.plus_micros(5 * DAY));
    desk.caller.restrictions = Some(Box::new(restrictions(5)));
    let hold = |d: &mut Desk, keys: u64| {
        let mut current = CurrentPolicy::default();
        current.policy.limits.keys = keys;
        current.policy.approvals = vec!["keys.create-without-expiry".into()];
        d.state.policy = Arc::new(current);
    };
    hold(&mut desk, 0);
    let unapproved = Refusal::ApprovalRequired { permission: "keys.create-without-expiry".into() };
    let without_expiry = Refusal::PermissionDenied {
        permission: "keys.create-without-expiry".into(),
        resource: "keys".into(),
    };
    climb(
        desk,
        &[
            (Refusal::LedgerFull { what: "keys", most: 0 }, &|d| hold(d, 1)),
            (wrong("expire_time", "must lie in the future"), &|d| {
                create(d).expiry = Expiry::After(401 * DAY);
            }),
            (wrong("ttl", "must be at most 400 days from now"), &|d| {
                create(d).expiry = Expiry::Never;
            }),
            (without_expiry, &|d| {
                let forever = grant(&["keys.create-without-expiry"], "keys", false);
                d.caller.grants = vec![forever].into();
            }),
            (unapproved, &|d| d.approval_ref = "CHG-7".into()),
            (exceeds("a life without end"), &|d| create(d).expiry = Expiry::After(6 * DAY)),
            (exceeds("a life beyond the caller's own"), &|d| {
                create(d).expiry = Expiry::After(5 * DAY);
            }),
            (Refusal::RoleNotFound { name: "readers".into() }, &|d| {
                put_role(d, Role { retired: Some(NOW), ..role("readers") });
            }),
            (Refusal::RoleNotFound { name: "readers".into() }, &|d| put_role(d, role("readers"))),
            (exceeds("the grant audit.write on logs/error"), &|d| {
                d.caller.grants = vec![grant(&["audit.write"], "logs/error", true)].into();
            }),
            (exceeds("the grant audit.read on logs/error"), &|d| {
                d.caller.grants = vec![grant(&["audit.*"], "logs/error", true)].into();
            }),
            (exceeds("networks beyond the caller's own"), &|d| {
                create(d).restrictions = restrictions(6);
            }),
            (exceeds("a number of uses beyond the caller's own"), &|d| {
                create(d).restrictions = restrictions(5);
            }),
        ],
    );
}

#[test]
fn an_update_is_refused_for_the_first_reason_of_the_ladder() {
    let mut subject = key(1, vec![grant(&["audit.read"], "logs/error", false)]);
    let id = subject.id;
    subject.revoked = Some(Revoked { kind: RevocationKind::Unused, time: NOW });
    subject.expires = Some(NOW.plus_micros(2 * DAY));
    subject.owner = Owner::User([8; 16]);
    let wanted = UpdateKey {
        key_id: id,
        etag: "0000000000000000".into(),
        changed: vec![],
        grants: None,
        roles: Some(vec!["readers".into()]),
        expiry: Some(Expiry::After(401 * DAY)),
        restrictions: None,
        labels: None,
        responsible: Some(Some([9; 16])),
        rotation: None,
    };
    let mut desk = Desk::new(ChangeKind::UpdateKey(wanted));
    desk.caller.expires = Some(NOW.plus_micros(5 * DAY));
    let extend = Refusal::PermissionDenied {
        permission: "keys.extend".into(),
        resource: format!("keys/{id}"),
    };
    let put = |d: &mut Desk, change: &dyn Fn(&mut Key)| {
        let mut key = d.state.keys.get(&id).map_or(subject.clone(), |k| Key::clone(k));
        change(&mut key);
        d.state.put_key(key);
    };
    climb(
        desk,
        &[
            (Refusal::KeyNotFound, &|d| put(d, &|_| {})),
            (in_state(KeyStatus::Revoked), &|d| {
                put(d, &|k| {
                    k.revoked = None;
                    k.expires = Some(NOW);
                });
            }),
            (in_state(KeyStatus::Expired), &|d| {
                put(d, &|k| {
                    k.expires = Some(NOW.plus_micros(2 * DAY));
                    k.suspension = SUSPENDED;
                });
            }),
            (Refusal::EtagMismatch, &|d| update(d).etag = "0707070707070707".into()),
            (
                wrong(
                    "responsible",
                    "must be empty: a person's key is that person's responsibility",
                ),
                &|d| {
                    put(d, &|k| k.owner = Owner::Service("robot".into()));
                },
            ),
            (wrong("ttl", "must be at most 400 days from now"), &|d| {
                update(d).expiry = Some(Expiry::After(6 * DAY));
            }),
            (exceeds("a life beyond the caller's own"), &|d| {
                update(d).expiry = Some(Expiry::After(4 * DAY));
            }),
            (extend, &|d| {
                d.caller.grants = vec![grant(&["keys.extend"], "keys/*", false)].into();
            }),
            (Refusal::RoleNotFound { name: "readers".into() }, &|d| put_role(d, role("readers"))),
            (exceeds("the grant audit.read on logs/error"), &|d| d.caller.grants = everything()),
        ],
    );
}

#[test]
fn a_rotation_a_suspension_and_a_resumption_are_refused_for_the_first_reason_of_the_ladder() {
    let subject = || key(1, vec![grant(&["audit.read"], "logs/error", false)]);
    let id = subject().id;
    let with = |d: &mut Desk, change: &dyn Fn(&mut Key)| {
        let mut key = subject();
        change(&mut key);
        d.state.put_key(key);
    };
    let suspended = |k: &mut Key| k.suspension = SUSPENDED;
    let revoked =
        |k: &mut Key| k.revoked = Some(Revoked { kind: RevocationKind::Unused, time: NOW });
    let rotate = |overlap_micros| {
        let secret = secret();
        ChangeKind::RotateKey(RotateKey {
            key_id: id,
            overlap_micros,
            until_first_use: false,
            secret,
        })
    };
    climb(
        Desk::new(rotate(31 * DAY)),
        &[
            (Refusal::KeyNotFound, &|d| with(d, &revoked)),
            (in_state(KeyStatus::Revoked), &|d| with(d, &suspended)),
            (in_state(KeyStatus::Suspended), &|d| with(d, &|_| {})),
            (wrong("overlap", "must be 0 to 30 days"), &|d| {
                d.kind = rotate(0);
            }),
            (exceeds("the grant audit.read on logs/error"), &|d| {
                d.caller.grants = everything();
                d.caller.expires = Some(NOW.plus_micros(DAY));
            }),
            (exceeds("a life without end"), &|d| d.caller.expires = None),
        ],
    );
    climb(
        Desk::new(ChangeKind::SuspendKey { key_id: id }),
        &[
            (Refusal::KeyNotFound, &|d| with(d, &revoked)),
            (in_state(KeyStatus::Revoked), &|d| with(d, &suspended)),
            // Whoever may suspend needn't hold what the key may do.
            (in_state(KeyStatus::Suspended), &|d| with(d, &|_| {})),
        ],
    );
    climb(
        Desk::new(ChangeKind::ResumeKey { key_id: id }),
        &[
            (Refusal::KeyNotFound, &|d| with(d, &revoked)),
            (in_state(KeyStatus::Revoked), &|d| with(d, &|_| {})),
            (in_state(KeyStatus::Active), &|d| with(d, &suspended)),
            (exceeds("the grant audit.read on logs/error"), &|d| d.caller.grants = everything()),
        ],
    );
    let kind = RevocationKind::Unused;
    climb(
        Desk::new(ChangeKind::RevokeKey { key_id: id, kind }),
        &[
            (Refusal::KeyNotFound, &|d| with(d, &revoked)),
            (in_state(KeyStatus::Revoked), &|d| with(d, &suspended)),
        ],
    );
}

#[test]
fn a_change_of_a_role_is_refused_for_the_first_reason_of_the_ladder() {
    let wanted = || vec![grant(&["audit.read"], "logs/*", false)];
    let named = |name: &str| ChangeKind::CreateRole {
        name: name.into(),
        grants: wanted(),
        rotation: None,
        max_staleness: 0,
    };
    let hold = |d: &mut Desk, roles: u64| {
        let mut current = CurrentPolicy::default();
        current.policy.limits.roles = roles;
        d.state.policy = Arc::new(current);
    };
    climb(
        Desk::new(named("auditor")),
        &[
            (Refusal::RoleExists, &|d| {
                put_role(d, Role { retired: Some(NOW), ..role("readers") });
                d.kind = named("readers");
            }),
            (Refusal::RoleExists, &|d| {
                d.kind = named("others");
                hold(d, 1);
            }),
            (Refusal::LedgerFull { what: "roles", most: 1 }, &|d| hold(d, 2)),
            (exceeds("the grant audit.read on logs/*"), &|d| d.caller.grants = everything()),
        ],
    );
    let update = |name: &str, etag: &str| {
        ChangeKind::UpdateRole(UpdateRole {
            name: name.into(),
            etag: etag.into(),
            grants: Some(wanted()),
            described: false,
            rotation: None,
            max_staleness: None,
        })
    };
    climb(
        Desk::new(update("auditor", "")),
        &[
            (Refusal::RolePredefined, &|d| d.kind = update("readers", "0000000000000000")),
            (Refusal::RoleNotFound { name: "readers".into() }, &|d| {
                put_role(d, Role { retired: Some(NOW), ..role("readers") });
            }),
            (Refusal::RoleRetired, &|d| put_role(d, role("readers"))),
            (Refusal::EtagMismatch, &|d| d.kind = update("readers", "0808080808080808")),
            (exceeds("the grant audit.read on logs/*"), &|d| d.caller.grants = everything()),
        ],
    );
    let retire = |etag: &str| ChangeKind::RetireRole { name: "readers".into(), etag: etag.into() };
    climb(
        Desk::new(retire("0000000000000000")),
        &[
            (Refusal::RoleNotFound { name: "readers".into() }, &|d| put_role(d, role("readers"))),
            (Refusal::EtagMismatch, &|d| d.kind = retire("0808080808080808")),
        ],
    );
}

#[test]
fn a_change_of_a_policy_is_refused_for_the_first_reason_of_the_ladder() {
    let update = |etag: &str, changed: &[&str], max_life| {
        ChangeKind::UpdatePolicy(UpdatePolicy {
            etag: etag.into(),
            changed: changed.iter().map(|c| c.to_string()).collect(),
            to: Policy { max_life, ..Policy::default() },
        })
    };
    let in_ledger = |d: &mut Desk, number: u32| {
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        let info = LedgerInfo {
            id: [1; 16],
            epoch: 0,
            number: LedgerNumber(number),
            name: "default".into(),
            origin: "keys.example.test/default".into(),
            entry_key: key,
            checkpoint_key: key,
        };
        d.state.ledger = Some(Arc::new(info));
    };
    let mut desk = Desk::new(update("0000000000000001", &["limits.max_keys", "max_life"], DAY));
    in_ledger(&mut desk, 1);
    climb(
        desk,
        &[
            (Refusal::EtagMismatch, &|d| {
                d.kind = update("0000000000000000", &["limits.max_keys", "max_life"], DAY);
            }),
            (Refusal::SystemLedgerOnly, &|d| in_ledger(d, 0)),
            (wrong("default_life", "must be 1 second to max_life"), &|d| {
                d.kind = update("", &["limits", "max_life"], 91 * DAY);
            }),
        ],
    );
}

#[test]
fn a_registration_of_permissions_is_refused_for_the_first_reason_of_the_ladder() {
    let register = |prefix: &str| ChangeKind::RegisterPermissions {
        prefix: prefix.into(),
        names: vec![format!("{prefix}.read")],
    };
    let put = |d: &mut Desk, prefix: &str, owner: Owner| {
        let names = [format!("{prefix}.write").into()].into();
        let prefix: Arc<str> = prefix.into();
        let set = RegisteredPermissions { prefix: prefix.clone(), names, owner, position: 3 };
        d.state.permissions.insert(prefix, Arc::new(set));
    };
    let taken = Refusal::PrefixTaken { prefix: "billing".into() };
    let mut desk = Desk::new(register("keys"));
    put(&mut desk, "billing", Owner::Service("somebody-else".into()));
    for number in 1..MAX_PREFIXES {
        put(&mut desk, &format!("p{number}"), Owner::Service("many".into()));
    }
    climb(
        desk,
        &[
            // Also where it was registered before it was reserved, and whoever asks.
            (wrong("prefix", "is one of Keyledger's own"), &|d| {
                put(d, "keys", d.caller.owner.clone())
            }),
            (wrong("prefix", "is one of Keyledger's own"), &|d| {
                d.state.permissions.remove("keys");
                d.kind = register("billing");
            }),
            (taken.clone(), &|d| put(d, "billing", Owner::User([7; 16]))),
            (taken, &|d| d.kind = register("payroll")),
            (Refusal::LedgerFull { what: "prefixes", most: MAX_PREFIXES as u64 }, &|d| {
                // As many as there can be, and it is one of them.
                d.kind = register("billing");
                put(d, "billing", d.caller.owner.clone());
            }),
        ],
    );
}
