//! State: what the entries of a ledger add up to. State = fold(entries), at an exact position.
//!
//! The maps share structure, so a clone costs nothing: the sequencer works on a clone and swaps it in after COMMIT, and a
//! reader holds a consistent snapshot for as long as it likes.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use imbl::OrdMap;

use crate::body::RevocationKind;
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::merkle::Hash;
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
    pub revoked: Option<Revoked>,
    /// The newest secret, and the one before it as long as it may still live. Oldest first, one or two.
    pub versions: Vec<Version>,
    pub stream_version: u32,
    /// Leaf hash of the newest lifecycle entry.
    pub leaf_hash: Hash,
    /// Position of the newest lifecycle entry.
    pub position: u64,
    /// Position of the entry that created it, where its texts lie.
    pub created_position: u64,
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
    pub position: u64,
}

/// Where a key stands at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStatus {
    Active,
    Revoked,
    Expired,
}

impl Key {
    /// Expiry is judged when it is asked for: no entry is needed for a key to end on time.
    pub fn status(&self, now: Time) -> KeyStatus {
        match (self.revoked, self.expires) {
            (Some(_), _) => KeyStatus::Revoked,
            (None, Some(end)) if end <= now => KeyStatus::Expired,
            (None, _) => KeyStatus::Active,
        }
    }

    pub fn newest_version(&self) -> &Version {
        self.versions.last().expect("a key has at least one version from its creation on")
    }
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
