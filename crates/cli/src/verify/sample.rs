//! A small signed ledger for tests: its opening, a role with a text, and a page with one use.

use ed25519_dalek::SigningKey;
use keyledger_ledger::body::{
    Decision, DecisionReason, Event, Grant, Kind, LedgerOpened, RoleCreated, SealedText, Texts, Use,
};
use keyledger_ledger::entry::EntrySigner;
use keyledger_ledger::id::Time;
use keyledger_ledger::note::{self, Checkpoint};
use keyledger_ledger::page::PageWriter;
use keyledger_ledger::text::commitment;
use keyledger_proto::{OpenedTexts, RawEntry};
use prost::Message;

use super::walk::Walk;

pub(super) const ORIGIN: &str = "keys.example/main";

pub(super) fn checkpoint_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

/// The entries at positions 0, 1 and 2.
pub(super) fn entries() -> Vec<RawEntry> {
    let role = (Kind::RoleCreated(role()), vec![text("why")], vec![], vec![opened("why")]);
    let (page, column) = page();
    let page = (Kind::UsePage(page), vec![], column, vec![opened("nightly")]);
    let opening = (Kind::LedgerOpened(opening()), vec![], vec![], vec![]);
    [opening, role, page]
        .into_iter()
        .map(|(kind, texts, uses, opened)| raw(kind, texts, uses, opened))
        .collect()
}

/// A signed checkpoint of the first `size` entries.
pub(super) fn checkpoint(size: usize) -> String {
    let mut walk = Walk::default();
    for (position, raw) in entries().into_iter().take(size).enumerate() {
        walk.push(position as u64, raw).expect("the sample is good");
    }
    let root = walk.finish().verifier.root();
    note::sign(&Checkpoint { origin: ORIGIN.into(), size: size as u64, root }, &checkpoint_key())
}

fn raw(kind: Kind, texts: Vec<SealedText>, uses: Vec<u8>, opened: Vec<OpenedTexts>) -> RawEntry {
    let event =
        Event { ledger_id: vec![7; 16], time_us: 5, texts, kind: Some(kind), ..Event::default() };
    let entry = signer().sign(event.encode_to_vec()).expect("the sample is small");
    RawEntry {
        payload_type: entry.payload_type,
        body: entry.body,
        public_key_sha256: entry.public_key_sha256.to_vec(),
        signature: entry.signature.to_vec(),
        uses,
        opened,
    }
}

fn signer() -> EntrySigner {
    EntrySigner::new(SigningKey::from_bytes(&[1; 32]))
}

fn opening() -> LedgerOpened {
    LedgerOpened {
        name: "main".into(),
        number: 1,
        origin: ORIGIN.into(),
        entry_public_key: signer().public_key().to_bytes().to_vec(),
        checkpoint_public_key: checkpoint_key().verifying_key().to_bytes().to_vec(),
    }
}

fn role() -> RoleCreated {
    let grant = Grant {
        permissions: vec!["audit.read".into()],
        resource: "logs/**".into(),
        give_only: false,
    };
    RoleCreated { name: "reader".into(), grants: vec![grant], ..Default::default() }
}

fn page() -> (keyledger_ledger::body::UsePage, Vec<u8>) {
    let refused = Use {
        method: "KeyService/WhoAmI".into(),
        decision: Decision::Deny as i32,
        reason: DecisionReason::Missing as i32,
        texts: vec![text("nightly")],
        ..Use::default()
    };
    let mut page = PageWriter::default();
    page.add(&refused, [3; 16], vec![vec![0; 60]]);
    page.finish(0, Time(5), 0, vec![], vec![], vec![])
}

fn opened(reason: &str) -> OpenedTexts {
    let texts = Texts { reason: reason.into(), ..Texts::default() };
    OpenedTexts { salt: vec![9; 32], texts: texts.encode_to_vec() }
}

fn text(reason: &str) -> SealedText {
    let commitment = commitment(&[9; 32], &opened(reason).texts);
    SealedText { subject_ref: vec![8; 16], commitment: commitment.to_vec() }
}
