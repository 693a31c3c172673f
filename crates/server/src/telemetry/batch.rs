//! The span of a sequencer's batch: one of its own, with links to the sampled requests in it, and from them to it. A batch
//! without any has none, and costs nothing.

use std::future::Future;
use std::time::Instant;

use futures_util::future::Either;
use keyledger_ledger::batch::Batch;
use opentelemetry::trace::{FutureExt, Link, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use super::links::Place;
use super::notes::Noted;
use super::sampler::HoldsSampled;
use super::span::tracer;
use crate::event_names::event_name;
use crate::names;
use crate::sequencer::{Ledger, SequencerError};

/// A command of a sampled request, while it waits.
pub(crate) struct Request {
    context: Context,
    since: Instant,
}

/// The request that runs, if it is sampled.
pub(crate) fn request() -> Option<Request> {
    tracer()?;
    let context = Context::map_current(|here| here.get::<Noted>().is_some().then(|| here.clone()))?;
    Some(Request { context, since: Instant::now() })
}

/// What the request that runs is to tell, if it is sampled.
pub(crate) fn noted() -> Option<Noted> {
    tracer()?;
    Context::map_current(|here| here.get::<Noted>().cloned())
}

/// The sampled requests of a batch, by the places of their commands, and the batch's span if there are any.
#[derive(Default)]
pub(crate) struct Requests {
    requests: Vec<(usize, Request)>,
    span: Option<Context>,
}

impl Requests {
    /// The command at a place is of this request.
    pub(crate) fn add(&mut self, command: usize, request: Option<Request>) {
        self.requests.extend(request.map(|request| (command, request)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The batch begins.
    pub(crate) fn begin(&mut self, ledger: &Ledger, commands: usize) {
        let Some(tracer) = tracer().filter(|_| !self.is_empty()) else { return };
        let spans = self.requests.iter().map(|(_, r)| r.context.span().span_context().clone());
        let builder = tracer
            .span_builder(names::SPAN_BATCH)
            .with_kind(SpanKind::Internal)
            .with_attributes([
                ledger.place.attribute(),
                KeyValue::new(names::BATCH_SIZE, commands as i64),
            ])
            .with_links(spans.map(Link::with_context).collect());
        let parent = Context::new().with_value(HoldsSampled);
        let span = Context::new().with_span(tracer.build_with_context(builder, &parent));
        let own = span.span().span_context().clone();
        for (_, request) in &self.requests {
            request.context.span().add_link(own.clone(), vec![]);
            if let Some(noted) = request.context.get::<Noted>() {
                noted.waited(request.since.elapsed().as_secs_f64(), commands);
            }
        }
        self.span = Some(span);
    }

    /// The future, in the batch's span.
    pub(crate) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        match &self.span {
            Some(span) => Either::Left(future.with_context(span.clone())),
            None => Either::Right(future),
        }
    }

    /// The batch is durable: each request is told what came of it.
    pub(crate) fn tell(&self, ledger: &Ledger, batch: &Batch) {
        // Positions follow each other.
        let first = batch.entries.first().map(|entry| entry.position);
        for (command, request) in &self.requests {
            let Some(Some(touched)) = batch.touched.get(*command) else { continue };
            let Some(noted) = request.context.get::<Noted>() else { continue };
            let index = touched.position.zip(first).and_then(|(at, first)| at.checked_sub(first));
            let entry = index.and_then(|index| batch.entries.get(index as usize));
            let kind = entry.and_then(|entry| entry.event.kind.as_ref());
            let event = kind.map_or(names::EVENT_KEY_USED, event_name);
            noted.touched(Place::of(ledger), &batch.head.state, touched, event);
        }
    }

    /// The batch has ended.
    pub(crate) fn end(&mut self, error: Option<&SequencerError>) {
        let Some(context) = self.span.take() else { return };
        if let Some(error) = error {
            context.span().set_attribute(KeyValue::new(names::ERROR_TYPE, error.kind()));
            context.span().set_status(Status::error(""));
        }
        context.span().end();
    }
}
