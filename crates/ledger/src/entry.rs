//! Entries: how a body is signed, and the exact bytes that a leaf of the Merkle tree is the hash of.
//!
//! Signature: Ed25519 over the DSSE pre-authentication encoding (secure-systems-lab/dsse, protocol.md) of payload type and
//! body. Leaf data, big-endian: `0x01 ‖ u16 length ‖ payload type ‖ u32 length ‖ body ‖ SHA-256(public key) ‖ signature`.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::body::{Event, Kind, PAYLOAD_TYPE};
use crate::export;
use crate::merkle::{Hash, leaf_hash_of};

/// Most bytes of leaf data.
pub const MAX_LEAF: usize = 65_535;

const LEAF_VERSION: u8 = 1;

/// One signed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub payload_type: String,
    pub body: Vec<u8>,
    /// SHA-256 of the Ed25519 public key that signed.
    pub public_key_sha256: Hash,
    pub signature: [u8; 64],
}

/// Why bytes aren't a good entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("unknown payload type: a newer format, or not an entry")]
    PayloadType,
    #[error("more than {MAX_LEAF} bytes of leaf data")]
    TooLarge,
    #[error("signed by a key that is not a signer of this ledger")]
    UnknownSigner,
    #[error("the signature doesn't match the body")]
    Signature,
    #[error(transparent)]
    Body(#[from] crate::body::NotCanonical),
}

/// An Ed25519 key that signs entries, with the digest that names it.
#[derive(Clone)]
pub struct EntrySigner {
    key: SigningKey,
    public_key_sha256: Hash,
}

impl EntrySigner {
    pub fn new(key: SigningKey) -> EntrySigner {
        let public_key_sha256 = public_key_digest(&key.verifying_key());
        EntrySigner { key, public_key_sha256 }
    }

    pub fn public_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// Signs a body that was serialised once; those bytes are kept.
    pub fn sign(&self, body: Vec<u8>) -> Result<Entry, EntryError> {
        if PAYLOAD_TYPE.len() + body.len() + 103 > MAX_LEAF {
            return Err(EntryError::TooLarge);
        }
        let signature = self.key.sign(&pre_authentication_encoding(PAYLOAD_TYPE, &body)).to_bytes();
        Ok(Entry {
            payload_type: PAYLOAD_TYPE.into(),
            body,
            public_key_sha256: self.public_key_sha256,
            signature,
        })
    }

    /// Signs a manifest of an export, and nothing else: its payload type is fixed.
    pub(crate) fn sign_manifest(&self, payload: &[u8]) -> [u8; 64] {
        self.key.sign(&pre_authentication_encoding(export::PAYLOAD_TYPE, payload)).to_bytes()
    }
}

impl Entry {
    /// RFC 6962 leaf hash of the leaf data.
    pub fn leaf_hash(&self) -> Hash {
        let type_length = (self.payload_type.len() as u16).to_be_bytes();
        let body_length = (self.body.len() as u32).to_be_bytes();
        leaf_hash_of(&[
            &[LEAF_VERSION],
            &type_length,
            self.payload_type.as_bytes(),
            &body_length,
            &self.body,
            &self.public_key_sha256,
            &self.signature,
        ])
    }

    /// Checks form and signature, and decodes the body.
    pub fn open(&self, signers: &[VerifyingKey]) -> Result<Event, EntryError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(EntryError::PayloadType);
        }
        if self.payload_type.len() + self.body.len() + 103 > MAX_LEAF {
            return Err(EntryError::TooLarge);
        }
        let signer = signers.iter().find(|k| public_key_digest(k) == self.public_key_sha256);
        let message = pre_authentication_encoding(&self.payload_type, &self.body);
        signer
            .ok_or(EntryError::UnknownSigner)?
            .verify_strict(&message, &Signature::from_bytes(&self.signature))
            .map_err(|_| EntryError::Signature)?;
        Ok(Event::from_signed(&self.body)?)
    }

    /// Opens position 0, which names the key that signs it.
    pub fn open_first(&self) -> Result<Event, EntryError> {
        let event = Event::from_signed(&self.body)?;
        let Some(Kind::LedgerOpened(opened)) = &event.kind else {
            return Err(EntryError::UnknownSigner);
        };
        let key: &[u8; 32] =
            opened.entry_public_key.as_slice().try_into().map_err(|_| EntryError::UnknownSigner)?;
        self.open(&[VerifyingKey::from_bytes(key).map_err(|_| EntryError::UnknownSigner)?])
    }
}

pub fn public_key_digest(key: &VerifyingKey) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// `DSSEv1 <length> <type> <length> <body>`, lengths in decimal.
pub(crate) fn pre_authentication_encoding(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut message =
        format!("DSSEv1 {} {} {} ", payload_type.len(), payload_type, body.len()).into_bytes();
    message.extend_from_slice(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pre_authentication_encoding_is_that_of_the_dsse_specification() {
        let message = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_body_that_would_not_fit_a_leaf_is_refused() {
        let signer = EntrySigner::new(SigningKey::from_bytes(&[1; 32]));
        let room = MAX_LEAF - 103 - PAYLOAD_TYPE.len();
        assert!(signer.sign(vec![0; room]).is_ok());
        assert_eq!(signer.sign(vec![0; room + 1]), Err(EntryError::TooLarge));
    }

    #[test]
    fn flipping_any_bit_of_an_entry_changes_its_leaf_hash() {
        let entry =
            EntrySigner::new(SigningKey::from_bytes(&[1; 32])).sign(b"body".to_vec()).unwrap();
        for bit in 0..entry.body.len() * 8 {
            let mut changed = entry.clone();
            changed.body[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(changed.leaf_hash(), entry.leaf_hash());
        }
        for bit in 0..512 {
            let mut changed = entry.clone();
            changed.signature[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(changed.leaf_hash(), entry.leaf_hash());
        }
    }
}
