//! Usage as it is told.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use keyledger_ledger::body::DecisionReason;
use keyledger_ledger::id::Time;
use keyledger_ledger::refusals::Network;
use keyledger_ledger::usage::{Dimension, Span, Tally, Usage, Values};

use super::timestamp;
use crate::{UsageBreakdown, UsageCount, UsageInterval, UsageStep};

const HOUR: i64 = 3_600 * Time::MICROS_PER_SECOND;

/// The usage of some hours since 1970, in steps.
pub fn usage(usage: &Usage, hours: &Range<i64>, step: Span) -> crate::Usage {
    let time = |hour: i64| Some(timestamp(Time(hour.saturating_mul(HOUR))));
    let mut steps: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for (hour, tally) in usage.hours.range(hours.clone()) {
        let (allowed, refused) = steps.entry(step.start(*hour)).or_default();
        (*allowed, *refused) = (*allowed + tally.allowed, *refused + tally.refused);
    }
    let step_of =
        |(start, (allowed, refused))| UsageStep { start_time: time(start), allowed, refused };
    let by = |dimension: Dimension, text: fn(&[u8]) -> String| {
        Some(breakdown(usage.values(dimension), text))
    };
    crate::Usage {
        start_time: time(hours.start),
        end_time: time(hours.end),
        interval: match step {
            Span::Hour => UsageInterval::Hour,
            Span::Day => UsageInterval::Day,
        } as i32,
        allowed: usage.total.allowed,
        refused: usage.total.refused,
        first_use_time: usage.first.map(timestamp),
        last_use_time: usage.last.map(timestamp),
        steps: steps.into_iter().map(step_of).collect(),
        by_permission: by(Dimension::Permission, text),
        by_resource: by(Dimension::Resource, text),
        by_network: by(Dimension::Network, |value| value.try_into().map_or(String::new(), network)),
        by_version: by(Dimension::Version, version),
        by_reason: by(Dimension::Reason, reason),
    }
}

fn breakdown(values: &Values, text: fn(&[u8]) -> String) -> UsageBreakdown {
    let count = |(value, tally): (&Vec<u8>, &Tally)| UsageCount {
        value: text(value),
        allowed: tally.allowed,
        refused: tally.refused,
    };
    let mut counts: Vec<UsageCount> = values.told.iter().map(count).collect();
    // They come in the order of their names: so do those that are equally frequent.
    counts.sort_by_key(|count| Reverse(count.allowed + count.refused));
    UsageBreakdown {
        counts,
        other_allowed: values.others.allowed,
        other_refused: values.others.refused,
    }
}

/// `203.0.113.0/24` or `2001:db8:7::/48`; empty if it isn't known.
pub fn network(network: Network) -> String {
    match network {
        [4, a, b, c, ..] => format!("{}/24", Ipv4Addr::new(a, b, c, 0)),
        [6, a, b, c, d, e, f] => {
            let [first, second, third] = [[a, b], [c, d], [e, f]].map(u16::from_be_bytes);
            format!("{}/48", Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0))
        }
        _ => String::new(),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn version(value: &[u8]) -> String {
    let version = value.try_into().map_or(0, u32::from_be_bytes);
    if version == 0 { String::new() } else { version.to_string() }
}

fn reason(value: &[u8]) -> String {
    let reason = value.try_into().map_or(0, i32::from_be_bytes);
    DecisionReason::try_from(reason).unwrap_or_default().as_str_name().into()
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::refusals::network_of;

    use super::*;

    #[test]
    fn a_network_is_written_as_people_write_it() {
        let written = |address: &str| network(network_of(address.parse().ok()));
        assert_eq!(written("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(written("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(written("2001:db8:7:9::1"), "2001:db8:7::/48");
        assert_eq!(written("nowhere"), "");
    }
}
