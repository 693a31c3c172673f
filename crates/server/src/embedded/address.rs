//! Where a running server is and how to get in.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};

use super::error::EmbeddedError;
use super::layout::{Layout, PidFile};
use super::sockets::PORT;

const ROLE: &str = "postgres";
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Gives the superuser's rights: pass it on with care.
#[derive(Clone)]
pub struct Address {
    postmaster: u32,
    socket_dir: PathBuf,
    password: String,
}

/// Without the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("postmaster", &self.postmaster)
            .field("socket_dir", &self.socket_dir)
            .finish_non_exhaustive()
    }
}

/// The server that already runs on a data directory, for a second program beside `keyledger dev`.
/// `None` if there is none, or its files are not ours to read.
pub async fn running(data_dir: &Path) -> Option<Address> {
    let layout = Layout::new(data_dir.to_owned());
    let pid_file = PidFile::read(&layout.pgdata())?;
    let address = Address::new(&layout, pid_file.pid, pid_file.socket_dir?).ok()?;
    address.try_connect().await.ok()?;
    Some(address)
}

impl Address {
    pub(super) fn new(
        layout: &Layout,
        postmaster: u32,
        socket_dir: PathBuf,
    ) -> Result<Address, EmbeddedError> {
        let path = layout.password();
        let text = fs::read_to_string(&path).map_err(|reason| {
            EmbeddedError::Refused(format!(
                "{} holds the password of this cluster and can't be read ({reason}): put it back \
                 from a backup, or remove {} to begin anew without its data",
                path.display(),
                layout.pgdata().display()
            ))
        })?;
        Ok(Address { postmaster, socket_dir, password: text.trim().to_owned() })
    }

    /// The superuser's way into `database`. `postgres` always exists.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(&self.socket_dir)
            .port(PORT)
            .user(ROLE)
            .password(&self.password)
            .dbname(database);
        config
    }

    /// The same as a connection string, for tokio-postgres, `psql` and `DATABASE_URL`. It contains
    /// the password.
    pub fn url(&self, database: &str) -> String {
        self.url_as(ROLE, &self.password, database)
    }

    /// The way in of another role, whose password needs no escaping.
    pub fn url_as(&self, role: &str, password: &str, database: &str) -> String {
        format!(
            "postgresql://{role}:{password}@/{}?host={}&port={PORT}",
            percent_encode(database),
            percent_encode(&self.socket_dir.to_string_lossy()),
        )
    }

    /// The number of the server's first process.
    pub fn postmaster_pid(&self) -> u32 {
        self.postmaster
    }

    /// Logs in and out again.
    pub(super) async fn try_connect(&self) -> Result<(), Attempt> {
        let config = self.config("postgres");
        match timeout(CONNECT_LIMIT, config.connect(NoTls)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Attempt::of(&error)),
            Err(_) => Err(Attempt::NotYet("no answer".to_owned())),
        }
    }
}

pub(super) enum Attempt {
    /// Worth another try.
    NotYet(String),
    /// The server's final word.
    Rejected(String),
}

impl Attempt {
    fn of(error: &tokio_postgres::Error) -> Attempt {
        match error.as_db_error() {
            Some(answer) if answer.code().code().starts_with("28") => {
                Attempt::Rejected(answer.message().to_owned())
            }
            Some(answer) => Attempt::NotYet(answer.message().to_owned()),
            None => Attempt::NotYet(error.to_string()),
        }
    }
}

/// RFC 3986 §2.1: all but unreserved characters.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address {
            postmaster: 7,
            socket_dir: "/run/keyledger-1".into(),
            password: "abc123".to_owned(),
        }
    }

    #[test]
    fn the_url_says_the_same_as_the_config() {
        let name = "a b/ü";
        let parsed: Config = address().url(name).parse().unwrap();
        assert_eq!(parsed, address().config(name));
    }

    #[test]
    fn the_password_is_not_in_debug_output() {
        assert!(!format!("{:?}", address()).contains("abc123"));
    }
}
