//! A link between a replica and Postgres that can be cut or frozen: for the replica, Postgres is then away, or doesn't
//! answer. Other scenarios share the same Postgres and notice nothing.

use std::path::{Path, PathBuf};

use keyledger_server::config::Databases;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::deployment::Deployment;
use super::postgres::{postgres, socket_folder};

/// The file that a socket folder holds for the port that all our URLs name.
const SOCKET: &str = ".s.PGSQL.5432";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing passes; nobody is told.
    Frozen,
    /// Sessions end and new ones are refused.
    Cut,
}

pub(crate) struct Link {
    pub(crate) databases: Databases,
    state: watch::Sender<State>,
}

impl Link {
    /// A link to both databases of a deployment.
    pub(crate) fn new(deployment: &Deployment) -> Link {
        let url = &deployment.databases().ledger;
        let real = socket_folder(url).join(SOCKET);
        let folder = tempfile::Builder::new().prefix("link-").tempdir_in(&deployment.folder);
        let folder = folder.expect("the scenario's folder is ours").keep();
        let listener = UnixListener::bind(folder.join(SOCKET)).expect("the folder is ours");
        let state = watch::Sender::new(State::Open);
        tokio::spawn(accept(listener, real, state.subscribe()));
        let url = |database: &str| {
            let (before, _) =
                url.split_once("?host=").expect("a URL of ours names the socket's folder");
            let (user, _) = before.rsplit_once('/').expect("a URL of ours names a database");
            format!("{user}/{database}?host={}&port=5432", folder.display())
        };
        let names = &deployment.databases;
        let databases = Databases { ledger: url(&names.ledger), sealing: url(&names.sealing) };
        assert_ne!(socket_folder(&databases.ledger), postgres_folder());
        Link { databases, state }
    }

    /// From now on nothing passes in either direction, and nobody is told.
    pub(crate) fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    /// Ends all sessions and refuses new ones.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// As if nothing had been. Sessions that were cut stay so.
    pub(crate) fn restore(&self) {
        self.state.send_replace(State::Open);
    }
}

fn postgres_folder() -> PathBuf {
    socket_folder(&postgres().address().url("postgres"))
}

async fn accept(listener: UnixListener, real: PathBuf, state: watch::Receiver<State>) {
    while let Ok((from, _)) = listener.accept().await {
        tokio::spawn(carry(from, real.clone(), state.clone()));
    }
}

/// Carries one session until an end closes it or it is cut.
async fn carry(from: UnixStream, real: PathBuf, state: watch::Receiver<State>) {
    let Some(to) = open(&real, state.clone()).await else { return };
    let ((from_read, from_write), (to_read, to_write)) =
        (tokio::io::split(from), tokio::io::split(to));
    tokio::select! {
        () = copy(from_read, to_write, state.clone()) => {}
        () = copy(to_read, from_write, state) => {}
    }
}

async fn open(real: &Path, mut state: watch::Receiver<State>) -> Option<UnixStream> {
    let now = *state.wait_for(|s| *s != State::Frozen).await.ok()?;
    if now == State::Cut { None } else { UnixStream::connect(real).await.ok() }
}

async fn copy(
    mut from: ReadHalf<UnixStream>,
    mut to: WriteHalf<UnixStream>,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            biased;
            // What was read before the link froze is held back below.
            _ = state.wait_for(|s| *s == State::Cut) => return,
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        let Ok(now) = state.wait_for(|s| *s != State::Frozen).await.map(|s| *s) else { return };
        if read == 0 || now == State::Cut || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
