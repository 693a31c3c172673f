//! Metrics as text: the Prometheus exposition format 0.0.4 and OpenMetrics 1.0.0, named as the OpenTelemetry specification says
//! ("Prometheus and OpenMetrics Compatibility": units and `_total` in names, `otel_scope_*` labels, `target_info`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::{Display, Write};

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics,
};

/// Which of the two is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// What a scraper asks for. One that says nothing gets the older format, which all of them read.
    pub(super) fn asked(accept: Option<&str>) -> Format {
        match accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of one collection.
pub(super) fn render(metrics: &ResourceMetrics, format: Format) -> String {
    let mut text = Text { text: String::new(), format };
    let resource = metrics.resource().iter();
    let resource = merged(resource.map(|(key, value)| (key.to_string(), value.to_string())));
    text.family("target", "_info", "Where the metrics come from.", "", "info");
    text.sample("target_info", &resource, None, 1);
    for scope in metrics.scope_metrics() {
        for metric in scope.metrics() {
            text.metric(scope.scope(), metric);
        }
    }
    if format == Format::OpenMetrics {
        text.text += "# EOF\n";
    }
    text.text
}

struct Text {
    text: String,
    format: Format,
}

type Labels = Vec<(String, String)>;

impl Text {
    fn metric(&mut self, scope: &InstrumentationScope, metric: &Metric) {
        match metric.data() {
            AggregatedMetrics::F64(data) => self.data(scope, metric, data),
            AggregatedMetrics::U64(data) => self.data(scope, metric, data),
            AggregatedMetrics::I64(data) => self.data(scope, metric, data),
        }
    }

    fn data<T: Display + Copy>(
        &mut self,
        scope: &InstrumentationScope,
        metric: &Metric,
        data: &MetricData<T>,
    ) {
        let unit = unit_word(metric.unit());
        let name = with_unit(&escaped_name(metric.name()), unit);
        let mut family = |suffix: &str, kind: &str| {
            self.family(&name, suffix, metric.description(), unit, kind);
        };
        match data {
            MetricData::Sum(sum) if sum.is_monotonic() => {
                family("_total", "counter");
                for point in sum.data_points() {
                    let labels = labels(scope, point.attributes());
                    self.sample(&format!("{name}_total"), &labels, None, point.value());
                }
            }
            MetricData::Sum(sum) => {
                family("", "gauge");
                for point in sum.data_points() {
                    self.sample(&name, &labels(scope, point.attributes()), None, point.value());
                }
            }
            MetricData::Gauge(gauge) => {
                family("", "gauge");
                for point in gauge.data_points() {
                    self.sample(&name, &labels(scope, point.attributes()), None, point.value());
                }
            }
            MetricData::Histogram(histogram) => {
                family("", "histogram");
                self.histogram(scope, &name, histogram);
            }
            // No instrument of ours has one.
            MetricData::ExponentialHistogram(_) => {}
        }
    }

    /// Buckets count everything up to their bound.
    fn histogram<T: Display + Copy>(
        &mut self,
        scope: &InstrumentationScope,
        name: &str,
        histogram: &Histogram<T>,
    ) {
        for point in histogram.data_points() {
            let labels = labels(scope, point.attributes());
            let bounds = point.bounds().map(|bound| format!("{bound:?}"));
            let bounds = bounds.chain([String::from("+Inf")]);
            let mut count = 0;
            for (bound, more) in bounds.zip(point.bucket_counts()) {
                count += more;
                self.sample(&format!("{name}_bucket"), &labels, Some(&bound), count);
            }
            self.sample(&format!("{name}_sum"), &labels, None, point.sum());
            self.sample(&format!("{name}_count"), &labels, None, point.count());
        }
    }

    /// The lines above the samples of a metric. In OpenMetrics they name it without the suffix of its samples.
    fn family(&mut self, name: &str, suffix: &str, help: &str, unit: &str, kind: &str) {
        let open = self.format == Format::OpenMetrics;
        let name = if open { name.to_string() } else { format!("{name}{suffix}") };
        let kind = if kind == "info" && !open { "gauge" } else { kind };
        let mut line = |what: &str, text: &str| {
            let _ = writeln!(self.text, "# {what} {name} {text}");
        };
        line("HELP", &escaped_help(help, open));
        line("TYPE", kind);
        if open && !unit.is_empty() {
            line("UNIT", unit);
        }
    }

    fn sample(&mut self, name: &str, labels: &Labels, le: Option<&str>, value: impl Display) {
        self.text += name;
        let bound = le.map(|bound| ("le", bound));
        let labels = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(bound);
        for (number, (label, value)) in labels.enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped_value(value));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// Attributes of a point, and the scope that it comes from.
fn labels<'a>(
    scope: &InstrumentationScope,
    attributes: impl Iterator<Item = &'a KeyValue>,
) -> Labels {
    let own = attributes.map(|kv| (kv.key.to_string(), kv.value.to_string()));
    let scope = [
        ("otel_scope_name", Some(scope.name())),
        ("otel_scope_version", scope.version()),
        ("otel_scope_schema_url", scope.schema_url()),
    ];
    let scope = scope.into_iter().filter_map(|(k, v)| Some((k.to_string(), v?.to_string())));
    merged(own.chain(scope))
}

/// Labels from attributes. Values of attributes whose names are the same when they are escaped share a label, in the order of
/// the names.
fn merged(attributes: impl Iterator<Item = (String, String)>) -> Labels {
    let mut attributes: Vec<(String, String)> = attributes.collect();
    attributes.sort();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in attributes {
        match labels.entry(escaped_name(&name)) {
            Entry::Vacant(free) => drop(free.insert(value)),
            Entry::Occupied(mut taken) => *taken.get_mut() += &format!(";{value}"),
        }
    }
    labels.into_iter().collect()
}

/// A unit as a word of a name; what stands in braces is a note, and no unit.
fn unit_word(unit: &str) -> &str {
    match unit {
        "s" => "seconds",
        "By" => "bytes",
        _ => "",
    }
}

fn with_unit(name: &str, unit: &str) -> String {
    match unit.is_empty() || name.ends_with(&format!("_{unit}")) {
        true => name.to_string(),
        false => format!("{name}_{unit}"),
    }
}

/// What may not stand in a name becomes an underscore; one stands before a digit at its beginning.
fn escaped_name(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = if name.starts_with(|c: char| c.is_ascii_digit()) { "_" } else { "" };
    before.chars().chain(name.chars().map(|c| if allowed(c) { c } else { '_' })).collect()
}

fn escaped_value(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn escaped_help(help: &str, open: bool) -> String {
    match open {
        true => escaped_value(help),
        false => help.replace('\\', "\\\\").replace('\n', "\\n"),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use opentelemetry_sdk::metrics::reader::MetricReader;

    use super::*;
    use crate::telemetry::prometheus::Shared;

    fn scraped(format: Format) -> String {
        let reader = Shared::default();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader.clone())
            .with_resource(Resource::builder_empty().with_service_name("it \"is\"").build())
            .build();
        let scope = InstrumentationScope::builder("us").with_version("1").build();
        let meter = provider.meter_with_scope(scope);
        let counter =
            meter.u64_counter("a.things").with_unit("{thing}").with_description("Of a\nb.");
        counter.build().add(3, &[KeyValue::new("b.c", "d\\e")]);
        let open = meter.i64_up_down_counter("a.open").with_unit("{stream}").build();
        open.add(-2, &[]);
        let took = meter.f64_histogram("a.took").with_unit("s").with_boundaries(vec![0.5, 1.0]);
        let took = took.build();
        [0.25, 0.5, 0.75, 8.0].into_iter().for_each(|seconds| took.record(seconds, &[]));
        let mut metrics = ResourceMetrics::default();
        reader.collect(&mut metrics).unwrap();
        render(&metrics, format)
    }

    const SCOPE: &str = r#"otel_scope_name="us",otel_scope_version="1""#;

    #[test]
    fn names_have_units_counters_a_total_and_buckets_count_all_below_them() {
        let expected = format!(
            r#"# HELP target_info Where the metrics come from.
# TYPE target_info gauge
target_info{{service_name="it \"is\""}} 1
# HELP a_things_total Of a\nb.
# TYPE a_things_total counter
a_things_total{{b_c="d\\e",{SCOPE}}} 3
# HELP a_open 
# TYPE a_open gauge
a_open{{{SCOPE}}} -2
# HELP a_took_seconds 
# TYPE a_took_seconds histogram
a_took_seconds_bucket{{{SCOPE},le="0.5"}} 2
a_took_seconds_bucket{{{SCOPE},le="1.0"}} 3
a_took_seconds_bucket{{{SCOPE},le="+Inf"}} 4
a_took_seconds_sum{{{SCOPE}}} 9.5
a_took_seconds_count{{{SCOPE}}} 4
"#
        );
        assert_eq!(scraped(Format::Prometheus), expected);
    }

    #[test]
    fn names_that_are_escaped_alike_share_a_label_and_none_begins_with_a_digit() {
        let all = [("a.b", "2"), ("a-b", "1"), ("9.lives", "cat"), ("a_b", "3")];
        let labels = merged(all.into_iter().map(|(k, v)| (k.to_string(), v.to_string())));
        let expected = [("_9_lives", "cat"), ("a_b", "1;2;3")];
        assert_eq!(labels, expected.map(|(k, v)| (k.to_string(), v.to_string())));
    }

    #[test]
    fn open_metrics_names_families_without_suffix_and_has_units_and_an_end() {
        let text = scraped(Format::OpenMetrics);
        for line in [
            "# TYPE target info",
            r"# HELP a_things Of a\nb.",
            "# TYPE a_things counter",
            "# TYPE a_took_seconds histogram",
            "# UNIT a_took_seconds seconds",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for() {
        assert_eq!(Format::asked(None), Format::Prometheus);
        assert_eq!(
            Format::asked(Some("text/plain;version=0.0.4;q=0.5,*/*;q=0.1")),
            Format::Prometheus
        );
        let both =
            "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::asked(Some(both)), Format::OpenMetrics);
    }
}
