//! Writes what the collector of a test was sent, as the file exporter of the OpenTelemetry Collector does: OTLP as JSON, a message
//! a line.

use std::fs::File;
use std::io::Write;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

pub(crate) fn spans(file: &mut File, export: ExportTraceServiceRequest) {
    let resources = export.resource_spans.iter().map(|of| {
        let scopes = of.scope_spans.iter();
        let scopes =
            scopes.map(|s| json!({ "spans": s.spans.iter().map(span).collect::<Vec<_>>() }));
        json!({ "resource": resource(&of.resource), "scopeSpans": scopes.collect::<Vec<_>>() })
    });
    line(file, &json!({ "resourceSpans": resources.collect::<Vec<_>>() }));
}

pub(crate) fn logs(file: &mut File, export: &ExportLogsServiceRequest) {
    let resources = export.resource_logs.iter().map(|of| {
        let scopes = of.scope_logs.iter().map(|s| {
            let records: Vec<Value> = s.log_records.iter().map(log).collect();
            json!({ "logRecords": records })
        });
        json!({ "resource": resource(&of.resource), "scopeLogs": scopes.collect::<Vec<_>>() })
    });
    line(file, &json!({ "resourceLogs": resources.collect::<Vec<_>>() }));
}

fn line(file: &mut File, message: &Value) {
    writeln!(file, "{message}").expect("the scenario's folder is ours");
}

fn resource(resource: &Option<Resource>) -> Value {
    json!({ "attributes": attributes(resource.as_ref().map_or(&[], |r| &r.attributes)) })
}

fn span(span: &Span) -> Value {
    let links = span.links.iter().map(|link| {
        let (trace, span) = (hex::encode(&link.trace_id), hex::encode(&link.span_id));
        json!({ "traceId": trace, "spanId": span, "attributes": attributes(&link.attributes) })
    });
    json!({
        "traceId": hex::encode(&span.trace_id),
        "spanId": hex::encode(&span.span_id),
        "parentSpanId": hex::encode(&span.parent_span_id),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": span.start_time_unix_nano.to_string(),
        "endTimeUnixNano": span.end_time_unix_nano.to_string(),
        "attributes": attributes(&span.attributes),
        "links": links.collect::<Vec<_>>(),
    })
}

fn log(log: &LogRecord) -> Value {
    json!({
        "timeUnixNano": log.time_unix_nano.to_string(),
        "severityNumber": log.severity_number,
        "eventName": log.event_name,
        "traceId": hex::encode(&log.trace_id),
        "spanId": hex::encode(&log.span_id),
        "attributes": attributes(&log.attributes),
    })
}

fn attributes(attributes: &[KeyValue]) -> Vec<Value> {
    let one = |a: &KeyValue| json!({ "key": a.key, "value": any(a.value.as_ref()) });
    attributes.iter().map(one).collect()
}

/// Whole numbers are texts in the JSON of protobuf.
fn any(value: Option<&AnyValue>) -> Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!({ "stringValue": text }),
        Some(Any::BoolValue(flag)) => json!({ "boolValue": flag }),
        Some(Any::IntValue(number)) => json!({ "intValue": number.to_string() }),
        Some(Any::DoubleValue(number)) => json!({ "doubleValue": number }),
        // Nothing that is walked by.
        _ => json!({}),
    }
}
