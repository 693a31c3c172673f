//! The log of the guard and its server: one file that both append to through the guard's stderr.
//! The account that runs the server holds it open and needs no right to its folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use super::error::EmbeddedError;
use super::layout::Layout;

/// The log and one older one are kept, each of about this size at most.
const LIMIT_BYTES: u64 = 8 * 1024 * 1024;

const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 12;

/// The log from one start on.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    from: u64,
}

impl Log {
    /// Opens it for appending, as the guard's stderr.
    pub(super) fn open(layout: &Layout) -> Result<(Log, File), EmbeddedError> {
        let path = layout.log();
        let opened = File::options().append(true).create(true).mode(0o600).open(&path);
        let file = opened.map_err(EmbeddedError::io(format!("write {}", path.display())))?;
        let from = file.metadata().map_or(0, |log| log.len());
        Ok((Log { path, from }, file))
    }

    /// Adds what the log says since, unless somebody else's server is the reason.
    pub(super) fn explain(&self, error: EmbeddedError) -> EmbeddedError {
        if let EmbeddedError::InUse(_) = error {
            return error;
        }
        EmbeddedError::Ended {
            message: error.to_string(),
            log: self.path.clone(),
            tail: self.tail().unwrap_or_default(),
        }
    }

    fn tail(&self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        // Shorter than at the start: it was emptied since.
        let from = if length < self.from { 0 } else { self.from };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(last_lines(&String::from_utf8_lossy(&bytes)))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    lines[first..].join("\n")
}

/// For children of the guard.
pub(super) fn output() -> io::Result<Stdio> {
    Ok(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Copies and empties instead of renaming, because guard and server hold the file open. They
/// append, so their next line is the first one. Failing at it costs space and no data.
pub(super) fn bound(layout: &Layout) {
    let log = layout.log();
    let grown = fs::metadata(&log).is_ok_and(|log| log.len() > LIMIT_BYTES);
    if grown && fs::copy(&log, layout.older_log()).is_ok() {
        let _ = File::options().write(true).open(&log).and_then(|log| log.set_len(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_newest_lines() {
        let text: String = (0..20).map(|n| format!("line {n}\n")).collect();
        let tail = last_lines(&text);
        assert!(tail.starts_with("line 8\n") && tail.ends_with("line 19"), "{tail}");
        assert_eq!(last_lines(""), "");
    }
}
