//! A program of ours that runs beside the session: everything it says is kept to be looked at, and it never outlives us.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Result, announce, cannot_start, run};

const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Lines kept of what it says; later ones are dropped.
const MAX_LINES: usize = 20_000;
/// Lines shown when it fails.
const SHOWN_LINES: usize = 60;

pub(crate) struct Background {
    name: &'static str,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Background {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Background> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        announce(command);
        let mut child = command.spawn().map_err(|error| cannot_start(command, &error))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        keep_lines(child.stdout.take(), &said);
        keep_lines(child.stderr.take(), &said);
        Ok(Background { name, child, said })
    }

    /// Waits until it says a line in which something is found.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before the lines are read: so none that it said before its end is missed.
            let ended = self.ended()?;
            let said = self.said.lock().expect("no thread panics while it holds the lines");
            if let Some(found) = said.iter().find_map(|line| find(line)) {
                return Ok(found);
            }
            drop(said);
            if let Some(status) = ended {
                thread::sleep(10 * POLL);
                let name = self.name;
                return Err(format!(
                    "{name} ended ({status}) before it said `{what}`{}",
                    self.tail()
                ));
            }
            if Instant::now() > deadline {
                let (name, seconds) = (self.name, limit.as_secs());
                return Err(format!(
                    "{name} didn't say `{what}` within {seconds} s{}",
                    self.tail()
                ));
            }
            thread::sleep(POLL);
        }
    }

    /// Asks it to stop, as a supervisor would, and waits for its end.
    pub(crate) fn stop(&mut self) -> Result {
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(format!("{} didn't stop within {} s of SIGTERM", self.name, STOP_LIMIT.as_secs()))
    }

    /// Fails if one of these was ever said.
    pub(crate) fn has_not_said(&self, secrets: &[&str]) -> Result {
        let said = self.said.lock().expect("no thread panics while it holds the lines");
        match said.iter().any(|line| secrets.iter().any(|secret| line.contains(secret))) {
            true => Err(format!("a token stands in the output of {}", self.name)),
            false => Ok(()),
        }
    }

    /// The last that it said.
    pub(crate) fn tail(&self) -> String {
        let said = self.said.lock().expect("no thread panics while it holds the lines");
        let from = said.len().saturating_sub(SHOWN_LINES);
        let mut text = format!("\nThe last that {} said:\n", self.name);
        for line in &said[from..] {
            text += &format!("  | {line}\n");
        }
        text
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let name = self.name;
        self.child
            .try_wait()
            .map_err(|error| format!("cannot ask for the state of {name}: {error}"))
    }
}

impl Drop for Background {
    /// Nothing may outlive us, also on the way out of an error.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            // The Postgres of `keyledger dev` is watched by a guard process and ends with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The thread ends with the pipe; it isn't waited for, because a grandchild may hold the pipe open.
fn keep_lines(pipe: Option<impl Read + Send + 'static>, said: &Arc<Mutex<Vec<String>>>) {
    let pipe = pipe.expect("the pipe was asked for at the start of the child");
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(std::result::Result::ok) {
            let mut said = said.lock().expect("no thread panics while it holds the lines");
            if said.len() < MAX_LINES {
                said.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
    });
}
