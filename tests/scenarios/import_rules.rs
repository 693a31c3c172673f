//! What the core decides about keys that were made elsewhere, as tables: how tokens match, what a first use leaves, and which
//! entries are no good.

use keyledger_ledger::apply::{ApplyError, apply};
use keyledger_ledger::body::{self, DecisionReason, Event, Kind};
use keyledger_ledger::command::{
    Action, Answer, ChangeKind, Command, Expiry, FirstSecret, Refusal,
};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::imported::{Argon2id, Foreign, NewImport, TokenHash};
use keyledger_ledger::judge::{Credential, Identity, identify};
use keyledger_ledger::record::{decode_key, encode_key};
use keyledger_ledger::state::Owner;
use keyledger_ledger::token::Token;
use keyledger_ledger::verify::{Found, NoKeys, Verifier};
use sha2::{Digest, Sha256};

use crate::world::{World, change, grant, verify};

const FAST: &str = "acme_live_4711";
const SLOW: &str = "acme.secret.4712";
const PREFIX: &str = "acme.secret.";

/// A world with an admin.
fn world() -> (World, Token) {
    let mut world = World::new("keys.example.test/system");
    let admin = world.new_key();
    let all = vec![grant(&["*"], "**", false)];
    let owner = Owner::Service("admin".into());
    let create = world.create_key(&admin, owner, all, vec![], Expiry::Never);
    let create = world.by_itself(create, vec![]);
    world.run(vec![create]);
    (world, admin)
}

fn fast() -> TokenHash {
    TokenHash::Sha256(Sha256::digest(FAST).into())
}

fn slow(prefix: &str) -> TokenHash {
    let (salt, output) = (vec![1; 16], vec![2; 32]);
    let hash = Argon2id { memory_kib: 64, passes: 1, lanes: 1, salt, output };
    TokenHash::Argon2id { hash, prefix: prefix.into() }
}

fn import(world: &mut World, hash: TokenHash) -> (KeyId, Answer) {
    let token = world.new_key();
    let may = vec![grant(&["audit.read"], "logs/error", false)];
    let owner = Owner::Service("robot".into());
    let mut kind = world.create_key(&token, owner, may, vec![], Expiry::Default);
    let salt = world.draw();
    if let ChangeKind::CreateKey(create) = &mut kind {
        create.secret = FirstSecret::Imported(NewImport { hash, salt });
    }
    let import = world.by_itself(kind, vec![]);
    (token.key_id, world.run(vec![import]).remove(0))
}

fn imported(world: &mut World, hash: TokenHash) -> KeyId {
    let (key_id, answer) = import(world, hash);
    assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
    key_id
}

/// A token as it was presented, looked up in the world as it is.
fn presented(world: &World, text: &str) -> Foreign {
    let mut token = Foreign::parse(text).expect("it may be one");
    token.look_up(text, &world.head.state, &world.peppers);
    token
}

fn whose(world: &World, token: &Foreign) -> Identity {
    let credential = Credential::Foreign(Box::new(token.clone()));
    identify(&credential, &world.head.state, &world.peppers)
}

fn check(world: &mut World, admin: &Token, token: Foreign) -> Command {
    let call = world.call(&admin.reveal(), "KeyService/VerifyKey", "keys.verify", "keys");
    let mut command = verify(call, "", "audit.read", "logs/error", vec![]);
    if let Action::Verify(check) = &mut command.action {
        check.credential = Credential::Foreign(Box::new(token));
    }
    command
}

#[test]
fn a_token_is_that_of_the_key_whose_digest_it_has() {
    let (mut world, _) = world();
    let fast = imported(&mut world, fast());
    let slow = imported(&mut world, slow(PREFIX));
    let known = |key_id| Identity::Known { key_id, version: 1 };
    let unknown = |key_id, reason| Identity::Unknown { key_id, reason };
    for (text, expected) in [
        (FAST, known(fast)),
        ("acme_live_4712", unknown(None, DecisionReason::UnknownKey)),
        // A slow hash is never computed here.
        (SLOW, unknown(Some(slow), DecisionReason::WrongSecret)),
        ("acme.secret", unknown(None, DecisionReason::UnknownKey)),
        ("x", unknown(None, DecisionReason::UnknownKey)),
    ] {
        assert_eq!(whose(&world, &presented(&world, text)), expected, "{text}");
    }
    let mut token = presented(&world, SLOW);
    let tried: Vec<KeyId> =
        token.slow_digests(&world.head.state).into_iter().map(|(id, _)| id).collect();
    assert_eq!(tried, [slow]);
    assert!(presented(&world, FAST).slow_digests(&world.head.state).is_empty());
    token.matched_slowly(slow);
    assert_eq!(whose(&world, &token), known(slow));
}

#[test]
fn what_was_looked_up_before_an_import_is_asked_for_again() {
    let (mut world, admin) = world();
    for (text, hash) in [(FAST, fast()), (SLOW, slow(PREFIX))] {
        let before = presented(&world, text);
        assert!(!before.is_behind(&world.head.state));
        imported(&mut world, hash);
        assert!(before.is_behind(&world.head.state));
        let entries = world.entries.len();
        let check = check(&mut world, &admin, before);
        assert!(matches!(world.run(vec![check])[..], [Answer::Seen]));
        assert_eq!(world.entries.len(), entries, "nothing was done");
    }
}

#[test]
fn a_first_use_leaves_one_entry_between_its_page_and_the_changes() {
    let (mut world, admin) = world();
    let key_id = imported(&mut world, fast());
    let digest = |world: &World| world.head.state.digests.contains_key(&key_id);
    assert!(digest(&world));
    let before = world.entries.len();
    let mut commands = vec![];
    let call = world.call(&admin.reveal(), "KeyService/SuspendKey", "keys.suspend", "keys/x");
    commands.push(change(call, ChangeKind::SuspendKey { key_id }, vec![]));
    for _ in 0..3 {
        let token = presented(&world, FAST);
        commands.push(check(&mut world, &admin, token));
    }
    world.run(commands);
    let kinds = |world: &World, from: usize| -> Vec<&'static str> {
        world.entries[from..].iter().map(|e| e.event.kind.as_ref().unwrap().name()).collect()
    };
    assert_eq!(kinds(&world, before), ["use.page", "key.verifier-migrated", "key.suspended"]);
    assert!(!digest(&world));
    // The trace of the use stands in the entry that it brought with it.
    assert_eq!(world.entries[before + 1].event.trace_id.len(), 16);

    let resume = world.by_itself(ChangeKind::ResumeKey { key_id }, vec![]);
    world.run(vec![resume]);
    let before = world.entries.len();
    let token = presented(&world, FAST);
    assert_eq!(whose(&world, &token), Identity::Known { key_id, version: 1 });
    let again = check(&mut world, &admin, token);
    world.run(vec![again]);
    assert_eq!(kinds(&world, before), ["use.page"]);

    let mut verifier = Verifier::default();
    for new in &world.entries {
        let found = Found {
            position: new.position,
            entry: new.entry.clone(),
            sealed: None,
            uses: new.uses.clone(),
            columns: None,
        };
        verifier.push(&found, &mut NoKeys).unwrap();
    }
    assert!(verifier.state().same_fold(&world.head.state));
    // As a row of the projection.
    for key in world.head.state.keys.values() {
        let read = decode_key(&encode_key(key), |name| name.into()).expect("it is ours");
        assert_eq!(read, **key);
    }
}

#[test]
fn an_import_is_refused_for_the_first_reason_of_the_ladder() {
    let (mut world, _) = world();
    imported(&mut world, fast());
    for length in 8..16 {
        imported(&mut world, slow(&"abcdefghijklmnopqrst"[..length]));
    }
    let refusal = |world: &mut World, hash| match import(world, hash).1 {
        Answer::Refused { refusal } => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(&mut world, fast()), Refusal::ImportExists);
    assert_eq!(refusal(&mut world, slow("abcdefgh")), Refusal::ImportExists);
    assert_eq!(refusal(&mut world, slow("tsrqponmlkjihgfe")), Refusal::ImportPrefixLengths);
    imported(&mut world, slow("hgfedcba"));
    imported(&mut world, TokenHash::Sha256([9; 32]));
}

#[test]
fn an_entry_that_no_import_and_no_first_use_would_leave_is_no_good() {
    let (mut world, admin) = world();
    let key_id = imported(&mut world, slow(PREFIX));
    let import = world.entries.last().unwrap().event.clone();
    let fresh = {
        let (mut other, _) = self::world();
        imported(&mut other, slow("other.secret."));
        other.new_key().key_id
    };
    // Each is applied to the state as it is, which stays so.
    let applied = |world: &World, event: &Event| {
        let mut state = world.head.state.clone();
        apply(&mut state, [3; 32], event).err()
    };
    let altered = |alter: fn(&mut body::ImportedVerifier)| {
        let mut event = import.clone();
        let Some(Kind::KeyImported(e)) = &mut event.kind else { unreachable!("it was imported") };
        e.link.as_mut().unwrap().key_id = fresh.as_bytes().to_vec();
        let verifier = e.verifier.as_mut().unwrap();
        verifier.lookup = vec![7; 16];
        alter(verifier);
        event
    };
    let wrong = Some(ApplyError::Field("verifier"));
    let own = world.head.state.keys[&key_id].imported.as_ref().unwrap().lookup;
    let mut twice = altered(|_| ());
    let Some(Kind::KeyImported(e)) = &mut twice.kind else { unreachable!("it was imported") };
    e.verifier.as_mut().unwrap().lookup = own.to_vec();
    assert_eq!(applied(&world, &twice), Some(ApplyError::ImportExists));
    for (event, expected) in [
        (altered(|_| ()), None),
        (altered(|v| v.lookup = vec![7; 15]), wrong.clone()),
        (altered(|v| v.algorithm = 0), wrong.clone()),
        (altered(|v| v.algorithm = 3), wrong.clone()),
        (altered(|v| v.prefix_length = 7), wrong.clone()),
        (altered(|v| v.algorithm = 1), wrong.clone()),
        (altered(|v| v.number = 2), Some(ApplyError::Field("version.number"))),
        (
            altered(|v| v.verifier_commitment = vec![]),
            Some(ApplyError::Field("version.verifier_commitment")),
        ),
    ] {
        assert_eq!(applied(&world, &event), expected);
    }

    let mut token = presented(&world, SLOW);
    token.matched_slowly(key_id);
    let before = world.head.state.clone();
    let first = check(&mut world, &admin, token);
    world.run(vec![first]);
    let migrated = world.entries.last().unwrap().event.clone();
    let page = world.entries[world.entries.len() - 2].event.clone();
    let on_page = |event: &Event| {
        let mut state = before.clone();
        apply(&mut state, [4; 32], &page).unwrap();
        apply(&mut state, [5; 32], event).err()
    };
    assert_eq!(on_page(&migrated), None);
    let caller = body::Caller { key_id: admin.key_id.as_bytes().to_vec(), version: 1 };
    let by_somebody = Event { caller: Some(caller), ..migrated.clone() };
    assert_eq!(on_page(&by_somebody), Some(ApplyError::Caller));
    let altered = |alter: &dyn Fn(&mut body::VerifierMigrated)| {
        let mut event = migrated.clone();
        let Some(Kind::VerifierMigrated(e)) = &mut event.kind else { unreachable!("it was moved") };
        alter(e);
        event
    };
    let second = altered(&|e| e.version.as_mut().unwrap().number = 2);
    assert_eq!(on_page(&second), Some(ApplyError::Field("version.number")));
    // Of a key that was never imported, and a second time.
    let key = |id: &KeyId| world.head.state.keys[id].clone();
    for id in [admin.key_id, key_id] {
        let (id, key) = (id.as_bytes().to_vec(), key(&id));
        let again = altered(&|e| {
            e.link = Some(body::KeyLink {
                key_id: id.clone(),
                stream_version: key.stream_version + 1,
                previous_leaf_hash: key.leaf_hash.to_vec(),
            });
        });
        assert_eq!(applied(&world, &again), Some(ApplyError::KeyState));
    }
}
