//! The server process itself: how it is started, and how it is made to end.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::account::Account;
use super::create::wait_within;
use super::error::EmbeddedError;
use super::layout::Layout;
use super::leftovers::{self, ASK_AGAIN, FAST_LIMIT, IMMEDIATE_LIMIT};
use super::log;
use super::sockets::PORT;

/// Settings that don't depend on the place. What the caller sets comes later and wins.
const SETTINGS: [(&str, &str); 14] = [
    // What was answered must be there after a power cut, in `dev` too.
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // Only the socket.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("password_encryption", "scram-sha-256"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // The guard holds the log and bounds it.
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] %u@%d "),
    ("log_min_messages", "warning"),
    ("log_checkpoints", "off"),
    ("cluster_name", "keyledger"),
];

/// Returns when the process exists, which is before it accepts connections.
pub(super) fn start(
    layout: &Layout,
    account: &Account,
    bin_dir: &Path,
    socket_dir: &Path,
    settings: &[String],
) -> Result<Child, EmbeddedError> {
    let program = bin_dir.join("postgres");
    let (mut command, dir) = account.command_on(&layout.pgdata(), &program)?;
    command.arg("-D").arg(dir);
    let mut set = |setting: String| {
        command.args(["-c", &setting]);
    };
    for (name, value) in SETTINGS {
        set(format!("{name}={value}"));
    }
    set(format!("port={PORT}"));
    set(format!("unix_socket_directories={}", socket_dir.display()));
    // Postgres knows nothing of this one: it tells whoever looks at `ps` whose server it is.
    set(format!("keyledger.data_dir={}", layout.data_dir.display()));
    settings.iter().cloned().for_each(set);
    let doing = format!("run {} as {}", program.display(), account.name);
    spawn(command.stdout(Stdio::null())).map_err(EmbeddedError::io(doing))
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command.stderr(log::output()?).spawn()
}

/// Fast, then immediate, then by force. Afterwards no process of it is left.
pub(super) fn stop(
    server: &mut Child,
    layout: &Layout,
    account: &Account,
) -> Result<(), EmbeddedError> {
    let ended = end(server, account).map_err(EmbeddedError::io("wait for Postgres"));
    // After an orderly end this finds nothing.
    leftovers::clear(&layout.pgdata(), account)?;
    ended
}

fn end(server: &mut Child, account: &Account) -> io::Result<()> {
    let pid = server.id();
    for (signal, limit) in [("INT", FAST_LIMIT), ("QUIT", IMMEDIATE_LIMIT)] {
        // Once isn't enough: a signal may come before Postgres listens to signals.
        for _ in 0..limit.as_secs() / ASK_AGAIN.as_secs() {
            account.signal(signal, &[pid]);
            if wait_within(server, ASK_AGAIN)?.is_some() {
                return Ok(());
            }
        }
    }
    server.kill()?;
    server.wait().map(drop)
}
