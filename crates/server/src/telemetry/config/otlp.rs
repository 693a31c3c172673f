//! Where one signal goes by OTLP: over gRPC, the only protocol that we speak.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::SettingsError;
use super::read::{Variables, pairs};

const DEFAULT_ENDPOINT: &str = "http://localhost:4317";
/// A connection in use on which nothing is heard for so long is asked whether it lives, and given up after as long again. One
/// that is idle isn't asked: collectors end connections on which that is done.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Most headers, and their names and values together.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 8_192;

pub(super) type Headers = Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>;

/// What it takes to export one signal.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// Scheme, host and port.
    pub endpoint: Uri,
    pub headers: Secret<Headers>,
    /// How long one export may take.
    pub timeout: Duration,
    pub gzip: bool,
    /// PEM files. Without a certificate of an authority the system's own are trusted.
    pub certificate: Option<PathBuf>,
    pub client_certificate: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// Such as `TRACES`.
    signal: &'static str,
}

/// Something that must not be shown.
#[derive(Clone)]
pub struct Secret<T>(pub T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// The variables of one signal go before those of all.
pub(super) fn of_signal(v: &Variables<'_>, signal: &'static str) -> Result<Otlp, SettingsError> {
    let named = |what: &str| named(v, signal, what);
    v.one_of(&named("PROTOCOL"), &["grpc"])?;
    let gzip = v.one_of(&named("COMPRESSION"), &["gzip", "none"])? == Some("gzip");
    let file = |what: &str| v.text(&named(what)).map(PathBuf::from);
    let (client_certificate, client_key) = (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY"));
    if client_certificate.is_some() != client_key.is_some() {
        let name = named(if client_key.is_some() { "CLIENT_KEY" } else { "CLIENT_CERTIFICATE" });
        return v.fails(&name, "certificate and key of the client must be given together");
    }
    Ok(Otlp {
        endpoint: endpoint(v, &named("ENDPOINT"), &named("INSECURE"))?,
        headers: Secret(headers(v, &named("HEADERS"))?),
        timeout: v.millis(&named("TIMEOUT"), 10_000)?,
        gzip,
        certificate: file("CERTIFICATE"),
        client_certificate,
        client_key,
        signal,
    })
}

/// The name of the variable that counts for a signal.
fn named(v: &Variables<'_>, signal: &str, what: &str) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
    if v.text(&own).is_some() { own } else { format!("OTEL_EXPORTER_OTLP_{what}") }
}

/// Where no scheme is given, INSECURE says which.
fn endpoint(v: &Variables<'_>, name: &str, insecure: &str) -> Result<Uri, SettingsError> {
    let insecure = v.flag(insecure)?.unwrap_or(false);
    let text = v.text(name).unwrap_or_else(|| DEFAULT_ENDPOINT.into());
    let text = match text.contains("://") {
        true => text,
        false => format!("{}://{text}", if insecure { "http" } else { "https" }),
    };
    let uri = text.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|h| !h.is_empty()));
    let Some(uri) = uri else {
        return v.fails_unseen(name, "it must be a URL such as http://localhost:4317");
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return v.fails_unseen(name, "a name and password belong into OTEL_EXPORTER_OTLP_HEADERS");
    }
    // What follows the host is a colon and digits, or nothing: a port that is none would silently be another.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    if port.is_some_and(|(_, port)| port.parse::<u16>().is_err() || port == "0") {
        return v.fails_unseen(name, "its port must be a number from 1 to 65535");
    }
    let rest = uri.path_and_query().map_or("", |rest| rest.as_str());
    match (uri.scheme_str(), rest) {
        (Some("http" | "https"), "" | "/") => Ok(uri),
        (Some("http" | "https"), _) => v.fails_unseen(
            name,
            "it has a path or query, which OTLP over gRPC has no use for: give scheme, host and port",
        ),
        _ => v.fails_unseen(name, "its scheme must be http or https"),
    }
}

fn headers(v: &Variables<'_>, name: &str) -> Result<Headers, SettingsError> {
    let Some(text) = v.text(name) else { return Ok(vec![]) };
    let read = |(name, value): (String, String)| {
        let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
        Some((name, value.parse().ok()?))
    };
    let headers = pairs(&text).filter(|_| text.len() <= MAX_HEADER_BYTES);
    let headers = headers.filter(|headers| headers.len() <= MAX_HEADERS);
    match headers.and_then(|headers| headers.into_iter().map(read).collect::<Option<Vec<_>>>()) {
        Some(headers) => Ok(headers),
        None => v.fails_unseen(
            name,
            "it must be `name=value,…`, values percent-encoded: at most 64 headers in 8192 bytes",
        ),
    }
}

impl Otlp {
    /// A connection that is made when it is needed, and again when it is lost.
    pub fn channel(&self) -> Result<Channel, SettingsError> {
        let endpoint = Endpoint::from(self.endpoint.clone());
        let endpoint = endpoint.timeout(self.timeout).connect_timeout(self.timeout);
        let endpoint =
            endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
        if self.endpoint.scheme_str() != Some("https") {
            return Ok(endpoint.connect_lazy());
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.certificate {
            Some(file) => {
                tls.ca_certificate(Certificate::from_pem(self.read("CERTIFICATE", file)?))
            }
            None => tls.with_enabled_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            let certificate = self.read("CLIENT_CERTIFICATE", certificate)?;
            tls = tls.identity(Identity::from_pem(certificate, self.read("CLIENT_KEY", key)?));
        }
        let endpoint =
            endpoint.tls_config(tls).map_err(|error| self.wrong("CERTIFICATE", error))?;
        Ok(endpoint.connect_lazy())
    }

    /// The headers, for a request.
    pub fn metadata(&self) -> MetadataMap {
        let mut all = MetadataMap::new();
        for (name, value) in &self.headers.0 {
            all.insert(name.clone(), value.clone());
        }
        all
    }

    fn read(&self, what: &str, file: &PathBuf) -> Result<Vec<u8>, SettingsError> {
        std::fs::read(file)
            .map_err(|error| self.wrong(what, format!("{} can't be read: {error}", file.display())))
    }

    fn wrong(&self, what: &str, problem: impl ToString) -> SettingsError {
        let variable = format!("OTEL_EXPORTER_OTLP_{what} (or _{}_{what})", self.signal);
        SettingsError { variable, held: None, problem: problem.to_string() }
    }
}
