//! Tokens: what a client presents. `klk_` + key id (22 base62) + `_` + secret (43 base62) + CRC-32 (6 base62): 76 characters.
//!
//! Clients must treat a token as opaque text of up to 128 bytes. The checksum lets a typo, and a scanner for leaked
//! secrets, be answered without a look at any key.

use zeroize::Zeroize;

use crate::id::KeyId;

const PREFIX: &str = "klk_";
const KEY_ID_DIGITS: usize = 22;
const SECRET_DIGITS: usize = 43;
const CHECKSUM_DIGITS: usize = 6;
const LENGTH: usize = PREFIX.len() + KEY_ID_DIGITS + 1 + SECRET_DIGITS + CHECKSUM_DIGITS;

/// Of the longest number, a secret.
const MAX_LIMBS: usize = 8;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed token. Whether its key exists is another question.
#[derive(Clone)]
pub struct Token {
    pub key_id: KeyId,
    pub secret: Secret,
}

/// 256 secret bits. They leave memory with the value, and are never printed.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl Secret {
    pub fn new(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Wrong length, prefix, alphabet or checksum. Says no more, so that it can be shown to anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Keyledger token")]
pub struct MalformedToken;

impl Token {
    /// Parses the text of a token. The checksum is tried first; each token has exactly one text.
    pub fn parse(text: &str) -> Result<Token, MalformedToken> {
        let bytes = text.as_bytes();
        if bytes.len() != LENGTH || !text.starts_with(PREFIX) || !text.is_ascii() {
            return Err(MalformedToken);
        }
        let (covered, checksum) = text.split_at(LENGTH - CHECKSUM_DIGITS);
        if checksum != encode(&crc32fast::hash(covered.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS) {
            return Err(MalformedToken);
        }
        let (key_id, secret) = covered[PREFIX.len()..].split_at(KEY_ID_DIGITS);
        let secret = secret.strip_prefix('_').ok_or(MalformedToken)?;
        Ok(Token {
            key_id: KeyId::from_bytes(decode(key_id).ok_or(MalformedToken)?),
            secret: Secret::new(decode(secret).ok_or(MalformedToken)?),
        })
    }

    /// The text that the client is given, once.
    pub fn reveal(&self) -> String {
        let key_id = encode(self.key_id.as_bytes(), KEY_ID_DIGITS);
        let secret = encode(self.secret.expose(), SECRET_DIGITS);
        let covered = format!("{PREFIX}{key_id}_{secret}");
        let checksum = encode(&crc32fast::hash(covered.as_bytes()).to_be_bytes(), CHECKSUM_DIGITS);
        covered + &checksum
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.key_id)
    }
}

/// Big-endian base62, padded with zeros to `digits`.
fn encode(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![b'0'; digits];
    for digit in text.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    String::from_utf8(text).expect("the alphabet is ASCII")
}

/// The inverse of [`encode`]; `None` for a character outside the alphabet or a number that needs more than `N` bytes.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // Ten digits at a time fit a u64: 62^10 < 2^60. Limbs of 32 bits, least significant first.
    let mut limbs = [0u32; MAX_LIMBS];
    let limbs = &mut limbs[..N / 4];
    for group in text.as_bytes().chunks(10) {
        let mut value = 0u64;
        let mut scale = 1u64;
        for digit in group {
            value = value * 62 + u64::from(digit_value(*digit)?);
            scale *= 62;
        }
        let mut carry = u128::from(value);
        for limb in limbs.iter_mut() {
            carry += u128::from(*limb) * u128::from(scale);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            return None;
        }
    }
    let mut number = [0u8; N];
    for (bytes, limb) in number.rchunks_mut(4).zip(limbs) {
        bytes.copy_from_slice(&limb.to_be_bytes());
    }
    Some(number)
}

fn digit_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'Z' => Some(digit - b'A' + 10),
        b'a'..=b'z' => Some(digit - b'a' + 36),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_reads_back_as_it_was_made(id: [u8; 16], secret: [u8; 32]) {
            let text = Token { key_id: KeyId::from_bytes(id), secret: Secret::new(secret) }.reveal();
            prop_assert_eq!(text.len(), 76);
            let token = Token::parse(&text).unwrap();
            prop_assert_eq!(token.key_id.as_bytes(), &id);
            prop_assert_eq!(token.secret.expose(), &secret);
        }

        #[test]
        fn a_token_with_one_changed_character_is_malformed(id: [u8; 16], secret: [u8; 32], at in 0usize..76, to in 0u8..128) {
            let text = Token { key_id: KeyId::from_bytes(id), secret: Secret::new(secret) }.reveal();
            let mut bytes = text.clone().into_bytes();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert!(Token::parse(std::str::from_utf8(&bytes).unwrap()).is_err());
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_a_panic(text in ".{0,100}") {
            let _ = Token::parse(&text);
        }
    }

    #[test]
    fn the_text_of_a_token_is_frozen() {
        let token =
            Token { key_id: KeyId::from_bytes([0x11; 16]), secret: Secret::new([0xff; 32]) };
        assert_eq!(
            token.reveal(),
            "klk_0WCfTognxqNqfz8qrH12uH_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp12AcEab"
        );
    }

    #[test]
    fn a_number_beyond_the_key_id_is_refused() {
        assert_eq!(decode::<16>("zzzzzzzzzzzzzzzzzzzzzz"), None);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let token = Token { key_id: KeyId::from_bytes([1; 16]), secret: Secret::new([7; 32]) };
        assert!(!format!("{token:?} {:?}", token.secret).contains('7'));
    }
}
