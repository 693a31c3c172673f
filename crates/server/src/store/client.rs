//! A connection of a pool as the store uses it. Every statement passes here: it is timed, and has a span where the call that
//! asks has one. What is not asked for costs the look whether it is.

use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::types::{BorrowToSql, ToSql, Type};
use tokio_postgres::{Error, IsolationLevel, Row, RowStream, ToStatement};

use super::statement::Summary;
use crate::telemetry::statements::{self, Running};

/// A connection that goes back to its pool when it is dropped.
pub(crate) struct Client {
    pooled: deadpool_postgres::Client,
    /// The name of the database.
    namespace: Arc<str>,
}

/// A prepared statement, with its names if somebody wants to know them.
pub(crate) struct Prepared {
    statement: tokio_postgres::Statement,
    summary: Option<Summary>,
}

/// A transaction. Dropped, it is rolled back.
pub(crate) struct Transaction<'a> {
    within: deadpool_postgres::Transaction<'a>,
    namespace: &'a Arc<str>,
}

/// A statement as text, or one that was prepared.
pub(crate) trait Asked {
    type Statement: ToStatement + Sync + Send + ?Sized;

    fn statement(&self) -> &Self::Statement;
    fn summary(&self) -> Summary;
}

impl Asked for str {
    type Statement = str;

    fn statement(&self) -> &str {
        self
    }

    fn summary(&self) -> Summary {
        Summary::of(self)
    }
}

impl Asked for Prepared {
    type Statement = tokio_postgres::Statement;

    fn statement(&self) -> &tokio_postgres::Statement {
        &self.statement
    }

    fn summary(&self) -> Summary {
        // It is wanted now, and was not when it was prepared: the caller's span has begun in between.
        self.summary.clone().unwrap_or_else(|| Summary::of(""))
    }
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Client {
    pub(super) fn new(pooled: deadpool_postgres::Client, namespace: Arc<str>) -> Client {
        Client { pooled, namespace }
    }

    /// Takes the connection out of the pool and closes it.
    pub(super) fn close(self) {
        drop(deadpool_postgres::Client::take(self.pooled));
    }

    /// The connection itself, for what runs before anything is served: it is not timed.
    pub(crate) fn bare(&mut self) -> &mut tokio_postgres::Client {
        &mut self.pooled
    }

    pub(crate) async fn query(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        timed(&self.namespace, asked, self.pooled.query(asked.statement(), params)).await
    }

    pub(crate) async fn query_one(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<Row, Error> {
        timed(&self.namespace, asked, self.pooled.query_one(asked.statement(), params)).await
    }

    pub(crate) async fn query_opt(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        timed(&self.namespace, asked, self.pooled.query_opt(asked.statement(), params)).await
    }

    /// Rows one by one; the statement runs until [`Rows::end`].
    pub(crate) async fn query_raw<P: BorrowToSql, I>(
        &self,
        asked: &(impl Asked + ?Sized),
        params: I,
    ) -> Result<Rows, Error>
    where
        I: IntoIterator<Item = P>,
        I::IntoIter: ExactSizeIterator,
    {
        let running = begin(&self.namespace, asked);
        match self.pooled.query_raw(asked.statement(), params).await {
            Ok(rows) => Ok(Rows { rows: Box::pin(rows), running }),
            Err(error) => {
                end(running, Some(&error));
                Err(error)
            }
        }
    }

    pub(crate) async fn execute(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<u64, Error> {
        timed(&self.namespace, asked, self.pooled.execute(asked.statement(), params)).await
    }

    pub(crate) async fn batch_execute(&self, sql: &str) -> Result<(), Error> {
        timed(&self.namespace, sql, self.pooled.batch_execute(sql)).await
    }

    /// Later, on the same connection, it costs nothing.
    pub(crate) async fn prepare_cached(&self, sql: &str) -> Result<Prepared, Error> {
        Ok(Prepared::of(self.pooled.prepare_cached(sql).await?, sql))
    }

    pub(crate) async fn prepare_typed_cached(
        &self,
        sql: &str,
        types: &[Type],
    ) -> Result<Prepared, Error> {
        Ok(Prepared::of(self.pooled.prepare_typed_cached(sql, types).await?, sql))
    }

    /// A transaction whose reads all see one snapshot.
    pub(crate) async fn read_only(&mut self) -> Result<Transaction<'_>, Error> {
        let begun = self.pooled.build_transaction();
        let begun = begun.isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let within = timed(&self.namespace, "BEGIN", begun.start()).await?;
        Ok(Transaction { within, namespace: &self.namespace })
    }
}

impl Prepared {
    fn of(statement: tokio_postgres::Statement, sql: &str) -> Prepared {
        Prepared { statement, summary: statements::are_wanted().then(|| Summary::of(sql)) }
    }
}

impl Transaction<'_> {
    pub(crate) async fn query(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        timed(self.namespace, asked, self.within.query(asked.statement(), params)).await
    }

    pub(crate) async fn query_opt(
        &self,
        asked: &(impl Asked + ?Sized),
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        timed(self.namespace, asked, self.within.query_opt(asked.statement(), params)).await
    }

    pub(crate) async fn prepare_cached(&self, sql: &str) -> Result<Prepared, Error> {
        Ok(Prepared::of(self.within.prepare_cached(sql).await?, sql))
    }
}

/// Rows of a statement that may still run.
pub(crate) struct Rows {
    rows: std::pin::Pin<Box<RowStream>>,
    running: Option<Running>,
}

impl Rows {
    pub(crate) async fn next(&mut self) -> Result<Option<Row>, Error> {
        let row = self.rows.try_next().await;
        if let Err(error) = &row {
            end(self.running.take(), Some(error));
        }
        row
    }

    /// No more rows are wanted.
    pub(crate) fn end(self) {
        end(self.running, None);
    }
}

/// Runs a statement. Several may run at once on one connection: each has its own time and its own span.
async fn timed<T>(
    namespace: &Arc<str>,
    asked: &(impl Asked + ?Sized),
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(running) = begin(namespace, asked) else { return work.await };
    let result = work.await;
    end(Some(running), result.as_ref().err());
    result
}

fn begin(namespace: &Arc<str>, asked: &(impl Asked + ?Sized)) -> Option<Running> {
    statements::are_wanted().then(|| Running::begin(namespace.clone(), asked.summary()))
}

/// The error type is the SQLSTATE, where Postgres has given one.
fn end(running: Option<Running>, error: Option<&Error>) {
    if let Some(running) = running {
        let state = error.map(|e| e.code().map(|code| code.code()));
        running.end(state);
    }
}
