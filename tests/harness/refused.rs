//! What a refused call was told: the status and its details, as programs read them.

use std::collections::HashMap;

use keyledger_proto::ErrorReason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A refusal, read from the details that the service promises.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: ErrorReason,
    pub(crate) metadata: HashMap<String, String>,
    /// Field paths of `BadRequest`, in order.
    pub(crate) fields: Vec<String>,
    /// Whether `RetryInfo` says that a retry helps.
    pub(crate) retry: bool,
}

/// Reads the refusal of a call that must have been refused.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Status>) -> Refused {
    let status = result.err().expect("the call is refused");
    let details = status.get_error_details();
    let info = details.error_info();
    let info = info.unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "keyledger.v1", "{status:?}");
    let reason = ErrorReason::from_str_name(&info.reason);
    let fields = details.bad_request().map(|b| b.field_violations.clone()).unwrap_or_default();
    Refused {
        code: status.code(),
        reason: reason.unwrap_or_else(|| panic!("a reason that is not published: {}", info.reason)),
        metadata: info.metadata.clone(),
        fields: fields.into_iter().map(|violation| violation.field).collect(),
        retry: details.retry_info().is_some(),
    }
}

impl Refused {
    /// Panics unless it was refused with this code and reason.
    #[track_caller]
    pub(crate) fn with(self, code: Code, reason: ErrorReason) -> Refused {
        assert_eq!((self.code, self.reason), (code, reason), "{self:?}");
        self
    }
}
