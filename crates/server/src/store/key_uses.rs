//! The index of uses by key: filled behind the commit, a row per key and run of pages; and when each secret was last used.
//! Queries read newer pages themselves.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use keyledger_ledger::id::{KeyId, Time};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;

/// When secrets, by key and version, were last used: position and time.
pub(crate) type LastUses = BTreeMap<(KeyId, u32), LastUse>;

#[derive(Clone, Copy)]
pub(crate) struct LastUse {
    pub(crate) position: u64,
    pub(crate) time: Time,
}

/// The first position that the index doesn't cover yet.
pub(crate) async fn progress(client: &Client, ledger_id: Uuid) -> Result<u64, StoreError> {
    let sql =
        "/* key_uses::progress */ SELECT next_position FROM key_uses_progress WHERE ledger_id = $1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(row.map_or(0, |r| r.get::<_, i64>(0) as u64))
}

/// Adds a run of entries and moves on, unless another replica did it first. All in one statement: all or nothing.
pub(crate) async fn advance(
    client: &Client,
    ledger_id: Uuid,
    from: u64,
    to: u64,
    pages: &BTreeMap<KeyId, Vec<i64>>,
    last_uses: &LastUses,
) -> Result<(), StoreError> {
    let insert = "/* key_uses::advance */ INSERT INTO key_uses_progress (ledger_id, next_position) VALUES ($1, 0)
                  ON CONFLICT DO NOTHING";
    client.execute(insert, &[&ledger_id]).await?;
    // A row holds its positions as text, since arrays of arrays must be rectangular.
    let sql = "/* key_uses::advance */
        WITH moved AS (
            UPDATE key_uses_progress SET next_position = $3
            WHERE ledger_id = $1 AND next_position = $2 RETURNING 1),
        used AS (
            INSERT INTO key_last_uses AS l (ledger_id, key_id, version, position, time_us)
            SELECT $1, a.* FROM unnest($6::uuid[], $7::integer[], $8::bigint[], $9::bigint[]) AS a, moved
            ON CONFLICT (ledger_id, key_id, version) DO UPDATE
            SET position = GREATEST(l.position, excluded.position), time_us = GREATEST(l.time_us, excluded.time_us))
        INSERT INTO key_uses (ledger_id, key_id, first_position, positions)
        SELECT $1, a.key_id, (a.positions::bigint[])[1], a.positions::bigint[]
        FROM unnest($4::uuid[], $5::text[]) AS a (key_id, positions), moved";
    let ids: Vec<Uuid> = pages.keys().map(|k| k.uuid()).collect();
    let positions: Vec<String> = pages
        .values()
        .map(|p| format!("{{{}}}", p.iter().map(i64::to_string).collect::<Vec<_>>().join(",")))
        .collect();
    let used_ids: Vec<Uuid> = last_uses.keys().map(|(key, _)| key.uuid()).collect();
    let versions: Vec<i32> = last_uses.keys().map(|(_, version)| *version as i32).collect();
    let used_at: Vec<i64> = last_uses.values().map(|last| last.position as i64).collect();
    let times: Vec<i64> = last_uses.values().map(|last| last.time.micros()).collect();
    let params: [&(dyn ToSql + Sync); 9] = [
        &ledger_id,
        &(from as i64),
        &(to as i64),
        &ids,
        &positions,
        &used_ids,
        &versions,
        &used_at,
        &times,
    ];
    client.execute(&client.prepare_cached(sql).await?, &params).await?;
    Ok(())
}

/// Positions below `before` of indexed pages that hold uses of a key, newest first.
pub(crate) async fn positions(
    client: &Client,
    ledger_id: Uuid,
    key_id: KeyId,
    before: u64,
    limit: i64,
) -> Result<Vec<u64>, StoreError> {
    let sql = "/* key_uses::positions */
        SELECT p FROM key_uses, unnest(positions) AS p
        WHERE ledger_id = $1 AND key_id = $2 AND first_position < $3 AND p < $3
          AND first_position >= coalesce((SELECT min(first_position) FROM (
              SELECT first_position FROM key_uses
              WHERE ledger_id = $1 AND key_id = $2 AND first_position < $3
              ORDER BY first_position DESC LIMIT $4) AS newest), 0)
        ORDER BY p DESC LIMIT $4";
    let params: [&(dyn ToSql + Sync); 4] =
        [&ledger_id, &key_id.uuid(), &(before.min(i64::MAX as u64) as i64), &limit];
    let rows = client.query(&client.prepare_cached(sql).await?, &params).await?;
    Ok(rows.iter().map(|r| r.get::<_, i64>(0) as u64).collect())
}

/// When the secrets of some keys were last used, as far as the index has come.
pub(crate) async fn last_uses(
    client: &Client,
    ledger_id: Uuid,
    key_ids: &[KeyId],
) -> Result<LastUses, StoreError> {
    let sql =
        "/* key_uses::last_uses */ SELECT key_id, version, position, time_us FROM key_last_uses
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
