//! Usage: how often a key, the keys of an owner, or a whole ledger was used, and for what. Rolled up behind the commit by the hour
//! and by the day, so that a year is answered as fast as a day.
//!
//! Whatever is told is exact. In each dimension the first 64 values, in the order of their bytes, are told apart, and all others
//! are counted together: so a value that is told after two usages were added up was told in both of them, and it doesn't
//! matter in which order they are added.

use std::collections::BTreeMap;

use prost::Message;

use crate::anomaly::Observation;
use crate::id::{KeyId, Time};
use crate::refusals::Network;
use crate::state::Owner;
use crate::terms::Term;

/// Most values of a dimension that are told apart.
pub const MAX_VALUES: usize = 64;

const HOUR: i64 = 3_600 * Time::MICROS_PER_SECOND;

/// Whole hours since 1970, of a time.
pub fn hour_of(time: Time) -> i64 {
    time.micros().div_euclid(HOUR)
}

/// Over how many hours is counted. The number stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Span {
    Hour = 1,
    Day = 24,
}

impl Span {
    pub const EACH: [Span; 2] = [Span::Hour, Span::Day];

    /// The first hour of the span in which an hour lies. Days are those of UTC.
    pub fn start(self, hour: i64) -> i64 {
        hour.div_euclid(self as i64) * self as i64
    }
}

/// What uses are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    Permission,
    Resource,
    /// Seven bytes, as of [`Network`]; none if it isn't known.
    Network,
    /// Four bytes, big-endian; 0 if it isn't known.
    Version,
    /// Four bytes, big-endian: the number of a [`crate::body::DecisionReason`].
    Reason,
}

impl Dimension {
    pub const EACH: [Dimension; 5] = [
        Dimension::Permission,
        Dimension::Resource,
        Dimension::Network,
        Dimension::Version,
        Dimension::Reason,
    ];
}

/// Uses that were allowed, and such that were refused.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Tally {
    #[prost(uint64, tag = "1")]
    pub allowed: u64,
    #[prost(uint64, tag = "2")]
    pub refused: u64,
}

impl Tally {
    fn of(observation: &Observation) -> Tally {
        let count = u64::from(observation.count);
        match observation.allowed {
            true => Tally { allowed: count, refused: 0 },
            false => Tally { allowed: 0, refused: count },
        }
    }

    pub fn all(self) -> u64 {
        self.allowed.saturating_add(self.refused)
    }

    fn add(&mut self, other: Tally) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

/// Uses by value, in one dimension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// The first of them, in the order of their bytes.
    pub told: BTreeMap<Vec<u8>, Tally>,
    /// All others together.
    pub others: Tally,
}

impl Values {
    fn add(&mut self, value: &[u8], tally: Tally) {
        if let Some(told) = self.told.get_mut(value) {
            return told.add(tally);
        }
        self.told.insert(value.to_vec(), tally);
        if self.told.len() > MAX_VALUES {
            let (_, last) = self.told.pop_last().expect("there are more than none");
            self.others.add(last);
        }
    }

    /// What either of them has not told comes after all that is told of both: so nothing is told in part.
    fn merge(&mut self, other: &Values) {
        for (value, tally) in &other.told {
            self.add(value, *tally);
        }
        self.others.add(other.others);
    }
}

/// How often something was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub total: Tally,
    pub first: Option<Time>,
    pub last: Option<Time>,
    /// By hours since 1970; those without any use are left out.
    pub hours: BTreeMap<i64, Tally>,
    values: [Values; Dimension::EACH.len()],
}

impl Usage {
    pub fn add(&mut self, observation: &Observation) {
        let Observation { time, .. } = *observation;
        let tally = Tally::of(observation);
        self.total.add(tally);
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        self.hours.entry(hour_of(time)).or_default().add(tally);
        let version = observation.key.map_or(0, |(_, version)| version).to_be_bytes();
        let reason = (observation.reason as i32).to_be_bytes();
        let network = observation.network.as_ref().map_or(&[][..], Network::as_slice);
        for (dimension, value) in [
            (Dimension::Permission, observation.permission.as_bytes()),
            (Dimension::Resource, observation.resource.as_bytes()),
            (Dimension::Network, network),
            (Dimension::Version, &version),
            (Dimension::Reason, &reason),
        ] {
            self.values[dimension as usize].add(value, tally);
        }
    }

    pub fn merge(&mut self, other: &Usage) {
        self.total.add(other.total);
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        for (hour, tally) in &other.hours {
            self.hours.entry(*hour).or_default().add(*tally);
        }
        for (own, others) in self.values.iter_mut().zip(&other.values) {
            own.merge(others);
        }
    }

    pub fn values(&self, dimension: Dimension) -> &Values {
        &self.values[dimension as usize]
    }

    /// Where it was used from, as far as that is known.
    pub fn networks(&self) -> impl Iterator<Item = Network> {
        let told = self.values(Dimension::Network).told.keys();
        told.filter_map(|value| Network::try_from(value.as_slice()).ok())
    }

    /// As it lies in the database.
    pub fn encode(&self) -> Vec<u8> {
        let hours =
            self.hours.iter().map(|(hour, uses)| PackedHour { hour: *hour, uses: Some(*uses) });
        let packed = Packed {
            total: Some(self.total),
            first_us: self.first.map(Time::micros),
            last_us: self.last.map(Time::micros),
            hours: hours.collect(),
            values: self.values.iter().map(PackedValues::of).collect(),
        };
        packed.encode_to_vec()
    }

    /// `None`: these are no bytes of [`Usage::encode`].
    pub fn decode(bytes: &[u8]) -> Option<Usage> {
        let mut usage = Usage::default();
        usage.merge_packed(bytes)?;
        Some(usage)
    }

    /// Merges what [`Usage::encode`] gave, without unpacking it first: a year is many days. `None`: nothing was merged.
    pub fn merge_packed(&mut self, bytes: &[u8]) -> Option<()> {
        let packed = Packed::decode(bytes).ok()?;
        if packed.values.len() != Dimension::EACH.len() {
            return None;
        }
        self.total.add(packed.total.unwrap_or_default());
        self.first = self.first.into_iter().chain(packed.first_us.map(Time)).min();
        self.last = self.last.max(packed.last_us.map(Time));
        for PackedHour { hour, uses } in packed.hours {
            self.hours.entry(hour).or_default().add(uses.unwrap_or_default());
        }
        for (own, packed) in self.values.iter_mut().zip(packed.values) {
            for PackedValue { value, uses } in packed.told {
                own.add(&value, uses.unwrap_or_default());
            }
            own.others.add(packed.others.unwrap_or_default());
        }
        Some(())
    }
}

#[derive(Clone, PartialEq, Message)]
struct Packed {
    #[prost(message, optional, tag = "1")]
    total: Option<Tally>,
    #[prost(int64, optional, tag = "2")]
    first_us: Option<i64>,
    #[prost(int64, optional, tag = "3")]
    last_us: Option<i64>,
    #[prost(message, repeated, tag = "4")]
    hours: Vec<PackedHour>,
    /// In the order of the dimensions.
    #[prost(message, repeated, tag = "5")]
    values: Vec<PackedValues>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedHour {
    #[prost(int64, tag = "1")]
    hour: i64,
    #[prost(message, optional, tag = "2")]
    uses: Option<Tally>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedValues {
    #[prost(message, repeated, tag = "1")]
    told: Vec<PackedValue>,
    #[prost(message, optional, tag = "2")]
    others: Option<Tally>,
}

#[derive(Clone, PartialEq, Message)]
struct PackedValue {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    uses: Option<Tally>,
}

impl PackedValues {
    fn of(values: &Values) -> PackedValues {
        let packed = |(value, uses): (&Vec<u8>, &Tally)| PackedValue {
            value: value.clone(),
            uses: Some(*uses),
        };
        let others = (values.others != Tally::default()).then_some(values.others);
        PackedValues { told: values.told.iter().map(packed).collect(), others }
    }
}

/// What usage is kept of. An owner's first key stands for its owner too: most owners have one key, and need no second meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meter([u8; 16]);

impl Meter {
    /// All uses in a ledger, also those of keys that nobody knows.
    pub const LEDGER: Meter = Meter([0; 16]);

    pub fn key(id: KeyId) -> Meter {
        Meter(*id.as_bytes())
    }

    /// All keys of an owner but the first one: a digest, which is no id of a key.
    pub fn further_keys_of(owner: &Owner) -> Meter {
        Meter(*Term::owner(owner).as_bytes())
    }

    /// As read back.
    pub fn from_bytes(bytes: [u8; 16]) -> Meter {
        Meter(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Whose usage, over how long, from which hour since 1970 on.
pub type Slot = (Meter, Span, i64);

/// What a run of observations adds to the usage of each meter, hour and day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added(pub BTreeMap<Slot, Usage>);

impl Added {
    /// `further` says whose key it is, if its owner has an earlier one. A key that the ledger doesn't know has no meter of its own.
    pub fn add(&mut self, observation: &Observation, key: Option<KeyId>, further: Option<&Owner>) {
        let hour = hour_of(observation.time);
        let own = key.map(Meter::key);
        let meters = [Some(Meter::LEDGER), own, further.map(Meter::further_keys_of)];
        for meter in meters.into_iter().flatten() {
            for span in Span::EACH {
                self.0.entry((meter, span, span.start(hour))).or_default().add(observation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::body::DecisionReason;

    fn observation() -> impl Strategy<Value = Observation> {
        let hours = 490_000i64..490_060;
        let network = prop::option::of((0u8..200).prop_map(|n| [4, n, 0, 0, 0, 0, 0]));
        let key = prop::option::of((0u8..4, 0u32..3));
        (hours, any::<bool>(), 1u32..9, 0u16..300, 0u16..100, network, key).prop_map(
            |(hour, allowed, count, permission, resource, network, key)| Observation {
                position: 7,
                time: Time(hour * HOUR + i64::from(permission)),
                key: key.map(|(id, version)| (KeyId::from_bytes([id + 1; 16]), version)),
                allowed,
                reason: if allowed { DecisionReason::Granted } else { DecisionReason::NoGrant },
                permission: format!("p.{permission}"),
                resource: format!("r/{resource}"),
                network,
                count,
            },
        )
    }

    fn usage(observations: &[Observation]) -> Usage {
        let mut usage = Usage::default();
        observations.iter().for_each(|o| usage.add(o));
        usage
    }

    fn merged(usages: &[&Usage]) -> Usage {
        let mut sum = Usage::default();
        usages.iter().for_each(|usage| sum.merge(usage));
        sum
    }

    fn sum<'a>(tallies: impl Iterator<Item = &'a Tally>) -> Tally {
        tallies.fold(Tally::default(), |mut sum, tally| {
            sum.add(*tally);
            sum
        })
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_order_and_in_how_many_parts_uses_are_added_up(
            a in prop::collection::vec(observation(), 0..200),
            b in prop::collection::vec(observation(), 0..200),
            c in prop::collection::vec(observation(), 0..200),
        ) {
            let (x, y, z) = (usage(&a), usage(&b), usage(&c));
            let whole = usage(&[a, b, c].concat());
            prop_assert_eq!(&merged(&[&merged(&[&x, &y]), &z]), &whole);
            prop_assert_eq!(&merged(&[&x, &merged(&[&y, &z])]), &whole);
            prop_assert_eq!(&merged(&[&z, &x, &y]), &whole);
        }

        #[test]
        fn every_use_is_in_the_total_in_its_hour_and_in_each_dimension(
            uses in prop::collection::vec(observation(), 0..300),
        ) {
            let usage = usage(&uses);
            let count = |allowed: bool| -> u64 {
                uses.iter().filter(|o| o.allowed == allowed).map(|o| u64::from(o.count)).sum()
            };
            let total = Tally { allowed: count(true), refused: count(false) };
            prop_assert_eq!(usage.total, total);
            prop_assert_eq!(sum(usage.hours.values()), total);
            for dimension in Dimension::EACH {
                let values = usage.values(dimension);
                prop_assert!(values.told.len() <= MAX_VALUES);
                prop_assert!(values.others == Tally::default() || values.told.len() == MAX_VALUES);
                prop_assert_eq!(sum(values.told.values().chain([&values.others])), total);
            }
            // Whatever is told is exact.
            for (value, tally) in &usage.values(Dimension::Permission).told {
                let alike: Vec<Tally> = uses.iter().filter(|o| o.permission.as_bytes() == value).map(Tally::of).collect();
                prop_assert_eq!(sum(alike.iter()), *tally);
            }
        }

        #[test]
        fn what_was_packed_is_read_back(uses in prop::collection::vec(observation(), 0..200)) {
            let usage = usage(&uses);
            prop_assert_eq!(Usage::decode(&usage.encode()), Some(usage.clone()));
            let mut twice = usage.clone();
            twice.merge_packed(&usage.encode()).unwrap();
            prop_assert_eq!(twice, merged(&[&usage, &usage]));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Usage::decode(&bytes);
        }

        #[test]
        fn a_day_is_the_sum_of_its_hours_and_a_ledger_that_of_its_keys(
            uses in prop::collection::vec(observation(), 0..200),
        ) {
            let mut added = Added::default();
            uses.iter().for_each(|o| added.add(o, o.key.map(|(id, _)| id), None));
            for ((meter, span, start), usage) in &added.0 {
                if *span == Span::Day {
                    let hours = (*start..start + 24).filter_map(|h| added.0.get(&(*meter, Span::Hour, h)));
                    prop_assert_eq!(&merged(&hours.collect::<Vec<_>>()), usage);
                }
                let of_keys = added.0.iter().filter(|((of, s, h), _)| *of != Meter::LEDGER && (s, h) == (span, start));
                let keys = sum(of_keys.map(|(_, usage)| &usage.total).collect::<Vec<_>>().into_iter());
                if *meter == Meter::LEDGER {
                    let unknown: Vec<Tally> = uses.iter()
                        .filter(|o| o.key.is_none() && span.start(hour_of(o.time)) == *start)
                        .map(Tally::of).collect();
                    prop_assert_eq!(sum([&keys].into_iter().chain(&unknown)), usage.total);
                }
            }
        }
    }

    #[test]
    fn an_empty_usage_is_that_of_no_bytes_of_ours() {
        assert_eq!(Usage::decode(&Usage::default().encode()), Some(Usage::default()));
        assert_eq!(Usage::decode(&[]), None, "each dimension is there, though it be empty");
    }

    #[test]
    fn days_begin_at_midnight_utc_also_before_1970() {
        assert_eq!(Span::Day.start(490_000), 489_984);
        assert_eq!(Span::Day.start(-1), -24);
        assert_eq!(Span::Hour.start(-1), -1);
        assert_eq!(hour_of(Time(-1)), -1);
    }
}
