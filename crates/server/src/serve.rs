//! `keyledger serve`: checks what must be true before anything is served, then serves until it is told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyledger_ledger::command::{Change, ChangeKind};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;
use uuid::Uuid;

use crate::config::{Databases, Serve, Tls};
use crate::forward::Forwarders;
use crate::forward::config::ConfigError;
use crate::grpc::{AuditService, KeyService, LogsService, Services};
use crate::keydir::{KeyDirectory, KeyDirectoryError};
use crate::replica::{Replica, by_itself};
use crate::sequencer::{Connections, RECORDED_WITHIN, SequencerError};
use crate::store::connect::Database;
use crate::store::{StoreError, migrate, settings};
use crate::streams::Streams;
use crate::telemetry::ContextReader;
use crate::telemetry::config::SettingsError;
use crate::{forward, observer, scrubber, sequencer, telemetry};

/// How often the database is asked whether it is there, and how long it may take to say so.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long calls may go on after we were told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Most calls at once on one connection.
const MAX_STREAMS_PER_CONNECTION: u32 = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    KeyDirectory(#[from] KeyDirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Sequencer(String),
    #[error(
        "plaintext gRPC off loopback is refused, since tokens would cross the network unencrypted: give --tls-cert and --tls-key, or --allow-plaintext behind a proxy that encrypts"
    )]
    Plaintext,
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("can't read {0}: {1}")]
    TlsFile(String, std::io::Error),
    #[error("the configuration of forwarders: {0}")]
    Forwarders(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] SettingsError),
    #[error("the server ended: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl From<SequencerError> for ServeError {
    fn from(error: SequencerError) -> ServeError {
        ServeError::Sequencer(error.to_string())
    }
}

/// Serves until `stop` completes. `ready` is called with the address once calls are answered.
pub async fn serve(
    config: Serve,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    if config.tls.is_none() && !config.listen.ip().is_loopback() && !config.allow_plaintext {
        return Err(ServeError::Plaintext);
    }
    let forwarders = config.forwarders.as_deref().map(forward::config::read).transpose()?;
    // What can't be used is said now, and not by each export.
    config.telemetry.logs.as_ref().map(|to| to.channel()).transpose()?;
    let keys = Arc::new(KeyDirectory::open(&config.key_dir)?);
    let (ledger, sealing) = connect(&config.databases).await?;
    let streams = Streams::new(config.reader_patience);
    let replica =
        Arc::new(Replica::start(ledger, sealing, keys, config.max_folded, streams).await?);
    if let Some(forwarders) = &forwarders {
        Forwarders::check(forwarders, &config.telemetry, &replica)?;
    }
    let started = ChangeKind::StartServer {
        version: env!("CARGO_PKG_VERSION").into(),
        configuration_digest: config.digest(forwarders.as_ref().map(|f| f.digest)),
    };
    by_itself(&replica.system, Change::new(started, vec![])).await?;

    let listener =
        TcpListener::bind(config.listen).await.map_err(|e| ServeError::Listen(config.listen, e))?;
    let address = listener.local_addr().map_err(|e| ServeError::Listen(config.listen, e))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    report_health(&health, true).await;
    tokio::spawn(watch_health(replica.clone(), health));
    tokio::spawn(observe(replica.clone()));
    scrubber::start(replica.clone());

    let callers = config.caller_context.clone();
    let propagators = config.telemetry.propagators;
    let services = Services::new(replica.clone(), ContextReader { callers, propagators });
    let mut server = Server::builder();
    if let Some(tls) = &config.tls {
        server = server.tls_config(tls_config(tls)?)?;
    }
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let told = replica.clone();
    let stop = async move {
        stop.await;
        // They have no end of their own.
        told.streams.stop();
        let _ = stopping.send(true);
    };
    let serving = server
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(health_service)
        .add_service(reflection().build_v1().expect("our own descriptors are complete"))
        .add_service(reflection().build_v1alpha().expect("our own descriptors are complete"))
        .add_service(services.key_service())
        .add_service(services.audit_service())
        .add_service(services.logs_service())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop);
    telemetry::observe(&replica, Forwarders::names(forwarders.as_ref(), &config.telemetry));
    let forwarders = Forwarders::start(forwarders, &config.telemetry, &replica);
    ready(address);
    let result = tokio::select! {
        result = serving => Ok(result?),
        () = drained(stopped) => Ok(()),
    };
    forwarders.stop().await;
    end_streams(&replica).await;
    end_memory(&replica).await;
    telemetry::flush().await;
    result
}

/// What streams gave is recorded before the server is gone.
async fn end_streams(replica: &Replica) {
    if tokio::time::timeout(RECORDED_WITHIN, replica.streams.all_done()).await.is_err() {
        tracing::error!("the ends of streams were not recorded in time");
    }
}

/// What was answered from memory is recorded, and its end announced, before the server is gone.
async fn end_memory(replica: &Replica) {
    for ledger in replica.all() {
        match tokio::time::timeout(RECORDED_WITHIN, ledger.end_memory()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "answers from memory were not ended"),
            Err(_) => tracing::error!("answers from memory were not ended in time"),
        }
    }
}

/// Connects to both databases and checks that they are ours, of this version, and durable.
pub(crate) async fn connect(databases: &Databases) -> Result<(Connections, Database), StoreError> {
    let ledger = Database::new(&databases.ledger)?;
    let writers = Database::new(&databases.ledger)?;
    let sealing = Database::new(&databases.sealing)?;
    for (database, schema) in [(&ledger, &migrate::LEDGER), (&sealing, &migrate::SEALING)] {
        let mut client = database.client().await?;
        settings::require_durable(&client).await?;
        migrate::check(&mut client, schema).await?;
    }
    if let Some(warning) = settings::excess_privilege(&ledger.client().await?).await? {
        tracing::warn!("{warning}");
    }
    Ok((Connections { readers: ledger, writers }, sealing))
}

/// Runs the migrations of both databases, as a role that owns them. Returns what was run.
pub async fn migrate_databases(databases: &Databases) -> Result<Vec<&'static str>, StoreError> {
    let mut ran = vec![];
    for (url, schema) in
        [(&databases.ledger, &migrate::LEDGER), (&databases.sealing, &migrate::SEALING)]
    {
        let database = Database::new(url)?;
        let mut client = database.client().await?;
        settings::require_durable(&client).await?;
        ran.extend(migrate::migrate(&mut client, schema).await?);
    }
    Ok(ran)
}

async fn drained(mut stopped: tokio::sync::watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
    tokio::time::sleep(DRAIN).await;
}

/// Health follows the database and the ledgers: whoever balances load sends callers elsewhere.
async fn watch_health(replica: Arc<Replica>, health: HealthReporter) {
    let mut interval = tokio::time::interval(HEALTH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = true;
    loop {
        interval.tick().await;
        let answers = tokio::time::timeout(HEALTH_TIMEOUT, replica.databases.readers.ping()).await;
        let good =
            matches!(answers, Ok(Ok(()))) && replica.all().iter().all(|l| l.stopped().is_none());
        if good != last {
            tracing::warn!(serving = good, "health has changed");
            report_health(&health, good).await;
            last = good;
        }
    }
}

async fn report_health(health: &HealthReporter, good: bool) {
    let status = if good {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    health.set_service_status("", status).await;
    health.set_service_status(<KeyService as tonic::server::NamedService>::NAME, status).await;
    health.set_service_status(<AuditService as tonic::server::NamedService>::NAME, status).await;
    health.set_service_status(<LogsService as tonic::server::NamedService>::NAME, status).await;
}

/// Starts the observer of each ledger, also of those that are opened later.
async fn observe(replica: Arc<Replica>) {
    let this = Uuid::new_v4();
    let mut known: Vec<Arc<sequencer::Ledger>> = vec![];
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    loop {
        interval.tick().await;
        for ledger in replica.all() {
            if !known.iter().any(|k| k.id == ledger.id) {
                tokio::spawn(observer::run(Arc::downgrade(&ledger), this));
                known.push(ledger);
            }
        }
    }
}

/// Descriptors with their comments: ours, health's, and those of error details, so that clients can show them.
fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(keyledger_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

fn tls_config(tls: &Tls) -> Result<ServerTlsConfig, ServeError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| ServeError::TlsFile(path.display().to_string(), e))
    };
    let mut config = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?));
    if let Some(authority) = &tls.client_authority {
        config = config.client_ca_root(Certificate::from_pem(read(authority)?));
    }
    Ok(config)
}
