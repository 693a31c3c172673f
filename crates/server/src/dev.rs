//! `keyledger dev`: embedded Postgres, migrations, init if needed, serve. Also what tests run on.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::{Databases, MAX_FOLDED, Serve};
use crate::embedded::{Address, Cluster, EmbeddedError, GuardCommand, Options, running};
use crate::init::{Init, admin_token_file, init};
use crate::serve::{ServeError, migrate_databases, serve};
use crate::store::connect::Database;
use crate::store::{StoreError, provision};
use crate::streams::PATIENCE;
use crate::telemetry::CallerContext;
use crate::telemetry::config::Settings;

/// Name of the ledger database in an embedded cluster.
pub const LEDGER_DATABASE: &str = "keyledger";
/// Name of the sealing database in an embedded cluster.
pub const SEALING_DATABASE: &str = "keyledger_sealing";
pub struct Dev {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub pg_bin_dir: Option<PathBuf>,
    pub guard: GuardCommand,
    /// The configuration of forwarders, if there is one.
    pub forwarders: Option<PathBuf>,
    /// What the variables of OpenTelemetry say.
    pub telemetry: Settings,
    /// What becomes of the trace context that callers send.
    pub caller_context: CallerContext,
}

#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} can't be written: {1}")]
    Write(PathBuf, std::io::Error),
}

/// Where keys lie in a data directory.
pub fn key_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// Where the address that `dev` listens on is written.
pub fn endpoint_file(data_dir: &Path) -> PathBuf {
    data_dir.join("endpoint")
}

/// Runs until `stop` completes or Postgres is lost.
pub async fn dev(
    options: Dev,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), DevError> {
    let cluster =
        start_cluster(&options.data_dir, options.pg_bin_dir.clone(), options.guard.clone()).await?;
    let result = tokio::select! {
        result = run(&options, cluster.address(), ready, stop) => result,
        lost = cluster.lost() => Err(lost.into()),
    };
    let stopped = cluster.stop().await;
    result.and(stopped.map_err(DevError::from))
}

async fn run(
    options: &Dev,
    address: &Address,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), DevError> {
    let databases = prepare_databases(address, LEDGER_DATABASE, SEALING_DATABASE).await?;
    let key_dir = key_dir(&options.data_dir);
    if !admin_token_file(&options.data_dir).exists() {
        init(Init {
            databases: databases.clone(),
            key_dir: key_dir.clone(),
            token_dir: options.data_dir.clone(),
            ledger: "default".into(),
            host: "keyledger.localhost".into(),
            resume: true,
        })
        .await?;
    }
    let config = Serve {
        databases,
        key_dir,
        listen: options.listen,
        tls: None,
        allow_plaintext: false,
        max_folded: MAX_FOLDED,
        forwarders: options.forwarders.clone(),
        reader_patience: PATIENCE,
        telemetry: options.telemetry.clone(),
        caller_context: options.caller_context.clone(),
    };
    let endpoint = endpoint_file(&options.data_dir);
    let written = |address: SocketAddr| {
        if let Err(error) = std::fs::write(&endpoint, format!("http://{address}\n")) {
            tracing::warn!(%error, "the endpoint file could not be written");
        }
        ready(address);
    };
    Ok(serve(config, written, stop).await?)
}

/// Starts the embedded Postgres of a data directory.
pub async fn start_cluster(
    data_dir: &Path,
    bin_dir: Option<PathBuf>,
    guard: GuardCommand,
) -> Result<Cluster, DevError> {
    let mut options = Options::new(data_dir, guard);
    options.bin_dir = bin_dir;
    Ok(Cluster::start(options).await?)
}

/// The cluster of a data directory if it runs already.
pub async fn running_cluster(data_dir: &Path) -> Option<Address> {
    running(data_dir).await
}

/// Makes both databases, migrates them as superuser, and returns URLs of a role that may only serve.
pub async fn prepare_databases(
    address: &Address,
    ledger: &str,
    sealing: &str,
) -> Result<Databases, StoreError> {
    let admin = Database::new(&address.url("postgres"))?;
    let client = admin.client().await?;
    for name in [ledger, sealing] {
        provision::create_database(&client, name).await?;
    }
    let as_owner = Databases { ledger: address.url(ledger), sealing: address.url(sealing) };
    migrate_databases(&as_owner).await?;
    let password = hex::encode(crate::sealing::random::<32>());
    provision::set_service_password(&client, &password).await?;
    let as_service = |database: &str| address.url_as(provision::SERVICE_ROLE, &password, database);
    Ok(Databases { ledger: as_service(ledger), sealing: as_service(sealing) })
}
