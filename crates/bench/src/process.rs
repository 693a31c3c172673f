//! A server as a child process of our own program. It says on standard output where it listens, and ends when its standard
//! input is closed: so none is left behind, however we die.

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A fresh Postgres cluster is made within this.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

const LISTENING: &str = "listening on ";

/// A server that listens.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts this program again with other arguments. `log` takes its standard error.
    pub(crate) async fn start(name: &str, args: &[&OsStr], log: Stdio) -> anyhow::Result<Process> {
        Process::start_with(name, args, &[], log).await
    }

    /// The same, with more variables in its environment.
    pub(crate) async fn start_with(
        name: &str,
        args: &[&OsStr],
        variables: &[(&str, &str)],
        log: Stdio,
    ) -> anyhow::Result<Process> {
        let mut child = Command::new(std::env::current_exe()?);
        // What is measured doesn't depend on what the person at the terminal has set.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OTEL_") {
                child.env_remove(name);
            }
        }
        let mut child = child
            .arg(name)
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().expect("it was just piped");
        let stdout = child.stdout.take().expect("it was just piped");
        let mut line = String::new();
        let mut lines = BufReader::new(stdout);
        let read = tokio::time::timeout(START, lines.read_line(&mut line)).await;
        read.with_context(|| format!("the {name} process doesn't say where it listens"))??;
        let address = line.trim_end().strip_prefix(LISTENING).and_then(|a| a.parse().ok());
        let address = address.with_context(|| format!("the {name} process ended early"))?;
        Ok(Process { name: name.into(), child, stdin, address })
    }

    /// What it holds in memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        crate::scale::resident(self.child.id().context("it has ended")?)
    }

    /// Stops it and waits until it has ended.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        let status = tokio::time::timeout(STOP, self.child.wait()).await;
        let status = status.with_context(|| format!("the {} process doesn't end", self.name))??;
        ensure!(status.success(), "the {} process ended with {status}", self.name);
        Ok(())
    }
}

/// In the child: tells the parent.
pub(crate) fn say_listening(address: SocketAddr) {
    println!("{LISTENING}{address}");
}

/// In the child: completes when the parent closes the pipe or is gone. An interrupt from the terminal reaches parent and
/// child alike; the child leaves it to the parent.
pub(crate) fn parent_closes() -> impl Future<Output = ()> + Send + 'static {
    let (closed, closing) = tokio::sync::oneshot::channel();
    // A thread of its own: a runtime would wait for a read that blocks.
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut vec![]);
        let _ = closed.send(());
    });
    async move {
        let interrupted = async {
            loop {
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            _ = closing => {}
            () = interrupted => {}
        }
    }
}
