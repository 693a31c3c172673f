//! The guard as a tower layer before a tonic or axum service: it works on `http` requests and asks nothing of their bodies.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use opentelemetry::Context;
use opentelemetry::baggage::{BaggageExt, KeyValueMetadata};
use opentelemetry::trace::FutureExt;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use super::{Ask, Guard, Refusal, Source, Verified};
use crate::names;

/// What a service asks of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody may: no token is looked at. For health checks and the like.
    Open,
    /// The caller's key must be allowed to do this.
    Needs(Ask),
    /// Nobody may: for paths that the service doesn't know.
    Nobody,
}

/// Says what a call needs, from its method, path and headers.
type Needs = dyn Fn(&Parts) -> Access + Send + Sync;
/// Says where a call came from.
type Address = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

/// Puts a [`Guard`] before a service. What it has found out stands as [`Verified`] in the extensions of the request.
///
/// ```no_run
/// use keyledger_client::{Access, Ask, Client, Config, Guard, GuardConfig, GuardLayer, Verified};
///
/// # async fn serve<S>(orders: S) -> Result<(), Box<dyn std::error::Error>>
/// # where
/// #     S: tower::Service<
/// #             http::Request<tonic::body::Body>,
/// #             Response = http::Response<tonic::body::Body>,
/// #             Error = std::convert::Infallible,
/// #         > + tonic::server::NamedService + Clone + Send + Sync + 'static,
/// #     S::Future: Send,
/// # {
/// let client = Client::lazy(Config::new("https://keys.example.com:7420", "klk_…"))?;
/// let guard = Guard::new(client, GuardConfig::default());
/// let layer = GuardLayer::new(guard.clone(), |call| match call.uri.path() {
///     "/shop.Orders/Get" => Access::Needs(Ask::new("orders.read", "orders")),
///     "/grpc.health.v1.Health/Check" => Access::Open,
///     _ => Access::Nobody,
/// });
/// tonic::transport::Server::builder()
///     .layer(layer)
///     .add_service(orders)
///     .serve("127.0.0.1:8080".parse()?)
///     .await?;
/// guard.close().await?;
/// # Ok(()) }
/// // In a handler: request.extensions().get::<Verified>()
/// ```
#[derive(Clone)]
pub struct GuardLayer {
    guard: Guard,
    needs: Arc<Needs>,
    address: Arc<Address>,
    baggage: bool,
}

impl GuardLayer {
    /// `needs` says what each call must be allowed to do.
    pub fn new(
        guard: Guard,
        needs: impl Fn(&Parts) -> Access + Send + Sync + 'static,
    ) -> GuardLayer {
        GuardLayer { guard, needs: Arc::new(needs), address: Arc::new(peer), baggage: false }
    }

    /// Where a call came from, for keys that are restricted to networks: for axum its `ConnectInfo`, behind a proxy that can be
    /// trusted the header that it sets. By default the peer, as tonic's server tells it.
    pub fn address(
        self,
        address: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> GuardLayer {
        GuardLayer { address: Arc::new(address), ..self }
    }

    /// Puts the key's id into the baggage of what the service calls while it answers.
    pub fn with_baggage(self) -> GuardLayer {
        GuardLayer { baggage: true, ..self }
    }

    /// `None` for what needs no key.
    async fn admit(&self, call: &Parts) -> Result<Option<Verified>, Refusal> {
        let ask = match (self.needs)(call) {
            Access::Open => return Ok(None),
            Access::Nobody => return Err(Refusal::Forbidden),
            Access::Needs(ask) => ask,
        };
        let token = bearer(&call.headers).ok_or(Refusal::NoToken)?;
        let agent = call.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
        let from =
            Source { address: (self.address)(call), user_agent: agent.unwrap_or_default().into() };
        self.guard.check(token, &ask, &from).await.map(Some)
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, layer: self.clone() }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready takes this call.
        let waiting = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, waiting);
        let layer = self.layer.clone();
        Box::pin(async move {
            let (mut call, body) = request.into_parts();
            conceal(&mut call.headers);
            match layer.admit(&call).await {
                Err(refusal) if is_grpc(&call.headers) => Ok(refusal.to_status().into_http()),
                Err(refusal) => Ok(refusal.to_http()),
                Ok(None) => inner.call(Request::from_parts(call, body)).await,
                Ok(Some(verified)) => {
                    let key_id = verified.key_id.clone();
                    call.extensions.insert(verified);
                    let request = Request::from_parts(call, body);
                    if !layer.baggage {
                        return inner.call(request).await;
                    }
                    let context = with_key_id(&Context::current(), &key_id);
                    let answering = {
                        let _attached = context.clone().attach();
                        inner.call(request)
                    };
                    answering.with_context(context).await
                }
            }
        })
    }
}

fn with_key_id(context: &Context, key_id: &str) -> Context {
    let there = context.baggage().iter().map(|(name, (value, metadata))| {
        KeyValueMetadata::new(name.clone(), value.clone(), metadata.as_str())
    });
    let ours = KeyValueMetadata::new(names::KEY_ID, key_id.to_string(), "");
    context.with_baggage(there.chain([ours]).collect::<Vec<_>>())
}

/// Whoever prints the headers behind us doesn't print the token.
fn conceal(headers: &mut HeaderMap) {
    if let http::header::Entry::Occupied(mut entry) = headers.entry(AUTHORIZATION) {
        entry.iter_mut().for_each(|value| value.set_sensitive(true));
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// RFC 6750 §2.1: exactly one header, the scheme in any case, one word.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start_matches(' '))
}

/// As tonic's server tells it.
fn peer(call: &Parts) -> Option<IpAddr> {
    let plain = call.extensions.get::<TcpConnectInfo>();
    let tls = call.extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let peer = plain.or(tls.map(|tls| tls.get_ref()))?;
    Some(peer.remote_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    fn token(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        conceal(&mut headers);
        assert!(headers.values().all(|value| value.is_sensitive()));
        bearer(&headers).map(Into::into)
    }

    #[test]
    fn a_bearer_token_is_taken_from_exactly_one_header() {
        assert_eq!(token(&["Bearer klk_a"]).as_deref(), Some("klk_a"));
        assert_eq!(token(&["bearer  klk_a"]).as_deref(), Some("klk_a"));
        for none in [&[][..], &["Basic YTpi"], &["klk_a"], &["Bearer klk_a", "Bearer klk_b"]] {
            assert_eq!(token(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_key_id_joins_the_baggage_that_is_there() {
        let context = Context::new().with_baggage([KeyValue::new("tenant", "a")]);
        let context = with_key_id(&context, "77");
        let baggage = context.baggage();
        assert_eq!(baggage.get("tenant").map(|v| v.as_str()), Some("a"));
        assert_eq!(baggage.get(names::KEY_ID).map(|v| v.as_str()), Some("77"));
    }
}
