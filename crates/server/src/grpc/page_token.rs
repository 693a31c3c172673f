//! Page tokens: where a list goes on, bound to the query it belongs to (AIP-158). Opaque to callers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::status::Failure;

const DIGEST: usize = 16;

/// `query` is everything that selects the list: a token of another query is refused.
pub(crate) fn write(query: &[&str], cursor: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([digest(query, cursor).as_slice(), cursor].concat())
}

/// The cursor in a token; `None` for the first page.
pub(crate) fn read(query: &[&str], token: &str) -> Result<Option<Vec<u8>>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(token.get(..token.len().min(512)).unwrap_or(""))
        .map_err(|_| Failure::PageToken)?;
    let (found, cursor) = bytes.split_at_checked(DIGEST).ok_or(Failure::PageToken)?;
    if found != digest(query, cursor) {
        return Err(Failure::PageToken);
    }
    Ok(Some(cursor.to_vec()))
}

/// A cursor is no secret: the digest guards against mix-ups, not against callers, who may see only what they may see.
fn digest(query: &[&str], cursor: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    for part in query {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let full = hash.chain_update(cursor).finalize();
    full[..DIGEST].try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_only_for_its_own_query() {
        let token = write(&["ListKeys", "a"], b"cursor");
        assert_eq!(read(&["ListKeys", "a"], &token).unwrap(), Some(b"cursor".to_vec()));
        assert!(read(&["ListKeys", "b"], &token).is_err());
        assert!(read(&["ListKeys", "a"], &format!("{token}A")).is_err());
        assert!(read(&["ListKeys", "a"], "%%%").is_err());
        assert!(read(&["ListKeys", "a"], "é").is_err());
        assert_eq!(read(&["ListKeys", "a"], "").unwrap(), None);
    }
}
