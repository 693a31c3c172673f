//! What a server is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::telemetry::CallerContext;
use crate::telemetry::config::Settings;

/// Where `serve` and `dev` listen by default.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7420";

/// Most changes that are folded for one answer about the past, by default.
pub const MAX_FOLDED: u64 = 200_000;

/// The two databases of a deployment.
#[derive(Clone)]
pub struct Databases {
    /// Entries and their projections.
    pub ledger: String,
    /// Data keys of subjects. In production on a cluster of its own, which must not share backups with the ledger.
    pub sealing: String,
}

/// Certificate and key of the server, in PEM files, and perhaps the authority that clients must have theirs from.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_authority: Option<PathBuf>,
}

#[derive(Clone)]
pub struct Serve {
    pub databases: Databases,
    pub key_dir: PathBuf,
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    /// Plaintext off loopback is refused without this.
    pub allow_plaintext: bool,
    /// Most changes that are folded for one answer about the past.
    pub max_folded: u64,
    /// The configuration of forwarders, if there is one.
    pub forwarders: Option<PathBuf>,
    /// How long the reader of a stream may take nothing before it is disconnected.
    pub reader_patience: Duration,
    /// What the variables of OpenTelemetry say.
    pub telemetry: Settings,
    /// What becomes of the trace context that callers send.
    pub caller_context: CallerContext,
}

impl Serve {
    /// SHA-256 over what is configured, without passwords: stands in the entry that says a server started. `forwarders` is that of
    /// their configuration.
    pub(crate) fn digest(&self, forwarders: Option<[u8; 32]>) -> [u8; 32] {
        let tls = self.tls.as_ref().map(|t| (&t.certificate, &t.key, &t.client_authority));
        let text = format!(
            "{:?}\n{:?}\n{:?}\n{}\n{}\n{:?}\n{:?}\n{:?}\n{:?}",
            self.key_dir,
            self.listen,
            tls,
            self.allow_plaintext,
            self.max_folded,
            forwarders,
            self.reader_patience,
            self.telemetry,
            self.caller_context
        );
        Sha256::digest(text).into()
    }
}
