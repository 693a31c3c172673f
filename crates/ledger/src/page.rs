//! Use pages: the uses of one batch. The signed body holds their number and an RFC 6962 root over salted leaves; the uses
//! lie beside it.

use std::collections::BTreeMap;

use prost::Message;

use crate::body::{
    BoundedUses, Decision, DecisionReason, NotCanonical, ReportedUses, SealedText, Spent, Use,
    UseColumn, UsePage, UseRecord, decode_canonical,
};
use crate::category;
use crate::id::{KeyId, Time};
use crate::merkle::{Hash, leaf_hash_of, root_of};

/// Most uses of one page.
pub const MAX_USES: usize = 4096;

/// Most limited keys of whose uses one page tells: its body stays far below what an entry may hold.
pub const MAX_SPENT: usize = 2_000;

/// Random salt of a use's leaf: from the root nobody can guess what was used.
pub type UseSalt = [u8; 16];

/// Why a page and the uses beside it don't belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error(transparent)]
    NotCanonical(#[from] NotCanonical),
    #[error("the number of uses is not the one that was signed")]
    Count,
    #[error("the number of uses that read the log is not the one that was signed")]
    Accesses,
    #[error("the root of the uses is not the one that was signed")]
    Root,
    #[error("a use is malformed: {0}")]
    Use(&'static str),
}

/// A page under construction.
#[derive(Default)]
pub struct PageWriter {
    column: UseColumn,
    leaves: Vec<Hash>,
    accesses: u32,
    /// Time of the earliest use that names one: a count of refusals may reach back into the second before.
    earliest: Option<i64>,
    /// Whether some use happened at the page's own time.
    now: bool,
    latest: i64,
}

impl PageWriter {
    /// Adds a use with its sealed texts; returns its index.
    pub fn add(&mut self, r#use: &Use, salt: UseSalt, sealed: Vec<Vec<u8>>) -> u32 {
        let bytes = r#use.encode_to_vec();
        match r#use.first_time_us {
            0 => self.now = true,
            first => self.earliest = Some(self.earliest.map_or(first, |e| e.min(first))),
        }
        self.latest = self.latest.max(r#use.last_time_us);
        self.accesses += u32::from(category::is_access(r#use));
        self.leaves.push(use_leaf(&salt, &bytes));
        self.column.uses.push(UseRecord { r#use: bytes, salt: salt.to_vec(), sealed });
        (self.leaves.len() - 1) as u32
    }

    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    /// The signed part, and the column beside it.
    pub fn finish(
        self,
        number: u64,
        time: Time,
        shed: u64,
        spent: Vec<Spent>,
        bounded: Vec<BoundedUses>,
        reported: Vec<ReportedUses>,
    ) -> (UsePage, Vec<u8>) {
        let page = UsePage {
            count: self.leaves.len() as u32,
            first_time_us: self.earliest.unwrap_or(time.micros()),
            last_time_us: if self.now { time.micros() } else { self.latest },
            root: root_of(&self.leaves).to_vec(),
            shed,
            number,
            spent,
            bounded,
            reported,
            accesses: Some(self.accesses),
        };
        (page, self.column.encode_to_vec())
    }
}

/// A use as read back, with the sealed texts beside it.
pub struct ReadUse {
    pub r#use: Use,
    pub sealed: Vec<Vec<u8>>,
}

/// Reads the uses beside a page and checks them against what was signed.
pub fn read_uses(page: &UsePage, column: &[u8]) -> Result<Vec<ReadUse>, PageError> {
    let column: UseColumn = decode_canonical(column, "UseColumn")?;
    if column.uses.len() != page.count as usize {
        return Err(PageError::Count);
    }
    let leaves: Vec<Hash> = column.uses.iter().map(|u| use_leaf(&u.salt, &u.r#use)).collect();
    if root_of(&leaves).as_slice() != page.root {
        return Err(PageError::Root);
    }
    let uses: Vec<ReadUse> = column.uses.into_iter().map(read_use).collect::<Result<_, _>>()?;
    let accesses = uses.iter().filter(|read| category::is_access(&read.r#use)).count();
    if page.accesses.is_some_and(|signed| signed as usize != accesses) {
        return Err(PageError::Accesses);
    }
    Ok(uses)
}

fn read_use(record: UseRecord) -> Result<ReadUse, PageError> {
    if record.salt.len() != size_of::<UseSalt>() {
        return Err(PageError::Use("salt"));
    }
    let r#use: Use = decode_canonical(&record.r#use, "Use")?;
    check_texts(&r#use.texts)?;
    if r#use.texts.len() != record.sealed.len() {
        return Err(PageError::Use("sealed texts"));
    }
    if r#use.bounded.as_ref().is_some_and(|b| b.serving_id.len() != 16) {
        return Err(PageError::Use("serving_id"));
    }
    if r#use.reported.as_ref().is_some_and(|r| r.session_id.len() != 16 || r#use.caller.is_none()) {
        return Err(PageError::Use("reported"));
    }
    if !r#use.key_id.is_empty() && r#use.key_id.len() != 16 {
        return Err(PageError::Use("key_id"));
    }
    Ok(ReadUse { r#use, sealed: record.sealed })
}

/// The keys whose uses a use counts for: the one that it was allowed to, and the one that asked. What a key may always do
/// (no permission is asked for) never counts.
/// What was answered from memory never counts, nor what a service answered by itself: keys with limits aren't answered so. The call that
/// reports it is a use of its own.
pub fn counts_for(u: &Use) -> impl Iterator<Item = KeyId> {
    let allowed = matches!(
        DecisionReason::try_from(u.reason),
        Ok(DecisionReason::Granted | DecisionReason::Replayed | DecisionReason::Validated)
    );
    let strictly = u.bounded.is_none() && u.reported.is_none();
    let subject = (allowed && strictly && !u.permission.is_empty()).then_some(&u.key_id);
    let asker = u.caller.as_ref().filter(|_| strictly).map(|c| &c.key_id);
    [subject, asker].into_iter().flatten().filter_map(|id| KeyId::from_slice(id))
}

/// The secrets, by key and version, that a use was allowed with: that of the key asked about, and that of the key that asked.
/// What a service reports, and what can't be true, is no use of a secret.
pub fn used_with(u: &Use) -> impl Iterator<Item = (KeyId, u32)> {
    let holds = u.reported.as_ref().is_none_or(|reported| reported.doubts.is_empty());
    let allowed = u.decision == Decision::Allow as i32 && holds;
    let subject = allowed.then_some((&u.key_id, u.version));
    let asker = u.caller.as_ref().map(|c| (&c.key_id, c.version));
    let secret = |(id, version): (&Vec<u8>, u32)| Some((KeyId::from_slice(id)?, version));
    [subject, asker].into_iter().flatten().filter_map(secret)
}

/// What a page says of the uses of limited keys.
pub fn spent(uses: &BTreeMap<KeyId, u32>) -> Vec<Spent> {
    let spent = |(id, uses): (&KeyId, &u32)| Spent { key_id: id.as_bytes().to_vec(), uses: *uses };
    uses.iter().map(spent).collect()
}

/// What a page says of servings: how many of its uses were answered by each.
pub fn bounded(uses: &BTreeMap<[u8; 16], u32>) -> Vec<BoundedUses> {
    let bounded =
        |(id, uses): (&[u8; 16], &u32)| BoundedUses { serving_id: id.to_vec(), uses: *uses };
    uses.iter().map(bounded).collect()
}

/// First and last time of the uses of a page; a use that names none happened at the page's time.
pub fn times(uses: &[ReadUse], page_time: Time) -> (i64, i64) {
    let or_page = |time: i64| if time == 0 { page_time.micros() } else { time };
    let first = uses.iter().map(|u| or_page(u.r#use.first_time_us)).min();
    let last = uses.iter().map(|u| or_page(u.r#use.last_time_us)).max();
    (first.unwrap_or_default(), last.unwrap_or_default())
}

/// References and commitments have their lengths.
pub fn check_texts(texts: &[SealedText]) -> Result<(), PageError> {
    let good = texts.iter().all(|t| t.subject_ref.len() == 16 && t.commitment.len() == 32);
    if good { Ok(()) } else { Err(PageError::Use("texts")) }
}

/// The leaf of a use in the tree of its page.
pub fn use_leaf(salt: &[u8], r#use: &[u8]) -> Hash {
    leaf_hash_of(&[salt, r#use])
}
