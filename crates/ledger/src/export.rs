//! Manifests of exports: what closes an export of events, so that a copy elsewhere can be verified later, line by line.
//!
//! The messages are those of `proto/keyledger/export/v1/manifest.proto`. Both keys of the ledger sign: who knows one of them,
//! such as the verifier key of its checkpoints, needs no other to believe a manifest.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use prost::{Enumeration, Message};

use crate::body::{NotCanonical, decode_canonical};
use crate::entry::{EntrySigner, pre_authentication_encoding, public_key_digest};
use crate::merkle::{Hash, leaf_hash};
use crate::note::{self, Checkpoint, NoteError, NoteKey};

/// DSSE payload type of a manifest. What is signed under it can't be taken for an entry, or for a note.
pub const PAYLOAD_TYPE: &str = "application/vnd.keyledger.export-manifest.v1+protobuf";

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ExportManifest {
    #[prost(bytes = "vec", tag = "1")]
    pub ledger_id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub origin: String,
    #[prost(bytes = "vec", tag = "3")]
    pub entry_public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub checkpoint_public_key: Vec<u8>,
    #[prost(enumeration = "ExportFormat", tag = "5")]
    pub format: i32,
    #[prost(bytes = "vec", tag = "6")]
    pub asked: Vec<u8>,
    #[prost(uint64, tag = "7")]
    pub first_position: u64,
    #[prost(uint64, tag = "8")]
    pub end_position: u64,
    #[prost(uint64, tag = "9")]
    pub snapshot_size: u64,
    #[prost(uint64, tag = "10")]
    pub lines: u64,
    #[prost(bytes = "vec", tag = "11")]
    pub root: Vec<u8>,
    #[prost(string, tag = "12")]
    pub checkpoint: String,
    #[prost(int64, tag = "13")]
    pub time_us: i64,
    #[prost(bytes = "vec", tag = "14")]
    pub caller_key_id: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ExportFormat {
    Unspecified = 0,
    JsonLines = 1,
    CloudEvents = 2,
    Ocsf = 3,
    Csv = 4,
}

/// A manifest as it is handed on: the bytes that were signed, and who signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub payload_type: String,
    pub payload: Vec<u8>,
    /// Digest of the public key, and signature.
    pub signatures: Vec<(Hash, [u8; 64])>,
}

/// A manifest that both keys named in it have signed.
#[derive(Clone, Debug)]
pub struct OpenedManifest {
    pub manifest: ExportManifest,
    pub entry_key: VerifyingKey,
    /// Under the name of the ledger's origin.
    pub checkpoint_key: NoteKey,
    pub checkpoint: Checkpoint,
}

/// Why an envelope holds no manifest that can be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("it is no manifest of an export, or one of a newer format")]
    PayloadType,
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    #[error("the {0} in it is malformed")]
    Malformed(&'static str),
    #[error("the ledger's {0} has not signed it")]
    NotSigned(&'static str),
    #[error("the checkpoint in it is not one of the ledger: {0}")]
    Checkpoint(#[from] NoteError),
    #[error("the checkpoint in it is of another size")]
    Size,
}

/// The digest of a line: an RFC 6962 leaf hash of its exact bytes, with the line break at its end.
pub fn line_hash(line: &[u8]) -> Hash {
    leaf_hash(line)
}

/// Signs a manifest with both keys of its ledger.
pub fn sign(
    manifest: &ExportManifest,
    entry_signer: &EntrySigner,
    checkpoint_signer: &SigningKey,
) -> Envelope {
    let payload = manifest.encode_to_vec();
    let message = pre_authentication_encoding(PAYLOAD_TYPE, &payload);
    let by_checkpoint_signer = checkpoint_signer.sign(&message).to_bytes();
    let signatures = vec![
        (public_key_digest(&entry_signer.public_key()), entry_signer.sign_manifest(&payload)),
        (public_key_digest(&checkpoint_signer.verifying_key()), by_checkpoint_signer),
    ];
    Envelope { payload_type: PAYLOAD_TYPE.into(), payload, signatures }
}

impl Envelope {
    /// The manifest, if both keys that it names have signed it. Whether these are the ledger's, only someone can say who knows
    /// one of them.
    pub fn open(&self) -> Result<OpenedManifest, ManifestError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(ManifestError::PayloadType);
        }
        let manifest: ExportManifest = decode_canonical(&self.payload, "ExportManifest")?;
        let entry_key = key(&manifest.entry_public_key, "key of entries")?;
        let checkpoint_key = key(&manifest.checkpoint_public_key, "key of checkpoints")?;
        if manifest.root.len() != size_of::<Hash>() {
            return Err(ManifestError::Malformed("root"));
        }
        self.check(&entry_key, "key of entries")?;
        self.check(&checkpoint_key, "key of checkpoints")?;
        let checkpoint_key = NoteKey::new(&manifest.origin, checkpoint_key)?;
        let checkpoint = note::open(&manifest.checkpoint, &checkpoint_key)?;
        if checkpoint.size != manifest.snapshot_size {
            return Err(ManifestError::Size);
        }
        Ok(OpenedManifest { manifest, entry_key, checkpoint_key, checkpoint })
    }

    fn check(&self, key: &VerifyingKey, whose: &'static str) -> Result<(), ManifestError> {
        let digest = public_key_digest(key);
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        let signature = self.signatures.iter().find(|(signer, _)| *signer == digest);
        signature
            .and_then(|(_, bytes)| key.verify_strict(&message, &Signature::from_bytes(bytes)).ok())
            .ok_or(ManifestError::NotSigned(whose))
    }
}

fn key(bytes: &[u8], what: &'static str) -> Result<VerifyingKey, ManifestError> {
    let bytes = bytes.try_into().map_err(|_| ManifestError::Malformed(what))?;
    VerifyingKey::from_bytes(bytes).map_err(|_| ManifestError::Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryError;

    fn keys() -> (EntrySigner, SigningKey) {
        (EntrySigner::new(SigningKey::from_bytes(&[1; 32])), SigningKey::from_bytes(&[2; 32]))
    }

    fn manifest() -> ExportManifest {
        let (entries, checkpoints) = keys();
        let checkpoint = Checkpoint { origin: "keys.example/main".into(), size: 3, root: [9; 32] };
        ExportManifest {
            ledger_id: vec![7; 16],
            origin: "keys.example/main".into(),
            entry_public_key: entries.public_key().to_bytes().to_vec(),
            checkpoint_public_key: checkpoints.verifying_key().to_bytes().to_vec(),
            snapshot_size: 3,
            root: vec![5; 32],
            checkpoint: note::sign(&checkpoint, &checkpoints),
            ..ExportManifest::default()
        }
    }

    #[test]
    fn a_manifest_is_believed_if_both_keys_have_signed_exactly_it() {
        let (entries, checkpoints) = keys();
        let good = sign(&manifest(), &entries, &checkpoints);
        assert_eq!(good.open().unwrap().manifest, manifest());
        for bit in 0..good.payload.len() * 8 {
            let mut changed = good.clone();
            changed.payload[bit / 8] ^= 1 << (bit % 8);
            assert!(changed.open().is_err(), "bit {bit}");
        }
        for signer in 0..2 {
            let mut unsigned = good.clone();
            unsigned.signatures.remove(signer);
            assert!(matches!(unsigned.open(), Err(ManifestError::NotSigned(_))));
            let mut changed = good.clone();
            changed.signatures[signer].1[7] ^= 1;
            assert!(matches!(changed.open(), Err(ManifestError::NotSigned(_))));
        }
        let stranger = SigningKey::from_bytes(&[3; 32]);
        let forged = sign(&manifest(), &EntrySigner::new(stranger.clone()), &stranger);
        assert_eq!(forged.open().unwrap_err(), ManifestError::NotSigned("key of entries"));
    }

    #[test]
    fn its_checkpoint_is_one_of_its_ledger_and_of_its_size() {
        let (entries, checkpoints) = keys();
        let open = |manifest: ExportManifest| sign(&manifest, &entries, &checkpoints).open();
        let other = ExportManifest { snapshot_size: 4, ..manifest() };
        assert_eq!(open(other).unwrap_err(), ManifestError::Size);
        let other = ExportManifest { origin: "keys.example/other".into(), ..manifest() };
        assert!(matches!(open(other), Err(ManifestError::Checkpoint(_))));
        let other = ExportManifest { root: vec![5; 31], ..manifest() };
        assert_eq!(open(other).unwrap_err(), ManifestError::Malformed("root"));
    }

    #[test]
    fn a_manifest_is_no_entry_and_an_entry_is_no_manifest() {
        let (entries, checkpoints) = keys();
        let envelope = sign(&manifest(), &entries, &checkpoints);
        let (public_key_sha256, signature) = envelope.signatures[0];
        let mut entry = crate::entry::Entry {
            payload_type: envelope.payload_type.clone(),
            body: envelope.payload.clone(),
            public_key_sha256,
            signature,
        };
        let signers = [entries.public_key()];
        assert_eq!(entry.open(&signers).unwrap_err(), EntryError::PayloadType);
        entry.payload_type = crate::body::PAYLOAD_TYPE.into();
        assert_eq!(entry.open(&signers).unwrap_err(), EntryError::Signature);
        let entry = entries.sign(manifest().encode_to_vec()).unwrap();
        let passed_off = Envelope {
            payload_type: PAYLOAD_TYPE.into(),
            payload: entry.body,
            signatures: vec![(entry.public_key_sha256, entry.signature), envelope.signatures[1]],
        };
        assert!(matches!(passed_off.open(), Err(ManifestError::NotSigned(_))));
    }
}
