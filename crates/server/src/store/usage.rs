//! Usage by hour and by day, as the observer keeps it. How far it has come stands in the same place as that of the index.

use std::collections::HashMap;
use std::ops::Range;

use super::client::Client;
use keyledger_ledger::id::Time;
use keyledger_ledger::monitor::History;
use keyledger_ledger::refusals::Network;
use keyledger_ledger::usage::{Dimension, Meter, Slot, Span, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::event_counts::Snapshot;
use super::{StoreError, event_counts};

/// Most days of a meter that are read for its history: the newest ones.
const HISTORY_DAYS: i64 = 400;
const HOUR: i64 = 3_600 * Time::MICROS_PER_SECOND;

/// Adds how another meter was used.
pub(crate) fn merge(own: &mut History, other: &History) {
    own.first = own.first.into_iter().chain(other.first).min();
    own.last = own.last.max(other.last);
    for (network, day) in &other.networks {
        let since = own.networks.entry(*network).or_insert(*day);
        *since = (*since).min(*day);
    }
    for (hour, uses) in &other.hours {
        *own.hours.entry(*hour).or_default() += uses;
    }
}

/// What the usage of a day says: of what was allowed, to the hour.
fn history(usage: &Usage, day: i64, since_hour: i64) -> History {
    let allowed = || usage.hours.iter().filter(|(_, tally)| tally.allowed > 0);
    let begin = |hour: i64| Time(hour.saturating_mul(HOUR));
    let last = allowed().next_back().map(|(hour, _)| begin(*hour + 1).plus_micros(-1));
    let networks = usage.values(Dimension::Network).told.iter();
    let networks = networks.filter(|(_, tally)| tally.allowed > 0);
    History {
        first: allowed().next().map(|(hour, _)| begin(*hour)),
        last: last.into_iter().chain(usage.last).min().filter(|_| last.is_some()),
        networks: networks
            .filter_map(|(network, _)| Some((Network::try_from(network.as_slice()).ok()?, day)))
            .collect(),
        hours: allowed()
            .filter(|(hour, _)| **hour >= since_hour)
            .map(|(hour, tally)| (*hour, tally.allowed))
            .collect(),
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
            usage.merge_packed(row.get(3)).ok_or_else(unreadable)?;
        }
        Ok(usage)
    }
}

/// The usage of each of some meters from a day on, as far as the observer has come. `None`: a row of it can't be read.
pub(crate) async fn of_each_meter(
    client: &Client,
    ledger_id: Uuid,
    meters: &[Meter],
    since_hour: i64,
) -> Result<HashMap<Meter, Option<Usage>>, StoreError> {
    let sql = "/* usage::of_each_meter */ SELECT meter, hours, start_hour, counts FROM usage_counts
        WHERE ledger_id = $1 AND meter = ANY($2) AND hours = 24 AND start_hour >= $3";
    let meters: Vec<Uuid> = meters.iter().map(uuid).collect();
    let since = Span::Day.start(since_hour);
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &meters, &since];
    let rows = client.query(&client.prepare_cached(sql).await?, &params).await?;
    let mut each: HashMap<Meter, Option<Usage>> = HashMap::new();
    for row in &rows {
        let (meter, _, start) = slot(row);
        let usage = each.entry(meter).or_insert_with(|| Some(Usage::default()));
        let whole = usage.as_mut().is_none_or(|u| u.merge_packed(row.get(3)).is_some());
        if !whole {
            tracing::error!(?meter, start, "a row of usage_counts can't be read");
            *usage = None;
        }
    }
    Ok(each)
}

/// How some meters were used before, with success: in each hour from `since_hour` on, from which networks since when, first and
/// last. A meter that was never used has no history. Read from daily rows alone, as far as the observer has come.
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
        let (meter, _, start) = slot(row);
        // A row that somebody has damaged must not stop whoever learns from it.
        let Ok(usage) = unpack(row) else {
            tracing::error!(
                ?meter,
                start,
                "a row of usage_counts can't be read: its day is not known"
            );
            continue;
        };
        let of_day = history(&usage, start.div_euclid(24), since_hour);
        merge(histories.entry(meter).or_default(), &of_day);
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
    Usage::decode(row.get(3)).ok_or_else(unreadable)
}

fn unreadable() -> StoreError {
    StoreError::Damaged("a row of usage_counts can't be read".into())
}
