//! What may be asked of a ledger, at random: who asks, for what, and when.

use keyledger_ledger::command::{DAY, SECOND};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::policy::Policy;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::grant;

/// A token, chosen among those that there are by then.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    Admin,
    /// One of a key that lives.
    Live(usize),
    /// Any that was ever presented or meant.
    Any(usize),
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Create {
        by: Pick,
        grants: Vec<Grant>,
        role: Option<usize>,
        life: Life,
    },
    Rotate {
        by: Pick,
        key: usize,
        overlap: i64,
        until_first_use: bool,
    },
    Revoke {
        by: Pick,
        key: usize,
    },
    Role {
        by: Pick,
        name: usize,
        grants: Vec<Grant>,
    },
    Check {
        by: Pick,
        token: Pick,
        permission: String,
        resource: String,
    },
    Read {
        by: Pick,
    },
    Refuse {
        by: Pick,
    },
    Authenticate {
        by: Pick,
    },
    Suspend {
        by: Pick,
        key: usize,
    },
    Resume {
        by: Pick,
        key: usize,
    },
    Update {
        by: Pick,
        key: usize,
        fields: Fields,
    },
    UpdateRole {
        by: Pick,
        name: usize,
        grants: Vec<Grant>,
        max_age: Option<Option<i64>>,
    },
    Policy {
        by: Pick,
        policy: Policy,
    },
    /// Keyledger notes what is due first.
    Note,
    RetireRole {
        by: Pick,
        name: usize,
    },
    Register {
        by: Pick,
        prefix: usize,
        names: usize,
    },
    /// Events that are recorded together or not at all: the request id of each, and whether it can be recorded.
    Together {
        by: Pick,
        events: Vec<(Option<u8>, bool)>,
    },
    /// A dry run of a change.
    Dry(Box<Step>),
}

/// What is to be changed of a key.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) grants: Option<Vec<Grant>>,
    /// Whether it holds a role, and which.
    pub(super) role: Option<Option<usize>>,
    pub(super) life: Option<Life>,
    /// Whether it is restricted to a network.
    pub(super) restricted: Option<bool>,
    /// How old its secrets may grow.
    pub(super) max_age: Option<Option<i64>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Life {
    Default,
    Seconds(i64),
    Never,
}

/// Steps at the same time, after a wait, and whether the changes among them use a request id that was used before.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) wait: i64,
    pub(super) steps: Vec<(Step, Option<u8>)>,
}

pub(super) const PERMISSIONS: [&str; 4] = ["a.x", "a.y", "b.x", "keys.verify"];
pub(super) const RESOURCES: [&str; 5] = ["r", "r/1", "r/2", "r/1/deep", "keys"];

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let permission = prop_oneof![Just("a.x"), Just("a.*"), Just("b.x"), Just("*"), Just("keys.*")];
    let resource = prop_oneof![Just("r/1"), Just("r/*"), Just("r/**"), Just("**"), Just("keys")];
    let one = (permission, resource, prop::bool::weighted(0.2));
    let one = one.prop_map(|(p, r, give_only)| grant(&[p], r, give_only));
    // Many may hand keys out, so that chains of givers come up.
    let manager = Just(grant(&["keys.*", "roles.*", "a.x"], "**", false));
    prop_oneof![
        3 => vec(one.clone(), 0..3),
        2 => (manager, vec(one, 0..2)).prop_map(|(manager, others)| [vec![manager], others].concat()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let life = prop_oneof![
        2 => Just(Life::Default),
        3 => (1i64..30).prop_map(Life::Seconds),
        1 => Just(Life::Seconds(500 * 86_400)),
        1 => Just(Life::Never),
    ];
    let by = || {
        prop_oneof![
            2 => Just(Pick::Admin),
            5 => any::<usize>().prop_map(Pick::Live),
            1 => any::<usize>().prop_map(Pick::Any),
        ]
    };
    let overlap = prop_oneof![Just(0), 1i64..5 * SECOND, Just(31 * DAY)];
    let (permission, resource) =
        (prop::sample::select(&PERMISSIONS[..]), prop::sample::select(&RESOURCES[..]));
    prop_oneof![
        4 => (by(), grants(), prop::option::weighted(0.4, 0usize..2), life)
            .prop_map(|(by, grants, role, life)| Step::Create { by, grants, role, life }),
        3 => (by(), any::<usize>(), overlap, any::<bool>()).prop_map(
            |(by, key, overlap, until_first_use)| Step::Rotate { by, key, overlap, until_first_use }
        ),
        1 => (by(), any::<usize>()).prop_map(|(by, key)| Step::Revoke { by, key }),
        2 => (by(), 0usize..2, grants()).prop_map(|(by, name, grants)| Step::Role { by, name, grants }),
        5 => (by(), by(), permission, resource).prop_map(|(by, token, p, r)| {
            Step::Check { by, token, permission: p.into(), resource: r.into() }
        }),
        1 => by().prop_map(|by| Step::Read { by }),
        1 => by().prop_map(|by| Step::Refuse { by }),
        1 => by().prop_map(|by| Step::Authenticate { by }),
    ]
    // Or the value trees would not fit a stack.
    .boxed()
}

fn by() -> impl Strategy<Value = Pick> {
    prop_oneof![
        1 => Just(Pick::Admin),
        5 => any::<usize>().prop_map(Pick::Live),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    let life =
        prop_oneof![Just(Life::Default), (1i64..60).prop_map(Life::Seconds), Just(Life::Never)];
    let role = prop::option::of(prop::option::of(0usize..2));
    let (life, restricted) = (prop::option::of(life), prop::option::of(any::<bool>()));
    (prop::option::of(grants()), role, life, restricted, max_age()).prop_map(
        |(grants, role, life, restricted, max_age)| Fields {
            grants,
            role,
            life,
            restricted,
            max_age,
        },
    )
}

fn max_age() -> impl Strategy<Value = Option<Option<i64>>> {
    prop::option::of(prop::option::of(1i64..90).prop_map(|s| s.map(|s| s * SECOND)))
}

fn policy() -> impl Strategy<Value = Policy> {
    let days = prop_oneof![Just(vec![]), Just(vec![30, 7, 1]), Just(vec![80, 20])];
    (1i64..100, 1i64..100, days).prop_map(|(most, default, notice_days)| Policy {
        max_life: most * DAY,
        default_life: default * DAY,
        max_overlap: 3 * SECOND,
        notice_days,
        ..Policy::default()
    })
}

/// Any step, and those that change what keys and roles are.
fn changing_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => step(),
        1 => any::<usize>().prop_map(|key| Step::Revoke { by: Pick::Live(key), key }),
        2 => (by(), any::<usize>()).prop_map(|(by, key)| Step::Suspend { by, key }),
        3 => (by(), any::<usize>()).prop_map(|(by, key)| Step::Resume { by, key }),
        6 => (by(), any::<usize>(), fields()).prop_map(|(by, key, fields)| Step::Update { by, key, fields }),
        3 => (by(), 0usize..2, grants(), max_age()).prop_map(
            |(by, name, grants, max_age)| Step::UpdateRole { by, name, grants, max_age }
        ),
        2 => (by(), policy()).prop_map(|(by, policy)| Step::Policy { by, policy }),
        4 => Just(Step::Note),
        1 => (by(), 0usize..2).prop_map(|(by, name)| Step::RetireRole { by, name }),
        2 => (by(), 0usize..3, 1usize..4)
            .prop_map(|(by, prefix, names)| Step::Register { by, prefix, names }),
    ]
    .boxed()
}

/// Many changes at the same time, some of them tried only, some of them again.
pub(super) fn many_changes() -> impl Strategy<Value = Vec<Moment>> {
    let wait = prop_oneof![3 => Just(0), 1 => 1i64..2 * SECOND];
    let step = prop_oneof![
        5 => changing_step(),
        1 => changing_step().prop_map(|step| match step {
            // Keyledger itself tries nothing.
            Step::Note => Step::Note,
            step => Step::Dry(Box::new(step)),
        }),
        2 => (by(), vec((prop::option::weighted(0.5, 0u8..40), prop::bool::weighted(0.9)), 1..6))
            .prop_map(|(by, events)| Step::Together { by, events }),
        // Its own end, tried: what a key may always do.
        1 => (any::<usize>(), any::<usize>()).prop_map(|(by, key)| {
            Step::Dry(Box::new(Step::Revoke { by: Pick::Live(by), key }))
        }),
    ];
    let steps = vec((step, prop::option::weighted(0.3, 0u8..20)), 0..30);
    vec((wait, steps).prop_map(|(wait, steps)| Moment { wait, steps }), 4..16)
}

/// One step at a time, so that each can be held against the state just before it.
pub(super) fn changes() -> impl Strategy<Value = Vec<Moment>> {
    let wait = prop_oneof![15 => Just(0), 15 => 1i64..2 * SECOND, 1 => Just(100 * DAY)];
    let one = (wait, changing_step());
    vec(one.prop_map(|(wait, step)| Moment { wait, steps: vec![(step, None)] }), 10..60)
}

pub(super) fn moments() -> impl Strategy<Value = Vec<Moment>> {
    let wait = prop_oneof![15 => Just(0), 15 => 1i64..2 * SECOND, 1 => Just(100 * DAY)];
    let steps = vec((step(), prop::option::weighted(0.2, 0u8..40)), 0..20);
    vec((wait, steps).prop_map(|(wait, steps)| Moment { wait, steps }), 4..16)
}
