//! What the ledger holds of a trace, asked for with grpcurl.

use crate::grpcurl::Grpcurl;
use crate::interop::AUDIT_SERVICE;
use crate::json::Json;
use crate::process::Result;
use crate::replies::{ensure, text_at};

/// A trace of ours has far fewer events.
const MAX_PAGES: usize = 20;

/// An event, as far as it is compared.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) position: u64,
    /// Such as `key.created`.
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) key_id: String,
    /// Empty if it is no use of a key.
    pub(crate) decision: String,
    pub(crate) reason_code: String,
    /// What a service recorded: what was done, and by which person.
    pub(crate) action: String,
    pub(crate) user: String,
    pub(crate) span_id: String,
}

/// All events of a trace, oldest first.
pub(crate) fn events_of_trace(client: &Grpcurl, trace_id: &str) -> Result<Vec<Event>> {
    let mut events = vec![];
    let mut page_token = String::new();
    for _ in 0..MAX_PAGES {
        let body = format!(
            r#"{{"filter":{{"trace_id":"{trace_id}"}},"order":"EVENT_ORDER_OLDEST_FIRST","page_token":"{page_token}"}}"#
        );
        let reply = client.call(&format!("{AUDIT_SERVICE}/ListEvents"), &body)?;
        if let Some(Json::List(found)) = reply.at("events") {
            for event in found {
                events.push(event_of(event, trace_id)?);
            }
        }
        match reply.at("nextPageToken").and_then(Json::text) {
            Some(next) if !next.is_empty() => page_token = next.to_owned(),
            _ => return Ok(events),
        }
    }
    Err(format!("the events of trace {trace_id} have more than {MAX_PAGES} pages"))
}

fn event_of(event: &Json, trace_id: &str) -> Result<Event> {
    let said = text_at(event, "traceId")?;
    ensure(said == trace_id, || format!("asked for trace {trace_id}, but got {event:?}"))?;
    let text = |path| event.at(path).and_then(Json::text).unwrap_or_default().to_owned();
    Ok(Event {
        position: event.at("position").and_then(Json::number).unwrap_or_default(),
        name: text_at(event, "type")?.to_owned(),
        category: text("category"),
        key_id: text("keyId"),
        decision: text("decision"),
        reason_code: text("decisionReason").replace("DECISION_REASON_", ""),
        action: text("action"),
        user: text("actor.user"),
        span_id: text("spanId"),
    })
}
