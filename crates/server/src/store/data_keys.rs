//! Data keys of subjects, wrapped. They lie in a database of their own.

use super::client::Client;
use uuid::Uuid;

use super::{StoreError, fixed};

/// A data key as it is stored.
pub(crate) struct WrappedKey {
    pub(crate) subject_ref: [u8; 16],
    pub(crate) wrapped: Vec<u8>,
    pub(crate) wrapping_key_id: u32,
}

/// Finds a subject by blind index, or makes it. Two replicas that race agree by the unique index. Committed when it returns.
pub(crate) async fn find_or_insert(
    client: &Client,
    ledger_id: Uuid,
    blind_index: &[u8; 32],
    new: &WrappedKey,
) -> Result<WrappedKey, StoreError> {
    if let Some(found) = find(client, ledger_id, blind_index).await? {
        return Ok(found);
    }
    let sql = "/* data_keys::find_or_insert */
        INSERT INTO data_keys (ledger_id, subject_ref, blind_index, wrapped_key, wrapping_key_id)
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    let (subject_ref, blind) = (new.subject_ref.as_slice(), blind_index.as_slice());
    client
        .execute(
            sql,
            &[&ledger_id, &subject_ref, &blind, &new.wrapped, &(new.wrapping_key_id as i32)],
        )
        .await?;
    let found = find(client, ledger_id, blind_index).await?;
    found.ok_or_else(|| StoreError::Damaged("a data key vanished as it was made".into()))
}

/// A subject by blind index.
pub(crate) async fn find(
    client: &Client,
    ledger_id: Uuid,
    blind_index: &[u8; 32],
) -> Result<Option<WrappedKey>, StoreError> {
    let sql =
        "/* data_keys::find */ SELECT subject_ref, wrapped_key, wrapping_key_id FROM data_keys
               WHERE ledger_id = $1 AND blind_index = $2";
    let blind = blind_index.as_slice();
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&ledger_id, &blind]).await?;
    row.as_ref().map(wrapped).transpose()
}

/// The data keys of the given subjects, as far as they exist.
pub(crate) async fn by_reference(
    client: &Client,
    ledger_id: Uuid,
    references: &[[u8; 16]],
) -> Result<Vec<WrappedKey>, StoreError> {
    let references: Vec<&[u8]> = references.iter().map(|r| r.as_slice()).collect();
    let sql = "/* data_keys::by_reference */ SELECT subject_ref, wrapped_key, wrapping_key_id FROM data_keys
               WHERE ledger_id = $1 AND subject_ref = ANY($2)";
    let rows = client.query(&client.prepare_cached(sql).await?, &[&ledger_id, &references]).await?;
    rows.iter().map(wrapped).collect()
}

fn wrapped(row: &tokio_postgres::Row) -> Result<WrappedKey, StoreError> {
    Ok(WrappedKey {
        subject_ref: fixed(row.get(0), "subject_ref")?,
        wrapped: row.get(1),
        wrapping_key_id: row.get::<_, i32>(2) as u32,
    })
}
