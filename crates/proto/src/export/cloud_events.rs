//! CloudEvents 1.0, JSON event format. `source` is the ledger's origin and `id` the event's place in it, so that both together
//! are unique. Attributes of ours: `position`, `index`, `leafhash`, `category`; `traceparent` is that of the Distributed Tracing
//! extension.

use serde_json::{Map, Value, json};

use super::{Exporter, event_json, place, put};
use crate::{AuditEvent, show};

/// An event as a CloudEvent.
pub fn of(exporter: &Exporter, event: &AuditEvent) -> Value {
    let mut object = Map::new();
    put(&mut object, "specversion", "1.0");
    put(&mut object, "id", place(event));
    // RFC 3986 §4.2: a network-path reference.
    put(&mut object, "source", format!("//{}", exporter.origin));
    put(&mut object, "type", format!("keyledger.{}", event.r#type));
    put(&mut object, "subject", subject(event));
    put(&mut object, "time", event.time.map(|t| t.to_string()).unwrap_or_default());
    // The integers of CloudEvents have 32 bits.
    put(&mut object, "position", event.position.unwrap_or_default().to_string());
    put(&mut object, "index", event.index.map(|i| i.to_string()).unwrap_or_default());
    put(&mut object, "leafhash", show::hex(&event.leaf_hash));
    put(&mut object, "category", event.category.as_str());
    if !event.trace_id.is_empty() && !event.span_id.is_empty() {
        put(&mut object, "traceparent", format!("00-{}-{}-00", event.trace_id, event.span_id));
    }
    put(&mut object, "datacontenttype", "application/json");
    put(&mut object, "data", event_json(event));
    json!(object)
}

/// The key that it is about, or what was acted on.
fn subject(event: &AuditEvent) -> &str {
    if event.key_id.is_empty() { &event.resource } else { &event.key_id }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn an_event_has_what_cloud_events_require_and_each_a_place_of_its_own() {
        let of = |event: &AuditEvent| of(&sample::exporter(), event);
        let a_use = of(&sample::a_use());
        assert_eq!(a_use["id"], "17.3");
        assert_eq!(a_use["index"], "3");
        assert_eq!(a_use["time"], "2026-09-21T14:13:20.123456Z");
        assert_eq!(a_use["subject"], "0198c5a0-0000-8000-8000-000000000002");
        assert_eq!(a_use["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let recorded = of(&sample::recorded());
        assert_eq!((&recorded["id"], &recorded["subject"]), (&json!("17"), &json!("portal/web")));
        assert_eq!(recorded["data"]["actor"]["user"], "alice@example.com");
        for event in sample::all() {
            let event = of(&event);
            assert_eq!(event["specversion"], "1.0");
            assert_eq!(event["source"], "//keys.example/main");
            assert!(event["type"].as_str().unwrap().starts_with("keyledger."));
            for (name, value) in event.as_object().unwrap() {
                // Names of attributes: lower-case letters and digits; values of ours are texts.
                assert!(name.chars().all(|c| c.is_ascii_lowercase()), "{name}");
                assert!(name == "data" || value.as_str().is_some_and(|v| !v.is_empty()), "{name}");
            }
        }
    }
}
