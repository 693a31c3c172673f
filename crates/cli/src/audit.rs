//! `keyledger audit`: read, follow and export what happened.

mod checkpoint;
pub(crate) mod event;
mod export;
mod list;
mod tail;

use clap::Subcommand;

use crate::Ending;
use crate::connection::{Connection, DataDir};
use crate::screen::Screen;
use crate::token::Usual;

/// Read, follow and export what happened: every change, and every single use of a key.
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
    Tail(tail::Tail),
    Export(export::Export),
    Checkpoint(checkpoint::Checkpoint),
}

impl Audit {
    pub(crate) async fn run(self) -> anyhow::Result<Ending> {
        let screen = Screen::stdout();
        let session = self.connection.open(&self.data_dir, Usual::Admin).await?;
        match self.command {
            Command::List(list) => list.run(&session, &screen).await?,
            Command::Tail(tail) => tail.run(&session, &screen).await?,
            Command::Export(export) => export.run(&session).await?,
            Command::Checkpoint(checkpoint) => checkpoint.run(&session, &screen).await?,
        }
        Ok(Ending::Good)
    }
}
