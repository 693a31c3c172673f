//! Request ids that were answered (AIP-155). Kept for good.

use std::collections::HashMap;

use super::client::Client;
use keyledger_ledger::batch::{KnownRequest, NewRequest};
use keyledger_ledger::id::KeyId;
use uuid::Uuid;

use super::{StoreError, fixed};

pub(crate) async fn append(
    client: &Client,
    ledger_id: Uuid,
    requests: &[NewRequest],
) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            "/* requests::append */ INSERT INTO requests (ledger_id, caller_key_id, request_id, digest, position)
             SELECT $1, * FROM unnest($2::uuid[], $3::uuid[], $4::bytea[], $5::bigint[])",
        )
        .await?;
    let caller: Vec<Uuid> = requests.iter().map(|r| r.caller.uuid()).collect();
    let id: Vec<Uuid> = requests.iter().map(|r| Uuid::from_bytes(r.id)).collect();
    let digest: Vec<&[u8]> = requests.iter().map(|r| r.known.digest.as_slice()).collect();
    let position: Vec<i64> = requests.iter().map(|r| r.known.position as i64).collect();
    client.execute(&statement, &[&ledger_id, &caller, &id, &digest, &position]).await?;
    Ok(())
}

/// Which of these (caller, request id) were answered before.
pub(crate) async fn known(
    client: &Client,
    ledger_id: Uuid,
    asked: &[(KeyId, [u8; 16])],
) -> Result<HashMap<(KeyId, [u8; 16]), KnownRequest>, StoreError> {
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = client
        .prepare_cached(
            "/* requests::known */ SELECT r.caller_key_id, r.request_id, r.digest, r.position
             FROM unnest($2::uuid[], $3::uuid[]) AS a (caller, id)
             JOIN requests r ON r.ledger_id = $1 AND r.caller_key_id = a.caller AND r.request_id = a.id",
        )
        .await?;
    let caller: Vec<Uuid> = asked.iter().map(|(key, _)| key.uuid()).collect();
    let id: Vec<Uuid> = asked.iter().map(|(_, id)| Uuid::from_bytes(*id)).collect();
    let rows = client.query(&statement, &[&ledger_id, &caller, &id]).await?;
    rows.iter()
        .map(|r| {
            let caller = KeyId::from_bytes(*r.get::<_, Uuid>(0).as_bytes());
            let known = KnownRequest {
                digest: fixed(r.get(2), "digest")?,
                position: r.get::<_, i64>(3) as u64,
            };
            Ok(((caller, *r.get::<_, Uuid>(1).as_bytes()), known))
        })
        .collect()
}
