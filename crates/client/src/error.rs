//! What went wrong: with a configuration, or with a call, as programs read it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use keyledger_proto::{ErrorReason, FieldProblem};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A configuration that can't work, or a server that can't be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("the endpoint {0} is no address such as https://keys.example.com:7420")]
    NoAddress(String),
    #[error("the token is not one word of visible ASCII, at most 256 bytes")]
    NoToken,
    #[error("{0} would get the token in the clear over the network")]
    Plaintext(String),
    #[error("certificates are named, but {0} is without TLS")]
    CertificatesWithoutTls(String),
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    #[error("{endpoint} can't be reached: {cause}")]
    Unreachable { endpoint: String, cause: String },
}

/// A call that was not answered as it should be: why, and whether a repeat helps.
#[derive(Clone, Debug, PartialEq)]
pub struct CallError {
    /// Of gRPC.
    pub code: Code,
    /// The stable reason; none if the status is not Keyledger's own (a broken connection, a proxy), or newer than this crate.
    pub reason: Option<ErrorReason>,
    /// In words, for people.
    pub message: String,
    /// What is wrong with which field.
    pub fields: Vec<FieldProblem>,
    /// What belongs to the reason, such as `permission` and `resource`.
    pub metadata: BTreeMap<String, String>,
    /// How long to wait before a repeat, if the server says so.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// Whether a repeat may go better. A change is repeated with the same `request_id`, an event with the same `event_id`.
    pub fn may_be_repeated(&self) -> bool {
        match self.reason {
            Some(reason) => is_transient(reason) || self.retry_after.is_some(),
            // Made on our side, or between us and the server.
            None => matches!(
                self.code,
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::Internal
            ),
        }
    }
}

/// Whether what was refused for this reason may be accepted later.
pub(crate) fn is_transient(reason: ErrorReason) -> bool {
    use ErrorReason::*;
    matches!(
        reason,
        StorageUnavailable | OutcomeUnknown | Overloaded | ClockSkew | ServerStopping | Rate
    )
}

impl From<Status> for CallError {
    fn from(status: Status) -> CallError {
        let details = status.get_error_details();
        let info = details.error_info();
        let problems = details.bad_request().map(|b| b.field_violations.clone());
        let problem = |v: tonic_types::FieldViolation| FieldProblem {
            field: v.field,
            description: v.description,
        };
        CallError {
            code: status.code(),
            reason: info.and_then(|info| ErrorReason::from_str_name(&info.reason)),
            message: status.message().into(),
            fields: problems.unwrap_or_default().into_iter().map(problem).collect(),
            metadata: info.map(|i| i.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{}", reason.as_str_name().trim_start_matches(PREFIX))?,
            None => write!(f, "{:?}", self.code)?,
        }
        write!(f, ": {}", self.message)?;
        self.fields.iter().try_for_each(|p| write!(f, "; {}: {}", p.field, p.description))
    }
}

const PREFIX: &str = "ERROR_REASON_";

impl std::error::Error for CallError {}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn error(code: Code, reason: Option<&str>, retry: Option<Duration>) -> CallError {
        let mut details = ErrorDetails::new();
        if let Some(reason) = reason {
            let metadata = HashMap::from([("permission".into(), "keys.verify".into())]);
            details.set_error_info(reason, "keyledger.v1", metadata);
        }
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        details.add_bad_request_violation("purpose", "must not be empty");
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn a_status_is_read_with_all_its_details() {
        let read = error(Code::PermissionDenied, Some("ERROR_REASON_PERMISSION_DENIED"), None);
        assert_eq!(read.reason, Some(ErrorReason::PermissionDenied));
        assert_eq!(read.metadata["permission"], "keys.verify");
        assert_eq!(read.to_string(), "PERMISSION_DENIED: no; purpose: must not be empty");
        assert!(!read.may_be_repeated());
    }

    #[test]
    fn what_may_go_better_is_repeated_and_nothing_else() {
        let wait = Some(Duration::from_secs(1));
        for (code, reason, retry, may) in [
            (Code::Unavailable, Some("ERROR_REASON_STORAGE_UNAVAILABLE"), None, true),
            (Code::Unavailable, Some("ERROR_REASON_OUTCOME_UNKNOWN"), None, true),
            (Code::ResourceExhausted, Some("ERROR_REASON_RATE"), wait, true),
            (Code::ResourceExhausted, Some("ERROR_REASON_USES_SPENT"), None, false),
            (Code::Internal, Some("ERROR_REASON_INTERNAL"), None, false),
            (Code::Unauthenticated, Some("ERROR_REASON_CREDENTIAL_INVALID"), None, false),
            (Code::Unavailable, None, None, true),
            (Code::Unauthenticated, None, None, false),
        ] {
            let read = error(code, reason, retry);
            assert_eq!(read.may_be_repeated(), may, "{read:?}");
            assert_eq!(read.retry_after, retry);
        }
    }
}
