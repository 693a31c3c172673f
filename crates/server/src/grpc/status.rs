//! Failures become statuses here, and nowhere else: one match, code and reason side by side.

use std::time::Duration;

use keyledger_ledger::body::DecisionReason;
use keyledger_ledger::command::Refusal;
use keyledger_ledger::state::KeyStatus;
use keyledger_proto::ErrorReason as R;
use keyledger_proto::parse::Violation;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::sequencer::{PastError, SequencerError};
use crate::store::StoreError;

const DOMAIN: &str = "keyledger.v1";
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Sessions of reports are forgotten minutes after their end.
const SESSIONS_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum Failure {
    Refused(Refusal),
    Invalid(Vec<Violation>),
    MalformedMessage,
    MessageTooLarge,
    PageToken,
    ResumeToken,
    RightsChanged,
    EventNotFound,
    AnomalyNotFound,
    OwnerNotFound,
    Sequencer(SequencerError),
    Deadline {
        changing: bool,
    },
    KeyEnded,
    /// Of one event: another of the same batch, at this index, could not be recorded.
    BatchAborted {
        index: usize,
    },
    TooFarBack {
        most: u64,
    },
    TooManyKeys {
        keys: u64,
        most: u64,
    },
    ReaderTooSlow {
        next_position: u64,
    },
    /// The server stops; a stream of events names where to continue.
    Stopping {
        next_position: Option<u64>,
    },
    NoSuchMethod,
    Internal(&'static str),
}

impl Failure {
    /// What the use says that a call leaves when it fails after it was let in.
    pub(super) fn recorded_reason(&self) -> DecisionReason {
        match self {
            Failure::Refused(refusal) => refusal.recorded_reason(),
            Failure::Invalid(_) | Failure::PageToken | Failure::ResumeToken => {
                DecisionReason::InvalidRequest
            }
            _ => DecisionReason::Refused,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<SequencerError> for Failure {
    fn from(error: SequencerError) -> Failure {
        Failure::Sequencer(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Sequencer(error.into())
    }
}

impl From<PastError> for Failure {
    fn from(error: PastError) -> Failure {
        match error {
            PastError::Store(error) => error.into(),
            PastError::TooFarBack { most } => Failure::TooFarBack { most },
        }
    }
}

impl From<Vec<Violation>> for Failure {
    fn from(violations: Vec<Violation>) -> Failure {
        Failure::Invalid(violations)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        match failure {
            Failure::Refused(refusal) => refused(refusal),
            Failure::Sequencer(error) => sequencer(error),
            Failure::Invalid(violations) => invalid(violations),
            Failure::MalformedMessage => status(
                Code::InvalidArgument,
                R::MalformedMessage,
                "the message is not what this method takes",
                [],
            ),
            Failure::MessageTooLarge => status(
                Code::ResourceExhausted,
                R::MessageTooLarge,
                "the message is larger than 1 MiB",
                [],
            ),
            Failure::PageToken => status(
                Code::InvalidArgument,
                R::PageTokenInvalid,
                "the page token is damaged or belongs to another query: begin again without one",
                [],
            ),
            Failure::ResumeToken => status(
                Code::InvalidArgument,
                R::ResumeTokenInvalid,
                "the resume token is damaged, or belongs to another export or key: begin again without one",
                [],
            ),
            Failure::RightsChanged => status(
                Code::FailedPrecondition,
                R::RightsChanged,
                "what this key may read has changed since the export began: begin again",
                [],
            ),
            Failure::OwnerNotFound => status(
                Code::NotFound,
                R::OwnerNotFound,
                "no key is, or was, theirs, and none names them as responsible",
                [],
            ),
            Failure::EventNotFound => {
                status(Code::NotFound, R::EventNotFound, "no such event, or not for this key", [])
            }
            Failure::AnomalyNotFound => status(
                Code::NotFound,
                R::AnomalyNotFound,
                "no anomaly was raised at this position",
                [],
            ),
            Failure::Deadline { changing: false } => {
                retry(R::StorageUnavailable, "the deadline ran out first".into())
            }
            Failure::Deadline { changing: true } => retry(
                R::OutcomeUnknown,
                "the deadline ran out first: repeat the call with the same request id to find out"
                    .into(),
            ),
            Failure::KeyEnded => {
                status(Code::Unauthenticated, R::KeyEnded, "the key of this stream has ended", [])
            }
            Failure::BatchAborted { index } => status(
                Code::Aborted,
                R::BatchAborted,
                &format!("nothing was recorded, since events[{index}] could not be"),
                [],
            ),
            Failure::TooFarBack { most } => status(
                Code::FailedPrecondition,
                R::TooFarBack,
                &format!(
                    "more than {most} changes lie before that moment, too many to fold for one answer: ask for single keys"
                ),
                [("max_folded", most.to_string())],
            ),
            Failure::TooManyKeys { keys, most } => status(
                Code::FailedPrecondition,
                R::TooManyKeys,
                &format!("{keys} keys are to be described, and at most {most} were allowed"),
                [("keys", keys.to_string()), ("most", most.to_string())],
            ),
            Failure::ReaderTooSlow { next_position } => status(
                Code::ResourceExhausted,
                R::ReaderTooSlow,
                "the reader was too slow: continue from next_position",
                [("next_position", next_position.to_string())],
            ),
            Failure::Stopping { next_position } => {
                let metadata: std::collections::HashMap<String, String> = next_position
                    .map(|p| ("next_position".into(), p.to_string()))
                    .into_iter()
                    .collect();
                let reason = R::ServerStopping.as_str_name();
                let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
                details.set_retry_info(Some(RETRY_AFTER));
                let text = match next_position {
                    Some(_) => "the server is stopping: continue from next_position",
                    None => "the server is stopping: continue after what was answered",
                };
                Status::with_error_details(Code::Unavailable, text, details)
            }
            Failure::NoSuchMethod => {
                status(Code::Unimplemented, R::NoSuchMethod, "no such method", [])
            }
            Failure::Internal(what) => {
                tracing::error!(what, "a bug of ours");
                status(Code::Internal, R::Internal, "a bug of ours", [])
            }
        }
    }
}

/// What is wrong with one item of a call: as a status of its own would say it. Cause, fields, words.
pub(super) fn item(failure: Failure) -> (R, Vec<Violation>, String) {
    let status = Status::from(failure);
    let info = status.get_details_error_info();
    let reason = info.and_then(|info| R::from_str_name(&info.reason)).unwrap_or(R::Internal);
    let fields = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
    let violation =
        |f: tonic_types::FieldViolation| Violation { field: f.field, description: f.description };
    (reason, fields.into_iter().map(violation).collect(), status.message().to_string())
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Unauthenticated => status(
            Code::Unauthenticated,
            R::CredentialInvalid,
            "the credential is missing or not valid",
            [],
        ),
        Refusal::PermissionDenied { permission, resource } => status(
            Code::PermissionDenied,
            R::PermissionDenied,
            &format!("the key lacks {permission} on {resource}"),
            [("permission", permission), ("resource", resource)],
        ),
        Refusal::ExceedsOwnRights { what } => status(
            Code::PermissionDenied,
            R::ExceedsOwnRights,
            &format!("a key can't give more than it holds: {what}"),
            [("exceeds", what)],
        ),
        Refusal::UsesSpent => status(
            Code::ResourceExhausted,
            R::UsesSpent,
            "the key was used as often as it may be",
            [],
        ),
        Refusal::Rate { wait_us } => {
            let text = "the key was used as often as it may be for now";
            let mut details = ErrorDetails::with_error_info(R::Rate.as_str_name(), DOMAIN, []);
            details.set_retry_info(Some(Duration::from_micros(wait_us.max(0) as u64)));
            Status::with_error_details(Code::ResourceExhausted, text, details)
        }
        Refusal::KeyNotFound => {
            status(Code::NotFound, R::KeyNotFound, "no such key in this ledger", [])
        }
        Refusal::RoleNotFound { name } => status(
            Code::NotFound,
            R::RoleNotFound,
            &format!("no role {name} in this ledger"),
            [("role", name)],
        ),
        Refusal::KeyState { state } => {
            let name = match state {
                KeyStatus::Active => "KEY_STATE_ACTIVE",
                KeyStatus::Suspended => "KEY_STATE_SUSPENDED",
                KeyStatus::Revoked => "KEY_STATE_REVOKED",
                KeyStatus::Expired => "KEY_STATE_EXPIRED",
            };
            let text = format!("the key's state is {name}");
            status(Code::FailedPrecondition, R::KeyState, &text, [("state", name.into())])
        }
        Refusal::RoleExists => {
            status(Code::AlreadyExists, R::RoleExists, "a role of this name exists", [])
        }
        Refusal::ImportExists => status(
            Code::AlreadyExists,
            R::ImportExists,
            "a key with this hash or prefix was imported before",
            [],
        ),
        Refusal::ImportPrefixLengths => status(
            Code::FailedPrecondition,
            R::ImportPrefixLengths,
            "the prefixes of imported keys have 8 different lengths already: use one of those",
            [],
        ),
        Refusal::RoleRetired => {
            status(Code::FailedPrecondition, R::RoleRetired, "the role was retired", [])
        }
        Refusal::RolePredefined => status(
            Code::FailedPrecondition,
            R::RolePredefined,
            "the role is predefined: every ledger has it, and nobody can change it",
            [],
        ),
        Refusal::PrefixTaken { prefix } => status(
            Code::AlreadyExists,
            R::PrefixTaken,
            "somebody else registered permissions under this prefix first, and owns it",
            [("prefix", prefix)],
        ),
        Refusal::EtagMismatch => status(
            Code::Aborted,
            R::EtagMismatch,
            "the etag is not the current one: somebody changed it since you looked; read it again",
            [],
        ),
        Refusal::LedgerExists => {
            status(Code::AlreadyExists, R::LedgerExists, "a ledger of this name exists", [])
        }
        Refusal::RequestIdReused => status(
            Code::AlreadyExists,
            R::RequestIdReused,
            "this request id was used for another request",
            [],
        ),
        Refusal::ApprovalRequired { permission } => status(
            Code::FailedPrecondition,
            R::ApprovalRequired,
            &format!("the ledger's policy asks for an approval_ref for {permission}"),
            [("permission", permission)],
        ),
        Refusal::LedgerFull { what, most } => status(
            Code::ResourceExhausted,
            R::LedgerLimit,
            &format!("the ledger holds as many {what} as it may: {most}"),
            [("limit", what.into()), ("most", most.to_string())],
        ),
        Refusal::OwnerStatus { left } => status(
            Code::FailedPrecondition,
            R::OwnerStatus,
            match left {
                true => "the owner is marked as having left already",
                false => "the owner is not marked as having left",
            },
            [],
        ),
        Refusal::LedgerNotFound => {
            status(Code::NotFound, R::LedgerNotFound, "no such ledger, or not for this key", [])
        }
        Refusal::Field { field, problem } => {
            invalid(vec![Violation { field: field.into_owned(), description: problem }])
        }
        Refusal::EntryTooLarge => status(
            Code::InvalidArgument,
            R::EntryTooLarge,
            "the change needs an entry of more than 65,535 bytes",
            [],
        ),
        Refusal::SystemLedgerOnly => status(
            Code::FailedPrecondition,
            R::SystemLedgerOnly,
            "this call belongs to the system ledger",
            [],
        ),
        Refusal::OneOfAll { refusal, .. } => refused(*refusal),
        Refusal::ReportGap { recorded } => status(
            Code::FailedPrecondition,
            R::ReportGap,
            &format!("the next use of this session has number {recorded}"),
            [("recorded", recorded.to_string())],
        ),
        Refusal::ReportSessionOver => status(
            Code::FailedPrecondition,
            R::ReportSessionOver,
            "the session is over, or its id too old or too new: begin one with a new id",
            [],
        ),
        Refusal::ReportSessions { most } => {
            let text =
                format!("there are {most} sessions of reports already: end those that are done");
            let metadata = [("most".into(), most.to_string())];
            let mut details =
                ErrorDetails::with_error_info(R::ReportSessions.as_str_name(), DOMAIN, metadata);
            details.set_retry_info(Some(SESSIONS_RETRY_AFTER));
            Status::with_error_details(Code::ResourceExhausted, text, details)
        }
        Refusal::AlreadyDone | Refusal::Earlier | Refusal::Internal => {
            Failure::Internal("a refusal without a cause").into()
        }
    }
}

fn sequencer(error: SequencerError) -> Status {
    let text = error.to_string();
    match error {
        SequencerError::Unavailable(cause) => {
            // The cause names hosts and roles: it is for operators.
            tracing::warn!(cause, "the database can't be reached");
            retry(
                R::StorageUnavailable,
                "the database can't be reached; nothing was changed".into(),
            )
        }
        SequencerError::OutcomeUnknown(cause) => {
            tracing::warn!(cause, "the outcome of a batch is not known");
            let text = "it is not known whether the change was made: repeat it with the same request id to find out";
            retry(R::OutcomeUnknown, text.into())
        }
        SequencerError::Overloaded => retry(R::Overloaded, text),
        SequencerError::LedgerLimit { what, most } => {
            let metadata = [("limit".into(), what.into()), ("most".into(), most.to_string())];
            let mut details =
                ErrorDetails::with_error_info(R::LedgerLimit.as_str_name(), DOMAIN, metadata);
            details.set_retry_info(Some(RETRY_AFTER));
            Status::with_error_details(Code::ResourceExhausted, text, details)
        }
        SequencerError::ClockSkew(_) => retry(R::ClockSkew, text),
        SequencerError::Stopped(_) => status(
            Code::FailedPrecondition,
            R::LedgerStopped,
            "this ledger doesn't verify, so this replica serves it no more: an operator must run `keyledger verify`",
            [],
        ),
    }
}

fn invalid(violations: Vec<Violation>) -> Status {
    let text = violations
        .iter()
        .map(|v| format!("{} {}", v.field, v.description))
        .collect::<Vec<_>>()
        .join("; ");
    let mut details = ErrorDetails::with_error_info(R::InvalidField.as_str_name(), DOMAIN, []);
    for violation in violations {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    Status::with_error_details(Code::InvalidArgument, text, details)
}

fn retry(reason: R, text: String) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, []);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, text, details)
}

fn status<const N: usize>(
    code: Code,
    reason: R,
    text: &str,
    metadata: [(&str, String); N],
) -> Status {
    let metadata: std::collections::HashMap<String, String> =
        metadata.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    let details = ErrorDetails::with_error_info(reason.as_str_name(), DOMAIN, metadata);
    Status::with_error_details(code, text, details)
}
