//! What the observer keeps: the index of events by terms, their counts, when each secret was last used, usage by hour and day,
//! and what the monitor remembers. Filled behind the commit, all together, in one statement. Queries read newer entries themselves.

use std::collections::BTreeMap;
use std::ops::Range;

use super::client::Client;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::terms::Term;
use keyledger_ledger::usage::Slot;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;
use super::anomalies::Anomalies;
use super::event_counts::Counts;
use super::usage;

/// Most positions of one row: few enough to lie in line, and enough that a frequent term has few rows.
const MAX_POSITIONS: usize = 128;
/// Rows that are read at once.
const ROWS: i64 = 64;

/// When secrets, by key and version, were last used: position and time.
pub(crate) type LastUses = BTreeMap<(KeyId, u32), LastUse>;

#[derive(Clone, Copy)]
pub(crate) struct LastUse {
    pub(crate) position: u64,
    pub(crate) time: Time,
}

/// What a run of entries adds.
#[derive(Default)]
pub(crate) struct Run {
    /// Rising positions.
    pub(crate) terms: BTreeMap<Term, Vec<i64>>,
    /// Traces and folders of uses, apart until they are known to be few enough: they are not written from here.
    pub(crate) details: BTreeMap<Term, Vec<i64>>,
    pub(crate) counts: Counts,
    pub(crate) last_uses: LastUses,
    pub(crate) anomalies: Anomalies,
    /// Rows of usage as they are with this run, packed.
    pub(crate) usage: BTreeMap<Slot, Vec<u8>>,
    /// What the monitor remembers from now on; `None` leaves what was there.
    pub(crate) monitor: Option<Vec<u8>>,
}

impl Run {
    /// About how many rows it writes.
    pub(crate) fn rows(&self) -> usize {
        self.terms.len() + self.counts.len() + self.last_uses.len() + self.usage.len()
    }
}

/// In which order positions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Order::NewestFirst => "DESC",
            Order::OldestFirst => "ASC",
        }
    }

    /// The edge of what was read up to a position, and with it.
    pub(crate) fn after(self, position: u64) -> u64 {
        match self {
            Order::NewestFirst => position,
            Order::OldestFirst => position + 1,
        }
    }

    /// Positions in this order, each once.
    pub(crate) fn sort(self, positions: &mut Vec<u64>) {
        positions.sort_unstable();
        positions.dedup();
        if self == Order::NewestFirst {
            positions.reverse();
        }
    }
}

/// The first position that the index doesn't cover yet.
pub(crate) async fn progress(client: &Client, ledger_id: Uuid) -> Result<u64, StoreError> {
    let sql = "/* event_index::progress */ SELECT next_position FROM event_index_progress WHERE ledger_id = $1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(row.map_or(0, |r| r.get::<_, i64>(0) as u64))
}

/// What the monitor remembers, and up to which entry it has looked.
pub(crate) async fn monitor(
    client: &Client,
    ledger_id: Uuid,
) -> Result<(u64, Option<Vec<u8>>), StoreError> {
    let sql = "/* event_index::monitor */ SELECT next_position, monitor FROM event_index_progress WHERE ledger_id = $1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(row.map_or((0, None), |r| (r.get::<_, i64>(0) as u64, r.get(1))))
}

/// Lets a replica look at new entries for all others, for so long, unless another one does. Says whether it may.
pub(crate) async fn take_lease(
    client: &Client,
    ledger_id: Uuid,
    replica: Uuid,
    lease_ms: i64,
) -> Result<bool, StoreError> {
    begin(client, ledger_id).await?;
    let sql = "/* event_index::take_lease */
        UPDATE event_index_progress SET holder = $2, lease_until = clock_timestamp() + $3 * interval '1 ms'
        WHERE ledger_id = $1 AND (holder IS NULL OR holder = $2 OR lease_until <= clock_timestamp())";
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &replica, &(lease_ms as f64)];
    Ok(client.execute(&client.prepare_cached(sql).await?, &params).await? == 1)
}

async fn begin(client: &Client, ledger_id: Uuid) -> Result<(), StoreError> {
    let sql = "/* event_index::begin */ INSERT INTO event_index_progress (ledger_id, next_position) VALUES ($1, 0)
               ON CONFLICT DO NOTHING";
    client.execute(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(())
}

/// Adds a run of entries and moves on, unless somebody else did it first: then it says `false`. All in one statement: all or
/// nothing.
pub(crate) async fn advance(
    client: &Client,
    ledger_id: Uuid,
    range: Range<u64>,
    run: &Run,
) -> Result<bool, StoreError> {
    begin(client, ledger_id).await?;
    // A row holds its positions as text, since arrays of arrays must be rectangular.
    let sql = "/* event_index::advance */
        WITH moved AS (
            UPDATE event_index_progress SET next_position = $3, monitor = coalesce($20, monitor)
            WHERE ledger_id = $1 AND next_position = $2 RETURNING 1),
        used AS (
            INSERT INTO key_last_uses AS l (ledger_id, key_id, version, position, time_us)
            SELECT $1, a.* FROM unnest($6::uuid[], $7::integer[], $8::bigint[], $9::bigint[]) AS a, moved
            ON CONFLICT (ledger_id, key_id, version) DO UPDATE
            SET position = GREATEST(l.position, excluded.position), time_us = GREATEST(l.time_us, excluded.time_us)),
        counted AS (
            INSERT INTO event_counts AS c (ledger_id, hours, dimension, start_hour, category, value, events)
            SELECT $1, a.* FROM unnest($10::smallint[], $11::smallint[], $12::bigint[], $13::text[], $14::text[], $15::bigint[])
                AS a, moved
            ON CONFLICT (ledger_id, hours, dimension, start_hour, category, value) DO UPDATE
            SET events = c.events + excluded.events),
        unusual AS (
            SELECT a.* FROM unnest($21::bigint[], $22::smallint[], $23::uuid[], $24::bigint[], $25::bigint[], $26::bigint[], $27::text[])
                AS a (position, rule, key_id, occurrences, last_us, ended, acknowledged), moved),
        raised AS (
            INSERT INTO anomalies (ledger_id, position, rule, key_id, occurrences, last_us, ended_position, acknowledged)
            SELECT $1, position, rule, key_id, occurrences, last_us, ended, acknowledged::bigint[] FROM unusual
            WHERE rule IS NOT NULL
            ON CONFLICT DO NOTHING),
        went_on AS (
            UPDATE anomalies AS a
            SET occurrences = GREATEST(a.occurrences, u.occurrences), last_us = GREATEST(a.last_us, u.last_us),
                ended_position = coalesce(u.ended, a.ended_position),
                acknowledged = (u.acknowledged::bigint[] || a.acknowledged)[1:4]
            FROM unusual AS u
            WHERE a.ledger_id = $1 AND a.position = u.position AND u.rule IS NULL),
        metered AS (
            INSERT INTO usage_counts (ledger_id, meter, hours, start_hour, counts)
            SELECT $1, a.* FROM unnest($16::uuid[], $17::smallint[], $18::bigint[], $19::bytea[]) AS a, moved
            ON CONFLICT (ledger_id, meter, hours, start_hour) DO UPDATE SET counts = excluded.counts),
        found AS (
            INSERT INTO event_terms (ledger_id, term, first_position, positions)
            SELECT $1, a.term, (a.positions::bigint[])[1], a.positions::bigint[]
            FROM unnest($4::uuid[], $5::text[]) AS a (term, positions), moved)
        SELECT count(*) FROM moved";
    let (mut terms, mut positions) = (vec![], vec![]);
    for (term, found) in &run.terms {
        for row in found.chunks(MAX_POSITIONS) {
            terms.push(Uuid::from_bytes(*term.as_bytes()));
            let texts: Vec<String> = row.iter().map(i64::to_string).collect();
            positions.push(format!("{{{}}}", texts.join(",")));
        }
    }
    let used_ids: Vec<Uuid> = run.last_uses.keys().map(|(key, _)| key.uuid()).collect();
    let versions: Vec<i32> = run.last_uses.keys().map(|(_, version)| *version as i32).collect();
    let used_at: Vec<i64> = run.last_uses.values().map(|last| last.position as i64).collect();
    let times: Vec<i64> = run.last_uses.values().map(|last| last.time.micros()).collect();
    let counts = run.counts.columns();
    let anomalies = run.anomalies.columns();
    let metered = usage::Columns::of(run.usage.keys());
    let usage: Vec<&[u8]> = run.usage.values().map(Vec::as_slice).collect();
    let params: [&(dyn ToSql + Sync); 27] = [
        &ledger_id,
        &(range.start as i64),
        &(range.end as i64),
        &terms,
        &positions,
        &used_ids,
        &versions,
        &used_at,
        &times,
        &counts.hours,
        &counts.dimensions,
        &counts.start_hours,
        &counts.categories,
        &counts.values,
        &counts.events,
        &metered.meters,
        &metered.hours,
        &metered.start_hours,
        &usage,
        &run.monitor,
        &anomalies.positions,
        &anomalies.rules,
        &anomalies.keys,
        &anomalies.occurrences,
        &anomalies.last_us,
        &anomalies.ended,
        &anomalies.acknowledged,
    ];
    let row = client.query_one(&client.prepare_cached(sql).await?, &params).await?;
    Ok(row.get::<_, i64>(0) == 1)
}

/// Positions in order, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Positions {
    pub(crate) positions: Vec<u64>,
    /// Newest first: they are complete down to this position. Oldest first: before it. `None`: there are no more.
    pub(crate) edge: Option<u64>,
}

/// Some positions of a range at which there is something by a term.
pub(crate) async fn positions(
    client: &Client,
    ledger_id: Uuid,
    term: &Term,
    range: &Range<u64>,
    order: Order,
) -> Result<Positions, StoreError> {
    // Rows of a term follow each other: the start of the range lies in the last one that begins at it or before.
    let sql = format!(
        "/* event_index::positions */ SELECT positions FROM event_terms
         WHERE ledger_id = $1 AND term = $2 AND first_position < $4
           AND first_position >= coalesce((SELECT max(first_position) FROM event_terms
               WHERE ledger_id = $1 AND term = $2 AND first_position <= $3), 0)
         ORDER BY first_position {} LIMIT {ROWS}",
        order.sql()
    );
    let term = Uuid::from_bytes(*term.as_bytes());
    let (start, end) = (signed(range.start), signed(range.end));
    let params: [&(dyn ToSql + Sync); 4] = [&ledger_id, &term, &start, &end];
    let rows = client.query(&client.prepare_cached(&sql).await?, &params).await?;
    let mut positions: Vec<u64> =
        rows.iter().flat_map(|r| r.get::<_, Vec<i64>>(0)).map(|p| p as u64).collect();
    order.sort(&mut positions);
    let last = positions.last().filter(|_| rows.len() == ROWS as usize);
    let edge = last.map(|last| order.after(*last));
    positions.retain(|p| range.contains(p));
    Ok(Positions { positions, edge })
}

/// Positions are stored with a sign; no ledger comes near the last of them.
pub(crate) fn signed(position: u64) -> i64 {
    position.min(i64::MAX as u64) as i64
}

/// When the secrets of some keys were last used, as far as the index has come.
pub(crate) async fn last_uses(
    client: &Client,
    ledger_id: Uuid,
    key_ids: &[KeyId],
) -> Result<LastUses, StoreError> {
    let sql =
        "/* event_index::last_uses */ SELECT key_id, version, position, time_us FROM key_last_uses
               WHERE ledger_id = $1 AND key_id = ANY($2)";
    let ids: Vec<Uuid> = key_ids.iter().map(|id| id.uuid()).collect();
    let rows = client.query(&client.prepare_cached(sql).await?, &[&ledger_id, &ids]).await?;
    let last = |r: &Row| {
        let secret =
            (KeyId::from_bytes(*r.get::<_, Uuid>(0).as_bytes()), r.get::<_, i32>(1) as u32);
        (secret, LastUse { position: r.get::<_, i64>(2) as u64, time: Time(r.get(3)) })
    };
    Ok(rows.iter().map(last).collect())
}
