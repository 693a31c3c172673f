//! The child that is the floor: a bare tonic service. It decodes a VerifyKeyRequest and answers with a fixed
//! VerifyKeyResponse of the shape that Keyledger gives. It looks at no token and writes nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use keyledger_ledger::body::{Decision, DecisionReason};
use keyledger_proto::{VerifyKeyRequest, VerifyKeyResponse};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::client::subject_grant;
use crate::process::{parent_closes, say_listening};

/// Serves with the settings that Keyledger serves with.
pub(crate) async fn echo() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let serving = Server::builder()
        .max_concurrent_streams(1_024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(Echo(Arc::new(reply())))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            parent_closes(),
        );
    say_listening(address);
    Ok(serving.await?)
}

#[derive(Clone)]
struct Echo(Arc<VerifyKeyResponse>);

fn reply() -> VerifyKeyResponse {
    VerifyKeyResponse {
        decision: Decision::Allow as i32,
        reason: DecisionReason::Granted as i32,
        key_id: "01990e2f-3c64-8000-8000-0001f3a9c0d7".into(),
        matched_grant: Some(subject_grant()),
        matched_role: String::new(),
        expire_time: Some(prost_types::Timestamp { seconds: 1_795_305_599, nanos: 123_456_000 }),
        position: Some(12_345),
        index: Some(123),
        as_of_time: None,
        kept: None,
        version: 1,
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "keyledger.v1.KeyService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<VerifyKeyResponse, VerifyKeyRequest>::default();
            Ok(Grpc::new(codec).unary(service, request).await)
        })
    }
}

impl UnaryService<VerifyKeyRequest> for Echo {
    type Response = VerifyKeyResponse;
    type Future = Ready<Result<Response<VerifyKeyResponse>, Status>>;

    fn call(&mut self, _: Request<VerifyKeyRequest>) -> Self::Future {
        ready(Ok(Response::new(VerifyKeyResponse::clone(&self.0))))
    }
}
