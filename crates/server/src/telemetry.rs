//! Telemetry: logs by `tracing` (JSON off a terminal), spans by OTLP where a collector is configured.
//!
//! No header, token, secret or personal text is ever put into a span or log line.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use keyledger_ledger::id::Trace;
use keyledger_proto::methods::Method;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Whether spans go anywhere. Where no collector wants them none are made: a call costs nothing for them.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Keeps telemetry going; flushes spans when it ends.
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logs, and OTLP spans if `OTEL_EXPORTER_OTLP_ENDPOINT` is set. `RUST_LOG` filters the logs.
pub fn start() -> Telemetry {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Log lines are events, not spans. Without the hint, every disabled callsite of every crate would be asked each time.
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.and(events);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let provider = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").and_then(|_| provider());
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    let spans = provider.as_ref().map(|p| {
        let ours = EnvFilter::new("off,keyledger_server=info");
        tracing_opentelemetry::layer().with_tracer(p.tracer("keyledger")).with_filter(ours)
    });
    // Whoever embeds us may have set up logs of its own.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(spans).try_init();
    Telemetry(provider)
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            let _ = provider.shutdown();
        }
    }
}

fn provider() -> Option<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build();
    match exporter {
        Ok(exporter) => Some(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(Resource::builder().with_service_name("keyledger").build())
                .build(),
        ),
        Err(error) => {
            eprintln!("keyledger: spans are not exported: {error}");
            None
        }
    }
}

/// The span of one call, a child of the caller's if it sent a `traceparent`.
pub(crate) fn request_span(method: &'static Method, headers: &HeaderMap) -> Span {
    if !EXPORTING.load(Ordering::Relaxed) {
        return Span::none();
    }
    let span = tracing::info_span!(
        "rpc",
        otel.name = %method.name,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = %method.path[1..],
        keyledger.key.id = tracing::field::Empty,
        keyledger.entry.position = tracing::field::Empty,
    );
    if let Some((parent, flags)) = traceparent(headers) {
        let remote = SpanContext::new(
            TraceId::from_bytes(parent.trace_id),
            SpanId::from_bytes(parent.span_id),
            TraceFlags::new(flags),
            true,
            TraceState::default(),
        );
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
    }
    span
}

/// What is signed of the trace: our own span's ids if spans are exported, else those that the caller sent.
pub(crate) fn trace_of_call(headers: &HeaderMap) -> Trace {
    if EXPORTING.load(Ordering::Relaxed) {
        let context = Span::current().context();
        let own = context.span().span_context().clone();
        if own.is_valid() && !own.is_remote() {
            return Trace {
                trace_id: own.trace_id().to_bytes(),
                span_id: own.span_id().to_bytes(),
            };
        }
    }
    traceparent(headers).map(|(trace, _)| trace).unwrap_or_default()
}

/// W3C Trace Context §3.2: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, no id all zeros.
fn traceparent(headers: &HeaderMap) -> Option<(Trace, u8)> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let known_form = version != "00" || parts.next().is_none();
    let lower = text.bytes().all(|b| !b.is_ascii_uppercase());
    let version: [u8; 1] = hex::decode(version).ok()?.try_into().ok()?;
    if version == [0xff] || !known_form || !lower {
        return None;
    }
    let trace = Trace {
        trace_id: hex::decode(trace).ok()?.try_into().ok()?,
        span_id: hex::decode(span).ok()?.try_into().ok()?,
    };
    let flags: [u8; 1] = hex::decode(flags).ok()?.try_into().ok()?;
    (trace.trace_id != [0; 16] && trace.span_id != [0; 8]).then_some((trace, flags[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<u8> {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", text.parse().unwrap());
        traceparent(&headers).map(|(_, flags)| flags)
    }

    #[test]
    fn a_traceparent_is_read_as_the_w3c_recommendation_says() {
        assert_eq!(parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), Some(1));
        for bad in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f-00f067aa0ba902b7-01",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
