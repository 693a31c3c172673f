//! Three small services, each behind the client's layer, each with a tracer provider of its own: a gateway (axum) calls orders
//! (tonic), which calls storage (tonic), with the token of whoever called the gateway.

use std::task::{Context as Task, Poll};

use axum::body::Body as HttpBody;
use axum::response::Response as HttpAnswer;
use futures_util::future::BoxFuture;
use keyledger_client::{Access, Ask, Client, Config, Guard, GuardConfig, GuardLayer};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{FutureExt, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use crate::client::services::{Texts, ask, serve_grpc, serve_http, with_token};
use crate::harness::*;

/// What a caller of the gateway must be allowed to do.
pub(crate) const ASKED: [(&str, &str); 3] =
    [("shop.enter", "shop"), ("orders.read", "orders/4711"), ("storage.read", "files/4711")];
const NAMES: [&str; 3] = ["gateway", "orders", "storage"];

pub(crate) struct Shop {
    /// Where the gateway listens.
    pub(crate) gateway: String,
    providers: Vec<SdkTracerProvider>,
}

impl Shop {
    pub(crate) async fn open(replica: &Replica, collector: &str) -> Shop {
        let providers: Vec<SdkTracerProvider> =
            NAMES.iter().map(|name| provider(name, collector)).collect();
        let mut guards = vec![];
        for (name, asked) in NAMES.iter().zip(ASKED) {
            guards.push(guard(replica, name, asked).await);
        }
        let [gateway, orders, storage] = [0, 1, 2].map(|i| {
            let tracer = providers[i].tracer("shop");
            Both(Traced(tracer), guards[i].clone())
        });
        let storage = serve_grpc(storage.layer(Texts::new(|request| async move {
            Ok(format!("file of {}", request.get_ref()))
        })))
        .await;
        let orders = serve_grpc(orders.layer(Texts::new(move |request| {
            let storage = storage.clone();
            async move { go_on(&storage, &request.metadata().clone().into_headers()).await }
        })))
        .await;
        let gateway = serve_http(gateway, move |request| {
            let orders = orders.clone();
            Box::pin(async move {
                match go_on(&orders, request.headers()).await {
                    Ok(text) => HttpAnswer::new(HttpBody::from(text)),
                    Err(status) => panic!("the gateway may: {status}"),
                }
            })
        })
        .await;
        Shop { gateway, providers }
    }

    /// Ends telemetry: what was made is at the collector.
    pub(crate) async fn close(self) {
        for provider in self.providers {
            let shut = tokio::task::spawn_blocking(move || provider.shutdown()).await;
            shut.expect("it doesn't panic").expect("the collector takes all spans");
        }
    }
}

/// Calls the next service, with the caller's token and in the current trace.
async fn go_on(address: &str, from: &HeaderMap) -> Result<String, Status> {
    let bearer = from.get("authorization").expect("the layer let it through");
    let token = bearer.to_str().expect("visible ASCII").trim_start_matches("Bearer ");
    let mut request = with_token("4711", token);
    let mut headers = std::collections::HashMap::new();
    TraceContextPropagator::new().inject_context(&Context::current(), &mut headers);
    let parent = headers.get("traceparent").expect("a span is active").parse();
    request.metadata_mut().insert("traceparent", parent.expect("visible ASCII"));
    ask(address, request).await
}

fn provider(name: &'static str, collector: &str) -> SdkTracerProvider {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(collector)
        .build()
        .expect("an endpoint of ours");
    SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder_empty().with_service_name(name).build())
        .build()
}

async fn guard(replica: &Replica, name: &str, asked: (&'static str, &'static str)) -> GuardLayer {
    let grants = ["keys.verify", "keys.explain"].map(|name| grant(name, "keys"));
    let key = service_key(&format!("shop/{name}"), grants.to_vec());
    let token = replica.admin().call(key).await.expect("an admin may").token;
    let config = Config::new(format!("http://{}", replica.address), token);
    let guard =
        Guard::new(Client::lazy(config).expect("it is on loopback"), GuardConfig::default());
    GuardLayer::new(guard, move |_| Access::Needs(Ask::new(asked.0, asked.1)))
        .address(|_| Some([203, 0, 113, 7].into()))
}

/// A server span around the guard.
#[derive(Clone)]
struct Both(Traced, GuardLayer);

impl<S> Layer<S> for Both {
    type Service = InSpan<<GuardLayer as Layer<S>>::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        InSpan { inner: self.1.layer(inner), traced: self.0.clone() }
    }
}

/// Makes the server span of each call, a child of the caller's.
#[derive(Clone)]
struct Traced(SdkTracer);

#[derive(Clone)]
struct InSpan<S> {
    inner: S,
    traced: Traced,
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for InSpan<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for InSpan<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let parent = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &Headers(request.headers()));
        let tracer = &self.traced.0;
        let builder =
            tracer.span_builder(request.uri().path().to_string()).with_kind(SpanKind::Server);
        let context = parent.with_span(tracer.build_with_context(builder, &parent));
        Box::pin(self.inner.call(request).with_context(context))
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
