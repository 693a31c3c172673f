//! Nobody gives more than they hold: over random rights and random calls, straight at `decide`. `KEYLEDGER_CALLS` says how
//! many calls; 100,000 in the suite.

use std::sync::Arc;

use keyledger_ledger::body;
use keyledger_ledger::command::{
    Change, ChangeKind, CreateKey, DAY, Expiry, FirstSecret, NewSecret, RotateKey, UpdateKey,
    UpdateRole,
};
use keyledger_ledger::decide::decide;
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::imported::{NewImport, TokenHash};
use keyledger_ledger::restrict::{RestrictionChange, Restrictions};
use keyledger_ledger::roles;
use keyledger_ledger::secret::{Pepper, Peppers};
use keyledger_ledger::state::{Key, Owner, Role, State, Suspension};
use keyledger_ledger::token::Secret;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::ladder::{NOW, key};
use crate::world::grant;

const PERMISSIONS: [&str; 5] = ["a.x", "a.y", "a.x.z", "b.x", "a"];
const RESOURCES: [&str; 6] = ["r", "r/1", "r/2", "r/1/deep", "s", "s/1"];

const NETWORKS: &[&[&str]] =
    &[&[], &["10.0.0.0/8"], &["10.1.0.0/16"], &["10.0.0.0/8", "11.0.0.0/8"]];

fn calls() -> u32 {
    std::env::var("KEYLEDGER_CALLS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let permission =
        prop::sample::select(&["a.x", "a.y", "a.*", "a.x.*", "b.x", "b.*", "a", "*"][..]);
    let resource = prop::sample::select(
        &["r", "r/1", "r/*", "r/**", "*/1", "*/**", "**", "s/*", "r/*/deep", "r/1/**"][..],
    );
    let one = (vec(permission, 1..3), resource, prop::bool::weighted(0.2));
    vec(one.prop_map(|(p, r, give_only)| grant(&p, r, give_only)), 0..4)
}

/// What somebody holds: own grants, roles, an end, networks, and a maximum of uses.
#[derive(Clone, Debug)]
struct Rights {
    grants: Vec<Grant>,
    roles: Vec<String>,
    days: Option<i64>,
    networks: Vec<&'static str>,
    max_uses: u64,
}

fn rights() -> impl Strategy<Value = Rights> {
    let role = prop::sample::select(&["one", "two", "retired"][..]);
    let networks = prop::sample::select(NETWORKS);
    let days = prop_oneof![2 => Just(None), 3 => (1i64..60).prop_map(Some)];
    let max_uses = prop_oneof![3 => Just(0), 1 => 1u64..5];
    (grants(), vec(role, 0..2), days, networks, max_uses).prop_map(
        |(grants, roles, days, networks, max_uses)| Rights {
            grants,
            roles: roles.into_iter().map(String::from).collect(),
            days,
            networks: networks.to_vec(),
            max_uses,
        },
    )
}

impl Rights {
    fn restrictions(&self) -> Restrictions {
        let networks = self.networks.iter().map(|n| n.to_string()).collect();
        let body = body::Restrictions { networks, max_uses: self.max_uses, ..Default::default() };
        Restrictions::from_body(Some(&body)).expect("they are well-formed")
    }

    fn key(&self, number: u64) -> Key {
        let mut key = key(number, self.grants.clone());
        key.roles = self.roles.iter().map(|r| r.as_str().into()).collect();
        key.expires = self.days.map(|days| NOW.plus_micros(days * DAY));
        key.restrictions = Some(Box::new(self.restrictions()));
        key
    }
}

fn state(one: Vec<Grant>, two: Vec<Grant>) -> State {
    let mut state = State::default();
    for (name, grants, retired) in
        [("one", one, None), ("two", two.clone(), None), ("retired", two, Some(NOW))]
    {
        let role = Role {
            name: name.into(),
            grants: grants.into(),
            rotation: None,
            max_staleness: 0,
            created: Time(1),
            retired,
            position: 1,
            leaf_hash: [0; 32],
            described_position: 1,
        };
        state.roles.insert(role.name.clone(), Arc::new(role));
    }
    state
}

/// Everything in our small world that a key may do or give.
fn reaches(state: &State, key: &Key) -> Vec<(&'static str, &'static str)> {
    let all = PERMISSIONS.iter().flat_map(|p| RESOURCES.iter().map(|r| (*p, *r)));
    let reached = |(p, r): &(&str, &str)| {
        let asked = grant(&[p], r, false);
        roles::of_key(state, key).any(|(grants, _)| grants.iter().any(|g| g.covers(&asked)))
    };
    all.filter(reached).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(calls()) })]

    #[test]
    fn whatever_a_key_gives_it_holds_itself_and_for_no_longer_and_in_no_more_places(
        one in grants(), two in grants(), caller in rights(), given in rights(), how in 0..7,
    ) {
        let mut state = state(one, two);
        let (caller, mut wanted) = (caller.key(1), given.key(2));
        let secret = || NewSecret { secret: Secret::new([3; 32]), salt: [4; 32] };
        let expiry = wanted.expires.map_or(Expiry::Never, Expiry::At);
        let create = |secret: FirstSecret| ChangeKind::CreateKey(CreateKey {
            key_id: KeyId::new(NOW, LedgerNumber(1), 3),
            owner: Owner::Service("robot".into()),
            grants: given.grants.clone(),
            roles: given.roles.clone(),
            expiry,
            restrictions: given.restrictions(),
            labels: vec![],
            responsible: None,
            rotation: None,
            secret,
        });
        let kind = match how {
            0 => create(secret().into()),
            1 => {
                let hash = TokenHash::Sha256([5; 32]);
                create(FirstSecret::Imported(NewImport { hash, salt: [4; 32] }))
            }
            2 => {
                state.put_key(Key { suspension: Suspension::Since { time: NOW, idle: false }, ..wanted.clone() });
                ChangeKind::ResumeKey { key_id: wanted.id }
            }
            3 => {
                // Whoever rotates learns the new secret.
                state.put_key(wanted.clone());
                let (overlap_micros, until_first_use) = (0, false);
                let (key_id, secret) = (wanted.id, secret());
                ChangeKind::RotateKey(RotateKey { key_id, overlap_micros, until_first_use, secret })
            }
            4 => {
                state.put_key(key(2, vec![]));
                ChangeKind::UpdateKey(UpdateKey {
                    key_id: wanted.id,
                    etag: String::new(),
                    changed: vec![],
                    grants: Some(given.grants.clone()),
                    roles: Some(given.roles.clone()),
                    expiry: Some(expiry),
                    restrictions: Some(RestrictionChange::all(given.restrictions())),
                    labels: None,
                    responsible: None,
                    rotation: None,
                })
            }
            5 => ChangeKind::CreateRole {
                name: "new".into(),
                grants: given.grants.clone(),
                rotation: None,
                max_staleness: 0,
            },
            _ => ChangeKind::UpdateRole(UpdateRole {
                name: "one".into(),
                etag: String::new(),
                grants: Some(given.grants.clone()),
                described: false,
                rotation: None,
                max_staleness: None,
            }),
        };
        let of_role = matches!(kind, ChangeKind::CreateRole { .. } | ChangeKind::UpdateRole(_));
        let peppers = Peppers::new(vec![Pepper::new(1, [1; 32])]);
        let decided = decide(&state, &peppers, Some(&caller), &Change::new(kind, vec![]), NOW);
        if decided.is_ok() {
            if of_role {
                wanted.roles = Box::new([]);
            }
            state.put_key(wanted.clone());
            let held = reaches(&state, &caller);
            for asked in reaches(&state, &wanted) {
                prop_assert!(held.contains(&asked), "gave {asked:?}");
            }
            // A role has neither an end nor restrictions.
            if !of_role {
                let end = |key: &Key| key.expires.unwrap_or(Time(i64::MAX));
                prop_assert!(end(&wanted) <= end(&caller), "gave a longer life");
                let limits = |key: &Key| key.restrictions.as_deref().cloned().unwrap_or_default();
                prop_assert!(limits(&wanted).inside(&limits(&caller)), "gave more places or uses");
            }
        }
    }
}
