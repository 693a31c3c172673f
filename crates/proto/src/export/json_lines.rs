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
            (Some(Kind::EventRecorded(_)), None) => {
                Ok(show::recorded_event(self.position, leaf, event, &self.texts(&event.texts)?))
            }
            _ => Ok(show::change_event(self.position, leaf, event, &self.texts(&event.texts)?)),
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
