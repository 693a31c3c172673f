//! What a refused caller is told: a gRPC status, or an HTTP status with what RFC 6750 asks for. It never says which of the
//! causes made a credential invalid.

use std::time::Duration;

use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use keyledger_proto::entry::DecisionReason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Ask;
use crate::error::CallError;

/// When to come back, if Keyledger doesn't say.
const RETRY: Duration = Duration::from_secs(1);

/// Why a call was not let through.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// It carries no token, more than one, or something that can't be one.
    NoToken,
    /// The key behind the token is not accepted.
    NotValid(DecisionReason),
    /// The key is accepted, and may not do this, or not so.
    NotAllowed { reason: DecisionReason, permission: String, resource: String },
    /// The key was used as often as it may be for now.
    TooOften,
    /// The service lets nobody do this.
    Forbidden,
    /// No verdict could be had: nobody is let through then.
    Unavailable { retry_after: Duration, cause: Option<Box<CallError>> },
}

impl Refusal {
    pub(super) fn too_many() -> Refusal {
        Refusal::Unavailable { retry_after: RETRY, cause: None }
    }

    pub(super) fn of_verdict(reason: DecisionReason, ask: &Ask) -> Refusal {
        use DecisionReason::*;
        match reason {
            NoGrant | Network | Audience | UsesSpent => Refusal::NotAllowed {
                reason,
                permission: ask.permission.clone(),
                resource: ask.resource.clone(),
            },
            Rate => Refusal::TooOften,
            _ => Refusal::NotValid(reason),
        }
    }

    /// Nothing is let through that was not allowed, whatever went wrong. What is asked of a call is made from the call: what can't
    /// be asked can't be allowed.
    pub(super) fn of_failure(cause: CallError) -> Refusal {
        if cause.code == Code::InvalidArgument {
            return Refusal::Forbidden;
        }
        if !cause.may_be_repeated() {
            tracing::error!(%cause, "Keyledger refuses to check tokens for this service");
        }
        let retry_after = cause.retry_after.unwrap_or(RETRY);
        Refusal::Unavailable { retry_after, cause: Some(Box::new(cause)) }
    }

    /// For a gRPC caller.
    pub fn to_status(&self) -> Status {
        match self {
            Refusal::NoToken | Refusal::NotValid(_) => {
                Status::unauthenticated("the credential is missing or not valid")
            }
            Refusal::NotAllowed { permission, resource, .. } => {
                Status::permission_denied(format!("the key may not do {permission} on {resource}"))
            }
            Refusal::Forbidden => Status::permission_denied("nobody may do this"),
            Refusal::TooOften => Status::resource_exhausted("the key was used too often for now"),
            Refusal::Unavailable { retry_after, .. } => {
                let details = ErrorDetails::with_retry_info(Some(*retry_after));
                Status::with_error_details(Code::Unavailable, UNAVAILABLE, details)
            }
        }
    }

    /// For any other HTTP caller, without a body.
    pub fn to_http<R: Default>(&self) -> Response<R> {
        let mut response = Response::new(R::default());
        let (status, header) = match self {
            Refusal::NoToken => {
                (StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, "Bearer".to_string())))
            }
            Refusal::NotValid(_) => {
                let why = r#"Bearer error="invalid_token""#.into();
                (StatusCode::UNAUTHORIZED, Some((WWW_AUTHENTICATE, why)))
            }
            Refusal::NotAllowed { .. } => {
                let why = r#"Bearer error="insufficient_scope""#.into();
                (StatusCode::FORBIDDEN, Some((WWW_AUTHENTICATE, why)))
            }
            Refusal::Forbidden => (StatusCode::FORBIDDEN, None),
            Refusal::TooOften => (StatusCode::TOO_MANY_REQUESTS, None),
            Refusal::Unavailable { retry_after, .. } => {
                let seconds = retry_after.as_secs_f64().ceil().max(1.0);
                (StatusCode::SERVICE_UNAVAILABLE, Some((RETRY_AFTER, format!("{seconds:.0}"))))
            }
        };
        *response.status_mut() = status;
        if let Some((name, value)) = header
            && let Ok(value) = HeaderValue::try_from(value)
        {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

const UNAVAILABLE: &str = "credentials can't be checked at the moment";

#[cfg(test)]
mod tests {
    use super::*;

    fn told(refusal: Refusal) -> (Code, u16, Option<String>) {
        let response: Response<()> = refusal.to_http();
        let header =
            response.headers().get(WWW_AUTHENTICATE).or(response.headers().get(RETRY_AFTER));
        let header = header.map(|value| value.to_str().unwrap().to_string());
        (refusal.to_status().code(), response.status().as_u16(), header)
    }

    #[test]
    fn verdicts_are_told_without_saying_why_a_credential_is_invalid() {
        let ask = Ask::new("orders.read", "orders/1");
        let verdict = |reason| told(Refusal::of_verdict(reason, &ask));
        let invalid = verdict(DecisionReason::Revoked);
        assert_eq!(invalid.0, Code::Unauthenticated);
        assert_eq!(
            (invalid.1, invalid.2.as_deref()),
            (401, Some(r#"Bearer error="invalid_token""#))
        );
        use DecisionReason::{Expired, Malformed, NotValid, Suspended, UnknownKey};
        for reason in [Expired, Suspended, NotValid, UnknownKey, Malformed] {
            assert_eq!(verdict(reason), invalid);
        }
        assert_eq!(told(Refusal::NoToken), (Code::Unauthenticated, 401, Some("Bearer".into())));
        assert_eq!(verdict(DecisionReason::NoGrant).0, Code::PermissionDenied);
        assert_eq!(verdict(DecisionReason::Network).1, 403);
        assert_eq!(verdict(DecisionReason::Rate), (Code::ResourceExhausted, 429, None));
        assert_eq!(told(Refusal::Forbidden), (Code::PermissionDenied, 403, None));
    }

    #[test]
    fn without_a_verdict_nobody_passes_and_when_to_come_back_is_said() {
        assert_eq!(told(Refusal::too_many()), (Code::Unavailable, 503, Some("1".into())));
        let status = Status::with_error_details(
            Code::Unavailable,
            "",
            ErrorDetails::with_retry_info(Some(Duration::from_millis(2_100))),
        );
        let refusal = Refusal::of_failure(status.into());
        assert_eq!(
            refusal.to_status().get_error_details().retry_info().unwrap().retry_delay,
            Some(Duration::from_millis(2_100))
        );
        assert_eq!(told(refusal), (Code::Unavailable, 503, Some("3".into())));
        // Our own key is refused: that is not the caller's fault, and lets nobody through.
        let own = Refusal::of_failure(Status::unauthenticated("no").into());
        assert_eq!(told(own).0, Code::Unavailable);
        let strange = Refusal::of_failure(Status::invalid_argument("no").into());
        assert_eq!(strange, Refusal::Forbidden);
    }
}
