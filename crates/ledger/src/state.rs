//! State: what the entries of a ledger add up to. State = fold(entries), at an exact position.
//!
//! The maps share structure, so a clone costs nothing: the sequencer works on a clone and swaps it in after COMMIT, and a
//! reader holds a consistent snapshot for as long as it likes.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use imbl::OrdMap;

use crate::body::{self, RevocationKind};
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::merkle::Hash;
use crate::restrict::{Restrictions, Used};
use crate::secret::Verifier;

#[derive(Clone, Default)]
pub struct State {
    /// `None` before position 0.
    pub ledger: Option<Arc<LedgerInfo>>,
    /// The position that the next entry will have: how many entries were applied.
    pub next_position: u64,
    /// Time of the newest entry.
    pub newest_time: Time,
    /// The number that the next page of uses will have.
    pub next_page: u64,
    /// The number that the next start of a server will have.
    pub next_start: u64,
    pub keys: OrdMap<KeyId, Arc<Key>>,
    pub roles: OrdMap<Arc<str>, Arc<Role>>,
    /// Ledgers that were promised; only in the system ledger.
    pub registered: OrdMap<LedgerNumber, Arc<RegisteredLedger>>,
    /// What secrets are checked against. Not from the entries: they hold commitments to these.
    pub verifiers: OrdMap<(KeyId, u32), Verifier>,
}

/// What position 0 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerInfo {
    pub id: [u8; 16],
    pub epoch: u32,
    pub number: LedgerNumber,
    pub name: String,
    pub origin: String,
    pub entry_key: VerifyingKey,
    pub checkpoint_key: VerifyingKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredLedger {
    pub id: [u8; 16],
    pub number: LedgerNumber,
    pub name: String,
    pub origin: String,
    /// Position of the entry that registered it.
    pub position: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Random reference to a person.
    User([u8; 16]),
    Service(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: KeyId,
    pub owner: Owner,
    /// The key that created it; `None` if Keyledger itself did.
    pub creator: Option<KeyId>,
    pub grants: Box<[Grant]>,
    pub roles: Box<[Arc<str>]>,
    pub created: Time,
    pub expires: Option<Time>,
    /// Since when it is suspended, if it is.
    pub suspended: Option<Time>,
    pub revoked: Option<Revoked>,
    /// `None` where nothing is restricted: most keys.
    pub restrictions: Option<Box<Restrictions>>,
    /// How often it was used, if its uses are limited.
    pub used: Option<Box<Used>>,
    /// In the order of their names, each once.
    pub labels: Box<[Label]>,
    /// Random reference to the person responsible for a service's key.
    pub responsible: Option<[u8; 16]>,
    /// The newest secret, and the one before it as long as it may still live. Oldest first, one or two.
    pub versions: Vec<Version>,
    pub stream_version: u32,
    /// Leaf hash of the newest lifecycle entry.
    pub leaf_hash: Hash,
    /// Position of the newest lifecycle entry.
    pub position: u64,
    /// Position of the entry that created it, where its owner's name lies.
    pub created_position: u64,
    /// Position of the entry in whose texts its purpose lies.
    pub purpose_position: u64,
    /// Position of the entry in whose texts the name of the responsible person lies.
    pub responsible_position: u64,
}

/// A name and a value by which people find keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub name: Box<str>,
    pub value: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub kind: RevocationKind,
    pub time: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: u32,
    pub created: Time,
    /// When it stops being accepted, if that is before the key itself ends.
    pub expires: Option<Time>,
    pub commitment: Hash,
    pub pepper_id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    pub name: Arc<str>,
    pub grants: Box<[Grant]>,
    pub created: Time,
    /// Since when it gives nothing any more.
    pub retired: Option<Time>,
    /// Position of its newest entry.
    pub position: u64,
    /// Leaf hash of its newest entry.
    pub leaf_hash: Hash,
    /// Position of the entry in whose texts its description lies.
    pub described_position: u64,
}

impl Label {
    pub fn from_body(label: &body::Label) -> Label {
        Label { name: label.name.as_str().into(), value: label.value.as_str().into() }
    }

    pub fn to_body(&self) -> body::Label {
        body::Label { name: self.name.to_string(), value: self.value.to_string() }
    }
}

/// Where a key stands at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    Active,
    Suspended,
    Revoked,
    Expired,
}

impl Key {
    /// Expiry is judged when it is asked for: no entry is needed for a key to end on time.
    pub fn status(&self, now: Time) -> KeyStatus {
        match (self.revoked, self.expires) {
            (Some(_), _) => KeyStatus::Revoked,
            (None, Some(end)) if end <= now => KeyStatus::Expired,
            (None, _) if self.suspended.is_some() => KeyStatus::Suspended,
            (None, _) => KeyStatus::Active,
        }
    }

    /// What an update must name to be made only if nothing has changed in between (AIP-154).
    pub fn etag(&self) -> String {
        etag(&self.leaf_hash)
    }

    pub fn newest_version(&self) -> &Version {
        self.versions.last().expect("a key has at least one version from its creation on")
    }
}

impl Role {
    /// What an update must name to be made only if nothing has changed in between (AIP-154).
    pub fn etag(&self) -> String {
        etag(&self.leaf_hash)
    }
}

fn etag(leaf_hash: &Hash) -> String {
    leaf_hash[..8].iter().map(|b| format!("{b:02x}")).collect()
}

impl State {
    /// Everything except the verifiers, which entries don't hold: whether two states fold from the same entries.
    pub fn same_fold(&self, other: &State) -> bool {
        self.ledger == other.ledger
            && self.next_position == other.next_position
            && self.newest_time == other.newest_time
            && (self.next_page, self.next_start) == (other.next_page, other.next_start)
            && self.keys == other.keys
            && self.roles == other.roles
            && self.registered == other.registered
    }
}
