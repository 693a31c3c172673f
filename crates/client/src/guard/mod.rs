//! The guard of a service: asks Keyledger whether the token of an incoming call may do what the call is about, and fails closed.
//!
//! - `answers`: answers that may be kept, and when they may not be given any more. Pure.
//! - `watch`: follows WatchKeys, which drops kept answers.
//! - `numbering`: how these uses are numbered, in sessions. Pure.
//! - `reports`: sends the uses that were answered from kept answers.
//! - `layer`: the guard before a tonic or axum service.
//! - `refusal`: what a refused caller is told.

mod answers;
mod keeping;
mod layer;
mod numbering;
mod refusal;
mod reports;
mod watch;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use keyledger_proto::entry::{Decision, DecisionReason, Grant};
use keyledger_proto::{Client as Asker, VerifyKeyRequest, VerifyKeyResponse};
use opentelemetry::trace::get_active_span;
use opentelemetry::{KeyValue, Value};
use tokio::sync::Semaphore;
use tonic::Request;

pub use keeping::Keeping;
pub use layer::{Access, GuardLayer, Guarded};
pub use refusal::Refusal;
pub use reports::Unreported;

use crate::call::{Client, answered_within};
use crate::config::is_one_word;
use crate::names;
use keeping::{Kept, Question};

/// Longest user agent that is passed on, in bytes.
const MAX_USER_AGENT: usize = 512;

/// What Keyledger refuses in a line of text: controls, and the bidirectional and invisible formatting characters of Unicode. The same
/// as in its core, as a test compares.
fn is_unsafe_in_a_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// What a caller's key must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Such as `orders.read`.
    pub permission: String,
    /// A path such as `orders/4711`, at most 512 bytes.
    pub resource: String,
    /// For whom the token was presented, if the service says so: at most 128 bytes.
    pub audience: String,
    /// Whether an answer that was kept won't do.
    pub strictly: bool,
}

impl Ask {
    pub fn new(permission: impl Into<String>, resource: impl Into<String>) -> Ask {
        let (permission, resource) = (permission.into(), resource.into());
        Ask { permission, resource, audience: String::new(), strictly: false }
    }

    /// The token was presented for this audience.
    pub fn audience(self, audience: impl Into<String>) -> Ask {
        Ask { audience: audience.into(), ..self }
    }

    /// Never by an answer that was kept: for what can't be undone.
    pub fn strictly(self) -> Ask {
        Ask { strictly: true, ..self }
    }
}

/// Where a token came from. Keyledger keeps it sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    pub address: Option<IpAddr>,
    pub user_agent: String,
}

impl Source {
    fn address_text(&self) -> String {
        self.address.map(|address| address.to_canonical().to_string()).unwrap_or_default()
    }

    /// One line, cut at the end of a character, without what Keyledger refuses.
    fn user_agent_text(&self) -> String {
        let end = self.user_agent.floor_char_boundary(MAX_USER_AGENT);
        self.user_agent[..end].replace(is_unsafe_in_a_line, " ")
    }
}

/// That a key may do what was asked. The layer puts it into the extensions of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The key, a UUID.
    pub key_id: String,
    /// Which of its secrets was presented.
    pub version: u32,
    /// What was asked.
    pub permission: String,
    /// On what.
    pub resource: String,
    /// The grant that covers it.
    pub matched_grant: Option<Grant>,
    /// The role that the grant came from; empty if it is the key's own.
    pub matched_role: String,
    /// When the key ends; absent for never.
    pub expire_time: Option<prost_types::Timestamp>,
    /// Position of the page that records the use, or the use of the answer that was kept.
    pub position: Option<u64>,
    /// Index in that page.
    pub index: Option<u32>,
    /// Whether it was answered from an answer that was kept: the use is then reported a moment later.
    pub kept: bool,
}

/// How a guard works. The defaults are strict.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Most checks at once; further calls are refused as unavailable. By default 256.
    pub at_once: usize,
    /// How long a check may take, connecting included. By default 5 seconds.
    pub patience: Duration,
    /// Keeps answers, where roles and the ledger's policy allow it (BOUNDED freshness). Needs `keys.read` on `keys`, too, for
    /// WatchKeys. By default none is kept.
    pub keeping: Option<Keeping>,
}

impl Default for GuardConfig {
    fn default() -> GuardConfig {
        GuardConfig { at_once: 256, patience: Duration::from_secs(5), keeping: None }
    }
}

/// Checks tokens for a service. Cheap to clone; all clones share connection, bounds and what is kept.
///
/// Each check is strict: durable before it is answered, never behind a revocation. Where keeping is configured an answer may be
/// given again, for as long as Keyledger has granted it, and while WatchKeys tells of every change.
#[derive(Clone)]
pub struct Guard {
    client: Client,
    places: Arc<Semaphore>,
    patience: Duration,
    kept: Option<Arc<Kept>>,
}

impl Guard {
    /// Where answers are kept this starts two tasks: it needs a tokio runtime then.
    pub fn new(client: Client, config: GuardConfig) -> Guard {
        let kept = config.keeping.map(|keeping| Kept::start(&client, keeping));
        let places = Arc::new(Semaphore::new(config.at_once));
        Guard { client, places, patience: config.patience, kept }
    }

    /// Whether the key behind a token may do something. What came of it stands on the current span.
    pub async fn check(&self, token: &str, ask: &Ask, from: &Source) -> Result<Verified, Refusal> {
        if !is_one_word(token) {
            return Err(Refusal::NoToken);
        }
        let _place = self.places.try_acquire().map_err(|_| Refusal::too_many())?;
        let kept = self.kept.as_ref().filter(|_| !ask.strictly);
        let question = kept.map(|kept| kept.question(token, ask, from));
        if let (Some(kept), Some(question)) = (kept, &question)
            && let Some(verified) = kept.answer(question, from)
        {
            note(&verified.key_id, verified.version, DecisionReason::Granted, verified.position);
            return Ok(verified);
        }
        self.check_strictly(token, ask, from, kept.zip(question)).await
    }

    async fn check_strictly(
        &self,
        token: &str,
        ask: &Ask,
        from: &Source,
        keep: Option<(&Arc<Kept>, Question)>,
    ) -> Result<Verified, Refusal> {
        let mut request = Request::new(VerifyKeyRequest {
            token: token.into(),
            permission: ask.permission.clone(),
            resource: ask.resource.clone(),
            audience: ask.audience.clone(),
            client: Some(Asker {
                address: from.address_text(),
                user_agent: from.user_agent_text(),
            }),
            keep: keep.as_ref().map(|(kept, _)| kept.longest()),
            ..VerifyKeyRequest::default()
        });
        request.set_timeout(self.patience);
        let sent = answers::Moment::now();
        let mut keys = self.client.keys();
        let answer = answered_within(self.patience, keys.verify_key(request)).await;
        let answer = answer.map_err(Refusal::of_failure)?;
        note(&answer.key_id, answer.version, answer.reason(), answer.position);
        if answer.decision() != Decision::Allow {
            if let Some(kept) = &self.kept {
                kept.deny(token, &answer);
            }
            return Err(Refusal::of_verdict(answer.reason(), ask));
        }
        let verified = verified(&answer, ask);
        if let (Some((kept, question)), Some(granted)) = (keep, answer.kept) {
            kept.keep(question, &verified, granted, sent);
        }
        Ok(verified)
    }

    /// Ends keeping: reports the uses that wait, for at most the time that is configured. Checks go on, strictly. An error says
    /// how many uses could not be reported.
    pub async fn close(&self) -> Result<(), Unreported> {
        match &self.kept {
            Some(kept) => kept.close().await,
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("client", &self.client).finish_non_exhaustive()
    }
}

fn verified(answer: &VerifyKeyResponse, ask: &Ask) -> Verified {
    Verified {
        key_id: answer.key_id.clone(),
        version: answer.version,
        permission: ask.permission.clone(),
        resource: ask.resource.clone(),
        matched_grant: answer.matched_grant.clone(),
        matched_role: answer.matched_role.clone(),
        expire_time: answer.expire_time,
        position: answer.position,
        index: answer.index,
        kept: false,
    }
}

/// On the span of the current OpenTelemetry context, and on that of `tracing` where it has declared such fields.
fn note(key_id: &str, version: u32, reason: DecisionReason, position: Option<u64>) {
    let decision = match reason {
        DecisionReason::Granted => "allow",
        _ => "deny",
    };
    let name = reason.as_str_name();
    let reason = name.strip_prefix("DECISION_REASON_").unwrap_or(name);
    let span = tracing::Span::current();
    span.record(names::DECISION, decision).record(names::REASON_CODE, reason);
    let mut attributes: Vec<(&'static str, Value)> =
        vec![(names::DECISION, decision.into()), (names::REASON_CODE, reason.into())];
    if !key_id.is_empty() {
        span.record(names::KEY_ID, key_id).record(names::KEY_VERSION, version);
        attributes.push((names::KEY_ID, key_id.to_string().into()));
        attributes.push((names::KEY_VERSION, i64::from(version).into()));
    }
    if let Some(position) = position {
        span.record(names::ENTRY_POSITION, position);
        attributes.push((names::ENTRY_POSITION, position.cast_signed().into()));
    }
    get_active_span(|span| {
        span.set_attributes(attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)));
    });
}

#[cfg(test)]
mod tests {
    use keyledger_proto::{ReportUsesRequest, ReportedUse};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_server_that_never_answers_a_handshake_is_unavailable_within_the_patience() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Nobody accepts: the system does, and no byte ever comes.
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let patience = Duration::from_millis(20);
            let endpoint = format!("https://{}", listener.local_addr().unwrap());
            let client = Client::lazy(Config::new(endpoint, "klk_x").timeout(patience)).unwrap();
            let guard = Guard::new(client.clone(), GuardConfig { patience, ..Default::default() });
            let ask = Ask::new("orders.read", "orders/1");
            let refused = guard.check("klk_y", &ask, &Source::default()).await.unwrap_err();
            let Refusal::Unavailable { cause: Some(cause), .. } = refused else {
                panic!("{refused:?}")
            };
            let verify = client.verify(VerifyKeyRequest::default()).await.unwrap_err();
            let record = client.record(vec![]).await.unwrap_err();
            for error in [*cause, verify, record] {
                assert_eq!(error.code, tonic::Code::Unavailable);
                assert_eq!(error.message, "no answer in time", "not that of connecting");
                assert!(error.may_be_repeated());
            }
        });
    }

    #[test]
    fn a_user_agent_is_sent_without_what_would_be_refused_and_with_all_else() {
        let is_accepted = |client_user_agent: String| {
            keyledger_proto::parse::report_uses(ReportUsesRequest {
                session_id: "0198f0c4-7a00-7000-8000-000000000001".into(),
                uses: vec![ReportedUse {
                    receipt: vec![7],
                    time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                    client_user_agent,
                    ..ReportedUse::default()
                }],
                ..ReportUsesRequest::default()
            })
            .is_ok()
        };
        for c in '\0'..='\u{ffff}' {
            assert_eq!(is_accepted(c.into()), !is_unsafe_in_a_line(c), "{c:?}");
        }
        let user_agent = format!("a\u{202e}b\u{200b}c\nd{}", "é".repeat(400));
        let text = Source { address: None, user_agent }.user_agent_text();
        assert!(text.starts_with("a b c dé") && is_accepted(text));
    }
}
