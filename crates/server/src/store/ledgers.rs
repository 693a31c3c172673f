//! Ledgers: their rows, and the lock that orders their batches.

use std::sync::LazyLock;

use super::client::Client;
use keyledger_ledger::batch::NewEntry;
use tokio_postgres::types::{ToSql, Type};
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

static BEGIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on; \
         SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}; \
         SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
    )
});

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

/// A transaction that holds a ledger's lock. Dropped without [`Locked::append_and_commit`], the connection is closed and Postgres
/// rolls back.
pub(crate) struct Locked {
    client: Option<Client>,
    /// The database's clock, read after the lock was had: microseconds since 1970-01-01 UTC.
    pub(crate) clock_us: i64,
    /// What others appended since `next_position`, at most `limit`.
    pub(crate) news: Vec<StoredEntry>,
}

impl Locked {
    /// Takes the lock, then reads clock and newest entries: all sent at once, run in order. The lock is a statement of its
    /// own: one that also read the entries would read them with a snapshot from before the lock was had.
    pub(crate) async fn begin(
        database: &Database,
        ledger_id: Uuid,
        next_position: u64,
        limit: i64,
    ) -> Result<Locked, StoreError> {
        let client = database.client().await?;
        let lock = "/* Locked::begin */ SELECT 1 FROM ledgers WHERE ledger_id = $1 FOR UPDATE";
        let lock = client.prepare_typed_cached(lock, &[Type::UUID]).await?;
        let clock =
            "/* Locked::begin */ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let clock = client.prepare_typed_cached(clock, &[]).await?;
        let news = entries::prepare_from_position(&client).await?;
        let mut locked = Locked { client: Some(client), clock_us: 0, news: vec![] };

        let client = locked.client();
        let id: [&(dyn ToSql + Sync); 1] = [&ledger_id];
        let (begun, row, clock, news) = tokio::join!(
            client.batch_execute(&BEGIN),
            client.query_opt(&lock, &id),
            client.query_one(&clock, &[]),
            entries::from_position_prepared(client, &news, ledger_id, next_position, limit),
        );
        begun?;
        match row.map_err(StoreError::from) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(StoreError::Damaged("the ledger's row is gone".into())),
            Err(error) => {
                if matches!(error, StoreError::LockTimeout) {
                    end_stuck_holders(database).await?;
                }
                return Err(error);
            }
        }
        let (clock_us, news) = (clock?.get(0), news?);
        locked.clock_us = clock_us;
        locked.news = news;
        Ok(locked)
    }

    pub(crate) fn client(&self) -> &Client {
        self.client.as_ref().expect("only the end of a commit, and drop, take the client")
    }

    /// Appends the entries and commits: both are sent at once, and if the first fails Postgres rolls back at the second.
    /// After this has returned Ok, the batch is durable. With [`StoreError::OutcomeUnknown`] it may be; with any other error
    /// it certainly isn't.
    pub(crate) async fn append_and_commit(
        mut self,
        database: &Database,
        ledger_id: Uuid,
        new: &[NewEntry],
    ) -> Result<(), StoreError> {
        let unreplicated = database.unreplicated_commits();
        let client = self.client();
        let append = entries::prepare_append(client).await?;
        let (appended, committed) = tokio::join!(
            entries::append_prepared(client, &append, ledger_id, new),
            client.batch_execute("COMMIT"),
        );
        match (appended, committed) {
            (Err(refused @ (StoreError::Conflict(_) | StoreError::Refused(_))), Ok(())) => {
                return Err(refused);
            }
            (Err(error), _) => return Err(StoreError::OutcomeUnknown(error.to_string())),
            (Ok(()), Err(error)) => return Err(StoreError::OutcomeUnknown(error.to_string())),
            (Ok(()), Ok(())) => {}
        }
        // Good for the next batch; on any other way out of here the connection is closed.
        drop(self.client.take());
        match database.unreplicated_commits() == unreplicated {
            true => Ok(()),
            false => Err(StoreError::OutcomeUnknown("no standby has confirmed it".into())),
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
