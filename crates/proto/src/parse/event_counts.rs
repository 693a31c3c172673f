//! What is asked of CountEvents.

use std::ops::Range;

use keyledger_ledger::facets::Dimension;

use super::{Violation, Violations, micros};
use crate::{CountEventsRequest, EventGroup};

const HOUR_US: i64 = 3_600 * 1_000_000;
/// Most hours of which each is told.
const MAX_HOURS: i64 = 31 * 24;
/// No time that a message can hold comes later, in hours since 1970.
const END_OF_TIME: i64 = i64::MAX / HOUR_US;

/// By what events are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Category,
    Value(Dimension),
    Hour,
}

pub struct CountEvents {
    pub category: String,
    /// Whole hours since 1970.
    pub hours: Range<i64>,
    pub group: Group,
}

pub fn count_events(r: CountEventsRequest) -> Result<CountEvents, Vec<Violation>> {
    super::category(&r.category)?;
    let mut v = Violations::default();
    let group = match EventGroup::try_from(r.group_by) {
        Ok(EventGroup::Unspecified | EventGroup::Category) => Some(Group::Category),
        Ok(EventGroup::Outcome) => Some(Group::Value(Dimension::Outcome)),
        Ok(EventGroup::Severity) => Some(Group::Value(Dimension::Severity)),
        Ok(EventGroup::Action) => Some(Group::Value(Dimension::Action)),
        Ok(EventGroup::Hour) => Some(Group::Hour),
        Err(_) => {
            v.add("group_by", "must be one of the named groups");
            None
        }
    };
    let bounded = r.start_time.is_some() && r.end_time.is_some();
    let start = r.start_time.map_or(0, |t| hour(&mut v, "start_time", t));
    let end = r.end_time.map_or(END_OF_TIME, |t| hour(&mut v, "end_time", t));
    if group == Some(Group::Hour) && (!bounded || end.saturating_sub(start) > MAX_HOURS) {
        v.add("start_time", "must be given, at most 31 days before end_time, to count by hour");
    }
    let hours = start..end.max(start);
    v.finish(group.map(|group| CountEvents { category: r.category, hours, group }))
}

/// Whole hours since 1970.
pub(super) fn hour(v: &mut Violations, field: &str, time: prost_types::Timestamp) -> i64 {
    let micros = micros(time.seconds, time.nanos).filter(|m| *m >= 0 && m % HOUR_US == 0);
    if micros.is_none() || time.nanos != 0 {
        v.add(field, "must be a whole hour, UTC, after 1970");
    }
    micros.unwrap_or_default() / HOUR_US
}

#[cfg(test)]
mod tests {
    use keyledger_ledger::body::{Outcome, Severity};
    use keyledger_ledger::facets::{outcome_name, severity_name};

    use super::*;

    fn fields(request: CountEventsRequest) -> Vec<String> {
        count_events(request).err().unwrap_or_default().into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn times_are_whole_hours_and_hours_are_counted_over_a_month_at_most() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let by_hour = |start_time, end_time| CountEventsRequest {
            start_time,
            end_time,
            group_by: EventGroup::Hour as i32,
            ..Default::default()
        };
        assert!(fields(CountEventsRequest::default()).is_empty());
        assert!(fields(by_hour(at(3_600), at(3_600 + 31 * 86_400))).is_empty());
        assert_eq!(fields(by_hour(at(0), at(3_600 + 31 * 86_400))), ["start_time"]);
        assert_eq!(fields(by_hour(None, at(3_600))), ["start_time"]);
        assert_eq!(fields(by_hour(at(0), at(3_601))), ["end_time"]);
        let request = CountEventsRequest { group_by: 77, ..Default::default() };
        assert_eq!(fields(request), ["group_by"]);
    }

    #[test]
    fn counted_values_have_the_names_of_the_published_proto() {
        let names = |of: &str| -> Vec<(i32, String)> {
            let values = crate::methods::pool().get_enum_by_name(of).unwrap();
            values.values().map(|v| (v.number(), v.name().to_string())).collect()
        };
        for (number, name) in names("keyledger.entry.v1.Outcome") {
            assert_eq!(outcome_name(Outcome::try_from(number).unwrap()), name);
        }
        for (number, name) in names("keyledger.entry.v1.Severity") {
            assert_eq!(severity_name(Severity::try_from(number).unwrap()), name);
        }
    }
}
