//! Figures: of a turn, of a round, of a key count. Medians, since a shared machine has bad moments.

use serde::Serialize;

use crate::audit::Audit;
use crate::load::Turn;
use crate::options::Options;

/// The least ratio that Keyledger must reach, by number of keys.
const FLOORS: [(usize, f64); 2] = [(100, 0.55), (10_000, 0.45)];

/// What came of one key count.
#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) keys: usize,
    pub(crate) in_flight: u32,
    pub(crate) connections: u32,
    pub(crate) measured_secs: f64,
    pub(crate) rounds: Vec<Round>,
    /// Of each figure by itself.
    pub(crate) median: Round,
    /// The least ratio that is asked for, if one is.
    pub(crate) floor: Option<f64>,
    pub(crate) ledger: Audit,
}

/// A turn of each, one after the other.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Round {
    pub(crate) echo: Speed,
    pub(crate) keyledger: Speed,
    /// Calls a second of Keyledger by those of the echo.
    pub(crate) ratio: f64,
}

#[derive(Clone, Copy, Serialize)]
pub(crate) struct Speed {
    pub(crate) calls_per_sec: f64,
    pub(crate) p50_micros: u32,
    pub(crate) p99_micros: u32,
}

pub(crate) fn of(keys: usize, options: &Options, rounds: Vec<Round>, ledger: Audit) -> Figures {
    Figures {
        keys,
        in_flight: options.in_flight,
        connections: options.connections,
        measured_secs: options.measured().as_secs_f64(),
        median: Round {
            echo: Speed::median(rounds.iter().map(|r| r.echo)),
            keyledger: Speed::median(rounds.iter().map(|r| r.keyledger)),
            ratio: median(rounds.iter().map(|r| r.ratio)),
        },
        rounds,
        floor: FLOORS.iter().find(|(at, _)| *at == keys).map(|(_, floor)| *floor),
        ledger,
    }
}

impl Figures {
    /// Where nothing is asked for, anything reaches it.
    pub(crate) fn reaches_floor(&self) -> bool {
        self.floor.is_none_or(|floor| self.median.ratio >= floor)
    }
}

impl Round {
    pub(crate) fn of(echo: &Turn, keyledger: &Turn) -> Round {
        let (echo, keyledger) = (Speed::of(echo), Speed::of(keyledger));
        Round { echo, keyledger, ratio: keyledger.calls_per_sec / echo.calls_per_sec }
    }
}

impl Speed {
    pub(crate) fn of(turn: &Turn) -> Speed {
        Speed {
            calls_per_sec: turn.micros.len() as f64 / turn.measured.as_secs_f64(),
            p50_micros: percentile(&turn.micros, 50),
            p99_micros: percentile(&turn.micros, 99),
        }
    }

    pub(crate) fn median(speeds: impl Iterator<Item = Speed> + Clone) -> Speed {
        Speed {
            calls_per_sec: median(speeds.clone().map(|s| s.calls_per_sec)),
            p50_micros: median(speeds.clone().map(|s| f64::from(s.p50_micros))) as u32,
            p99_micros: median(speeds.map(|s| f64::from(s.p99_micros))) as u32,
        }
    }
}

/// Nearest rank, of numbers in order of size; 0 of none.
fn percentile(ordered: &[u32], percent: usize) -> u32 {
    let rank = (ordered.len() * percent).div_ceil(100);
    ordered.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_and_a_percentile_the_nearest_rank() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        let ordered: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&ordered, 50), 100);
        assert_eq!(percentile(&ordered, 99), 198);
        assert_eq!(percentile(&[7], 50), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
