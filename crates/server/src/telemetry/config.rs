//! What the standard `OTEL_*` variables ask for. They are read and checked as a whole, before anything starts: what isn't
//! supported is an error, and never passed over.
//!
//! One thing differs from the specification: nothing is exported unless an endpoint or an exporter is named. An empty
//! variable counts as one that isn't set.

mod otlp;
mod read;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

pub use otlp::{Otlp, Secret};
pub(super) use read::percent_decoded;
use read::{Variables, pairs};

use crate::names;

/// Most spans that may wait to be exported.
const MAX_QUEUE: usize = 65_536;
/// Most of anything that one span may hold.
const MAX_COUNT: u32 = 1_024;
/// How Keyledger is called in what it exports, unless it is told otherwise.
const USUAL_NAME: &str = "keyledger";

/// All that the variables say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where spans go; `None`: there are none.
    pub traces: Option<Otlp>,
    pub metrics: Metrics,
    /// Where log records go by default.
    pub logs: Option<Otlp>,
    pub propagators: Propagators,
    pub sampling: Sampling,
    pub batching: Batching,
    pub limits: Limits,
    /// Attributes of the resource. `service.name` is always among them.
    pub resource: Vec<(String, String)>,
}

/// Where metrics go.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub otlp: Option<Otlp>,
    /// Where Prometheus may fetch them.
    pub prometheus: Option<SocketAddr>,
    pub interval: Duration,
    pub timeout: Duration,
    pub temporality: Temporality,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    Cumulative,
    Delta,
    LowMemory,
}

/// What is read of the context that callers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    pub trace_context: bool,
    pub baggage: bool,
}

/// Which traces are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// A caller that has decided is followed.
    pub parent_based: bool,
    /// How many of the others: from 0 to 1.
    pub ratio: f64,
}

/// How spans wait for their export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    pub delay: Duration,
    pub queue: usize,
    pub batch: usize,
    pub timeout: Duration,
}

/// What a span may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub attributes: u32,
    pub events: u32,
    pub links: u32,
    pub event_attributes: u32,
    pub link_attributes: u32,
    /// Longest text of an attribute, in characters.
    pub value_length: Option<usize>,
}

/// A variable that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}{}: {problem}", held.as_ref().map_or(String::new(), |held| format!(" is `{held}`")))]
pub struct SettingsError {
    pub variable: String,
    /// `None` where it may be secret.
    pub held: Option<String>,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl Settings {
    /// Of the environment of this process.
    pub fn from_environment() -> Result<Settings, SettingsError> {
        Settings::from(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    /// Of variables that `lookup` finds by their names.
    pub fn from(lookup: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
        let v = Variables(&lookup);
        let propagators = propagators(&v)?;
        if v.flag("OTEL_SDK_DISABLED")?.unwrap_or(false) {
            return Ok(Settings { propagators, ..Settings::off() });
        }
        for file in ["OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE"] {
            if v.text(file).is_some() {
                return v.fails(file, "Keyledger is configured by variables alone");
            }
        }
        let exported = |signal| otlp::of_signal(&v, signal);
        Ok(Settings {
            traces: wants_otlp(&v, "TRACES")?.then(|| exported("TRACES")).transpose()?,
            metrics: metrics(&v)?,
            logs: wants_otlp(&v, "LOGS")?.then(|| exported("LOGS")).transpose()?,
            propagators,
            sampling: sampling(&v)?,
            batching: batching(&v)?,
            limits: limits(&v)?,
            resource: resource(&v)?,
        })
    }

    /// Nothing is exported. What callers send of their traces is signed all the same.
    pub fn off() -> Settings {
        Settings::from(|_| None).expect("no variable is needed")
    }
}

fn propagators(v: &Variables<'_>) -> Result<Propagators, SettingsError> {
    let name = "OTEL_PROPAGATORS";
    let Some(names) = v.list(name, &["tracecontext", "baggage", "none"])? else {
        return Ok(Propagators { trace_context: true, baggage: true });
    };
    v.check_none_alone(name, &names)?;
    let has = |name| names.contains(&name);
    Ok(Propagators { trace_context: has("tracecontext"), baggage: has("baggage") })
}

/// Whether a signal is to be exported by OTLP: because its exporter is named or, if none is, an endpoint.
fn wants_otlp(v: &Variables<'_>, signal: &str) -> Result<bool, SettingsError> {
    let name = format!("OTEL_{signal}_EXPORTER");
    Ok(match v.list(&name, &["otlp", "none"])? {
        Some(names) => {
            v.check_none_alone(&name, &names)?;
            names.contains(&"otlp")
        }
        None => has_endpoint(v, signal),
    })
}

fn has_endpoint(v: &Variables<'_>, signal: &str) -> bool {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    v.text("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| v.text(&own)).is_some()
}

fn metrics(v: &Variables<'_>) -> Result<Metrics, SettingsError> {
    let name = "OTEL_METRICS_EXPORTER";
    let (otlp, prometheus) = match v.list(name, &["otlp", "prometheus", "none"])? {
        Some(names) => {
            v.check_none_alone(name, &names)?;
            (names.contains(&"otlp"), names.contains(&"prometheus"))
        }
        None => (has_endpoint(v, "METRICS"), false),
    };
    let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let temporality = match v.one_of(temporality, &["cumulative", "delta", "lowmemory"])? {
        Some("delta") => Temporality::Delta,
        Some("lowmemory") => Temporality::LowMemory,
        _ => Temporality::Cumulative,
    };
    let histograms = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    v.one_of(histograms, &["explicit_bucket_histogram"])?;
    v.one_of("OTEL_METRICS_EXEMPLAR_FILTER", &["always_off"])?;
    Ok(Metrics {
        otlp: otlp.then(|| otlp::of_signal(v, "METRICS")).transpose()?,
        prometheus: prometheus.then(|| prometheus_address(v)).transpose()?,
        interval: v.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?,
        timeout: v.millis("OTEL_METRIC_EXPORT_TIMEOUT", 30_000)?,
        temporality,
    })
}

fn prometheus_address(v: &Variables<'_>) -> Result<SocketAddr, SettingsError> {
    let host = v.text("OTEL_EXPORTER_PROMETHEUS_HOST").unwrap_or_else(|| "localhost".into());
    let port = v.number("OTEL_EXPORTER_PROMETHEUS_PORT", 9464, 0..=65_535)? as u16;
    let found = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next());
    match found {
        Some(address) => Ok(address),
        None => v.fails("OTEL_EXPORTER_PROMETHEUS_HOST", "it must be a host that has an address"),
    }
}

fn sampling(v: &Variables<'_>) -> Result<Sampling, SettingsError> {
    let names = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];
    let name = v.one_of("OTEL_TRACES_SAMPLER", &names)?.unwrap_or("parentbased_always_on");
    let root = name.strip_prefix("parentbased_");
    let ratio = match root.unwrap_or(name) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        _ => v.ratio("OTEL_TRACES_SAMPLER_ARG")?,
    };
    Ok(Sampling { parent_based: root.is_some(), ratio })
}

fn batching(v: &Variables<'_>) -> Result<Batching, SettingsError> {
    let queue = v.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, 1..=MAX_QUEUE as u64)? as usize;
    let batch = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    Ok(Batching {
        delay: v.millis("OTEL_BSP_SCHEDULE_DELAY", 5_000)?,
        queue,
        batch: v.number(batch, 512.min(queue as u64), 1..=queue as u64)? as usize,
        timeout: v.millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?,
    })
}

fn limits(v: &Variables<'_>) -> Result<Limits, SettingsError> {
    let count =
        |name: &str, usual: u32| Ok(v.number(name, usual.into(), 0..=MAX_COUNT.into())? as u32);
    let general = count("OTEL_ATTRIBUTE_COUNT_LIMIT", 128)?;
    let length =
        |name: &str| v.text(name).map(|_| v.number(name, 0, 0..=u64::from(u32::MAX))).transpose();
    let value_length = match length("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")? {
        Some(length) => Some(length),
        None => length("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")?,
    };
    Ok(Limits {
        attributes: count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", general)?,
        events: count("OTEL_SPAN_EVENT_COUNT_LIMIT", 128)?,
        links: count("OTEL_SPAN_LINK_COUNT_LIMIT", 128)?,
        event_attributes: count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", general)?,
        link_attributes: count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", general)?,
        value_length: value_length.map(|length| length as usize),
    })
}

/// `OTEL_SERVICE_NAME` goes before what `OTEL_RESOURCE_ATTRIBUTES` says of the name.
fn resource(v: &Variables<'_>) -> Result<Vec<(String, String)>, SettingsError> {
    let name = "OTEL_RESOURCE_ATTRIBUTES";
    let mut all = match v.text(name) {
        None => vec![],
        Some(text) => match pairs(&text) {
            Some(pairs) => pairs,
            None => return v.fails(name, "it must be `name=value,…`, values percent-encoded"),
        },
    };
    if let Some(service) = v.text("OTEL_SERVICE_NAME") {
        all.retain(|(name, _)| name != names::SERVICE_NAME);
        all.push((names::SERVICE_NAME.into(), service));
    }
    if !all.iter().any(|(name, _)| name == names::SERVICE_NAME) {
        all.push((names::SERVICE_NAME.into(), USUAL_NAME.into()));
    }
    Ok(all)
}
