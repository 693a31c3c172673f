//! Spans leave in batches, from a queue with a bound. That a collector is away is said once, and once that it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::{Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanLimits,
    SpanProcessor,
};

use super::config::{Limits, Otlp, Settings, SettingsError};
use super::sampler;

/// What makes and exports spans.
pub(super) fn provider(
    to: &Otlp,
    settings: &Settings,
    resource: Resource,
) -> Result<SdkTracerProvider, SettingsError> {
    let queue = Arc::new(Queue { most: settings.batching.queue, ..Queue::default() });
    let exporter = Watched {
        exporter: exporter(to, settings.batching.timeout)?,
        failing: AtomicBool::new(false),
        longest: settings.limits.value_length,
        queue: queue.clone(),
    };
    let batching = BatchConfigBuilder::default()
        .with_max_queue_size(settings.batching.queue)
        .with_max_export_batch_size(settings.batching.batch)
        .with_scheduled_delay(settings.batching.delay)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batching).build();
    let processor = Bounded { processor, queue };
    Ok(SdkTracerProvider::builder()
        .with_sampler(sampler::of(settings.sampling))
        .with_span_limits(span_limits(&settings.limits))
        .with_resource(resource)
        .with_span_processor(processor)
        .build())
}

fn exporter(to: &Otlp, most: Duration) -> Result<SpanExporter, SettingsError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(to.channel()?)
        .with_metadata(to.metadata())
        .with_timeout(to.timeout.min(most));
    if to.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(|error| SettingsError {
        variable: "OTEL_EXPORTER_OTLP_*".into(),
        held: None,
        problem: format!("no exporter of spans can be made: {error}"),
    })
}

fn span_limits(limits: &Limits) -> SpanLimits {
    SpanLimits {
        max_events_per_span: limits.events,
        max_attributes_per_span: limits.attributes,
        max_links_per_span: limits.links,
        max_attributes_per_event: limits.event_attributes,
        max_attributes_per_link: limits.link_attributes,
    }
}

/// Says when exporting begins to fail, and when it works again: never a line per span, or per export.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    failing: AtomicBool,
    /// Longest text of an attribute, in characters: the SDK has no such limit.
    longest: Option<usize>,
    queue: Arc<Queue>,
}

/// Spans that wait for their export. The SDK drops those beyond the bound without a word.
#[derive(Debug, Default)]
struct Queue {
    most: usize,
    waiting: AtomicUsize,
    full: AtomicBool,
}

impl Queue {
    /// Whether one more may wait. The first that may not is said.
    fn take_place(&self) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.most {
            return true;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.full.swap(true, Ordering::Relaxed) {
            tracing::warn!(most = self.most, "spans are dropped: more end than are exported");
        }
        false
    }

    /// So many leave. It may be said again that the queue is full once it has been half empty.
    fn leave(&self, spans: usize) {
        let left = self.waiting.fetch_sub(spans, Ordering::Relaxed).saturating_sub(spans);
        if left <= self.most / 2 && self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("spans are no longer dropped");
        }
    }
}

/// Hands on what the queue has a place for.
#[derive(Debug)]
struct Bounded<P> {
    processor: P,
    queue: Arc<Queue>,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queue.take_place() {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter
    for Watched<E>
{
    async fn export(&self, mut spans: Vec<SpanData>) -> OTelSdkResult {
        self.queue.leave(spans.len());
        if let Some(longest) = self.longest {
            spans.iter_mut().for_each(|span| shorten(&mut span.attributes, longest));
        }
        let result = self.exporter.export(spans).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "spans can't be exported; those that the queue doesn't hold are dropped")
            }
            (Ok(()), true) => tracing::info!("spans are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn shorten(attributes: &mut [KeyValue], longest: usize) {
    for attribute in attributes {
        if let Value::String(text) = &attribute.value
            && let Some((end, _)) = text.as_str().char_indices().nth(longest)
        {
            attribute.value = Value::String(StringValue::from(text.as_str()[..end].to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_takes_no_more_until_some_have_left() {
        let queue = Queue { most: 2, ..Queue::default() };
        assert_eq!([(); 3].map(|()| queue.take_place()), [true, true, false]);
        assert!(queue.full.load(Ordering::Relaxed));
        queue.leave(2);
        assert!(!queue.full.load(Ordering::Relaxed));
        assert!(queue.take_place());
    }

    #[test]
    fn texts_of_attributes_are_cut_between_characters() {
        let mut attributes = [KeyValue::new("a", "äöü"), KeyValue::new("b", 12_345)];
        shorten(&mut attributes, 2);
        assert_eq!(attributes[0].value.as_str(), "äö");
        assert_eq!(attributes[1].value, Value::I64(12_345));
    }
}
