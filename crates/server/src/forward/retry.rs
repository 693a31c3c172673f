//! When a forwarder tries again: each time about twice as long after a failure as before, up to a cap, at a random moment of the
//! second half, so that many that failed together don't come back together.

use std::time::{Duration, SystemTime};

/// The longest wait of all.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// How long to wait after a number of failures in a row. What the receiver asks for is kept to, up to the cap. `random` is any
/// number.
pub(super) fn wait(
    failures: u32,
    initial: Duration,
    cap: Duration,
    asked: Option<Duration>,
    random: u64,
) -> Duration {
    let cap = cap.min(LONGEST);
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = initial.saturating_mul(doubled).min(cap);
    let half = whole / 2;
    let jitter = half.mul_f64(random as f64 / u64::MAX as f64);
    (half + jitter).max(asked.unwrap_or_default()).min(cap)
}

/// The header `Retry-After` (RFC 9110 §10.2.3): seconds, or a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_cap_and_lie_in_the_second_half() {
        for (failures, whole) in
            [(1, 1), (2, 2), (3, 4), (5, 16), (9, 256), (10, 300), (33, 300), (u32::MAX, 300)]
        {
            let whole = SECOND * whole;
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let wait = wait(failures, SECOND, LONGEST * 10, None, random);
                assert!(wait >= whole / 2 && wait <= whole, "{failures} {random}: {wait:?}");
            }
            assert_eq!(wait(failures, SECOND, LONGEST, None, 0), whole / 2);
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_and_never_more_than_the_cap() {
        let asked = |seconds| wait(1, SECOND, SECOND * 60, Some(SECOND * seconds), 0);
        assert_eq!(asked(0), SECOND / 2);
        assert_eq!(asked(30), SECOND * 30);
        assert_eq!(asked(u32::MAX), SECOND * 60);
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_nonsense_is_nothing() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(" 120 ", now), Some(SECOND * 120));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(SECOND * 60));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:48:37 GMT", now), None, "it is over");
        for nonsense in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
