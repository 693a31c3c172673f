//! Names of what the embedded server keeps in a data directory. Keys and tokens lie beside these
//! and are none of its business.
//!
//! Trust: `postgres/` belongs to the account that runs the server; whoever can write it can change
//! every row. All other files belong to the owner of the data directory, mode 0600. Whoever may
//! write the data directory itself controls which files we open there, so as root it should be
//! root's.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::EmbeddedError;

const UNFINISHED: &str = "postgres.new-";

#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) data_dir: PathBuf,
}

impl Layout {
    /// `data_dir` must be absolute and free of links: the guard has another working directory, and
    /// leftover servers are recognised by the path.
    pub(super) fn new(data_dir: PathBuf) -> Layout {
        Layout { data_dir }
    }

    /// PGDATA.
    pub(super) fn pgdata(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    /// Where `initdb` works; renamed to `pgdata` when complete. Another name for each guard: an
    /// `initdb` that lost its guard goes on for a while and must not meet the next one.
    pub(super) fn unfinished(&self) -> PathBuf {
        let name = format!("{UNFINISHED}{}", std::process::id());
        self.data_dir.join(name)
    }

    /// What interrupted runs left.
    pub(super) fn all_unfinished(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.data_dir).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
            .map(|entry| entry.path())
            .collect()
    }

    /// Held by the guard for as long as it lives.
    pub(super) fn lock(&self) -> PathBuf {
        self.data_dir.join("postgres.lock")
    }

    /// The password of the role `postgres`.
    pub(super) fn password(&self) -> PathBuf {
        self.data_dir.join("postgres.password")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    pub(super) fn older_log(&self) -> PathBuf {
        self.data_dir.join("postgres.log.1")
    }

    /// The major version that wrote PGDATA; `None` if there is no cluster yet.
    pub(super) fn written_by(&self) -> Result<Option<u32>, EmbeddedError> {
        let path = self.pgdata().join("PG_VERSION");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(EmbeddedError::io(format!("read {}", path.display()))(e)),
        };
        let major = text.trim().parse().map_err(|_| {
            EmbeddedError::Refused(format!(
                "{} holds `{}` and not a version: restore {} from a backup",
                path.display(),
                text.trim(),
                self.pgdata().display()
            ))
        })?;
        Ok(Some(major))
    }
}

/// What a running server writes into `postmaster.pid`: a fact per line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    /// Absent until the server listens.
    pub(super) socket_dir: Option<PathBuf>,
    /// It says that it accepts connections.
    pub(super) ready: bool,
}

impl PidFile {
    pub(super) fn path(pgdata: &Path) -> PathBuf {
        pgdata.join("postmaster.pid")
    }

    pub(super) fn read(pgdata: &Path) -> Option<PidFile> {
        PidFile::parse(&fs::read_to_string(PidFile::path(pgdata)).ok()?)
    }

    fn parse(text: &str) -> Option<PidFile> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        let socket_dir = lines.nth(3).map(str::trim).filter(|dir| !dir.is_empty());
        let status = lines.nth(2).map(str::trim);
        Some(PidFile {
            pid,
            socket_dir: socket_dir.map(PathBuf::from),
            ready: status == Some("ready"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_gives_the_process_and_its_socket_folder() {
        let text = "14813\n/proc/self/fd/9\n1795303430\n5432\n/run/x\n\n 10010721  4\nready   \n";
        let expected = PidFile { pid: 14813, socket_dir: Some("/run/x".into()), ready: true };
        assert_eq!(PidFile::parse(text), Some(expected));
    }

    #[test]
    fn a_pid_file_that_is_still_being_written_gives_what_it_has() {
        let early = PidFile::parse("77\n/data\n").unwrap();
        assert_eq!((early.pid, early.socket_dir, early.ready), (77, None, false));
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("nonsense\n"), None);
    }
}
