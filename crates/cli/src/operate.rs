//! Running Keyledger: `dev`, `init`, `serve`, `migrate`, `doctor` and the guard of the embedded Postgres.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use keyledger_ledger::restrict::Network;
use keyledger_server::config::{Databases, MAX_FOLDED, Serve, Tls};
use keyledger_server::dev::{Dev, dev};
use keyledger_server::embedded::{GuardCommand, guard_main};
use keyledger_server::init::{Init, admin_token_file, init, system_token_file};
use keyledger_server::inspect::doctor;
use keyledger_server::serve::{migrate_databases, serve};
use keyledger_server::streams::PATIENCE;
use keyledger_server::telemetry::config::Settings;
use keyledger_server::telemetry::{self, CallerContext, ContextPolicy};

use crate::{Ending, place};

#[derive(Subcommand)]
pub(crate) enum Operate {
    /// Starts everything on this machine: Postgres, both databases, a first ledger, and the service.
    ///
    /// Data is kept between runs. The admin token lies in `admin.token` of the data directory.
    #[command(after_help = "Example:\n  keyledger dev --data-dir ./data --listen 127.0.0.1:7420")]
    Dev(DevArgs),
    /// Opens ledger 0 and a first ledger; makes the key directory and two admin tokens. Refuses to run twice.
    #[command(
        after_help = "Example:\n  keyledger init --key-dir /etc/keyledger/keys --host keys.example.com"
    )]
    Init(InitArgs),
    /// Serves gRPC until SIGTERM or SIGINT.
    #[command(
        after_help = "Example:\n  keyledger serve --key-dir /etc/keyledger/keys --listen 0.0.0.0:7420 --tls-cert cert.pem --tls-key key.pem"
    )]
    Serve(ServeArgs),
    /// Brings both databases to this version of the schema. Needs a role that may create roles and tables.
    #[command(
        after_help = "Example:\n  keyledger migrate --database-url postgresql://owner@db/keyledger --sealing-database-url postgresql://owner@db2/keyledger_sealing"
    )]
    Migrate(DatabaseArgs),
    /// Looks at everything that must be right before serving, and says what is not. Changes nothing.
    #[command(after_help = "Example:\n  keyledger doctor --key-dir /etc/keyledger/keys")]
    Doctor(DoctorArgs),
    /// Watches over an embedded Postgres. Started by `keyledger dev`.
    #[command(hide = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where everything is kept. By default /var/lib/keyledger for root, else ~/.local/share/keyledger.
    #[arg(long, env = "KEYLEDGER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = keyledger_server::config::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Folder of the Postgres server's binaries. Searched for if not given.
    #[arg(long)]
    pg_bin_dir: Option<PathBuf>,
    #[command(flatten)]
    forwarders: ForwardersArg,
    #[command(flatten)]
    caller_context: CallerContextArgs,
}

#[derive(Args)]
pub(crate) struct DatabaseArgs {
    /// The ledger database: a libpq connection string or URL. It may hold a password: prefer the environment.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The database of data keys; in production on a cluster that shares no backups with the ledger's.
    #[arg(long, env = "SEALING_DATABASE_URL", hide_env_values = true)]
    sealing_database_url: String,
}

#[derive(Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Folder for the deployment's keys. Made if absent; back it up.
    #[arg(long, env = "KEYLEDGER_KEY_DIR")]
    key_dir: PathBuf,
    /// Folder for `system.token` and `admin.token`. The key directory if not given.
    #[arg(long)]
    token_dir: Option<PathBuf>,
    /// Name of the first ledger: 1 to 64 bytes of `a-z 0-9 -`.
    #[arg(long, default_value = "default")]
    ledger: String,
    /// Host part of the origins of checkpoints, such as keys.example.com.
    #[arg(long)]
    host: String,
}

#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Folder of the deployment's keys, as `keyledger init` made it.
    #[arg(long, env = "KEYLEDGER_KEY_DIR")]
    key_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, default_value = keyledger_server::config::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Certificate chain of the server, PEM.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the server, PEM.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority that client certificates must come from, PEM. Without it clients need none.
    #[arg(long, requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Listen without TLS on an address that is not loopback: only behind a proxy that encrypts.
    #[arg(long)]
    allow_plaintext: bool,
    /// Most changes that are folded to answer a list of the past (--as-of-position, --as-of-time). Beyond it, single keys must
    /// be asked for.
    #[arg(long, value_name = "NUMBER", env = "KEYLEDGER_MAX_FOLDED", default_value_t = MAX_FOLDED)]
    max_folded: u64,
    /// For tests: how long the reader of a stream may take nothing.
    #[arg(long, hide = true, value_name = "MS", env = "KEYLEDGER_READER_PATIENCE_MS")]
    reader_patience_ms: Option<u64>,
    #[command(flatten)]
    forwarders: ForwardersArg,
    #[command(flatten)]
    caller_context: CallerContextArgs,
}

#[derive(Args)]
struct ForwardersArg {
    /// What is sent on to other systems, and where: a TOML file. `keyledger audit forwarders` shows how far each has come.
    #[arg(long, value_name = "FILE", env = "KEYLEDGER_FORWARDERS")]
    forwarders: Option<PathBuf>,
}

#[derive(Args)]
struct CallerContextArgs {
    /// What becomes of the traces of callers: `trust` continues them, `link` begins a trace that links to the caller's span,
    /// `ignore` begins one and keeps nothing of theirs.
    #[arg(long, value_name = "POLICY", env = "KEYLEDGER_TRACE_CONTEXT", default_value = "trust")]
    trace_context: ContextPolicy,
    /// Networks whose callers are trusted with traces, whatever the policy is.
    #[arg(
        long,
        value_name = "CIDR",
        env = "KEYLEDGER_TRACE_CONTEXT_TRUSTED",
        value_delimiter = ','
    )]
    trace_context_trusted: Vec<Network>,
    /// Names of baggage whose values become attributes of spans. By default none does.
    #[arg(
        long,
        value_name = "NAME",
        env = "KEYLEDGER_BAGGAGE_ATTRIBUTES",
        value_delimiter = ',',
        value_parser = CallerContext::baggage_name
    )]
    baggage_attributes: Vec<String>,
}

impl From<CallerContextArgs> for CallerContext {
    fn from(args: CallerContextArgs) -> CallerContext {
        CallerContext {
            policy: args.trace_context,
            trusted: args.trace_context_trusted,
            baggage: args.baggage_attributes,
        }
    }
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    databases: DatabaseArgs,
    /// Folder of the deployment's keys.
    #[arg(long, env = "KEYLEDGER_KEY_DIR")]
    key_dir: PathBuf,
}

impl From<DatabaseArgs> for Databases {
    fn from(args: DatabaseArgs) -> Databases {
        Databases { ledger: args.database_url, sealing: args.sealing_database_url }
    }
}

/// The guard comes before everything else: no runtime, no telemetry.
pub(crate) fn guard(command: &Operate) -> Option<ExitCode> {
    match command {
        Operate::Guard { arguments } => Some(guard_main(arguments.iter().cloned())),
        _ => None,
    }
}

pub(crate) async fn run(command: Operate) -> anyhow::Result<Ending> {
    // Only who serves exports anything.
    let serves = matches!(command, Operate::Dev(_) | Operate::Serve(_));
    let settings = if serves { Settings::from_environment()? } else { Settings::off() };
    let _telemetry = telemetry::start(&settings)?;
    match command {
        Operate::Dev(args) => run_dev(args, settings).await?,
        Operate::Init(args) => run_init(args).await?,
        Operate::Serve(args) => run_serve(args, settings).await?,
        Operate::Migrate(args) => run_migrate(args).await?,
        Operate::Doctor(args) => return run_doctor(args).await,
        Operate::Guard { .. } => anyhow::bail!("the guard runs before any runtime"),
    }
    Ok(Ending::Good)
}

async fn run_dev(args: DevArgs, telemetry: Settings) -> anyhow::Result<()> {
    let data_dir = args.data_dir.map_or_else(place::default_data_dir, Ok)?;
    create_private(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    let options = Dev {
        data_dir: data_dir.clone(),
        listen: args.listen,
        pg_bin_dir: args.pg_bin_dir,
        forwarders: args.forwarders.forwarders,
        guard: GuardCommand::this_program(&["guard"])?,
        telemetry,
        caller_context: args.caller_context.into(),
    };
    dev(options, |address| print_welcome(address, &data_dir), stop_signal()?).await?;
    Ok(())
}

/// A directory that holds tokens and keys is its owner's alone. One that exists stays as it is.
fn create_private(dir: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| anyhow::anyhow!("can't make the data directory {}: {e}", dir.display()))
}

fn print_welcome(address: SocketAddr, data_dir: &std::path::Path) {
    let default = place::default_data_dir()
        .is_ok_and(|usual| usual.canonicalize().is_ok_and(|d| d == data_dir));
    let option =
        if default { String::new() } else { format!(" --data-dir {}", data_dir.display()) };
    let token = admin_token_file(data_dir);
    println!("listening on {address}");
    println!("admin token: {}", token.display());
    println!();
    println!("Try, in another terminal:");
    println!(
        "  keyledger keys create{option} --user alice@example.com --purpose 'export error logs' --grant 'audit.read on logs/error' --ttl 1h --reason 'ticket 4711'"
    );
    println!("  keyledger audit list{option}");
    println!("  keyledger verify --data-dir {}", data_dir.display());
}

async fn run_init(args: InitArgs) -> anyhow::Result<()> {
    let token_dir = args.token_dir.unwrap_or_else(|| args.key_dir.clone());
    create_private(&token_dir)?;
    let (system, admin) = (system_token_file(&token_dir), admin_token_file(&token_dir));
    let options = Init {
        databases: args.databases.into(),
        key_dir: args.key_dir.clone(),
        token_dir,
        ledger: args.ledger.clone(),
        host: args.host,
        resume: false,
    };
    init(options).await?;
    println!(
        "Keys:                     {} (back it up: without it nothing can be opened or signed)",
        args.key_dir.display()
    );
    println!("Admin of ledger 0:        {}", system.display());
    println!("Admin of ledger {}: {}", args.ledger, admin.display());
    Ok(())
}

async fn run_serve(args: ServeArgs, telemetry: Settings) -> anyhow::Result<()> {
    let tls = match (args.tls_cert, args.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(Tls { certificate, key, client_authority: args.client_ca })
        }
        _ => None,
    };
    let config = Serve {
        databases: args.databases.into(),
        key_dir: args.key_dir,
        listen: args.listen,
        tls,
        allow_plaintext: args.allow_plaintext,
        max_folded: args.max_folded,
        forwarders: args.forwarders.forwarders,
        reader_patience: args.reader_patience_ms.map_or(PATIENCE, Duration::from_millis),
        telemetry,
        caller_context: args.caller_context.into(),
    };
    serve(config, |address| println!("listening on {address}"), stop_signal()?).await?;
    Ok(())
}

async fn run_migrate(args: DatabaseArgs) -> anyhow::Result<()> {
    let ran = migrate_databases(&args.into()).await?;
    match ran.is_empty() {
        true => println!("Both databases have this version of the schema already."),
        false => ran.iter().for_each(|name| println!("ran {name}")),
    }
    Ok(())
}

async fn run_doctor(args: DoctorArgs) -> anyhow::Result<Ending> {
    let checks = doctor(&args.databases.into(), &args.key_dir).await;
    for check in &checks {
        match &check.result {
            Ok(detail) => println!("ok    {}: {detail}", check.what),
            Err(reason) => println!("FAIL  {}: {reason}", check.what),
        }
    }
    Ok(if checks.iter().all(|c| c.result.is_ok()) { Ending::Good } else { Ending::NotGood })
}

/// Completes at SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
