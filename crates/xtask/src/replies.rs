//! What a reply must hold, and sentences for when it doesn't.

use crate::grpcurl::GrpcurlError;
use crate::json::Json;
use crate::process::Result;

pub(crate) fn text_at<'a>(reply: &'a Json, path: &str) -> Result<&'a str> {
    reply
        .at(path)
        .and_then(Json::text)
        .ok_or_else(|| format!("the reply has no text at {path}: {reply:?}"))
}

pub(crate) fn number_at(reply: &Json, path: &str) -> Result<u64> {
    reply
        .at(path)
        .and_then(Json::number)
        .ok_or_else(|| format!("the reply has no number at {path}: {reply:?}"))
}

pub(crate) fn expect(reply: &Json, path: &str, wanted: &str) -> Result {
    let found = text_at(reply, path)?;
    ensure(found == wanted, || format!("{path} should be {wanted}, but is {found}: {reply:?}"))
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(crate) fn passed(what: &str) {
    println!("  ok  {what}");
}

/// C2SP tlog-checkpoint: origin, size, root; an empty line; at least one line of signature.
pub(crate) fn size_in_note(text: &str) -> Option<u64> {
    let (body, signatures) = text.split_once("\n\n")?;
    let size = body.lines().nth(1)?.parse().ok()?;
    signatures.lines().any(|line| line.starts_with("— ")).then_some(size)
}

impl From<GrpcurlError> for String {
    fn from(error: GrpcurlError) -> String {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_recognised() {
        let note = "ledger.example/main\n42\nq0v3\n\n— ledger.example/main AAAA\n";
        assert_eq!(size_in_note(note), Some(42));
        assert_eq!(size_in_note("ledger.example/main\n42\nq0v3\n"), None);
        assert_eq!(size_in_note("a\nb\nc\n\n— d"), None);
    }
}
