//! What other services use of Keyledger: a typed client, a tower layer that checks the tokens of incoming calls, and a recorder
//! that sends audit events.
//!
//! ```no_run
//! use keyledger_client::proto::VerifyKeyRequest;
//! use keyledger_client::{Client, Config};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Config::new("https://keys.example.com:7420", "klk_…")).await?;
//! let verdict = client
//!     .verify(VerifyKeyRequest {
//!         token: "klk_…".into(),
//!         permission: "orders.read".into(),
//!         resource: "orders/4711".into(),
//!         ..VerifyKeyRequest::default()
//!     })
//!     .await?;
//! println!("{:?}, since {:?}", verdict.decision(), verdict.reason());
//! // All other methods, with the same token and the current trace on each call:
//! let ask = client.timed(Default::default());
//! let me = client.within_timeout(client.keys().who_am_i(ask)).await?;
//! # Ok(()) }
//! ```
//!
//! - [`Client`]: the generated clients with the service's token and the current OpenTelemetry trace on each call. The token is
//!   never printed.
//! - [`Guard`] and [`GuardLayer`]: is the caller of a tonic or axum service allowed to do this? Fails closed. Strict, or, where
//!   roles and the ledger's policy allow it, with answers that are kept for a moment ([`Keeping`]).
//! - [`Recorder`]: batches audit events, repeats what failed, and records each once.
//!
//! For axum: routers take the layer with `Router::layer`, and the client's address from `ConnectInfo`:
//!
//! ```no_run
//! use std::net::{IpAddr, SocketAddr};
//!
//! use keyledger_client::{Access, Ask, Guard, GuardLayer, Verified};
//!
//! fn layer(guard: Guard, peer: fn(&http::request::Parts) -> Option<IpAddr>) -> GuardLayer {
//!     GuardLayer::new(guard, |call| match (call.method.as_str(), call.uri.path()) {
//!         ("GET", "/health") => Access::Open,
//!         ("GET", path) => Access::Needs(Ask::new("orders.read", path.trim_start_matches('/'))),
//!         // What can't be undone is never let through by an answer that was kept.
//!         ("DELETE", path) => {
//!             Access::Needs(Ask::new("orders.delete", path.trim_start_matches('/')).strictly())
//!         }
//!         _ => Access::Nobody,
//!     })
//!     .address(peer) // parts.extensions.get::<ConnectInfo<SocketAddr>>()
//!     .with_baggage()
//! }
//! ```

mod backoff;
mod call;
mod config;
mod error;
mod fitting;
mod guard;
pub mod names;
mod propagate;
mod recorder;

/// The messages of the API.
pub use keyledger_proto as proto;

pub use call::{Audit, Client, Headers, Keys};
pub use config::Config;
pub use error::{CallError, ConnectError};
pub use guard::{
    Access, Ask, Guard, GuardConfig, GuardLayer, Guarded, Keeping, Refusal, Source, Unreported,
    Verified,
};
pub use recorder::{Receipt, RecordError, Recorded, Recorder, RecorderConfig, Unsent};
