//! The configuration of forwarders: a TOML file, read and checked as a whole before anything is served.
//!
//! ```toml
//! [[forwarder]]
//! name = "siem"                     # a-z 0-9 -, once in the file
//! ledger = "default"
//! start = "now"                     # or "beginning": where it begins when it has never run
//! filter = { categories = ["security/login"], min_severity = "medium", outcome = "denied" }
//! webhook = { url = "https://siem.example.com/keyledger", secret_file = "/etc/keyledger/siem.secret" }
//! ```
//!
//! A `[[notice]]` has `kinds`, `owner` and `labels` in place of a filter, and only a webhook: what whoever is responsible for some
//! keys should hear of.
//!
//! One of four says where events go: `webhook` (`url`, `secret_file`, `ca_file`, `allow_private`), `syslog` (`address`, `tls`,
//! `ca_file`, `hostname`, `allow_private`), `file` (`path`) or `otlp` (`endpoint`, `headers_file`, `ca_file`, `compression`,
//! `allow_private`). Relative paths begin at the folder of the configuration. Secrets
//! lie in files of their own that nobody else can read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use keyledger_ledger::category::{ANOMALY, LIFECYCLE};
use keyledger_proto::ForwarderKind;
use keyledger_proto::parse::{self, EventFilter};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::connect::{Destination, tls};
pub use super::fields::ConfigError;
use super::fields::Fields;
use super::file::Lines;
use super::notice::Notice;
use super::otlp::Otlp;
use super::syslog::Syslog;
use super::webhook::{Webhook, read_secrets};

/// Most forwarders of a server.
const MAX_FORWARDERS: usize = 32;
/// Most categories of a filter.
const MAX_CATEGORIES: usize = 64;
/// Largest file that is read.
const MAX_FILE: u64 = 256 << 10;

/// What is configured.
pub(crate) struct Configuration {
    pub(super) forwarders: Vec<Forwarder>,
    /// SHA-256 of the file: stands in the entry that says a server started.
    pub(crate) digest: [u8; 32],
}

/// One forwarder.
pub(super) struct Forwarder {
    pub(super) name: String,
    pub(super) ledger: String,
    pub(super) from_beginning: bool,
    /// Empty for all.
    pub(super) categories: Vec<String>,
    pub(super) filter: EventFilter,
    /// It tells notices, and what was told is recorded.
    pub(super) notice: Option<Notice>,
    pub(super) pace: Pace,
    pub(super) target: Target,
}

/// How long things take.
pub(super) struct Pace {
    /// How long a replica has a forwarder without saying again that it does.
    pub(super) lease: Duration,
    pub(super) retry_initial: Duration,
    pub(super) retry_max: Duration,
    /// How long sending one batch may take.
    pub(super) timeout: Duration,
}

/// Where events go.
pub(super) enum Target {
    Webhook(Box<Webhook>),
    Syslog(Box<Syslog>),
    File(Lines),
    Otlp(Arc<Otlp>),
}

impl Target {
    pub(super) fn kind(&self) -> ForwarderKind {
        match self {
            Target::Webhook(_) => ForwarderKind::Webhook,
            Target::Syslog(_) => ForwarderKind::Syslog,
            Target::File(_) => ForwarderKind::File,
            Target::Otlp(_) => ForwarderKind::Otlp,
        }
    }
}

/// Reads and checks a file, and all that it names.
pub(crate) fn read(file: &Path) -> Result<Configuration, ConfigError> {
    let named = |why: String| ConfigError(format!("{}: {why}", file.display()));
    let text = read_small(file).map_err(named)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let forwarders = parse(&text, folder).map_err(|e| named(e.0))?;
    Ok(Configuration { forwarders, digest: Sha256::digest(&*text).into() })
}

fn parse(text: &str, folder: &Path) -> Result<Vec<Forwarder>, ConfigError> {
    let mut table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| ConfigError(e.to_string().trim().into()))?;
    let mut values = tables(&mut table, "forwarder")?;
    values.extend(tables(&mut table, "notice")?);
    if let Some(field) = table.keys().next() {
        return Err(ConfigError(format!("{field} is no field that is known here")));
    }
    if values.len() > MAX_FORWARDERS {
        return Err(ConfigError(format!("there are more than {MAX_FORWARDERS} forwarders")));
    }
    let mut forwarders: Vec<Forwarder> = vec![];
    for (what, number, table) in values {
        let new = forwarder(what, number, table, folder)?;
        check_against(&forwarders, &new)?;
        forwarders.push(new);
    }
    Ok(forwarders)
}

fn check_against(others: &[Forwarder], new: &Forwarder) -> Result<(), ConfigError> {
    let wrong = |what| Err(ConfigError(format!("forwarder {}: {what}", new.name)));
    let path = |f: &Forwarder| match &f.target {
        Target::File(lines) => Some(lines.path.clone()),
        _ => None,
    };
    if others.iter().any(|other| other.name == new.name) {
        return wrong("name is that of an earlier forwarder too");
    }
    if others.iter().any(|other| path(other).is_some() && path(other) == path(new)) {
        return wrong("file.path is that of an earlier forwarder too");
    }
    Ok(())
}

/// What is written as `[[forwarder]]` or `[[notice]]`, each with its number.
fn tables(table: &mut toml::Table, what: &'static str) -> Result<Vec<Numbered>, ConfigError> {
    let wrong = || ConfigError(format!("{what} must be written as [[{what}]]"));
    let values = match table.remove(what) {
        Some(toml::Value::Array(values)) => values,
        Some(_) => return Err(wrong()),
        None => vec![],
    };
    let numbered = |(i, value)| match value {
        toml::Value::Table(table) => Ok((what, i + 1, table)),
        _ => Err(wrong()),
    };
    values.into_iter().enumerate().map(numbered).collect()
}

type Numbered = (&'static str, usize, toml::Table);

fn forwarder(
    what: &str,
    number: usize,
    table: toml::Table,
    folder: &Path,
) -> Result<Forwarder, ConfigError> {
    let mut unnamed = Fields::new(format!("{what} number {number}"), table.clone());
    let name = unnamed.required("name")?;
    let good = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.len() > 64 || !name.bytes().all(good) {
        return Err(unnamed.problem("name", "must have 1 to 64 bytes of a-z 0-9 -"));
    }
    let mut fields = Fields::new(format!("{what} {name}"), table);
    fields.required("name")?;
    let ledger = fields.required("ledger")?;
    let from_beginning = match fields.required("start")?.as_str() {
        "now" => false,
        "beginning" => true,
        _ => return Err(fields.problem("start", "must be \"now\" or \"beginning\"")),
    };
    let (categories, filter, notice) = match what {
        "notice" => {
            let (filter, notice) = notices::of(&mut fields)?;
            (vec![LIFECYCLE.into(), ANOMALY.into()], filter, Some(notice))
        }
        _ => {
            let (categories, filter) = filter(&mut fields)?;
            (categories, filter, None)
        }
    };
    let pace = pace(&mut fields)?;
    let target = target(&mut fields, folder)?;
    if notice.is_some() && !matches!(target, Target::Webhook(_)) {
        return Err(fields.problem("webhook:", "must be given: notices go nowhere else"));
    }
    fields.end()?;
    Ok(Forwarder { name, ledger, from_beginning, categories, filter, notice, pace, target })
}

fn pace(fields: &mut Fields) -> Result<Pace, ConfigError> {
    let lease = fields.number("lease_seconds", 1..=600, 30)?;
    let initial = fields.number("retry_initial_ms", 10..=60_000, 1_000)?;
    let most = fields.number("retry_max_ms", 10..=300_000, 300_000)?;
    let timeout = fields.number("timeout_ms", 100..=120_000, 30_000)?;
    Ok(Pace {
        lease: Duration::from_secs(lease),
        retry_initial: Duration::from_millis(initial),
        retry_max: Duration::from_millis(most),
        timeout: Duration::from_millis(timeout),
    })
}

fn filter(fields: &mut Fields) -> Result<(Vec<String>, EventFilter), ConfigError> {
    let Some(mut fields) = fields.table("filter")? else { return Ok(Default::default()) };
    let categories = fields.texts("categories", MAX_CATEGORIES)?;
    if categories.iter().any(|c| c.is_empty() || parse::category(c).is_err()) {
        return Err(fields.problem("categories", "must hold categories such as security/login"));
    }
    let filter = keyledger_proto::EventFilter {
        action: fields.text("action")?.unwrap_or_default(),
        resource_prefix: fields.text("resource_prefix")?.unwrap_or_default(),
        outcome: one_of(&mut fields, "outcome", parse::outcomes())?,
        min_severity: one_of(&mut fields, "min_severity", parse::severities())?,
        ..Default::default()
    };
    let filter = parse::event_filter(filter).map_err(|violations| {
        let wrong = violations.first().expect("a refusal names a field");
        fields.problem(wrong.field.trim_start_matches("filter."), &wrong.description)
    })?;
    fields.end()?;
    Ok((categories, filter))
}

/// A value of an enum, by its short name; 0 if it is not given.
fn one_of(fields: &mut Fields, field: &str, names: Vec<(String, i32)>) -> Result<i32, ConfigError> {
    let Some(text) = fields.text(field)? else { return Ok(0) };
    match names.iter().find(|(name, _)| *name == text) {
        Some((_, number)) => Ok(*number),
        None => {
            let known: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
            Err(fields.problem(field, &format!("must be one of {}", known.join(", "))))
        }
    }
}

fn target(fields: &mut Fields, folder: &Path) -> Result<Target, ConfigError> {
    const ONE: &str = "exactly one of them must be given";
    let tables = (
        fields.table("webhook")?,
        fields.table("syslog")?,
        fields.table("file")?,
        fields.table("otlp")?,
    );
    match tables {
        (Some(table), None, None, None) => webhook(table, folder),
        (None, Some(table), None, None) => syslog(table, folder),
        (None, None, Some(table), None) => lines(table, folder),
        (None, None, None, Some(table)) => collectors::of(table, folder),
        _ => Err(fields.problem("webhook, syslog, file or otlp:", ONE)),
    }
}

fn webhook(mut fields: Fields, folder: &Path) -> Result<Target, ConfigError> {
    let url = fields.required("url")?;
    let secret_file = folder.join(fields.required("secret_file")?);
    let ca_file = fields.text("ca_file")?.map(|file| folder.join(file));
    let allow_private = fields.flag("allow_private", false)?;
    let (url, encrypted) = parse_url(&url).map_err(|what| fields.problem("url", what))?;
    if !encrypted && !allow_private {
        return Err(fields.problem("url", "must begin with https:// without allow_private"));
    }
    let secrets = read_private(&secret_file)
        .and_then(|text| {
            read_secrets(&text).map_err(|what| format!("{} {what}", secret_file.display()))
        })
        .map_err(|why| fields.problem("secret_file:", &why))?;
    let tls = tls_of(&fields, encrypted, ca_file.as_deref())?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
    let port = url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let destination = Destination { host, port, tls, allow_private };
    let authority = url.authority().map(|a| a.to_string()).unwrap_or_default();
    let path = url.path_and_query().map_or("/".into(), |path| path.to_string());
    fields.end()?;
    Ok(Target::Webhook(Box::new(Webhook { destination, authority, path, secrets })))
}

/// A URL, and whether it is of https.
fn parse_url(text: &str) -> Result<(Uri, bool), &'static str> {
    let url: Uri = text.parse().map_err(|_| "must be a URL")?;
    let encrypted = match url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("must begin with https://"),
    };
    if text.contains('#') || text.len() > 2_048 {
        return Err("must have no fragment and at most 2,048 bytes");
    }
    match url.authority() {
        Some(authority) if authority.as_str().contains('@') => Err("must hold no user or password"),
        Some(authority) if !authority.host().is_empty() => Ok((url, encrypted)),
        _ => Err("must name a host"),
    }
}

fn syslog(mut fields: Fields, folder: &Path) -> Result<Target, ConfigError> {
    let address = fields.required("address")?;
    let ca_file = fields.text("ca_file")?.map(|file| folder.join(file));
    let allow_private = fields.flag("allow_private", false)?;
    let encrypted = fields.flag("tls", true)?;
    let hostname = fields.text("hostname")?.unwrap_or("-".into());
    if hostname.len() > 255 || !hostname.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(fields.problem("hostname", "must be visible ASCII, at most 255 bytes"));
    }
    if !encrypted && !allow_private {
        return Err(fields.problem("tls", "must not be false without allow_private"));
    }
    let parts = address.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = match parts {
        Some((host, port)) if !host.is_empty() && port > 0 => (host, port),
        _ => {
            return Err(
                fields.problem("address", "must be a host and a port: logs.example.com:6514")
            );
        }
    };
    let tls = tls_of(&fields, encrypted, ca_file.as_deref())?;
    let host = host.trim_matches(['[', ']']).to_string();
    fields.end()?;
    let destination = Destination { host, port, tls, allow_private };
    Ok(Target::Syslog(Box::new(Syslog { destination, hostname })))
}

fn tls_of(
    fields: &Fields,
    encrypted: bool,
    ca_file: Option<&Path>,
) -> Result<Option<Arc<rustls::ClientConfig>>, ConfigError> {
    match (encrypted, ca_file) {
        (true, file) => tls(file).map(Some).map_err(|why| fields.problem("ca_file:", &why)),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(fields.problem("ca_file", "means nothing without TLS")),
    }
}

fn lines(mut fields: Fields, folder: &Path) -> Result<Target, ConfigError> {
    let path: PathBuf = folder.join(fields.required("path")?);
    if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
        return Err(fields.problem("path", "must be a file in a folder that exists"));
    }
    fields.end()?;
    Ok(Target::File(Lines::new(path)))
}

fn read_small(file: &Path) -> Result<Zeroizing<String>, String> {
    let read = || {
        let length = std::fs::metadata(file)?.len();
        if length > MAX_FILE {
            return Err(std::io::Error::other("it is larger than 256 KiB"));
        }
        std::fs::read_to_string(file).map(Zeroizing::new)
    };
    read().map_err(|e| format!("{} can't be read: {e}", file.display()))
}

/// Reads a file of secrets, which others must not be able to read.
fn read_private(file: &Path) -> Result<Zeroizing<String>, String> {
    let metadata = std::fs::metadata(file);
    let mode = metadata.map_err(|e| format!("{} can't be read: {e}", file.display()))?;
    if mode.permissions().mode() & 0o007 != 0 {
        return Err(format!("{} is open to everybody: chmod 600", file.display()));
    }
    read_small(file)
}

mod collectors;
mod notices;
#[cfg(test)]
mod tests;
