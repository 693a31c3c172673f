//! Anomalies as of now, for lists: filled behind the commit, in the same statement as the index of events. What they were stands
//! in their entries, from which lists read all but what is here.

use std::collections::BTreeMap;
use std::ops::Range;

use super::client::Client;
use keyledger_ledger::body::{AnomalyEnded, AnomalyRaised};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_proto::parse::AnomalyFilter;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;
use super::event_index::signed;

/// Most acknowledgements that are kept at hand for one anomaly: the newest.
pub(crate) const MAX_ACKNOWLEDGED: usize = 4;

/// What a run of entries says of anomalies, by the position at which each was raised.
#[derive(Default)]
pub(crate) struct Anomalies(BTreeMap<u64, Change>);

#[derive(Default)]
struct Change {
    /// Rule and key, if it was raised in this run.
    raised: Option<(i16, Option<KeyId>)>,
    occurrences: u64,
    last_us: i64,
    /// Position of the entry that says that it is over.
    ended: Option<u64>,
    /// Positions, oldest first.
    acknowledged: Vec<u64>,
}

impl Anomalies {
    pub(crate) fn raised(&mut self, position: u64, e: &AnomalyRaised) {
        let change = self.0.entry(position).or_default();
        change.raised = Some((e.rule as i16, KeyId::from_slice(&e.key_id)));
        self.counted(position, e.occurrences, Time(e.last_time_us));
    }

    pub(crate) fn ended(&mut self, position: u64, e: &AnomalyEnded) {
        self.0.entry(e.anomaly_position).or_default().ended = Some(position);
        self.counted(e.anomaly_position, e.occurrences, Time(e.last_time_us));
    }

    pub(crate) fn acknowledged(&mut self, position: u64, anomaly: u64) {
        self.0.entry(anomaly).or_default().acknowledged.push(position);
    }

    /// Whether something is said of it.
    pub(crate) fn has(&self, anomaly: u64) -> bool {
        self.0.contains_key(&anomaly)
    }

    /// So many uses belong to it by now. What was counted is never less than before.
    pub(crate) fn counted(&mut self, anomaly: u64, occurrences: u64, last: Time) {
        let change = self.0.entry(anomaly).or_default();
        change.occurrences = change.occurrences.max(occurrences);
        change.last_us = change.last_us.max(last.micros());
    }

    /// As columns of a statement.
    pub(super) fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        for (position, change) in &self.0 {
            let (rule, key) = change.raised.unzip();
            columns.positions.push(*position as i64);
            columns.rules.push(rule);
            columns.keys.push(key.flatten().map(|id| id.uuid()));
            columns.last_us.push(change.last_us);
            columns.occurrences.push(signed(change.occurrences));
            columns.ended.push(change.ended.map(|p| p as i64));
            let newest_first = change.acknowledged.iter().rev().take(MAX_ACKNOWLEDGED);
            let texts: Vec<String> = newest_first.map(u64::to_string).collect();
            columns.acknowledged.push(format!("{{{}}}", texts.join(",")));
        }
        columns
    }
}

/// The same as columns. A row without a rule changes one that is there.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) positions: Vec<i64>,
    pub(super) rules: Vec<Option<i16>>,
    pub(super) keys: Vec<Option<Uuid>>,
    pub(super) last_us: Vec<i64>,
    pub(super) occurrences: Vec<i64>,
    pub(super) ended: Vec<Option<i64>>,
    pub(super) acknowledged: Vec<String>,
}

/// An anomaly as of now.
pub(crate) struct Row {
    pub(crate) position: u64,
    pub(crate) occurrences: u64,
    pub(crate) last: Time,
    pub(crate) ended: Option<u64>,
    /// Newest first.
    pub(crate) acknowledged: Vec<u64>,
}

/// Anomalies that were raised in a range of positions, newest first.
pub(crate) async fn list(
    client: &Client,
    ledger_id: Uuid,
    filter: &AnomalyFilter,
    range: &Range<u64>,
    limit: usize,
) -> Result<Vec<Row>, StoreError> {
    let (start, end, limit) = (signed(range.start), signed(range.end), limit as i64);
    let (rule, key) = (filter.rule.map(|r| r as i16), filter.key_id.map(|id| id.uuid()));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&ledger_id, &start, &end, &limit];
    // Only what is asked for stands in the statement, so that each finds its index.
    let mut conditions = String::new();
    if let Some(rule) = &rule {
        params.push(rule);
        conditions += &format!(" AND rule = ${}", params.len());
    }
    if let Some(key) = &key {
        params.push(key);
        conditions += &format!(" AND key_id = ${}", params.len());
    }
    conditions += match filter.ended {
        None => "",
        Some(true) => " AND ended_position IS NOT NULL",
        Some(false) => " AND ended_position IS NULL",
    };
    conditions += match filter.acknowledged {
        None => "",
        Some(true) => " AND acknowledged <> '{}'",
        Some(false) => " AND acknowledged = '{}'",
    };
    let sql = format!(
        "/* anomalies::list */ SELECT position, occurrences, last_us, ended_position, acknowledged FROM anomalies
         WHERE ledger_id = $1 AND position >= $2 AND position < $3{conditions} ORDER BY position DESC LIMIT $4"
    );
    let rows = client.query(&client.prepare_cached(&sql).await?, &params).await?;
    let row = |r: &tokio_postgres::Row| Row {
        position: r.get::<_, i64>(0) as u64,
        occurrences: r.get::<_, i64>(1) as u64,
        last: Time(r.get(2)),
        ended: r.get::<_, Option<i64>>(3).map(|p| p as u64),
        acknowledged: r.get::<_, Vec<i64>>(4).into_iter().map(|p| p as u64).collect(),
    };
    Ok(rows.iter().map(row).collect())
}
