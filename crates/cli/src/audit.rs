//! `keyledger audit`: read, count, follow, export and import what happened.

mod anomalies;
mod checkpoint;
mod count;
pub(crate) mod event;
mod export;
mod filter;
mod forwarders;
mod import;
mod list;
mod signed_counts;
mod tail;

use clap::Subcommand;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::screen::Screen;
use crate::token::Usual;

/// Read, count, follow, export and import what happened: every change, and every single use of a key.
#[derive(clap::Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(Box<list::List>),
    Count(count::Count),
    Tail(Box<tail::Tail>),
    Anomalies(Box<anomalies::Anomalies>),
    Export(Box<export::Export>),
    Import(import::Import),
    Checkpoint(checkpoint::Checkpoint),
    SignedCounts(signed_counts::SignedCounts),
    Forwarders(forwarders::Forwarders),
}

impl Audit {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        // Read before connecting, so that what is wrong with the input is said first.
        if let Command::Import(import) = self.command {
            let source = import.read()?;
            if import.is_dry_run() {
                return import.try_out(source, &screen);
            }
            let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
            return import.run(&session, &screen, source).await;
        }
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        match self.command {
            Command::List(list) => list.run(&session, &screen).await?,
            Command::Count(count) => count.run(&session, &screen).await?,
            Command::Tail(tail) => tail.run(&session, &screen).await?,
            Command::Anomalies(anomalies) => anomalies.run(&session, &screen).await?,
            Command::Export(export) => export.run(&session).await?,
            Command::Checkpoint(checkpoint) => checkpoint.run(&session, &screen).await?,
            Command::SignedCounts(counts) => return counts.run(&session, &screen).await,
            Command::Forwarders(forwarders) => forwarders.run(&session, &screen).await?,
            Command::Import(_) => unreachable!("it has returned above"),
        }
        Ok(Ending::Good)
    }
}
