//! How long a call may take: as its caller says, within our own bound.

use std::time::Duration;

use http::HeaderMap;

/// How long a call may take whose caller sets no deadline.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// The caller's deadline less a little, so that our answer comes before its own.
pub(super) fn deadline(headers: &HeaderMap) -> Duration {
    let Some(asked) =
        headers.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse_timeout)
    else {
        return DEFAULT_DEADLINE;
    };
    let margin = (asked / 10).clamp(Duration::from_millis(5), Duration::from_millis(250));
    asked.saturating_sub(margin).min(DEFAULT_DEADLINE)
}

/// gRPC over HTTP/2: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_grpc_writes_it() {
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("150m"), Some(Duration::from_millis(150)));
        for bad in ["", "S", "123456789S", "1x", "é", "-1S"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
