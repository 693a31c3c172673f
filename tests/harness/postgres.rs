//! One real Postgres for a run of the tests, started by whoever needs it first, and two template databases, migrated once.
//!
//! Everything of a run lies in one folder under /tmp. It goes when we go, even if we are killed: the guard of Postgres
//! outlives us, and the shell around it removes the folder at the end. With `KEYLEDGER_TESTS_KEEP=1` it stays.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use keyledger_server::config::Databases;
use keyledger_server::dev::prepare_databases;
use keyledger_server::embedded::{Address, Cluster, GuardCommand, Options};
use tokio_postgres::{Client, Config, NoTls};

use super::PROGRAM;

/// Replicas hold up to 24 connections each, and tests run side by side.
const MAX_CONNECTIONS: u32 = 400;
const LEDGER_TEMPLATE: &str = "template_ledger";
const SEALING_TEMPLATE: &str = "template_sealing";

/// The guard, and after it the end of the folder that holds its data directory.
const GUARD_THEN_CLEAN: &str = r#"
    "$0" guard "$@"; status=$?
    [ -n "$KEYLEDGER_TESTS_KEEP" ] || rm -rf "${1%/*}"
    exit $status"#;

static POSTGRES: LazyLock<Result<Postgres, String>> = LazyLock::new(|| {
    // A thread of its own: we may be asked from inside a runtime.
    let started = thread::spawn(|| super::runtime().block_on(Postgres::start()));
    started.join().unwrap_or_else(|_| Err("starting Postgres panicked".into()))
});

/// The Postgres of this run.
pub(crate) fn postgres() -> &'static Postgres {
    POSTGRES.as_ref().unwrap_or_else(|why| panic!("the tests have no Postgres: {why}"))
}

pub(crate) struct Postgres {
    /// Dropped at the end of our process, whose pipe to the guard closes then.
    cluster: Cluster,
    folder: PathBuf,
    /// User and password of the role that may only serve.
    service: Config,
    scenarios: AtomicU32,
}

/// The databases of one scenario.
pub(crate) struct OwnDatabases {
    /// As the role that may only serve.
    pub(crate) service: Databases,
    pub(crate) ledger: String,
    pub(crate) sealing: String,
}

impl Postgres {
    async fn start() -> Result<Postgres, String> {
        let private = Permissions::from_mode(0o700);
        let mut folder = tempfile::Builder::new();
        // Not the system's own place for temporary files: a socket's path holds 107 bytes.
        let folder = folder.prefix("keyledger-tests-").permissions(private).tempdir_in("/tmp");
        let folder = folder.map_err(|e| format!("no temporary folder: {e}"))?.keep();
        let guard = GuardCommand {
            program: "/bin/sh".into(),
            args: ["-c", GUARD_THEN_CLEAN, PROGRAM].map(Into::into).to_vec(),
        };
        let mut options = Options::new(folder.join("data"), guard);
        options.max_connections = MAX_CONNECTIONS;
        let cluster = Cluster::start(options).await.map_err(|e| e.to_string())?;
        let templates = prepare_databases(cluster.address(), LEDGER_TEMPLATE, SEALING_TEMPLATE);
        let templates = templates.await.map_err(|e| e.to_string())?;
        let service = templates.ledger.parse().map_err(|e| format!("the service's URL: {e}"))?;
        Ok(Postgres { cluster, folder, service, scenarios: AtomicU32::new(0) })
    }

    /// A number for a scenario, and a folder that is its own.
    pub(crate) fn new_scenario(&self) -> (u32, PathBuf) {
        let number = self.scenarios.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.join(format!("scenario-{number}"));
        std::fs::create_dir(&folder).expect("the run's folder is ours");
        (number, folder)
    }

    pub(crate) fn address(&self) -> &Address {
        self.cluster.address()
    }

    /// What Postgres itself has logged, for all scenarios of the run.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("data/postgres.log")
    }

    /// The password that services log in with: a secret that must not show anywhere.
    pub(crate) fn service_password(&self) -> &str {
        let password = self.service.get_password().expect("the service's URL holds a password");
        std::str::from_utf8(password).expect("the password is hexadecimal")
    }

    /// Fresh databases, copied from the templates.
    pub(crate) async fn create(&self, scenario: u32) -> OwnDatabases {
        let (ledger, sealing) =
            (format!("scenario_{scenario}_ledger"), format!("scenario_{scenario}_sealing"));
        let client = self.superuser("postgres").await;
        for (name, template) in [(&ledger, LEDGER_TEMPLATE), (&sealing, SEALING_TEMPLATE)] {
            let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
            client.batch_execute(&create).await.expect("a template can be copied");
        }
        let service =
            Databases { ledger: self.service_url(&ledger), sealing: self.service_url(&sealing) };
        OwnDatabases { service, ledger, sealing }
    }

    /// Ends all sessions of a scenario's databases, and the databases.
    pub(crate) async fn drop(&self, databases: &OwnDatabases) {
        let client = self.superuser("postgres").await;
        for name in [&databases.ledger, &databases.sealing] {
            let drop = format!("DROP DATABASE {name} WITH (FORCE)");
            client.batch_execute(&drop).await.expect("a database can be dropped");
        }
    }

    /// A session that may do everything.
    pub(crate) async fn superuser(&self, database: &str) -> Client {
        let connected = self.cluster.config(database).connect(NoTls).await;
        let (client, connection) = connected.expect("Postgres accepts its superuser");
        tokio::spawn(connection);
        client
    }

    fn service_url(&self, database: &str) -> String {
        let user = self.service.get_user().expect("the service's URL names a user");
        self.address().url_as(user, self.service_password(), database)
    }
}

/// Folder of the unix socket that a URL of ours names.
pub(crate) fn socket_folder(url: &str) -> PathBuf {
    let config: Config = url.parse().expect("a URL of ours");
    match config.get_hosts() {
        [tokio_postgres::config::Host::Unix(folder)] => Path::new(folder).into(),
        hosts => panic!("one socket is expected, not {hosts:?}"),
    }
}
