//! Texts: personal and free text, its commitment, and what a line of text may hold.

use sha2::{Digest, Sha256};

use crate::body::{self, Texts};

/// Longest reason, purpose or description, in bytes.
pub const MAX_TEXT: usize = 1024;

const DOMAIN: &[u8] = b"keyledger text v1\n";

/// Random salt of a commitment. Without it, names and addresses could be guessed from the commitment for ever.
pub type Salt = [u8; 32];

/// SHA-256(domain ‖ salt ‖ serialised texts): what the signed body holds of them.
pub fn commitment(salt: &Salt, texts: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(DOMAIN).chain_update(salt).chain_update(texts).finalize().into()
}

/// Texts sealed under the data key of one subject: what goes into the body, and what lies beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub subject_ref: [u8; 16],
    pub commitment: [u8; 32],
    pub bytes: Vec<u8>,
}

impl Sealed {
    pub fn to_body(&self) -> body::SealedText {
        body::SealedText {
            subject_ref: self.subject_ref.to_vec(),
            commitment: self.commitment.to_vec(),
        }
    }
}

/// Texts as opened by someone who holds the data key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub salt: Salt,
    pub texts: Vec<u8>,
}

impl Opened {
    /// Whether these are the texts that were committed to.
    pub fn matches(&self, sealed: &body::SealedText) -> bool {
        sealed.commitment == commitment(&self.salt, &self.texts)
    }

    pub fn decode(&self) -> Option<Texts> {
        body::decode_canonical(&self.texts, "Texts").ok()
    }
}

/// Characters that change how a line looks without being seen: controls, and the bidirectional and invisible formatting
/// characters of Unicode (UAX #9, and the zero-width ones).
pub fn is_unsafe_in_a_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Why a line of text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {0} bytes")]
    TooLong(usize),
    #[error("must not hold control, bidirectional or invisible characters (found U+{0:04X})")]
    Unsafe(u32),
}

/// Longest reference to an approval, in bytes.
pub const MAX_APPROVAL_REF: usize = 128;

/// Checks a reference to an approval: it stands in the clear, so it is an id and no sentence.
pub fn check_approval_ref(text: &str) -> Result<(), &'static str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/#".contains(&b);
    match text.len() <= MAX_APPROVAL_REF && text.bytes().all(good) {
        true => Ok(()),
        false => Err("must be at most 128 bytes of `A-Z a-z 0-9 - _ . : / #`"),
    }
}

/// Checks one line of text that may be empty.
pub fn check_line(text: &str, max: usize) -> Result<(), LineError> {
    if text.len() > max {
        return Err(LineError::TooLong(max));
    }
    text.chars()
        .find(|c| is_unsafe_in_a_line(*c))
        .map_or(Ok(()), |c| Err(LineError::Unsafe(c as u32)))
}

/// Checks one line of text that must say something.
pub fn check_required_line(text: &str, max: usize) -> Result<(), LineError> {
    if text.trim().is_empty() { Err(LineError::Empty) } else { check_line(text, max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_hidden_characters_is_refused() {
        for bad in
            ["a\nb", "a\u{0}b", "a\u{202e}b", "a\u{2066}b", "a\u{200b}b", "a\u{1b}[31m", "\u{feff}"]
        {
            assert!(matches!(check_line(bad, 100), Err(LineError::Unsafe(_))), "{bad:?}");
        }
        for good in ["ticket 4711", "Zürich – naïve", "日本語", "👍"] {
            assert_eq!(check_line(good, 100), Ok(()), "{good:?}");
        }
        assert_eq!(check_required_line("   ", 100), Err(LineError::Empty));
        assert_eq!(check_line("abc", 2), Err(LineError::TooLong(2)));
    }

    #[test]
    fn a_commitment_depends_on_salt_and_text() {
        let a = commitment(&[1; 32], b"x");
        assert_ne!(a, commitment(&[2; 32], b"x"));
        assert_ne!(a, commitment(&[1; 32], b"y"));
    }
}
