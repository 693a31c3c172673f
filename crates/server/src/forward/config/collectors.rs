//! What `otlp` says of a collector:
//!
//! ```toml
//! otlp = { endpoint = "https://otel.example.com:4317", headers_file = "otel.headers", compression = "gzip" }
//! ```
//!
//! The headers, which may be secrets, lie in a file of their own: `name: value`, one a line.

use std::path::Path;
use std::sync::Arc;

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use super::super::connect::{Destination, for_http2};
use super::super::fields::{ConfigError, Fields};
use super::super::otlp::Otlp;
use super::{Target, parse_url, read_private, tls_of};

/// Most headers.
const MAX_HEADERS: usize = 32;
/// The port of OTLP over gRPC.
const PORT: u16 = 4317;

pub(super) fn of(mut fields: Fields, folder: &Path) -> Result<Target, ConfigError> {
    let endpoint = fields.required("endpoint")?;
    let headers_file = fields.text("headers_file")?.map(|file| folder.join(file));
    let ca_file = fields.text("ca_file")?.map(|file| folder.join(file));
    let allow_private = fields.flag("allow_private", false)?;
    let gzip = match fields.text("compression")?.as_deref() {
        None | Some("none") => false,
        Some("gzip") => true,
        Some(_) => return Err(fields.problem("compression", "must be \"gzip\" or \"none\"")),
    };
    let (url, encrypted) = parse_url(&endpoint).map_err(|what| fields.problem("endpoint", what))?;
    if !encrypted && !allow_private {
        return Err(fields.problem("endpoint", "must begin with https:// without allow_private"));
    }
    if url.path_and_query().is_some_and(|path| path != "/") {
        return Err(fields.problem("endpoint", "must have no path: this is OTLP over gRPC"));
    }
    let headers = match &headers_file {
        None => MetadataMap::new(),
        Some(file) => read_private(file)
            .and_then(|text| {
                read_headers(&text).map_err(|what| format!("{} {what}", file.display()))
            })
            .map_err(|why| fields.problem("headers_file:", &why))?,
    };
    let tls = tls_of(&fields, encrypted, ca_file.as_deref())?.map(|tls| for_http2(&tls));
    fields.end()?;
    let host = url.host().unwrap_or_default();
    let port = url.port_u16().unwrap_or(PORT);
    let authority = format!("{host}:{port}");
    let host = host.trim_matches(['[', ']']).to_string();
    let destination = Destination { host, port, tls, allow_private };
    Ok(Target::Otlp(Arc::new(Otlp::new(destination, authority, headers, gzip))))
}

/// The headers in a file.
fn read_headers(text: &str) -> Result<MetadataMap, &'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.len() > MAX_HEADERS {
        return Err("must hold at most 32 headers");
    }
    let header = |line: &&str| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        let ours = ["te", "content-type", "user-agent"].contains(&name.as_str());
        let name = AsciiMetadataKey::from_bytes(name.as_bytes()).ok()?;
        let mut value = AsciiMetadataValue::try_from(value.trim()).ok()?;
        value.set_sensitive(true);
        (!ours && !name.as_str().starts_with("grpc-")).then_some((name, value))
    };
    let mut headers = MetadataMap::new();
    for line in &lines {
        let (name, value) = header(line)
            .ok_or("must hold headers of the form `name: value`, one a line, none of gRPC's own")?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_one_a_line_and_those_of_grpc_are_refused() {
        let good = read_headers("Authorization: Bearer a:b\n\nx-tenant:blue\n").unwrap();
        assert_eq!(good.get("authorization").unwrap(), "Bearer a:b");
        assert!(good.get("authorization").unwrap().is_sensitive());
        assert_eq!(good.get("x-tenant").unwrap(), "blue");
        for bad in ["x", "te: trailers", "grpc-timeout: 1S", "data-bin: AA==", "ä: b", "a b: c"] {
            assert!(read_headers(bad).is_err(), "{bad}");
        }
        assert!(read_headers(&"a: b\n".repeat(33)).is_err());
    }
}
