//! Telemetry: logs by `tracing` (JSON off a terminal), spans by OTLP where a collector is configured.
//!
//! No header, token, secret or personal text is ever put into a span or log line.
//!
//! - `batch`: the span of a sequencer's batch.
//! - `config`: what the variables of OpenTelemetry ask for.
//! - `context`: what callers send of their traces, and what becomes of it.
//! - `export`: spans leave.
//! - `links`: from spans to those of the keys' entries.
//! - `notes`: what a call's span tells of keys, entries and verdicts.
//! - `sampler`: which spans are sampled.
//! - `span`: the span of a call.

mod batch;
pub mod config;
mod context;
mod export;
mod links;
mod notes;
mod sampler;
mod span;

pub(crate) use batch::{Request, Requests, noted, request};
pub(crate) use context::ContextReader;
pub use context::{CallerContext, ContextPolicy};
pub(crate) use links::{Place, flush, remember};
pub(crate) use span::{CallSpan, Known};

use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use uuid::Uuid;

use crate::names;
use config::{Settings, SettingsError};

/// How long the end waits for what is still to be exported.
const SHUTDOWN: Duration = Duration::from_secs(4);

/// This process, as one of perhaps many of the same service.
static INSTANCE: LazyLock<Uuid> = LazyLock::new(Uuid::new_v4);

/// Keeps telemetry going; flushes spans when it ends.
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts logs, and spans where the settings say so. `RUST_LOG` filters the logs.
pub fn start(settings: &Settings) -> Result<Telemetry, SettingsError> {
    let resource = || resource(settings);
    let provider = settings
        .traces
        .as_ref()
        .map(|to| export::provider(to, settings, resource()))
        .transpose()?;
    if let Some(provider) = &provider {
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
    Ok(Telemetry(provider))
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            let _ = provider.shutdown_with_timeout(SHUTDOWN);
        }
    }
}

/// Who says it: Keyledger, of this version.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("keyledger")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(names::SCHEMA_URL)
        .build()
}

/// Attributes of everything that this process exports.
pub(crate) fn resource_attributes(settings: &Settings) -> Vec<(String, String)> {
    let mut all = settings.resource.clone();
    let own = [
        (names::SERVICE_VERSION, env!("CARGO_PKG_VERSION").to_string()),
        (names::SERVICE_INSTANCE_ID, INSTANCE.to_string()),
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
