//! `keyledger verify`: checks a whole ledger, from a server, an export or the database itself.

mod database;
mod export;
mod export_lines;
mod line_order;
mod pins;
mod report;
#[cfg(test)]
mod sample;
mod server;
mod walk;

use std::path::PathBuf;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::failure::{self, Failure};
use crate::json::Output;
use crate::manifest_file;
use crate::progress::Progress;
use crate::screen::{Screen, inert};
use crate::token::Usual;
use database::{Database, Open};
use pins::{PinArgs, Pins};
use report::Report;
use walk::Checked;

/// Verify a whole ledger: each signature, hash, position, verdict and text, and the signed checkpoints.
///
/// Without a source the ledger is read from the server, which needs audit.read on logs/** and audit.checkpoint on logs.
/// Address and token of a `keyledger dev` with a data directory of its own are found through KEYLEDGER_DATA_DIR.
/// Verification happens on this machine in any case. The exit code is 0 if the ledger is good, 10 if it is not, and 1 if
/// it couldn't be checked.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Verify {
    // First, because headings of the help reach to the next heading.
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    pins: PinArgs,
    #[command(flatten)]
    connection: Connection,
}

const EXAMPLE: &str = "\
Examples:
  keyledger verify
  keyledger verify --export ledger.jsonl --pin checkpoint-2027-01-01
  keyledger verify --data-dir /var/lib/keyledger --ledger main -o json";

/// Where the entries come from: at most one of --export, --data-dir and --database-url.
#[derive(clap::Args)]
#[command(next_help_heading = "Source")]
struct SourceArgs {
    /// File that `keyledger audit export` wrote. If FILE.manifest stands beside it, each line is checked against that.
    #[arg(long, value_name = "FILE", group = "source")]
    export: Option<PathBuf>,
    /// Data directory of `keyledger dev`: its database is read, whether `dev` runs or not.
    #[arg(long, value_name = "DIR", groups = ["source", "database"])]
    data_dir: Option<PathBuf>,
    /// Address of the ledger's database, `postgres://user@host/name`. Without a value it is taken from DATABASE_URL, where
    /// `ps` doesn't show a password.
    #[arg(long, value_name = "URL", groups = ["source", "database"], num_args = 0..=1, default_missing_value = "")]
    database_url: Option<String>,
    /// Address of the database of data keys, to open sealed texts. For --database-url, together with --key-dir.
    #[arg(long, value_name = "URL", env = "SEALING_DATABASE_URL", hide_env_values = true)]
    sealing_database_url: Option<String>,
    /// Key directory, to open sealed texts. For --database-url.
    #[arg(long, value_name = "DIR", env = "KEYLEDGER_KEY_DIR")]
    key_dir: Option<PathBuf>,
    /// Name of the one ledger to verify. Without it: all ledgers of the database. For --data-dir and --database-url; a
    /// server shows the ledger of the token, and an export holds one.
    #[arg(long, value_name = "NAME", requires = "database")]
    ledger: Option<String>,
}

impl Verify {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let output = Out { screen: Screen::stdout(), output: self.output };
        let pins = self.pins.read()?;
        if let Some(database) = self.source.database()? {
            return verify_database(&database, self.source.ledger, &pins, &output).await;
        }
        if let Some(file) =
            self.source.export.as_ref().filter(|file| manifest_file::is_beside(file))
        {
            let report = export_lines::verify(file, &pins)?;
            report.print(&output.screen, output.output)?;
            return Ok(ending(report.is_good()));
        }
        let checked = match &self.source.export {
            Some(file) => export::verify(file, &pins)?,
            None => {
                let session = self.connection.open(&DataDir::from_variable(), Usual::Admin).await?;
                server::verify(&session, &pins).await?
            }
        };
        Ok(ending(output.print(checked, &pins)?))
    }
}

impl SourceArgs {
    fn database(&self) -> Result<Option<Database>, Failure> {
        if let Some(dir) = &self.data_dir {
            return Ok(Some(Database::DataDir(dir.clone())));
        }
        let Some(url) = &self.database_url else { return Ok(None) };
        let set = || std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        let url = if url.is_empty() { set() } else { Some(url.clone()) };
        let url = url.ok_or_else(|| {
            Failure::new("no database is named")
                .next("set DATABASE_URL, or give --database-url a value")
        })?;
        let (sealing_url, key_dir) = (self.sealing_database_url.clone(), self.key_dir.clone());
        Ok(Some(Database::Url { url, sealing_url, key_dir }))
    }
}

/// How the reports are printed.
struct Out {
    screen: Screen,
    output: Output,
}

impl Out {
    /// Prints a report and says whether it is good.
    fn print(&self, checked: Checked, pins: &Pins) -> anyhow::Result<bool> {
        self.print_report(&Report::new(checked, pins))
    }

    fn print_report(&self, report: &Report) -> anyhow::Result<bool> {
        report.print(&self.screen, self.output)?;
        Ok(report.is_good())
    }
}

/// The embedded Postgres is stopped again, if it was started for this, also when something failed.
async fn verify_database(
    database: &Database,
    ledger: Option<String>,
    pins: &Pins,
    output: &Out,
) -> anyhow::Result<Ending> {
    let open = database.open().await?;
    let result = verify_ledgers(&open, ledger, pins, output).await;
    open.close().await?;
    result
}

/// One ledger, or all of them. A pin for a ledger that isn't there means that a ledger is gone.
async fn verify_ledgers(
    database: &Open,
    ledger: Option<String>,
    pins: &Pins,
    output: &Out,
) -> anyhow::Result<Ending> {
    let (ledgers, astray) = match ledger {
        Some(name) => (vec![(name, pins.clone())], vec![]),
        None => pins.shared_out(database.ledger_names().await?),
    };
    let (mut good, mut unchecked) = (true, vec![]);
    for (name, pins) in ledgers {
        let mut progress = Progress::new(format!("entries of {} verified", inert(&name)));
        let mut at = |done, total| progress.at(done, total);
        let result = database.verify_ledger(&name, &pins.notes(), &mut at).await;
        drop(progress);
        match result {
            Ok(checked) => good &= output.print(checked, &pins)?,
            Err(error) => {
                unchecked.push(error.context(format!("the ledger {name} couldn't be checked")))
            }
        }
    }
    for origin in astray {
        good &= output.print_report(&Report::absent(&origin))?;
    }
    conclude(good, unchecked)
}

/// A ledger that is not good weighs more than one that couldn't be checked; no error goes unsaid.
fn conclude(good: bool, mut unchecked: Vec<anyhow::Error>) -> anyhow::Result<Ending> {
    let last = if good { unchecked.pop() } else { None };
    unchecked.iter().for_each(failure::print);
    last.map_or(Ok(ending(good)), Err)
}

fn ending(good: bool) -> Ending {
    if good { Ending::Good } else { Ending::NotGood }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        verify: Verify,
    }

    fn parse(arguments: &[&str]) -> Result<Verify, clap::Error> {
        Line::try_parse_from([&["verify"], arguments].concat()).map(|line| line.verify)
    }

    #[test]
    fn there_is_one_source_at_most_and_a_ledger_is_named_in_databases() {
        for bad in [
            vec!["--export", "x", "--data-dir", "y"],
            vec!["--data-dir", "y", "--database-url", "z"],
            vec!["--ledger", "main"],
            vec!["--export", "x", "--ledger", "main"],
            vec!["--verifier-key", "x"],
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        assert!(parse(&[]).unwrap().source.database().unwrap().is_none());
    }

    #[test]
    fn not_good_weighs_more_than_not_checked() {
        let failed = || vec![anyhow::anyhow!("x")];
        assert_eq!(conclude(true, vec![]).unwrap(), Ending::Good);
        assert_eq!(conclude(false, failed()).unwrap(), Ending::NotGood);
        assert!(conclude(true, failed()).is_err());
    }

    #[test]
    fn a_database_is_a_directory_or_an_address() {
        let source = parse(&["--data-dir", "d", "--ledger", "main"]).unwrap().source;
        assert!(matches!(source.database(), Ok(Some(Database::DataDir(_)))));
        let source = parse(&["--database-url", "postgres://x", "--key-dir", "k"]).unwrap().source;
        assert!(matches!(source.database(), Ok(Some(Database::Url { key_dir: Some(_), .. }))));
        let source = parse(&["--database-url", "--ledger", "main"]).unwrap().source;
        assert_eq!(source.database_url.as_deref(), Some(""));
    }
}
