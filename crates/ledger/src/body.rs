//! What stands in the signed bytes: the messages of `proto/keyledger/entry/v1/event.proto`, as Rust types.
//!
//! They are written out here, and not generated, so that an auditor can link this crate without a protobuf compiler. The
//! published `.proto` says what each field means; a test of `keyledger-proto` holds the two against each other.

mod counted;
mod import;
mod noticed;
mod policies;
mod recorded;
mod reviews;
mod roles;
mod texts;
mod uses;

use prost::{Enumeration, Message, Oneof};

use crate::id::KeyId;

pub use counted::{CategoryCount, CategoryCounted, CountColumn, CountRecord};
pub use import::{ImportAlgorithm, ImportedVerifier, KeyImported, VerifierMigrated};
pub use noticed::{
    AnomalyAcknowledged, AnomalyEnded, AnomalyRaised, AnomalyResponse, AnomalySubject,
    AnomalyVerdict, Measure, MonitoringRule, RuleSetting, SubjectKind,
};
pub use policies::{LedgerLimits, LedgerPolicy, LedgerPolicyUpdated, Rotation};
pub use recorded::{
    Actor, ActorKind, Attribute, AttributeValue, EventRecorded, Outcome, ProducerKeysRegistered,
    ProducerSignature, Severity,
};
pub use reviews::{FindingCount, FindingsDigested, NoticeDelivered, OwnerStatusSet, ReviewSigned};
pub use roles::{PermissionsRegistered, RoleCreated, RoleRetired, RoleUpdated};
pub use texts::{SealedColumn, SealedText, Texts};
pub use uses::{
    Bounded, BoundedServingEnded, BoundedServingStarted, BoundedUses, Decision, DecisionReason,
    ReportDoubt, Reported, ReportedUses, Spent, Use, UseColumn, UsePage, UseRecord,
};

/// DSSE payload type of an entry's body.
pub const PAYLOAD_TYPE: &str = "application/vnd.keyledger.event.v1+protobuf";

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(bytes = "vec", tag = "1")]
    pub ledger_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    #[prost(int64, tag = "3")]
    pub time_us: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub span_id: Vec<u8>,
    #[prost(message, optional, tag = "6")]
    pub caller: Option<Caller>,
    #[prost(bytes = "vec", tag = "7")]
    pub request_id: Vec<u8>,
    #[prost(message, repeated, tag = "8")]
    pub texts: Vec<SealedText>,
    #[prost(string, tag = "9")]
    pub approval_ref: String,
    #[prost(
        oneof = "Kind",
        tags = "16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48"
    )]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Kind {
    #[prost(message, tag = "16")]
    LedgerOpened(LedgerOpened),
    #[prost(message, tag = "17")]
    LedgerRegistered(LedgerRegistered),
    #[prost(message, tag = "18")]
    KeyCreated(KeyCreated),
    #[prost(message, tag = "19")]
    KeyRotated(KeyRotated),
    #[prost(message, tag = "20")]
    KeyRevoked(KeyRevoked),
    #[prost(message, tag = "21")]
    RoleCreated(RoleCreated),
    #[prost(message, tag = "22")]
    ServerStarted(ServerStarted),
    #[prost(message, tag = "23")]
    UsePage(UsePage),
    #[prost(message, tag = "24")]
    KeyUpdated(KeyUpdated),
    #[prost(message, tag = "25")]
    KeySuspended(KeySuspended),
    #[prost(message, tag = "26")]
    KeyResumed(KeyResumed),
    #[prost(message, tag = "27")]
    RoleUpdated(RoleUpdated),
    #[prost(message, tag = "28")]
    RoleRetired(RoleRetired),
    #[prost(message, tag = "29")]
    KeyExpiring(KeyExpiring),
    #[prost(message, tag = "30")]
    KeyExpired(KeyExpired),
    #[prost(message, tag = "31")]
    LedgerPolicyUpdated(LedgerPolicyUpdated),
    #[prost(message, tag = "32")]
    RotationDue(RotationDue),
    #[prost(message, tag = "33")]
    RotationCompleted(RotationCompleted),
    #[prost(message, tag = "34")]
    PermissionsRegistered(PermissionsRegistered),
    #[prost(message, tag = "35")]
    KeyImported(KeyImported),
    #[prost(message, tag = "36")]
    VerifierMigrated(VerifierMigrated),
    #[prost(message, tag = "37")]
    BoundedServingStarted(BoundedServingStarted),
    #[prost(message, tag = "38")]
    BoundedServingEnded(BoundedServingEnded),
    #[prost(message, tag = "39")]
    EventRecorded(EventRecorded),
    #[prost(message, tag = "40")]
    CategoryCounted(CategoryCounted),
    #[prost(message, tag = "41")]
    ProducerKeysRegistered(ProducerKeysRegistered),
    #[prost(message, tag = "42")]
    AnomalyRaised(AnomalyRaised),
    #[prost(message, tag = "43")]
    AnomalyEnded(AnomalyEnded),
    #[prost(message, tag = "44")]
    AnomalyAcknowledged(AnomalyAcknowledged),
    #[prost(message, tag = "45")]
    OwnerStatusSet(OwnerStatusSet),
    #[prost(message, tag = "46")]
    ReviewSigned(ReviewSigned),
    #[prost(message, tag = "47")]
    NoticeDelivered(NoticeDelivered),
    #[prost(message, tag = "48")]
    FindingsDigested(FindingsDigested),
}

impl Kind {
    /// The number of the kind: the tag of its field. Stored in the column `kind`.
    pub fn number(&self) -> i16 {
        match self {
            Kind::LedgerOpened(_) => 16,
            Kind::LedgerRegistered(_) => 17,
            Kind::KeyCreated(_) => 18,
            Kind::KeyRotated(_) => 19,
            Kind::KeyRevoked(_) => 20,
            Kind::RoleCreated(_) => 21,
            Kind::ServerStarted(_) => 22,
            Kind::UsePage(_) => 23,
            Kind::KeyUpdated(_) => 24,
            Kind::KeySuspended(_) => 25,
            Kind::KeyResumed(_) => 26,
            Kind::RoleUpdated(_) => 27,
            Kind::RoleRetired(_) => 28,
            Kind::KeyExpiring(_) => 29,
            Kind::KeyExpired(_) => 30,
            Kind::LedgerPolicyUpdated(_) => 31,
            Kind::RotationDue(_) => 32,
            Kind::RotationCompleted(_) => 33,
            Kind::PermissionsRegistered(_) => 34,
            Kind::KeyImported(_) => 35,
            Kind::VerifierMigrated(_) => 36,
            Kind::BoundedServingStarted(_) => 37,
            Kind::BoundedServingEnded(_) => 38,
            Kind::EventRecorded(_) => 39,
            Kind::CategoryCounted(_) => 40,
            Kind::ProducerKeysRegistered(_) => 41,
            Kind::AnomalyRaised(_) => 42,
            Kind::AnomalyEnded(_) => 43,
            Kind::AnomalyAcknowledged(_) => 44,
            Kind::OwnerStatusSet(_) => 45,
            Kind::ReviewSigned(_) => 46,
            Kind::NoticeDelivered(_) => 47,
            Kind::FindingsDigested(_) => 48,
        }
    }

    /// The name of the kind, as people and programs see it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::LedgerOpened(_) => "ledger.opened",
            Kind::LedgerRegistered(_) => "ledger.registered",
            Kind::KeyCreated(_) => "key.created",
            Kind::KeyRotated(_) => "key.rotated",
            Kind::KeyRevoked(_) => "key.revoked",
            Kind::RoleCreated(_) => "role.created",
            Kind::ServerStarted(_) => "server.started",
            Kind::UsePage(_) => "use.page",
            Kind::KeyUpdated(_) => "key.updated",
            Kind::KeySuspended(_) => "key.suspended",
            Kind::KeyResumed(_) => "key.resumed",
            Kind::RoleUpdated(_) => "role.updated",
            Kind::RoleRetired(_) => "role.retired",
            Kind::KeyExpiring(_) => "key.expiring",
            Kind::KeyExpired(_) => "key.expired",
            Kind::LedgerPolicyUpdated(_) => "ledger.policy-updated",
            Kind::RotationDue(_) => "key.rotation-due",
            Kind::RotationCompleted(_) => "key.rotation-completed",
            Kind::PermissionsRegistered(_) => "permissions.registered",
            Kind::KeyImported(_) => "key.imported",
            Kind::VerifierMigrated(_) => "key.verifier-migrated",
            Kind::BoundedServingStarted(_) => "bounded.started",
            Kind::BoundedServingEnded(_) => "bounded.ended",
            Kind::EventRecorded(_) => "event.recorded",
            Kind::CategoryCounted(_) => "category.counted",
            Kind::ProducerKeysRegistered(_) => "producer.keys-registered",
            Kind::AnomalyRaised(_) => "anomaly.raised",
            Kind::AnomalyEnded(_) => "anomaly.ended",
            Kind::AnomalyAcknowledged(_) => "anomaly.acknowledged",
            Kind::OwnerStatusSet(_) => "owner.status-set",
            Kind::ReviewSigned(_) => "review.signed",
            Kind::NoticeDelivered(_) => "notice.delivered",
            Kind::FindingsDigested(_) => "findings.digested",
        }
    }

    /// Whether it changes what keys are, what they may do, or what holds for the ledger. The others have numbers of their own.
    pub fn is_change(&self) -> bool {
        !matches!(self, Kind::UsePage(_) | Kind::EventRecorded(_) | Kind::CategoryCounted(_))
    }

    /// The key whose use was unusual. What comes later of the same anomaly names the anomaly alone.
    pub fn key_of_anomaly(&self) -> Option<KeyId> {
        match self {
            Kind::AnomalyRaised(e) => KeyId::from_slice(&e.key_id),
            _ => None,
        }
    }

    /// The chain link of a key's lifecycle entry.
    pub fn key_link(&self) -> Option<&KeyLink> {
        match self {
            Kind::KeyCreated(e) => e.link.as_ref(),
            Kind::KeyRotated(e) => e.link.as_ref(),
            Kind::KeyRevoked(e) => e.link.as_ref(),
            Kind::KeyUpdated(e) => e.link.as_ref(),
            Kind::KeySuspended(e) => e.link.as_ref(),
            Kind::KeyResumed(e) => e.link.as_ref(),
            Kind::KeyExpiring(e) => e.link.as_ref(),
            Kind::KeyExpired(e) => e.link.as_ref(),
            Kind::RotationDue(e) => e.link.as_ref(),
            Kind::RotationCompleted(e) => e.link.as_ref(),
            Kind::KeyImported(e) => e.link.as_ref(),
            Kind::VerifierMigrated(e) => e.link.as_ref(),
            Kind::LedgerOpened(_)
            | Kind::LedgerPolicyUpdated(_)
            | Kind::LedgerRegistered(_)
            | Kind::RoleCreated(_)
            | Kind::RoleUpdated(_)
            | Kind::RoleRetired(_)
            | Kind::PermissionsRegistered(_)
            | Kind::BoundedServingStarted(_)
            | Kind::BoundedServingEnded(_)
            | Kind::EventRecorded(_)
            | Kind::CategoryCounted(_)
            | Kind::ProducerKeysRegistered(_)
            | Kind::AnomalyRaised(_)
            | Kind::AnomalyEnded(_)
            | Kind::AnomalyAcknowledged(_)
            | Kind::OwnerStatusSet(_)
            | Kind::ReviewSigned(_)
            | Kind::NoticeDelivered(_)
            | Kind::FindingsDigested(_)
            | Kind::ServerStarted(_)
            | Kind::UsePage(_) => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Caller {
    #[prost(bytes = "vec", tag = "1")]
    pub key_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Grant {
    #[prost(string, repeated, tag = "1")]
    pub permissions: Vec<String>,
    #[prost(string, tag = "2")]
    pub resource: String,
    #[prost(bool, tag = "3")]
    pub give_only: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Owner {
    #[prost(oneof = "OwnerKind", tags = "1, 2")]
    pub owner: Option<OwnerKind>,
}

#[derive(Clone, PartialEq, Eq, Hash, Oneof)]
pub enum OwnerKind {
    #[prost(bytes = "vec", tag = "1")]
    UserRef(Vec<u8>),
    #[prost(string, tag = "2")]
    Service(String),
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyLink {
    #[prost(bytes = "vec", tag = "1")]
    pub key_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub stream_version: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub previous_leaf_hash: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SecretVersion {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub verifier_commitment: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pub pepper_id: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LedgerOpened {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub number: u32,
    #[prost(string, tag = "3")]
    pub origin: String,
    #[prost(bytes = "vec", tag = "4")]
    pub entry_public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub checkpoint_public_key: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LedgerRegistered {
    #[prost(bytes = "vec", tag = "1")]
    pub ledger_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub number: u32,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub origin: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyCreated {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(message, optional, tag = "2")]
    pub owner: Option<Owner>,
    #[prost(message, repeated, tag = "3")]
    pub grants: Vec<Grant>,
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    #[prost(int64, tag = "5")]
    pub expire_time_us: i64,
    #[prost(message, optional, tag = "6")]
    pub version: Option<SecretVersion>,
    #[prost(message, optional, tag = "7")]
    pub restrictions: Option<Restrictions>,
    #[prost(message, repeated, tag = "8")]
    pub labels: Vec<Label>,
    #[prost(bytes = "vec", tag = "9")]
    pub responsible_ref: Vec<u8>,
    #[prost(message, optional, tag = "10")]
    pub rotation: Option<Rotation>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Restrictions {
    #[prost(string, repeated, tag = "1")]
    pub networks: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub audiences: Vec<String>,
    #[prost(uint64, tag = "3")]
    pub max_uses: u64,
    #[prost(message, optional, tag = "4")]
    pub rate: Option<Rate>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Rate {
    #[prost(uint32, tag = "1")]
    pub uses: u32,
    #[prost(int64, tag = "2")]
    pub window_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyUpdated {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(string, repeated, tag = "2")]
    pub changed: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub grants: Vec<Grant>,
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    #[prost(int64, tag = "5")]
    pub expire_time_us: i64,
    #[prost(message, optional, tag = "6")]
    pub restrictions: Option<Restrictions>,
    #[prost(message, repeated, tag = "7")]
    pub labels: Vec<Label>,
    #[prost(bytes = "vec", tag = "8")]
    pub responsible_ref: Vec<u8>,
    #[prost(message, optional, tag = "9")]
    pub rotation: Option<Rotation>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeySuspended {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(uint32, tag = "2")]
    pub overdue_version: u32,
    #[prost(int64, tag = "3")]
    pub idle_since_us: i64,
    #[prost(uint64, optional, tag = "4")]
    pub anomaly_position: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyResumed {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyRotated {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(message, optional, tag = "2")]
    pub version: Option<SecretVersion>,
    #[prost(int64, tag = "3")]
    pub previous_expire_time_us: i64,
    #[prost(bool, tag = "4")]
    pub until_first_use: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RotationDue {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct RotationCompleted {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(uint32, tag = "2")]
    pub version: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyExpiring {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(uint32, tag = "2")]
    pub days: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyExpired {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RevocationKind {
    Unspecified = 0,
    Compromised = 1,
    OwnerLeft = 2,
    Unused = 3,
    Policy = 4,
    Admin = 5,
    Superseded = 6,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyRevoked {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(enumeration = "RevocationKind", tag = "2")]
    pub kind: i32,
    #[prost(int64, tag = "3")]
    pub idle_since_us: i64,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ServerStarted {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(bytes = "vec", tag = "2")]
    pub configuration_digest: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

/// The bytes are not one of our messages, or not in canonical form: damaged, or of a newer format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical {0}: damaged, or of a newer format")]
pub struct NotCanonical(&'static str);

/// Decodes bytes that must encode to themselves again. Protobuf readers skip what they don't know; a ledger must not, so an
/// unknown field or kind is found here.
pub fn decode_canonical<M: Message + Default>(
    bytes: &[u8],
    name: &'static str,
) -> Result<M, NotCanonical> {
    let message = M::decode(bytes).map_err(|_| NotCanonical(name))?;
    if message.encoded_len() != bytes.len() || message.encode_to_vec() != bytes {
        return Err(NotCanonical(name));
    }
    Ok(message)
}

impl Event {
    /// Decodes a signed body. Whatever this version doesn't know is refused.
    pub fn from_signed(bytes: &[u8]) -> Result<Event, NotCanonical> {
        let event: Event = decode_canonical(bytes, "Event")?;
        if event.kind.is_none() {
            return Err(NotCanonical("Event"));
        }
        Ok(event)
    }
}
