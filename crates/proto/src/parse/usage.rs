//! What is asked of GetKeyUsage and GetUsage.

use std::ops::Range;

use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::usage::{Span, hour_of};

use super::changes::parse_owner;
use super::event_counts::hour;
use super::{OwnerName, Violation, Violations, parse_key_id};
use crate::{GetKeyUsageRequest, GetUsageRequest, UsageInterval};

/// Most steps of one answer.
const MAX_STEPS: i64 = 1_000;
/// How much is told if nobody says from when.
const DAYS: i64 = 30;
const HOURS: i64 = 48;

/// A time in steps, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    start: Option<i64>,
    end: Option<i64>,
    pub step: Span,
}

pub struct KeyUsage {
    pub key_id: KeyId,
    pub period: Period,
}

pub struct LedgerUsage {
    pub owner: Option<OwnerName>,
    pub period: Period,
}

pub fn get_key_usage(r: GetKeyUsageRequest) -> Result<KeyUsage, Vec<Violation>> {
    let mut v = Violations::default();
    let key_id = parse_key_id(&mut v, "key_id", &r.key_id);
    let period = Period::parse(&mut v, r.start_time, r.end_time, r.interval);
    v.finish(key_id.zip(period).map(|(key_id, period)| KeyUsage { key_id, period }))
}

pub fn get_usage(r: GetUsageRequest) -> Result<LedgerUsage, Vec<Violation>> {
    let mut v = Violations::default();
    let owner = r.owner.and_then(|owner| parse_owner(&mut v, "owner", Some(owner)));
    let period = Period::parse(&mut v, r.start_time, r.end_time, r.interval);
    v.finish(period.map(|period| LedgerUsage { owner, period }))
}

impl Period {
    fn parse(
        v: &mut Violations,
        start: Option<prost_types::Timestamp>,
        end: Option<prost_types::Timestamp>,
        interval: i32,
    ) -> Option<Period> {
        let step = match UsageInterval::try_from(interval) {
            Ok(UsageInterval::Unspecified | UsageInterval::Day) => Span::Day,
            Ok(UsageInterval::Hour) => Span::Hour,
            Err(_) => {
                v.add("interval", "must be one of the named intervals");
                return None;
            }
        };
        let start = start.map(|t| hour(v, "start_time", t));
        let end = end.map(|t| hour(v, "end_time", t));
        Some(Period { start, end, step })
    }

    /// The hours that are meant, at a time.
    pub fn hours(&self, now: Time) -> Result<Range<i64>, Vec<Violation>> {
        let end = self.end.unwrap_or(hour_of(now) + 1);
        let start = self.start.unwrap_or_else(|| match self.step {
            Span::Hour => (end - HOURS).max(0),
            Span::Day => (Span::Day.start(end - 1) - (DAYS - 1) * Span::Day as i64).max(0),
        });
        let mut v = Violations::default();
        if self.start.is_some_and(|start| start > hour_of(now)) {
            v.add("start_time", "must not be in the future");
        } else if start >= end {
            v.add("start_time", "must be before end_time, which is now if it isn't given");
        }
        let steps = (self.step.start(end - 1) - self.step.start(start)) / self.step as i64 + 1;
        if steps > MAX_STEPS {
            let most =
                format!("must be at most {MAX_STEPS} steps before end_time: these are {steps}");
            v.add("start_time", most);
        }
        v.finish(Some(start..end))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    const HOUR: i64 = 3_600;
    /// 2026-11-22 00:00:00 UTC, in hours since 1970.
    const MIDNIGHT: i64 = 498_696;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn hours(
        start: Option<i64>,
        end: Option<i64>,
        interval: UsageInterval,
    ) -> Result<Range<i64>, Vec<Violation>> {
        let time = |hour: i64| Timestamp { seconds: hour * HOUR, nanos: 0 };
        let request = GetUsageRequest {
            owner: None,
            start_time: start.map(time),
            end_time: end.map(time),
            interval: interval as i32,
        };
        let now = Time((MIDNIGHT * HOUR + 1_800) * Time::MICROS_PER_SECOND);
        get_usage(request)?.period.hours(now)
    }

    #[test]
    fn by_default_it_is_the_last_thirty_days_or_two_days_by_the_hour() {
        use UsageInterval::{Day, Hour, Unspecified};
        let month = MIDNIGHT - 29 * 24..MIDNIGHT + 1;
        assert_eq!(hours(None, None, Unspecified), Ok(month.clone()));
        assert_eq!(hours(None, None, Day), Ok(month));
        assert_eq!(hours(None, None, Hour), Ok(MIDNIGHT - 47..MIDNIGHT + 1));
        assert_eq!(hours(None, Some(10), Hour), Ok(0..10));
        assert_eq!(hours(Some(7), Some(9), Day), Ok(7..9));
    }

    #[test]
    fn a_time_has_a_beginning_before_its_end_and_at_most_a_thousand_steps() {
        use UsageInterval::{Day, Hour};
        let refused = |result: Result<Range<i64>, Vec<Violation>>| {
            result.unwrap_err().into_iter().map(|v| (v.field, v.description)).collect::<Vec<_>>()
        };
        assert_eq!(hours(Some(0), Some(1_000), Hour), Ok(0..1_000));
        assert_eq!(
            refused(hours(Some(0), Some(1_001), Hour)),
            [(
                "start_time".into(),
                "must be at most 1000 steps before end_time: these are 1001".into()
            )]
        );
        assert_eq!(hours(Some(23), Some(23 + 999 * 24), Day), Ok(23..23_999));
        // The first and the last day are touched only.
        assert_eq!(refused(hours(Some(23), Some(25 + 999 * 24), Day))[0].0, "start_time");
        for (start, end) in [(5, 5), (6, 5)] {
            let refused = refused(hours(Some(start), Some(end), Day));
            assert_eq!(refused[0].0, "start_time");
            assert_eq!(refused.len(), 1);
        }
        for end in [None, Some(MIDNIGHT + 9)] {
            let refused = refused(hours(Some(MIDNIGHT + 1), end, Day));
            assert_eq!(refused, [("start_time".into(), "must not be in the future".into())]);
        }
        assert_eq!(refused(hours(None, Some(0), Day))[0].0, "start_time");
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let fields = |r: GetKeyUsageRequest| -> Vec<String> {
            get_key_usage(r).err().unwrap_or_default().into_iter().map(|v| v.field).collect()
        };
        let request = GetKeyUsageRequest {
            key_id: "x".into(),
            start_time: at(1),
            end_time: at(-HOUR),
            interval: 0,
        };
        assert_eq!(fields(request.clone()), ["key_id", "start_time", "end_time"]);
        let request = GetKeyUsageRequest { interval: 9, ..request };
        assert_eq!(fields(request), ["key_id", "interval"]);
        let forever = Timestamp { seconds: i64::MAX, nanos: 0 };
        let owner = Some(crate::Owner { owner: None });
        let request = GetUsageRequest { owner, end_time: Some(forever), ..Default::default() };
        let fields: Vec<String> =
            get_usage(request).err().unwrap().into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["owner", "end_time"]);
    }
}
