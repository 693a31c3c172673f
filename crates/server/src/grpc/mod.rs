//! The gRPC side: one gate for all methods, a table of handlers, health and reflection.
//!
//! - `gate`: the one place through which every call goes.
//! - `deadline`: how long a call may take.
//! - `ending`: when a call has really ended, and how.
//! - `headers`: whose token a request brings, and where it comes from.
//! - `routes`: which handler answers which method.
//! - `call`: what a handler can ask of the ledger.
//! - `keys`, `lists`, `checks`, `roles`, `permissions`, `audit`, `list_events`, `count_events`, `stream`, `export`, `watch`: the
//!   handlers.
//! - `logs`: log records of other services, as collectors of OpenTelemetry send them.
//! - `events`: what of the log a reader sees.
//! - `candidates`: where in the log what is asked for may stand.
//! - `follow`: what streams share; `replies`: what they give on its way to the reader.
//! - `forwarders`: how far the server's own sending has come.
//! - `status`: failures as statuses.

mod access_review;
mod anomalies;
mod audit;
mod call;
mod candidates;
mod checks;
mod count_events;
mod counts;
mod deadline;
mod describe;
mod ending;
mod events;
mod export;
mod findings;
mod follow;
mod forwarders;
mod gate;
mod headers;
mod import;
mod keys;
mod ledgers;
mod list_events;
mod lists;
mod logs;
mod memory;
mod moment;
mod page_token;
mod permissions;
mod producers;
mod record;
mod replies;
mod reports;
mod reviews;
mod roles;
mod routes;
mod status;
mod stream;
mod traces;
mod usage;
mod watch;

use std::convert::Infallible;
use std::future::Ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either};
use tonic::Status;
use tonic::server::NamedService;

use crate::names;
use crate::replica::Replica;
use crate::telemetry::ContextReader;
use ending::Answers;
pub(crate) use events::{Selection, Viewer, damaged, events_of};
use gate::{Gate, HttpRequest, HttpResponse};
use routes::Routes;
pub(crate) use status::Failure;

/// All our services behind one gate.
#[derive(Clone)]
pub(crate) struct Services {
    gate: Arc<Gate>,
    routes: Arc<Routes>,
}

impl Services {
    pub(crate) fn new(replica: Arc<Replica>, reader: ContextReader) -> Services {
        Services { gate: Arc::new(Gate::new(replica, reader)), routes: Arc::new(routes::routes()) }
    }

    pub(crate) fn key_service(&self) -> KeyService {
        KeyService(self.clone())
    }

    pub(crate) fn audit_service(&self) -> AuditService {
        AuditService(self.clone())
    }

    pub(crate) fn logs_service(&self) -> LogsService {
        LogsService(self.clone())
    }

    fn answer(&self, request: HttpRequest) -> Answered {
        match self.routes.get(request.uri().path()) {
            None => {
                let answer = Status::from(Failure::NoSuchMethod).into_http();
                let running = self.gate.running(names::OTHER_METHOD, &request);
                Either::Left(std::future::ready(Ok(running.answered(answer, Answers::One))))
            }
            Some((method, route)) => Either::Right(route(self.gate.clone(), method, request)),
        }
    }
}

type Answer = Result<HttpResponse, Infallible>;
type Answered = Either<Ready<Answer>, BoxFuture<'static, Answer>>;

/// `keyledger.v1.KeyService`, by its path.
#[derive(Clone)]
pub(crate) struct KeyService(Services);

/// `keyledger.v1.AuditService`, by its path.
#[derive(Clone)]
pub(crate) struct AuditService(Services);

/// `opentelemetry.proto.collector.logs.v1.LogsService`, by its path.
#[derive(Clone)]
pub(crate) struct LogsService(Services);

impl NamedService for KeyService {
    const NAME: &'static str = "keyledger.v1.KeyService";
}

impl NamedService for AuditService {
    const NAME: &'static str = "keyledger.v1.AuditService";
}

impl NamedService for LogsService {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl tower::Service<HttpRequest> for KeyService {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Answered {
        self.0.answer(request)
    }
}

impl tower::Service<HttpRequest> for AuditService {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Answered {
        self.0.answer(request)
    }
}

impl tower::Service<HttpRequest> for LogsService {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = Answered;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Answered {
        self.0.answer(request)
    }
}
