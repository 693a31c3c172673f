//! Refusals of callers: up to ten equal ones a second leave a use each. Further ones are counted, and answered only when
//! the next second's page holds their count: exact, durable, bounded, and a brake on whoever causes them.
//!
//! The record of those that are counted says from where the first of them came.
//!
//! Equal means: the same method, the same key (or else network), the same reason. Verdicts on keys that VerifyKey checks
//! are never folded: they are answers to a caller who may ask.

use core::net::IpAddr;
use std::collections::HashMap;

use crate::body::{Decision, DecisionReason, Use};
use crate::id::{KeyId, Time, Trace};
use crate::text::Sealed;

/// Equal refusals of one second that leave a use each.
pub const EACH: u32 = 10;
/// Most groups that are told apart in one second; what comes beyond is counted by method and reason alone.
pub const MAX_GROUPS: usize = 1_024;
/// Most records of one second: the groups, and one for each method and reason beyond them.
pub const MAX_RECORDS: usize = MAX_GROUPS + 512;
/// Most trace and span ids that a folded record names.
pub const MAX_TRACES: usize = 16;

/// What makes refusals equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    pub method: &'static str,
    pub who: Who,
    pub reason: DecisionReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    Key(KeyId),
    Network(Network),
    /// Too many to be told apart.
    Many,
}

/// The first bits of an address: 24 of IPv4, 48 of IPv6. Never stored.
pub type Network = [u8; 7];

/// The network of an address, as far as equal refusals are told apart.
pub fn network_of(address: Option<IpAddr>) -> Network {
    match address.map(|a| a.to_canonical()) {
        None => [0; 7],
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, _] = v4.octets();
            [4, a, b, c, 0, 0, 0]
        }
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, e, f, ..] = v6.octets();
            [6, a, b, c, d, e, f]
        }
    }
}

/// Counts of the running second, and of those before that no page holds yet.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    second: i64,
    seen: HashMap<Group, u32>,
    folded: HashMap<Group, Folded>,
}

#[derive(Clone, Debug)]
struct Folded {
    count: u32,
    first: Time,
    last: Time,
    traces: Vec<Vec<u8>>,
    /// What the first of them says of whoever called: from where.
    texts: Vec<Sealed>,
}

impl Refusals {
    /// Counts a refusal. Gives the caller's texts back if it leaves a use of its own.
    pub fn admit(
        &mut self,
        group: Group,
        now: Time,
        trace: Trace,
        texts: Vec<Sealed>,
    ) -> Option<Vec<Sealed>> {
        let group = self.told_apart(group);
        let seen = self.seen.entry(group.clone()).or_default();
        *seen = seen.saturating_add(1);
        if *seen <= EACH {
            return Some(texts);
        }
        // Of very many nobody is one; and the first texts are those about whoever called.
        let first = if group.who == Who::Many { 0 } else { 1 };
        let texts = texts.into_iter().take(first).collect();
        let new = Folded { count: 0, first: now, last: now, traces: vec![], texts };
        let folded = self.folded.entry(group).or_insert(new);
        folded.count = folded.count.saturating_add(1);
        folded.last = now;
        if folded.traces.len() < MAX_TRACES && trace != Trace::default() {
            folded.traces.push([trace.trace_id.as_slice(), &trace.span_id].concat());
        }
        None
    }

    /// Begins the second of `now`, if it is a new one: returns a record for each group of the seconds before.
    pub fn begin(&mut self, now: Time) -> Vec<(Use, Vec<Sealed>)> {
        let second = now.micros().div_euclid(Time::MICROS_PER_SECOND);
        if second == self.second {
            return vec![];
        }
        self.second = second;
        self.seen.clear();
        let mut records: Vec<(Use, Vec<Sealed>)> =
            self.folded.drain().map(|(group, folded)| record(group, folded)).collect();
        // A HashMap has no order; what is signed should have one.
        records.sort_by(|(a, _), (b, _)| {
            (&a.method, &a.key_id, a.reason).cmp(&(&b.method, &b.key_id, b.reason))
        });
        records
    }

    /// The second that is counted now, since 1970-01-01 UTC.
    pub fn second(&self) -> i64 {
        self.second
    }

    /// Whether something waits for the next second's page.
    pub fn has_folded(&self) -> bool {
        !self.folded.is_empty()
    }

    fn told_apart(&self, group: Group) -> Group {
        if self.seen.len() < MAX_GROUPS || self.seen.contains_key(&group) {
            group
        } else {
            Group { who: Who::Many, ..group }
        }
    }
}

fn record(group: Group, folded: Folded) -> (Use, Vec<Sealed>) {
    let r#use = Use {
        key_id: match group.who {
            Who::Key(id) => id.as_bytes().to_vec(),
            Who::Network(_) | Who::Many => vec![],
        },
        method: group.method.into(),
        decision: Decision::Deny as i32,
        reason: group.reason as i32,
        count: folded.count,
        first_time_us: folded.first.micros(),
        last_time_us: folded.last.micros(),
        traces: folded.traces,
        ..Use::default()
    };
    (r#use, folded.texts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(who: Who) -> Group {
        Group { method: "KeyService/WhoAmI", who, reason: DecisionReason::WrongSecret }
    }

    fn counted(records: &[(Use, Vec<Sealed>)]) -> u64 {
        records.iter().map(|(u, _)| u64::from(u.count)).sum()
    }

    /// Texts that say that one came from somewhere.
    fn from(place: u8) -> Vec<Sealed> {
        vec![Sealed { subject_ref: [place; 16], commitment: [0; 32], bytes: vec![] }]
    }

    proptest! {
        #[test]
        fn every_refusal_is_counted_exactly_once(
            steps in prop::collection::vec((0u8..3, 0i64..400_000), 0..400),
        ) {
            let mut refusals = Refusals::default();
            let (mut own, mut folded, mut now) = (0u64, 0u64, Time(1));
            for (network, pause) in &steps {
                now = now.plus_micros(*pause);
                folded += counted(&refusals.begin(now));
                let who = Who::Network([*network, 0, 0, 0, 0, 0, 0]);
                own += u64::from(refusals.admit(group(who), now, Trace::default(), vec![]).is_some());
            }
            folded += counted(&refusals.begin(now.plus_micros(1_000_000)));
            prop_assert_eq!(own + folded, steps.len() as u64);
            prop_assert!(!refusals.has_folded());
        }
    }

    #[test]
    fn ten_a_second_leave_a_use_each_and_the_rest_one_record() {
        let mut refusals = Refusals::default();
        refusals.begin(Time(0));
        let trace = Trace { trace_id: [1; 16], span_id: [2; 8] };
        let who = Who::Network([4, 192, 0, 2, 0, 0, 0]);
        let own = (0..100)
            .filter(|i| refusals.admit(group(who), Time(*i), trace, from(*i as u8)).is_some());
        assert_eq!(own.count(), 10);
        let records = refusals.begin(Time(1_000_000));
        assert_eq!(records.len(), 1);
        assert_eq!(
            (records[0].0.count, records[0].0.first_time_us, records[0].0.last_time_us),
            (90, 10, 99)
        );
        assert_eq!(records[0].0.traces.len(), MAX_TRACES);
        assert_eq!(records[0].1[0].subject_ref, [10; 16], "where the first of them came from");
    }

    #[test]
    fn a_million_networks_are_told_apart_only_up_to_a_bound() {
        let mut refusals = Refusals::default();
        refusals.begin(Time(0));
        let mut own = 0;
        for n in 0..1_000_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            let who = Who::Network([a, b, c, d, 0, 0, 0]);
            let admitted = refusals.admit(group(who), Time(5), Trace::default(), from(1));
            own += u64::from(admitted.is_some());
        }
        let records = refusals.begin(Time(2_000_000));
        assert_eq!(records.len(), 1);
        assert_eq!(own + u64::from(records[0].0.count), 1_000_000);
        assert!(records[0].1.is_empty(), "of very many nobody is one");
    }
}
