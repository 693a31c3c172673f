//! Counts of events by hour and by day, in each category and dimension. The index keeps them, and says how far it has come.

use std::collections::BTreeMap;
use std::ops::Range;

use super::client::{Client, Transaction};
use keyledger_ledger::facets::{Dimension, Facets};
use keyledger_ledger::id::Time;
use keyledger_ledger::usage::hour_of;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;

const DAY_HOURS: i64 = 24;

/// What is counted: over how many hours, in which dimension, from which hour on, in which category, of which value.
type Slot = (i16, Dimension, i64, String, String);

/// Events that were counted in memory.
#[derive(Default)]
pub(crate) struct Counts(BTreeMap<Slot, i64>);

/// The same as columns.
pub(super) struct Columns<'a> {
    pub(super) hours: Vec<i16>,
    pub(super) dimensions: Vec<i16>,
    pub(super) start_hours: Vec<i64>,
    pub(super) categories: Vec<&'a str>,
    pub(super) values: Vec<&'a str>,
    pub(super) events: Vec<i64>,
}

impl Counts {
    /// Counts events that are alike, in each dimension.
    pub(crate) fn add(&mut self, facets: &Facets<'_>, time: Time, events: i64) {
        let hour = hour_of(time);
        for dimension in Dimension::EACH {
            for hours in [1, DAY_HOURS] {
                let start = hour.div_euclid(hours) * hours;
                let (category, value) = (facets.category.into(), facets.value(dimension).into());
                *self.0.entry((hours as i16, dimension, start, category, value)).or_default() +=
                    events;
            }
        }
    }

    /// How many rows it is.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Events of each category.
    pub(crate) fn categories(&self) -> BTreeMap<String, u64> {
        self.sum(Dimension::All, |_| true, |slot| slot.3.clone())
    }

    /// Events of some categories by value.
    pub(crate) fn values(
        &self,
        dimension: Dimension,
        categories: &[&str],
    ) -> BTreeMap<String, u64> {
        self.sum(dimension, |slot| categories.contains(&slot.3.as_str()), |slot| slot.4.clone())
    }

    /// Events of some categories in each hour.
    pub(crate) fn hours(&self, categories: &[&str]) -> BTreeMap<i64, u64> {
        self.sum(Dimension::All, |slot| categories.contains(&slot.3.as_str()), |slot| slot.2)
    }

    fn sum<K: Ord>(
        &self,
        dimension: Dimension,
        keep: impl Fn(&Slot) -> bool,
        by: impl Fn(&Slot) -> K,
    ) -> BTreeMap<K, u64> {
        let mut sums = BTreeMap::new();
        for (slot, events) in &self.0 {
            if slot.0 == 1 && slot.1 == dimension && keep(slot) {
                *sums.entry(by(slot)).or_default() += *events as u64;
            }
        }
        sums
    }

    pub(super) fn columns(&self) -> Columns<'_> {
        let slots = || self.0.keys();
        Columns {
            hours: slots().map(|s| s.0).collect(),
            dimensions: slots().map(|s| s.1 as i16).collect(),
            start_hours: slots().map(|s| s.2).collect(),
            categories: slots().map(|s| s.3.as_str()).collect(),
            values: slots().map(|s| s.4.as_str()).collect(),
            events: self.0.values().copied().collect(),
        }
    }
}

/// Counts as of one moment, and how far the index had come by then.
pub(crate) struct Snapshot<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) ledger_id: Uuid,
    pub(crate) indexed: u64,
}

impl<'a> Snapshot<'a> {
    /// All that is read from it belongs together. Dropped, it is rolled back.
    pub(crate) async fn take(
        client: &'a mut Client,
        ledger_id: Uuid,
    ) -> Result<Snapshot<'a>, StoreError> {
        let transaction = client.read_only().await?;
        let sql = "/* event_counts::take */ SELECT next_position FROM event_index_progress WHERE ledger_id = $1";
        let statement = transaction.prepare_cached(sql).await?;
        let row = transaction.query_opt(&statement, &[&ledger_id]).await?;
        let indexed = row.map_or(0, |r| r.get::<_, i64>(0) as u64);
        Ok(Snapshot { transaction, ledger_id, indexed })
    }

    /// Events of some hours by category, or of one category.
    pub(crate) async fn by_category(
        &self,
        hours: &Range<i64>,
        only: Option<&str>,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = "/* event_counts::by_category */
            SELECT category, sum(events)::bigint FROM unnest($2::smallint[], $3::bigint[], $4::bigint[])
                AS span (hours, first, last),
            LATERAL (SELECT category, events FROM event_counts c WHERE c.ledger_id = $1 AND c.hours = span.hours
                AND c.dimension = $5 AND c.start_hour >= span.first AND c.start_hour < span.last
                AND ($6::text IS NULL OR c.category = $6)) AS counted
            GROUP BY category";
        let (lengths, firsts, lasts) = columns(&spans(hours));
        let all = Dimension::All as i16;
        let id = &self.ledger_id;
        self.counted(sql, &[id, &lengths, &firsts, &lasts, &all, &only]).await
    }

    /// Events of some hours and categories by value, most frequent first: at most `limit` values, and those named in any case.
    pub(crate) async fn by_value(
        &self,
        dimension: Dimension,
        hours: &Range<i64>,
        categories: &[&str],
        named: &[&str],
        limit: i64,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = "/* event_counts::by_value */
            SELECT value, sum(events)::bigint AS events FROM unnest($2::smallint[], $3::bigint[], $4::bigint[])
                AS span (hours, first, last),
            LATERAL (SELECT value, events FROM event_counts c WHERE c.ledger_id = $1 AND c.hours = span.hours
                AND c.dimension = $5 AND c.start_hour >= span.first AND c.start_hour < span.last
                AND c.category = ANY($6)) AS counted
            GROUP BY value ORDER BY value = ANY($7) DESC, events DESC, value LIMIT $8";
        let (lengths, firsts, lasts) = columns(&spans(hours));
        let (dimension, limit) = (dimension as i16, limit + named.len() as i64);
        let id = &self.ledger_id;
        let params: [&(dyn ToSql + Sync); 8] =
            [id, &lengths, &firsts, &lasts, &dimension, &categories, &named, &limit];
        self.counted(sql, &params).await
    }

    /// Events of some categories in each of some hours; hours without any are left out.
    pub(crate) async fn by_hour(
        &self,
        hours: &Range<i64>,
        categories: &[&str],
    ) -> Result<Vec<(i64, u64)>, StoreError> {
        let sql = "/* event_counts::by_hour */ SELECT start_hour, sum(events)::bigint FROM event_counts
            WHERE ledger_id = $1 AND hours = 1 AND dimension = $2 AND start_hour >= $3 AND start_hour < $4
              AND category = ANY($5)
            GROUP BY start_hour";
        let all = Dimension::All as i16;
        let params: [&(dyn ToSql + Sync); 5] =
            [&self.ledger_id, &all, &hours.start, &hours.end, &categories];
        let statement = self.transaction.prepare_cached(sql).await?;
        let rows = self.transaction.query(&statement, &params).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get::<_, i64>(1) as u64)).collect())
    }

    async fn counted(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let statement = self.transaction.prepare_cached(sql).await?;
        let rows = self.transaction.query(&statement, params).await?;
        Ok(rows.iter().map(|r| (r.get(0), r.get::<_, i64>(1) as u64)).collect())
    }
}

/// How hours are counted with the fewest rows: whole days by the day, what is left at both ends by the hour.
pub(super) fn spans(hours: &Range<i64>) -> Vec<(i16, Range<i64>)> {
    let first_day = -(-hours.start).div_euclid(DAY_HOURS) * DAY_HOURS;
    let last_day = hours.end.div_euclid(DAY_HOURS) * DAY_HOURS;
    if first_day >= last_day {
        return vec![(1, hours.clone())];
    }
    vec![
        (1, hours.start..first_day),
        (DAY_HOURS as i16, first_day..last_day),
        (1, last_day..hours.end),
    ]
}

pub(super) fn columns(spans: &[(i16, Range<i64>)]) -> (Vec<i16>, Vec<i64>, Vec<i64>) {
    let lengths = spans.iter().map(|(hours, _)| *hours).collect();
    let firsts = spans.iter().map(|(_, range)| range.start).collect();
    (lengths, firsts, spans.iter().map(|(_, range)| range.end).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hour_is_counted_once_whether_by_the_hour_or_by_the_day() {
        for start in 0..50 {
            for end in start..100 {
                let mut seen: Vec<i64> = vec![];
                for (length, range) in spans(&(start..end)) {
                    for first in range.step_by(length as usize) {
                        assert_eq!(first % i64::from(length), 0, "{start}..{end}");
                        seen.extend(first..first + i64::from(length));
                    }
                }
                assert_eq!(seen, (start..end).collect::<Vec<_>>());
            }
        }
    }
}
