//! The span of a call. It is made only where a collector wants spans; one that is not sampled costs nothing more.

use std::future::Future;
use std::sync::OnceLock;

use futures_util::future::Either;
use http::HeaderMap;
use keyledger_ledger::id::Trace;
use keyledger_proto::methods::Method;
use opentelemetry::trace::{FutureExt, SpanKind, TraceContextExt, Tracer, get_active_span};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::context::{remote, traceparent};
use crate::names;

/// What makes spans, once telemetry has started with a collector.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on spans are made.
pub(super) fn make_with(tracer: SdkTracer) {
    // Telemetry starts once in a process.
    let _ = TRACER.set(tracer);
}

/// The span of one call, a child of the caller's if it sent a `traceparent`. It ends with the future that it is around.
pub(crate) struct CallSpan(Option<Context>);

impl CallSpan {
    pub(crate) fn arrived(method: &'static Method, headers: &HeaderMap) -> CallSpan {
        let Some(tracer) = TRACER.get() else { return CallSpan(None) };
        let parent = match remote(headers) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let builder =
            tracer.span_builder(&method.path[1..]).with_kind(SpanKind::Server).with_attributes([
                KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
                KeyValue::new(names::RPC_METHOD, &method.path[1..]),
            ]);
        let span = tracer.build_with_context(builder, &parent);
        let context = parent.with_span(span);
        let sampled = context.span().span_context().is_sampled();
        CallSpan(sampled.then_some(context))
    }

    /// The future, in this span.
    pub(crate) fn around<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        match self.0 {
            Some(context) => Either::Left(future.with_context(context)),
            None => Either::Right(future),
        }
    }
}

/// Notes something on the span of the call that runs, if it has one.
pub(crate) fn record(name: &'static str, value: impl Into<Value>) {
    if TRACER.get().is_some() {
        get_active_span(|span| span.set_attribute(KeyValue::new(name, value)));
    }
}

/// What is signed of the trace: our own span's ids if it is sampled, else those that the caller sent.
pub(crate) fn trace_of_call(headers: &HeaderMap) -> Trace {
    if TRACER.get().is_some() {
        let own = get_active_span(|span| span.span_context().clone());
        if own.is_sampled() {
            return Trace {
                trace_id: own.trace_id().to_bytes(),
                span_id: own.span_id().to_bytes(),
            };
        }
    }
    traceparent(headers).map(|(trace, _)| trace).unwrap_or_default()
}
