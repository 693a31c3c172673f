//! Forwarders: the server sends events on, as its operator has configured.
//!
//! - [`config`], `fields`: what is configured, checked as a whole at start.
//! - `run`: one forwarder on one replica: it waits for its turn, reads, sends, and moves its cursor.
//! - `lease`: one replica at a time.
//! - `notice`: what whoever is responsible for keys should hear of, and the record that they did.
//! - `reader`: the next events that its filter means.
//! - `webhook`, `syslog`, `file`: where they go.
//! - `connect`, `address`: to which addresses, and by which TLS.
//! - `retry`: when it tries again.
//!
//! What holds: each event that the filter means is sent at least once, in order; the cursor moves after its receiver has it. A
//! forwarder holds no lock, no connection and no place of the ledger while it sends: one that is stuck is behind, and nothing
//! else.

pub mod config;

mod address;
mod connect;
mod fields;
mod file;
mod lease;
mod notice;
mod reader;
mod retry;
mod run;
mod syslog;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::replica::Replica;
use config::{ConfigError, Configuration};
use reader::Batch;
use run::Running;

/// How many forwarders read at once. A replica has eight connections for readers; most are for callers.
const READING: usize = 2;
/// How long forwarders may take to leave what they have to other replicas.
const RELEASED_WITHIN: Duration = Duration::from_secs(3);

/// Why a batch was not sent. The text is shown to whoever may list forwarders: it names no address and no secret.
#[derive(Debug)]
struct Failed {
    text: String,
    /// What the receiver asks for.
    retry_after: Option<Duration>,
}

impl Failed {
    fn new(text: impl Into<String>) -> Failed {
        Failed { text: text.into(), retry_after: None }
    }
}

/// The forwarders of a server.
pub(crate) struct Forwarders {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Forwarders {
    /// Each forwarder needs a ledger that there is.
    pub(crate) fn check(
        configuration: &Configuration,
        replica: &Replica,
    ) -> Result<(), ConfigError> {
        let missing = configuration.forwarders.iter().find(|f| replica.named(&f.ledger).is_none());
        match missing {
            None => Ok(()),
            Some(f) => Err(ConfigError(format!(
                "forwarder {}: ledger names {:?}, and there is no such ledger",
                f.name, f.ledger
            ))),
        }
    }

    /// What they are called.
    pub(crate) fn names(configuration: &Configuration) -> Vec<String> {
        configuration.forwarders.iter().map(|f| f.name.clone()).collect()
    }

    /// Starts all of them.
    pub(crate) fn start(configuration: Configuration, replica: &Arc<Replica>) -> Forwarders {
        let (stop, stopped) = watch::channel(false);
        let (me, places) = (Uuid::new_v4(), Arc::new(Semaphore::new(READING)));
        let mut tasks = JoinSet::new();
        if !configuration.forwarders.is_empty() {
            tracing::info!(replica = %me, count = configuration.forwarders.len(), "forwarders run");
        }
        for forwarder in configuration.forwarders {
            let Some(ledger) = replica.named(&forwarder.ledger) else { continue };
            let running = Running {
                replica: replica.clone(),
                ledger,
                forwarder: Arc::new(forwarder),
                me,
                places: places.clone(),
            };
            tasks.spawn(running.run(stopped.clone()));
        }
        Forwarders { tasks, stop }
    }

    /// Ends all of them; other replicas need not wait for their leases to run out.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(RELEASED_WITHIN, ended).await.is_err() {
            tracing::warn!(
                "forwarders didn't end in time: others wait for their leases to run out"
            );
        }
    }
}
