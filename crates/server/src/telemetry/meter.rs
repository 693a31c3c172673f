//! Metrics leave: by OTLP at intervals, and whenever Prometheus asks. That a collector is away is said once, and once that it is back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::{Compression, MetricExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use tokio::net::TcpListener;

use super::config::{self, Metrics, Otlp, SettingsError};
use super::metrics;
use super::prometheus::{self, Shared};

/// Starts what the settings ask for, if they ask for anything.
pub(super) fn start(
    settings: &Metrics,
    resource: Resource,
    scope: InstrumentationScope,
) -> Result<Option<SdkMeterProvider>, SettingsError> {
    if settings.otlp.is_none() && settings.prometheus.is_none() {
        return Ok(None);
    }
    let mut provider = SdkMeterProvider::builder().with_resource(resource);
    if let Some(to) = &settings.otlp {
        let exporter = exporter(to, settings)?;
        let exporter = Watched { exporter, failing: AtomicBool::new(false) };
        let reader = PeriodicReader::builder(exporter).with_interval(settings.interval).build();
        provider = provider.with_reader(reader);
    }
    if let Some(address) = settings.prometheus {
        let reader = Shared::default();
        let listener = listen(address).map_err(|error| SettingsError {
            variable: "OTEL_EXPORTER_PROMETHEUS_PORT (or _HOST)".into(),
            held: Some(address.to_string()),
            problem: format!("can't listen there: {error}"),
        })?;
        tokio::spawn(prometheus::serve(listener, reader.clone()));
        provider = provider.with_reader(reader);
    }
    let provider = provider.build();
    metrics::start(provider.meter_with_scope(scope));
    Ok(Some(provider))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    tracing::info!(address = %listener.local_addr()?, "metrics are served at /metrics");
    TcpListener::from_std(listener)
}

fn exporter(to: &Otlp, settings: &Metrics) -> Result<MetricExporter, SettingsError> {
    let temporality = match settings.temporality {
        config::Temporality::Cumulative => Temporality::Cumulative,
        config::Temporality::Delta => Temporality::Delta,
        config::Temporality::LowMemory => Temporality::LowMemory,
    };
    let mut builder = MetricExporter::builder()
        .with_tonic()
        .with_channel(to.channel()?)
        .with_metadata(to.metadata())
        .with_timeout(to.timeout.min(settings.timeout))
        .with_temporality(temporality);
    if to.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(|error| SettingsError {
        variable: "OTEL_EXPORTER_OTLP_*".into(),
        held: None,
        problem: format!("no exporter of metrics can be made: {error}"),
    })
}

/// Says when exporting begins to fail, and when it works again: never a line per export.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    failing: AtomicBool,
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "metrics can't be exported; the next export tries again")
            }
            (Ok(()), true) => tracing::info!("metrics are exported again"),
            _ => {}
        }
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
