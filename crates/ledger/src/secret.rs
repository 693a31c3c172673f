//! Verifiers: what is kept of a secret so that it can be checked, and what is signed of a verifier.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::body::ImportAlgorithm;
use crate::id::KeyId;
use crate::imported::Lookup;
use crate::token::Secret;

const VERIFIER_DOMAIN: &[u8] = b"keyledger verifier v1\n";
/// Not the one above: whoever knows the SHA-256 of an imported token, as its old home does, must not be able to make a token of
/// ours from it.
const IMPORTED_DOMAIN: &[u8] = b"keyledger imported verifier v1\n";
const LOOKUP_DOMAIN: &[u8] = b"keyledger lookup v1\n";
const COMMITMENT_DOMAIN: &[u8] = b"keyledger verifier commitment v1\n";

/// HMAC-SHA-256 under a pepper: what the database holds in place of a secret.
pub type Verifier = [u8; 32];

/// A secret of the deployment that lies in the key directory, not in the database: whoever has only the database can't
/// try secrets.
#[derive(Clone)]
pub struct Pepper {
    pub id: u32,
    /// Keyed once: each verifier starts from a copy.
    mac: Hmac<Sha256>,
}

impl Pepper {
    pub fn new(id: u32, key: [u8; 32]) -> Pepper {
        let key = Zeroizing::new(key);
        let mac = Hmac::new_from_slice(key.as_slice()).expect("HMAC takes a key of any length");
        Pepper { id, mac }
    }

    /// The verifier of one version of a key's secret.
    pub fn verifier(&self, key_id: KeyId, version: u32, secret: &Secret) -> Verifier {
        self.of(&[
            VERIFIER_DOMAIN,
            key_id.as_bytes(),
            &version.to_be_bytes(),
            secret.expose().as_slice(),
        ])
    }

    /// The verifier of a token that was made elsewhere, by its SHA-256.
    pub fn imported_verifier(&self, key_id: KeyId, version: u32, sha256: &Secret) -> Verifier {
        self.of(&[
            IMPORTED_DOMAIN,
            key_id.as_bytes(),
            &version.to_be_bytes(),
            sha256.expose().as_slice(),
        ])
    }

    /// What an imported key is found by.
    pub fn lookup(&self, algorithm: ImportAlgorithm, what: &[u8]) -> Lookup {
        let mac = self.of(&[LOOKUP_DOMAIN, &[algorithm as u8], what]);
        mac[..16].try_into().expect("an HMAC-SHA-256 has 32 bytes")
    }

    fn of(&self, parts: &[&[u8]]) -> Verifier {
        let mut mac = self.mac.clone();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

/// The peppers of a deployment; old ones stay as long as a secret was made with them.
#[derive(Clone, Default)]
pub struct Peppers(Vec<Pepper>);

impl Peppers {
    pub fn new(mut peppers: Vec<Pepper>) -> Peppers {
        peppers.sort_by_key(|p| p.id);
        Peppers(peppers)
    }

    /// The one that new secrets are made with.
    pub fn newest(&self) -> Option<&Pepper> {
        self.0.last()
    }

    /// Oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Pepper> {
        self.0.iter()
    }

    pub fn get(&self, id: u32) -> Option<&Pepper> {
        self.0.iter().find(|p| p.id == id)
    }
}

/// Compares in constant time.
pub fn same(a: &Verifier, b: &Verifier) -> bool {
    a.ct_eq(b).into()
}

/// SHA-256(domain ‖ salt ‖ verifier): binds the verifier beside the ledger to the signed entry that made it.
pub fn commitment(salt: &[u8; 32], verifier: &Verifier) -> [u8; 32] {
    Sha256::new()
        .chain_update(COMMITMENT_DOMAIN)
        .chain_update(salt)
        .chain_update(verifier)
        .finalize()
        .into()
}
