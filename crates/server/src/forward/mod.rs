//! Forwarders: the server sends events on, as its operator has configured.
//!
//! - [`config`], `fields`: what is configured, checked as a whole at start.
//! - `every_ledger`: those to the collector that the operator's own variables name.
//! - `run`: one forwarder on one replica: it waits for its turn, reads, sends, and moves its cursor.
//! - `lease`: one replica at a time.
//! - `notice`: what whoever is responsible for keys should hear of, and the record that they did.
//! - `reader`: the next events that its filter means.
//! - `webhook`, `syslog`, `file`, `otlp`: where they go.
//! - `connect`, `address`: to which addresses, and by which TLS.
//! - `retry`: when it tries again.
//!
//! What holds: each event that the filter means is sent at least once, in order; the cursor moves after its receiver has it. A
//! forwarder holds no lock, no connection and no place of the ledger while it sends: one that is stuck is behind, and nothing
//! else.

pub mod config;

mod address;
mod connect;
mod every_ledger;
mod fields;
mod file;
mod lease;
mod notice;
mod otlp;
mod reader;
mod retry;
mod run;
mod syslog;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::replica::Replica;
use crate::telemetry;
use crate::telemetry::config::Settings;
use config::{ConfigError, Configuration};
use reader::Batch;
use run::{Running, Shared};

/// How many forwarders read at once. A replica has eight connections for readers; most are for callers.
const READING: usize = 2;
/// How long forwarders may take to leave what they have to other replicas.
const RELEASED_WITHIN: Duration = Duration::from_secs(3);

/// Why a batch was not sent. The text is shown to whoever may list forwarders: it names no address and no secret.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
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
    /// Each forwarder needs a ledger that there is, and a name of its own.
    pub(crate) fn check(
        configuration: &Configuration,
        settings: &Settings,
        replica: &Replica,
    ) -> Result<(), ConfigError> {
        for f in &configuration.forwarders {
            let wrong = |what: &str| Err(ConfigError(format!("forwarder {}: {what}", f.name)));
            if replica.named(&f.ledger).is_none() {
                return wrong(&format!("ledger names {:?}, and there is no such ledger", f.ledger));
            }
            if settings.logs.is_some() && f.name == every_ledger::NAME {
                return wrong("name is that of the forwarder to OTEL_EXPORTER_OTLP_ENDPOINT");
            }
        }
        Ok(())
    }

    /// What they are called.
    pub(crate) fn names(configuration: Option<&Configuration>, settings: &Settings) -> Vec<String> {
        let configured = configuration.iter().flat_map(|c| &c.forwarders).map(|f| f.name.clone());
        configured.chain(settings.logs.iter().map(|_| every_ledger::NAME.into())).collect()
    }

    /// Starts those that are configured and, if the settings name a collector for log records, one of each ledger.
    pub(crate) fn start(
        configuration: Option<Configuration>,
        settings: &Settings,
        replica: &Arc<Replica>,
    ) -> Forwarders {
        let (stop, stopped) = watch::channel(false);
        let shared = Shared {
            replica: replica.clone(),
            me: telemetry::instance(),
            places: Arc::new(Semaphore::new(READING)),
            resource: Arc::new(otlp::resource(telemetry::resource_attributes(settings))),
        };
        let mut tasks = JoinSet::new();
        let configured = configuration.map(|c| c.forwarders).unwrap_or_default();
        if !configured.is_empty() || settings.logs.is_some() {
            tracing::info!(replica = %shared.me, count = configured.len(), "forwarders run");
        }
        for forwarder in configured {
            let Some(ledger) = replica.named(&forwarder.ledger) else { continue };
            let forwarder = Arc::new(forwarder);
            let running = Running { shared: shared.clone(), ledger, forwarder };
            tasks.spawn(running.run(stopped.clone()));
        }
        if let Some(to) = &settings.logs {
            tasks.spawn(every_ledger::run(shared, to.clone(), stopped));
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
