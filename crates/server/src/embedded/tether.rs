//! Our end of the guard. As long as the tether is held, the guard keeps Postgres running; when it is
//! dropped or we die, the pipe closes and the guard stops it.
//!
//! Threads and plain pipes, no runtime: tests share one cluster among many short-lived runtimes.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use tokio::sync::watch;

use super::GuardCommand;
use super::error::EmbeddedError;
use super::layout::Layout;
use super::report::Report;

/// What is ignored here stays ignored across `exec`, which safe Rust can't arrange otherwise.
/// Postgres sets its own handlers.
const IGNORE_SIGNALS: &str = r#"trap "" HUP INT TERM; exec "$@""#;

#[derive(Debug)]
pub(super) struct Tether {
    pipe: Option<ChildStdin>,
    /// `None` until the guard has something to say.
    reports: watch::Receiver<Option<Report>>,
}

impl Tether {
    pub(super) fn spawn(
        command: &GuardCommand,
        layout: &Layout,
        bin_dir: &Path,
        settings: &[String],
        log: File,
    ) -> Result<Tether, EmbeddedError> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", IGNORE_SIGNALS, "sh"]);
        shell.arg(&command.program).args(&command.args);
        shell.arg(&layout.data_dir).arg(bin_dir).args(settings);
        shell.current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let spawned = shell.spawn();
        let mut child = spawned.map_err(EmbeddedError::io("start /bin/sh for the guard"))?;
        let pipe = child.stdin.take();
        let (sender, reports) = watch::channel(None);
        thread::spawn(move || follow(child, &sender));
        Ok(Tether { pipe, reports })
    }

    /// Where the server will listen; an error if there will be none.
    pub(super) async fn serving(&self) -> Result<(u32, PathBuf), EmbeddedError> {
        match self.first(|_| true).await {
            Report::Serving { postmaster, socket_dir } => Ok((postmaster, socket_dir)),
            last => Err(failure(last)),
        }
    }

    /// Lets go of the server.
    pub(super) fn release(&mut self) {
        self.pipe = None;
    }

    /// Waits for the end; an error if it isn't the one we asked for. The guard's process is gone.
    pub(super) async fn ended(&self) -> Result<(), EmbeddedError> {
        match self.first(Report::is_last).await {
            Report::Ended => Ok(()),
            last => Err(failure(last)),
        }
    }

    /// Waits for the end while we still hold on, so that every end is an error.
    pub(super) async fn lost(&self) -> EmbeddedError {
        failure(self.first(Report::is_last).await)
    }

    async fn first(&self, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut reports = self.reports.clone();
        let is_wanted = |report: &Option<Report>| report.as_ref().is_some_and(&wanted);
        let found = reports.wait_for(is_wanted).await;
        let found = found.expect("the thread that follows the guard sends a last report");
        found.clone().expect("a report is wanted, never its absence")
    }
}

fn failure(report: Report) -> EmbeddedError {
    match report {
        Report::InUse(message) => EmbeddedError::InUse(message),
        Report::Failed(message) => EmbeddedError::Refused(message),
        Report::Ended | Report::Serving { .. } => {
            EmbeddedError::Refused("Postgres was stopped: start again".to_owned())
        }
    }
}

/// Passes reports on, the last one only when the process is reaped.
fn follow(mut child: Child, sender: &watch::Sender<Option<Report>>) {
    let mut last = None;
    if let Some(stdout) = child.stdout.take() {
        last = read_reports(stdout, sender).unwrap_or_else(|_| Some(not_a_guard()));
    }
    let last = match (last, child.wait()) {
        (Some(report), _) => report,
        (None, status) => died(status),
    };
    sender.send_replace(Some(last));
}

/// The report that ended it, if there was one.
fn read_reports(
    stdout: ChildStdout,
    sender: &watch::Sender<Option<Report>>,
) -> io::Result<Option<Report>> {
    let mut pipe = BufReader::new(stdout);
    while let Some(report) = Report::receive(&mut pipe)? {
        if report.is_last() {
            return Ok(Some(report));
        }
        sender.send_replace(Some(report));
    }
    Ok(None)
}

fn not_a_guard() -> Report {
    Report::Failed(
        "the program that was started as the guard doesn't speak as one: its `GuardCommand` must \
         lead to `guard_main`"
            .to_owned(),
    )
}

fn died(status: io::Result<ExitStatus>) -> Report {
    let how = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Report::Failed(format!(
        "the guard of Postgres died ({how}); a server it left behind is ended by the next start"
    ))
}
