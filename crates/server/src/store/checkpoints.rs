//! Signed checkpoints, kept for good.

use super::client::Client;
use uuid::Uuid;

use super::StoreError;

/// Keeps a note. Another replica may have signed the same size.
pub(crate) async fn append(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
    note: &str,
) -> Result<(), StoreError> {
    let sql = "/* checkpoints::append */ INSERT INTO checkpoints (ledger_id, size, note) VALUES ($1, $2, $3)
               ON CONFLICT DO NOTHING";
    client
        .execute(&client.prepare_cached(sql).await?, &[&ledger_id, &(size as i64), &note])
        .await?;
    Ok(())
}

/// The note of the largest size.
pub(crate) async fn newest(client: &Client, ledger_id: Uuid) -> Result<Option<String>, StoreError> {
    let sql = "/* checkpoints::newest */ SELECT note FROM checkpoints WHERE ledger_id = $1 ORDER BY size DESC LIMIT 1";
    Ok(client.query_opt(sql, &[&ledger_id]).await?.map(|r| r.get(0)))
}

/// Sizes and notes, smallest first.
pub(crate) async fn all(
    client: &Client,
    ledger_id: Uuid,
) -> Result<Vec<(u64, String)>, StoreError> {
    let sql = "/* checkpoints::all */ SELECT size, note FROM checkpoints WHERE ledger_id = $1 ORDER BY size";
    let rows = client.query(sql, &[&ledger_id]).await?;
    Ok(rows.iter().map(|r| (r.get::<_, i64>(0) as u64, r.get(1))).collect())
}
