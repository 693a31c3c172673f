//! Entries from a server. It needn't be trusted: all is verified here.

use super::pins::Pins;
use super::walk::{Checked, Walk};
use crate::connection::Session;
use crate::progress::Progress;
use crate::raw_entries::{RawEntries, newest_checkpoint};

/// The server's own checkpoint is taken first: the entries that follow must reach at least as far.
pub(super) async fn verify(session: &Session, pins: &Pins) -> anyhow::Result<Checked> {
    let published = newest_checkpoint(session).await?;
    let mut notes = pins.notes();
    notes.push(published.note);
    let mut walk = Walk::new(notes);
    let mut progress = Progress::new("entries verified");
    let mut entries = RawEntries::open(session).await?;
    while let Some((position, raw)) = entries.next().await? {
        if let Err(trouble) = walk.push(position, raw) {
            return Ok(walk.stop(trouble));
        }
        progress.at(walk.position(), published.size);
    }
    Ok(walk.finish())
}
