//! Statements to Postgres: the duration of each, and a span of its own where the call that asks has one. Never a value, and no text
//! of an error, which may hold one.

use std::sync::Arc;
use std::time::Instant;

use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span as SdkSpan;

use super::{metrics, span};
use crate::names;
use crate::store::statement::Summary;

/// Postgres gave no SQLSTATE: the connection failed, or what came was no answer.
const OTHER: &str = "_OTHER";
/// Nobody waited for it any longer.
const CANCELLED: &str = "cancelled";

/// Whether anything is told of a statement that begins now.
pub(crate) fn are_wanted() -> bool {
    metrics::are_on() || span::sampled_tracer().is_some()
}

/// A statement that was sent.
pub(crate) struct Running {
    began: Instant,
    attributes: Vec<KeyValue>,
    span: Option<SdkSpan>,
    ended: bool,
}

impl Running {
    /// From now on it is timed. Its span is a child of the context's, and never the active one: statements may overlap.
    pub(crate) fn begin(namespace: Arc<str>, summary: Summary) -> Running {
        let mut attributes = vec![
            KeyValue::new(names::DB_SYSTEM_NAME, "postgresql"),
            KeyValue::new(names::DB_NAMESPACE, namespace),
            KeyValue::new(names::DB_OPERATION_NAME, summary.operation),
        ];
        attributes.extend(summary.collection.map(|c| KeyValue::new(names::DB_COLLECTION_NAME, c)));
        let span = span::sampled_tracer().map(|tracer| {
            let name = match summary.collection {
                Some(collection) => format!("{} {collection}", summary.operation),
                None => summary.operation.to_string(),
            };
            let mut told = attributes.clone();
            told.push(KeyValue::new(names::DB_QUERY_SUMMARY, name.clone()));
            told.extend(summary.function.map(|f| KeyValue::new(names::CODE_FUNCTION_NAME, f)));
            let builder = tracer.span_builder(name).with_kind(SpanKind::Client);
            tracer.build_with_context(builder.with_attributes(told), &Context::current())
        });
        Running { began: Instant::now(), attributes, span, ended: false }
    }

    /// It has ended: well, or with an error that may have a SQLSTATE.
    pub(crate) fn end(mut self, failed: Option<Option<&str>>) {
        match failed {
            None => self.tell(None, None),
            Some(state) => self.tell(Some(state.unwrap_or(OTHER)), state),
        }
    }

    fn tell(&mut self, error: Option<&str>, state: Option<&str>) {
        self.ended = true;
        let took = self.began.elapsed();
        let error = error.map(|e| KeyValue::new(names::ERROR_TYPE, e.to_string()));
        let state = state.map(|s| KeyValue::new(names::DB_RESPONSE_STATUS_CODE, s.to_string()));
        if let Some(mut span) = self.span.take() {
            if error.is_some() {
                span.set_status(Status::error(""));
            }
            span.set_attributes(error.iter().chain(&state).cloned());
            span.end();
        }
        self.attributes.extend(error.into_iter().chain(state));
        metrics::statement_ended(took, &self.attributes);
    }
}

/// Whoever asked has gone away, or its time was over.
impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Some(CANCELLED), None);
        }
    }
}
