//! Entries straight from the database: of a server, or of the data directory of `keyledger dev`.

use std::path::{Path, PathBuf};

use keyledger_server::dev::{self, LEDGER_DATABASE, SEALING_DATABASE};
use keyledger_server::embedded::{Address, Cluster, GuardCommand};
use keyledger_server::inspect::{self, Source};

use super::walk::Checked;
use crate::failure::Failure;

/// Which database.
pub(super) enum Database {
    /// The embedded Postgres of `keyledger dev`, running or not.
    DataDir(PathBuf),
    /// A server's, with what opens sealed texts, if that is at hand.
    Url { url: String, sealing_url: Option<String>, key_dir: Option<PathBuf> },
}

/// A database that can be read now.
pub(super) struct Open {
    source: Source,
    /// The embedded Postgres, if it was started for this.
    cluster: Option<Cluster>,
}

impl Database {
    pub(super) async fn open(&self) -> anyhow::Result<Open> {
        match self {
            Database::DataDir(dir) => open_data_dir(dir).await,
            Database::Url { url, sealing_url, key_dir } => {
                let source = Source {
                    ledger: url.clone(),
                    sealing: sealing_url.clone(),
                    key_dir: key_dir.clone(),
                };
                Ok(Open { source, cluster: None })
            }
        }
    }
}

impl Open {
    pub(super) async fn ledger_names(&self) -> anyhow::Result<Vec<String>> {
        Ok(inspect::ledger_names(&self.source).await?)
    }

    /// Verifies one ledger against signed notes that were obtained before. `progress` hears of entries done and in all.
    pub(super) async fn verify_ledger(
        &self,
        ledger: &str,
        pins: &[String],
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> anyhow::Result<Checked> {
        Ok(inspect::verify_ledger(&self.source, ledger, pins, progress).await?.into())
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self.cluster {
            Some(cluster) => Ok(cluster.stop().await?),
            None => Ok(()),
        }
    }
}

/// Starts Postgres only where `dev` has left a cluster: to verify must make nothing.
async fn open_data_dir(dir: &Path) -> anyhow::Result<Open> {
    let dir = dir.canonicalize().map_err(|e| no_ledger(dir, &e.to_string()))?;
    if !dev::key_dir(&dir).is_dir() {
        return Err(no_ledger(&dir, "it has no folder of keys").into());
    }
    if let Some(address) = dev::running_cluster(&dir).await {
        return Ok(Open { source: source(&dir, &address), cluster: None });
    }
    let cluster = dev::start_cluster(&dir, None, GuardCommand::this_program(&["guard"])?).await?;
    Ok(Open { source: source(&dir, cluster.address()), cluster: Some(cluster) })
}

fn source(dir: &Path, address: &Address) -> Source {
    let (ledger, sealing) = (address.url(LEDGER_DATABASE), address.url(SEALING_DATABASE));
    Source { ledger, sealing: Some(sealing), key_dir: Some(dev::key_dir(dir)) }
}

fn no_ledger(dir: &Path, reason: &str) -> Failure {
    Failure::new(format!("{} is no data directory of `keyledger dev`: {reason}", dir.display()))
        .next("name the directory that `keyledger dev` was started with")
}
