//! Telemetry: logs by `tracing` (JSON off a terminal), spans by OTLP where a collector is configured.
//!
//! No header, token, secret or personal text is ever put into a span or log line.

//!
//! - `context`: what callers send of their traces.
//! - `span`: the span of a call.

mod context;
mod span;

pub(crate) use span::{CallSpan, record, trace_of_call};

use std::io::IsTerminal;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::names;

/// Keeps telemetry going; flushes spans when it ends.
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logs, and OTLP spans if `OTEL_EXPORTER_OTLP_ENDPOINT` is set. `RUST_LOG` filters the logs.
pub fn start() -> Telemetry {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    let provider = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").and_then(|_| provider());
    if let Some(provider) = &provider {
        let scope = InstrumentationScope::builder("keyledger")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(names::SCHEMA_URL)
            .build();
        span::make_with(provider.tracer_with_scope(scope));
    }
    // Whoever embeds us may have set up logs of its own.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
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
