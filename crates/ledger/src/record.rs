//! What lies beside the signed bytes: the columns derived from an entry, and the rows that project the state.
//!
//! Nothing here is trusted. Columns are derived again and compared when the ledger is verified; a projected row carries a
//! keyed MAC over its content and position, and is checked against the key's newest lifecycle entry when it is loaded.

mod sum;

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use imbl::OrdMap;
use prost::Message;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::body::{self, Event, ImportAlgorithm, Kind, OwnerKind, RevocationKind};
use crate::bounded::Serving;
#[cfg(doc)]
use crate::category::CategoryCounts;
use crate::category::{self, ANOMALY};
use crate::grant::Grant;
use crate::id::{KeyId, Time};
use crate::imported::Imported;
use crate::merkle::Hash;
use crate::policy::Rotation;
use crate::reports;
use crate::restrict::{Restrictions, Used};
use crate::state::{Key, Label, Owner, Revoked, State, Suspension, Version};

/// The columns of an entry that serve queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    pub kind: i16,
    pub time_us: i64,
    pub key_id: Option<KeyId>,
    pub stream_version: Option<i32>,
    pub caller_key_id: Option<KeyId>,
    pub trace_id: Option<[u8; 16]>,
    pub use_count: i32,
    /// Of an event of another service, and of an anomaly. Those of changes and uses are told by the kind.
    pub category: Option<String>,
    pub leaf_hash: Hash,
}

impl Columns {
    pub fn derive(event: &Event, leaf_hash: Hash) -> Columns {
        let kind = event.kind.as_ref();
        let link = kind.and_then(Kind::key_link);
        Columns {
            kind: kind.map_or(0, Kind::number),
            time_us: event.time_us,
            key_id: link.and_then(|l| KeyId::from_slice(&l.key_id)),
            stream_version: link.map(|l| l.stream_version as i32),
            caller_key_id: event.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id)),
            trace_id: event.trace_id.as_slice().try_into().ok(),
            use_count: match kind {
                Some(Kind::UsePage(page)) => page.count as i32,
                _ => 0,
            },
            category: match kind {
                Some(Kind::EventRecorded(event)) => Some(event.category.clone()),
                Some(_) if category::of_entry(event) == ANOMALY => Some(ANOMALY.into()),
                _ => None,
            },
            leaf_hash,
        }
    }
}

/// The key that binds projected rows to their positions. It lies in the key directory.
#[derive(Clone)]
pub struct RowMac(Zeroizing<[u8; 32]>);

impl RowMac {
    pub fn new(key: [u8; 32]) -> RowMac {
        RowMac(Zeroizing::new(key))
    }

    /// HMAC-SHA-256 over table, ledger, id, position and record; each part with its length.
    pub fn of(
        &self,
        table: &str,
        ledger_id: &[u8; 16],
        id: &[u8],
        position: u64,
        record: &[u8],
    ) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice())
            .expect("HMAC takes a key of any length");
        for part in
            [b"keyledger row v1", table.as_bytes(), ledger_id, id, &position.to_be_bytes(), record]
        {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// What all projected rows of a ledger add up to: a sum of hidden tags, one a row, so that it follows each change at once.
/// Only a MAC over it is ever stored, so nobody can look for other rows with the same sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowSum([u64; 4]);

impl RowSum {
    fn add(&mut self, tag: [u8; 32], sign: bool) {
        // Modulo 2^256: four limbs, least significant first.
        let mut carry = 0i128;
        for (limb, bytes) in self.0.iter_mut().zip(tag.chunks(8)) {
            let value = i128::from(u64::from_le_bytes(bytes.try_into().expect("chunks of 8")));
            let sum = i128::from(*limb) + if sign { value } else { -value } + carry;
            *limb = sum as u64;
            carry = sum >> 64;
        }
    }
}

impl RowMac {
    /// Binds the sum to a position of a ledger.
    pub fn of_sum(&self, ledger_id: &[u8; 16], at: &ProjectionAt, sum: RowSum) -> [u8; 32] {
        let numbers = [at.next_page, at.next_start, at.next_event].map(u64::to_be_bytes).concat();
        let length = |bytes: &[u8]| (bytes.len() as u64).to_be_bytes();
        let (servings, sessions) = (length(&at.servings), length(&at.sessions));
        let counters =
            [&numbers, &servings[..], &at.servings, &sessions[..], &at.sessions, &at.counts];
        let counters = counters.concat();
        let limbs: Vec<u8> = sum.0.iter().flat_map(|l| l.to_be_bytes()).collect();
        self.of("projections", ledger_id, &counters, at.position, &limbs)
    }
}

/// Where the projected rows stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectionAt {
    pub position: u64,
    pub next_page: u64,
    pub next_start: u64,
    pub next_event: u64,
    /// As [`encode_servings`] writes them: how many uses are recorded can't be told from entries about no key.
    pub servings: Vec<u8>,
    /// As [`reports::encode`] writes them: the same holds of what was reported.
    pub sessions: Vec<u8>,
    /// As [`CategoryCounts::encode`] writes them: they come from all entries.
    pub counts: Vec<u8>,
}

impl ProjectionAt {
    pub fn of(state: &State) -> ProjectionAt {
        ProjectionAt {
            position: state.next_position,
            next_page: state.next_page,
            next_start: state.next_start,
            next_event: state.next_event,
            servings: encode_servings(&state.servings),
            sessions: reports::encode(&state.sessions),
            counts: state.counts.encode(),
        }
    }
}

/// 32 bytes for each: id, end, number of uses.
fn encode_servings(servings: &OrdMap<[u8; 16], Serving>) -> Vec<u8> {
    let bytes = |(id, s): (&[u8; 16], &Serving)| {
        [&id[..], &s.until.micros().to_be_bytes(), &s.recorded.to_be_bytes()].concat()
    };
    servings.iter().flat_map(bytes).collect()
}

/// `None` if they are not as we write them.
pub fn decode_servings(bytes: &[u8]) -> Option<OrdMap<[u8; 16], Serving>> {
    let (all, []) = bytes.as_chunks::<32>() else { return None };
    let serving = |bytes: &[u8; 32]| {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let id: [u8; 16] = bytes[..16].try_into().expect("16 of 32 bytes");
        (id, Serving { until: Time(number(16) as i64), recorded: number(24) })
    };
    Some(all.iter().map(serving).collect())
}

pub fn same_mac(a: &[u8; 32], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[derive(Clone, PartialEq, Message)]
struct KeyRecord {
    #[prost(bytes = "vec", tag = "1")]
    key_id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    owner: Option<body::Owner>,
    #[prost(bytes = "vec", tag = "3")]
    creator: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    grants: Vec<body::Grant>,
    #[prost(string, repeated, tag = "5")]
    roles: Vec<String>,
    #[prost(int64, tag = "6")]
    created_us: i64,
    #[prost(int64, optional, tag = "7")]
    expires_us: Option<i64>,
    #[prost(enumeration = "RevocationKind", tag = "8")]
    revocation_kind: i32,
    #[prost(int64, tag = "9")]
    revoked_us: i64,
    #[prost(message, repeated, tag = "10")]
    versions: Vec<VersionRecord>,
    #[prost(uint32, tag = "11")]
    stream_version: u32,
    #[prost(bytes = "vec", tag = "12")]
    leaf_hash: Vec<u8>,
    #[prost(uint64, tag = "13")]
    position: u64,
    #[prost(uint64, tag = "14")]
    created_position: u64,
    #[prost(int64, optional, tag = "15")]
    suspended_us: Option<i64>,
    #[prost(message, optional, tag = "16")]
    restrictions: Option<body::Restrictions>,
    #[prost(message, repeated, tag = "17")]
    labels: Vec<body::Label>,
    #[prost(bytes = "vec", tag = "18")]
    responsible: Vec<u8>,
    /// Absent where it is the position of the creation.
    #[prost(uint64, optional, tag = "19")]
    purpose_position: Option<u64>,
    /// Absent where it is the position of the creation.
    #[prost(uint64, optional, tag = "20")]
    responsible_position: Option<u64>,
    #[prost(message, optional, tag = "21")]
    used: Option<UsedRecord>,
    /// Absent where it is the time of the creation.
    #[prost(int64, optional, tag = "22")]
    noted_us: Option<i64>,
    #[prost(message, optional, tag = "23")]
    rotation: Option<body::Rotation>,
    #[prost(uint32, tag = "24")]
    rotation_noted: u32,
    #[prost(uint32, tag = "25")]
    rotation_suspended: u32,
    #[prost(bool, tag = "26")]
    until_first_use: bool,
    #[prost(message, optional, tag = "28")]
    imported: Option<ImportedRecord>,
    /// It is suspended for not having been used.
    #[prost(bool, tag = "29")]
    idle: bool,
    /// Since when it is accepted again, if it was suspended and isn't any more.
    #[prost(int64, optional, tag = "30")]
    resumed_us: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct ImportedRecord {
    #[prost(enumeration = "ImportAlgorithm", tag = "1")]
    algorithm: i32,
    #[prost(bytes = "vec", tag = "2")]
    lookup: Vec<u8>,
    #[prost(uint32, tag = "3")]
    pepper_id: u32,
    #[prost(uint32, tag = "4")]
    prefix_length: u32,
    #[prost(bool, tag = "5")]
    migrated: bool,
}

#[derive(Clone, PartialEq, Message)]
struct UsedRecord {
    #[prost(uint64, tag = "1")]
    total: u64,
    #[prost(int64, tag = "2")]
    window: i64,
    #[prost(uint32, tag = "3")]
    in_window: u32,
}

#[derive(Clone, PartialEq, Message)]
struct VersionRecord {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(int64, tag = "2")]
    created_us: i64,
    #[prost(int64, optional, tag = "3")]
    expires_us: Option<i64>,
    #[prost(bytes = "vec", tag = "4")]
    commitment: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pepper_id: u32,
}

pub fn encode_key(key: &Key) -> Vec<u8> {
    KeyRecord {
        key_id: key.id.as_bytes().to_vec(),
        owner: Some(body::Owner {
            owner: Some(match &key.owner {
                Owner::User(reference) => OwnerKind::UserRef(reference.to_vec()),
                Owner::Service(name) => OwnerKind::Service(name.to_string()),
            }),
        }),
        creator: key.creator.map_or(vec![], |id| id.as_bytes().to_vec()),
        grants: key.grants.iter().map(Grant::to_body).collect(),
        roles: key.roles.iter().map(|r| r.to_string()).collect(),
        created_us: key.created.micros(),
        expires_us: key.expires.map(Time::micros),
        revocation_kind: key.revoked.map_or(0, |r| r.kind as i32),
        revoked_us: key.revoked.map_or(0, |r| r.time.micros()),
        versions: key.versions.iter().map(encode_version).collect(),
        stream_version: key.stream_version,
        leaf_hash: key.leaf_hash.to_vec(),
        position: key.position,
        created_position: key.created_position,
        suspended_us: key.suspended().map(Time::micros),
        idle: matches!(key.suspension, Suspension::Since { idle: true, .. }),
        resumed_us: match key.suspension {
            Suspension::Resumed(time) => Some(time.micros()),
            Suspension::Never | Suspension::Since { .. } => None,
        },
        restrictions: key.restrictions.as_ref().and_then(|r| r.to_body()),
        labels: key.labels.iter().map(Label::to_body).collect(),
        responsible: key.responsible.map_or(vec![], |r| r.to_vec()),
        purpose_position: later(key, key.purpose_position),
        responsible_position: later(key, key.responsible_position),
        noted_us: (key.noted != key.created).then_some(key.noted.micros()),
        rotation: key.rotation.as_ref().map(|r| r.to_body()),
        rotation_noted: key.rotation_noted,
        rotation_suspended: key.rotation_suspended,
        until_first_use: key.until_first_use,
        used: key.used.as_ref().map(|u| UsedRecord {
            total: u.total,
            window: u.window,
            in_window: u.in_window,
        }),
        imported: key.imported.as_deref().map(encode_imported),
    }
    .encode_to_vec()
}

fn encode_imported(imported: &Imported) -> ImportedRecord {
    ImportedRecord {
        algorithm: imported.algorithm as i32,
        lookup: imported.lookup.to_vec(),
        pepper_id: imported.pepper_id,
        prefix_length: imported.prefix_length.into(),
        migrated: imported.migrated,
    }
}

fn decode_imported(record: ImportedRecord) -> Option<Imported> {
    let algorithm = ImportAlgorithm::try_from(record.algorithm).ok()?;
    let (pepper_id, prefix_length) = (record.pepper_id, record.prefix_length);
    let imported = Imported::new(algorithm, &record.lookup, pepper_id, prefix_length)?;
    Some(Imported { migrated: record.migrated, ..imported })
}

fn later(key: &Key, position: u64) -> Option<u64> {
    (position != key.created_position).then_some(position)
}

fn encode_version(version: &Version) -> VersionRecord {
    VersionRecord {
        number: version.number,
        created_us: version.created.micros(),
        expires_us: version.expires.map(Time::micros),
        commitment: version.commitment.to_vec(),
        pepper_id: version.pepper_id,
    }
}

/// `None` if the bytes are not a key as we write it. `intern` shares the names of roles among keys.
pub fn decode_key(bytes: &[u8], intern: impl Fn(&str) -> Arc<str>) -> Option<Key> {
    let record: KeyRecord = body::decode_canonical(bytes, "KeyRecord").ok()?;
    let kind = RevocationKind::try_from(record.revocation_kind).ok()?;
    let revoked = (kind != RevocationKind::Unspecified)
        .then_some(Revoked { kind, time: Time(record.revoked_us) });
    Some(Key {
        id: KeyId::from_slice(&record.key_id)?,
        owner: match record.owner?.owner? {
            OwnerKind::UserRef(reference) => Owner::User(reference.try_into().ok()?),
            OwnerKind::Service(name) => Owner::Service(name.into()),
        },
        creator: if record.creator.is_empty() {
            None
        } else {
            Some(KeyId::from_slice(&record.creator)?)
        },
        grants: record.grants.iter().map(Grant::from_body).collect::<Result<_, _>>().ok()?,
        roles: record.roles.iter().map(|r| intern(r)).collect(),
        created: Time(record.created_us),
        expires: record.expires_us.map(Time),
        revoked,
        versions: record
            .versions
            .into_iter()
            .map(decode_version)
            .collect::<Option<Vec<_>>>()
            .map(just_as_large)
            .filter(|v| !v.is_empty())?,
        imported: match record.imported {
            None => None,
            Some(imported) => Some(Box::new(decode_imported(imported)?)),
        },
        stream_version: record.stream_version,
        leaf_hash: record.leaf_hash.try_into().ok()?,
        position: record.position,
        created_position: record.created_position,
        suspension: match (record.suspended_us, record.resumed_us) {
            (Some(since), _) => Suspension::Since { time: Time(since), idle: record.idle },
            (None, Some(resumed)) => Suspension::Resumed(Time(resumed)),
            (None, None) => Suspension::Never,
        },
        restrictions: match Restrictions::from_body(record.restrictions.as_ref()).ok()? {
            r if r.is_empty() => None,
            r => Some(Box::new(r)),
        },
        noted: Time(record.noted_us.unwrap_or(record.created_us)),
        rotation: match &record.rotation {
            None => None,
            Some(rotation) => Some(Box::new(Rotation::from_body(rotation).ok()?)),
        },
        rotation_noted: record.rotation_noted,
        rotation_suspended: record.rotation_suspended,
        until_first_use: record.until_first_use,
        used: record
            .used
            .map(|u| Box::new(Used { total: u.total, window: u.window, in_window: u.in_window })),
        labels: record.labels.iter().map(Label::from_body).collect(),
        responsible: match record.responsible.as_slice() {
            [] => None,
            reference => Some(reference.try_into().ok()?),
        },
        purpose_position: record.purpose_position.unwrap_or(record.created_position),
        responsible_position: record.responsible_position.unwrap_or(record.created_position),
    })
}

/// Without the room that decoding left: it would cost more than the versions themselves.
fn just_as_large(mut versions: Vec<Version>) -> Vec<Version> {
    versions.shrink_to_fit();
    versions
}

fn decode_version(record: VersionRecord) -> Option<Version> {
    Some(Version {
        number: record.number,
        created: Time(record.created_us),
        expires: record.expires_us.map(Time),
        commitment: record.commitment.try_into().ok()?,
        pepper_id: record.pepper_id,
    })
}
