//! Digests of imported keys, beside the ledger until their first use.

use super::client::Client;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::imported::ImportedRow;
use uuid::Uuid;

use super::{StoreError, fixed};

/// A row, not yet believed.
pub(crate) struct FoundDigest {
    pub(crate) key_id: KeyId,
    pub(crate) digest: Vec<u8>,
    pub(crate) salt: [u8; 32],
}

/// Writes digests of keys that were just imported.
pub(crate) async fn append(
    client: &Client,
    ledger_id: Uuid,
    rows: &[ImportedRow],
) -> Result<(), StoreError> {
    let sql =
        "/* imported::append */ INSERT INTO imported_secrets (ledger_id, key_id, digest, salt)
               SELECT $1, * FROM unnest($2::uuid[], $3::bytea[], $4::bytea[])";
    let ids: Vec<Uuid> = rows.iter().map(|r| r.key_id.uuid()).collect();
    let digests: Vec<Vec<u8>> = rows.iter().map(|r| r.digest.to_bytes()).collect();
    let salts: Vec<&[u8]> = rows.iter().map(|r| r.salt.as_slice()).collect();
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&ledger_id, &ids, &digests, &salts]).await?;
    Ok(())
}

/// Digests of the given keys, as far as they are still there.
pub(crate) async fn of_keys(
    client: &Client,
    ledger_id: Uuid,
    keys: &[KeyId],
) -> Result<Vec<FoundDigest>, StoreError> {
    let sql = "/* imported::of_keys */ SELECT key_id, digest, salt FROM imported_secrets
               WHERE ledger_id = $1 AND key_id = ANY($2)";
    let ids: Vec<Uuid> = keys.iter().map(|k| k.uuid()).collect();
    let rows = client.query(&client.prepare_cached(sql).await?, &[&ledger_id, &ids]).await?;
    let found = |row: &tokio_postgres::Row| {
        let key_id = KeyId::from_bytes(*row.get::<_, Uuid>(0).as_bytes());
        Ok(FoundDigest { key_id, digest: row.get(1), salt: fixed(row.get(2), "salt")? })
    };
    rows.iter().map(found).collect()
}

/// Deletes digests that verifiers of our own have taken the place of.
pub(crate) async fn delete(
    client: &Client,
    ledger_id: Uuid,
    keys: &[KeyId],
) -> Result<(), StoreError> {
    let sql = "/* imported::delete */ DELETE FROM imported_secrets
               WHERE ledger_id = $1 AND key_id = ANY($2)";
    let ids: Vec<Uuid> = keys.iter().map(|k| k.uuid()).collect();
    client.execute(&client.prepare_cached(sql).await?, &[&ledger_id, &ids]).await?;
    Ok(())
}
