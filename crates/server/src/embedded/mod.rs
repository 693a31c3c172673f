//! A real Postgres, run by us: for `keyledger dev` and for tests. It does what production does
//! (fsync, checksums); only finding, starting and stopping it happens here.
//!
//! ```text
//! we ── pipe ── guard ── child ── postgres
//! ```
//! However we die, the pipe closes; the guard then stops Postgres and ends. If the guard is killed
//! too, the next start on the directory ends what is left and goes on from there.
//!
//! On our side `find` chooses the binaries, `tether` starts the guard and holds the pipe, `cluster`
//! is what the caller gets. On the guard's side `lock` keeps others away, `leftovers` ends what was
//! left, `create` makes a cluster, `server` runs it as the `account` that may, on a socket from
//! `sockets`. `layout` names every file in the data directory and says who can do what with it.

mod account;
mod address;
mod cluster;
mod create;
mod error;
mod find;
mod guard;
mod layout;
mod leftovers;
mod lock;
mod log;
mod report;
mod server;
mod sockets;
mod tether;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

pub use address::{Address, running};
pub use cluster::Cluster;
pub use error::EmbeddedError;
pub use find::{Binaries, Version, find};
pub use guard::guard_main;

pub struct Options {
    /// Made if absent. Its mode and owner are never changed.
    pub data_dir: PathBuf,
    /// The folder of `postgres` and `initdb`; searched for if not given.
    pub bin_dir: Option<PathBuf>,
    pub guard: GuardCommand,
    pub max_connections: u32,
    pub shared_buffers_mib: u32,
    /// Further settings, as in postgresql.conf; they win over ours. Anybody can see them in `ps`.
    pub settings: Vec<(String, String)>,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>, guard: GuardCommand) -> Options {
        Options {
            data_dir: data_dir.into(),
            bin_dir: None,
            guard,
            max_connections: 60,
            shared_buffers_mib: 128,
            settings: Vec::new(),
        }
    }

    /// Lines of `name=value`; of two with the same name the later one counts.
    fn all_settings(&self) -> Vec<String> {
        let mut all = vec![
            format!("max_connections={}", self.max_connections),
            format!("shared_buffers={}MB", self.shared_buffers_mib),
        ];
        let further = self.settings.iter();
        all.extend(further.map(|(name, value)| format!("{name}={value}")));
        all
    }
}

/// A program, and its first arguments, that hands the arguments after these to `guard_main`.
#[derive(Clone, Debug)]
pub struct GuardCommand {
    /// An absolute path.
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

impl GuardCommand {
    /// This very program, with the words that lead it to `guard_main`.
    pub fn this_program(args: &[&str]) -> io::Result<GuardCommand> {
        Ok(GuardCommand {
            program: std::env::current_exe()?,
            args: args.iter().map(OsString::from).collect(),
        })
    }
}
