//! Messages of keys that were made elsewhere.

use prost::{Enumeration, Message};

use super::{Grant, KeyCreated, KeyLink, Label, Owner, Restrictions, Rotation, SecretVersion};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ImportAlgorithm {
    Unspecified = 0,
    Sha256 = 1,
    Argon2id = 2,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ImportedVerifier {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(enumeration = "ImportAlgorithm", tag = "2")]
    pub algorithm: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub verifier_commitment: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub lookup: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub pepper_id: u32,
    #[prost(uint32, tag = "6")]
    pub prefix_length: u32,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct KeyImported {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(message, optional, tag = "2")]
    pub owner: Option<Owner>,
    #[prost(message, repeated, tag = "3")]
    pub grants: Vec<Grant>,
    #[prost(string, repeated, tag = "4")]
    pub roles: Vec<String>,
    #[prost(int64, tag = "5")]
    pub expire_time_us: i64,
    #[prost(message, optional, tag = "6")]
    pub verifier: Option<ImportedVerifier>,
    #[prost(message, optional, tag = "7")]
    pub restrictions: Option<Restrictions>,
    #[prost(message, repeated, tag = "8")]
    pub labels: Vec<Label>,
    #[prost(bytes = "vec", tag = "9")]
    pub responsible_ref: Vec<u8>,
    #[prost(message, optional, tag = "10")]
    pub rotation: Option<Rotation>,
}

#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct VerifierMigrated {
    #[prost(message, optional, tag = "1")]
    pub link: Option<KeyLink>,
    #[prost(message, optional, tag = "2")]
    pub version: Option<SecretVersion>,
}

impl KeyImported {
    /// A key with this first secret in place of a new one.
    pub fn new(created: KeyCreated, verifier: ImportedVerifier) -> KeyImported {
        KeyImported {
            link: created.link,
            owner: created.owner,
            grants: created.grants,
            roles: created.roles,
            expire_time_us: created.expire_time_us,
            verifier: Some(verifier),
            restrictions: created.restrictions,
            labels: created.labels,
            responsible_ref: created.responsible_ref,
            rotation: created.rotation,
        }
    }

    /// All that it shares with a key that was created.
    pub fn to_created(&self) -> KeyCreated {
        let version = self.verifier.as_ref().map(|v| SecretVersion {
            number: v.number,
            verifier_commitment: v.verifier_commitment.clone(),
            pepper_id: v.pepper_id,
        });
        KeyCreated {
            link: self.link.clone(),
            owner: self.owner.clone(),
            grants: self.grants.clone(),
            roles: self.roles.clone(),
            expire_time_us: self.expire_time_us,
            version,
            restrictions: self.restrictions.clone(),
            labels: self.labels.clone(),
            responsible_ref: self.responsible_ref.clone(),
            rotation: self.rotation,
        }
    }
}
