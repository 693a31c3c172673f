//! A `keyledger dev` of our own: fresh folder, free port, everything it says kept to be looked at.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Result, announce, cannot_start, run};

/// initdb, migrations and the first ledger, on a machine that also compiles.
const START_LIMIT: Duration = Duration::from_secs(180);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Lines kept of what the server says; later ones are dropped.
const MAX_LINES: usize = 20_000;
/// Lines shown when it fails.
const SHOWN_LINES: usize = 60;

pub(crate) struct DevServer {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub(crate) data_dir: PathBuf,
    pub(crate) address: String,
}

impl DevServer {
    /// Starts it and waits until it says where it listens.
    pub(crate) fn start(keyledger: &Path) -> Result<DevServer> {
        let data_dir = fresh_folder()?;
        let mut command = Command::new(keyledger);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        announce(&command);
        let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
        let said = Arc::new(Mutex::new(Vec::new()));
        keep_lines(child.stdout.take(), &said);
        keep_lines(child.stderr.take(), &said);
        let mut server = DevServer { child, said, data_dir, address: String::new() };
        match server.wait_for_address() {
            Ok(address) => server.address = address,
            Err(reason) => return Err(format!("{reason}\n{}", server.last_words())),
        }
        Ok(server)
    }

    /// The admin token of the first ledger, from a file that only its owner may read.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let file = self.data_dir.join("admin.token");
        let fault = |error| format!("cannot read {}: {error}", file.display());
        let mode = fs::metadata(&file).map_err(fault)?.permissions().mode() & 0o777;
        if mode != 0o600 {
            return Err(format!("{} has mode {mode:o}, not 600", file.display()));
        }
        Ok(fs::read_to_string(&file).map_err(fault)?.trim().to_owned())
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
        Err(format!("keyledger dev didn't stop within {} s of SIGTERM", STOP_LIMIT.as_secs()))
    }

    /// Fails if one of these was ever said.
    pub(crate) fn has_not_said(&self, secrets: &[&str]) -> Result {
        let said = self.said.lock().expect("no thread panics while it holds the lines");
        match said.iter().any(|line| secrets.iter().any(|secret| line.contains(secret))) {
            true => Err("a token stands in the output of keyledger dev".to_owned()),
            false => Ok(()),
        }
    }

    pub(crate) fn last_words(&self) -> String {
        let said = self.said.lock().expect("no thread panics while it holds the lines");
        let from = said.len().saturating_sub(SHOWN_LINES);
        let mut text = String::from("The last that keyledger dev said:\n");
        for line in &said[from..] {
            text += &format!("  | {line}\n");
        }
        text + &format!("Its folder is kept: {}", self.data_dir.display())
    }

    pub(crate) fn remove_data(&self) -> Result {
        let folder = &self.data_dir;
        fs::remove_dir_all(folder)
            .map_err(|error| format!("cannot remove {}: {error}", folder.display()))
    }

    fn wait_for_address(&mut self) -> Result<String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            // Asked before the lines are read: so none that it said before its end is missed.
            let ended = self.ended()?;
            let said = self.said.lock().expect("no thread panics while it holds the lines");
            if let Some(address) = said.iter().find_map(|line| address_in(line)) {
                return Ok(address);
            }
            drop(said);
            if let Some(status) = ended {
                thread::sleep(10 * POLL);
                return Err(format!("keyledger dev ended ({status}) before it listened"));
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "keyledger dev didn't say `listening on ADDRESS` within {} s",
                    START_LIMIT.as_secs()
                ));
            }
            thread::sleep(POLL);
        }
    }

    fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.child
            .try_wait()
            .map_err(|error| format!("cannot ask for the state of keyledger dev: {error}"))
    }
}

impl Drop for DevServer {
    /// Nothing may outlive us, also on the way out of an error.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            // Its Postgres is watched by a guard process and ends with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Ours alone. Making it fails if the name is taken, so nobody can have prepared it.
fn fresh_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("keyledger-interop-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
        format!("cannot make {}: {error}; remove it, or set TMPDIR", folder.display())
    })?;
    Ok(folder)
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

/// The address in `listening on 127.0.0.1:7420`, in plain text or inside a JSON log line.
fn address_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let rest = rest.trim_start_matches("http://");
    let end = rest
        .find(|c: char| !(c.is_ascii_alphanumeric() || ".:[]-".contains(c)))
        .unwrap_or(rest.len());
    let address = rest[..end].trim_end_matches('.');
    let (_, port) = address.rsplit_once(':')?;
    port.parse::<u16>().is_ok_and(|port| port != 0).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn the_address_is_found_in_a_line() {
        let found = Some("127.0.0.1:7420".to_owned());
        assert_eq!(address_in("listening on 127.0.0.1:7420"), found);
        assert_eq!(
            address_in("keyledger is listening on http://127.0.0.1:7420 (plaintext)"),
            found
        );
        assert_eq!(
            address_in(r#"{"level":"INFO","message":"listening on 127.0.0.1:7420"}"#),
            found
        );
        assert_eq!(address_in("listening on 127.0.0.1:7420."), found);
        assert_eq!(address_in("listening on [::1]:80"), Some("[::1]:80".to_owned()));
    }

    #[test]
    fn other_lines_hold_none() {
        for line in [
            "",
            "listening on ",
            "listening on 127.0.0.1:0",
            "listening on /tmp/socket",
            "starting",
        ] {
            assert_eq!(address_in(line), None, "{line}");
        }
    }
}
