//! A deployment: two databases, a key directory and two admin tokens of its own, as `keyledger init` makes them, and the
//! replicas that a scenario starts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use keyledger_server::config::Databases;
use keyledger_server::init::{admin_token_file, system_token_file};
use tokio::process::Command;
use tokio_postgres::Client;

use super::PROGRAM;
use super::postgres::{OwnDatabases, postgres};
use super::replica::{Replica, Tokens};
use super::secrets::Secrets;

pub(crate) struct Deployment {
    pub(super) databases: OwnDatabases,
    pub(super) folder: PathBuf,
    pub(super) replicas: Mutex<Vec<Arc<Replica>>>,
    /// Ledgers that the scenario has damaged, and says so.
    pub(super) damaged: Mutex<Vec<String>>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) tokens: Tokens,
    programs: AtomicUsize,
}

impl Deployment {
    pub(super) async fn new() -> Deployment {
        let (number, folder) = postgres().new_scenario();
        let mut deployment = Deployment {
            databases: postgres().create(number).await,
            folder,
            replicas: Mutex::default(),
            damaged: Mutex::default(),
            secrets: Arc::default(),
            tokens: Tokens { system: String::new(), admin: String::new() },
            programs: AtomicUsize::new(0),
        };
        deployment.init().await;
        deployment
    }

    async fn init(&mut self) {
        let tokens = self.folder.join("tokens");
        let init = ["init", "--host", "keys.example.test", "--token-dir"];
        let output = self
            .run(init.iter().map(|a| a.to_string()).chain([tokens.display().to_string()]))
            .await;
        assert!(output.status.success(), "init: {}", output.text);
        let read =
            |file| std::fs::read_to_string(file).expect("init has written it").trim().to_string();
        self.tokens = Tokens {
            system: read(system_token_file(&tokens)),
            admin: read(admin_token_file(&tokens)),
        };
        self.secrets.token(&self.tokens.system);
        self.secrets.token(&self.tokens.admin);
        self.secrets.key_directory(&self.key_dir());
        self.secrets.text("the password of the service", postgres().service_password());
    }

    /// Starts a server on the deployment and waits until it listens.
    pub(crate) async fn replica(&self) -> Arc<Replica> {
        self.replica_on(self.databases()).await
    }

    /// Starts a server that reaches its databases by other URLs, such as those of a [`super::Link`].
    pub(crate) async fn replica_on(&self, databases: &Databases) -> Arc<Replica> {
        let replica = self.try_replica(databases, &self.key_dir()).await;
        replica.unwrap_or_else(|why| panic!("the server didn't start: {why}"))
    }

    /// Starts a server that may refuse to; then the error is its exit status and all that it wrote.
    pub(crate) async fn try_replica(
        &self,
        databases: &Databases,
        key_dir: &Path,
    ) -> Result<Arc<Replica>, String> {
        self.start(self.program(), databases, key_dir).await
    }

    /// Starts a server with one more variable in its environment.
    pub(crate) async fn replica_with(&self, name: &str, value: &str) -> Arc<Replica> {
        self.replica_with_all(&[(name, value)]).await
    }

    /// Starts a server with more variables in its environment.
    pub(crate) async fn replica_with_all(&self, variables: &[(&str, &str)]) -> Arc<Replica> {
        let started = self.try_replica_with_all(variables).await;
        started.unwrap_or_else(|why| panic!("the server didn't start: {why}"))
    }

    /// Starts a server with more variables in its environment, because of which it may refuse to.
    pub(crate) async fn try_replica_with_all(
        &self,
        variables: &[(&str, &str)],
    ) -> Result<Arc<Replica>, String> {
        let mut serve = self.program();
        serve.envs(variables.iter().copied());
        self.start(serve, self.databases(), &self.key_dir()).await
    }

    async fn start(
        &self,
        mut serve: Command,
        databases: &Databases,
        key_dir: &Path,
    ) -> Result<Arc<Replica>, String> {
        serve.args(["serve", "--listen", "127.0.0.1:0"]);
        serve
            .env("DATABASE_URL", &databases.ledger)
            .env("SEALING_DATABASE_URL", &databases.sealing);
        serve.env("KEYLEDGER_KEY_DIR", key_dir).env("KEYLEDGER_TESTS_TETHER", "1");
        let log = self.new_log();
        let started = Replica::start(serve, self.secrets.clone(), self.tokens.clone(), log);
        let replica = Arc::new(started.await?);
        self.replicas.lock().expect("no holder of this lock panics").push(replica.clone());
        Ok(replica)
    }

    /// Runs a command of the program under test to its end. What it writes is looked through for secrets too.
    pub(crate) async fn run(&self, arguments: impl IntoIterator<Item = String>) -> Output {
        let output = self.program().args(arguments).stdin(Stdio::null()).output().await;
        let output = output.expect("the program under test starts");
        let bytes = [output.stdout, output.stderr].concat();
        std::fs::write(self.new_log().with_extension("output"), &bytes)
            .expect("the scenario's folder is ours");
        Output { status: output.status, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// The program under test, told of this deployment by its environment and of nothing else.
    pub(crate) fn program(&self) -> Command {
        let mut program = Command::new(PROGRAM);
        for (name, _) in std::env::vars_os() {
            let ours = ["KEYLEDGER_", "OTEL_", "RUST_LOG"];
            if ours.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                program.env_remove(name);
            }
        }
        program.env("HOME", &self.folder);
        program.env("DATABASE_URL", &self.databases().ledger);
        program.env("SEALING_DATABASE_URL", &self.databases().sealing);
        program.env("KEYLEDGER_KEY_DIR", self.key_dir());
        program
    }

    /// As the role that may only serve.
    pub(crate) fn databases(&self) -> &Databases {
        &self.databases.service
    }

    /// As the role that may do everything: what no deployment should do.
    pub(crate) fn superuser_databases(&self) -> Databases {
        let url = |database: &str| postgres().address().url(database);
        Databases { ledger: url(&self.databases.ledger), sealing: url(&self.databases.sealing) }
    }

    /// The URL of the ledger database for any role that can log in.
    pub(crate) fn ledger_url_as(&self, role: &str, password: &str) -> String {
        postgres().address().url_as(role, password, &self.databases.ledger)
    }

    pub(crate) fn key_dir(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// A session on the ledger database that may do everything.
    pub(crate) async fn superuser(&self) -> Client {
        postgres().superuser(&self.databases.ledger).await
    }

    /// A session on the sealing database that may do everything.
    pub(crate) async fn sealing_superuser(&self) -> Client {
        postgres().superuser(&self.databases.sealing).await
    }

    /// Says that a ledger was damaged on purpose: at the end it must not verify.
    pub(crate) fn expect_damage(&self, ledger: &str) {
        self.damaged.lock().expect("no holder of this lock panics").push(ledger.into());
    }

    /// Files in the scenario's own folder, which are looked through for secrets if they lie in `logs`.
    pub(super) fn new_log(&self) -> PathBuf {
        let logs = self.folder.join("logs");
        std::fs::create_dir_all(&logs).expect("the scenario's folder is ours");
        let number = self.programs.fetch_add(1, Ordering::Relaxed);
        logs.join(format!("{number}.log"))
    }
}

/// What a command came to.
pub(crate) struct Output {
    pub(crate) status: std::process::ExitStatus,
    /// Standard output, then standard error.
    pub(crate) text: String,
}
