//! Connections: a pool with bounds, TLS, and an ear for the one notice that changes what a COMMIT means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::StoreError;
use super::client::Client;

/// Most connections of one pool. A replica has three: readers, writers, sealing.
const MAX_CONNECTIONS: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a call waits for a connection that others use: about as long as it may take at all.
const WAIT_TIMEOUT: Duration = Duration::from_secs(8);

/// A pool of connections to one database.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    /// The name of the database.
    namespace: Arc<str>,
    unreplicated: Arc<AtomicU64>,
    timeouts: Arc<AtomicU64>,
}

/// How a pool is used.
pub(crate) struct PoolUse {
    pub(crate) used: u64,
    pub(crate) idle: u64,
    pub(crate) max: u64,
    /// Calls that wait for a connection.
    pub(crate) pending: u64,
    /// Calls that got none in time, since the start.
    pub(crate) timeouts: u64,
}

impl Database {
    /// Connects lazily. `url` is a libpq connection string or URL; TLS is used unless it is a unix socket or says
    /// `sslmode=disable`. tokio-postgres doesn't know `verify-full`; here TLS always verifies chain and name.
    pub(crate) fn new(url: &str) -> Result<Database, StoreError> {
        let text = url
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = text
            .parse()
            .map_err(|e| StoreError::Refused(format!("the database URL can't be read: {e}")))?;
        config.connect_timeout(CONNECT_TIMEOUT).application_name("keyledger");
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(Duration::from_secs(15));
        let namespace = config.get_dbname().or(config.get_user()).unwrap_or_default().into();
        let local = config.get_hosts().iter().all(|h| matches!(h, Host::Unix(_)));
        let unreplicated = Arc::new(AtomicU64::new(0));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if local || config.get_ssl_mode() == SslMode::Disable {
            Manager::from_connect(
                config,
                Listening { tls: NoTls, unreplicated: unreplicated.clone() },
                recycling,
            )
        } else {
            let tls = MakeRustlsConnect::new(tls_config());
            Manager::from_connect(
                config,
                Listening { tls, unreplicated: unreplicated.clone() },
                recycling,
            )
        };
        let pool = Pool::builder(manager)
            .max_size(MAX_CONNECTIONS)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|e| StoreError::Refused(e.to_string()))?;
        Ok(Database { pool, namespace, unreplicated, timeouts: Arc::default() })
    }

    pub(crate) async fn client(&self) -> Result<Client, StoreError> {
        let pooled = self.pool.get().await.inspect_err(|error| {
            if matches!(error, PoolError::Timeout(_)) {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
            }
        })?;
        Ok(Client::new(pooled, self.namespace.clone()))
    }

    pub(crate) fn pool_use(&self) -> PoolUse {
        let status = self.pool.status();
        PoolUse {
            used: status.size.saturating_sub(status.available) as u64,
            idle: status.available as u64,
            max: status.max_size as u64,
            pending: status.waiting as u64,
            timeouts: self.timeouts.load(Ordering::Relaxed),
        }
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.client().await?.query_one("/* Database::ping */ SELECT 1", &[]).await?;
        Ok(())
    }

    /// A connection on which all reads see one snapshot. Give it back with [`discard`].
    pub(crate) async fn snapshot(&self) -> Result<Client, StoreError> {
        let client = self.client().await?;
        let begin = "/* Database::snapshot */ BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await?;
        Ok(client)
    }

    /// How many commits were not confirmed by a synchronous standby. If it grows during a COMMIT, that commit is in doubt.
    pub(crate) fn unreplicated_commits(&self) -> u64 {
        self.unreplicated.load(Ordering::Acquire)
    }
}

/// Takes a connection out of the pool and drops it: Postgres rolls back whatever it had begun.
pub(crate) fn discard(client: Client) {
    client.close();
}

fn tls_config() -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// Connects, and listens to notices. When a wait for a synchronous standby is cancelled (by statement_timeout, say),
/// Postgres reports the COMMIT as done and says only in a warning that no standby has it.
struct Listening<T> {
    tls: T,
    unreplicated: Arc<AtomicU64>,
}

impl<T> Connect for Listening<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(
        &self,
        config: &Config,
    ) -> BoxFuture<'_, Result<(tokio_postgres::Client, JoinHandle<()>), tokio_postgres::Error>>
    {
        let (tls, unreplicated, config) =
            (self.tls.clone(), self.unreplicated.clone(), config.clone());
        Box::pin(async move {
            let (client, mut connection) = config.connect(tls).await?;
            let task = tokio::spawn(async move {
                let mut messages =
                    futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
                while let Some(message) = messages.next().await {
                    match message {
                        Ok(AsyncMessage::Notice(notice))
                            if notice.message().contains("synchronous replication") =>
                        {
                            unreplicated.fetch_add(1, Ordering::AcqRel);
                        }
                        Ok(_) => {}
                        Err(error) => {
                            tracing::debug!(%error, "a database connection ended");
                            break;
                        }
                    }
                }
            });
            Ok((client, task))
        })
    }
}
