//! A collector inside the test: it receives spans, metrics and log records by OTLP over gRPC, and can refuse or stall.

use std::net::SocketAddr;

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
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Exports of one signal that wait for the scenario. Whoever sends more waits too.
const EXPORTS: usize = 4_096;

/// What a collector does with what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Accepts,
    /// UNAVAILABLE.
    Refuses,
    /// No answer, until it accepts or refuses again.
    Stalls,
}

/// Spans, metrics and log records, as they were sent: with their headers, in order.
///
/// ```ignore
/// let collector = Collector::start().await;
/// let replica = d.replica_with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint).await;
/// let export = collector.traces().await.into_inner();
/// ```
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    mood: watch::Sender<Mood>,
    traces: Mutex<mpsc::Receiver<Request<ExportTraceServiceRequest>>>,
    metrics: Mutex<mpsc::Receiver<Request<ExportMetricsServiceRequest>>>,
    logs: Mutex<mpsc::Receiver<Request<ExportLogsServiceRequest>>>,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        Collector::start_at("127.0.0.1:0".parse().expect("an address")).await
    }

    /// At an address, where another one may have been before.
    pub(crate) async fn start_at(address: SocketAddr) -> Collector {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (mood, moods) = watch::channel(Mood::Accepts);
        let (trace_sender, traces) = mpsc::channel(EXPORTS);
        let (metrics_sender, metrics) = mpsc::channel(EXPORTS);
        let (logs_sender, logs) = mpsc::channel(EXPORTS);
        let gzip = CompressionEncoding::Gzip;
        let serving = Server::builder()
            .add_service(
                TraceServiceServer::new(Signal(trace_sender, moods.clone()))
                    .accept_compressed(gzip),
            )
            .add_service(
                MetricsServiceServer::new(Signal(metrics_sender, moods.clone()))
                    .accept_compressed(gzip),
            )
            .add_service(LogsServiceServer::new(Signal(logs_sender, moods)).accept_compressed(gzip))
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        let (traces, metrics, logs) = (Mutex::new(traces), Mutex::new(metrics), Mutex::new(logs));
        Collector { endpoint, mood, traces, metrics, logs }
    }

    /// The next export of spans that was accepted.
    #[allow(dead_code, reason = "for the scenarios of metrics and log records")]
    pub(crate) async fn traces(&self) -> Request<ExportTraceServiceRequest> {
        self.traces.lock().await.recv().await.expect("the collector goes on")
    }

    /// The exports of spans that were accepted and that nobody has taken.
    pub(crate) async fn all_traces(&self) -> Vec<Request<ExportTraceServiceRequest>> {
        let mut waiting = self.traces.lock().await;
        std::iter::from_fn(|| waiting.try_recv().ok()).collect()
    }

    /// The next export of metrics that was accepted.
    #[allow(dead_code, reason = "for the scenarios of metrics")]
    pub(crate) async fn metrics(&self) -> Request<ExportMetricsServiceRequest> {
        self.metrics.lock().await.recv().await.expect("the collector goes on")
    }

    /// The next export of log records that was accepted.
    #[allow(dead_code, reason = "for the scenarios of log records")]
    pub(crate) async fn logs(&self) -> Request<ExportLogsServiceRequest> {
        self.logs.lock().await.recv().await.expect("the collector goes on")
    }

    /// From now on it takes what it is sent; also what waits for an answer.
    pub(crate) fn accept(&self) {
        self.mood.send_replace(Mood::Accepts);
    }

    /// From now on it answers UNAVAILABLE.
    pub(crate) fn refuse(&self) {
        self.mood.send_replace(Mood::Refuses);
    }

    /// From now on it doesn't answer.
    pub(crate) fn stall(&self) {
        self.mood.send_replace(Mood::Stalls);
    }
}

/// Receives one signal.
struct Signal<T>(mpsc::Sender<Request<T>>, watch::Receiver<Mood>);

impl<T> Signal<T> {
    async fn take<Answer: Default>(&self, request: Request<T>) -> Result<Response<Answer>, Status> {
        let mut moods = self.1.clone();
        let mood = moods.wait_for(|mood| *mood != Mood::Stalls).await.map(|mood| *mood);
        match mood {
            Ok(Mood::Accepts) => {
                let sent = self.0.send(request).await;
                sent.map_err(|_| Status::unavailable("the scenario has ended"))?;
                Ok(Response::new(Answer::default()))
            }
            _ => Err(Status::unavailable("this collector refuses")),
        }
    }
}

#[tonic::async_trait]
impl TraceService for Signal<ExportTraceServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request).await
    }
}

#[tonic::async_trait]
impl MetricsService for Signal<ExportMetricsServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request).await
    }
}

#[tonic::async_trait]
impl LogsService for Signal<ExportLogsServiceRequest> {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request).await
    }
}
