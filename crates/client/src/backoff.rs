//! How long to wait before a repeat: twice as long each time, with jitter, and never less than the server asks for.

use std::time::Duration;

/// The wait before the first repeat.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait, unless the server asks for more.
const LONGEST: Duration = Duration::from_secs(30);
/// What the server asks for is believed up to this.
const MOST_ASKED: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure. `random` is uniform over all of `u32`.
    pub(crate) fn next(&mut self, asked: Option<Duration>, random: u32) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        // Between half and all of it: those who failed together don't come back together.
        let jittered = doubled.mul_f64(0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0);
        match asked {
            Some(asked) => asked.min(MOST_ASKED) + jittered.min(asked),
            None => jittered,
        }
    }
}

/// For jitter. Without a source of randomness there is none.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_the_server_is_believed() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..12).map(|_| backoff.next(None, u32::MAX).as_millis()).collect();
        assert_eq!(waits[..4], [50, 100, 200, 400]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(Backoff::default().next(None, 0), Duration::from_millis(25));
        let asked = Some(Duration::from_secs(7));
        assert!(Backoff::default().next(asked, 0) >= Duration::from_secs(7));
        let absurd = Some(Duration::from_secs(1 << 40));
        assert!(backoff.next(absurd, u32::MAX) <= Duration::from_secs(600));
    }
}
