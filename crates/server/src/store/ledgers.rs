//! Ledgers: their rows, and the lock that orders their batches.

use deadpool_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::StoreError;
use super::connect::Database;
use super::entries::{self, StoredEntry};

/// How long one replica waits for another's batch.
pub(crate) const LOCK_TIMEOUT_MS: u64 = 4_000;
/// How long a transaction may sit idle while it holds the lock: a frozen replica loses it after this.
pub(crate) const IDLE_TIMEOUT_MS: u64 = 2_500;
/// How long one statement may take.
pub(crate) const STATEMENT_TIMEOUT_MS: u64 = 8_000;

/// Makes the row of a ledger, if it isn't there.
pub(crate) async fn insert(
    client: &Client,
    ledger_id: Uuid,
    number: u32,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* ledgers::insert */ INSERT INTO ledgers (ledger_id, number) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&ledger_id, &(number as i32)],
        )
        .await?;
    Ok(())
}

/// The id of a ledger by its number.
pub(crate) async fn find(client: &Client, number: u32) -> Result<Option<Uuid>, StoreError> {
    let row = client
        .query_opt(
            "/* ledgers::find */ SELECT ledger_id FROM ledgers WHERE number = $1",
            &[&(number as i32)],
        )
        .await?;
    Ok(row.map(|r| r.get(0)))
}

/// All ledgers, by number.
pub(crate) async fn all(client: &Client) -> Result<Vec<(Uuid, u32)>, StoreError> {
    let rows = client
        .query("/* ledgers::all */ SELECT ledger_id, number FROM ledgers ORDER BY number", &[])
        .await?;
    Ok(rows.iter().map(|r| (r.get(0), r.get::<_, i32>(1) as u32)).collect())
}

/// A transaction that holds a ledger's lock. Dropped without [`Locked::commit`], the connection is closed and Postgres
/// rolls back.
pub(crate) struct Locked {
    client: Option<Client>,
    /// The database's clock, read after the lock was had: microseconds since 1970-01-01 UTC.
    pub(crate) clock_us: i64,
    /// What others appended since `next_position`, at most `limit`.
    pub(crate) news: Vec<StoredEntry>,
}

impl Locked {
    /// Takes the lock, then reads clock and newest entries. Two statements: one that merged them would read with a
    /// snapshot from before the lock was had.
    pub(crate) async fn begin(
        database: &Database,
        ledger_id: Uuid,
        next_position: u64,
        limit: i64,
    ) -> Result<Locked, StoreError> {
        let client = database.client().await?;
        let mut locked = Locked { client: Some(client), clock_us: 0, news: vec![] };
        locked.lock(database, ledger_id).await?;
        let client = locked.client();
        let clock = client
            .prepare_typed_cached(
                "/* Locked::begin */ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
                &[],
            )
            .await?;
        let clock = client.query_one(&clock, &[]);
        let news = entries::from_position(client, ledger_id, next_position, limit);
        let (clock, news) =
            tokio::try_join!(async { clock.await.map_err(StoreError::from) }, news)?;
        let clock_us = clock.get(0);
        locked.clock_us = clock_us;
        locked.news = news;
        Ok(locked)
    }

    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("only the end of commit, and drop, take the client")
    }

    /// After this has returned Ok, the batch is durable. With [`StoreError::OutcomeUnknown`] it may be; with any other
    /// error it certainly isn't.
    pub(crate) async fn commit(mut self, database: &Database) -> Result<(), StoreError> {
        let unreplicated = database.unreplicated_commits();
        let committed = self.client().batch_execute("COMMIT").await;
        committed.map_err(|e| StoreError::OutcomeUnknown(e.to_string()))?;
        // Good for the next batch; on any other way out of here the connection is closed.
        drop(self.client.take());
        match database.unreplicated_commits() == unreplicated {
            true => Ok(()),
            false => Err(StoreError::OutcomeUnknown("no standby has confirmed it".into())),
        }
    }

    async fn lock(&self, database: &Database, ledger_id: Uuid) -> Result<(), StoreError> {
        let client = self.client();
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; \
             SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; \
             SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
        );
        let statement = client
            .prepare_typed_cached(
                "/* Locked::lock */ SELECT pg_backend_pid() FROM ledgers WHERE ledger_id = $1 FOR UPDATE",
                &[Type::UUID],
            )
            .await?;
        // Both are sent at once; Postgres runs them in order.
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&ledger_id];
        let (begun, row) =
            tokio::join!(client.batch_execute(&begin), client.query_opt(&statement, &params));
        begun?;
        match row.map_err(StoreError::from) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(StoreError::Damaged("the ledger's row is gone".into())),
            Err(StoreError::LockTimeout) => {
                end_stuck_holders(database).await?;
                Err(StoreError::LockTimeout)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            super::connect::discard(client);
        }
    }
}

/// Ends backends of ours that have held a transaction open for longer than any timeout of theirs allows. Postgres itself
/// serves no timeout while it is blocked sending to a frozen client, or in COPY.
async fn end_stuck_holders(database: &Database) -> Result<(), StoreError> {
    let ended = database
        .client()
        .await?
        .query(
            "/* ledgers::end_stuck_holders */
             SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE usename = current_user AND datname = current_database() AND application_name = 'keyledger'
               AND pid <> pg_backend_pid() AND query LIKE '/* %' AND wait_event_type IS DISTINCT FROM 'Lock'
               AND xact_start < clock_timestamp() - make_interval(secs => $1)",
            &[&((LOCK_TIMEOUT_MS.max(STATEMENT_TIMEOUT_MS) + 1_000) as f64 / 1000.0)],
        )
        .await?;
    for row in ended {
        tracing::warn!(
            pid = row.get::<_, i32>(0),
            "ended a database session that held a ledger's lock for too long"
        );
    }
    Ok(())
}
