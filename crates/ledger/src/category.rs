//! Categories: what one may be allowed to read of the log. Those below `keyledger/` are built in; those of recorded events
//! are named by the services that record them.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::body::{
    CategoryCount, CategoryCounted, CountColumn, CountRecord, Event, Kind, Use, UsePage,
    decode_canonical,
};
use crate::id::Time;
use crate::merkle::{Hash, leaf_hash_of, root_of};
use crate::proof::verify_inclusion;

/// Every change.
pub const LIFECYCLE: &str = "keyledger/lifecycle";
/// Every use of a key, apart from those by which the log was read.
pub const USE: &str = "keyledger/use";
/// Every use of a key by which the log was read.
pub const ACCESS: &str = "keyledger/access";

/// Unusual use that was noticed, and what became of it.
pub const ANOMALY: &str = "keyledger/anomaly";

/// Methods that write to the log. All others of their service read it.
const WRITES: [&str; 3] = [
    "AuditService/RecordEvents",
    "AuditService/RecordEventStream",
    "AuditService/AcknowledgeAnomaly",
];

/// Whether a use was made to read the log.
pub fn is_access(u: &Use) -> bool {
    u.method.starts_with("AuditService/") && !WRITES.contains(&u.method.as_str())
}

/// The category of a use. A page that doesn't count accesses was written before they had a category of their own.
pub fn of_use(page: &UsePage, u: &Use) -> &'static str {
    if page.accesses.is_some() && is_access(u) { ACCESS } else { USE }
}

/// The category of an entry that is no page of uses.
pub fn of_entry(event: &Event) -> &str {
    match &event.kind {
        Some(Kind::EventRecorded(recorded)) => &recorded.category,
        Some(Kind::AnomalyRaised(_) | Kind::AnomalyEnded(_) | Kind::AnomalyAcknowledged(_)) => {
            ANOMALY
        }
        _ => LIFECYCLE,
    }
}

/// Most categories of a ledger.
pub const MAX_CATEGORIES: usize = 500;
/// Categories are counted at most so often, in microseconds.
pub const COUNT_INTERVAL: i64 = 60_000_000;

/// How many events of each category a ledger holds: entries, and single uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CategoryCounts {
    by_category: OrdMap<Arc<str>, u64>,
    /// Position and time of the newest entry that told the counts.
    told: Option<(u64, Time)>,
    /// The number that the next such entry will have.
    pub next_number: u64,
}

impl CategoryCounts {
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_category.iter().map(|(category, count)| (&**category, *count))
    }

    /// Whether events of one more category may be recorded.
    pub fn takes(&self, category: &str) -> bool {
        self.by_category.len() < MAX_CATEGORIES || self.by_category.contains_key(category)
    }

    /// Counts an entry.
    pub fn note(&mut self, event: &Event) {
        match &event.kind {
            Some(Kind::UsePage(page)) => {
                let accesses = page.accesses.unwrap_or_default();
                self.add(USE, u64::from(page.count.saturating_sub(accesses)));
                self.add(ACCESS, u64::from(accesses));
            }
            _ => self.add(of_entry(event), 1),
        }
    }

    fn add(&mut self, category: &str, count: u64) {
        if count == 0 {
            return;
        }
        match self.by_category.get_mut(category) {
            Some(sum) => *sum += count,
            None => drop(self.by_category.insert(category.into(), count)),
        }
    }

    /// Whether the counts may be told again: at most once in an interval, and only if there is something new.
    pub fn is_due(&self, next_position: u64, now: Time) -> bool {
        self.told.is_none_or(|(position, time)| {
            position + 1 < next_position && now >= time.plus_micros(COUNT_INTERVAL)
        })
    }

    /// When the counts were last told.
    pub fn told(&self) -> Option<Time> {
        self.told.map(|(_, time)| time)
    }

    pub(crate) fn tell(&mut self, position: u64, time: Time) {
        self.told = Some((position, time));
        self.next_number += 1;
    }

    /// The counts with a salt each, in the order of their leaves: it tells nothing of the names.
    pub fn salted(&self, seed: &[u8; 32]) -> Vec<CountRecord> {
        let salted = |(i, (category, count)): (usize, (&str, u64))| {
            let salt = Sha256::new().chain_update(seed).chain_update(i.to_be_bytes()).finalize();
            let count = CategoryCount { category: category.into(), count };
            CountRecord { count: count.encode_to_vec(), salt: salt[..16].to_vec() }
        };
        let mut records: Vec<CountRecord> = self.iter().enumerate().map(salted).collect();
        records.sort_by_key(leaf);
        records
    }

    /// Whether the counts beside an entry are these.
    pub fn are(&self, records: &[CountRecord]) -> bool {
        let told: Option<BTreeMap<String, u64>> = records
            .iter()
            .map(|r| decode_canonical::<CategoryCount>(&r.count, "CategoryCount").ok())
            .map(|count| count.map(|c| (c.category, c.count)))
            .collect();
        let told = told.filter(|told| told.len() == records.len());
        told.is_some_and(|told| told.iter().map(|(c, n)| (c.as_str(), *n)).eq(self.iter()))
    }

    /// For the row that binds a state to its position.
    pub fn encode(&self) -> Vec<u8> {
        let counts =
            self.iter().map(|(category, count)| CategoryCount { category: category.into(), count });
        let (position, time) = self.told.unwrap_or((0, Time(0)));
        CountsRow {
            counts: counts.collect(),
            position,
            time_us: time.micros(),
            next_number: self.next_number,
        }
        .encode_to_vec()
    }

    /// `None` if they are not as we write them.
    pub fn decode(bytes: &[u8]) -> Option<CategoryCounts> {
        let row: CountsRow = decode_canonical(bytes, "CountsRow").ok()?;
        let count = |c: CategoryCount| (Arc::from(c.category.as_str()), c.count);
        Some(CategoryCounts {
            by_category: row.counts.into_iter().map(count).collect(),
            told: (row.next_number > 0).then_some((row.position, Time(row.time_us))),
            next_number: row.next_number,
        })
    }
}

/// What is signed of counts.
pub fn root(records: &[CountRecord]) -> Hash {
    root_of(&records.iter().map(leaf).collect::<Vec<_>>())
}

/// The leaf of one count.
pub fn leaf(record: &CountRecord) -> Hash {
    leaf_hash_of(&[&record.salt, &record.count])
}

/// Reads the counts beside an entry and checks them against what was signed.
pub fn read_counts(signed: &CategoryCounted, column: &[u8]) -> Option<Vec<CountRecord>> {
    let column: CountColumn = decode_canonical(column, "CountColumn").ok()?;
    let good = column.counts.len() == signed.categories as usize
        && column.counts.iter().all(|r| r.salt.len() == 16)
        && root(&column.counts).as_slice() == signed.root;
    good.then_some(column.counts)
}

/// Whether a count is one of those that were signed.
pub fn check_count(
    signed: &CategoryCounted,
    record: &CountRecord,
    index: u64,
    path: &[Hash],
) -> bool {
    let root: Result<Hash, _> = signed.root.as_slice().try_into();
    let size = u64::from(signed.categories);
    root.is_ok_and(|root| verify_inclusion(&leaf(record), index, size, path, &root))
}

#[derive(Clone, PartialEq, Message)]
struct CountsRow {
    #[prost(message, repeated, tag = "1")]
    counts: Vec<CategoryCount>,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(int64, tag = "3")]
    time_us: i64,
    #[prost(uint64, tag = "4")]
    next_number: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::EventRecorded;
    use crate::proof::inclusion;

    fn recorded(category: &str) -> Event {
        let kind = EventRecorded { category: category.into(), ..EventRecorded::default() };
        Event { kind: Some(Kind::EventRecorded(kind)), ..Event::default() }
    }

    fn counts() -> CategoryCounts {
        let mut counts = CategoryCounts::default();
        for category in ["login", "error", "login"] {
            counts.note(&recorded(category));
        }
        let page = UsePage { count: 5, accesses: Some(2), ..UsePage::default() };
        counts.note(&Event { kind: Some(Kind::UsePage(page)), ..Event::default() });
        counts
    }

    #[test]
    fn each_entry_and_each_use_counts_once_in_its_category() {
        let all: Vec<(String, u64)> = counts().iter().map(|(c, n)| (c.to_string(), n)).collect();
        let expected = [("error", 1), (ACCESS, 2), (USE, 3), ("login", 2)];
        assert_eq!(all, expected.map(|(c, n)| (c.to_string(), n)));
        assert_eq!(CategoryCounts::decode(&counts().encode()), Some(counts()));
    }

    #[test]
    fn counts_that_were_changed_left_out_or_told_twice_are_not_those_that_were_signed() {
        let (counts, good) = (counts(), counts().salted(&[7; 32]));
        assert!(counts.are(&good));
        let signed = CategoryCounted { categories: 4, root: root(&good).to_vec(), number: 0 };
        let read = |counts: Vec<CountRecord>| {
            read_counts(&signed, &CountColumn { counts }.encode_to_vec())
        };
        assert_eq!(read(good.clone()), Some(good.clone()));
        assert_eq!(read(good[1..].to_vec()), None);
        assert!(!counts.are(&good[1..]));
        assert!(!counts.are(&[&good[..], &good[..1]].concat()));
        let mut changed = good.clone();
        changed[0].count = CategoryCount { category: "error".into(), count: 77 }.encode_to_vec();
        assert!(!counts.are(&changed));
        assert_eq!(read(changed), None);
    }

    #[test]
    fn a_single_count_is_proved_without_the_others() {
        let all = counts().salted(&[7; 32]);
        let signed = CategoryCounted { categories: 4, root: root(&all).to_vec(), number: 0 };
        let leaves: Vec<Hash> = all.iter().map(leaf).collect();
        for (index, record) in all.iter().enumerate() {
            let path = inclusion(&leaves, index as u64).expect("it is one of them");
            assert!(check_count(&signed, record, index as u64, &path));
            let other = CategoryCount { category: "login".into(), count: 99 };
            let other = CountRecord { count: other.encode_to_vec(), ..record.clone() };
            assert!(!check_count(&signed, &other, index as u64, &path));
        }
    }

    #[test]
    fn counts_are_told_at_most_once_a_minute_and_only_if_there_is_something_new() {
        let mut counts = counts();
        assert!(counts.is_due(5, Time(0)));
        counts.tell(5, Time(1_000));
        assert!(!counts.is_due(6, Time(1_000 + COUNT_INTERVAL)));
        assert!(!counts.is_due(7, Time(999 + COUNT_INTERVAL)));
        assert!(counts.is_due(7, Time(1_000 + COUNT_INTERVAL)));
    }
}
