//! Where `keyledger dev` keeps its data, and where other commands therefore look for a token and an address.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// The data directory when none is named: `/var/lib/keyledger` for root, else `$XDG_DATA_HOME/keyledger` or
/// `~/.local/share/keyledger`.
pub(crate) fn default_data_dir() -> Result<PathBuf, Failure> {
    if is_root() {
        return Ok("/var/lib/keyledger".into());
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    user_data_dir(variable("XDG_DATA_HOME"), variable("HOME")).ok_or_else(|| {
        Failure::new("no data directory: HOME is not set")
            .next("name a directory with --data-dir or KEYLEDGER_DATA_DIR")
    })
}

/// Token of the first ledger's administrator.
pub(crate) fn admin_token(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

/// Token of the administrator of the system ledger, who opens ledgers.
pub(crate) fn system_token(data_dir: &Path) -> PathBuf {
    data_dir.join("system.token")
}

/// The address that `dev` listens on, such as `http://127.0.0.1:7770`.
pub(crate) fn endpoint(data_dir: &Path) -> PathBuf {
    data_dir.join("endpoint")
}

/// Whether this process acts as root.
pub(crate) fn is_root() -> bool {
    effective_user() == Some(0)
}

/// A relative XDG_DATA_HOME counts as none (XDG Base Directory Specification).
fn user_data_dir(xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let named = xdg_data_home.filter(|dir| dir.is_absolute());
    let usual = || home.filter(|dir| dir.is_absolute()).map(|dir| dir.join(".local/share"));
    named.or_else(usual).map(|dir| dir.join("keyledger"))
}

/// Without unsafe code the kernel says it in a file (Linux); elsewhere `id` does.
fn effective_user() -> Option<u32> {
    match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => user_in_status(&status),
        Err(_) => {
            let output = Command::new("id").arg("-u").output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        }
    }
}

/// `Uid:` real, effective, saved and file system user (proc_pid_status(5)).
fn user_in_status(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_user_follows_the_xdg_specification() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(user_data_dir(path("/data"), path("/home/a")), path("/data/keyledger"));
        for none in [None, path(""), path("data")] {
            let usual = path("/home/a/.local/share/keyledger");
            assert_eq!(user_data_dir(none, path("/home/a")), usual);
        }
        assert_eq!(user_data_dir(None, None), None);
    }

    #[test]
    fn the_effective_user_is_the_second_one() {
        assert_eq!(user_in_status("Name:\tx\nUid:\t1000\t0\t3\t4\nGid:\t7"), Some(0));
        assert_eq!(user_in_status("Name:\tx\n"), None);
    }
}
