//! The span of a call. It is made only where a collector wants spans, and as late as can be: samplers see at its start what
//! key it is about. It begins with the call's arrival all the same, and ends with the status that really leaves.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use futures_util::future::Either;
use http::HeaderMap;
use keyledger_ledger::id::{KeyId, Trace};
use opentelemetry::trace::{
    FutureExt, Link, SpanKind, Status, TraceContextExt, Tracer, get_active_span,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use tonic::Code;

use super::context::{ContextReader, Sent};
use super::links;
use super::notes::Noted;
use crate::names;

/// What makes spans, once telemetry has started with a collector.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on spans are made.
pub(super) fn make_with(tracer: SdkTracer) {
    // Telemetry starts once in a process.
    let _ = TRACER.set(tracer);
}

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What makes spans, if the active span is sampled.
pub(super) fn sampled_tracer() -> Option<&'static SdkTracer> {
    let tracer = tracer()?;
    get_active_span(|span| span.span_context().is_sampled()).then_some(tracer)
}

/// The span of one call, if there are spans, and what its caller sent of its own trace.
#[derive(Clone)]
pub(crate) struct CallSpan {
    sent: Sent,
    arrived: Option<Arc<Arrived>>,
}

/// A call that has come, and whose span may not be made yet.
struct Arrived {
    tracer: &'static SdkTracer,
    name: &'static str,
    time: SystemTime,
    headers: Headers,
    made: OnceLock<Option<Made>>,
}

/// What the headers say of the caller's trace, beyond [`Sent`].
struct Headers {
    caller: Option<opentelemetry::trace::SpanContext>,
    baggage: Vec<KeyValue>,
}

/// A span that is sampled.
struct Made {
    context: Context,
    noted: Noted,
    trace: Trace,
}

/// What is known of a call when its span is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// The key that the caller's token names, be it valid or not.
    pub(crate) caller: Option<KeyId>,
    /// The key that the message names.
    pub(crate) key: Option<KeyId>,
}

impl CallSpan {
    /// `name` is that of the method, without the slash at its beginning.
    pub(crate) fn arrived(
        name: &'static str,
        headers: &HeaderMap,
        peer: Option<std::net::IpAddr>,
        reader: &ContextReader,
    ) -> CallSpan {
        let sent = reader.read(headers, peer);
        let arrived = tracer().map(|tracer| {
            let headers =
                Headers { caller: sent.span(headers), baggage: reader.baggage(headers, peer) };
            let made = OnceLock::new();
            Arc::new(Arrived { tracer, name, time: SystemTime::now(), headers, made })
        });
        CallSpan { sent, arrived }
    }

    /// Whether there are spans at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.arrived.is_some()
    }

    /// Makes the span, unless it was made before.
    pub(crate) fn make(&self, known: Known) {
        if let Some(arrived) = &self.arrived {
            arrived.made.get_or_init(|| arrived.make(self.sent.continued, known));
        }
    }

    /// What a span that is sampled is to tell.
    pub(crate) fn noted(&self) -> Option<&Noted> {
        self.made().map(|made| &made.noted)
    }

    /// The future, in this span as it is now.
    pub(crate) fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        match self.made() {
            Some(made) => Either::Left(future.with_context(made.context.clone())),
            None => Either::Right(future),
        }
    }

    /// What is signed of the trace: our own span's ids if it is sampled, else those that the caller sent if it is trusted.
    pub(crate) fn trace(&self) -> Trace {
        self.made().map_or(self.sent.signed(), |made| made.trace)
    }

    /// The call has ended, with this status.
    pub(crate) fn end(&self, code: Code) {
        // Whatever failed before anything was known leaves a span too.
        self.make(Known::default());
        let Some(made) = self.made() else { return };
        let span = made.context.span();
        let name = name_of(code);
        span.set_attribute(KeyValue::new(names::RPC_RESPONSE_STATUS_CODE, name));
        if is_error(code) {
            span.set_attribute(KeyValue::new(names::ERROR_TYPE, name));
            span.set_status(Status::error(""));
        }
        let wanted = made.noted.tell(&span);
        links::add_and_end(made.context.clone(), wanted, SystemTime::now());
    }

    fn made(&self) -> Option<&Made> {
        self.arrived.as_ref()?.made.get()?.as_ref()
    }
}

impl Arrived {
    fn make(&self, continued: bool, known: Known) -> Option<Made> {
        let Headers { caller, baggage } = &self.headers;
        let parent = match caller {
            Some(caller) if continued => Context::new().with_remote_span_context(caller.clone()),
            _ => Context::new(),
        };
        let mut attributes = vec![
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, self.name),
        ];
        let id = |name, id: Option<KeyId>| id.map(|id| KeyValue::new(name, id.to_string()));
        attributes.extend(id(names::KEY_ID, known.key));
        attributes.extend(id(names::CALLER_KEY_ID, known.caller));
        attributes.extend(baggage.iter().cloned());
        let mut builder = self
            .tracer
            .span_builder(self.name)
            .with_kind(SpanKind::Server)
            .with_start_time(self.time)
            .with_attributes(attributes);
        if let Some(caller) = caller.as_ref().filter(|_| !continued) {
            builder = builder.with_links(vec![Link::with_context(caller.clone())]);
        }
        let span = self.tracer.build_with_context(builder, &parent);
        let noted = Noted::of(known);
        let context = Context::new().with_span(span);
        let own = context.span().span_context().clone();
        let trace =
            Trace { trace_id: own.trace_id().to_bytes(), span_id: own.span_id().to_bytes() };
        let context = context.with_value(noted.clone());
        own.is_sampled().then_some(Made { context, noted, trace })
    }
}

/// As the conventions for gRPC name it.
pub(super) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What counts as an error of the server. The others are the caller's.
pub(super) fn is_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use keyledger_ledger::id::{LedgerNumber, Time};
    use opentelemetry::trace::{TraceId, TraceState, TracerProvider};
    use opentelemetry_sdk::trace::{
        SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample,
    };

    use super::*;
    use crate::telemetry::sampler::{AlsoBatches, HoldsSampled};

    /// Samples what is about one key.
    #[derive(Clone, Debug)]
    struct OneKey(String, Arc<Mutex<Vec<KeyValue>>>);

    impl ShouldSample for OneKey {
        fn should_sample(
            &self,
            _: Option<&Context>,
            _: TraceId,
            _: &str,
            _: &SpanKind,
            attributes: &[KeyValue],
            _: &[Link],
        ) -> SamplingResult {
            self.1.lock().unwrap().extend_from_slice(attributes);
            let wanted = KeyValue::new(names::KEY_ID, self.0.clone());
            let decision = match attributes.contains(&wanted) {
                true => SamplingDecision::RecordAndSample,
                false => SamplingDecision::Drop,
            };
            SamplingResult { decision, attributes: vec![], trace_state: TraceState::default() }
        }
    }

    fn arrived(tracer: &'static SdkTracer) -> Arrived {
        let headers = Headers { caller: None, baggage: vec![] };
        let name = "keyledger.v1.KeyService/GetKey";
        Arrived { tracer, name, time: SystemTime::now(), headers, made: OnceLock::new() }
    }

    #[test]
    fn a_sampler_sees_which_key_a_call_is_about_and_whose_it_is() {
        let [key, caller] = [1, 2].map(|n| KeyId::new(Time(0), LedgerNumber(1), n));
        let seen = Arc::<Mutex<Vec<KeyValue>>>::default();
        let sampler = AlsoBatches(OneKey(key.to_string(), seen.clone()));
        let provider = SdkTracerProvider::builder().with_sampler(sampler).build();
        let tracer: &'static SdkTracer = Box::leak(Box::new(provider.tracer("test")));

        let made = arrived(tracer).make(false, Known { caller: Some(caller), key: Some(key) });
        assert!(made.is_some());
        let made = arrived(tracer).make(false, Known { caller: Some(key), key: Some(caller) });
        assert!(made.is_none());
        let by = KeyValue::new(names::CALLER_KEY_ID, caller.to_string());
        assert!(seen.lock().unwrap().contains(&by));

        let batch = Context::new().with_value(HoldsSampled);
        let span = tracer.build_with_context(tracer.span_builder("a batch"), &batch);
        assert!(opentelemetry::trace::Span::span_context(&span).is_sampled());
    }
}
