//! Usage by hour and by day, as the observer keeps it. How far it has come stands in the same place as that of the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use deadpool_postgres::Client;
use keyledger_ledger::id::Time;
use keyledger_ledger::refusals::Network;
use keyledger_ledger::usage::{Meter, Slot, Span, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::event_counts::Snapshot;
use super::{StoreError, event_counts};

/// Most days of a meter that are read for its history: the newest ones.
const HISTORY_DAYS: i64 = 400;

/// What is known of how a meter was used before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) first: Option<Time>,
    pub(crate) last: Option<Time>,
    /// From where, on the newest 400 days with any use.
    pub(crate) networks: BTreeSet<Network>,
    /// Uses, allowed or refused, by hours since 1970.
    pub(crate) hours: BTreeMap<i64, u64>,
}

impl History {
    pub(crate) fn merge(&mut self, other: &History) {
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.networks.extend(&other.networks);
        for (hour, uses) in &other.hours {
            *self.hours.entry(*hour).or_default() += uses;
        }
    }

    fn of(usage: &Usage, since_hour: i64) -> History {
        let hours = usage.hours.range(since_hour..).map(|(hour, tally)| (*hour, tally.all()));
        History {
            first: usage.first,
            last: usage.last,
            networks: usage.networks().collect(),
            hours: hours.collect(),
        }
    }
}

/// Rows as they lie there, packed; those that there aren't yet are left out.
pub(crate) async fn rows(
    client: &Client,
    ledger_id: Uuid,
    slots: &[Slot],
) -> Result<HashMap<Slot, Vec<u8>>, StoreError> {
    let sql = "/* usage::rows */ SELECT u.meter, u.hours, u.start_hour, u.counts
        FROM unnest($2::uuid[], $3::smallint[], $4::bigint[]) AS a (meter, hours, start_hour)
        JOIN usage_counts u ON u.ledger_id = $1 AND u.meter = a.meter AND u.hours = a.hours AND u.start_hour = a.start_hour";
    let columns = Columns::of(slots.iter());
    let params: [&(dyn ToSql + Sync); 4] =
        [&ledger_id, &columns.meters, &columns.hours, &columns.start_hours];
    let rows = client.query(&client.prepare_cached(sql).await?, &params).await?;
    Ok(rows.iter().map(|r| (slot(r), r.get(3))).collect())
}

impl Snapshot<'_> {
    /// The usage of some meters, together, over some hours: whole days by the day, what is left at both ends by the hour.
    pub(crate) async fn usage(
        &self,
        meters: &[Meter],
        hours: &Range<i64>,
    ) -> Result<Usage, StoreError> {
        let sql = "/* usage::usage */ SELECT u.meter, u.hours, u.start_hour, u.counts
            FROM unnest($3::smallint[], $4::bigint[], $5::bigint[]) AS span (hours, first, last), unnest($2::uuid[]) AS m (meter),
            LATERAL (SELECT * FROM usage_counts u WHERE u.ledger_id = $1 AND u.meter = m.meter AND u.hours = span.hours
                AND u.start_hour >= span.first AND u.start_hour < span.last) AS u";
        let meters: Vec<Uuid> = meters.iter().map(uuid).collect();
        let (lengths, firsts, lasts) = event_counts::columns(&event_counts::spans(hours));
        let params: [&(dyn ToSql + Sync); 5] =
            [&self.ledger_id, &meters, &lengths, &firsts, &lasts];
        let statement = self.transaction.prepare_cached(sql).await?;
        let mut usage = Usage::default();
        for row in &self.transaction.query(&statement, &params).await? {
            usage.merge(&unpack(row)?);
        }
        Ok(usage)
    }
}

/// The usage of each of some meters from a day on, as far as the observer has come.
pub(crate) async fn of_each_meter(
    client: &Client,
    ledger_id: Uuid,
    meters: &[Meter],
    since_hour: i64,
) -> Result<HashMap<Meter, Usage>, StoreError> {
    let sql = "/* usage::of_each_meter */ SELECT meter, hours, start_hour, counts FROM usage_counts
        WHERE ledger_id = $1 AND meter = ANY($2) AND hours = 24 AND start_hour >= $3";
    let meters: Vec<Uuid> = meters.iter().map(uuid).collect();
    let since = Span::Day.start(since_hour);
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &meters, &since];
    let rows = client.query(&client.prepare_cached(sql).await?, &params).await?;
    let mut usage: HashMap<Meter, Usage> = HashMap::new();
    for row in &rows {
        usage.entry(slot(row).0).or_default().merge(&unpack(row)?);
    }
    Ok(usage)
}

/// How some meters were used before: in each hour from `since_hour` on, from which networks, first and last. A meter that was never
/// used has no history. Read from daily rows alone, as far as the observer has come.
pub(crate) async fn histories(
    client: &Client,
    ledger_id: Uuid,
    meters: &[Meter],
    since_hour: i64,
) -> Result<HashMap<Meter, History>, StoreError> {
    // The first day tells since when it is used, however long ago that is.
    let sql = "/* usage::histories */ SELECT u.* FROM unnest($2::uuid[]) AS m (meter), LATERAL (
            (SELECT meter, hours, start_hour, counts FROM usage_counts u
             WHERE u.ledger_id = $1 AND u.meter = m.meter AND u.hours = 24 ORDER BY start_hour DESC LIMIT $3)
            UNION
            (SELECT meter, hours, start_hour, counts FROM usage_counts u
             WHERE u.ledger_id = $1 AND u.meter = m.meter AND u.hours = 24 ORDER BY start_hour LIMIT 1)) AS u";
    let meters: Vec<Uuid> = meters.iter().map(uuid).collect();
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &meters, &HISTORY_DAYS];
    let rows = client.query(&client.prepare_cached(sql).await?, &params).await?;
    let mut histories: HashMap<Meter, History> = HashMap::new();
    for row in &rows {
        let (meter, _, _) = slot(row);
        histories.entry(meter).or_default().merge(&History::of(&unpack(row)?, since_hour));
    }
    Ok(histories)
}

/// Slots as columns.
pub(super) struct Columns {
    pub(super) meters: Vec<Uuid>,
    pub(super) hours: Vec<i16>,
    pub(super) start_hours: Vec<i64>,
}

impl Columns {
    pub(super) fn of<'a>(slots: impl Iterator<Item = &'a Slot> + Clone) -> Columns {
        Columns {
            meters: slots.clone().map(|(meter, _, _)| uuid(meter)).collect(),
            hours: slots.clone().map(|(_, span, _)| *span as i16).collect(),
            start_hours: slots.map(|(_, _, start)| *start).collect(),
        }
    }
}

fn uuid(meter: &Meter) -> Uuid {
    Uuid::from_bytes(*meter.as_bytes())
}

fn slot(row: &Row) -> Slot {
    let span = if row.get::<_, i16>(1) == Span::Hour as i16 { Span::Hour } else { Span::Day };
    (Meter::from_bytes(*row.get::<_, Uuid>(0).as_bytes()), span, row.get(2))
}

fn unpack(row: &Row) -> Result<Usage, StoreError> {
    let usage = Usage::decode(row.get::<_, &[u8]>(3));
    usage.ok_or_else(|| StoreError::Damaged("a row of usage_counts can't be read".into()))
}
