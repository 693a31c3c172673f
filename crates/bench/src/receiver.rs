//! A receiver of OTLP that counts what it gets, on a thread of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The span of a call of VerifyKey.
const CALL: &str = "keyledger.v1.KeyService/VerifyKey";

/// What has come.
#[derive(Default)]
pub(crate) struct Received {
    calls: AtomicU64,
    spans: AtomicU64,
    metrics: AtomicU64,
    records: AtomicU64,
}

impl Received {
    /// Spans of calls of VerifyKey.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Spans of any kind.
    pub(crate) fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }

    /// Exports of metrics.
    pub(crate) fn metrics(&self) -> u64 {
        self.metrics.load(Ordering::Relaxed)
    }

    /// Log records.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Starts one: where it listens, and what it counts. Its thread goes on until the program ends.
pub(crate) fn start() -> anyhow::Result<(SocketAddr, Arc<Received>)> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let received = Arc::<Received>::default();
    let counting = received.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        let served = runtime.block_on(serve(listener, counting));
        served.unwrap_or_else(|error| eprintln!("keyledger-bench: the receiver ended: {error:#}"));
    });
    Ok((address, received))
}

async fn serve(listener: std::net::TcpListener, received: Arc<Received>) -> anyhow::Result<()> {
    let incoming = TcpIncoming::from(TcpListener::from_std(listener)?);
    let serving = Server::builder()
        .add_service(Traces(received.clone()))
        .add_service(MetricsServiceServer::from_arc(received.clone()))
        .add_service(LogsServiceServer::from_arc(received))
        .serve_with_incoming(incoming);
    Ok(serving.await?)
}

/// An export of spans as far as it is counted: what a collector does with the rest is not measured, and costs this machine little.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
}

/// The service that takes spans.
#[derive(Clone)]
struct Traces(Arc<Received>);

impl NamedService for Traces {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower::Service<http::Request<Body>> for Traces {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let received = self.0.clone();
        let count = tower::service_fn(move |export: Request<Export>| {
            received.count(&export.into_inner());
            std::future::ready(Ok(Response::new(ExportTraceServiceResponse::default())))
        });
        let codec = ProstCodec::<ExportTraceServiceResponse, Export>::default();
        let mut grpc = tonic::server::Grpc::new(codec);
        Box::pin(async move { Ok(grpc.unary(count, request).await) })
    }
}

impl Received {
    fn count(&self, export: &Export) {
        let scopes = export.resources.iter().flat_map(|resource| &resource.scopes);
        for span in scopes.flat_map(|scope| &scope.spans) {
            self.spans.fetch_add(1, Ordering::Relaxed);
            if span.kind == SpanKind::Server as i32 && span.name == CALL {
                self.calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let export = request.into_inner();
        let scopes = export.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        let records: usize = scopes.map(|scope| scope.log_records.len()).sum();
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
