//! The Postgres server programs: looked for where distributions put them, installed if missing.
//!
//! `keyledger dev` and the tests look in the same places themselves: nothing found is handed on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::packages;
use crate::process::{Result, answer_of, is_executable};

pub(crate) struct Postgres {
    pub(crate) folder: PathBuf,
    pub(crate) version: Version,
}

pub(crate) fn find_or_install() -> Result<Postgres> {
    if let Some(found) = find()? {
        return Ok(found);
    }
    let manager = packages::of_this_machine().ok_or(
        "the Postgres server programs (postgres, initdb) are missing, and this machine has none of \
         apt-get, dnf, pacman, apk and brew. Install a Postgres server, set PG_BIN_DIR to the \
         folder of its programs if that is an unusual one, then run this again.",
    )?;
    manager.install_postgres()?;
    find()?.ok_or_else(|| {
        "the Postgres package is installed, but `postgres` and `initdb` are in none of the usual \
         folders. Set PG_BIN_DIR to theirs, then run this again."
            .to_owned()
    })
}

/// What PG_BIN_DIR names, else the newest in all the usual folders.
fn find() -> Result<Option<Postgres>> {
    if let Some(folder) = env::var_os("PG_BIN_DIR") {
        return match at(Path::new(&folder)) {
            Some(found) => Ok(Some(found)),
            None => Err(format!(
                "PG_BIN_DIR is {}, but there are no working `postgres` and `initdb` in it. Correct \
                 it, or unset it to look in the usual folders.",
                Path::new(&folder).display()
            )),
        };
    }
    let found = usual_folders().into_iter().filter_map(|folder| at(&folder));
    // Of equals `max_by_key` takes the last: turned round, the first folder wins.
    Ok(found.rev().max_by_key(|postgres| postgres.version))
}

fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    // Development headers alone bring a pg_config too: its folder may hold no server.
    folders.extend(answer_of(Command::new("pg_config").arg("--bindir")).map(PathBuf::from));
    // Debian and Ubuntu
    folders.extend(bin_in_each_folder_of("/usr/lib/postgresql", ""));
    // The packages of the Postgres project for Fedora, Red Hat and SUSE
    folders.extend(bin_in_each_folder_of("/usr", "pgsql-"));
    // Homebrew: Apple silicon, Intel, Linux
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        folders.extend(bin_in_each_folder_of(prefix, "postgresql"));
    }
    // Fedora, Arch, Alpine and whatever the user arranged
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders
}

/// `<parent>/<prefix>*/bin`
fn bin_in_each_folder_of(parent: &str, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().join("bin"))
        .collect()
}

/// A folder with both programs, if `postgres` starts.
fn at(folder: &Path) -> Option<Postgres> {
    let programs = ["postgres", "initdb"].map(|program| folder.join(program));
    if !programs.iter().all(|program| is_executable(program)) {
        return None;
    }
    let version = answer_of(Command::new(&programs[0]).arg("--version"))?;
    Some(Postgres { folder: folder.to_owned(), version: Version::read(&version)? })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// From `postgres (PostgreSQL) 15.18 (Debian …)`; a beta such as `18beta1` counts as 18.0.
    fn read(line: &str) -> Option<Version> {
        let number =
            line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = match number.contains('.') {
            true => parts.next()?.parse().ok()?,
            false => 0,
        };
        Some(Version { major, minor })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let cases = [
            ("postgres (PostgreSQL) 9.6.24", 9, 6),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15, 18),
            ("postgres (PostgreSQL) 17.4 (Homebrew)", 17, 4),
            ("postgres (PostgreSQL) 18beta1", 18, 0),
        ];
        let versions = cases.map(|(line, major, minor)| {
            let version = Version::read(line).unwrap();
            assert_eq!(version, Version { major, minor }, "{line}");
            version
        });
        assert!(versions.is_sorted());
        assert_eq!(Version::read("postgres"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_none() {
        assert!(at(Path::new("/")).is_none());
    }
}
