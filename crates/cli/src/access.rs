//! `keyledger access`: who may do what, explained: one key as a document, or the whole ledger as a site.

mod describe;
mod site;

use clap::Subcommand;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::screen::Screen;
use crate::token::Usual;

/// Explain who may do what: one key as a document, or the whole ledger as a site.
#[derive(clap::Args)]
pub(crate) struct Access {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Describe(describe::Describe),
    Site(site::WriteSite),
}

impl Access {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        if let Command::Site(site) = &self.command {
            // Before connecting, so that nothing is read for a folder that isn't ours.
            site.check_target()?;
        }
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        match self.command {
            Command::Describe(describe) => describe.run(&session, &screen).await?,
            Command::Site(site) => site.run(&session, &screen).await?,
        }
        Ok(Ending::Good)
    }
}
