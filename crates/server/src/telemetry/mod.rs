//! Telemetry: logs by `tracing` (JSON off a terminal); spans and metrics by OTLP where a collector is configured, metrics also for
//! Prometheus.
//!
//! No header, token, secret or personal text is ever put into a span, a metric or a log line.
//!
//! - `batch`: the span of a sequencer's batch.
//! - `config`: what the variables of OpenTelemetry ask for.
//! - `context`: what callers send of their traces, and what becomes of it.
//! - `export`: spans leave.
//! - `links`: from spans to those of the keys' entries.
//! - `notes`: what a call's span tells of keys, entries and verdicts.
//! - `sampler`: which spans are sampled.
//! - `span`: the span of a call.
//! - `statements`: the spans and the duration of statements to Postgres.
//! - `metrics`, `gauges`: what is told to instruments, and what they read when metrics are exported.
//! - `meter`: metrics leave.
//! - `prometheus`, `exposition`: the endpoint from which Prometheus fetches metrics, and how they look there.

mod batch;
pub mod config;
mod context;
mod export;
mod exposition;
mod gauges;
mod links;
mod meter;
pub(crate) mod metrics;
mod notes;
mod prometheus;
mod sampler;
mod span;
pub(crate) mod statements;

pub(crate) use batch::{Request, Requests, noted, request};
pub(crate) use context::ContextReader;
pub use context::{CallerContext, ContextPolicy};
pub(crate) use links::{Place, flush, remember};
pub(crate) use span::{CallSpan, Known};

use std::io::IsTerminal;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use uuid::Uuid;

use crate::names;
use crate::replica::Replica;
use config::{Settings, SettingsError};

/// How long the end waits for what is still to be exported.
const SHUTDOWN: Duration = Duration::from_secs(4);

/// This process, as one of perhaps many of the same service.
static INSTANCE: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// Keeps telemetry going; flushes spans and metrics when it ends.
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

/// Starts logs, and spans and metrics where the settings say so. `RUST_LOG` filters the logs.
pub fn start(settings: &Settings) -> Result<Telemetry, SettingsError> {
    let resource = || resource(settings);
    let spans = settings
        .traces
        .as_ref()
        .map(|to| export::provider(to, settings, resource()))
        .transpose()?;
    if let Some(provider) = &spans {
        span::make_with(provider.tracer_with_scope(scope()));
        links::start();
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    // Whoever embeds us may have set up logs of its own.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    let metrics = meter::start(&settings.metrics, resource(), scope())?;
    Ok(Telemetry { spans, metrics })
}

/// From now on metrics tell of a replica. `forwarders` are the names of those that are configured.
pub(crate) fn observe(replica: &Arc<Replica>, forwarders: Vec<String>) {
    if let Some(meter) = metrics::meter() {
        gauges::observe(meter, replica, forwarders);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        let (spans, metrics) = (self.spans.take(), self.metrics.take());
        // Both at once: a collector that doesn't answer is waited for once.
        std::thread::scope(|scope| {
            scope.spawn(|| spans.map(|provider| provider.shutdown_with_timeout(SHUTDOWN)));
            scope.spawn(|| metrics.map(|provider| provider.shutdown_with_timeout(SHUTDOWN)));
        });
    }
}

/// Who says it: Keyledger, of this version.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("keyledger")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL)
        .build()
}

/// Which of perhaps many processes this is: in telemetry, and as the holder of forwarders.
pub(crate) fn instance() -> Uuid {
    *INSTANCE
}

/// Attributes of everything that this process exports.
pub(crate) fn resource_attributes(settings: &Settings) -> Vec<(String, String)> {
    let mut all = settings.resource.clone();
    let own = [
        (names::SERVICE_VERSION, env!("CARGO_PKG_VERSION").to_string()),
        (names::SERVICE_INSTANCE_ID, instance().to_string()),
    ];
    for (name, value) in own {
        if !all.iter().any(|(given, _)| given == name) {
            all.push((name.into(), value));
        }
    }
    all
}

fn resource(settings: &Settings) -> Resource {
    let attributes = resource_attributes(settings);
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .build()
}
