//! Keys: their projected rows, and the verifiers of their secrets.

use std::sync::Arc;

use super::client::Client;
use keyledger_ledger::decide::SecretRow;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::record::{ProjectionAt, RowMac, encode_key};
use keyledger_ledger::state::Key;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{StoreError, fixed};

/// The table's name in the MAC of its rows.
pub(crate) const TABLE: &str = "keys";

/// A projected row, not yet believed.
pub(crate) struct KeyRow {
    pub(crate) key_id: KeyId,
    pub(crate) position: u64,
    pub(crate) state: Vec<u8>,
    pub(crate) mac: Vec<u8>,
}

/// Writes the rows of changed keys.
pub(crate) async fn project(
    client: &Client,
    ledger_id: Uuid,
    keys: &[Arc<Key>],
    mac: &RowMac,
) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            "/* keys::project */ INSERT INTO keys (ledger_id, key_id, position, state, mac)
             SELECT $1, * FROM unnest($2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[])
             ON CONFLICT (ledger_id, key_id) DO UPDATE
             SET position = excluded.position, state = excluded.state, mac = excluded.mac",
        )
        .await?;
    let id: Vec<Uuid> = keys.iter().map(|k| k.id.uuid()).collect();
    let position: Vec<i64> = keys.iter().map(|k| k.position as i64).collect();
    let state: Vec<Vec<u8>> = keys.iter().map(|k| encode_key(k)).collect();
    let macs: Vec<Vec<u8>> = keys
        .iter()
        .zip(&state)
        .map(|(k, s)| mac.of(TABLE, ledger_id.as_bytes(), k.id.as_bytes(), k.position, s).to_vec())
        .collect();
    client.execute(&statement, &[&ledger_id, &id, &position, &state, &macs]).await?;
    Ok(())
}

/// Rows of keys after a key id, in the order of ids.
pub(crate) async fn rows_after(
    client: &Client,
    ledger_id: Uuid,
    after: Uuid,
    limit: i64,
) -> Result<Vec<KeyRow>, StoreError> {
    let sql = "/* keys::rows_after */ SELECT key_id, position, state, mac FROM keys
               WHERE ledger_id = $1 AND key_id > $2 ORDER BY key_id LIMIT $3";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&ledger_id, &after, &limit]).await?;
    Ok(rows
        .iter()
        .map(|r| KeyRow {
            key_id: KeyId::from_bytes(*r.get::<_, Uuid>(0).as_bytes()),
            position: r.get::<_, i64>(1) as u64,
            state: r.get(2),
            mac: r.get(3),
        })
        .collect())
}

/// Binds all rows of a ledger to a position.
pub(crate) async fn bind(
    client: &Client,
    ledger_id: Uuid,
    at: &ProjectionAt,
    mac: &[u8; 32],
) -> Result<(), StoreError> {
    let sql =
        "/* keys::bind */ INSERT INTO projections (ledger_id, position, next_page, next_start, next_event, servings, sessions,
                                         counts, mac)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (ledger_id) DO UPDATE
               SET position = excluded.position, next_page = excluded.next_page,
                   next_start = excluded.next_start, next_event = excluded.next_event,
                   servings = excluded.servings, sessions = excluded.sessions, counts = excluded.counts, mac = excluded.mac";
    let (position, page, start) = (at.position as i64, at.next_page as i64, at.next_start as i64);
    let event = at.next_event as i64;
    let (servings, sessions, mac) = (&at.servings, &at.sessions, mac.as_slice());
    let params: [&(dyn ToSql + Sync); 9] =
        [&ledger_id, &position, &page, &start, &event, servings, sessions, &at.counts, &mac];
    client.execute(&client.prepare_cached(sql).await?, &params).await?;
    Ok(())
}

/// The position that all rows are bound to, with its MAC.
pub(crate) async fn binding(
    client: &Client,
    ledger_id: Uuid,
) -> Result<Option<(ProjectionAt, Vec<u8>)>, StoreError> {
    let sql =
        "/* keys::binding */ SELECT position, next_page, next_start, next_event, servings, sessions, counts, mac FROM projections
               WHERE ledger_id = $1";
    let row = client.query_opt(sql, &[&ledger_id]).await?;
    Ok(row.map(|r| {
        let number = |i: usize| r.get::<_, i64>(i) as u64;
        let at = ProjectionAt {
            position: number(0),
            next_page: number(1),
            next_start: number(2),
            next_event: number(3),
            servings: r.get(4),
            sessions: r.get(5),
            counts: r.get(6),
        };
        (at, r.get(7))
    }))
}

/// Writes verifiers of new secrets.
pub(crate) async fn append_secrets(
    client: &Client,
    ledger_id: Uuid,
    secrets: &[SecretRow],
) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            "/* keys::append_secrets */ INSERT INTO key_secrets (ledger_id, key_id, version, verifier, salt, pepper_id)
             SELECT $1, * FROM unnest($2::uuid[], $3::integer[], $4::bytea[], $5::bytea[], $6::integer[])",
        )
        .await?;
    let id: Vec<Uuid> = secrets.iter().map(|s| s.key_id.uuid()).collect();
    let version: Vec<i32> = secrets.iter().map(|s| s.version as i32).collect();
    let verifier: Vec<&[u8]> = secrets.iter().map(|s| s.verifier.as_slice()).collect();
    let salt: Vec<&[u8]> = secrets.iter().map(|s| s.salt.as_slice()).collect();
    let pepper: Vec<i32> = secrets.iter().map(|s| s.pepper_id as i32).collect();
    client.execute(&statement, &[&ledger_id, &id, &version, &verifier, &salt, &pepper]).await?;
    Ok(())
}

/// Verifiers of the given keys.
pub(crate) async fn secrets_of(
    client: &Client,
    ledger_id: Uuid,
    keys: &[KeyId],
) -> Result<Vec<SecretRow>, StoreError> {
    let ids: Vec<Uuid> = keys.iter().map(|k| k.uuid()).collect();
    let sql =
        "/* keys::secrets_of */ SELECT key_id, version, verifier, salt, pepper_id FROM key_secrets
               WHERE ledger_id = $1 AND key_id = ANY($2)";
    let rows = client.query(&client.prepare_cached(sql).await?, &[&ledger_id, &ids]).await?;
    rows.iter()
        .map(|r| {
            Ok(SecretRow {
                key_id: KeyId::from_bytes(*r.get::<_, Uuid>(0).as_bytes()),
                version: r.get::<_, i32>(1) as u32,
                verifier: fixed(r.get(2), "verifier")?,
                salt: fixed(r.get(3), "salt")?,
                pepper_id: r.get::<_, i32>(4) as u32,
            })
        })
        .collect()
}
