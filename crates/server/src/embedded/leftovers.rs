//! Servers that a killed guard left behind, and what a killed server left behind.
//!
//! A process belongs to a cluster if it is a `postgres` whose working directory is PGDATA: true
//! for the postmaster and for each of its children, and not to be confused with a process that
//! came to the same number later. Callers hold the lock of the data directory, so nobody starts a
//! server there meanwhile.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::account::Account;
use super::error::EmbeddedError;
use super::layout::PidFile;

/// Time for running transactions to roll back and for the last checkpoint.
pub(super) const FAST_LIMIT: Duration = Duration::from_secs(20);
/// Time to exit at once, without a checkpoint.
pub(super) const IMMEDIATE_LIMIT: Duration = Duration::from_secs(5);
/// An order may meet a server that can't hear yet; asking again does no harm.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// Ends every server process on `pgdata` and removes a stale pid file. True if there was one.
pub(super) fn clear(pgdata: &Path, account: &Account) -> Result<bool, EmbeddedError> {
    // Working directories are told without links.
    let resolved = fs::canonicalize(pgdata);
    let pgdata = resolved.as_deref().unwrap_or(pgdata);
    let mut alive = servers_on(pgdata, account)?;
    let found = !alive.is_empty();
    let postmaster = PidFile::read(pgdata).map(|file| file.pid);
    if let Some(postmaster) = postmaster.filter(|pid| alive.contains(pid)) {
        alive = end(pgdata, account, "INT", FAST_LIMIT, |_| vec![postmaster])?;
    }
    for signal in ["QUIT", "KILL"] {
        if !alive.is_empty() {
            alive = end(pgdata, account, signal, IMMEDIATE_LIMIT, <[u32]>::to_vec)?;
        }
    }
    if !alive.is_empty() {
        return Err(EmbeddedError::Refused(format!(
            "the processes {alive:?} of an earlier Postgres on {} can't be ended: end them, or \
             restart the machine",
            pgdata.display()
        )));
    }
    forget(pgdata)?;
    Ok(found)
}

/// Signals until no server is left or the time is up; what is left then.
fn end(
    pgdata: &Path,
    account: &Account,
    signal: &str,
    limit: Duration,
    whom: impl Fn(&[u32]) -> Vec<u32>,
) -> Result<Vec<u32>, EmbeddedError> {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let alive = servers_on(pgdata, account)?;
        if alive.is_empty() || begun.elapsed() > limit {
            return Ok(alive);
        }
        if asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
            account.signal(signal, &whom(&alive));
            asked = Some(Instant::now());
        }
        thread::sleep(POLL);
    }
}

/// Postgres removes a stale pid file itself, unless some other process has the number by now; in a
/// container, where numbers are small and come again, that would keep it from ever starting.
fn forget(pgdata: &Path) -> Result<(), EmbeddedError> {
    let path = PidFile::path(pgdata);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(EmbeddedError::io(format!("remove {}", path.display()))(e))
        }
        _ => Ok(()),
    }
}

fn servers_on(pgdata: &Path, account: &Account) -> Result<Vec<u32>, EmbeddedError> {
    let (mut ask, parse) = question(account);
    let Some(ask) = ask.as_mut() else {
        return Ok(Vec::new());
    };
    let doing = "look for processes of an earlier Postgres";
    let output = ask.output().map_err(EmbeddedError::io(doing))?;
    let found = parse(&String::from_utf8_lossy(&output.stdout));
    let here = found.into_iter().filter(|(_, dir)| dir == pgdata);
    Ok(here.map(|(pid, _)| pid).collect())
}

type Parser = fn(&str) -> Vec<(u32, PathBuf)>;

/// What to run to learn the working directory of each server process, and how to read the answer.
/// The account itself asks: root without CAP_SYS_PTRACE (in a container) may not.
fn question(account: &Account) -> (Option<Command>, Parser) {
    if !cfg!(target_os = "linux") {
        let mut lsof = account.command("lsof");
        lsof.args(["-a", "-c", "postgres", "-d", "cwd", "-Fpn"]);
        return (Some(lsof), parse_lsof);
    }
    let servers = linux_servers();
    let mut ask = account.command("/bin/sh");
    let each = r#"for p; do echo "$p $(readlink "/proc/$p/cwd" 2>/dev/null)"; done"#;
    ask.args(["-c", each, "sh"]).args(servers.iter().map(u32::to_string));
    (Some(ask).filter(|_| !servers.is_empty()), parse_links)
}

fn linux_servers() -> Vec<u32> {
    let is_server = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        matches!(name.as_deref().map(str::trim), Ok("postgres" | "postmaster"))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_server)
        .collect()
}

/// Lines of number and path; no path where we may not know it or the process is gone.
fn parse_links(text: &str) -> Vec<(u32, PathBuf)> {
    let pair = |line: &str| {
        let (pid, dir) = line.split_once(' ')?;
        Some((pid.parse().ok()?, PathBuf::from(dir)))
    };
    text.lines().filter_map(pair).collect()
}

/// Lines of `p<number>`, `fcwd` and `n<path>` for each process.
fn parse_lsof(text: &str) -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    let mut process = None;
    for line in text.lines() {
        if let Some(pid) = line.strip_prefix('p') {
            process = pid.parse().ok();
        } else if let (Some(dir), Some(pid)) = (line.strip_prefix('n'), process) {
            found.push((pid, PathBuf::from(dir)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_gone_is_on_no_directory() {
        let found = parse_links("12 /data/a b\n13 \nnoise\n");
        assert_eq!(found, [(12, "/data/a b".into()), (13, "".into())]);
    }

    #[test]
    fn the_answer_of_lsof_is_read_process_by_process() {
        let found = parse_lsof("p88\nfcwd\nn/private/tmp/postgres\np89\nfcwd\nn/other\n");
        let expected = [(88, "/private/tmp/postgres".into()), (89, "/other".into())];
        assert_eq!(found, expected);
    }
}
