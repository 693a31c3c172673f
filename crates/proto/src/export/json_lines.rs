//! JSON Lines: an event with all that it takes to verify it alone, against the public keys of its ledger.
//!
//! A change or a recorded event: the signature over `entry.body` and the path of the entry to the checkpoint's root. A use:
//! the same of its page, and the path of the use (salt ‖ record) to the root that the page's body holds. The shown `event`
//! follows from the signed bytes and the opened texts, whose commitments stand in the signed bytes.
//!
//! The body of a page tells how often keys were used in all its uses. So it is given only to who may read both categories of
//! uses; for others a use stands without `entry`, and only the manifest vouches for it.

use base64::prelude::{BASE64_STANDARD, Engine};
use keyledger_ledger::body::{Event, Kind, Texts, Use, decode_canonical};
use keyledger_ledger::entry::{Entry, EntryError};
use keyledger_ledger::export::OpenedManifest;
use keyledger_ledger::id::Time;
use keyledger_ledger::merkle::Hash;
use keyledger_ledger::page::use_leaf;
use keyledger_ledger::proof::verify_inclusion;
use keyledger_ledger::text::Opened;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::event_json;
use crate::{AuditEvent, OpenedTexts, show};

/// What proves an event.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The entry, and its path to the root of the checkpoint.
    pub entry: Option<(Entry, Vec<Hash>)>,
    /// The use, if it is one.
    pub r#use: Option<UseEvidence>,
    /// Texts in the order of their commitments.
    pub opened: Vec<OpenedTexts>,
}

/// What proves a use in its page.
#[derive(Clone, Debug, Default)]
pub struct UseEvidence {
    /// A serialised Use.
    pub record: Vec<u8>,
    pub salt: Vec<u8>,
    /// Its path to the root of its page; empty where the page isn't given.
    pub path: Vec<Hash>,
}

/// Bytes, written as standard base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    pub leaf_hash: Base64,
    /// As lists and streams show it, by the proto JSON mapping.
    pub event: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryPart>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub r#use: Option<UsePart>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<OpenedPart>,
}

/// The signed entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPart {
    pub payload_type: String,
    /// A serialised keyledger.entry.v1.Event: the signed bytes.
    pub body: Base64,
    pub public_key_sha256: Base64,
    pub signature: Base64,
    /// From its leaf to the root of the checkpoint, lowest first (RFC 6962 §2.1.1).
    pub path: Vec<Base64>,
}

/// The use beside its page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsePart {
    /// A serialised keyledger.entry.v1.Use.
    pub record: Base64,
    pub salt: Base64,
    /// From its leaf to the root of its page, lowest first.
    pub path: Vec<Base64>,
}

/// Texts with the salt of their commitment; without a salt they couldn't be opened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenedPart {
    pub salt: Base64,
    /// A serialised keyledger.entry.v1.Texts.
    pub texts: Base64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("it can't be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("its leaf hash is not that of its entry")]
    LeafHash,
    #[error("its path does not lead from its entry to the root of the checkpoint")]
    Path,
    #[error("its use does not stand in its page")]
    Use,
    #[error("text {0} is not the one that was committed to")]
    Text(usize),
    #[error("what it shows is not what the signed bytes say")]
    Shown,
}

impl Line {
    pub fn new(event: &AuditEvent, evidence: Evidence) -> Line {
        let many = |hashes: Vec<Hash>| hashes.iter().map(|h| Base64(h.to_vec())).collect();
        Line {
            position: event.position.unwrap_or_default(),
            index: event.index,
            leaf_hash: Base64(event.leaf_hash.clone()),
            event: event_json(event),
            entry: evidence.entry.map(|(entry, path)| EntryPart {
                payload_type: entry.payload_type,
                body: Base64(entry.body),
                public_key_sha256: Base64(entry.public_key_sha256.to_vec()),
                signature: Base64(entry.signature.to_vec()),
                path: many(path),
            }),
            r#use: evidence.r#use.map(|u| UsePart {
                record: Base64(u.record),
                salt: Base64(u.salt),
                path: many(u.path),
            }),
            opened: evidence
                .opened
                .into_iter()
                .map(|o| OpenedPart { salt: Base64(o.salt), texts: Base64(o.texts) })
                .collect(),
        }
    }

    pub fn read(line: &[u8]) -> Result<Line, LineError> {
        serde_json::from_slice(line).map_err(|e| LineError::Unreadable(e.to_string()))
    }

    /// Checks the line against the keys and the checkpoint of a manifest. True if it carries its proof, false if only the
    /// manifest vouches for it.
    pub fn verify(&self, manifest: &OpenedManifest) -> Result<bool, LineError> {
        let Some(part) = &self.entry else { return Ok(false) };
        let entry = part.entry()?;
        let event = entry.open(std::slice::from_ref(&manifest.entry_key))?;
        let leaf = entry.leaf_hash();
        if self.leaf_hash.0 != leaf {
            return Err(LineError::LeafHash);
        }
        let (path, checkpoint) = (hashes(&part.path)?, &manifest.checkpoint);
        if !verify_inclusion(&leaf, self.position, checkpoint.size, &path, &checkpoint.root) {
            return Err(LineError::Path);
        }
        // Read as the line was: a number may lose its last bit in reading.
        let shown = event_json(&self.shown(&leaf, &event)?).to_string();
        match serde_json::from_str(&shown).is_ok_and(|shown: Value| shown == self.event) {
            true => Ok(true),
            false => Err(LineError::Shown),
        }
    }

    /// The event as it follows from the signed bytes and the opened texts.
    fn shown(&self, leaf: &Hash, event: &Event) -> Result<AuditEvent, LineError> {
        match (&event.kind, &self.r#use) {
            (Some(Kind::UsePage(page)), Some(part)) => {
                let (index, path) = (self.index.ok_or(LineError::Use)?, hashes(&part.path)?);
                let root = page.root.as_slice().try_into().map_err(|_| LineError::Use)?;
                let use_leaf = use_leaf(&part.salt.0, &part.record.0);
                let count = u64::from(page.count);
                if !verify_inclusion(&use_leaf, u64::from(index), count, &path, root) {
                    return Err(LineError::Use);
                }
                let u: Use = decode_canonical(&part.record.0, "Use").map_err(|_| LineError::Use)?;
                let texts = self.texts(&u.texts)?;
                let time = Time(event.time_us);
                Ok(show::use_event(self.position, index, time, leaf, page, &u, &texts))
            }
            (Some(Kind::UsePage(_)), None) | (_, Some(_)) => Err(LineError::Use),
            _ => Ok(show::entry_event(self.position, leaf, event, &self.texts(&event.texts)?)),
        }
    }

    fn texts(
        &self,
        committed: &[keyledger_ledger::body::SealedText],
    ) -> Result<Vec<Texts>, LineError> {
        if self.opened.len() != committed.len() {
            return Err(LineError::Text(self.opened.len().min(committed.len())));
        }
        let open = |(n, (part, text)): (usize, (&OpenedPart, _))| {
            if part.salt.0.is_empty() {
                return Ok(Texts::default());
            }
            let salt = part.salt.0.as_slice().try_into().map_err(|_| LineError::Text(n))?;
            let opened = Opened { salt, texts: part.texts.0.clone() };
            let texts = opened.matches(text).then(|| opened.decode()).flatten();
            texts.ok_or(LineError::Text(n))
        };
        self.opened.iter().zip(committed).enumerate().map(open).collect()
    }
}

impl EntryPart {
    fn entry(&self) -> Result<Entry, LineError> {
        let fixed = |what: &str| LineError::Unreadable(format!("its {what} has a wrong length"));
        let digest = self.public_key_sha256.0.as_slice().try_into();
        let signature = self.signature.0.as_slice().try_into();
        Ok(Entry {
            payload_type: self.payload_type.clone(),
            body: self.body.0.clone(),
            public_key_sha256: digest.map_err(|_| fixed("key digest"))?,
            signature: signature.map_err(|_| fixed("signature"))?,
        })
    }
}

fn hashes(path: &[Base64]) -> Result<Vec<Hash>, LineError> {
    let hash = |h: &Base64| h.0.as_slice().try_into().map_err(|_| LineError::Path);
    path.iter().map(hash).collect()
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Base64).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use keyledger_ledger::body::{RoleCreated, SealedText};
    use keyledger_ledger::entry::EntrySigner;
    use keyledger_ledger::export::ExportManifest;
    use keyledger_ledger::merkle::root_of;
    use keyledger_ledger::note::{Checkpoint, NoteKey};
    use keyledger_ledger::page::PageWriter;
    use keyledger_ledger::proof::inclusion;
    use keyledger_ledger::text::commitment;
    use keyledger_ledger::tree::Tree;
    use prost::Message;

    use super::*;

    fn text(reason: &str) -> (SealedText, OpenedTexts) {
        let texts = Texts { reason: reason.into(), ..Texts::default() }.encode_to_vec();
        let commitment = commitment(&[9; 32], &texts).to_vec();
        let sealed = SealedText { subject_ref: vec![8; 16], commitment };
        (sealed, OpenedTexts { salt: vec![9; 32], texts })
    }

    fn a_use(method: &str) -> Use {
        let texts = vec![text("nightly").0];
        Use { method: method.into(), texts, ..Use::default() }
    }

    /// A manifest of a ledger with a role and a page of three uses, and a line about each of them but the last.
    fn sample() -> (OpenedManifest, Vec<Line>) {
        let signer = EntrySigner::new(SigningKey::from_bytes(&[1; 32]));
        let mut page = PageWriter::default();
        let uses = ["KeyService/WhoAmI", "KeyService/ListKeys", "KeyService/GetKey"].map(a_use);
        let leaf = |u: &Use| use_leaf(&[3; 16], &u.encode_to_vec());
        let tree = Tree::new(uses.iter().map(leaf).collect());
        for u in &uses {
            page.add(u, [3; 16], vec![vec![]]);
        }
        let page = page.finish(0, Time(5), 0, vec![], vec![], vec![]).0;
        let role = Kind::RoleCreated(RoleCreated { name: "ops".into(), ..RoleCreated::default() });
        let signed = |kind, texts| {
            let event = Event { time_us: 5, texts, kind: Some(kind), ..Event::default() };
            (signer.sign(event.encode_to_vec()).unwrap(), event)
        };
        let (role, role_event) = signed(role, vec![text("why").0]);
        let (page_entry, _) = signed(Kind::UsePage(page.clone()), vec![]);
        let leaves = [role.leaf_hash(), page_entry.leaf_hash()];
        let opened = |reason: &str| vec![text(reason).1];
        let decoded = |reason: &str| vec![Texts { reason: reason.into(), ..Texts::default() }];
        let event = show::entry_event(0, &leaves[0], &role_event, &decoded("why"));
        let path = |n: u64| inclusion(&leaves, n).unwrap();
        let entry = Some((role, path(0)));
        let mut lines =
            vec![Line::new(&event, Evidence { entry, r#use: None, opened: opened("why") })];
        for (index, u) in uses.iter().enumerate().take(2) {
            let texts = decoded("nightly");
            let event = show::use_event(1, index as u32, Time(5), &leaves[1], &page, u, &texts);
            let (record, path_in_page) = (u.encode_to_vec(), tree.path(index).unwrap());
            let part = UseEvidence { record, salt: vec![3; 16], path: path_in_page };
            let entry = Some((page_entry.clone(), path(1)));
            let opened = opened("nightly");
            lines.push(Line::new(&event, Evidence { entry, r#use: Some(part), opened }));
        }
        let origin = "keys.example/main";
        let key = SigningKey::from_bytes(&[2; 32]).verifying_key();
        let manifest = OpenedManifest {
            manifest: ExportManifest::default(),
            entry_key: signer.public_key(),
            checkpoint_key: NoteKey::new(origin, key).unwrap(),
            checkpoint: Checkpoint { origin: origin.into(), size: 2, root: root_of(&leaves) },
        };
        (manifest, lines)
    }

    #[test]
    fn a_line_is_verified_alone_as_it_is_read() {
        let (manifest, lines) = sample();
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(Line::read(text.as_bytes()).unwrap().verify(&manifest), Ok(true), "{text}");
            let unproved = Line { entry: None, ..line };
            assert_eq!(unproved.verify(&manifest), Ok(false));
        }
    }

    #[test]
    fn nothing_of_a_line_can_be_changed() {
        let (manifest, lines) = sample();
        type Change = fn(&mut Line);
        let of_both: [Change; 9] = [
            |l| l.position += 1,
            |l| l.leaf_hash.0[0] ^= 1,
            |l| l.event["reason"] = "another".into(),
            |l| l.event["type"] = "key.created".into(),
            |l| l.entry.as_mut().unwrap().body.0[0] ^= 1,
            |l| l.entry.as_mut().unwrap().signature.0[0] ^= 1,
            |l| l.entry.as_mut().unwrap().path[0].0[0] ^= 1,
            |l| l.opened[0].texts.0[3] ^= 1,
            |l| drop(l.opened.pop()),
        ];
        let of_uses: [Change; 5] = [
            |l| l.index = Some(2),
            |l| l.r#use.as_mut().unwrap().record.0[3] ^= 1,
            |l| l.r#use.as_mut().unwrap().salt.0[0] ^= 1,
            |l| drop(l.r#use.as_mut().unwrap().path.pop()),
            |l| l.r#use = None,
        ];
        for (n, line) in lines.iter().enumerate() {
            let changes = of_both.iter().chain(of_uses.iter().filter(|_| n > 0));
            for (c, change) in changes.enumerate() {
                let mut changed = line.clone();
                change(&mut changed);
                assert!(changed.verify(&manifest).is_err(), "line {n}, change {c}");
            }
            // An erased text shows nothing: what it was can't be made up.
            let mut erased = line.clone();
            erased.opened[0] = OpenedPart { salt: Base64::default(), texts: Base64::default() };
            assert_eq!(erased.verify(&manifest), Err(LineError::Shown));
        }
    }
}
