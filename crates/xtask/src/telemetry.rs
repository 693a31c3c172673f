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
    let mut spans = vec![];
    for export in exports(&folder.join("traces.jsonl"))? {
        for of_resource in items(&export, "resourceSpans") {
            for of_scope in items(of_resource, "scopeSpans") {
                let made = |span| span_of(of_resource, of_scope, span);
                spans.extend(items(of_scope, "spans").iter().map(made));
            }
        }
    }
    Ok(spans)
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
    }
}

fn service_of(of_resource: &Json) -> String {
    let attributes = of_resource.at("resource").map(Attributes::of);
    attributes.and_then(|a| a.get("service.name").map(str::to_owned)).unwrap_or_default()
}

fn exports(file: &Path) -> Result<Vec<Json>> {
    let fault = |reason| format!("{}: {reason}", file.display());
    read(file)?.lines().map(|line| Json::parse(line).map_err(fault)).collect()
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
            "kind":2,"attributes":[{"key":"x","value":{"intValue":"12"}},
            {"key":"y","value":{"boolValue":true}}]}]}]}]}"#;
        let folder = std::env::temp_dir().join(format!("keyledger-spans-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("traces.jsonl"), export.replace('\n', "")).unwrap();
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
    }
}
