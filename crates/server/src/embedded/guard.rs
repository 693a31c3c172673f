//! The guard: a process of its own between us and Postgres, so that no way to end us leaves a server
//! running. It holds one end of a pipe. When the other end closes, whether because its owner asked
//! or because it was killed, the guard stops Postgres and ends.
//!
//! It needs no runtime and no database driver. It is in a process group of its own, and ignores
//! hang-up, interrupt and termination (see `tether`), since Postgres must outlive the Ctrl-C on
//! which its parent drains. Only `kill -9` ends it alone; the next guard then finds what is left.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::create::{create, wipe_unfinished};
use super::error::EmbeddedError;
use super::layout::Layout;
use super::lock::Lock;
use super::report::Report;
use super::{leftovers, log, server, sockets};

const LOG_CHECK: Duration = Duration::from_secs(60);
/// How soon the end of Postgres is noticed.
const TICK: Duration = Duration::from_millis(200);

/// Runs as the guard until the parent is gone. `args` are those that follow the words that led the
/// program here; stdin and stdout belong to the parent, stderr is the log.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = Order::parse(args).and_then(|order| order.carry_out());
    let report = match &outcome {
        Ok(()) => Report::Ended,
        Err(error) => Report::of_error(error),
    };
    if let (Err(error), Err(_)) = (&outcome, report.send()) {
        // Nobody else is there to be told.
        eprintln!("keyledger guard: {error}");
    }
    ExitCode::from(u8::from(outcome.is_err()))
}

/// `<data dir> <folder of the binaries> <name>=<value>…`
struct Order {
    layout: Layout,
    bin_dir: PathBuf,
    settings: Vec<String>,
}

impl Order {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Order, EmbeddedError> {
        let mut args = args.into_iter();
        let (Some(data_dir), Some(bin_dir)) = (args.next(), args.next()) else {
            return Err(EmbeddedError::Refused(
                "the guard is started by `keyledger dev` and not by hand".to_owned(),
            ));
        };
        Ok(Order {
            layout: Layout::new(data_dir.into()),
            bin_dir: bin_dir.into(),
            settings: args.map(|arg| arg.to_string_lossy().into_owned()).collect(),
        })
    }

    /// The life of a guard. A kill may come after each line; the next guard starts at the top.
    fn carry_out(self) -> Result<(), EmbeddedError> {
        let layout = &self.layout;
        let lock = Arc::new(Lock::take(layout)?);
        let parent = watch_parent(Arc::clone(&lock));
        let pgdata = layout.pgdata();
        let account = Account::for_cluster(&pgdata)?;
        log::bound(layout);
        if leftovers::clear(&pgdata, &account)? {
            eprintln!("keyledger guard: ended a server that had lost its guard");
        }
        wipe_unfinished(layout, &account)?;
        // Nothing of an earlier run is left, except what it was to keep.
        let socket_dir = sockets::prepare(&layout.data_dir, &account)?;
        let outcome = self.serve(&lock, &parent, &account, &socket_dir);
        let _ = fs::remove_dir_all(&socket_dir);
        outcome
    }

    fn serve(
        &self,
        lock: &Lock,
        parent: &Receiver<()>,
        account: &Account,
        socket_dir: &Path,
    ) -> Result<(), EmbeddedError> {
        let (layout, bin_dir) = (&self.layout, &self.bin_dir);
        if layout.written_by()?.is_none() {
            create(layout, account, bin_dir, socket_dir)?;
        }
        // PGDATA is complete and durable, and its password too.
        let mut server = server::start(layout, account, bin_dir, socket_dir, &self.settings)?;
        // A parent that is gone is noticed by `keep`.
        let _ = serving(&server, socket_dir).send();
        let ended = keep(&mut server, parent, layout);
        lock.say_stopping();
        let stopped = server::stop(&mut server, layout, account);
        stopped.and(ended)
    }
}

/// A message comes, or the sender is dropped, when the other end of stdin is closed.
fn watch_parent(lock: Arc<Lock>) -> Receiver<()> {
    let (gone, parent) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        lock.say_stopping();
        let _ = gone.send(());
    });
    parent
}

fn serving(server: &Child, socket_dir: &Path) -> Report {
    Report::Serving { postmaster: server.id(), socket_dir: socket_dir.to_owned() }
}

/// Until the parent is gone (`Ok`) or the server is (an error).
fn keep(server: &mut Child, parent: &Receiver<()>, layout: &Layout) -> Result<(), EmbeddedError> {
    let mut checked = Instant::now();
    loop {
        if parent.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
        let status = server.try_wait().map_err(EmbeddedError::io("watch Postgres"))?;
        if let Some(status) = status {
            return Err(ended_by_itself(status, layout));
        }
        if checked.elapsed() > LOG_CHECK {
            log::bound(layout);
            checked = Instant::now();
        }
    }
}

fn ended_by_itself(status: ExitStatus, layout: &Layout) -> EmbeddedError {
    EmbeddedError::Refused(format!(
        "Postgres ended by itself ({status}): look into {} for the cause, then start again",
        layout.log().display()
    ))
}
