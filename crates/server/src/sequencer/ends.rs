//! Notes that keys will end soon, that they have ended, and that their secrets are older than a policy allows. Every replica looks; the first one notes it, since `decide`
//! tells the others that it was done. A key is refused from its end on whether or not this was noted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::try_join_all;
use keyledger_ledger::command::{Change, ChangeKind};
use keyledger_ledger::id::KeyId;

use super::intervals::at_intervals;
use super::{Ledger, SequencerError};
use crate::replica::{by_itself, own_clock};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most keys that are noted at once, so that others have room in the same batch. The rest waits for the next look.
const MAX_AT_ONCE: usize = 1_024;

/// Runs until the ledger is dropped or stopped.
pub(super) async fn run(ledger: Weak<Ledger>) {
    let note = |ledger: Arc<Ledger>| async move { note_due(&ledger).await };
    at_intervals(ledger, INTERVAL, "ends of keys could not be noted", note).await;
}

async fn note_due(ledger: &Ledger) -> Result<(), SequencerError> {
    let now = own_clock();
    let due: Vec<KeyId> = {
        let state = &ledger.snapshot().state;
        let due = state.due.iter().take_while(|(time, _)| *time <= now).take(MAX_AT_ONCE);
        due.map(|(_, id)| *id).collect()
    };
    let notes = due
        .into_iter()
        .map(|key_id| by_itself(ledger, Change::new(ChangeKind::NoteDue { key_id }, vec![])));
    try_join_all(notes).await?;
    Ok(())
}
