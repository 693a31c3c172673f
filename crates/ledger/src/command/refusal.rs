//! Why commands are refused, as values: one match turns them into statuses, another into what their uses say.

use std::borrow::Cow;

use crate::body::DecisionReason;
use crate::state::KeyStatus;

/// Why a command was refused. The caller is told; a use of its key says so too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The credential is not valid. Why, is for the ledger to know.
    Unauthenticated,
    PermissionDenied {
        permission: String,
        resource: String,
    },
    ExceedsOwnRights {
        what: String,
    },
    /// The caller's key was used as often as it may be.
    UsesSpent,
    /// The caller's key was used as often as it may be, for so many microseconds more.
    Rate {
        wait_us: i64,
    },
    KeyNotFound,
    RoleNotFound {
        name: String,
    },
    KeyState {
        state: KeyStatus,
    },
    RoleExists,
    /// A key with this hash or prefix was imported before.
    ImportExists,
    /// The prefixes of imported keys have as many different lengths as they may.
    ImportPrefixLengths,
    RoleRetired,
    /// A role that every ledger has can't be changed.
    RolePredefined,
    /// Somebody else registered permissions under this prefix first.
    PrefixTaken {
        prefix: String,
    },
    LedgerExists,
    LedgerNotFound,
    /// The owner is marked so already.
    OwnerStatus {
        left: bool,
    },
    /// Another replica has done it.
    AlreadyDone,
    /// It was changed since the caller looked.
    EtagMismatch,
    RequestIdReused,
    /// The ledger's policy asks for an approval of changes that need this permission, and none was named.
    ApprovalRequired {
        permission: String,
    },
    /// The ledger holds as many of these as it may.
    LedgerFull {
        what: &'static str,
        most: u64,
    },
    /// What was asked for doesn't fit the key, the ledger's policy or its clock: field and what is wrong.
    Field {
        field: Cow<'static, str>,
        problem: String,
    },
    EntryTooLarge,
    SystemLedgerOnly,
    /// One of several things that were to be done together was refused, so none was done.
    OneOfAll {
        index: usize,
        refusal: Box<Refusal>,
    },
    /// Refused before it came to the sequencer; the caller was told by whoever refused.
    Earlier,
    /// Reported uses begin after the next one that is to be recorded, which has this number.
    ReportGap {
        recorded: u64,
    },
    /// The session of reports has ended or lapsed; or its id is too old, or too new, to begin one.
    ReportSessionOver,
    /// There are as many sessions of reports as there may be.
    ReportSessions {
        most: u64,
    },
    /// A bug of ours: the entry we made doesn't fit the state.
    Internal,
}

impl Refusal {
    /// What the use says that it leaves.
    pub fn recorded_reason(&self) -> DecisionReason {
        match self {
            Refusal::PermissionDenied { .. } => DecisionReason::NoGrant,
            Refusal::ExceedsOwnRights { .. } => DecisionReason::ExceedsOwnRights,
            Refusal::Field { .. } | Refusal::EntryTooLarge => DecisionReason::InvalidRequest,
            Refusal::UsesSpent => DecisionReason::UsesSpent,
            Refusal::Rate { .. } => DecisionReason::Rate,
            Refusal::OneOfAll { refusal, .. } => refusal.recorded_reason(),
            Refusal::Unauthenticated
            | Refusal::KeyNotFound
            | Refusal::RoleNotFound { .. }
            | Refusal::KeyState { .. }
            | Refusal::RoleExists
            | Refusal::ImportExists
            | Refusal::ImportPrefixLengths
            | Refusal::RoleRetired
            | Refusal::RolePredefined
            | Refusal::PrefixTaken { .. }
            | Refusal::LedgerExists
            | Refusal::LedgerNotFound
            | Refusal::OwnerStatus { .. }
            | Refusal::AlreadyDone
            | Refusal::EtagMismatch
            | Refusal::RequestIdReused
            | Refusal::ApprovalRequired { .. }
            | Refusal::LedgerFull { .. }
            | Refusal::SystemLedgerOnly
            | Refusal::ReportGap { .. }
            | Refusal::ReportSessionOver
            | Refusal::ReportSessions { .. }
            | Refusal::Earlier
            | Refusal::Internal => DecisionReason::Refused,
        }
    }
}
