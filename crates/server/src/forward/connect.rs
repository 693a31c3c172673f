//! Connections of forwarders: a name is resolved, its addresses are judged, and exactly one that was judged is connected to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failed;
use super::address::refusal;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Where a forwarder sends to.
pub(super) struct Destination {
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `None` for plaintext, which is for this machine alone.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) allow_private: bool,
}

/// An open connection.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

impl Destination {
    pub(super) async fn connect(&self) -> Result<Box<dyn Connection>, Failed> {
        let stream = self.connect_tcp().await?;
        stream.set_nodelay(true).map_err(|e| Failed::new(format!("the connection failed: {e}")))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| Failed::new("the host is no name that a certificate can have"))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|e| Failed::new(format!("TLS failed: {e}")))?))
    }

    async fn connect_tcp(&self) -> Result<TcpStream, Failed> {
        let mut why = Failed::new("the host has no address");
        for address in self.resolve().await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = Failed::new(format!("no connection: {error}")),
            }
        }
        Err(why)
    }

    /// The addresses of the host that may be sent to.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failed> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|e| Failed::new(format!("the host can't be resolved: {e}")))?;
        let (mut good, mut refused) = (vec![], None);
        for address in found {
            match refusal(address.ip(), self.allow_private, self.tls.is_some()) {
                None => good.push(address),
                Some(why) => refused = Some(why),
            }
        }
        good.truncate(MAX_ADDRESSES);
        match refused {
            Some(why) if good.is_empty() => Err(Failed::new(format!("the host resolves to {why}"))),
            _ => Ok(good),
        }
    }
}

/// TLS that trusts what the system trusts or, if a file is named, the authorities in it and nobody else.
pub(super) fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) => {
            let read = |e| format!("{} can't be read: {e}", file.display());
            for certificate in CertificateDer::pem_file_iter(file).map_err(read)? {
                roots.add(certificate.map_err(read)?).map_err(|e| {
                    format!("{} holds no certificate of an authority: {e}", file.display())
                })?;
            }
        }
    }
    if roots.is_empty() {
        return Err(match ca_file {
            None => "must be given: the system trusts no authorities".into(),
            Some(file) => format!("{} holds no certificate", file.display()),
        });
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// The same, for HTTP/2.
pub(super) fn for_http2(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(tls)
}
