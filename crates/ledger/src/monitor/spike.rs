//! What is usual for an hour, by a subject's own history.
//!
//! The values of an hour are those of the same hour of the week in the last 8 weeks, with the hour before and after; hours before
//! the first use are left out. Where these are fewer than [`SPIKE_FEWEST_VALUES`], it is the same hours of all days of the last four
//! weeks. Their median, and the median of their distances from it (MAD), say what is usual; medians, because a few hours that
//! were unusual don't move them.
//!
//! Beside it stand its days: the busiest hour of its busiest days in the last 8 weeks (of every 14 days in use the busiest left out),
//! and of a usual one (the median of the days in use). Who wasn't used in these weeks at all has nothing to compare with: that is
//! LONG_SILENCE's.

use super::known::{HOURS_OF_WEEK, Known, WEEKS, hour_of};
use super::rules::{
    HOUR, SPIKE_BEYOND_PERCENT, SPIKE_DAYS_PER_ACCIDENT, SPIKE_FEWEST_DAYS, SPIKE_FEWEST_VALUES,
    SPIKE_FLOOR, SPIKE_LEAST_SPREAD, SPIKE_MOST_PERCENT, SPIKE_WARM_UP,
};

/// What is usual for one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usual {
    pub(super) median: u64,
    pub(super) mad: u64,
    /// The busiest hour of its busiest days, and how many percent of it are still no spike.
    pub(super) peak: u64,
    pub(super) percent: u64,
}

impl Usual {
    /// More uses than this are a spike.
    pub(super) fn most(self, spreads: u64) -> u64 {
        // 1.4826: the MAD of normal values is so much smaller than their standard deviation.
        let spread = (self.mad.saturating_mul(14_826) / 10_000)
            .max(self.median / SPIKE_LEAST_SPREAD)
            .max(self.median.isqrt());
        let above = self.median.saturating_add(spread.saturating_mul(spreads));
        let peak = self.peak.saturating_mul(self.percent) / 100;
        above.max(peak).max(SPIKE_FLOOR)
    }
}

impl Known {
    /// What is usual for an hour; `None` while too little is known.
    pub(super) fn usual(&mut self, hour: i64) -> Option<Usual> {
        if let Some((measured, usual)) = self.measured
            && measured == hour
        {
            return usual;
        }
        let usual = self.measure(hour);
        self.measured = Some((hour, usual));
        usual
    }

    fn measure(&self, hour: i64) -> Option<Usual> {
        let first = self.first.filter(|first| hour * HOUR - first.micros() >= SPIKE_WARM_UP)?;
        let mut values = self.values(hour, hour_of(first));
        let median = median(&mut values);
        values.iter_mut().for_each(|value| *value = value.abs_diff(median));
        let mad = self::median(&mut values);
        let (peak, percent) = self.peak(hour)?;
        Some(Usual { median, mad, peak, percent })
    }

    /// See above. Never empty after the warm-up.
    fn values(&self, hour: i64, first: i64) -> Vec<u64> {
        let around = |middle: i64| [middle - 1, middle, middle + 1];
        let known = |hours: &i64| *hours >= first;
        let week = HOURS_OF_WEEK as i64;
        let weekly = (1..=WEEKS as i64).flat_map(|back| around(hour - back * week)).filter(known);
        let values: Vec<u64> = weekly.map(|hour| self.hours.at(hour)).collect();
        if values.len() >= SPIKE_FEWEST_VALUES {
            return values;
        }
        let daily = (1..=28).flat_map(|back| around(hour - back * 24)).filter(known);
        daily.map(|hour| self.hours.at(hour)).collect()
    }

    /// Of the busiest days, and by how many percent more. `None` if there was no use.
    fn peak(&self, hour: i64) -> Option<(u64, u64)> {
        let today = hour.div_euclid(24);
        let busiest = |day: i64| (day * 24..day * 24 + 24).map(|hour| self.hours.at(hour)).max();
        let days = (1..=(WEEKS * 7) as i64).filter_map(|back| busiest(today - back));
        let mut peaks: Vec<u64> = days.filter(|peak| *peak > 0).collect();
        peaks.sort_unstable_by(|a, b| b.cmp(a));
        let peak = *peaks.get(peaks.len() / SPIKE_DAYS_PER_ACCIDENT)?;
        let percent = match peaks.len() < SPIKE_FEWEST_DAYS {
            true => SPIKE_MOST_PERCENT,
            false => peak.saturating_mul(SPIKE_BEYOND_PERCENT) / peaks[peaks.len() / 2],
        };
        Some((peak, percent.min(SPIKE_MOST_PERCENT)))
    }
}

/// The upper one of the two in the middle; 0 of none.
fn median(values: &mut [u64]) -> u64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
}
