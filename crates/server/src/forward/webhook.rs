//! Webhooks: batches of events as signed HTTPS requests.
//!
//! A request is a POST with a JSON array, signed as the Standard Webhooks specification says: `webhook-id`,
//! `webhook-timestamp`, and `webhook-signature` with `v1,` and the base64 of HMAC-SHA-256 over `id.timestamp.body`. The id
//! follows from what is sent: a receiver that sees one again has it already. Any 2xx says that it was taken; everything else,
//! also a redirect, is a failure. The body of the answer is not read.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ring::hmac;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::connect::Destination;
use super::retry::retry_after;
use super::{Batch, Failed};

/// Most bytes of the head of an answer.
const MAX_ANSWER: usize = 64 << 10;

pub(super) struct Webhook {
    pub(super) destination: Destination,
    /// Host and port as they stand in the URL.
    pub(super) authority: String,
    pub(super) path: String,
    /// Several while one takes the place of another: each signs.
    pub(super) secrets: Vec<Zeroizing<Vec<u8>>>,
}

impl Webhook {
    pub(super) async fn send(&self, id: &str, body: Bytes) -> Result<(), Failed> {
        let now = SystemTime::now();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("keyledger/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signatures(&self.secrets, id, timestamp, &body))
            .body(Full::new(body))
            .map_err(|_| Failed::new("the request can't be written"))?;
        let stream = TokioIo::new(self.destination.connect().await?);
        let failed = |e: hyper::Error| Failed::new(format!("no answer: {e}"));
        let mut http = http1::Builder::new();
        let handshake = http.max_buf_size(MAX_ANSWER).handshake(stream).await;
        let (mut sender, connection) = handshake.map_err(failed)?;
        let answer = tokio::select! {
            answer = sender.send_request(request) => answer.map_err(failed)?,
            Err(error) = connection => return Err(failed(error)),
        };
        judge(answer.status(), answer.headers(), now)
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let followed = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    let asked = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Err(Failed {
        text: format!("the receiver answered {}{followed}", status.as_u16()),
        retry_after: asked.and_then(|text| retry_after(text, now)),
    })
}

fn signatures(secrets: &[Zeroizing<Vec<u8>>], id: &str, timestamp: u64, body: &[u8]) -> String {
    let sign = |secret: &Zeroizing<Vec<u8>>| {
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice()));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}

/// The events of a batch as one JSON array.
pub(super) fn body(batch: &Batch) -> Bytes {
    let events = batch.events.join(b",".as_slice());
    [b"[".as_slice(), &events, b"]"].concat().into()
}

/// What a batch is known by: the same for the same events of the same forwarder, whoever sends it.
pub(super) fn id(ledger_id: uuid::Uuid, forwarder: &str, batch: &Batch, body: &[u8]) -> String {
    let mut digest = Sha256::new().chain_update(ledger_id.as_bytes());
    for part in [batch.first, batch.last] {
        digest.update(part.position.to_be_bytes());
        digest.update(part.index.to_be_bytes());
    }
    let digest = digest.chain_update(body).chain_update(forwarder).finalize();
    format!("msg_{}", hex::encode(&digest[..16]))
}

/// The secrets in a file: one a line, each `whsec_` and the base64 of 24 to 64 bytes.
pub(super) fn read_secrets(text: &str) -> Result<Vec<Zeroizing<Vec<u8>>>, &'static str> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() || lines.len() > 4 {
        return Err("must hold 1 to 4 secrets, one a line");
    }
    let decode = |line: &&str| {
        let bytes = STANDARD.decode(line.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&bytes.len()).then(|| Zeroizing::new(bytes))
    };
    let secrets: Option<Vec<_>> = lines.iter().map(decode).collect();
    secrets.ok_or("must hold secrets of the form `whsec_` and the base64 of 24 to 64 bytes")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::forwarders::Cursor;

    #[test]
    fn a_request_is_signed_as_the_example_of_the_specification() {
        let secret = read_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signatures(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_takes_the_place_of_another_both_sign() {
        let a = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let b = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        let one = |text| signatures(&read_secrets(text).unwrap(), "msg_1", 1, b"[]");
        assert_eq!(one(&format!("{a}\n{b}\n")), format!("{} {}", one(a), one(b)));
    }

    #[test]
    fn a_secret_that_is_none_is_refused() {
        for bad in [
            "",
            "\n",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_",
            "whsec_AAAA",
            "whsec_not base64 at all, surely not",
            &"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".repeat(5),
        ] {
            assert!(read_secrets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_2xx_is_good_and_a_redirect_says_that_it_is_not_followed() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let judged = |code: u16| {
            judge(StatusCode::from_u16(code).unwrap(), &headers, SystemTime::UNIX_EPOCH)
        };
        for good in [200, 201, 204, 299] {
            assert!(judged(good).is_ok(), "{good}");
        }
        for bad in [300, 301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 503] {
            let failed = judged(bad).unwrap_err();
            assert_eq!(failed.retry_after, Some(Duration::from_secs(7)), "{bad}");
            assert_eq!(failed.text.contains("redirects"), bad < 400, "{}", failed.text);
        }
    }

    #[test]
    fn the_id_of_a_batch_follows_from_what_is_sent_and_from_nothing_else() {
        let at = |position, index| Cursor { position, index };
        let batch = |first, last| Batch {
            events: vec![b"{}".to_vec(), b"{}".to_vec()],
            positions: vec![1, 2],
            first,
            last,
            checkpoint: None,
            next: at(9, 0),
        };
        let one = batch(at(1, 0), at(2, 3));
        let ledger = uuid::Uuid::from_bytes([7; 16]);
        assert_eq!(&body(&one)[..], b"[{},{}]");
        let id_of = |name, batch: &Batch| id(ledger, name, batch, &body(batch));
        assert_eq!(id_of("siem", &one), id_of("siem", &batch(at(1, 0), at(2, 3))));
        assert_ne!(id_of("siem", &one), id_of("other", &one));
        assert_ne!(id_of("siem", &one), id_of("siem", &batch(at(1, 0), at(2, 4))));
        assert_ne!(id_of("siem", &one), id(ledger, "siem", &one, b"[{}]"));
        assert!(!id_of("siem", &one).contains('.'), "a full stop separates what is signed");
    }
}
