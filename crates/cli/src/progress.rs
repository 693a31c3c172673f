//! Progress of long work: one line on standard error, if that is a terminal.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(200);

/// A line that is written over. Nothing is written where nobody watches.
pub(crate) struct Progress {
    what: String,
    watched: bool,
    shown: Option<Instant>,
    started: Instant,
}

impl Progress {
    /// `what` is said of a number: `entries verified`.
    pub(crate) fn new(what: impl Into<String>) -> Progress {
        let watched = io::stderr().is_terminal();
        Progress { what: what.into(), watched, shown: None, started: Instant::now() }
    }

    /// `total` is 0 if it isn't known.
    pub(crate) fn at(&mut self, done: u64, total: u64) {
        let last = self.shown.unwrap_or(self.started);
        if self.watched && last.elapsed() >= INTERVAL {
            self.shown = Some(Instant::now());
            eprint!("\r\u{1b}[K{}", line(&self.what, done, total));
        }
    }
}

/// The line is gone when the work is done or has failed.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\u{1b}[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64) -> String {
    match total {
        0 => format!("{done} {what}"),
        total => format!("{done} of {total} {what} ({} %)", percent(done, total)),
    }
}

fn percent(done: u64, total: u64) -> u128 {
    u128::from(done.min(total)) * 100 / u128::from(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_number_of_a_number() {
        assert_eq!(line("entries verified", 5, 0), "5 entries verified");
        assert_eq!(line("entries verified", 5, 8), "5 of 8 entries verified (62 %)");
        assert_eq!(percent(u64::MAX, 3), 100);
    }
}
