//! Frozen ledgers: what was once signed verifies for ever, and means what it meant. `examples/freeze.rs` writes them; what
//! it wrote is never changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keyledger_ledger::body::{
    DecisionReason, Event, Kind, SealedColumn, SealedText, Use, UseColumn, decode_canonical,
};
use keyledger_ledger::entry::Entry;
use keyledger_ledger::page::read_uses;
use keyledger_ledger::secret::{Pepper, Peppers};
use keyledger_ledger::text::Opened;
use keyledger_ledger::token::Token;
use keyledger_ledger::verify::{Found, Opener, Opening, Verifier};
use keyledger_proto::methods::pool;
use prost::Message;
use prost_reflect::{DynamicMessage, Value as Field};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;

use crate::world::summary;

/// One frozen ledger, as its files hold it.
struct Frozen {
    name: String,
    entries: Vec<Found>,
    leaf_hashes: Vec<String>,
    kinds: Vec<String>,
    checkpoint: String,
    keys: Value,
    secrets: Value,
}

fn all() -> Vec<Frozen> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden");
    let folders = fs::read_dir(&golden).expect("there are frozen ledgers").flatten();
    let mut folders: Vec<PathBuf> = folders.map(|f| f.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "there are frozen ledgers");
    folders.iter().map(|folder| read(folder)).collect()
}

fn read(folder: &Path) -> Frozen {
    let text =
        |name: &str| fs::read_to_string(folder.join(name)).expect("a frozen ledger is whole");
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("its files are JSON");
    let lines: Vec<Value> = text("entries.jsonl").lines().map(json).collect();
    let words = |name: &str| lines.iter().map(|l| string(&l[name])).collect();
    Frozen {
        name: folder.display().to_string(),
        entries: lines.iter().map(found).collect(),
        leaf_hashes: words("leaf_hash"),
        kinds: words("kind"),
        checkpoint: text("checkpoint.txt"),
        keys: json(&text("keys.json")),
        secrets: json(&text("secrets.json")),
    }
}

fn found(line: &Value) -> Found {
    let bytes = |name: &str| BASE64_STANDARD.decode(string(&line[name])).expect("it is base64");
    let entry = Entry {
        payload_type: string(&line["payload_type"]),
        body: bytes("body"),
        public_key_sha256: fixed(&line["public_key_sha256"]),
        signature: fixed(&line["signature"]),
    };
    let position = line["position"].as_u64().expect("it is a number");
    Found { position, entry, sealed: Some(bytes("sealed")), uses: bytes("uses"), columns: None }
}

fn string(value: &Value) -> String {
    value.as_str().expect("it is a string").into()
}

fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    let bytes = hex::decode(string(value)).expect("it is hexadecimal");
    bytes.try_into().expect("it has its length")
}

/// Opens texts as the design has it, with nothing of the server's.
struct DataKeys {
    ledger_id: Vec<u8>,
    keys: Vec<([u8; 16], [u8; 32])>,
}

impl DataKeys {
    fn of(frozen: &Frozen) -> DataKeys {
        let first =
            Event::from_signed(&frozen.entries[0].entry.body).expect("position 0 is an event");
        let keys = frozen.secrets["data_keys"].as_array().expect("a list").iter();
        let keys = keys.map(|k| (fixed(&k["subject_ref"]), fixed(&k["key"]))).collect();
        DataKeys { ledger_id: first.ledger_id, keys }
    }
}

impl Opener for DataKeys {
    fn open(&mut self, _: u64, _: usize, text: &SealedText, sealed: Option<&[u8]>) -> Opening {
        let sealed = sealed.expect("frozen ledgers hold their sealed texts");
        let Some((_, key)) = self.keys.iter().find(|(r, _)| *r == text.subject_ref.as_slice())
        else {
            return Opening::KeyGone;
        };
        let parts = [
            b"keyledger text v1\n".as_slice(),
            &self.ledger_id,
            &text.subject_ref,
            &text.commitment,
        ];
        let (nonce, sealed) = sealed.split_at(12);
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("12 bytes");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"));
        let mut sealed = sealed.to_vec();
        match key.open_in_place(nonce, Aad::from(parts.concat()), &mut sealed) {
            Ok(plain) => {
                let (salt, texts) = plain.split_at(32);
                let salt = salt.try_into().expect("split at 32");
                Opening::Opened(Opened { salt, texts: texts.to_vec() })
            }
            Err(_) => Opening::Damaged,
        }
    }
}

fn verified(frozen: &Frozen) -> Verifier {
    let (mut verifier, mut data_keys) = (Verifier::default(), DataKeys::of(frozen));
    for found in &frozen.entries {
        verifier.push(found, &mut data_keys).unwrap_or_else(|f| panic!("{}: {f}", frozen.name));
        if found.position == 0 {
            let opened =
                verifier.open_checkpoint(&frozen.checkpoint).expect("position 0 names the key");
            verifier.expect(opened.expect("its signature is good")).expect("it comes in time");
        }
    }
    verifier.finish().expect("the checkpoint covers no more than there is");
    verifier
}

#[test]
fn every_frozen_ledger_verifies_with_all_its_texts_opened() {
    for frozen in all() {
        let verifier = verified(&frozen);
        let counts = verifier.counts();
        assert_eq!(counts.entries as usize, frozen.entries.len());
        assert_eq!((counts.checkpoints, counts.texts_unopened, counts.texts_erased), (1, 0, 0));
        assert!(counts.texts_opened > 0 && counts.uses > 0);
        for (found, leaf_hash) in frozen.entries.iter().zip(&frozen.leaf_hashes) {
            assert_eq!(hex::encode(found.entry.leaf_hash()), *leaf_hash);
        }
    }
}

#[test]
fn a_frozen_ledger_means_what_it_meant() {
    for frozen in all() {
        let state = verified(&frozen).state().clone();
        let expected = frozen.keys.as_array().expect("a list");
        assert_eq!(state.keys.len(), expected.len());
        for (key, expected) in state.keys.values().zip(expected) {
            assert_eq!(summary(key), *expected);
        }
    }
}

fn uses(found: &Found) -> Vec<Use> {
    match Event::from_signed(&found.entry.body).expect("it verifies").kind {
        Some(Kind::UsePage(page)) => {
            let read = read_uses(&page, &found.uses).expect("they are the page's");
            read.into_iter().map(|read| read.r#use).collect()
        }
        _ => vec![],
    }
}

#[test]
fn every_kind_of_entry_and_every_recorded_reason_is_frozen() {
    let all = all();
    let event = pool().get_message_by_name("keyledger.entry.v1.Event").expect("it is published");
    let published = event.oneofs().next().expect("the kinds").fields().count();
    let kinds: BTreeSet<&String> = all.iter().flat_map(|f| &f.kinds).collect();
    assert_eq!(kinds.len(), published, "freeze a ledger that holds the new kind: {kinds:?}");

    let recorded: BTreeSet<DecisionReason> = all
        .iter()
        .flat_map(|f| f.entries.iter().flat_map(uses))
        .map(|u| DecisionReason::try_from(u.reason).expect("it is known"))
        .collect();
    let reasons =
        pool().get_enum_by_name("keyledger.entry.v1.DecisionReason").expect("it is published");
    let never_recorded = [DecisionReason::Unspecified, DecisionReason::NotValid];
    for value in reasons.values() {
        let reason = DecisionReason::try_from(value.number()).expect("the core knows it");
        assert_eq!(value.name(), reason.as_str_name());
        assert_ne!(recorded.contains(&reason), never_recorded.contains(&reason), "{reason:?}");
    }
    let folded = |u: Use| u.count > 1 && u.first_time_us > 0 && !u.traces.is_empty();
    assert!(
        all.iter().any(|f| f.entries.iter().flat_map(uses).any(folded)),
        "a count is frozen too"
    );
    let held = |u: &Use| u.reported.as_ref().map(|reported| reported.doubts.is_empty());
    let held: BTreeSet<bool> =
        all.iter().flat_map(|f| f.entries.iter().flat_map(uses)).filter_map(|u| held(&u)).collect();
    assert_eq!(held.len(), 2, "freeze a ledger with uses that were reported, also a doubtful one");
}

/// Reads bytes by the published proto alone and writes them again.
fn reads_the_same(message: &str, bytes: &[u8]) {
    let descriptor = pool().get_message_by_name(message).expect("it is published");
    let read = DynamicMessage::decode(descriptor, bytes).expect("it is what the proto says");
    assert!(!holds_unknown(&read), "{message} holds a field that the published proto lacks");
    assert_eq!(read.encode_to_vec(), bytes, "{message}");
}

fn holds_unknown(message: &DynamicMessage) -> bool {
    let nested = |value: &Field| match value {
        Field::Message(inner) => holds_unknown(inner),
        Field::List(values) => values.iter().any(|v| v.as_message().is_some_and(holds_unknown)),
        _ => false,
    };
    message.unknown_fields().next().is_some() || message.fields().any(|(_, value)| nested(value))
}

#[test]
fn the_published_protos_read_frozen_bytes_and_write_the_same() {
    for frozen in all() {
        let mut data_keys = DataKeys::of(&frozen);
        for found in &frozen.entries {
            let body = &found.entry.body;
            let event = Event::from_signed(body).expect("it verifies");
            assert_eq!(event.encode_to_vec(), *body);
            reads_the_same("keyledger.entry.v1.Event", body);
            let counts = matches!(event.kind, Some(Kind::CategoryCounted(_)));
            let beside = if counts { "CountColumn" } else { "UseColumn" };
            reads_the_same(&format!("keyledger.entry.v1.{beside}"), &found.uses);
            let sealed = found.sealed.as_deref().expect("it is at hand");
            reads_the_same("keyledger.entry.v1.SealedColumn", sealed);
            let uses = if counts { &[][..] } else { &found.uses };
            let column: UseColumn = decode_canonical(uses, "UseColumn").expect("it verifies");
            column.uses.iter().for_each(|u| reads_the_same("keyledger.entry.v1.Use", &u.r#use));
            let sealed: SealedColumn =
                decode_canonical(sealed, "SealedColumn").expect("it verifies");
            for (text, sealed) in event.texts.iter().zip(&sealed.sealed) {
                match data_keys.open(found.position, 0, text, Some(sealed)) {
                    Opening::Opened(opened) => {
                        reads_the_same("keyledger.entry.v1.Texts", &opened.texts)
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn frozen_tokens_are_still_those_of_their_keys() {
    for frozen in all() {
        let pepper = &frozen.secrets["pepper"];
        let id = pepper["id"].as_u64().expect("it is a number") as u32;
        let peppers = Peppers::new(vec![Pepper::new(id, fixed(&pepper["key"]))]);
        let pepper = peppers.get(id).expect("it was put there");
        for secret in frozen.secrets["verifiers"].as_array().expect("a list") {
            let token = Token::parse(&string(&secret["token"])).expect("a token reads for ever");
            assert_eq!(token.reveal(), string(&secret["token"]));
            let version = secret["version"].as_u64().expect("it is a number") as u32;
            let verifier = pepper.verifier(token.key_id, version, &token.secret);
            assert_eq!(hex::encode(verifier), string(&secret["verifier"]));
            let salt: [u8; 32] = fixed(&secret["salt"]);
            let commitment = keyledger_ledger::secret::commitment(&salt, &verifier);
            assert!(
                signed_commitments(&frozen).contains(commitment.as_slice()),
                "version {version}"
            );
        }
    }
}

fn signed_commitments(frozen: &Frozen) -> BTreeSet<Vec<u8>> {
    let of = |found: &Found| match Event::from_signed(&found.entry.body).expect("it verifies").kind
    {
        Some(Kind::KeyCreated(created)) => created.version,
        Some(Kind::KeyRotated(rotated)) => rotated.version,
        Some(Kind::VerifierMigrated(migrated)) => migrated.version,
        _ => None,
    };
    frozen.entries.iter().filter_map(of).map(|version| version.verifier_commitment).collect()
}
