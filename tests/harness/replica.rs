//! A replica: a real server process, which a scenario may stop, freeze or kill.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;

use super::caller::Caller;
use super::secrets::Secrets;

/// A test that hangs must fail: no call and no end of a process takes nearly this long.
const HANGS: Duration = Duration::from_secs(90);

pub(crate) struct Replica {
    pub(crate) address: String,
    channel: Channel,
    secrets: Arc<Secrets>,
    tokens: Tokens,
    pid: u32,
    process: Mutex<Option<Child>>,
    /// Closed when we are gone: then the process ends too.
    _tether: Option<ChildStdin>,
    log: PathBuf,
}

/// The first admin tokens of a deployment.
#[derive(Clone)]
pub(crate) struct Tokens {
    /// Of ledger 0.
    pub(crate) system: String,
    /// Of the first ledger, `default`.
    pub(crate) admin: String,
}

impl Replica {
    /// Starts `serve` and waits until it listens. An error is what it wrote before it gave up.
    pub(super) async fn start(
        mut serve: Command,
        secrets: Arc<Secrets>,
        tokens: Tokens,
        log: PathBuf,
    ) -> Result<Replica, String> {
        let stderr =
            File::create(log.with_extension("stderr")).expect("the scenario's folder is ours");
        serve.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        let mut process = serve.spawn().expect("the program under test starts");
        let pid = process.id().expect("it was started a moment ago");
        let stdout = process.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let mut copy =
            File::create(log.with_extension("stdout")).expect("the scenario's folder is ours");
        let Some(address) = address_in(&mut lines, &mut copy).await else {
            let status = process.wait().await.expect("its end can be awaited");
            return Err(format!("{status}\n{}", read_logs(&log)));
        };
        tokio::spawn(async move { while next_line(&mut lines, &mut copy).await.is_some() {} });
        let channel = connect(&address);
        let _tether = process.stdin.take();
        let process = Mutex::new(Some(process));
        Ok(Replica { address, channel, secrets, tokens, pid, process, _tether, log })
    }

    /// A caller without a token.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller::new(self.channel.clone(), self.secrets.clone())
    }

    pub(crate) fn caller(&self, token: &str) -> Caller {
        self.anonymous().with_token(token)
    }

    /// The admin of the first ledger.
    pub(crate) fn admin(&self) -> Caller {
        self.caller(&self.tokens.admin)
    }

    /// The admin of ledger 0.
    pub(crate) fn system_admin(&self) -> Caller {
        self.caller(&self.tokens.system)
    }

    /// A caller with a connection of its own: streams of one connection share its window.
    pub(crate) fn caller_on_new_connection(&self, token: &str) -> Caller {
        Caller::new(connect(&self.address), self.secrets.clone()).with_token(token)
    }

    pub(crate) fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// SIGSTOP. When this returns, it runs no more.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        // On Linux we can see it; elsewhere the signal's own promise must do.
        while state_of(self.pid).is_some_and(|state| state != 'T') {
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// SIGKILL. When this returns, it is gone.
    pub(crate) async fn kill(&self) {
        let mut process = self.take().expect("it was not ended before");
        process.kill().await.expect("a process of ours can be killed");
    }

    /// SIGTERM. It finishes its calls and ends.
    pub(crate) async fn stop(&self) -> ExitStatus {
        let mut process = self.take().expect("it was not ended before");
        self.signal("TERM");
        self.thaw();
        let ended = tokio::time::timeout(HANGS, process.wait()).await;
        ended.expect("a server that was told to stop ends").expect("its end can be awaited")
    }

    /// How many bytes of memory it holds, as Linux counts them (proc(5), `VmRSS`).
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("it was not ended before");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("Linux says how much it is") * 1024
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.lock().expect("no holder of this lock panics").is_some()
    }

    /// All that it has written.
    pub(crate) fn log(&self) -> String {
        read_logs(&self.log)
    }

    fn take(&self) -> Option<Child> {
        self.process.lock().expect("no holder of this lock panics").take()
    }

    /// Our own child, by its number, which nobody else can have before we have waited for it.
    fn signal(&self, name: &str) {
        let mut kill = std::process::Command::new("/bin/sh");
        kill.args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &self.pid.to_string()]);
        assert!(kill.status().expect("a shell starts").success(), "SIG{name} could not be sent");
    }
}

fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::try_from(format!("http://{address}")).expect("an address and a port");
    endpoint.timeout(HANGS).connect_lazy()
}

/// Reads up to the line that says where it listens. `None` if it ends before.
async fn address_in(lines: &mut Lines<BufReader<ChildStdout>>, copy: &mut File) -> Option<String> {
    let listening = async {
        loop {
            let line = next_line(lines, copy).await?;
            if let Some(address) = line.strip_prefix("listening on ") {
                return Some(address.to_string());
            }
        }
    };
    tokio::time::timeout(HANGS, listening).await.expect("a server listens or ends")
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>, copy: &mut File) -> Option<String> {
    let line = lines.next_line().await.expect("it writes text")?;
    writeln!(copy, "{line}").expect("the scenario's folder is ours");
    Some(line)
}

fn read_logs(log: &Path) -> String {
    let read =
        |extension| std::fs::read_to_string(log.with_extension(extension)).unwrap_or_default();
    read("stdout") + &read("stderr")
}

/// The letter that Linux gives for the state of a process (proc(5), `stat`).
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
