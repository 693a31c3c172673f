//! Reading a record of another system: a value by its path, as text, as a moment.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The value at a path such as `client/userAgent`; a number is an index. Names are compared without case and underscores:
/// pipelines that pass logs on like to rewrite both. `null` is nothing.
pub(super) fn at<'a>(record: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('/').try_fold(record, step).filter(|value| !value.is_null())
}

fn step<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields
            .get(name)
            .or_else(|| fields.iter().find(|(key, _)| same_name(key, name)).map(|(_, v)| v)),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn same_name(a: &str, b: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().filter(|b| *b != b'_').map(|b| b.to_ascii_lowercase())
    }
    letters(a).eq(letters(b))
}

/// The text, number or flag at a path, if it says something: `-`, `?`, `unknown` and the like don't.
pub(super) fn text(record: &Value, path: &str) -> Option<String> {
    let text = match at(record, path)? {
        Value::String(text) => text.trim().to_string(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return None,
    };
    let says_nothing = matches!(text.as_str(), "" | "-" | "?" | "null" | "(null)" | "unknown");
    (!says_nothing).then_some(text)
}

/// The first of these paths that says something.
pub(super) fn first(record: &Value, paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| text(record, path))
}

/// A value that is JSON itself, or JSON written into a text.
pub(super) fn unfold(record: &Value, path: &str) -> Option<Value> {
    match at(record, path)? {
        Value::String(text) => serde_json::from_str(text).ok(),
        value => Some(value.clone()),
    }
}

/// The moment at the first of these paths that is there.
pub(super) fn time(record: &Value, paths: &[&str]) -> Result<Option<Timestamp>, String> {
    first(record, paths).map(|text| moment(&text)).transpose()
}

/// RFC 3339, also with a space and without a zone (then UTC); or a number since 1970, in the unit that its size tells.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let unreadable = || "its time can't be read".to_string();
    let moment = match text.parse::<f64>() {
        Ok(number) => since_1970(text, number).ok_or_else(unreadable)?,
        Err(_) => match text.parse::<Timestamp>() {
            Ok(moment) => moment,
            Err(_) => {
                let local = text.parse::<DateTime>().map_err(|_| unreadable())?;
                local.to_zoned(TimeZone::UTC).map_err(|_| unreadable())?.timestamp()
            }
        },
    };
    match moment.as_microsecond() > 0 {
        true => Ok(moment),
        false => Err("its time is not after 1970".into()),
    }
}

/// Seconds up to the year 5138, then milliseconds, microseconds, nanoseconds. Whole numbers are read exactly.
fn since_1970(text: &str, number: f64) -> Option<Timestamp> {
    let nanos_of_unit: i128 = match number.abs() {
        n if n < 1e11 => 1_000_000_000,
        n if n < 1e14 => 1_000_000,
        n if n < 1e17 => 1_000,
        n if n < 1e20 => 1,
        _ => return None,
    };
    let nanos = match text.parse::<i128>() {
        Ok(whole) => whole.checked_mul(nanos_of_unit)?,
        // Microseconds are as exact as what the ledger keeps.
        Err(_) => (number * nanos_of_unit as f64 / 1e3).round() as i128 * 1_000,
    };
    Timestamp::from_nanosecond(nanos).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_a_value_whatever_became_of_the_case_of_its_names() {
        let record = json!({"client": {"ipAddress": "203.0.113.7"}, "list": [{"a": 1}], "n": null});
        for path in ["client/ipAddress", "client/ipaddress", "Client/ip_address"] {
            assert_eq!(text(&record, path).as_deref(), Some("203.0.113.7"), "{path}");
        }
        assert_eq!(text(&record, "list/0/a").as_deref(), Some("1"));
        for path in ["n", "list/1", "client/x", "client", "list/0/a/b"] {
            assert_eq!(text(&record, path), None, "{path}");
        }
    }

    #[test]
    fn times_are_read_as_other_systems_write_them() {
        for (written, read) in [
            ("2026-11-22T07:00:00.5Z", "2026-11-22T07:00:00.5Z"),
            ("2026-11-22 07:00:00.25", "2026-11-22T07:00:00.25Z"),
            ("2026-11-22 07:00:00.121000000", "2026-11-22T07:00:00.121Z"),
            ("2026-11-22T09:00:00+02:00", "2026-11-22T07:00:00Z"),
            ("1795330800", "2026-11-22T07:00:00Z"),
            ("1795330800.404", "2026-11-22T07:00:00.404Z"),
            ("1795330800123", "2026-11-22T07:00:00.123Z"),
            ("1795330800123.0", "2026-11-22T07:00:00.123Z"),
            ("1795330800123456", "2026-11-22T07:00:00.123456Z"),
            ("1795330800123456789", "2026-11-22T07:00:00.123456789Z"),
        ] {
            assert_eq!(moment(written).unwrap().to_string(), read, "{written}");
        }
        for bad in ["yesterday", "0", "-1", "1e99", "NaN", "1969-01-01T00:00:00Z", "2026-13-01"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
