//! Reads single variables: an empty one isn't set, names of values are compared without case, numbers have bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::SettingsError;

/// Longest interval or timeout: a day.
const MAX_MILLIS: u64 = 86_400_000;

/// Variables by their names.
pub(super) struct Variables<'a>(pub(super) &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// What it holds, without space around it.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0(name).map(|text| text.trim().to_string()).filter(|text| !text.is_empty())
    }

    /// It can't be followed; what it holds may be shown.
    pub(super) fn fails<T>(
        &self,
        name: &str,
        problem: impl Into<String>,
    ) -> Result<T, SettingsError> {
        let (variable, held) = (name.into(), Some(self.text(name).unwrap_or_default()));
        Err(SettingsError { variable, held, problem: problem.into() })
    }

    /// It can't be followed; what it holds may be secret.
    pub(super) fn fails_unseen<T>(&self, name: &str, problem: &str) -> Result<T, SettingsError> {
        Err(SettingsError { variable: name.into(), held: None, problem: problem.into() })
    }

    pub(super) fn one_of<'a>(
        &self,
        name: &str,
        allowed: &[&'a str],
    ) -> Result<Option<&'a str>, SettingsError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match allowed.iter().find(|known| text.eq_ignore_ascii_case(known)) {
            Some(known) => Ok(Some(known)),
            None => self.fails(name, supported(allowed)),
        }
    }

    /// A list with commas in between.
    pub(super) fn list<'a>(
        &self,
        name: &str,
        allowed: &[&'a str],
    ) -> Result<Option<Vec<&'a str>>, SettingsError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let known = |item: &str| {
            allowed.iter().copied().find(|known| item.trim().eq_ignore_ascii_case(known))
        };
        match text.split(',').map(known).collect::<Option<Vec<_>>>() {
            Some(names) => Ok(Some(names)),
            None => self.fails(name, supported(allowed)),
        }
    }

    pub(super) fn check_none_alone(&self, name: &str, names: &[&str]) -> Result<(), SettingsError> {
        match names.len() > 1 && names.contains(&"none") {
            true => self.fails(name, "`none` must stand alone"),
            false => Ok(()),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, SettingsError> {
        Ok(self.one_of(name, &["true", "false"])?.map(|word| word == "true"))
    }

    pub(super) fn number(
        &self,
        name: &str,
        usual: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, SettingsError> {
        let Some(text) = self.text(name) else { return Ok(usual) };
        match text.parse().ok().filter(|number| allowed.contains(number)) {
            Some(number) => Ok(number),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                self.fails(name, format!("it must be a whole number from {least} to {most}"))
            }
        }
    }

    pub(super) fn millis(&self, name: &str, usual: u64) -> Result<Duration, SettingsError> {
        Ok(Duration::from_millis(self.number(name, usual, 1..=MAX_MILLIS)?))
    }

    /// A share from 0 to 1; all if nothing is said.
    pub(super) fn ratio(&self, name: &str) -> Result<f64, SettingsError> {
        let Some(text) = self.text(name) else { return Ok(1.0) };
        match text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => Ok(ratio),
            None => self.fails(name, "it must be a number from 0 to 1"),
        }
    }
}

fn supported(allowed: &[&str]) -> String {
    format!("Keyledger supports {}", allowed.join(", "))
}

/// `name=value,…` with values percent-encoded, as in W3C Baggage.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(pair).collect()
}

fn pair(item: &str) -> Option<(String, String)> {
    let (name, value) = item.split_once('=')?;
    let (name, value) = (percent_decoded(name.trim())?, percent_decoded(value.trim())?);
    (!name.is_empty()).then_some((name, value))
}

/// Undoes percent-encoding (RFC 3986 §2.1). `None` if it isn't well-formed, or not UTF-8.
pub(in crate::telemetry) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                bytes.extend(hex::decode([*high, *low]).ok()?);
                after
            }
            (b'%', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}
