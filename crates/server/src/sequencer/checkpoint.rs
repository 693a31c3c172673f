//! Checkpoints: size and root of what is durable, signed with a key of their own, kept in the database and in a file
//! outside it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use keyledger_ledger::note::{self, Checkpoint};
use tokio::sync::watch;

use super::Ledger;
use super::intervals::at_intervals;
use crate::keydir::write_private;
use crate::store::{StoreError, checkpoints};

/// How often a grown ledger gets a checkpoint.
const INTERVAL: Duration = Duration::from_secs(1);

/// A checkpoint and its signed note.
pub(crate) struct SignedCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
}

/// Signs at an interval while the ledger grows. Runs until the ledger is dropped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let failed = "a checkpoint could not be kept";
    let sign = |ledger: Arc<Ledger>| async move { ledger.sign_checkpoint().await.map(drop) };
    at_intervals(ledger, INTERVAL, failed, sign).await;
}

impl Ledger {
    /// The newest checkpoint that this replica has signed.
    pub(crate) fn newest_checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        self.checkpoint.borrow().clone()
    }

    /// Tells when a checkpoint was signed that covers more.
    pub(crate) fn watch_checkpoint(&self) -> watch::Receiver<Option<Arc<SignedCheckpoint>>> {
        self.checkpoint.subscribe()
    }

    /// Signs what is durable now, unless that was signed already. `None` for a ledger without entries.
    pub(crate) async fn sign_checkpoint(
        &self,
    ) -> Result<Option<Arc<SignedCheckpoint>>, StoreError> {
        let head = self.snapshot();
        let Some(info) = &head.state.ledger else { return Ok(None) };
        let size = head.state.next_position;
        if let Some(newest) = self.newest_checkpoint().filter(|c| c.checkpoint.size >= size) {
            return Ok(Some(newest));
        }
        let checkpoint = Checkpoint { origin: info.origin.clone(), size, root: head.tiles.root() };
        let note = note::sign(&checkpoint, &self.keys.checkpoint_signer);
        checkpoints::append(&self.database.client().await?, self.id, size, &note).await?;
        let file = self.keys.checkpoint_file(self.number);
        let text = note.clone();
        let written =
            tokio::task::spawn_blocking(move || write_private(&file, text.as_bytes())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the checkpoint could not be written to the key directory");
        }
        let signed = Arc::new(SignedCheckpoint { checkpoint, note });
        // Whoever signs more at the same time may be faster.
        self.checkpoint.send_if_modified(|newest| {
            let covers_more = newest.as_ref().is_none_or(|c| c.checkpoint.size < size);
            if covers_more {
                *newest = Some(signed.clone());
            }
            covers_more
        });
        Ok(Some(signed))
    }
}
