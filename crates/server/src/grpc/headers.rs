//! What a request says before its body: whose token it brings, and where it comes from.

use std::net::IpAddr;

use http::{Extensions, HeaderMap};
use keyledger_ledger::judge::Credential;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

/// Longest token text that is looked at.
const MAX_BEARER: usize = 512;

pub(super) fn bearer(headers: &HeaderMap) -> Credential {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else { return Credential::Missing };
    let text = value.to_str().ok().filter(|t| t.len() <= MAX_BEARER).and_then(|t| {
        let (scheme, token) = t.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    text.map_or(Credential::Malformed, Credential::from_text)
}

pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let plain = extensions.get::<TcpConnectInfo>().and_then(|i| i.remote_addr());
    let tls = || {
        extensions.get::<TlsConnectInfo<TcpConnectInfo>>().and_then(|i| i.get_ref().remote_addr())
    };
    plain.or_else(tls).map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_no_bearer_token_is_malformed_and_none_is_missing() {
        let mut headers = HeaderMap::new();
        assert!(matches!(bearer(&headers), Credential::Missing));
        for bad in ["", "Basic abc", "Bearer", "Bearer klk_x", "klk_x"] {
            headers.insert("authorization", bad.parse().unwrap());
            assert!(matches!(bearer(&headers), Credential::Malformed), "{bad}");
        }
    }
}
