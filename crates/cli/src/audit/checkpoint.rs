//! `keyledger audit checkpoint`.

use crate::connection::Session;
use crate::json::{self, Output};
use crate::raw_entries::newest_checkpoint;
use crate::screen::{Screen, inert};

/// Print the newest signed checkpoint: the size and root hash of the ledger, as a C2SP tlog-checkpoint note.
///
/// Keep it somewhere else: `keyledger verify --pin FILE` then finds out if entries that it covers were removed or changed.
/// The key that verifies it is printed on standard error; `keyledger verify --verifier-key` takes it.
#[derive(clap::Args)]
#[command(after_help = "Example: keyledger audit checkpoint > checkpoint-2027-01-01")]
pub(super) struct Checkpoint {
    #[command(flatten)]
    output: Output,
}

impl Checkpoint {
    pub(super) async fn run(self, session: &Session, screen: &Screen) -> anyhow::Result<()> {
        let reply = newest_checkpoint(session).await?;
        if self.output.is_json() {
            return json::print_reply(screen, "GetCheckpointResponse", &reply);
        }
        screen.verbatim(&reply.note)?;
        eprintln!("Verifier key: {}", inert(&reply.verifier_key));
        Ok(())
    }
}
