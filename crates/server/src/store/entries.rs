//! Entries: reading them in every order that queries need, and appending a batch.

use super::client::{Client, Prepared, Rows};
use keyledger_ledger::batch::NewEntry;
use keyledger_ledger::entry::Entry;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::record::Columns;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};
use uuid::Uuid;

use super::event_index::Order;
use super::{StoreError, fixed};

/// An entry with its position. Uses and sealed texts are read only where they are needed.
pub(crate) struct StoredEntry {
    pub(crate) position: u64,
    pub(crate) entry: Entry,
}

/// An entry with all that lies beside it.
pub(crate) struct FullEntry {
    pub(crate) position: u64,
    pub(crate) entry: Entry,
    pub(crate) sealed: Vec<u8>,
    pub(crate) uses: Vec<u8>,
    pub(crate) columns: Columns,
}

const BRIEF: &str = "position, payload_type, body, public_key_sha256, signature";
const FULL: &str = "position, payload_type, body, public_key_sha256, signature, sealed, uses, kind, time_us, key_id, \
                    stream_version, caller_key_id, trace_id, use_count, leaf_hash, category";

/// Prepares [`append_prepared`]. Later, on the same connection, it costs nothing.
pub(crate) async fn prepare_append(client: &Client) -> Result<Prepared, StoreError> {
    let sql = "/* entries::append */
        INSERT INTO entries (ledger_id, position, payload_type, body, public_key_sha256, signature, sealed, uses,
                             kind, time_us, key_id, stream_version, caller_key_id, trace_id, use_count, leaf_hash, category)
        SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[], $5::bytea[], $6::bytea[], $7::bytea[],
                                 $8::bytea[], $9::smallint[], $10::bigint[], $11::uuid[], $12::integer[],
                                 $13::uuid[], $14::bytea[], $15::integer[], $16::bytea[], $17::text[])";
    Ok(client.prepare_cached(sql).await?)
}

/// Appends a batch. Its positions follow each other; the primary key is the fence.
pub(crate) async fn append_prepared(
    client: &Client,
    statement: &Prepared,
    ledger_id: Uuid,
    entries: &[NewEntry],
) -> Result<(), StoreError> {
    let columns: Vec<Columns> =
        entries.iter().map(|e| Columns::derive(&e.event, e.leaf_hash)).collect();
    let position: Vec<i64> = entries.iter().map(|e| e.position as i64).collect();
    let payload_type: Vec<&str> = entries.iter().map(|e| e.entry.payload_type.as_str()).collect();
    let body: Vec<&[u8]> = entries.iter().map(|e| e.entry.body.as_slice()).collect();
    let public_key: Vec<&[u8]> =
        entries.iter().map(|e| e.entry.public_key_sha256.as_slice()).collect();
    let signature: Vec<&[u8]> = entries.iter().map(|e| e.entry.signature.as_slice()).collect();
    let sealed: Vec<&[u8]> = entries.iter().map(|e| e.sealed.as_slice()).collect();
    let uses: Vec<&[u8]> = entries.iter().map(|e| e.uses.as_slice()).collect();
    let kind: Vec<i16> = columns.iter().map(|c| c.kind).collect();
    let time: Vec<i64> = columns.iter().map(|c| c.time_us).collect();
    let key_id: Vec<Option<Uuid>> = columns.iter().map(|c| c.key_id.map(|id| id.uuid())).collect();
    let stream_version: Vec<Option<i32>> = columns.iter().map(|c| c.stream_version).collect();
    let caller: Vec<Option<Uuid>> =
        columns.iter().map(|c| c.caller_key_id.map(|id| id.uuid())).collect();
    let trace: Vec<Option<&[u8]>> =
        columns.iter().map(|c| c.trace_id.as_ref().map(|t| t.as_slice())).collect();
    let use_count: Vec<i32> = columns.iter().map(|c| c.use_count).collect();
    let category: Vec<Option<&str>> = columns.iter().map(|c| c.category.as_deref()).collect();
    let leaf_hash: Vec<&[u8]> = entries.iter().map(|e| e.leaf_hash.as_slice()).collect();
    client
        .execute(
            statement,
            &[
                &ledger_id,
                &position,
                &payload_type,
                &body,
                &public_key,
                &signature,
                &sealed,
                &uses,
                &kind,
                &time,
                &key_id,
                &stream_version,
                &caller,
                &trace,
                &use_count,
                &leaf_hash,
                &category,
            ],
        )
        .await?;
    Ok(())
}

/// Prepares [`from_position_prepared`].
pub(crate) async fn prepare_from_position(client: &Client) -> Result<Prepared, StoreError> {
    let sql = format!(
        "/* entries::from_position */ SELECT {BRIEF} FROM entries
         WHERE ledger_id = $1 AND position >= $2 ORDER BY position LIMIT $3"
    );
    Ok(client.prepare_cached(&sql).await?)
}

/// Entries from a position on, in order, without what lies beside them.
pub(crate) async fn from_position_prepared(
    client: &Client,
    statement: &Prepared,
    ledger_id: Uuid,
    position: u64,
    limit: i64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let rows = client.query(statement, &[&ledger_id, &(position as i64), &limit]).await?;
    rows.iter().map(brief).collect()
}

/// Entries from a position on, in order, without what lies beside them.
pub(crate) async fn from_position(
    client: &Client,
    ledger_id: Uuid,
    position: u64,
    limit: i64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let statement = prepare_from_position(client).await?;
    from_position_prepared(client, &statement, ledger_id, position, limit).await
}

/// Entries from a position on, in order, whole; at most about `max_bytes` of them, and at least one if there is one.
pub(crate) async fn full_from_position(
    client: &Client,
    ledger_id: Uuid,
    position: u64,
    limit: i64,
    max_bytes: usize,
) -> Result<Vec<FullEntry>, StoreError> {
    let sql = format!(
        "/* entries::full_from_position */ SELECT {FULL} FROM entries
         WHERE ledger_id = $1 AND position >= $2 ORDER BY position LIMIT $3"
    );
    whole(client, &sql, [&ledger_id, &(position as i64), &limit], max_bytes).await
}

/// The same, without pages of uses.
pub(crate) async fn full_without_pages(
    client: &Client,
    ledger_id: Uuid,
    position: u64,
    limit: i64,
    max_bytes: usize,
) -> Result<Vec<FullEntry>, StoreError> {
    let sql = format!(
        "/* entries::full_without_pages */ SELECT {FULL} FROM entries
         WHERE ledger_id = $1 AND position >= $2 AND kind <> 23 ORDER BY position LIMIT $3"
    );
    whole(client, &sql, [&ledger_id, &(position as i64), &limit], max_bytes).await
}

async fn whole(
    client: &Client,
    sql: &str,
    params: [&(dyn ToSql + Sync); 3],
    max_bytes: usize,
) -> Result<Vec<FullEntry>, StoreError> {
    let statement = client.prepare_cached(sql).await?;
    up_to(client.query_raw(&statement, params).await?, max_bytes).await
}

/// Whole entries at the given positions, in order.
pub(crate) async fn at_positions(
    client: &Client,
    ledger_id: Uuid,
    positions: &[u64],
) -> Result<Vec<FullEntry>, StoreError> {
    some_at_positions(client, ledger_id, positions, Order::OldestFirst, usize::MAX).await
}

/// Whole entries at the given positions, in an order; at most about `max_bytes` of them, and at least one if there is one.
pub(crate) async fn some_at_positions(
    client: &Client,
    ledger_id: Uuid,
    positions: &[u64],
    order: Order,
    max_bytes: usize,
) -> Result<Vec<FullEntry>, StoreError> {
    let sql = format!(
        "/* entries::at_positions */ SELECT {FULL} FROM entries
         WHERE ledger_id = $1 AND position = ANY($2) ORDER BY position {}",
        order.sql()
    );
    let positions: Vec<i64> = positions.iter().map(|p| *p as i64).collect();
    let statement = client.prepare_cached(&sql).await?;
    let params: [&(dyn ToSql + Sync); 2] = [&ledger_id, &positions];
    up_to(client.query_raw(&statement, params).await?, max_bytes).await
}

/// Pages of uses at the given positions, one by one: their position, their time, and what lies beside them.
pub(crate) async fn each_page_at(
    client: &Client,
    ledger_id: Uuid,
    positions: &[u64],
    mut take: impl FnMut(u64, Time, &[u8]),
) -> Result<(), StoreError> {
    let sql = "/* entries::each_page_at */ SELECT position, time_us, uses FROM entries
               WHERE ledger_id = $1 AND position = ANY($2) AND kind = 23";
    let positions: Vec<i64> = positions.iter().map(|p| *p as i64).collect();
    let statement = client.prepare_cached(sql).await?;
    let params: [&(dyn ToSql + Sync); 2] = [&ledger_id, &positions];
    let mut rows = client.query_raw(&statement, params).await?;
    while let Some(row) = rows.next().await? {
        let position: i64 = column(&row, 0)?;
        take(position as u64, Time(column(&row, 1)?), column(&row, 2)?);
    }
    rows.end();
    Ok(())
}

/// Reads rows until there are so many bytes.
async fn up_to(mut rows: Rows, max_bytes: usize) -> Result<Vec<FullEntry>, StoreError> {
    let (mut entries, mut bytes) = (vec![], 0);
    while let Some(row) = rows.next().await? {
        let entry = full(&row)?;
        bytes += entry.uses.len() + entry.entry.body.len() + entry.sealed.len();
        entries.push(entry);
        if bytes >= max_bytes {
            break;
        }
    }
    rows.end();
    Ok(entries)
}

/// When an entry was written.
pub(crate) async fn time_of(
    client: &Client,
    ledger_id: Uuid,
    position: u64,
) -> Result<Time, StoreError> {
    let sql =
        "/* entries::time_of */ SELECT time_us FROM entries WHERE ledger_id = $1 AND position = $2";
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_one(&statement, &[&ledger_id, &(position as i64)]).await?;
    Ok(Time(row.get(0)))
}

/// The first position among the first `size` entries at a time or later: as many are older. `size` if there is none.
pub(crate) async fn first_at(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
    time: Time,
) -> Result<u64, StoreError> {
    size_at(client, ledger_id, size, time.plus_micros(-1)).await
}

/// How many of the first `size` entries were written up to a time. Times never run backwards, so halving finds it.
pub(crate) async fn size_at(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
    time: Time,
) -> Result<u64, StoreError> {
    let sql = "/* entries::size_at */ WITH RECURSIVE halving (low, high) AS (
            SELECT 0::bigint, $2::bigint
            UNION ALL
            SELECT CASE WHEN e.time_us <= $3 THEN e.position + 1 ELSE h.low END,
                   CASE WHEN e.time_us <= $3 THEN h.high ELSE e.position END
            FROM halving h, LATERAL (
                SELECT position, time_us FROM entries
                WHERE ledger_id = $1 AND position = h.low + (h.high - h.low) / 2) e
            WHERE h.low < h.high)
        SELECT low FROM halving WHERE low = high";
    let statement = client.prepare_cached(sql).await?;
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &(size as i64), &time.micros()];
    let row = client.query_opt(&statement, &params).await?;
    let row = row.ok_or_else(|| StoreError::Damaged("an entry is missing".into()))?;
    Ok(row.get::<_, i64>(0) as u64)
}

/// The lifecycle entries of a key up to a position, oldest first.
pub(crate) async fn of_key(
    client: &Client,
    ledger_id: Uuid,
    key_id: KeyId,
    up_to: u64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let sql = format!(
        "/* entries::of_key */ SELECT {BRIEF} FROM entries
         WHERE ledger_id = $1 AND key_id = $2 AND position <= $3 ORDER BY stream_version"
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&ledger_id, &key_id.uuid(), &(up_to as i64)]).await?;
    rows.iter().map(brief).collect()
}

/// Changes before a position that are about no key (roles, permissions, ledgers, opening, what was noticed and told), oldest first.
pub(crate) async fn about_no_key(
    client: &Client,
    ledger_id: Uuid,
    before: u64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let sql = format!(
        "/* entries::about_no_key */ SELECT {BRIEF} FROM entries
         WHERE ledger_id = $1 AND key_id IS NULL AND kind NOT IN (23, 39, 40) AND position < $2 ORDER BY position"
    );
    let rows = client.query(sql.as_str(), &[&ledger_id, &(before as i64)]).await?;
    rows.iter().map(brief).collect()
}

/// Changes in a range of positions, oldest first.
pub(crate) async fn changes(
    client: &Client,
    ledger_id: Uuid,
    range: std::ops::Range<u64>,
    limit: i64,
) -> Result<Vec<StoredEntry>, StoreError> {
    let sql = format!(
        "/* entries::changes */ SELECT {BRIEF} FROM entries
         WHERE ledger_id = $1 AND position >= $2 AND position < $3 AND kind NOT IN (23, 39, 40) ORDER BY position LIMIT $4"
    );
    let statement = client.prepare_cached(&sql).await?;
    let params: [&(dyn ToSql + Sync); 4] =
        [&ledger_id, &(range.start as i64), &(range.end as i64), &limit];
    client.query(&statement, &params).await?.iter().map(brief).collect()
}

/// How many changes that are about no key there are before a position, counted up to a limit.
pub(crate) async fn count_about_no_key(
    client: &Client,
    ledger_id: Uuid,
    before: u64,
    limit: u64,
) -> Result<u64, StoreError> {
    let sql = "/* entries::count_about_no_key */ SELECT count(*) FROM (
                   SELECT FROM entries WHERE ledger_id = $1 AND position < $2 AND key_id IS NULL AND kind NOT IN (23, 39, 40)
                   LIMIT $3) AS counted";
    let statement = client.prepare_cached(sql).await?;
    let params: [&(dyn ToSql + Sync); 3] = [&ledger_id, &(before as i64), &(limit as i64)];
    Ok(client.query_one(&statement, &params).await?.get::<_, i64>(0) as u64)
}

/// The newest entry before a position that is marked as being of a kind (a page, or an event of another service).
pub(crate) async fn newest_of_kind(
    client: &Client,
    ledger_id: Uuid,
    kind: i16,
    position: u64,
) -> Result<Option<StoredEntry>, StoreError> {
    let sql = format!(
        "/* entries::newest_of_kind */ SELECT {BRIEF} FROM entries
         WHERE ledger_id = $1 AND kind = {kind} AND position < $2 ORDER BY position DESC LIMIT 1"
    );
    let statement = client.prepare_cached(&sql).await?;
    let position = position.min(i64::MAX as u64) as i64;
    client.query_opt(&statement, &[&ledger_id, &position]).await?.as_ref().map(brief).transpose()
}

/// Position of the newest entry that tells how many events of each category there are.
pub(crate) async fn newest_counts(
    client: &Client,
    ledger_id: Uuid,
) -> Result<Option<u64>, StoreError> {
    let sql = "/* entries::newest_counts */ SELECT position FROM entries
               WHERE ledger_id = $1 AND kind = 40 ORDER BY position DESC LIMIT 1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(row.map(|r| r.get::<_, i64>(0) as u64))
}

/// How many entries there are: the newest position plus one.
pub(crate) async fn size(client: &Client, ledger_id: Uuid) -> Result<u64, StoreError> {
    let sql = "/* entries::size */ SELECT position FROM entries WHERE ledger_id = $1 ORDER BY position DESC LIMIT 1";
    let row = client.query_opt(sql, &[&ledger_id]).await?;
    Ok(row.map_or(0, |r| r.get::<_, i64>(0) as u64 + 1))
}

fn brief(row: &Row) -> Result<StoredEntry, StoreError> {
    let position: i64 = column(row, 0)?;
    let entry = Entry {
        payload_type: column(row, 1)?,
        body: column(row, 2)?,
        public_key_sha256: fixed(column(row, 3)?, "public_key_sha256")?,
        signature: fixed(column(row, 4)?, "signature")?,
    };
    Ok(StoredEntry { position: position as u64, entry })
}

fn full(row: &Row) -> Result<FullEntry, StoreError> {
    let StoredEntry { position, entry } = brief(row)?;
    let key_id = |i: usize| {
        column::<Option<Uuid>>(row, i).map(|id| id.map(|u| KeyId::from_bytes(*u.as_bytes())))
    };
    let trace_id: Option<&[u8]> = column(row, 12)?;
    let columns = Columns {
        kind: column(row, 7)?,
        time_us: column(row, 8)?,
        key_id: key_id(9)?,
        stream_version: column(row, 10)?,
        caller_key_id: key_id(11)?,
        trace_id: trace_id.map(|t| fixed(t, "trace_id")).transpose()?,
        use_count: column(row, 13)?,
        leaf_hash: fixed(column(row, 14)?, "leaf_hash")?,
        category: column(row, 15)?,
    };
    Ok(FullEntry { position, entry, sealed: column(row, 5)?, uses: column(row, 6)?, columns })
}

/// A column that somebody may have damaged: NULL where the schema had none is a finding, not a panic.
fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|_| {
        let name = row.columns().get(index).map_or("?", |c| c.name());
        StoreError::Damaged(format!("column {name} of an entry can't be read"))
    })
}
