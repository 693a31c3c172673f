//! The endpoint that Prometheus scrapes: `GET /metrics`, over plain HTTP/1.1. It holds no secret and no name of a person, so it may be
//! reached from other machines; few connections are open at once, and none for long.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::exposition::{Format, render};

/// Most connections at once; further ones wait until one is closed.
const MAX_CONNECTIONS: usize = 16;
/// How long one may take in all: each is for one scrape.
const LONGEST: Duration = Duration::from_secs(15);
/// How long it may take until it has asked.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long nobody is let in after accepting has failed, as it does while there are no file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads the metrics whenever somebody asks for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<ManualReader>);

impl MetricReader for Shared {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// Answers scrapes until the runtime ends.
pub(super) async fn serve(listener: TcpListener, reader: Shared) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let reader = reader.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(LONGEST, converse(stream, reader)).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// One question and its answer. A connection that breaks is of no interest to us.
async fn converse(stream: TcpStream, reader: Shared) {
    let answer = service_fn(move |request| answer(request, reader.clone()));
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).keep_alive(false);
    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    reader: Shared,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(refused(StatusCode::NOT_FOUND));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED);
        refused.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let format = Format::asked(request.headers().get(ACCEPT).and_then(|a| a.to_str().ok()));
    // It takes the locks of all instruments, one after the other.
    let text = tokio::task::spawn_blocking(move || scrape(&reader, format)).await;
    let Ok(Some(text)) = text else { return Ok(refused(StatusCode::SERVICE_UNAVAILABLE)) };
    let mut response = Response::new(Full::from(text));
    let of = http::HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, of);
    Ok(response)
}

fn scrape(reader: &Shared, format: Format) -> Option<String> {
    let mut metrics = ResourceMetrics::default();
    reader.collect(&mut metrics).ok()?;
    Some(render(&metrics, format))
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
