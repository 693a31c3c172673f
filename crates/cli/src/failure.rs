//! Failures: what went wrong, why, and what to do next. One place turns a gRPC status into that.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, StatusExt};

use crate::screen::{Tone, colour_wanted, inert, paint};

/// A failure as a person reads it.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    message: String,
    details: Vec<String>,
    next: Option<String>,
}

/// What a failed call was about, for advice that names files and ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Circumstances {
    pub endpoint: String,
    /// Where the token came from, such as `the file /var/lib/keyledger/admin.token`.
    pub token_source: String,
    /// The request id of a change: with it a repeat is safe.
    pub request_id: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), ..Failure::default() }
    }

    /// Adds what to do next, as a sentence without a capital and a full stop.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = Some(next.into());
        self
    }

    /// Adds another thing that can be done.
    pub(crate) fn and_next(mut self, also: &str) -> Failure {
        self.next = Some(self.next.map_or(also.into(), |next| format!("{next}; {also}")));
        self
    }

    pub(crate) fn of_call(status: &Status, circumstances: &Circumstances) -> Failure {
        if let Some(cause) = status.source() {
            return Failure::of_connection(cause, circumstances);
        }
        let details = status.get_error_details();
        let of_fields = details.bad_request().is_some_and(|b| !b.field_violations.is_empty());
        let message = match status.message() {
            // Which fields and what is wrong with them stands below, a line each.
            _ if of_fields && reason(&details) == "INVALID_FIELD" => {
                "the request is refused".into()
            }
            "" => format!("the call failed: {}", status.code().description()),
            text => inert(text),
        };
        Failure {
            message,
            details: describe(status.code(), &details),
            next: advice(status.code(), &details, circumstances),
        }
    }

    /// A status that was made on our side, because the server's never came.
    fn of_connection(cause: &(dyn Error + 'static), about: &Circumstances) -> Failure {
        let cause = innermost(cause);
        let endpoint = &about.endpoint;
        let failure = match cause.is::<TimeoutExpired>() {
            true => Failure::new(format!("{endpoint} didn't answer in time")),
            false => Failure::new(format!(
                "the connection to {endpoint} broke: {}",
                inert(&cause.to_string())
            )),
        };
        failure.next(match about.request_id {
            Some(_) => format!(
                "it is not known whether the change was made: to find out, {}",
                again(about)
            ),
            None => unreachable_advice(endpoint),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// Prints an error to standard error.
pub(crate) fn print(error: &anyhow::Error) {
    let colour = colour_wanted(io::stderr().is_terminal());
    eprintln!("{} {}", paint("error:", Tone::Bad, colour), inert(&format!("{error:#}")));
    let Some(failure) = error.downcast_ref::<Failure>() else { return };
    for detail in &failure.details {
        eprintln!("  {detail}");
    }
    if let Some(next) = &failure.next {
        eprintln!("{} {}", paint("next:", Tone::Strong, colour), inert(next));
    }
}

/// Whether what ended a stream passes: the server stopped, can't be reached or lost patience, or the connection broke.
pub(crate) fn may_be_repeated(status: &Status) -> bool {
    match reason(&status.get_error_details()) {
        "" => matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        ),
        "READER_TOO_SLOW" => true,
        _ => status.code() == Code::Unavailable,
    }
}

/// A reader such as `head` has seen enough: no failure.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

fn describe(code: Code, details: &ErrorDetails) -> Vec<String> {
    let violations = details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or(&[]);
    let fields = violations.iter().map(|v| inert(&format!("{}: {}", v.field, v.description)));
    let reason = match reason(details) {
        "" => format!("code: {code:?}"),
        reason => inert(&format!("code: {reason}")),
    };
    let retry = details.retry_info().and_then(|r| r.retry_delay);
    let retry = retry.map(|delay| format!("retry after: {} s", delay.as_secs_f32()));
    fields.chain([reason]).chain(retry).collect()
}

/// The stable reason, without the prefix that the enum's names share.
fn reason(details: &ErrorDetails) -> &str {
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    reason.strip_prefix("ERROR_REASON_").unwrap_or(reason)
}

fn advice(code: Code, details: &ErrorDetails, about: &Circumstances) -> Option<String> {
    let metadata = |name: &str| details.error_info().and_then(|i| i.metadata.get(name)).cloned();
    let token = &about.token_source;
    Some(match reason(details) {
        "PERMISSION_DENIED" => match (metadata("permission"), metadata("resource")) {
            (Some(permission), Some(resource)) => format!(
                "the key from {token} needs {permission} on {resource}; `keyledger keys whoami` shows what it holds"
            ),
            _ => format!("use another token than that from {token}"),
        },
        "EXCEEDS_OWN_RIGHTS" => format!(
            "give no more, and for no longer, than the key from {token} holds; `keyledger keys whoami` shows it"
        ),
        "KEY_ENDED" => format!("the key from {token} has ended; ask for a new one"),
        "INVALID_FIELD" | "MALFORMED_MESSAGE" | "MESSAGE_TOO_LARGE" | "ENTRY_TOO_LARGE" => {
            "correct what is named above, and run the command again".into()
        }
        "PAGE_TOKEN_INVALID" => "start at the first page: leave out --page-token".into(),
        "RESUME_TOKEN_INVALID" | "RIGHTS_CHANGED" => {
            "begin the export again: remove FILE.partial and FILE.partial.state".into()
        }
        "KEY_NOT_FOUND" => "`keyledger keys list` shows the keys of this ledger".into(),
        "TOO_MANY_KEYS" => "leave out those that have ended (--live-only), or allow more (--max-keys)".into(),
        "TOO_FAR_BACK" => {
            "`keyledger keys get KEY_ID` with the same moment shows a single key as it was".into()
        }
        "ROLE_NOT_FOUND" => "`keyledger roles list` shows the roles of this ledger".into(),
        "EVENT_NOT_FOUND" => {
            "`keyledger audit list` shows the events that this key may read".into()
        }
        "ROLE_EXISTS" | "LEDGER_EXISTS" => "choose another name: a name is never used twice".into(),
        "PREFIX_TAKEN" => {
            "register under another prefix, or with a key of the owner of this one; `keyledger roles permissions` shows it"
                .into()
        }
        "ANOMALY_NOT_FOUND" => {
            "`keyledger audit anomalies list` shows what was noticed, each with its position as AT".into()
        }
        "APPROVAL_REQUIRED" => "name what approves it: --approval-ref".into(),
        "OWNER_NOT_FOUND" | "OWNER_STATUS" => {
            "`keyledger keys owners` shows who owns keys, and who has left".into()
        }
        "KEY_STATE" => "`keyledger keys get KEY_ID` shows its state".into(),
        "REQUEST_ID_REUSED" => "leave out --request-id, or give a new one".into(),
        "SYSTEM_LEDGER_ONLY" => {
            "use the token of the system ledger: --token-file <data-dir>/system.token".into()
        }
        "STORAGE_UNAVAILABLE" | "OVERLOADED" => {
            format!("nothing was changed; wait a moment, then {}", again(about))
        }
        "OUTCOME_UNKNOWN" => format!("find out whether it was done: {}", again(about)),
        "LEDGER_STOPPED" => {
            "an operator must look: `keyledger doctor`, and `keyledger verify --data-dir DIR`"
                .into()
        }
        "CLOCK_SKEW" => "an operator must set the clocks of the server and of its database".into(),
        "READER_TOO_SLOW" => match metadata("next_position").or_else(|| metadata("cursor")) {
            Some(position) => format!("continue with --from {position}"),
            None => "continue from the newest position that was printed".into(),
        },
        "NO_SUCH_METHOD" => "the server is of another version than this command".into(),
        _ => return advice_by_code(code, about),
    })
}

/// For statuses that don't come from our server's own list: proxies, broken connections, deadlines.
fn advice_by_code(code: Code, about: &Circumstances) -> Option<String> {
    let Circumstances { endpoint, token_source, .. } = about;
    Some(match code {
        Code::Unauthenticated => format!(
            "the token came from {token_source}: it may be wrong, ended, or of another server; give another with \
             --token-file or KEYLEDGER_TOKEN"
        ),
        Code::Unavailable if about.request_id.is_some() => {
            format!(
                "it is not known whether the change was made at {endpoint}; to find out, {}",
                again(about)
            )
        }
        Code::Unavailable => unreachable_advice(endpoint),
        Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::ResourceExhausted => {
            again(about)
        }
        Code::Unimplemented => format!("{endpoint} is no Keyledger server, or of another version"),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            "look into the server's log for this time; it names the cause".into()
        }
        _ => return None,
    })
}

/// The innermost cause says most: `Connection refused`, an unknown issuer.
pub(crate) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// What to do when nobody answers.
pub(crate) fn unreachable_advice(endpoint: &str) -> String {
    format!(
        "is the server running at {endpoint}? `keyledger dev` starts one; --endpoint or KEYLEDGER_ENDPOINT names another"
    )
}

fn again(about: &Circumstances) -> String {
    match &about.request_id {
        Some(id) => format!("run the same command with --request-id {id}"),
        None => "run the command again".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn failure(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Failure {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut details = ErrorDetails::with_error_info(reason, "keyledger.v1", metadata);
        details.add_bad_request_violation("purpose", "must not be empty\u{202e}");
        let status = Status::with_error_details(code, "no\u{1b}[2J", details);
        let about = Circumstances {
            endpoint: "http://127.0.0.1:7770".into(),
            token_source: "the file /x/admin.token".into(),
            request_id: Some("77".into()),
        };
        Failure::of_call(&status, &about)
    }

    #[test]
    fn a_denial_names_the_permission_the_resource_and_the_token() {
        let metadata = [("permission", "keys.create"), ("resource", "keys")];
        let next =
            failure(Code::PermissionDenied, "ERROR_REASON_PERMISSION_DENIED", &metadata).next;
        let next = next.unwrap();
        assert!(next.contains("keys.create on keys") && next.contains("/x/admin.token"), "{next}");
    }

    #[test]
    fn an_unknown_outcome_says_how_to_find_out() {
        let next = failure(Code::Unavailable, "OUTCOME_UNKNOWN", &[]).next.unwrap();
        assert!(next.contains("--request-id 77"), "{next}");
    }

    #[test]
    fn all_that_the_server_says_is_inert() {
        let failure = failure(Code::InvalidArgument, "OTHER", &[]);
        assert_eq!(failure.message, "no\\u{1b}[2J");
        assert_eq!(failure.details, ["purpose: must not be empty\\u{202e}", "code: OTHER"]);
    }

    #[test]
    fn what_is_wrong_with_a_field_is_said_once() {
        let failure = failure(Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(failure.message, "the request is refused");
        assert_eq!(failure.details, ["purpose: must not be empty\\u{202e}", "code: INVALID_FIELD"]);
    }

    #[test]
    fn a_status_without_details_still_gives_advice() {
        let status = Status::unauthenticated("no");
        let about = Circumstances { token_source: "KEYLEDGER_TOKEN".into(), ..Default::default() };
        let failure = Failure::of_call(&status, &about);
        assert_eq!(failure.details, ["code: Unauthenticated"]);
        assert!(failure.next.unwrap().contains("KEYLEDGER_TOKEN"));
    }
}
