//! The folder of the server's socket: short, because a socket's path holds 107 bytes (103 on macOS)
//! and a data directory may be long, and closed to everyone but the server's account and root.
//!
//! It stands in /run, or in /tmp for those who can't write there, under a name made from the data
//! directory, so that connection strings outlive a restart. /tmp is open to all: we use only a
//! folder that we made, or that is the server's own with mode 0700; where somebody else took the
//! name, the next one is tried. Where a running server listens stands in its `postmaster.pid`.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::EmbeddedError;

/// How many names to try in each place.
const NAMES: u32 = 4;

/// The folder is one server's own, so the port is only part of a name.
pub(super) const PORT: u16 = 5432;
const SOCKET: &str = ".s.PGSQL.5432";

pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let mut refusals = Vec::new();
    for place in ["/run", "/tmp"] {
        for attempt in 0..NAMES {
            let dir = Path::new(place).join(name(data_dir, attempt));
            match claim(&dir, account) {
                Ok(()) => return Ok(dir),
                Err(reason) => refusals.push(format!("{}: {reason}", dir.display())),
            }
        }
    }
    Err(EmbeddedError::Refused(format!(
        "found no place for the socket of Postgres; make /tmp writable or remove what stands in \
         the way:\n  {}",
        refusals.join("\n  ")
    )))
}

fn name(data_dir: &Path, attempt: u32) -> String {
    let mut hasher = DefaultHasher::new();
    (data_dir, attempt).hash(&mut hasher);
    format!("keyledger-{:016x}", hasher.finish())
}

fn claim(dir: &Path, account: &Account) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => account.give(dir).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => reuse(dir, account),
        Err(e) => Err(e),
    }
}

/// Nobody can swap the folder between check and use: /run is root's, and the sticky bit of /tmp
/// leaves renaming to the owner.
fn reuse(dir: &Path, account: &Account) -> io::Result<()> {
    let found = fs::symlink_metadata(dir)?;
    let ours = found.is_dir() && found.uid() == account.uid && found.mode() & 0o777 == 0o700;
    if !ours {
        return Err(io::Error::other("belongs to somebody else, or is open to others"));
    }
    // The server of a data directory that was moved away while it ran.
    if UnixStream::connect(dir.join(SOCKET)).is_ok() {
        return Err(io::Error::other("another server listens there"));
    }
    // A lock file that a killed server left could name a process that exists again.
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_the_same_at_each_start() {
        let long = PathBuf::from("/x".repeat(300));
        assert_eq!(name(&long, 0), name(&long, 0));
        assert_ne!(name(&long, 0), name(&long, 1));
        assert_ne!(name(&long, 0), name(Path::new("/y"), 0));
        assert_eq!(name(&long, 0).len(), 26);
    }
}
