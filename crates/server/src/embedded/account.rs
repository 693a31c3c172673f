//! Who runs the server. Postgres refuses root, so root hands it to an account with fewer rights.
//!
//! That account gets PGDATA and a socket folder, and nothing else: no mode of the data directory or
//! of a folder above it is changed. On Linux we pass PGDATA as an open descriptor and name it
//! `/proc/self/fd/9`; following that link asks for no permission on the folders above. So a data
//! directory that is root's with 0700, or lies in /root, works and stays closed. The environment is
//! cleared, because it may hold tokens and is readable by every process of that account.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::EmbeddedError;

/// Tried in this order when root makes a new cluster. The second is Homebrew's and macOS's.
const UNPRIVILEGED: [&str; 3] = ["postgres", "_postgres", "nobody"];

const DESCRIPTORS: &str = "/proc/self/fd";

/// Moves the descriptor out of the way of stdin: `initdb` gives its children other ones.
const HAND_OVER: &str = r#"exec "$@" 9<&0 </dev/null"#;

pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    gid: u32,
    /// It is another account than ours, which then is root.
    switch: bool,
}

impl Account {
    /// Ours; as root the owner of a cluster that exists, else the first unprivileged one there is.
    pub(super) fn for_cluster(pgdata: &Path) -> Result<Account, EmbeddedError> {
        let us = id(&["-u"]).map_err(EmbeddedError::io("ask `id` who we are"))?;
        if us != 0 {
            return Ok(Account {
                name: format!("uid {us}"),
                uid: us,
                gid: id(&["-g"]).map_err(EmbeddedError::io("ask `id` for our group"))?,
                switch: false,
            });
        }
        match fs::metadata(pgdata) {
            Ok(found) if pgdata.join("PG_VERSION").exists() => {
                Account::owner(pgdata, found.uid(), found.gid())
            }
            _ => Account::unprivileged(),
        }
    }

    fn owner(pgdata: &Path, uid: u32, gid: u32) -> Result<Account, EmbeddedError> {
        if uid == 0 {
            let pgdata = pgdata.display();
            return Err(EmbeddedError::Refused(format!(
                "{pgdata} belongs to root, and Postgres refuses to run as root: give it back with \
                 `chown -R postgres {pgdata}`"
            )));
        }
        Ok(Account { name: format!("uid {uid}"), uid, gid, switch: true })
    }

    fn unprivileged() -> Result<Account, EmbeddedError> {
        let known = UNPRIVILEGED.iter().find_map(|name| {
            Some(Account {
                name: format!("the user {name}"),
                uid: id(&["-u", name]).ok().filter(|uid| *uid != 0)?,
                gid: id(&["-g", name]).ok()?,
                switch: true,
            })
        });
        known.ok_or_else(|| {
            EmbeddedError::Refused(format!(
                "Postgres refuses to run as root, and none of the users {} exists: add one with \
                 `useradd --system postgres`, or run this as another user",
                UNPRIVILEGED.join(", ")
            ))
        })
    }

    /// A command that runs as this account, knows nothing of our environment and reads nothing.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").stdin(Stdio::null());
        // LC_ALL: messages we can read, and without it Postgres doesn't start on macOS.
        command.env("LC_ALL", "C");
        for name in ["PATH", "LD_LIBRARY_PATH"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if self.switch {
            // Also drops root's supplementary groups.
            command.gid(self.gid).uid(self.uid);
        }
        command
    }

    /// As `command`, with the name by which the program can reach `dir`.
    pub(super) fn command_on(
        &self,
        dir: &Path,
        program: &Path,
    ) -> Result<(Command, PathBuf), EmbeddedError> {
        if !self.switch || !Path::new(DESCRIPTORS).is_dir() {
            self.check_reach(dir)?;
            return Ok((self.command(program), dir.to_owned()));
        }
        let open = File::open(dir).map_err(EmbeddedError::io(format!("open {}", dir.display())))?;
        let mut command = self.command("/bin/sh");
        command.args(["-c", HAND_OVER, "sh"]).arg(program).stdin(open);
        Ok((command, Path::new(DESCRIPTORS).join("9")))
    }

    fn check_reach(&self, dir: &Path) -> Result<(), EmbeddedError> {
        let mut enter = self.command("/bin/sh");
        enter.args(["-c", r#"cd "$1" 2>/dev/null"#, "sh"]).arg(dir);
        let status =
            enter.status().map_err(EmbeddedError::io(format!("run a command as {}", self.name)))?;
        if status.success() {
            return Ok(());
        }
        Err(EmbeddedError::Refused(format!(
            "{} runs Postgres, and a folder on the way to {} is closed to it: choose a data \
             directory outside of it, or run this as another user than root",
            self.name,
            dir.display()
        )))
    }

    /// Makes the account the owner of `path`; a link itself, never what it points to.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        let doing = format!("give {} to {}", path.display(), self.name);
        lchown(path, Some(self.uid), Some(self.gid)).map_err(EmbeddedError::io(doing))
    }

    /// A process that is gone already is no error: whoever signals also waits for the end.
    pub(super) fn signal(&self, signal: &str, pids: &[u32]) {
        let mut kill = self.command("/bin/sh");
        kill.args(["-c", r#"kill "$@" 2>/dev/null"#, "sh", "-s", signal]);
        kill.args(pids.iter().map(u32::to_string));
        let _ = kill.status();
    }
}

/// Asks id(1), which knows accounts from every source that the system has.
fn id(arguments: &[&str]) -> io::Result<u32> {
    let output = Command::new("id").args(arguments).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| io::Error::other("no such account"))
}
