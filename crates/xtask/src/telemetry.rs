//! What the collector wrote: OTLP as JSON, an export a line.

use std::fs;
use std::path::Path;

use crate::json::Json;
use crate::process::Result;

/// A span, with what its resource and scope say.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) scope: String,
    pub(crate) schema_url: String,
    pub(crate) name: String,
    /// 2: server, 3: client, as OTLP numbers them.
    pub(crate) kind: u64,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: String,
    pub(crate) attributes: Attributes,
    /// Trace and span that it links to.
    links: Vec<(String, String)>,
}

impl Span {
    pub(crate) fn links_to(&self, other: &Span) -> bool {
        self.links.iter().any(|link| *link == (other.trace_id.clone(), other.span_id.clone()))
    }
}

/// A log record.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) service: String,
    pub(crate) event_name: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) attributes: Attributes,
}

/// A metric as one export tells it.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    /// Each with its count or sum.
    pub(crate) points: Vec<(Attributes, u64)>,
}

pub(crate) const SERVER: u64 = 2;
pub(crate) const CLIENT: u64 = 3;

/// Names and values; numbers and truth values as text.
#[derive(Debug)]
pub(crate) struct Attributes(Vec<(String, String)>);

impl Attributes {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn hold(&self, wanted: &str) -> bool {
        self.0.iter().any(|(_, value)| value == wanted)
    }

    fn of(holder: &Json) -> Attributes {
        let pair = |attribute: &Json| {
            let value = match attribute.at("value")? {
                Json::Object(fields) => &fields.first()?.1,
                _ => return None,
            };
            Some((text(attribute, "key"), shown(value)))
        };
        Attributes(items(holder, "attributes").iter().filter_map(pair).collect())
    }
}

/// All spans in a folder that the collector wrote to.
pub(crate) fn spans_in(folder: &Path) -> Result<Vec<Span>> {
    read_all(&folder.join("traces.jsonl"), ["resourceSpans", "scopeSpans", "spans"], span_of)
}

/// All log records.
pub(crate) fn records_in(folder: &Path) -> Result<Vec<Record>> {
    read_all(&folder.join("logs.jsonl"), ["resourceLogs", "scopeLogs", "logRecords"], record_of)
}

/// All metrics of Keyledger, in the order in which they came.
pub(crate) fn metrics_in(folder: &Path) -> Result<Vec<Metric>> {
    let names = ["resourceMetrics", "scopeMetrics", "metrics"];
    read_all(&folder.join("metrics.jsonl"), names, |_, _, metric| metric_of(metric))
}

/// Signals lie in scopes, which lie in resources.
fn read_all<T>(
    file: &Path,
    [resources, scopes, signals]: [&str; 3],
    made: impl Fn(&Json, &Json, &Json) -> T,
) -> Result<Vec<T>> {
    let mut all = vec![];
    for export in exports(file)? {
        for of_resource in items(&export, resources) {
            for of_scope in items(of_resource, scopes) {
                let signals = items(of_scope, signals).iter();
                all.extend(signals.map(|signal| made(of_resource, of_scope, signal)));
            }
        }
    }
    Ok(all)
}

/// Fails if one of these stands in a file that the collector wrote.
pub(crate) fn holds_none_of(folder: &Path, secrets: &[&str]) -> Result {
    for name in ["traces.jsonl", "metrics.jsonl", "logs.jsonl"] {
        let text = read(&folder.join(name))?;
        if let Some(place) = secrets.iter().position(|secret| text.contains(secret)) {
            return Err(format!("{name} of the collector holds secret or personal text {place}"));
        }
    }
    Ok(())
}

fn span_of(of_resource: &Json, of_scope: &Json, span: &Json) -> Span {
    Span {
        service: service_of(of_resource),
        scope: of_scope.at("scope.name").and_then(Json::text).unwrap_or_default().to_owned(),
        schema_url: text(of_scope, "schemaUrl"),
        name: text(span, "name"),
        kind: span.at("kind").and_then(Json::number).unwrap_or_default(),
        trace_id: text(span, "traceId"),
        span_id: text(span, "spanId"),
        parent_id: text(span, "parentSpanId"),
        attributes: Attributes::of(span),
        links: items(span, "links")
            .iter()
            .map(|l| (text(l, "traceId"), text(l, "spanId")))
            .collect(),
    }
}

fn record_of(of_resource: &Json, _: &Json, record: &Json) -> Record {
    Record {
        service: service_of(of_resource),
        event_name: text(record, "eventName"),
        trace_id: text(record, "traceId"),
        span_id: text(record, "spanId"),
        attributes: Attributes::of(record),
    }
}

fn metric_of(metric: &Json) -> Metric {
    let kinds = ["sum", "gauge", "histogram"];
    let points = kinds.iter().flat_map(|kind| items(metric, &format!("{kind}.dataPoints")));
    let number = |point: &Json| {
        point.at("asInt").or_else(|| point.at("count")).and_then(Json::number).unwrap_or_default()
    };
    let points = points.map(|point| (Attributes::of(point), number(point))).collect();
    Metric { name: text(metric, "name"), points }
}

fn service_of(of_resource: &Json) -> String {
    let attributes = of_resource.at("resource").map(Attributes::of);
    attributes.and_then(|a| a.get("service.name").map(str::to_owned)).unwrap_or_default()
}

/// A line that has no end yet is being written.
fn exports(file: &Path) -> Result<Vec<Json>> {
    let fault = |reason| format!("{}: {reason}", file.display());
    let text = read(file)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| Json::parse(line).map_err(fault)).collect()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn items<'a>(value: &'a Json, path: &str) -> &'a [Json] {
    match value.at(path) {
        Some(Json::List(items)) => items,
        _ => &[],
    }
}

fn text(value: &Json, path: &str) -> String {
    value.at(path).and_then(Json::text).unwrap_or_default().to_owned()
}

fn shown(value: &Json) -> String {
    match value {
        Json::Text(text) | Json::Number(text) => text.clone(),
        Json::Bool(flag) => flag.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_with_its_resource_and_scope() {
        let export = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name",
            "value":{"stringValue":"keyledger"}}]},"scopeSpans":[{"scope":{"name":"s"},
            "schemaUrl":"u","spans":[{"traceId":"a1","spanId":"b2","parentSpanId":"c3","name":"n",
            "kind":2,"links":[{"traceId":"a1","spanId":"b2"}],"attributes":[{"key":"x","value":{"intValue":"12"}},
            {"key":"y","value":{"boolValue":true}}]}]}]}]}"#;
        let folder = std::env::temp_dir().join(format!("keyledger-spans-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("traces.jsonl"), export.replace('\n', "") + "\n{").unwrap();
        let spans = spans_in(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((span.service.as_str(), span.scope.as_str()), ("keyledger", "s"));
        assert_eq!((span.schema_url.as_str(), span.name.as_str()), ("u", "n"));
        assert_eq!((span.kind, span.trace_id.as_str()), (SERVER, "a1"));
        assert_eq!((span.span_id.as_str(), span.parent_id.as_str()), ("b2", "c3"));
        assert_eq!(
            (span.attributes.get("x"), span.attributes.get("y")),
            (Some("12"), Some("true"))
        );
        assert_eq!(span.attributes.get("z"), None);
        assert!(span.links_to(span));
    }
}
