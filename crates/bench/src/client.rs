//! The client, the same for both servers: connections, the caller's token, and the question.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use keyledger_ledger::body::{Decision, Grant};
use keyledger_proto::key_service_client::KeyServiceClient;
use keyledger_proto::{Client, VerifyKeyRequest, VerifyKeyResponse};
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

const PERMISSION: &str = "audit.read";
const RESOURCE: &str = "logs/error";

/// What each key that is asked about may do, and is asked for.
pub(crate) fn subject_grant() -> Grant {
    Grant { permissions: vec![PERMISSION.into()], resource: RESOURCE.into(), give_only: false }
}

/// Who asks: a token, ready to be sent.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub(crate) fn new(token: &str) -> anyhow::Result<Bearer> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
        value.set_sensitive(true);
        Ok(Bearer(value))
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.0.clone());
        request
    }
}

/// Connections to one server. Each is one HTTP/2 connection.
pub(crate) struct Connections(Vec<KeyServiceClient<Channel>>);

impl Connections {
    pub(crate) async fn open(address: SocketAddr, count: u32) -> anyhow::Result<Connections> {
        let endpoint = Endpoint::try_from(format!("http://{address}"))?;
        let mut clients = vec![];
        for _ in 0..count {
            let channel = endpoint.connect().await.context("can't connect to a child process")?;
            clients.push(KeyServiceClient::new(channel));
        }
        Ok(Connections(clients))
    }

    /// The connection of the n-th worker.
    pub(crate) fn of(&self, worker: usize) -> KeyServiceClient<Channel> {
        self.0[worker % self.0.len()].clone()
    }
}

/// What a worker asks, and with whose token.
#[derive(Clone)]
pub(crate) struct Questions {
    pub(crate) bearer: Bearer,
    /// Tokens of the keys that are asked about.
    pub(crate) subjects: Arc<[String]>,
}

impl Questions {
    pub(crate) fn about(&self, subject: usize) -> Request<VerifyKeyRequest> {
        self.bearer.request(VerifyKeyRequest {
            token: self.subjects[subject].clone(),
            permission: PERMISSION.into(),
            resource: RESOURCE.into(),
            client: Some(Client {
                address: "203.0.113.7".into(),
                user_agent: "curl/8.14.1".into(),
            }),
            audience: String::new(),
            reason: "nightly export".into(),
            max_staleness: None,
            keep: None,
        })
    }
}

/// Every answer must be ALLOW: another one means that something else was measured.
pub(crate) fn require_allowed(reply: &VerifyKeyResponse) -> anyhow::Result<()> {
    let allowed = reply.decision == Decision::Allow as i32;
    ensure!(allowed, "a key was not allowed what it holds: {:?}", reply.reason());
    Ok(())
}
