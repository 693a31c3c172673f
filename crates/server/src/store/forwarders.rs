//! Forwarders: how far each has come, and which replica has it. A lease is measured by the database's clock alone; whoever
//! moves a cursor must still be the one that has the forwarder.

use super::client::Client;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;

/// Most forwarders that are listed: those of a configuration, and those that nobody runs any more.
const MAX_LISTED: i64 = 1_000;

/// Where an event stands: position of its entry, index in its page. A cursor stands at the first event that was not sent yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) position: u64,
    pub(crate) index: u32,
}

/// A replica that has a forwarder, or wants it.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) ledger_id: Uuid,
    pub(crate) name: String,
    pub(crate) replica: Uuid,
    pub(crate) lease_ms: i64,
}

/// Where whoever takes a forwarder begins.
pub(crate) struct Taken {
    pub(crate) next: Cursor,
    /// The end of a batch that may have been sent already.
    pub(crate) batch_end: Option<Cursor>,
    pub(crate) failures: u32,
}

/// A forwarder as it is listed.
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) kind: i16,
    pub(crate) next_position: u64,
    /// Who has it now.
    pub(crate) holder: Option<Uuid>,
    pub(crate) failures: u32,
    pub(crate) last_error: String,
    pub(crate) failed_us: Option<i64>,
    pub(crate) sent_us: Option<i64>,
    /// How long ago the first entry was written that it has not passed.
    pub(crate) behind_us: i64,
}

/// Takes a forwarder that nobody has, or that its holder has left. `None`: somebody else has it. One that never ran begins at
/// `start`.
pub(crate) async fn take(
    client: &Client,
    claim: &Claim,
    kind: i16,
    start: u64,
) -> Result<Option<Taken>, StoreError> {
    let sql = "/* forwarders::take */
        INSERT INTO forwarders AS f (ledger_id, name, holder, lease_until, kind, next_position)
        VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 ms', $5, $6)
        ON CONFLICT (ledger_id, name) DO UPDATE
        SET holder = excluded.holder, lease_until = excluded.lease_until, kind = excluded.kind
        WHERE f.holder IS NULL OR f.holder = excluded.holder OR f.lease_until <= clock_timestamp()
        RETURNING next_position, next_index, batch_position, batch_index, failures";
    let lease = claim.lease_ms as f64;
    let params: [&(dyn ToSql + Sync); 6] =
        [&claim.ledger_id, &claim.name, &claim.replica, &lease, &kind, &(start as i64)];
    let row = client.query_opt(&client.prepare_cached(sql).await?, &params).await?;
    Ok(row.map(|row| Taken {
        next: cursor(row.get(0), row.get(1)),
        batch_end: row.get::<_, Option<i64>>(2).zip(row.get(3)).map(|(p, i)| cursor(p, i)),
        failures: row.get::<_, i32>(4) as u32,
    }))
}

/// Has it for longer. `false`: somebody else has it.
pub(crate) async fn renew(client: &Client, claim: &Claim) -> Result<bool, StoreError> {
    let sql = "/* forwarders::renew */
        UPDATE forwarders SET lease_until = clock_timestamp() + $4 * interval '1 ms'
        WHERE ledger_id = $1 AND name = $2 AND holder = $3";
    changed(client, claim, sql, &[]).await
}

/// Says where the batch ends that is sent next, so that whoever takes over sends the same one.
pub(crate) async fn begin(client: &Client, claim: &Claim, end: Cursor) -> Result<bool, StoreError> {
    let sql = "/* forwarders::begin */
        UPDATE forwarders SET batch_position = $5, batch_index = $6,
            lease_until = clock_timestamp() + $4 * interval '1 ms'
        WHERE ledger_id = $1 AND name = $2 AND holder = $3";
    changed(client, claim, sql, &[&(end.position as i64), &(end.index as i32)]).await
}

/// Moves the cursor: everything before it was sent, or was not meant.
pub(crate) async fn advance(
    client: &Client,
    claim: &Claim,
    next: Cursor,
    sent: bool,
) -> Result<bool, StoreError> {
    let sql = "/* forwarders::advance */
        UPDATE forwarders SET next_position = $5, next_index = $6, batch_position = NULL, batch_index = NULL,
            failures = 0, sent_at = CASE WHEN $7 THEN clock_timestamp() ELSE sent_at END,
            lease_until = clock_timestamp() + $4 * interval '1 ms'
        WHERE ledger_id = $1 AND name = $2 AND holder = $3 AND (next_position, next_index) <= ($5, $6)";
    changed(client, claim, sql, &[&(next.position as i64), &(next.index as i32), &sent]).await
}

/// Says that sending has failed once more.
pub(crate) async fn fail(client: &Client, claim: &Claim, error: &str) -> Result<bool, StoreError> {
    let sql = "/* forwarders::fail */
        UPDATE forwarders SET failures = least(failures, 2147483646) + 1, last_error = $5,
            failed_at = clock_timestamp(), lease_until = clock_timestamp() + $4 * interval '1 ms'
        WHERE ledger_id = $1 AND name = $2 AND holder = $3";
    changed(client, claim, sql, &[&error]).await
}

/// Leaves it to others.
pub(crate) async fn release(client: &Client, claim: &Claim) -> Result<(), StoreError> {
    let sql = "/* forwarders::release */ UPDATE forwarders SET holder = NULL, lease_until = NULL
               WHERE ledger_id = $1 AND name = $2 AND holder = $3";
    let params: [&(dyn ToSql + Sync); 3] = [&claim.ledger_id, &claim.name, &claim.replica];
    client.execute(&client.prepare_cached(sql).await?, &params).await?;
    Ok(())
}

/// The forwarders of a ledger, by name.
pub(crate) async fn list(client: &Client, ledger_id: Uuid) -> Result<Vec<Listed>, StoreError> {
    let sql = "/* forwarders::list */
        SELECT name, kind, next_position, CASE WHEN lease_until > clock_timestamp() THEN holder END, failures, last_error,
            (extract(epoch FROM failed_at) * 1000000)::bigint, (extract(epoch FROM sent_at) * 1000000)::bigint,
            (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - (
                SELECT time_us FROM entries AS e WHERE e.ledger_id = f.ledger_id AND e.position = f.next_position)
        FROM forwarders AS f WHERE ledger_id = $1 ORDER BY name LIMIT $2";
    let statement = client.prepare_cached(sql).await?;
    let rows = client.query(&statement, &[&ledger_id, &MAX_LISTED]).await?;
    let listed = |row: &Row| Listed {
        name: row.get(0),
        kind: row.get(1),
        next_position: row.get::<_, i64>(2) as u64,
        holder: row.get(3),
        failures: row.get::<_, i32>(4) as u32,
        last_error: row.get::<_, Option<String>>(5).unwrap_or_default(),
        failed_us: row.get(6),
        sent_us: row.get(7),
        behind_us: row.get::<_, Option<i64>>(8).unwrap_or_default().max(0),
    };
    Ok(rows.iter().map(listed).collect())
}

/// Runs a change of the row that only its holder makes. `false`: it has another one.
async fn changed(
    client: &Client,
    claim: &Claim,
    sql: &str,
    more: &[&(dyn ToSql + Sync)],
) -> Result<bool, StoreError> {
    let lease = claim.lease_ms as f64;
    let mut params: Vec<&(dyn ToSql + Sync)> =
        vec![&claim.ledger_id, &claim.name, &claim.replica, &lease];
    params.extend(more);
    Ok(client.execute(&client.prepare_cached(sql).await?, &params).await? == 1)
}

fn cursor(position: i64, index: i32) -> Cursor {
    Cursor { position: position as u64, index: index as u32 }
}
