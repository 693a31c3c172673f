//! `keyledger access`: who may do what, explained, tidied up and reviewed.

mod describe;
mod findings;
mod owner;
mod review;
mod sign;
mod site;

use clap::Subcommand;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::screen::Screen;
use crate::token::Usual;

/// Explain who may do what, find what is to be tidied up, and review who held what.
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
    Findings(findings::Findings),
    Owner(owner::SetStatus),
    Review(review::Review),
    Sign(sign::Sign),
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
            Command::Findings(findings) => findings.run(&session, &screen).await?,
            Command::Owner(owner) => owner.run(&session, &screen).await?,
            Command::Review(review) => review.run(&session, &screen).await?,
            Command::Sign(sign) => sign.run(&session, &screen).await?,
        }
        Ok(Ending::Good)
    }
}
