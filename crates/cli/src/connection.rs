//! The connection to a server: endpoint, token and TLS, from options, variables or what `keyledger dev` wrote.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyledger_proto::audit_service_client::AuditServiceClient;
use keyledger_proto::key_service_client::KeyServiceClient;
use keyledger_server::config::DEFAULT_LISTEN;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};
use tonic::{Request, Status};

use crate::failure::{Circumstances, Failure, innermost, unreachable_advice};
use crate::place;
use crate::token::{self, Bearer, Usual};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one call may take. Streams have no end of their own.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A page of 4,096 uses with all its texts stays below this.
const MAX_REPLY: usize = 64 * 1024 * 1024;

/// How to reach a server.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Address of the server, `http://host:port` or `https://host:port`. Without it: the address that `keyledger dev` on
    /// this machine wrote down, else http://127.0.0.1:7420.
    #[arg(long, env = "KEYLEDGER_ENDPOINT", value_name = "URL", global = true)]
    endpoint: Option<String>,
    /// File with the caller's token. Without it: the variable KEYLEDGER_TOKEN, else the token that `keyledger dev` on this
    /// machine wrote. A token is never taken as an argument: other users could read it there with `ps`.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// File with the PEM certificates to trust instead of those that this system trusts. For https.
    #[arg(long, value_name = "FILE", global = true)]
    ca_cert: Option<PathBuf>,
    /// File with the PEM certificate that this client shows. For https, together with --client-key.
    #[arg(long, value_name = "FILE", requires = "client_key", global = true)]
    client_cert: Option<PathBuf>,
    /// File with the PEM private key of --client-cert.
    #[arg(long, value_name = "FILE", requires = "client_cert", global = true)]
    client_key: Option<PathBuf>,
    /// Allow http:// to another host: the token then crosses the network in the clear.
    #[arg(long, global = true)]
    plaintext: bool,
}

/// Where `keyledger dev` keeps its data.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct DataDir {
    /// Data directory of `keyledger dev`, where its address and token are found. Without it: /var/lib/keyledger for root,
    /// else $XDG_DATA_HOME/keyledger or ~/.local/share/keyledger.
    #[arg(long, env = "KEYLEDGER_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// For commands in which --data-dir means something else.
    pub(crate) fn from_variable() -> DataDir {
        let set = std::env::var_os("KEYLEDGER_DATA_DIR").filter(|dir| !dir.is_empty());
        DataDir { data_dir: set.map(PathBuf::from) }
    }
}

/// An open connection, with the caller's token.
pub(crate) struct Session {
    channel: Channel,
    bearer: Bearer,
    endpoint: String,
}

impl Session {
    pub(crate) fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_REPLY)
    }

    /// A call with a deadline.
    pub(crate) fn call<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// A call whose reply is a stream.
    pub(crate) fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.value.clone());
        request
    }

    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::of_call(status, &self.circumstances(None))
    }

    /// Of a change: with its request id, a repeat is safe.
    pub(crate) fn change_failure(&self, status: &Status, request_id: &str) -> Failure {
        Failure::of_call(status, &self.circumstances(Some(request_id.into())))
    }

    fn circumstances(&self, request_id: Option<String>) -> Circumstances {
        let (endpoint, token_source) = (self.endpoint.clone(), self.bearer.source.clone());
        Circumstances { endpoint, token_source, request_id }
    }
}

impl Connection {
    /// Connects. `usual` says which token of `dev` is taken if none is named.
    pub(crate) async fn open(&self, data_dir: &DataDir, usual: Usual) -> anyhow::Result<Session> {
        let endpoint = self.endpoint(data_dir);
        let address = self.checked(&endpoint)?;
        let bearer =
            token::find(self.token_file.as_deref(), usual_file(data_dir, &address, usual)?)?;
        let mut channel = Endpoint::from(address.clone())
            .user_agent(concat!("keyledger/", env!("CARGO_PKG_VERSION")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if is_https(&address) {
            channel =
                channel.tls_config(self.tls()?).map_err(|e| bad_tls(&innermost(&e).to_string()))?;
        }
        let channel = channel.connect().await.map_err(|e| unreachable(&endpoint, &e))?;
        Ok(Session { channel, bearer, endpoint })
    }

    fn endpoint(&self, data_dir: &DataDir) -> String {
        if let Some(named) = &self.endpoint {
            return named.clone();
        }
        let data_dir = data_dir.data_dir.clone().or_else(|| place::default_data_dir().ok());
        let written = data_dir.and_then(|dir| std::fs::read_to_string(place::endpoint(&dir)).ok());
        let written = written.map(|text| text.trim().to_string()).filter(|text| !text.is_empty());
        written.unwrap_or_else(|| format!("http://{DEFAULT_LISTEN}"))
    }

    /// Refuses what isn't an address, TLS options without TLS, and a token in the clear on a network.
    fn checked(&self, endpoint: &str) -> Result<Uri, Failure> {
        let uri: Option<Uri> = endpoint.parse().ok();
        let fits =
            |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let uri = uri.filter(fits).ok_or_else(|| {
            Failure::new(format!("the endpoint {endpoint} is no address"))
                .next("give one such as http://127.0.0.1:7770 or https://keys.example.com:7770")
        })?;
        let tls_options = self.ca_cert.is_some() || self.client_cert.is_some();
        if tls_options && !is_https(&uri) {
            return Err(Failure::new(format!(
                "certificates are named, but {endpoint} is without TLS"
            ))
            .next(
                "give an https:// endpoint, or leave out --ca-cert, --client-cert and --client-key",
            ));
        }
        if !is_https(&uri) && !is_this_machine(&uri) && !self.plaintext {
            return Err(Failure::new(format!(
                "{endpoint} would get the token in the clear over the network"
            ))
            .next("use an https:// endpoint, or allow it with --plaintext"));
        }
        Ok(uri)
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let tls = ClientTlsConfig::new();
        let tls = match &self.ca_cert {
            Some(file) => tls.ca_certificate(Certificate::from_pem(read_pem(file)?)),
            None => tls.with_native_roots(),
        };
        match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                Ok(tls.identity(Identity::from_pem(read_pem(cert)?, read_pem(key)?)))
            }
            _ => Ok(tls),
        }
    }
}

/// The token that `dev` wrote goes to this machine only, unless its directory was named.
fn usual_file(data_dir: &DataDir, to: &Uri, usual: Usual) -> Result<Option<PathBuf>, Failure> {
    let dir = match &data_dir.data_dir {
        Some(named) => named.clone(),
        None if is_this_machine(to) => place::default_data_dir()?,
        None => return Ok(None),
    };
    Ok(Some(token::usual_file(&dir, usual)))
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn read_pem(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|e| bad_tls(&format!("{} can't be read: {e}", file.display())))
}

fn bad_tls(reason: &str) -> Failure {
    Failure::new(format!("TLS can't be set up: {reason}"))
        .next("check the PEM files named by --ca-cert, --client-cert and --client-key")
}

fn unreachable(endpoint: &str, error: &tonic::transport::Error) -> Failure {
    let failure = Failure::new(format!("no connection to {endpoint}: {}", innermost(error)));
    match endpoint.starts_with("https:") {
        true => failure
            .next("check the host, and that --ca-cert names the authority of its certificate"),
        false => failure.next(unreachable_advice(endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(plaintext: bool, ca_cert: Option<PathBuf>) -> Connection {
        let (endpoint, token_file, client_cert, client_key) = (None, None, None, None);
        Connection { endpoint, token_file, ca_cert, client_cert, client_key, plaintext }
    }

    #[test]
    fn a_token_never_crosses_a_network_in_the_clear_unasked() {
        let plain = connection(false, None);
        for fine in [
            "http://127.0.0.1:7770",
            "http://[::1]:7770",
            "http://localhost:1",
            "https://a.example",
        ] {
            assert!(plain.checked(fine).is_ok(), "{fine}");
        }
        for bad in ["http://192.0.2.1:7770", "http://localhost.example:1", "http://0.0.0.0:7770"] {
            assert!(plain.checked(bad).is_err(), "{bad}");
            assert!(connection(true, None).checked(bad).is_ok(), "{bad}");
        }
    }

    #[test]
    fn the_help_names_the_default_endpoint() {
        let command = <Connection as clap::Args>::augment_args(clap::Command::new("x"));
        let endpoint = command.get_arguments().find(|a| a.get_id() == "endpoint").unwrap();
        assert!(endpoint.get_help().unwrap().to_string().contains(DEFAULT_LISTEN));
    }

    #[test]
    fn an_endpoint_is_a_whole_address() {
        for bad in ["", "127.0.0.1:7770", "localhost", "ftp://localhost", "unix:/x", "http:// x"] {
            assert!(connection(true, None).checked(bad).is_err(), "{bad}");
        }
        let tls = connection(false, Some("ca.pem".into()));
        assert!(tls.checked("http://127.0.0.1:7770").is_err());
    }

    #[test]
    fn the_token_of_dev_goes_to_this_machine_or_where_it_is_sent_by_name() {
        let (unnamed, named) =
            (DataDir { data_dir: None }, DataDir { data_dir: Some("/d".into()) });
        let away: Uri = "https://keys.example.com".parse().unwrap();
        assert_eq!(usual_file(&unnamed, &away, Usual::Admin).unwrap(), None);
        assert_eq!(
            usual_file(&named, &away, Usual::System).unwrap(),
            Some("/d/system.token".into())
        );
    }
}
