//! The running server in the hands of the program that needs it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::Config;

use super::Options;
use super::address::{Address, Attempt};
use super::error::EmbeddedError;
use super::find;
use super::layout::{Layout, PidFile};
use super::leftovers::{FAST_LIMIT, IMMEDIATE_LIMIT};
use super::log::Log;
use super::tether::Tether;

/// The guard bounds each of its steps; this is for a guard that hangs.
const GUARD_LIMIT: Duration = Duration::from_secs(400);
/// After a crash up to `max_wal_size` (1 GB) is replayed first, which a slow disk takes minutes for.
const ACCEPT_LIMIT: Duration = Duration::from_secs(300);
const ACCEPT_POLL: Duration = Duration::from_millis(40);
const STOP_LIMIT: Duration =
    FAST_LIMIT.saturating_add(IMMEDIATE_LIMIT).saturating_add(Duration::from_secs(20));

/// A server that lives as long as this value. Dropping it, or the end of our process, tells the
/// guard to stop Postgres, which takes a moment; only `stop` waits for that.
#[derive(Debug)]
pub struct Cluster {
    tether: Tether,
    address: Address,
    log: Log,
}

impl Cluster {
    /// Makes the cluster if there is none yet, and returns when the server accepts connections.
    pub async fn start(options: Options) -> Result<Cluster, EmbeddedError> {
        let launched = tokio::task::spawn_blocking(move || launch(&options)).await;
        let (tether, layout, log) = launched.expect("launching the guard never panics")?;
        match connect(&tether, &layout).await {
            Ok(address) => Ok(Cluster { tether, address, log }),
            Err(error) => Err(log.explain(error)),
        }
    }

    /// As `Address::config`.
    pub fn config(&self, database: &str) -> Config {
        self.address.config(database)
    }

    /// As `Address::url`.
    pub fn url(&self, database: &str) -> String {
        self.address.url(database)
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until the server is gone without having been asked to, and says why.
    pub async fn lost(&self) -> EmbeddedError {
        self.log.explain(self.tether.lost().await)
    }

    /// Ends the connections that are left, stops the server and waits for it.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        self.tether.release();
        let ended = timeout(STOP_LIMIT, self.tether.ended()).await;
        let ended = ended.unwrap_or_else(|_| {
            Err(EmbeddedError::Refused(format!(
                "Postgres did not stop within {} s; the guard goes on trying",
                STOP_LIMIT.as_secs()
            )))
        });
        ended.map_err(|error| self.log.explain(error))
    }
}

fn launch(options: &Options) -> Result<(Tether, Layout, Log), EmbeddedError> {
    let layout = Layout::new(open_data_dir(&options.data_dir)?);
    let pgdata = layout.pgdata();
    let written_by = layout.written_by()?.map(|major| (pgdata.as_path(), major));
    let binaries = find::find_for(options.bin_dir.as_deref(), written_by)?;
    tracing::info!(
        version = %binaries.version,
        binaries = %binaries.dir.display(),
        data_dir = %layout.data_dir.display(),
        "starting Postgres"
    );
    let (log, output) = Log::open(&layout)?;
    let settings = options.all_settings();
    let tether = Tether::spawn(&options.guard, &layout, &binaries.dir, &settings, output)?;
    Ok((tether, layout, log))
}

/// The path without links, for `Layout`.
fn open_data_dir(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    let doing = format!("make the data directory {}", data_dir.display());
    made.map_err(EmbeddedError::io(doing))?;
    let doing = format!("open the data directory {}", data_dir.display());
    fs::canonicalize(data_dir).map_err(EmbeddedError::io(doing))
}

async fn connect(tether: &Tether, layout: &Layout) -> Result<Address, EmbeddedError> {
    let serving = timeout(GUARD_LIMIT, tether.serving()).await;
    let (postmaster, socket_dir) = serving.unwrap_or_else(|_| {
        Err(EmbeddedError::Refused(format!(
            "the guard did not start Postgres within {} s: see whether the disk works",
            GUARD_LIMIT.as_secs()
        )))
    })?;
    let address = Address::new(layout, postmaster, socket_dir)?;
    tokio::select! {
        error = tether.lost() => Err(error),
        accepting = wait_until_accepting(&address, layout) => accepting.map(|()| address.clone()),
    }
}

async fn wait_until_accepting(address: &Address, layout: &Layout) -> Result<(), EmbeddedError> {
    let begun = Instant::now();
    loop {
        let reason = match attempt(address, layout).await {
            Ok(()) => return Ok(()),
            Err(Attempt::Rejected(reason)) => return Err(rejected(layout, &reason)),
            Err(Attempt::NotYet(reason)) => reason,
        };
        if begun.elapsed() > ACCEPT_LIMIT {
            return Err(EmbeddedError::Refused(format!(
                "Postgres accepted no connection within {} s ({reason}): look into {} for the \
                 cause, then start again",
                ACCEPT_LIMIT.as_secs(),
                layout.log().display()
            )));
        }
        sleep(ACCEPT_POLL).await;
    }
}

/// Connecting before the server calls itself ready would only fill the log with refusals.
async fn attempt(address: &Address, layout: &Layout) -> Result<(), Attempt> {
    let ready = PidFile::read(&layout.pgdata()).is_some_and(|file| file.ready);
    if !ready {
        return Err(Attempt::NotYet("it is still starting".to_owned()));
    }
    address.try_connect().await
}

fn rejected(layout: &Layout, reason: &str) -> EmbeddedError {
    EmbeddedError::Refused(format!(
        "Postgres rejects us ({reason}): {} must hold the password of the role `postgres`",
        layout.password().display()
    ))
}
