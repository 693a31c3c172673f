//! Keys that were made elsewhere: hashes of their tokens, what they are found by, and the tokens that clients present.
//!
//! A hash is kept beside the ledger until the key's first use. Then the token itself is there, and a verifier of our own takes
//! the hash's place. A slow hash is never computed here: whoever is asked computes it before the lock and notes that it
//! matched ([`Foreign::matched_slowly`]); under the lock only digests of known length are compared.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::body::{self, DecisionReason, ImportAlgorithm};
use crate::command::Refusal;
use crate::id::KeyId;
use crate::judge::Identity;
use crate::merkle::Hash;
use crate::secret::{Peppers, same};
use crate::state::{Key, State};
use crate::token::Secret;

/// Longest token that was made elsewhere.
pub const MAX_TOKEN: usize = 256;
/// How long the clear prefix of a token may be.
pub const PREFIX_BYTES: RangeInclusive<usize> = 8..=64;
/// How many different lengths the prefixes of one ledger may have: each costs a look-up whenever a token is checked.
pub const MAX_PREFIX_LENGTHS: usize = 8;
/// The version that an imported secret is.
pub const VERSION: u32 = 1;

const OUR_PREFIX: &[u8] = b"klk_";
const COMMITMENT_DOMAIN: &[u8] = b"keyledger imported digest v1\n";

/// What an imported key is found by. Tells nothing without the pepper.
pub type Lookup = [u8; 16];

/// What is known of a token that was made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// Of the whole token.
    Sha256([u8; 32]),
    Argon2id(Argon2id),
}

/// An Argon2id hash with all that it was computed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argon2id {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    pub salt: Vec<u8>,
    pub output: Vec<u8>,
}

/// Why something can't be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error(
        "must be $argon2id$v=19$m=…,t=…,p=…$salt$hash, with salt and hash in base64 without padding"
    )]
    Form,
    #[error("must have m of at least 8 times p and at most 65,536 KiB")]
    Memory,
    #[error("must have t of 1 to 10")]
    Passes,
    #[error("must have p of 1 to 4")]
    Lanes,
    #[error("must have a salt of 8 to 64 bytes")]
    Salt,
    #[error("must have a hash of 16 to 64 bytes")]
    Output,
    #[error("must be 8 to 64 bytes of printable ASCII without spaces")]
    Prefix,
    #[error("must not begin with klk_: tokens of that form are Keyledger's own, and are created")]
    Ours,
}

impl Argon2id {
    /// From its one canonical text.
    pub fn parse(text: &str) -> Result<Argon2id, ImportError> {
        let parsed = Argon2id::fields(text).ok_or(ImportError::Form)?;
        // Numbers with signs or leading zeros, and base64 with stray bits, have another text.
        if parsed.to_string() != text {
            return Err(ImportError::Form);
        }
        parsed.check()?;
        Ok(parsed)
    }

    fn fields(text: &str) -> Option<Argon2id> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let (costs, salt, output) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let mut costs = costs.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse().ok();
        let (memory_kib, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
        let bytes = |text: &str| BASE64_STANDARD_NO_PAD.decode(text).ok();
        Some(Argon2id { memory_kib, passes, lanes, salt: bytes(salt)?, output: bytes(output)? })
    }

    /// Whoever imports a hash chooses what each check of its token costs: so all of it has a bound.
    fn check(&self) -> Result<(), ImportError> {
        match self {
            a if !(1..=4).contains(&a.lanes) => Err(ImportError::Lanes),
            a if !(8 * a.lanes..=65_536).contains(&a.memory_kib) => Err(ImportError::Memory),
            a if !(1..=10).contains(&a.passes) => Err(ImportError::Passes),
            a if !(8..=64).contains(&a.salt.len()) => Err(ImportError::Salt),
            a if !(16..=64).contains(&a.output.len()) => Err(ImportError::Output),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (m, t, p) = (self.memory_kib, self.passes, self.lanes);
        let [salt, output] = [&self.salt, &self.output].map(|b| BASE64_STANDARD_NO_PAD.encode(b));
        write!(f, "$argon2id$v=19$m={m},t={t},p={p}${salt}${output}")
    }
}

impl Digest {
    /// As it lies beside the ledger.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Digest::Sha256(digest) => digest.to_vec(),
            Digest::Argon2id(hash) => hash.to_string().into_bytes(),
        }
    }

    /// The inverse of [`Digest::to_bytes`].
    pub fn from_bytes(algorithm: ImportAlgorithm, bytes: &[u8]) -> Option<Digest> {
        match algorithm {
            ImportAlgorithm::Unspecified => None,
            ImportAlgorithm::Sha256 => bytes.try_into().ok().map(Digest::Sha256),
            ImportAlgorithm::Argon2id => {
                let text = std::str::from_utf8(bytes).ok()?;
                Argon2id::parse(text).ok().map(Digest::Argon2id)
            }
        }
    }
}

/// SHA-256(domain ‖ salt ‖ digest): binds the digest beside the ledger to the signed entry that imported it.
pub fn commitment(salt: &[u8; 32], digest: &[u8]) -> Hash {
    let domain = Sha256::new().chain_update(COMMITMENT_DOMAIN);
    domain.chain_update(salt).chain_update(digest).finalize().into()
}

/// The hash of a token, as somebody brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenHash {
    Sha256([u8; 32]),
    Argon2id { hash: Argon2id, prefix: String },
}

impl TokenHash {
    pub fn algorithm(&self) -> ImportAlgorithm {
        match self {
            TokenHash::Sha256(_) => ImportAlgorithm::Sha256,
            TokenHash::Argon2id { .. } => ImportAlgorithm::Argon2id,
        }
    }

    /// What a token is found by, before the pepper is applied.
    pub fn found_by(&self) -> &[u8] {
        match self {
            TokenHash::Sha256(digest) => digest,
            TokenHash::Argon2id { prefix, .. } => prefix.as_bytes(),
        }
    }

    fn prefix_length(&self) -> u8 {
        match self {
            TokenHash::Sha256(_) => 0,
            TokenHash::Argon2id { prefix, .. } => prefix.len() as u8,
        }
    }

    fn digest(&self) -> Digest {
        match self {
            TokenHash::Sha256(digest) => Digest::Sha256(*digest),
            TokenHash::Argon2id { hash, .. } => Digest::Argon2id(hash.clone()),
        }
    }
}

/// The clear beginning of tokens.
pub fn check_prefix(prefix: &str) -> Result<(), ImportError> {
    match prefix.as_bytes() {
        bytes if begins_like_ours(bytes) => Err(ImportError::Ours),
        bytes if PREFIX_BYTES.contains(&bytes.len()) && is_printable(bytes) => Ok(()),
        _ => Err(ImportError::Prefix),
    }
}

/// Also one in capitals: that is a token of ours that somebody has spoilt.
fn begins_like_ours(bytes: &[u8]) -> bool {
    bytes.get(..OUR_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OUR_PREFIX))
}

fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_graphic)
}

/// What the state knows of a key's imported secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub algorithm: ImportAlgorithm,
    pub lookup: Lookup,
    /// The pepper of the lookup.
    pub pepper_id: u32,
    /// 0 for SHA-256.
    pub prefix_length: u8,
    /// Whether a verifier of our own has taken the digest's place.
    pub migrated: bool,
}

impl Imported {
    /// `None` if it isn't one that this program writes.
    pub fn new(
        algorithm: ImportAlgorithm,
        lookup: &[u8],
        pepper_id: u32,
        prefix_length: u32,
    ) -> Option<Imported> {
        let lookup = lookup.try_into().ok()?;
        let good = match algorithm {
            ImportAlgorithm::Unspecified => false,
            ImportAlgorithm::Sha256 => prefix_length == 0,
            ImportAlgorithm::Argon2id => PREFIX_BYTES.contains(&(prefix_length as usize)),
        };
        let prefix_length = prefix_length as u8;
        good.then_some(Imported { algorithm, lookup, pepper_id, prefix_length, migrated: false })
    }
}

impl Key {
    /// The commitment to the digest that its imported secret is checked against, as long as that is needed.
    pub fn digest_commitment(&self) -> Option<(ImportAlgorithm, Hash)> {
        let imported = self.imported.as_ref().filter(|i| !i.migrated)?;
        let version = self.versions.iter().find(|v| v.number == VERSION)?;
        Some((imported.algorithm, version.commitment))
    }
}

/// The first secret of a key that is imported, and the salt for the commitment to its digest.
#[derive(Clone, Debug)]
pub struct NewImport {
    pub hash: TokenHash,
    pub salt: [u8; 32],
}

/// A digest, for the table beside the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRow {
    pub key_id: KeyId,
    pub digest: Digest,
    pub salt: [u8; 32],
}

/// The verifier that an import makes. No hash and no prefix is imported twice, under whatever pepper.
pub fn decide_verifier(
    state: &State,
    peppers: &Peppers,
    key_id: KeyId,
    new: &NewImport,
) -> Result<(body::ImportedVerifier, ImportedRow), Refusal> {
    let (algorithm, found_by) = (new.hash.algorithm(), new.hash.found_by());
    let known = |lookup: &Lookup| state.imported.contains_key(lookup);
    if peppers.all().any(|pepper| known(&pepper.lookup(algorithm, found_by))) {
        return Err(Refusal::ImportExists);
    }
    let prefix_length = new.hash.prefix_length();
    if !state.takes_prefix_length(prefix_length) {
        return Err(Refusal::ImportPrefixLengths);
    }
    let pepper = peppers.newest().ok_or(Refusal::Internal)?;
    let digest = new.hash.digest();
    let verifier = body::ImportedVerifier {
        number: VERSION,
        algorithm: algorithm as i32,
        verifier_commitment: commitment(&new.salt, &digest.to_bytes()).to_vec(),
        lookup: pepper.lookup(algorithm, found_by).to_vec(),
        pepper_id: pepper.id,
        prefix_length: prefix_length.into(),
    };
    Ok((verifier, ImportedRow { key_id, digest, salt: new.salt }))
}

/// A token that isn't in our form: perhaps that of an imported key. The text is not kept.
#[derive(Clone, Debug)]
pub struct Foreign {
    sha256: Secret,
    lookups: Vec<Lookup>,
    /// How many lengths of prefixes were looked up.
    lengths: usize,
    /// The keys that it was found by, the longest prefix first.
    found: Vec<KeyId>,
    /// The key whose imported secret it is. Once found it stays true: versions never change their secret.
    matched: Option<KeyId>,
}

impl Foreign {
    /// `None` if it can't be the token of an imported key.
    pub fn parse(text: &str) -> Option<Foreign> {
        let bytes = text.as_bytes();
        let possible = (1..=MAX_TOKEN).contains(&bytes.len()) && is_printable(bytes);
        (possible && !begins_like_ours(bytes)).then(|| Foreign {
            sha256: Secret::new(Sha256::digest(bytes).into()),
            lookups: vec![],
            lengths: 0,
            found: vec![],
            matched: None,
        })
    }

    /// Looks for the keys that the token may be of. Costs an HMAC, and one for each length of prefixes in use, whether or not
    /// there is such a key.
    pub fn look_up(&mut self, text: &str, state: &State, peppers: &Peppers) {
        let prefixes: Vec<&[u8]> = state
            .prefix_lengths
            .iter()
            .rev()
            .filter_map(|length| text.as_bytes().get(..usize::from(*length)))
            .collect();
        self.lengths = state.prefix_lengths.len();
        self.lookups.clear();
        for pepper in peppers.all() {
            let whole = pepper.lookup(ImportAlgorithm::Sha256, self.sha256.expose());
            let by_prefix = prefixes.iter().map(|p| pepper.lookup(ImportAlgorithm::Argon2id, p));
            self.lookups.extend(std::iter::once(whole).chain(by_prefix));
        }
        self.found = self.candidates(state);
    }

    fn candidates(&self, state: &State) -> Vec<KeyId> {
        self.lookups.iter().filter_map(|lookup| state.imported.get(lookup)).copied().collect()
    }

    /// Slow hashes that it may be the token of. Nothing else may be tried.
    pub fn slow_digests(&self, state: &State) -> Vec<(KeyId, Arc<Digest>)> {
        let slow = |id: &KeyId| {
            state.keys.get(id)?.digest_commitment()?;
            let digest = state.digests.get(id).filter(|d| matches!(***d, Digest::Argon2id(_)))?;
            Some((*id, digest.clone()))
        };
        self.found.iter().filter_map(slow).collect()
    }

    /// A slow hash was computed, and it is that of this key.
    pub fn matched_slowly(&mut self, key_id: KeyId) {
        self.matched = Some(key_id);
    }

    /// The key that it is, or seems to be, a token of.
    pub fn key_id(&self) -> Option<KeyId> {
        self.matched.or(self.found.first().copied())
    }

    pub(crate) fn matched(&self) -> Option<KeyId> {
        self.matched
    }

    pub(crate) fn set_matched(&mut self, key_id: KeyId) {
        self.matched = Some(key_id);
    }

    /// What a verifier of our own is made from.
    pub(crate) fn sha256(&self) -> &Secret {
        &self.sha256
    }

    /// Whether keys were imported since it was looked up, so that it may be the token of another one.
    pub fn is_behind(&self, state: &State) -> bool {
        self.matched.is_none()
            && (self.lengths != state.prefix_lengths.len() || self.found != self.candidates(state))
    }

    /// Whose it is.
    pub(crate) fn identify(&self, state: &State, peppers: &Peppers) -> Identity {
        if let Some(key_id) = self.matched {
            return Identity::Known { key_id, version: VERSION };
        }
        let found = self.candidates(state);
        match found.iter().find(|id| self.is_of(**id, state, peppers)) {
            Some(key_id) => Identity::Known { key_id: *key_id, version: VERSION },
            None => Identity::Unknown {
                key_id: found.first().copied(),
                reason: match found.is_empty() {
                    true => DecisionReason::UnknownKey,
                    false => DecisionReason::WrongSecret,
                },
            },
        }
    }

    fn is_of(&self, key_id: KeyId, state: &State, peppers: &Peppers) -> bool {
        let Some(key) = state.keys.get(&key_id) else { return false };
        let Some(version) = key.versions.iter().find(|v| v.number == VERSION) else { return false };
        if key.imported.as_ref().is_some_and(|imported| imported.migrated) {
            let own = peppers
                .get(version.pepper_id)
                .map(|pepper| pepper.imported_verifier(key_id, VERSION, &self.sha256));
            let expected = state.verifiers.get(&(key_id, VERSION));
            return own.zip(expected).is_some_and(|(own, expected)| same(&own, expected));
        }
        match state.digests.get(&key_id).map(|digest| &**digest) {
            Some(Digest::Sha256(digest)) => same(digest, self.sha256.expose()),
            // Computed before the lock, or not at all.
            Some(Digest::Argon2id(_)) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$MDEyMzQ1Njc4OTAxMjM0NQ";

    #[test]
    fn an_argon2id_hash_has_one_text_and_bounded_costs() {
        assert_eq!(Argon2id::parse(GOOD).unwrap().to_string(), GOOD);
        let longest = "A".repeat(86);
        let costliest = format!("$argon2id$v=19$m=65536,t=10,p=4${longest}${longest}");
        assert!(Argon2id::parse(&costliest).is_ok());
        assert!(costliest.len() <= 256, "the table beside the ledger takes it");
        for (old, new, expected) in [
            ("argon2id", "argon2i", ImportError::Form),
            ("v=19", "v=16", ImportError::Form),
            ("m=64,t=1,p=1", "t=1,m=64,p=1", ImportError::Form),
            ("m=64", "m=064", ImportError::Form),
            ("m=64", "m=+64", ImportError::Form),
            ("m=64", "m=99999999999", ImportError::Form),
            ("p=1", "p=1,x=1", ImportError::Form),
            ("c29tZXNhbHQ", "c29tZXNhbHQ=", ImportError::Form),
            ("c29tZXNhbHQ", "c29tZXNhbHR", ImportError::Form),
            ("$MDEyMzQ1Njc4OTAxMjM0NQ", "", ImportError::Form),
            ("MDEyMzQ1Njc4OTAxMjM0NQ", "MDEyMzQ1Njc4OTAxMjM0NQ$", ImportError::Form),
            ("m=64", "m=65537", ImportError::Memory),
            ("m=64", "m=7", ImportError::Memory),
            ("m=64,t=1,p=1", "m=31,t=1,p=4", ImportError::Memory),
            ("t=1", "t=0", ImportError::Passes),
            ("t=1", "t=11", ImportError::Passes),
            ("p=1", "p=0", ImportError::Lanes),
            ("p=1", "p=5", ImportError::Lanes),
            ("c29tZXNhbHQ", "c29tZXNhbA", ImportError::Salt),
            ("MDEyMzQ1Njc4OTAxMjM0NQ", "MDEyMzQ1Njc4OTAxMjM0", ImportError::Output),
        ] {
            let text = GOOD.replacen(old, new, 1);
            assert_eq!(Argon2id::parse(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        let slow = Digest::Argon2id(Argon2id::parse(GOOD).unwrap());
        for (algorithm, digest) in
            [(ImportAlgorithm::Sha256, Digest::Sha256([7; 32])), (ImportAlgorithm::Argon2id, slow)]
        {
            let bytes = digest.to_bytes();
            assert_eq!(Digest::from_bytes(algorithm, &bytes), Some(digest));
            assert_eq!(Digest::from_bytes(algorithm, &bytes[1..]), None);
            assert_eq!(Digest::from_bytes(ImportAlgorithm::Unspecified, &bytes), None);
        }
    }

    #[test]
    fn a_prefix_is_8_to_64_printable_bytes_and_not_ours() {
        for good in ["acme_liv", "acme-live~!#", &"x".repeat(64)] {
            assert_eq!(check_prefix(good), Ok(()), "{good}");
        }
        for bad in ["", "acme_li", "acme live", "acme_liv\n", "äcme_live", &"x".repeat(65)] {
            assert_eq!(check_prefix(bad), Err(ImportError::Prefix), "{bad}");
        }
        for ours in ["klk_01234567", "KLK_01234567", "klk_"] {
            assert_eq!(check_prefix(ours), Err(ImportError::Ours), "{ours}");
        }
    }

    #[test]
    fn a_token_that_was_made_elsewhere_is_printable_and_not_like_ours() {
        for good in ["x", "acme_live_4711", "klk", &"x".repeat(256)] {
            assert!(Foreign::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a b", "klk_4711", "Klk_4711", "töken", "x\n", &"x".repeat(257)] {
            assert!(Foreign::parse(bad).is_none(), "{bad}");
        }
        assert!(!format!("{:?}", Foreign::parse("acme_live_4711")).contains("4711"));
    }
}
