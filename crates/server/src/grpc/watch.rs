//! WatchKeys: every change of a key, a role or the ledger itself once, in order, from a position on. What was only used is
//! passed over unread.

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::category::{self, LIFECYCLE};
use keyledger_ledger::id::KeyId;
use keyledger_proto::{WatchKeysRequest, WatchKeysResponse, show};

use super::call::CallContext;
use super::follow::{Ended, Reader, Source, follow};
use super::replies::Replies;
use super::status::Failure;
use crate::store::entries::{self, StoredEntry};

/// Entries read at once.
const CHUNK: u64 = 256;

pub(super) async fn watch_keys(
    call: CallContext,
    request: WatchKeysRequest,
) -> Result<Replies<WatchKeysResponse>, Failure> {
    let next = request.from_position.unwrap_or(call.head().state.next_position);
    let (replica, ledger) = (call.replica.clone(), call.ledger.clone());
    follow(&replica.streams, ledger, Changes { call, seen: None }, next, None)
}

struct Changes {
    call: CallContext,
    /// How many changes the ledger had at the cursor, once the cursor has come to its head.
    seen: Option<u64>,
}

impl Source for Changes {
    type Reply = WatchKeysResponse;

    async fn send_some(
        &mut self,
        reader: &mut Reader<WatchKeysResponse>,
        end: u64,
    ) -> Result<(), Ended> {
        let head = self.call.head();
        // Only pages have come since.
        if self.seen == Some(head.state.changes()) {
            reader.next = end;
            return Ok(());
        }
        self.send_chunk(reader, CHUNK.min(end - reader.next)).await?;
        if reader.next == head.state.next_position {
            self.seen = Some(head.state.changes());
        }
        Ok(())
    }

    fn heartbeat(&self, next_position: u64) -> Result<WatchKeysResponse, Failure> {
        self.require_that_it_may_read()?;
        Ok(WatchKeysResponse { change: None, next_position: Some(next_position) })
    }

    /// It gives nothing of the log: that it was opened says enough.
    async fn closed(&mut self, _events: u64) -> Result<(), Failure> {
        Ok(())
    }
}

impl Changes {
    /// Only the signed bytes are read: the uses of pages, which lie beside them, are not.
    async fn send_chunk(
        &self,
        reader: &mut Reader<WatchKeysResponse>,
        limit: u64,
    ) -> Result<(), Ended> {
        let client = self.call.ledger.database.client().await?;
        let (id, from) = (self.call.ledger.id, reader.next);
        let chunk = entries::from_position(&client, id, from, limit as i64).await?;
        drop(client);
        if chunk.is_empty() {
            return Err(Failure::Internal("published entries are not there").into());
        }
        for entry in chunk {
            // The cursor moves past an entry with its change.
            let next = entry.position + 1;
            if let Some(reply) = self.reply(&entry)? {
                reader.send(reply, next, 0).await?;
            }
            reader.next = next;
        }
        Ok(())
    }

    /// What the reader hears of an entry: nothing of a page; an error once it may not read any more.
    fn reply(&self, entry: &StoredEntry) -> Result<Option<WatchKeysResponse>, Failure> {
        let event = Event::from_signed(&entry.entry.body)
            .map_err(|_| Failure::Internal("a stored entry can't be read"))?;
        // Unusual use is no change, and for those who may read about it.
        let told = |kind: &&Kind| kind.is_change() && category::of_entry(&event) == LIFECYCLE;
        let Some(kind) = event.kind.as_ref().filter(told) else { return Ok(None) };
        self.require_that_it_may_read()?;
        let head = self.call.head();
        let key_id = kind.key_link().and_then(|link| KeyId::from_slice(&link.key_id));
        let key = key_id.and_then(|id| head.state.keys.get(&id));
        let (key, now) = (key.map(|key| &**key), self.call.now());
        let change = show::key_change(&head.state, entry.position, &event, key, now);
        Ok(Some(WatchKeysResponse {
            change: Some(change),
            next_position: Some(entry.position + 1),
        }))
    }

    fn require_that_it_may_read(&self) -> Result<(), Failure> {
        match (self.call.still_stands(), self.call.may("keys")) {
            (false, _) => Err(Failure::KeyEnded),
            (true, false) => Err(self.call.denied("keys")),
            (true, true) => Ok(()),
        }
    }
}
