//! State: what the entries of a ledger add up to. State = fold(entries), at an exact position.
//!
//! The maps share structure, so a clone costs nothing: the sequencer works on a clone and swaps it in after COMMIT, and a
//! reader holds a consistent snapshot for as long as it likes.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use imbl::{OrdMap, OrdSet};

use crate::anomaly::Anomalies;
use crate::body::{self, RevocationKind};
use crate::bounded::Serving;
use crate::category::CategoryCounts;
use crate::command::DAY;
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time};
use crate::imported::{Digest, Imported, Lookup, MAX_PREFIX_LENGTHS};
use crate::merkle::Hash;
use crate::policy::{CurrentPolicy, Rotation};
use crate::producer::Producer;
use crate::reports::Sessions;
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
    /// The number that the next event of another service will have.
    pub next_event: u64,
    /// The number that the next start of a server will have.
    pub next_start: u64,
    /// How many events of each category there are.
    pub counts: CategoryCounts,
    pub keys: OrdMap<KeyId, Arc<Key>>,
    /// What keys and changes must keep to.
    pub policy: Arc<CurrentPolicy>,
    /// Replicas that answer from memory.
    pub servings: OrdMap<[u8; 16], Serving>,
    /// Services that report uses which they answered by themselves.
    pub sessions: Sessions,
    /// When something is next to be noted of a key. Follows from keys, roles and policy.
    pub due: OrdSet<(Time, KeyId)>,
    /// Roles or policy were changed: what is due must be looked for anew, once for all such changes.
    pub(crate) due_unknown: bool,
    /// Grants that keys share: most keys of a ledger may do the same as many others.
    pub(crate) shared_grants: OrdMap<Arc<[Grant]>, Arc<[Grant]>>,
    pub roles: OrdMap<Arc<str>, Arc<Role>>,
    /// What services registered in the catalogue of permissions, by prefix.
    pub permissions: OrdMap<Arc<str>, Arc<RegisteredPermissions>>,
    /// The public keys by which those who record events sign them, by the key that registered them.
    pub producers: OrdMap<KeyId, Arc<Producer>>,
    /// Unusual use that goes on.
    pub anomalies: Anomalies,
    /// Owners who have left, and since when that is known.
    pub left: OrdMap<Owner, Time>,
    /// When findings were last counted.
    pub digested: Option<Time>,
    /// Ledgers that were promised; only in the system ledger.
    pub registered: OrdMap<LedgerNumber, Arc<RegisteredLedger>>,
    /// What secrets are checked against. Not from the entries: they hold commitments to these.
    pub verifiers: OrdMap<(KeyId, u32), Verifier>,
    /// Imported keys by what they are found by, for ever. Follows from the keys.
    pub imported: OrdMap<Lookup, KeyId>,
    /// How long the clear prefixes of imported keys are; at most eight lengths. Follows from the keys.
    pub prefix_lengths: OrdSet<u8>,
    /// What imported secrets are checked against until their first use. Not from the entries, as the verifiers.
    pub digests: OrdMap<KeyId, Arc<Digest>>,
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

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Shared by all keys with the same ones.
    pub grants: Arc<[Grant]>,
    pub roles: Box<[Arc<str>]>,
    pub created: Time,
    pub expires: Option<Time>,
    /// What is to be noted of its end up to this time was noted, or was past when its end was set.
    pub noted: Time,
    /// How old its secrets may grow, besides what its roles say.
    pub rotation: Option<Box<Rotation>>,
    /// The newest version of whose age was noted, and that for which it was suspended; 0 for none.
    pub rotation_noted: u32,
    pub rotation_suspended: u32,
    /// The version before the newest ends as soon as the newest is used.
    pub until_first_use: bool,
    pub suspension: Suspension,
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
    /// What its first secret is found by, if the key was made elsewhere: few were.
    pub imported: Option<Box<Imported>>,
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

/// Whether a key is suspended, or was. As large as a time that may be absent: there are very many keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suspension {
    #[default]
    Never,
    /// It is, since then; for not having been used, if `idle`.
    Since { time: Time, idle: bool },
    /// It was, and is accepted again since then.
    Resumed(Time),
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
    /// How old the secrets of its holders may grow.
    pub rotation: Option<Rotation>,
    /// How old an answer from memory about what it allows may be, in microseconds; 0: none may be.
    pub max_staleness: i64,
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

/// All permissions under one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredPermissions {
    pub prefix: Arc<str>,
    /// In order, each once.
    pub names: Box<[Box<str>]>,
    /// Whose keys may register them again.
    pub owner: Owner,
    /// Position of the entry in whose texts the sentences lie.
    pub position: u64,
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

/// What is to be noted of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueNote {
    /// Its end is so many days away, or fewer.
    Expiring {
        days: u32,
    },
    Expired,
    /// This version of its secret is older than a policy allows.
    RotationDue {
        version: u32,
    },
    /// This version of its secret is so much older that a policy suspends the key.
    Overdue {
        version: u32,
    },
}

/// Most sets of grants that are kept to be shared.
const MAX_SHARED: usize = 16_384;

impl Key {
    /// When the next thing is to be noted of its end.
    fn next_end_note(&self, notice_days: &[u32]) -> Option<Time> {
        let end = self.expires.filter(|_| self.revoked.is_none())?;
        let distances = notice_days.iter().map(|days| i64::from(*days) * DAY).chain([0]);
        distances.map(|distance| end.plus_micros(-distance)).find(|due| *due > self.noted)
    }

    /// The nearest distance from its end that was reached: farther ones need no note of their own any more.
    fn end_note(&self, notice_days: &[u32], now: Time) -> Option<DueNote> {
        let end = self.expires?;
        if end <= now {
            return Some(DueNote::Expired);
        }
        let reached = |days: &&u32| end.plus_micros(-i64::from(**days) * DAY) <= now;
        notice_days.iter().rfind(reached).map(|days| DueNote::Expiring { days: *days })
    }

    /// Expiry is judged when it is asked for: no entry is needed for a key to end on time.
    pub fn status(&self, now: Time) -> KeyStatus {
        match (self.revoked, self.expires) {
            (Some(_), _) => KeyStatus::Revoked,
            (None, Some(end)) if end <= now => KeyStatus::Expired,
            (None, _) if self.suspended().is_some() => KeyStatus::Suspended,
            (None, _) => KeyStatus::Active,
        }
    }

    /// Since when it is suspended, if it is.
    pub fn suspended(&self) -> Option<Time> {
        match self.suspension {
            Suspension::Since { time, .. } => Some(time),
            Suspension::Never | Suspension::Resumed(_) => None,
        }
    }

    /// What an update must name to be made only if nothing has changed in between (AIP-154).
    pub fn etag(&self) -> String {
        etag(&self.leaf_hash)
    }

    /// Whether this version of its secret wasn't rotated away.
    pub fn accepts(&self, version: u32, now: Time) -> bool {
        let live = |v: &Version| v.number == version && v.expires.is_none_or(|end| now < end);
        self.versions.iter().any(live)
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

pub(crate) fn etag(leaf_hash: &Hash) -> String {
    leaf_hash[..8].iter().map(|b| format!("{b:02x}")).collect()
}

impl State {
    /// How many entries are changes: the others have numbers of their own, without gaps.
    pub fn changes(&self) -> u64 {
        self.next_position - self.next_page - self.next_event - self.counts.next_number
    }

    /// Whether findings are to be counted, as the policy says.
    pub fn digest_is_due(&self, now: Time) -> bool {
        let interval = i64::from(self.policy.policy.digest_days) * DAY;
        interval != 0 && self.digested.is_none_or(|last| last.plus_micros(interval) <= now)
    }

    /// When the next thing is to be noted of a key.
    pub fn next_due(&self, key: &Key) -> Option<Time> {
        let end = key.next_end_note(&self.policy.policy.notice_days);
        let rotation = self.next_rotation_note(key).map(|(due, _)| due);
        [end, rotation].into_iter().flatten().min()
    }

    /// What is to be noted of a key at this time; the earliest first.
    pub fn due_note(&self, key: &Key, now: Time) -> Option<DueNote> {
        let notice_days = &self.policy.policy.notice_days;
        let end = key.next_end_note(notice_days).filter(|due| *due <= now);
        let rotation = self.next_rotation_note(key).filter(|(due, _)| *due <= now);
        let active = key.status(now) == KeyStatus::Active;
        match (end, rotation.filter(|_| active)) {
            (Some(end), Some((due, note))) if due < end => Some(note),
            (Some(_), _) => key.end_note(notice_days, now),
            (None, rotation) => rotation.map(|(_, note)| note),
        }
    }

    /// What is next to be noted of the age of a key's secret, and when. The strictest policy counts, of its own and its
    /// roles'; nothing is noted of a key that isn't accepted anyway.
    fn next_rotation_note(&self, key: &Key) -> Option<(Time, DueNote)> {
        if key.revoked.is_some() || key.suspended().is_some() {
            return None;
        }
        let Version { number: version, created: made, .. } = *key.newest_version();
        let due = self.rotation_due(key).filter(|_| key.rotation_noted < version);
        let overdue = self
            .rotations(key)
            .filter_map(|rotation| rotation.overdue(made))
            .min()
            .filter(|_| key.rotation_suspended < version);
        let next = due
            .map(|due| (due, DueNote::RotationDue { version }))
            .or(overdue.map(|overdue| (overdue, DueNote::Overdue { version })));
        next.filter(|(due, _)| key.expires.is_none_or(|end| *due < end && key.noted < end))
    }

    /// When the newest secret of a key is, or was, older than a policy allows.
    pub fn rotation_due(&self, key: &Key) -> Option<Time> {
        let made = key.newest_version().created;
        self.rotations(key).map(|rotation| rotation.due(made)).min()
    }

    /// What is said about the age of a key's secrets: its own policy, and those of its roles.
    fn rotations(&self, key: &Key) -> impl Iterator<Item = Rotation> {
        let live = |name: &Arc<str>| self.roles.get(name).filter(|role| role.retired.is_none());
        let of_roles = key.roles.iter().filter_map(live).filter_map(|role| role.rotation);
        key.rotation.as_deref().copied().into_iter().chain(of_roles)
    }

    /// Roles or policy were changed: what is due isn't known until it is looked for.
    pub(crate) fn forget_due(&mut self) {
        self.due_unknown = true;
    }

    /// Looks for all that is due, if roles or policy were changed. Costs a look at every key, and is seldom.
    pub fn find_due(&mut self) {
        if !std::mem::take(&mut self.due_unknown) {
            return;
        }
        let due = |key: &Arc<Key>| Some((self.next_due(key)?, key.id));
        self.due = self.keys.values().filter_map(due).collect();
    }

    /// The only way in which a key is put into the state: what is due and what is imported follow, and equal grants are shared.
    pub fn put_key(&mut self, mut key: Key) {
        match self.shared_grants.get(&key.grants) {
            Some(shared) => key.grants = shared.clone(),
            None if self.shared_grants.len() < MAX_SHARED => {
                self.shared_grants.insert(key.grants.clone(), key.grants.clone());
            }
            None => {}
        }
        let id = key.id;
        if let Some(imported) = &key.imported {
            self.imported.insert(imported.lookup, id);
            if imported.prefix_length != 0 {
                self.prefix_lengths.insert(imported.prefix_length);
            }
        }
        let old = self.keys.get(&id).and_then(|k| self.next_due(k));
        let new = self.next_due(&key);
        if old != new && !self.due_unknown {
            old.map(|due| self.due.remove(&(due, id)));
            new.map(|due| self.due.insert((due, id)));
        }
        self.keys.insert(id, Arc::new(key));
    }

    /// Whether another clear prefix may be that long; 0 stands for none.
    pub fn takes_prefix_length(&self, length: u8) -> bool {
        let full = self.prefix_lengths.len() >= MAX_PREFIX_LENGTHS;
        length == 0 || !full || self.prefix_lengths.contains(&length)
    }

    /// Everything except verifiers and digests, which entries don't hold: whether two states fold from the same entries.
    pub fn same_fold(&self, other: &State) -> bool {
        self.ledger == other.ledger
            && self.next_position == other.next_position
            && self.newest_time == other.newest_time
            && (self.next_page, self.next_start) == (other.next_page, other.next_start)
            && self.next_event == other.next_event
            && self.counts == other.counts
            && self.keys == other.keys
            && self.due == other.due
            && self.policy == other.policy
            && self.servings == other.servings
            && self.sessions == other.sessions
            && self.imported == other.imported
            && self.roles == other.roles
            && self.permissions == other.permissions
            && self.producers == other.producers
            && self.anomalies == other.anomalies
            && self.left == other.left
            && self.digested == other.digested
            && self.registered == other.registered
    }
}
