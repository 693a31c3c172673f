//! What can go wrong with the embedded server. Each message says the reason and what to do next.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::find::{Binaries, OLDEST_MAJOR};

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("{}", not_found(looked_in, too_old, &os_release()))]
    NotFound { looked_in: Vec<PathBuf>, too_old: Vec<Binaries> },

    /// A folder that somebody named is never passed over for another one.
    #[error(
        "{origin} names {}, which {problem}: give the folder that holds `postgres` and `initdb`, \
         or leave it out and the usual folders are searched",
        dir.display()
    )]
    WrongBinDir { origin: &'static str, dir: PathBuf, problem: String },

    #[error(
        "{} was written by PostgreSQL {major}, and this machine has {}: install version {major}, \
         or move the data with `pg_upgrade`",
        pgdata.display(), versions(found)
    )]
    OtherMajor { pgdata: PathBuf, major: u32, found: Vec<Binaries> },

    #[error("{0}")]
    InUse(String),

    #[error("cannot {doing}: {reason}{}", hint(reason))]
    Io { doing: String, reason: io::Error },

    #[error("{0}")]
    Refused(String),

    /// The guard or the server ended; `tail` holds the newest lines of the log.
    #[error("{message}{}", quote(log, tail))]
    Ended { message: String, log: PathBuf, tail: String },
}

impl EmbeddedError {
    /// For `map_err`; `doing` completes the sentence "cannot …".
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedError {
        let doing = doing.into();
        |reason| EmbeddedError::Io { doing, reason }
    }
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::PermissionDenied => {
            " (run this as its owner, or choose another data directory)"
        }
        io::ErrorKind::StorageFull => " (free some space and try again)",
        _ => "",
    }
}

fn quote(log: &Path, tail: &str) -> String {
    if tail.is_empty() {
        return String::new();
    }
    format!("\nThe end of {}:\n{tail}", log.display())
}

fn versions(found: &[Binaries]) -> String {
    let each: Vec<String> =
        found.iter().map(|b| format!("{} in {}", b.version, b.dir.display())).collect();
    each.join(", ")
}

fn os_release() -> String {
    std::fs::read_to_string("/etc/os-release").unwrap_or_default()
}

fn not_found(looked_in: &[PathBuf], too_old: &[Binaries], os_release: &str) -> String {
    let mut text = format!("found no PostgreSQL server of version {OLDEST_MAJOR} or newer");
    if !too_old.is_empty() {
        let _ = write!(text, ", only {}", versions(too_old));
    }
    let dirs: Vec<String> = looked_in.iter().map(|d| d.display().to_string()).collect();
    let _ = write!(
        text,
        ".\n{}\nor set PG_BIN_DIR to the folder that holds `postgres` and `initdb`.\nSearched: {}",
        install_advice(os_release, cfg!(target_os = "macos")),
        dirs.join(", ")
    );
    text
}

/// Names in `ID` and `ID_LIKE` of os-release(5), the system in words, what to run there.
const INSTALL: [(&[&str], &str, &str); 6] = [
    (&["debian", "ubuntu"], "Debian, Ubuntu", "apt-get install postgresql"),
    (&["fedora", "rhel", "centos"], "Fedora, RHEL", "dnf install postgresql-server"),
    (&["arch"], "Arch Linux", "pacman -S postgresql"),
    (&["alpine"], "Alpine", "apk add postgresql"),
    (&["suse", "opensuse"], "openSUSE", "zypper install postgresql-server"),
    (&["macos"], "macOS", "brew install postgresql@17"),
];

/// One command where the system is known, else all of them.
fn install_advice(os_release: &str, macos: bool) -> String {
    let mut names: Vec<&str> = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .collect();
    if macos {
        names.push("macos");
    }
    let known = INSTALL.iter().find(|(ids, ..)| ids.iter().any(|id| names.contains(id)));
    if let Some((_, _, command)) = known {
        return format!("Install one with\n  {command}");
    }
    let lines: Vec<String> =
        INSTALL.iter().map(|(_, system, command)| format!("  {system}: {command}")).collect();
    format!("Install one:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_system_is_told_its_one_command() {
        let mint = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        let advice = install_advice(mint, false);
        assert_eq!(advice, "Install one with\n  apt-get install postgresql");
        assert!(install_advice("", true).contains("brew install postgresql@17"));
    }

    #[test]
    fn an_unknown_system_is_told_every_command() {
        let text = not_found(&[PathBuf::from("/usr/bin")], &[], "ID=plan9\n");
        for (_, system, command) in INSTALL {
            assert!(text.contains(&format!("{system}: {command}")), "{text}");
        }
        assert!(text.contains("PG_BIN_DIR") && text.contains("Searched: /usr/bin"));
    }
}
