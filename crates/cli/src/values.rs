//! Values as people type and read them: grants, durations, times, kinds of revocation.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::{Span, SpanRelativeTo, Timestamp};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::restrict::{Network, RestrictionError};
use keyledger_proto::entry;
use keyledger_proto::methods::short_names;
use uuid::Uuid;

const TO_HAND_ON: &str = " (to hand on only)";
const KINDS: &str = "keyledger.entry.v1.RevocationKind";

/// `audit.read,audit.write on logs/*`, as [`Grant`] prints it; ` (to hand on only)` at the end makes it give-only.
pub(crate) fn parse_grant(text: &str) -> Result<Grant, String> {
    let (text, give_only) = match text.strip_suffix(TO_HAND_ON) {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (permissions, resource) = text
        .rsplit_once(" on ")
        .ok_or("a grant is `<permission>[,<permission>…] on <resource>`, such as `audit.read on logs/error`")?;
    let permissions: Vec<String> = permissions.split(',').map(|p| p.trim().to_string()).collect();
    Grant::new(&permissions, resource.trim(), give_only).map_err(|e| e.to_string())
}

/// The same, for a grant that may be handed on and not used.
pub(crate) fn parse_give_grant(text: &str) -> Result<Grant, String> {
    let grant = entry::Grant { give_only: true, ..parse_grant(text)?.to_body() };
    Grant::from_body(&grant).map_err(|e| e.to_string())
}

/// `203.0.113.0/24`
pub(crate) fn parse_network(text: &str) -> Result<String, String> {
    let network: Network = text.parse().map_err(|e: RestrictionError| e.to_string())?;
    Ok(network.to_string())
}

/// `100/1m`
pub(crate) fn parse_rate(text: &str) -> Result<entry::Rate, String> {
    let form = "a rate is `<uses>/<duration>`, such as `100/1m`";
    let (uses, window) = text.split_once('/').ok_or(form)?;
    let window = parse_duration(window)?;
    let window_us = window.seconds.saturating_mul(1_000_000) + i64::from(window.nanos) / 1_000;
    Ok(entry::Rate { uses: uses.parse().map_err(|_| form)?, window_us })
}

/// A rate as people type it; what isn't a whole number of seconds is shown in microseconds.
pub(crate) fn show_rate(rate: &entry::Rate) -> String {
    match rate.window_us % 1_000_000 {
        0 => format!("{}/{}s", rate.uses, rate.window_us / 1_000_000),
        _ => format!("{}/{}us", rate.uses, rate.window_us),
    }
}

/// `team=billing`
pub(crate) fn parse_label(text: &str) -> Result<entry::Label, String> {
    let (name, value) = text.split_once('=').ok_or("a label is `<name>=<value>`")?;
    Ok(entry::Label { name: name.into(), value: value.into() })
}

/// `audit.read:logs/error`
pub(crate) fn parse_permission_on_resource(
    text: &str,
) -> Result<keyledger_proto::PermissionOnResource, String> {
    let form = "what a key can do is `<permission>:<resource>`, such as `audit.read:logs/error`";
    let (permission, resource) = text.split_once(':').ok_or(form)?;
    let (permission, resource) = (permission.into(), resource.into());
    Ok(keyledger_proto::PermissionOnResource { permission, resource })
}

/// `90d`, `12h`, `3600s`, `1h 30m`. A day has 24 hours.
pub(crate) fn parse_duration(text: &str) -> Result<prost_types::Duration, String> {
    let form = "a duration is a number with a unit: `90d`, `12h`, `30m`, `3600s`";
    let span: Span = text.parse().map_err(|_| form)?;
    let exact = SpanRelativeTo::days_are_24_hours();
    let duration =
        span.to_duration(exact).map_err(|_| "months and years have no fixed length: give days")?;
    if duration.is_negative() {
        return Err("a duration is not negative".into());
    }
    Ok(prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() })
}

/// As [`parse_duration`] reads it: in days, hours, minutes or seconds, whichever are whole.
pub(crate) fn show_duration(duration: &prost_types::Duration) -> String {
    let (seconds, nanos) = (duration.seconds, duration.nanos);
    match seconds {
        _ if nanos != 0 => format!("{}us", seconds * 1_000_000 + i64::from(nanos) / 1_000),
        0 => "0s".into(),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// A UUID, as keys are known by.
pub(crate) fn parse_key_id(text: &str) -> Result<Uuid, String> {
    let form = "a key is known by its UUID, such as `0198c5a0-0000-8000-8000-000000000001`: `keyledger keys list` shows it";
    text.parse().map_err(|_| form.into())
}

/// A position in the ledger.
pub(crate) fn parse_position(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a position is a whole number, such as `4711`".into())
}

/// RFC 3339 with an offset: `2027-01-01T00:00:00Z`.
pub(crate) fn parse_time(text: &str) -> Result<prost_types::Timestamp, String> {
    let form = "a time is RFC 3339 with an offset: `2027-01-01T00:00:00Z`";
    let time: Timestamp = text.parse().map_err(|_| form)?;
    Ok(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

/// The kinds of revocation that the proto names: `owner-left` and so on.
pub(crate) fn revocation_kinds() -> impl TypedValueParser<Value = i32> {
    names_of(KINDS)
}

/// What can be found to be tidied up: `key-unused` and so on.
pub(crate) fn finding_kinds() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.v1.FindingKind")
}

/// The states of a key that the proto names: `active` and so on.
pub(crate) fn key_states() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.v1.KeyState")
}

/// What can come of what another service records: `success` and so on.
pub(crate) fn outcomes() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.entry.v1.Outcome")
}

/// How grave an event can be: `low` and so on.
pub(crate) fn severities() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.entry.v1.Severity")
}

/// By what events are counted: `category` and so on.
pub(crate) fn event_groups() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.v1.EventGroup")
}

/// The rules by which unusual use is noticed: `spike` and so on.
pub(crate) fn monitoring_rules() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.entry.v1.MonitoringRule")
}

/// What unusual use can be found to be: `expected` and so on.
pub(crate) fn anomaly_verdicts() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.entry.v1.AnomalyVerdict")
}

/// Over how long uses are counted together: `hour` and `day`.
pub(crate) fn usage_intervals() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.v1.UsageInterval")
}

/// The verdicts: `allow` and `deny`.
pub(crate) fn decisions() -> impl TypedValueParser<Value = i32> {
    names_of("keyledger.entry.v1.Decision")
}

fn names_of(name: &'static str) -> impl TypedValueParser<Value = i32> {
    PossibleValuesParser::new(short_names(name).into_iter().map(|(name, _)| name)).map(
        move |text| {
            let chosen = short_names(name).into_iter().find(|(name, _)| *name == text);
            chosen.expect("clap lets only these names pass").1
        },
    )
}

/// RFC 3339 in UTC, to the microsecond as the ledger keeps it. What isn't a time is shown as its number.
pub(crate) fn show_time(time: &prost_types::Timestamp) -> String {
    show_precisely(time, 6)
}

/// The same, cut to the second, for lists.
pub(crate) fn show_second(time: &prost_types::Timestamp) -> String {
    show_precisely(time, 0)
}

/// Always so many digits, so that times stand under each other.
fn show_precisely(time: &prost_types::Timestamp, digits: usize) -> String {
    match Timestamp::new(time.seconds, time.nanos) {
        Ok(time) => format!("{time:.digits$}"),
        Err(_) => format!("{} s since 1970", time.seconds),
    }
}

/// A name of an enum as words: `OWNER_LEFT` becomes `owner left`.
pub(crate) fn words(name: &str) -> String {
    name.to_lowercase().replace('_', " ")
}

/// A grant as it came over the wire; one that is none is shown all the same.
pub(crate) fn show_grant(grant: &entry::Grant) -> String {
    let end = if grant.give_only { TO_HAND_ON } else { "" };
    format!("{} on {}{end}", grant.permissions.join(", "), grant.resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_permissions_on_a_resource() {
        let grant = parse_grant("audit.read, audit.write on logs/*").unwrap().to_body();
        assert_eq!(grant.permissions, ["audit.read", "audit.write"]);
        assert_eq!((grant.resource.as_str(), grant.give_only), ("logs/*", false));
        assert!(parse_give_grant("keys.* on **").unwrap().to_body().give_only);
        for bad in [
            "",
            "audit.read",
            "audit.read on",
            " on logs",
            "A.b on logs",
            "a.b on l ogs",
            "a on /",
            "a,,b on c",
        ] {
            assert!(parse_grant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grant_reads_as_it_is_printed() {
        for text in ["audit.read on logs/error", "a.b, c.* on **", "* on x/*/y (to hand on only)"] {
            let grant = parse_grant(text).unwrap();
            assert_eq!(grant.to_string(), text);
            assert_eq!(show_grant(&grant.to_body()), text);
        }
    }

    #[test]
    fn durations_have_a_unit() {
        let seconds = |text| parse_duration(text).map(|d| (d.seconds, d.nanos));
        for (text, expected) in [
            ("90d", (90 * 86_400, 0)),
            ("12h", (43_200, 0)),
            ("3600s", (3600, 0)),
            ("30m", (1800, 0)),
            ("1h 30m", (5400, 0)),
            ("2w", (14 * 86_400, 0)),
            ("1500ms", (1, 500_000_000)),
            ("0s", (0, 0)),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["0s", "90d", "36h", "5m", "61s", "1500000us"] {
            assert_eq!(show_duration(&parse_duration(text).unwrap()), text);
        }
        for bad in [
            "",
            "90",
            "d",
            "-5s",
            "5s ago",
            "1mo",
            "1y",
            "1e9s",
            "99999999999999999999s",
            "5 parsecs",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let time = parse_time("2027-01-01T01:00:00.000001+01:00").unwrap();
        assert_eq!(show_time(&time), "2027-01-01T00:00:00.000001Z");
        assert_eq!(show_second(&time), "2027-01-01T00:00:00Z");
        let half = parse_time("2027-01-01T00:00:00.5Z").unwrap();
        assert_eq!(show_time(&half), "2027-01-01T00:00:00.500000Z");
        assert_eq!(show_second(&half), "2027-01-01T00:00:00Z");
        for bad in ["2027-01-01", "2027-01-01T00:00:00", "tomorrow", "1700000000"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        let beyond = prost_types::Timestamp { seconds: i64::MAX, nanos: -1 };
        assert_eq!(show_time(&beyond), "9223372036854775807 s since 1970");
    }

    #[test]
    fn kinds_of_revocation_come_from_the_proto() {
        let names: Vec<String> = short_names(KINDS).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"owner-left".into()) && names.contains(&"compromised".into()));
        assert!(!names.contains(&"unspecified".into()));
    }
}
