//! Producers: services that sign the events that they record, with keys of their own. What they signed is kept, so that an auditor
//! need not believe Keyledger that they said so.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::entry::{pre_authentication_encoding, public_key_digest};
use crate::merkle::Hash;

/// DSSE payload type of what a producer signs: a serialised `keyledger.v1.NewEvent`.
pub const PAYLOAD_TYPE: &str = "application/vnd.keyledger.new-event.v1+protobuf";
/// Most public keys of one producer at once.
pub const MAX_KEYS: usize = 4;
/// Longest event that is signed.
pub const MAX_PAYLOAD: usize = 16_384;

/// The public keys that a key of this ledger has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    pub keys: Box<[VerifyingKey]>,
    /// Position of the entry that registered them.
    pub position: u64,
}

impl Producer {
    /// Ed25519 keys, at most [`MAX_KEYS`], each once. `None` if they are not.
    pub fn new(public_keys: &[Vec<u8>], position: u64) -> Option<Producer> {
        let key =
            |bytes: &Vec<u8>| VerifyingKey::from_bytes(bytes.as_slice().try_into().ok()?).ok();
        let keys: Box<[VerifyingKey]> = public_keys.iter().map(key).collect::<Option<_>>()?;
        let once = (1..keys.len()).all(|i| !keys[..i].contains(&keys[i]));
        let good = keys.len() <= MAX_KEYS && once && !keys.iter().any(VerifyingKey::is_weak);
        good.then_some(Producer { keys, position })
    }

    /// The key with this SHA-256.
    pub fn key(&self, public_key_sha256: &[u8]) -> Option<&VerifyingKey> {
        self.keys.iter().find(|key| public_key_digest(key) == public_key_sha256)
    }
}

/// Whether a producer has signed a payload.
pub fn has_signed(key: &VerifyingKey, payload: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = Signature::from_slice(signature) else { return false };
    key.verify_strict(&pre_authentication_encoding(PAYLOAD_TYPE, payload), &signature).is_ok()
}

/// What a producer signs of a payload.
pub fn to_sign(payload: &[u8]) -> Vec<u8> {
    pre_authentication_encoding(PAYLOAD_TYPE, payload)
}

/// The name of a public key: its SHA-256.
pub fn digest(key: &VerifyingKey) -> Hash {
    public_key_digest(key)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};

    use super::*;

    #[test]
    fn only_what_was_signed_with_a_registered_key_counts() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let producer = Producer::new(&[signer.verifying_key().to_bytes().to_vec()], 3).unwrap();
        let key = producer.key(&digest(&signer.verifying_key())).expect("it was registered");
        let signature = signer.sign(&to_sign(b"event")).to_bytes();
        assert!(has_signed(key, b"event", &signature));
        assert!(!has_signed(key, b"other", &signature));
        assert!(!has_signed(key, b"event", &signature[1..]));
        assert!(!has_signed(key, b"event", &signer.sign(b"event").to_bytes()), "no bare signature");
        assert!(producer.key(&[0; 32]).is_none());
    }

    #[test]
    fn keys_that_are_none_or_too_many_or_named_twice_are_not_registered() {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]).verifying_key().to_bytes().to_vec();
        assert!(Producer::new(&[], 0).is_some(), "none any more");
        assert!(Producer::new(&[key(1), key(2), key(3), key(4)], 0).is_some());
        assert!(Producer::new(&[key(1), key(2), key(3), key(4), key(5)], 0).is_none());
        assert!(Producer::new(&[key(1), key(1)], 0).is_none());
        assert!(Producer::new(&[vec![1; 31]], 0).is_none());
        // The point of order 1 accepts signatures of anybody.
        let mut identity = vec![0; 32];
        identity[0] = 1;
        assert!(Producer::new(&[identity], 0).is_none());
    }
}
