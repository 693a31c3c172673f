//! Small services as others write them, on loopback: one of tonic with a method that takes and gives a text, one of axum.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::response::Response as AxumResponse;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Layer, Service};

/// The method of [`Texts`].
pub(crate) const METHOD: &str = "/shop.Texts/Get";

type Answer = dyn Fn(Request<String>) -> BoxFuture<'static, Result<String, Status>> + Send + Sync;

/// A gRPC service with one method, that answers a text with a text.
#[derive(Clone)]
pub(crate) struct Texts(Arc<Answer>);

impl Texts {
    pub(crate) fn new<F>(answer: impl Fn(Request<String>) -> F + Send + Sync + 'static) -> Texts
    where
        F: Future<Output = Result<String, Status>> + Send + 'static,
    {
        Texts(Arc::new(move |request| Box::pin(answer(request))))
    }
}

impl NamedService for Texts {
    const NAME: &'static str = "shop.Texts";
}

impl UnaryService<String> for Texts {
    type Response = String;
    type Future = BoxFuture<'static, Result<Response<String>, Status>>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let answering = (self.0)(request);
        Box::pin(async move { Ok(Response::new(answering.await?)) })
    }
}

impl Service<HttpRequest<Body>> for Texts {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let texts = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.unary(texts, request).await)
        })
    }
}

/// Serves a gRPC service, and says where.
pub(crate) async fn serve_grpc<S>(service: S) -> String
where
    S: Service<HttpRequest<Body>, Response = HttpResponse<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let serving =
        Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(serving);
    address
}

/// Calls the method of [`Texts`].
pub(crate) async fn ask(address: &str, request: Request<String>) -> Result<String, Status> {
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{address}"));
    let channel = endpoint.expect("an address").connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(METHOD);
    let codec = ProstCodec::<String, String>::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

/// A request with a token.
pub(crate) fn with_token(text: &str, token: &str) -> Request<String> {
    let mut request = Request::new(text.to_string());
    let bearer = format!("Bearer {token}").parse().expect("visible ASCII");
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// Serves any path with axum, behind a layer, and says where.
pub(crate) async fn serve_http<L, S>(
    layer: L,
    answer: impl Fn(AxumRequest) -> Pin<Box<dyn Future<Output = AxumResponse> + Send>>
    + Clone
    + Send
    + Sync
    + 'static,
) -> String
where
    L: Layer<axum::routing::Route, Service = S> + Clone + Send + Sync + 'static,
    S: Service<AxumRequest, Response = AxumResponse, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let router = Router::new().fallback(answer).layer(layer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// What a service of HTTP answered: status, head and body.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// `GET path`, with these lines in the head.
pub(crate) async fn get(address: &str, path: &str, head: &str) -> Told {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let head = head.to_ascii_lowercase();
    Told { status: status.expect("a status"), head, body: body.into() }
}

/// The head of a request with a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}
