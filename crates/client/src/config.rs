//! How a service reaches Keyledger: address, token, TLS, and how long it waits.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Uri};

use crate::error::ConnectError;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call of a helper may take, if nothing else is said.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection over which nothing comes for so long is asked whether it stands,
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and given up when no answer comes for so long.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token: more bytes are looked at nowhere.
pub(crate) const MAX_TOKEN: usize = 256;

/// How to reach Keyledger, and as whom. It never prints the token.
#[derive(Clone)]
pub struct Config {
    endpoint: String,
    token: String,
    ca_pem: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    plaintext: bool,
    pub(crate) timeout: Duration,
    pub(crate) baggage: Vec<String>,
}

impl Config {
    /// An address such as `https://keys.example.com:7420`, and the token of the service itself.
    pub fn new(endpoint: impl Into<String>, token: impl Into<String>) -> Config {
        Config {
            endpoint: endpoint.into(),
            token: token.into().trim().into(),
            ca_pem: None,
            identity: None,
            plaintext: false,
            timeout: CALL_TIMEOUT,
            baggage: vec![],
        }
    }

    /// Trusts these certificates (PEM) instead of those that the system trusts.
    pub fn trusting(mut self, ca_pem: impl Into<Vec<u8>>) -> Config {
        self.ca_pem = Some(ca_pem.into());
        self
    }

    /// Shows this certificate (PEM), whose private key is given, too.
    pub fn showing(mut self, cert_pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Config {
        self.identity = Some((cert_pem.into(), key_pem.into()));
        self
    }

    /// Allows `http://` to another machine: the token then crosses the network in the clear.
    pub fn allowing_plaintext(mut self) -> Config {
        self.plaintext = true;
        self
    }

    /// How long a call of our helpers may take: 10 seconds, if nothing is said. Calls of the generated clients have the timeout
    /// that their requests say.
    pub fn timeout(mut self, timeout: Duration) -> Config {
        self.timeout = timeout;
        self
    }

    /// Sends these entries of the current baggage with each call. Without this none is sent.
    pub fn sending_baggage<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Config {
        self.baggage = names.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        let address = self.checked()?;
        let endpoint = Endpoint::from(address.clone())
            .user_agent(concat!("keyledger-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| ConnectError::Tls(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .tcp_nodelay(true);
        match is_https(&address) {
            true => endpoint.tls_config(self.tls()).map_err(|e| ConnectError::Tls(innermost(&e))),
            false => Ok(endpoint),
        }
    }

    /// The token as it goes into a call: marked, so that nothing prints it.
    pub(crate) fn bearer(&self) -> Result<MetadataValue<Ascii>, ConnectError> {
        if !is_one_word(&self.token) {
            return Err(ConnectError::NoToken);
        }
        let value = format!("Bearer {}", self.token).parse::<MetadataValue<Ascii>>();
        let mut value = value.map_err(|_| ConnectError::NoToken)?;
        value.set_sensitive(true);
        Ok(value)
    }

    pub(crate) fn address(&self) -> &str {
        &self.endpoint
    }

    /// Refuses what isn't an address, certificates without TLS, and a token in the clear on a network.
    fn checked(&self) -> Result<Uri, ConnectError> {
        let named = || self.endpoint.clone();
        let uri: Option<Uri> = self.endpoint.parse().ok();
        let fits =
            |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let uri = uri.filter(fits).ok_or_else(|| ConnectError::NoAddress(named()))?;
        if !is_https(&uri) && (self.ca_pem.is_some() || self.identity.is_some()) {
            return Err(ConnectError::CertificatesWithoutTls(named()));
        }
        if !is_https(&uri) && !is_this_machine(&uri) && !self.plaintext {
            return Err(ConnectError::Plaintext(named()));
        }
        Ok(uri)
    }

    fn tls(&self) -> ClientTlsConfig {
        let tls = match &self.ca_pem {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        match &self.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A token may be one of ours, or one that was imported: visible ASCII without spaces.
pub(crate) fn is_one_word(token: &str) -> bool {
    (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// The innermost cause says most: `Connection refused`, an unknown issuer.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_goes_over_a_network_only_by_tls_or_where_that_is_allowed() {
        for fine in ["http://127.0.0.1:7420", "http://[::1]:7420", "http://localhost:1"] {
            assert!(Config::new(fine, "klk_x").checked().is_ok(), "{fine}");
        }
        for bad in ["http://192.0.2.1:7420", "http://localhost.example:1"] {
            let config = Config::new(bad, "klk_x");
            assert_eq!(config.checked(), Err(ConnectError::Plaintext(bad.into())));
            assert!(config.allowing_plaintext().checked().is_ok());
        }
        for bad in ["", "localhost", "127.0.0.1:7420", "ftp://localhost", "http:// x"] {
            assert_eq!(
                Config::new(bad, "klk_x").checked(),
                Err(ConnectError::NoAddress(bad.into()))
            );
        }
    }

    #[test]
    fn certificates_need_tls() {
        let config = Config::new("http://127.0.0.1:1", "klk_x").trusting("pem");
        assert!(matches!(config.checked(), Err(ConnectError::CertificatesWithoutTls(_))));
    }

    #[test]
    fn a_token_is_one_word_and_never_printed() {
        let config = Config::new("http://127.0.0.1:1", " klk_secret\n").showing("c", "klk_key");
        assert_eq!(config.bearer().unwrap().to_str().unwrap(), "Bearer klk_secret");
        let printed = format!("{config:?} {:?}", config.bearer());
        assert!(!printed.contains("klk_"), "{printed}");
        for bad in ["", "two words", "klk_\u{e9}", "a\nb", &"x".repeat(257)] {
            assert_eq!(Config::new("http://127.0.0.1:1", bad).bearer(), Err(ConnectError::NoToken));
        }
    }
}
