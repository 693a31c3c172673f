//! Reading a table of TOML field by field, so that whatever is wrong is said with the names of forwarder and field.

use std::ops::RangeInclusive;

use toml::{Table, Value};

/// What is wrong with the configuration of forwarders, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

/// The fields of a table that were not read yet.
pub(super) struct Fields {
    /// What is configured, such as `forwarder siem`.
    what: String,
    /// Stands before the names of fields: empty, or `webhook.`.
    prefix: String,
    table: Table,
}

impl Fields {
    pub(super) fn new(what: String, table: Table) -> Fields {
        Fields { what, prefix: String::new(), table }
    }

    pub(super) fn problem(&self, field: &str, what: &str) -> ConfigError {
        ConfigError(format!("{}: {}{field} {what}", self.what, self.prefix))
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.table.remove(field) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.problem(field, "must be a text, and not empty")),
        }
    }

    pub(super) fn required(&mut self, field: &str) -> Result<String, ConfigError> {
        self.text(field)?.ok_or_else(|| self.problem(field, "is missing"))
    }

    pub(super) fn flag(&mut self, field: &str, otherwise: bool) -> Result<bool, ConfigError> {
        match self.table.remove(field) {
            None => Ok(otherwise),
            Some(Value::Boolean(flag)) => Ok(flag),
            Some(_) => Err(self.problem(field, "must be true or false")),
        }
    }

    pub(super) fn number(
        &mut self,
        field: &str,
        range: RangeInclusive<u64>,
        otherwise: u64,
    ) -> Result<u64, ConfigError> {
        let number = match self.table.remove(field) {
            None => return Ok(otherwise),
            Some(Value::Integer(number)) => u64::try_from(number).ok(),
            Some(_) => None,
        };
        number.filter(|n| range.contains(n)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.problem(field, &format!("must be a whole number from {least} to {most}"))
        })
    }

    pub(super) fn texts(&mut self, field: &str, most: usize) -> Result<Vec<String>, ConfigError> {
        let wrong = |fields: &Fields| {
            fields.problem(field, &format!("must be a list of 1 to {most} different texts"))
        };
        let values = match self.table.remove(field) {
            None => return Ok(vec![]),
            Some(Value::Array(values)) => values,
            Some(_) => return Err(wrong(self)),
        };
        let texts: Option<Vec<String>> =
            values.iter().map(|value| value.as_str().map(String::from)).collect();
        let mut texts = texts.ok_or_else(|| wrong(self))?;
        let given = texts.len();
        texts.sort();
        texts.dedup();
        match texts.len() == given && (1..=most).contains(&given) {
            true => Ok(texts),
            false => Err(wrong(self)),
        }
    }

    /// The names and texts of a table in this one.
    pub(super) fn pairs(
        &mut self,
        field: &str,
        most: usize,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        let wrong = |fields: &Fields| {
            fields.problem(field, &format!("must be a table of 1 to {most} texts"))
        };
        let table = match self.table.remove(field) {
            None => return Ok(vec![]),
            Some(Value::Table(table)) if (1..=most).contains(&table.len()) => table,
            Some(_) => return Err(wrong(self)),
        };
        let pair = |(name, value): (String, Value)| Some((name, value.as_str()?.to_string()));
        table.into_iter().map(pair).collect::<Option<_>>().ok_or_else(|| wrong(self))
    }

    /// The fields of a table in this one.
    pub(super) fn table(&mut self, field: &str) -> Result<Option<Fields>, ConfigError> {
        let prefix = format!("{}{field}.", self.prefix);
        match self.table.remove(field) {
            None => Ok(None),
            Some(Value::Table(table)) => {
                Ok(Some(Fields { what: self.what.clone(), prefix, table }))
            }
            Some(_) => Err(self.problem(field, "must be a table")),
        }
    }

    /// No field may be left.
    pub(super) fn end(self) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(field) => Err(self.problem(field, "is no field that is known here")),
        }
    }
}
