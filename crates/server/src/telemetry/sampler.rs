//! Which spans are sampled: as the variables say; and the span of a batch, whenever a request in it is.

use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::config::Sampling;

/// Stands in the context in which the span of a batch is made: a request in the batch is sampled.
pub(super) struct HoldsSampled;

/// As the variables say.
pub(super) fn of(sampling: Sampling) -> AlsoBatches<Sampler> {
    let root = match sampling.ratio {
        0.0 => Sampler::AlwaysOff,
        1.0 => Sampler::AlwaysOn,
        ratio => Sampler::TraceIdRatioBased(ratio),
    };
    AlsoBatches(match sampling.parent_based {
        true => Sampler::ParentBased(Box::new(root)),
        false => root,
    })
}

/// Another sampler decides about everything but batches.
#[derive(Clone, Debug)]
pub(super) struct AlsoBatches<S>(pub(super) S);

impl<S: ShouldSample + Clone + 'static> ShouldSample for AlsoBatches<S> {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if parent.is_some_and(|parent| parent.get::<HoldsSampled>().is_some()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: vec![],
                trace_state: TraceState::default(),
            };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
