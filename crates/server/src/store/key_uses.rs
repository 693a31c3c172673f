//! The index of uses by key: filled behind the commit, a row per key and run of pages. Queries read newer pages themselves.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use keyledger_ledger::id::KeyId;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;

/// The first position that the index doesn't cover yet.
pub(crate) async fn progress(client: &Client, ledger_id: Uuid) -> Result<u64, StoreError> {
    let sql =
        "/* key_uses::progress */ SELECT next_position FROM key_uses_progress WHERE ledger_id = $1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id]).await?;
    Ok(row.map_or(0, |r| r.get::<_, i64>(0) as u64))
}

/// Adds a run of pages and moves on, unless another replica did it first. Both in one statement: all or nothing.
pub(crate) async fn advance(
    client: &Client,
    ledger_id: Uuid,
    from: u64,
    to: u64,
    pages: &BTreeMap<KeyId, Vec<i64>>,
) -> Result<(), StoreError> {
    let insert = "/* key_uses::advance */ INSERT INTO key_uses_progress (ledger_id, next_position) VALUES ($1, 0)
                  ON CONFLICT DO NOTHING";
    client.execute(insert, &[&ledger_id]).await?;
    // A row holds its positions as text, since arrays of arrays must be rectangular.
    let sql = "/* key_uses::advance */
        WITH moved AS (
            UPDATE key_uses_progress SET next_position = $3
            WHERE ledger_id = $1 AND next_position = $2 RETURNING 1)
        INSERT INTO key_uses (ledger_id, key_id, first_position, positions)
        SELECT $1, a.key_id, (a.positions::bigint[])[1], a.positions::bigint[]
        FROM unnest($4::uuid[], $5::text[]) AS a (key_id, positions), moved";
    let ids: Vec<Uuid> = pages.keys().map(|k| k.uuid()).collect();
    let positions: Vec<String> = pages
        .values()
        .map(|p| format!("{{{}}}", p.iter().map(i64::to_string).collect::<Vec<_>>().join(",")))
        .collect();
    let params: [&(dyn ToSql + Sync); 5] =
        [&ledger_id, &(from as i64), &(to as i64), &ids, &positions];
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
