//! The store: all SQL, in sight of its caller. Each statement is headed by a comment with its function's name, so that it
//! can be found from `pg_stat_activity`.

pub(crate) mod anomalies;
pub(crate) mod checkpoints;
pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod data_keys;
pub(crate) mod entries;
pub(crate) mod event_counts;
pub(crate) mod event_index;
pub(crate) mod forwarders;
pub(crate) mod imported;
pub(crate) mod keys;
pub(crate) mod ledgers;
pub(crate) mod migrate;
pub(crate) mod positions;
pub(crate) mod provision;
pub(crate) mod requests;
pub(crate) mod settings;
pub(crate) mod statement;
pub(crate) mod tiles;
pub(crate) mod usage;

use tokio_postgres::error::SqlState;

/// Why the store failed, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, or was too slow. Nothing was changed.
    #[error("the database can't be reached: {0}")]
    Unavailable(String),
    /// COMMIT was sent and its outcome isn't known.
    #[error("the outcome of a COMMIT is not known: {0}")]
    OutcomeUnknown(String),
    /// Somebody else holds the ledger's lock for too long.
    #[error("the ledger's lock was not to be had in time")]
    LockTimeout,
    /// Somebody else wrote this position, row or request: the lock was misused, or two of us raced without it.
    #[error("a constraint refused the write: {0}")]
    Conflict(String),
    /// What was read is not what was written.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// A statement of ours is wrong, or the schema is not ours.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> StoreError {
        let text = describe(&error);
        match error.code() {
            None => StoreError::Unavailable(text),
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => StoreError::LockTimeout,
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => StoreError::Conflict(text),
            // Classes 08 connection, 53 resources, 57 operator intervention, 25P03 idle in transaction timeout.
            Some(code) if ["08", "53", "57"].iter().any(|class| code.code().starts_with(class)) => {
                StoreError::Unavailable(text)
            }
            Some(code) if *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => {
                StoreError::Unavailable(text)
            }
            Some(_) => StoreError::Refused(text),
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> StoreError {
        match error {
            deadpool_postgres::PoolError::Backend(e) => e.into(),
            other => StoreError::Unavailable(other.to_string()),
        }
    }
}

/// The whole chain of causes; the outermost says only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// A column of a fixed length; the schema checks it too.
pub(crate) fn fixed<const N: usize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<[u8; N], StoreError> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Damaged(format!("{what} has {} bytes, not {N}", bytes.len())))
}
