//! Entries straight from the database: of a server, or of the data directory of `keyledger dev`.

use std::path::PathBuf;

use super::walk::Checked;

/// Which database.
#[expect(dead_code, reason = "read as soon as the two functions below are wired")]
pub(super) enum Database {
    /// The embedded Postgres of `keyledger dev`, running or not.
    DataDir(PathBuf),
    /// A server's, with what opens sealed texts, if that is at hand.
    Url { url: String, sealing_url: Option<String>, key_dir: Option<PathBuf> },
}

pub(super) async fn ledger_names(_database: &Database) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("not wired yet")
}

/// Verifies one ledger against signed notes that were obtained before. `progress` hears of entries done and in all.
pub(super) async fn verify_ledger(
    _database: &Database,
    _ledger: &str,
    _pins: &[String],
    _progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Checked> {
    // A pair of Verifier and Option<Finding> becomes a Checked with `Checked::from`.
    anyhow::bail!("not wired yet")
}
