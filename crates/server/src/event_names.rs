//! Entries and verdicts as telemetry names them: the same in spans and in the log records that leave.

use keyledger_ledger::body::{DecisionReason, Kind, MonitoringRule, ReportDoubt, RevocationKind};
use keyledger_ledger::state::Owner;

use crate::names;

/// The name of the event that an entry tells of. Each use of a page is an event of its own.
pub(crate) fn event_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::LedgerOpened(_) => names::EVENT_LEDGER_OPENED,
        Kind::LedgerRegistered(_) => names::EVENT_LEDGER_REGISTERED,
        Kind::KeyCreated(_) => names::EVENT_KEY_CREATED,
        Kind::KeyRotated(_) => names::EVENT_KEY_ROTATED,
        Kind::KeyRevoked(_) => names::EVENT_KEY_REVOKED,
        Kind::RoleCreated(_) => names::EVENT_ROLE_CREATED,
        Kind::ServerStarted(_) => names::EVENT_SERVER_STARTED,
        Kind::UsePage(_) => names::EVENT_KEY_USED,
        Kind::KeyUpdated(_) => names::EVENT_KEY_UPDATED,
        Kind::KeySuspended(_) => names::EVENT_KEY_SUSPENDED,
        Kind::KeyResumed(_) => names::EVENT_KEY_RESUMED,
        Kind::RoleUpdated(_) => names::EVENT_ROLE_UPDATED,
        Kind::RoleRetired(_) => names::EVENT_ROLE_RETIRED,
        Kind::KeyExpiring(_) => names::EVENT_KEY_EXPIRING,
        Kind::KeyExpired(_) => names::EVENT_KEY_EXPIRED,
        Kind::LedgerPolicyUpdated(_) => names::EVENT_LEDGER_POLICY_UPDATED,
        Kind::RotationDue(_) => names::EVENT_KEY_ROTATION_DUE,
        Kind::RotationCompleted(_) => names::EVENT_KEY_ROTATION_COMPLETED,
        Kind::PermissionsRegistered(_) => names::EVENT_PERMISSIONS_REGISTERED,
        Kind::KeyImported(_) => names::EVENT_KEY_IMPORTED,
        Kind::VerifierMigrated(_) => names::EVENT_KEY_VERIFIER_MIGRATED,
        Kind::BoundedServingStarted(_) => names::EVENT_BOUNDED_STARTED,
        Kind::BoundedServingEnded(_) => names::EVENT_BOUNDED_ENDED,
        Kind::EventRecorded(_) => names::EVENT_EVENT_RECORDED,
        Kind::CategoryCounted(_) => names::EVENT_CATEGORY_COUNTED,
        Kind::ProducerKeysRegistered(_) => names::EVENT_PRODUCER_KEYS_REGISTERED,
        Kind::AnomalyRaised(_) => names::EVENT_ANOMALY_RAISED,
        Kind::AnomalyEnded(_) => names::EVENT_ANOMALY_ENDED,
        Kind::AnomalyAcknowledged(_) => names::EVENT_ANOMALY_ACKNOWLEDGED,
        Kind::OwnerStatusSet(_) => names::EVENT_OWNER_STATUS_SET,
        Kind::ReviewSigned(_) => names::EVENT_REVIEW_SIGNED,
        Kind::NoticeDelivered(_) => names::EVENT_NOTICE_DELIVERED,
        Kind::FindingsDigested(_) => names::EVENT_FINDINGS_DIGESTED,
    }
}

/// Why a use was allowed or not, such as `WRONG_SECRET`: as in the API, without what all reasons begin with.
pub(crate) fn reason_code(reason: DecisionReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("DECISION_REASON_").unwrap_or(name)
}

/// A rule of monitoring, such as `SPIKE`.
pub(crate) fn rule_name(rule: MonitoringRule) -> &'static str {
    let name = rule.as_str_name();
    name.strip_prefix("MONITORING_RULE_").unwrap_or(name)
}

/// For what kind of reason a key was revoked, such as `COMPROMISED`.
pub(crate) fn revocation_kind(kind: RevocationKind) -> &'static str {
    match kind {
        RevocationKind::Unspecified => "UNSPECIFIED",
        RevocationKind::Compromised => "COMPROMISED",
        RevocationKind::OwnerLeft => "OWNER_LEFT",
        RevocationKind::Unused => "UNUSED",
        RevocationKind::Policy => "POLICY",
        RevocationKind::Admin => "ADMIN",
        RevocationKind::Superseded => "SUPERSEDED",
    }
}

/// Why a use that a service reported is doubtful, such as `STALE`.
pub(crate) fn doubt(doubt: i32) -> &'static str {
    let name = ReportDoubt::try_from(doubt).unwrap_or_default().as_str_name();
    name.strip_prefix("REPORT_DOUBT_").unwrap_or(name)
}

/// `allow` or `deny`.
pub(crate) fn decision(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

/// Whom a key belongs to: the random reference of a person, or the name of a service.
pub(crate) fn subject_ref(owner: &Owner) -> String {
    match owner {
        Owner::User(reference) => hex::encode(reference),
        Owner::Service(name) => name.to_string(),
    }
}
