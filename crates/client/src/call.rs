//! The client: the generated clients with the service's token and the current trace on each call, and helpers for the calls
//! that services make most.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keyledger_proto::audit_service_client::AuditServiceClient;
use keyledger_proto::key_service_client::KeyServiceClient;
use keyledger_proto::{
    EventOutcome, NewEvent, RecordEventsRequest, VerifyKeyRequest, VerifyKeyResponse,
};
use opentelemetry::Context;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::config::{Config, innermost};
use crate::error::{CallError, ConnectError};
use crate::propagate;

/// A page of 4,096 uses with all its texts stays below this.
const MAX_REPLY: usize = 64 * 1024 * 1024;

/// All methods of `keyledger.v1.KeyService`.
pub type Keys = KeyServiceClient<InterceptedService<Channel, Headers>>;
/// All methods of `keyledger.v1.AuditService`.
pub type Audit = AuditServiceClient<InterceptedService<Channel, Headers>>;

/// A connection to Keyledger, as one service. Cheap to clone; broken connections are made again by themselves.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
    endpoint: Arc<str>,
    timeout: Duration,
}

impl Client {
    /// Connects now: an error if nobody answers there.
    pub async fn connect(config: Config) -> Result<Client, ConnectError> {
        let channel = config.endpoint()?.connect().await.map_err(|error| {
            let cause = innermost(&error);
            ConnectError::Unreachable { endpoint: config.address().into(), cause }
        })?;
        Client::with_channel(config, channel)
    }

    /// Connects when it is first called: for services that start whether or not Keyledger is there. Needs a tokio runtime.
    pub fn lazy(config: Config) -> Result<Client, ConnectError> {
        let channel = config.endpoint()?.connect_lazy();
        Client::with_channel(config, channel)
    }

    fn with_channel(config: Config, channel: Channel) -> Result<Client, ConnectError> {
        let headers = Headers { bearer: config.bearer()?, baggage: config.baggage.clone().into() };
        let endpoint = config.address().into();
        Ok(Client { channel, headers, endpoint, timeout: config.timeout })
    }

    /// The generated client of KeyService. Its calls have no timeout but the one that their request says.
    pub fn keys(&self) -> Keys {
        let channel = InterceptedService::new(self.channel.clone(), self.headers.clone());
        KeyServiceClient::new(channel).max_decoding_message_size(MAX_REPLY)
    }

    /// The generated client of AuditService. Its calls have no timeout but the one that their request says.
    pub fn audit(&self) -> Audit {
        let channel = InterceptedService::new(self.channel.clone(), self.headers.clone());
        AuditServiceClient::new(channel).max_decoding_message_size(MAX_REPLY)
    }

    /// Asks for a verdict on a token. A refusal is an answer (`decision`, `reason`), not an error.
    pub async fn verify(&self, request: VerifyKeyRequest) -> Result<VerifyKeyResponse, CallError> {
        self.within_timeout(self.keys().verify_key(self.timed(request))).await
    }

    /// Records up to 100 events, each for itself: what became of each, in order. [`crate::Recorder`] does this in batches, with
    /// retries.
    pub async fn record(&self, events: Vec<NewEvent>) -> Result<Vec<EventOutcome>, CallError> {
        let request = RecordEventsRequest { events, atomic: false };
        let answer = self.within_timeout(self.audit().record_events(self.timed(request))).await;
        Ok(answer?.outcomes)
    }

    /// Waits for the answer of a generated client for as long as is configured, connecting included:
    /// `client.within_timeout(client.keys().who_am_i(request)).await`.
    pub async fn within_timeout<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CallError> {
        answered_within(self.timeout, call).await
    }

    /// A request with the configured timeout, for calls of the generated clients: it begins once a connection stands. See
    /// [`Client::within_timeout`].
    pub fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }
}

/// The timeout of a request doesn't count while a connection is made: this does.
pub(crate) async fn answered_within<T>(
    most: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(most, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::unavailable("no answer in time").into()),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What each call carries: the service's token and the current trace. It never prints the token.
#[derive(Clone)]
pub struct Headers {
    bearer: MetadataValue<Ascii>,
    baggage: Arc<[String]>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = request.metadata_mut();
        headers.insert("authorization", self.bearer.clone());
        propagate::inject(&Context::current(), &self.baggage, headers);
        Ok(request)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headers").finish_non_exhaustive()
    }
}
