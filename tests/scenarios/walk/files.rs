//! What a collector has written: OTLP as JSON, a message a line, as the file exporter of the OpenTelemetry Collector writes it. And
//! how one walks in it: by links, by parents, by key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Trace id and span id, in hexadecimal.
pub(crate) type Place = (String, String);

#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) place: Place,
    pub(crate) parent: String,
    /// `service.name` of whoever made it.
    pub(crate) service: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) links: Vec<Place>,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// The span in which it happened.
    pub(crate) place: Place,
    pub(crate) event_name: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Everything in some files.
pub(crate) struct Files {
    spans: BTreeMap<Place, Span>,
    logs: Vec<Log>,
}

impl Files {
    pub(crate) fn read(files: &[&Path]) -> Files {
        let mut read = Files { spans: BTreeMap::new(), logs: vec![] };
        for file in files {
            for line in fs::read_to_string(file).expect("the collector has written it").lines() {
                read.take(&serde_json::from_str(line).expect("a message a line"));
            }
        }
        read
    }

    fn take(&mut self, message: &Value) {
        for resource in list(message, "resourceSpans") {
            let service = attributes(&resource["resource"]).remove("service.name");
            for span in list(resource, "scopeSpans").iter().flat_map(|scope| list(scope, "spans")) {
                let span = span_of(span, service.clone().unwrap_or_default());
                self.spans.insert(span.place.clone(), span);
            }
        }
        for resource in list(message, "resourceLogs") {
            let scopes = list(resource, "scopeLogs").iter();
            for log in scopes.flat_map(|scope| list(scope, "logRecords")) {
                self.logs.push(Log {
                    place: place_of(log),
                    event_name: text(log, "eventName"),
                    attributes: attributes(log),
                });
            }
        }
    }

    pub(crate) fn span(&self, place: &Place) -> Option<&Span> {
        self.spans.get(place)
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.values()
    }

    /// The span that it is a child of.
    pub(crate) fn parent(&self, span: &Span) -> Option<&Span> {
        self.span(&(span.place.0.clone(), span.parent.clone()))
    }

    /// The span of the last change of the same key before what happened in a span: its link that is of a change of that key.
    pub(crate) fn last_change(&self, span: &Span) -> Option<&Span> {
        let of_key = |other: &&Span| {
            other.key_id() == span.key_id()
                && other.entry_type().is_some_and(|name| name != "keyledger.key.used")
        };
        let mut found = span.links.iter().filter_map(|place| self.span(place)).filter(of_key);
        let one = found.next();
        assert!(found.next().is_none(), "one last change: {span:?}");
        one
    }

    /// From a span back, by links alone, as far as they lead.
    pub(crate) fn back(&self, from: &Span) -> Vec<&Span> {
        let mut walked: Vec<&Span> = vec![];
        let mut last = self.last_change(from);
        while let Some(span) = last {
            assert!(walked.len() < 1_000, "links lead in a circle");
            walked.push(span);
            last = self.last_change(span);
        }
        walked
    }

    /// The log records about a key, in the order of the ledger.
    pub(crate) fn logs_of(&self, key_id: &str) -> Vec<&Log> {
        let of_key = |log: &&Log| log.attribute("keyledger.key.id") == Some(key_id);
        let mut found: Vec<&Log> = self.logs.iter().filter(of_key).collect();
        found.sort_by_key(|log| log.address());
        // At least once: a repeat is the same.
        found.dedup_by_key(|log| log.address());
        found
    }

    /// The services that took part in a trace.
    pub(crate) fn services(&self, trace_id: &str) -> BTreeSet<&str> {
        let of_trace = self.spans().filter(|span| span.place.0 == trace_id);
        of_trace.map(|span| span.service.as_str()).collect()
    }
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub(crate) fn key_id(&self) -> Option<&str> {
        self.attribute("keyledger.key.id")
    }

    pub(crate) fn entry_type(&self) -> Option<&str> {
        self.attribute("keyledger.entry.type")
    }

    pub(crate) fn position(&self) -> Option<u64> {
        self.attribute("keyledger.entry.position")?.parse().ok()
    }
}

impl Log {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    /// Position, and index if it is a use.
    pub(crate) fn address(&self) -> (u64, Option<u64>) {
        let number = |name| self.attribute(name).and_then(|text| text.parse().ok());
        let position = number("keyledger.entry.position");
        (position.expect("every record names its entry"), number("keyledger.entry.index"))
    }
}

fn span_of(span: &Value, service: String) -> Span {
    Span {
        place: place_of(span),
        parent: text(span, "parentSpanId"),
        service,
        attributes: attributes(span),
        links: list(span, "links").iter().map(place_of).collect(),
    }
}

fn place_of(value: &Value) -> Place {
    (text(value, "traceId"), text(value, "spanId"))
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_string()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// Texts as they are, everything else as JSON writes it.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let pairs = list(of, "attributes").iter().map(|attribute| {
        let value = attribute["value"].as_object().and_then(|value| value.values().next());
        let value = value.map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        (text(attribute, "key"), value.unwrap_or_default())
    });
    pairs.collect()
}
