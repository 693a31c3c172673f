//! Commands: what callers ask of a ledger, as values. Everything slow or random about them (parsing, digests, sealing, new
//! secrets) has been done before; what is left is decided under the lock.

mod refusal;

use core::net::IpAddr;
use std::sync::Arc;

use prost::Message;

use crate::anomaly::AnomalyChange;
use crate::body::{DecisionReason, EventRecorded, FindingCount, RevocationKind};
use crate::bounded::BoundedUse;
use crate::grant::Grant;
use crate::id::{KeyId, LedgerNumber, Time, Trace};
use crate::imported::NewImport;
use crate::judge::Credential;
use crate::page::UseSalt;
use crate::policy::{CurrentPolicy, Policy, Rotation};
use crate::reports::{Claim, Report};
use crate::restrict::{RestrictionChange, Restrictions};
use crate::state::{Key, Label, Owner, RegisteredPermissions, Role};
use crate::text::Sealed;
use crate::token::Secret;

pub use refusal::Refusal;

pub const SECOND: i64 = Time::MICROS_PER_SECOND;
pub const DAY: i64 = 24 * 60 * 60 * SECOND;
/// How far ahead of now an event of another service may have happened: clocks differ.
pub const MAX_AHEAD: i64 = 300 * SECOND;
/// Permission to create a key that never expires.
pub const WITHOUT_EXPIRY: &str = "keys.create-without-expiry";
/// Permission to be told why exactly a key is not valid.
pub const EXPLAIN: &str = "keys.explain";
/// Permission to move the end of a key's life to a later time.
pub const EXTEND: &str = "keys.extend";
/// Permission to end a key. Each key may end itself without it.
pub const REVOKE: &str = "keys.revoke";

/// One call, as the sequencer takes it.
#[derive(Clone, Debug)]
pub struct Command {
    pub call: Call,
    pub action: Action,
}

/// Who calls, and what the call needs.
#[derive(Clone, Debug)]
pub struct Call {
    pub credential: Credential,
    /// Such as `KeyService/CreateKey`.
    pub method: &'static str,
    /// Empty: any valid key may call.
    pub permission: &'static str,
    /// On what. Ends in `/**` if the call needs the permission on something below.
    pub resource: String,
    pub trace: Trace,
    /// The address it came from, if it came over a network.
    pub peer: Option<IpAddr>,
    pub request: Option<RequestId>,
    /// A key that whoever sealed the texts didn't know. If it is there after all, nothing is done and [`Answer::Seen`] says
    /// so: what is said about its owner must be sealed under the owner's key.
    pub unseen: Option<KeyId>,
    /// Texts about the caller, such as its network address.
    pub texts: Vec<Sealed>,
    /// For the leaf of the use that this call leaves.
    pub salt: UseSalt,
}

/// Makes a retry safe: the same id with the same request is answered as before (AIP-155).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub id: [u8; 16],
    /// SHA-256 over method and request.
    pub digest: [u8; 32],
}

#[derive(Clone, Debug)]
pub enum Action {
    /// Reads something, after this use of the caller's key is durable, or before the answer leaves. `returned` is how many
    /// events of the log it gives.
    Read {
        returned: Option<u64>,
    },
    /// Asks only whether the caller stands. A caller who doesn't leaves a use; one who does leaves it with its real call.
    Authenticate,
    /// A call that was refused before it came here; leaves a use.
    Refuse(DecisionReason),
    Verify(Box<Check>),
    /// Keyledger itself: records a use that was answered from memory.
    Record(Box<BoundedUse>),
    /// Uses that the caller answered by itself.
    Report(Box<Report>),
    Change(Box<Change>),
    /// All of these events are recorded, or none. Each has a call of its own: its category, trace and request id.
    RecordAll(Vec<(Call, Change)>),
}

/// The question of VerifyKey.
#[derive(Clone, Debug)]
pub struct Check {
    pub credential: Credential,
    pub permission: String,
    pub resource: String,
    pub audience: String,
    /// The address that the token was presented from, as the caller saw it.
    pub address: Option<IpAddr>,
    /// For how long the caller wants to keep the answer, in microseconds; 0: not at all.
    pub keep: i64,
    /// Texts about the client whose token is checked.
    pub texts: Vec<Sealed>,
}

/// A change, with the texts that belong to its entry.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: ChangeKind,
    pub texts: Vec<Sealed>,
    /// A ticket or change id; empty for none.
    pub approval_ref: String,
    /// Only says what would become of it (AIP-163): nothing is changed, and the caller's use is recorded.
    pub validate_only: bool,
}

impl Change {
    pub fn new(kind: ChangeKind, texts: Vec<Sealed>) -> Change {
        Change { kind, texts, approval_ref: String::new(), validate_only: false }
    }
}

#[derive(Clone, Debug)]
pub enum ChangeKind {
    OpenLedger(OpenLedger),
    RegisterLedger(RegisterLedger),
    StartServer {
        version: String,
        configuration_digest: [u8; 32],
    },
    CreateKey(CreateKey),
    RotateKey(RotateKey),
    RevokeKey {
        key_id: KeyId,
        kind: RevocationKind,
    },
    UpdateKey(UpdateKey),
    SuspendKey {
        key_id: KeyId,
    },
    ResumeKey {
        key_id: KeyId,
    },
    /// Keyledger itself: a replica begins to answer from memory, or goes on to.
    StartBounded {
        serving: [u8; 16],
        until: Time,
    },
    /// Keyledger itself: it has stopped to, after so many uses.
    EndBounded {
        serving: [u8; 16],
        uses: u64,
    },
    /// Keyledger itself: notes what is due of a key, such as its end.
    NoteDue {
        key_id: KeyId,
    },
    /// What becomes of unusual use.
    Anomaly(AnomalyChange),
    /// Keyledger itself: suspends or revokes a key that was not used since a time, as the policy asks.
    NoteIdle {
        key_id: KeyId,
        idle_since: Time,
    },
    /// Owners of keys have left, or are back.
    SetOwnerStatus {
        owner: Owner,
        left: bool,
    },
    SignReview(SignReview),
    /// Keyledger itself: tells how many events of each category there are. The salts are made from the seed.
    CountCategories {
        seed: [u8; 32],
    },
    /// Keyledger itself: counts what is to be tidied up, as of just before a position. In the order of their names, each once.
    DigestFindings {
        findings: Vec<FindingCount>,
        as_of: u64,
    },
    /// Keyledger itself: a receiver of notices has them.
    NoteDelivery(NoteDelivery),
    CreateRole {
        name: String,
        grants: Vec<Grant>,
        rotation: Option<Rotation>,
        max_staleness: i64,
    },
    UpdateRole(UpdateRole),
    UpdatePolicy(UpdatePolicy),
    /// What happened in another service. Its personal parts lie in the texts.
    RecordEvent(Box<EventRecorded>),
    /// All public keys by which the caller signs what it records, from now on.
    RegisterProducerKeys {
        public_keys: Vec<Vec<u8>>,
    },
    RetireRole {
        name: String,
        etag: String,
    },
    /// All permissions under a prefix, in order, each once. The sentences lie in the texts.
    RegisterPermissions {
        prefix: String,
        names: Vec<String>,
    },
}

/// What a receiver of notices has.
#[derive(Clone, Debug)]
pub struct NoteDelivery {
    pub receiver: String,
    /// Rising.
    pub positions: Vec<u64>,
    /// How often sending had failed before.
    pub failures: u32,
    pub body_sha256: [u8; 32],
}

/// A new secret for a key.
#[derive(Clone, Debug)]
pub struct RotateKey {
    pub key_id: KeyId,
    pub overlap_micros: i64,
    /// The old secret ends as soon as the new one is used.
    pub until_first_use: bool,
    pub secret: NewSecret,
}

/// What is to be changed of a key; `None` stays as it is.
#[derive(Clone, Debug)]
pub struct UpdateKey {
    pub key_id: KeyId,
    /// Empty: whatever the key is now.
    pub etag: String,
    /// What was asked for, as field paths of the request. `purpose` is changed in the texts alone.
    pub changed: Vec<String>,
    pub grants: Option<Vec<Grant>>,
    pub roles: Option<Vec<String>>,
    pub expiry: Option<Expiry>,
    pub restrictions: Option<RestrictionChange>,
    pub labels: Option<Vec<Label>>,
    pub responsible: Option<Option<[u8; 16]>>,
    pub rotation: Option<Option<Rotation>>,
}

/// What is to be changed of a role; `None` stays as it is.
#[derive(Clone, Debug)]
pub struct UpdateRole {
    pub name: String,
    /// Empty: whatever the role is now.
    pub etag: String,
    pub grants: Option<Vec<Grant>>,
    /// The description is changed, in the texts.
    pub described: bool,
    pub rotation: Option<Option<Rotation>>,
    pub max_staleness: Option<i64>,
}

/// What is to be changed of the policy of a ledger.
#[derive(Clone, Debug)]
pub struct UpdatePolicy {
    /// Empty: whatever the policy is now.
    pub etag: String,
    /// Field paths of the request: what of `to` is meant.
    pub changed: Vec<String>,
    pub to: Policy,
}

/// A reviewer's signature under a report of who held what.
#[derive(Clone, Debug)]
pub struct SignReview {
    pub from: Time,
    pub to: Time,
    /// The report shows the ledger as of just before this position.
    pub as_of_position: u64,
    /// SHA-256 of the report as JSON.
    pub report_sha256: [u8; 32],
    pub approved: bool,
    /// The one key that was looked at; `None` for all.
    pub key_id: Option<KeyId>,
}

/// Position 0 of a ledger.
#[derive(Clone, Debug)]
pub struct OpenLedger {
    pub id: [u8; 16],
    pub number: LedgerNumber,
    pub name: String,
    pub origin: String,
    pub entry_public_key: [u8; 32],
    pub checkpoint_public_key: [u8; 32],
}

/// In the system ledger: promises a ledger. Its number is given under the lock.
#[derive(Clone, Debug)]
pub struct RegisterLedger {
    pub id: [u8; 16],
    pub name: String,
    pub origin: String,
}

#[derive(Clone, Debug)]
pub struct CreateKey {
    pub key_id: KeyId,
    pub owner: Owner,
    pub grants: Vec<Grant>,
    pub roles: Vec<String>,
    pub expiry: Expiry,
    pub restrictions: Restrictions,
    /// In the order of their names, each once.
    pub labels: Vec<Label>,
    pub responsible: Option<[u8; 16]>,
    pub rotation: Option<Rotation>,
    pub secret: FirstSecret,
}

/// The first secret of a key.
#[derive(Clone, Debug)]
pub enum FirstSecret {
    /// Made by us.
    New(NewSecret),
    /// Made elsewhere: the key is imported.
    Imported(NewImport),
}

impl From<NewSecret> for FirstSecret {
    fn from(secret: NewSecret) -> FirstSecret {
        FirstSecret::New(secret)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Default,
    /// Microseconds from now.
    After(i64),
    At(Time),
    Never,
}

/// A fresh secret, and the salt for the commitment to its verifier.
#[derive(Clone, Debug)]
pub struct NewSecret {
    pub secret: Secret,
    pub salt: [u8; 32],
}

impl Command {
    /// About how many bytes it will write: batches are bounded by this.
    pub fn weight(&self) -> usize {
        let sealed = |texts: &[Sealed]| texts.iter().map(|t| t.bytes.len() + 80).sum::<usize>();
        // An entry is at most a leaf and its sealed texts.
        let change = |c: &Change| 4096 + sealed(&c.texts) + c.kind.weight();
        let action = match &self.action {
            Action::Read { .. } | Action::Authenticate | Action::Refuse(_) => 0,
            Action::Record(b) => b.r#use.encoded_len(),
            Action::Report(report) => report.claims.iter().map(Claim::weight).sum(),
            Action::Verify(c) => {
                c.permission.len() + c.resource.len() + c.audience.len() + sealed(&c.texts)
            }
            Action::Change(c) => change(c),
            Action::RecordAll(all) => {
                all.iter().map(|(call, c)| 256 + sealed(&call.texts) + change(c)).sum()
            }
        };
        256 + self.call.resource.len() + sealed(&self.call.texts) + action
    }
}

impl ChangeKind {
    /// About how many bytes of it may come on top of what every change writes.
    fn weight(&self) -> usize {
        match self {
            ChangeKind::RecordEvent(event) => event.encoded_len(),
            _ => 0,
        }
    }
}

/// What became of a command. All of it is durable when it is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A read may now be made.
    Allowed {
        caller: Option<Arc<Key>>,
    },
    Verdict(Box<CheckAnswer>),
    /// The use that was answered from memory is recorded.
    Recorded,
    /// All uses of the session with a smaller number are recorded.
    Reported {
        recorded: u64,
    },
    /// Nothing was done: the key that was not known is there. Ask again.
    Seen,
    Changed {
        position: u64,
        result: Changed,
    },
    /// The change could be made, and wasn't: a dry run.
    Validated {
        result: Changed,
    },
    /// The change was made before, at this position.
    Replayed {
        position: u64,
    },
    /// What became of each of the events that were to be recorded together.
    All(Vec<Answer>),
    Refused {
        refusal: Refusal,
    },
    /// Refused and counted; to be told only when the next second's page holds the count.
    Folded {
        refusal: Refusal,
    },
}

/// Where a use is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseAddress {
    pub position: u64,
    pub index: u32,
}

#[derive(Clone, Debug)]
pub struct CheckAnswer {
    pub reason: DecisionReason,
    pub matched: Option<crate::judge::Match>,
    /// The key behind the token, if its secret matched.
    pub key: Option<Arc<Key>>,
    /// Which of its secrets; 0 for none.
    pub version: u32,
    /// Whether the caller may be told why the key is not valid.
    pub explain: bool,
    pub at: UseAddress,
    /// When it was given.
    pub time: Time,
    /// For how long the caller may keep it, in microseconds; 0: not at all.
    pub keep: i64,
}

#[derive(Clone, Debug)]
pub enum Changed {
    Key(Arc<Key>),
    Role(Arc<Role>),
    Permissions(Arc<RegisteredPermissions>),
    Ledger(LedgerNumber),
    Policy(Arc<CurrentPolicy>),
    Nothing,
}
