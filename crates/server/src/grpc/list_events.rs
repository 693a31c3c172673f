//! ListEvents: events by key, category and what else is asked, newest or oldest first.

use std::ops::Range;

use keyledger_ledger::id::Time;
use keyledger_proto::parse::{EventFilter, ListEvents};
use keyledger_proto::{AuditEvent, ListEventsResponse};

use super::call::CallContext;
use super::candidates::candidates;
use super::events::{Selection, Viewer, events_of};
use super::gate::GivesEvents;
use super::page_token;
use super::status::Failure;
use crate::store::entries;
use crate::store::event_index::{Order, Positions};

/// Most entries, and about as many bytes, that one call looks at; a page may be short and still have a next one.
const MAX_LOOKED_AT: usize = 1_024;
const MAX_BYTES: usize = 8 << 20;
/// Fewest and most positions that are asked for at once.
const BATCH: Range<usize> = 64..512;

/// Where the events that are still to come begin. Newest first: before this one. Oldest first: with it.
#[derive(Clone, Copy)]
struct Cursor {
    order: Order,
    position: u64,
    index: u32,
}

impl Cursor {
    fn read(order: Order, bytes: &[u8]) -> Option<Cursor> {
        let (position, index) = bytes.split_at_checked(8)?;
        let position = u64::from_be_bytes(position.try_into().ok()?);
        let index = u32::from_be_bytes(index.try_into().ok()?);
        (position <= i64::MAX as u64).then_some(Cursor { order, position, index })
    }

    fn write(self) -> Vec<u8> {
        [self.position.to_be_bytes().as_slice(), &self.index.to_be_bytes()].concat()
    }

    fn at(order: Order, position: u64) -> Cursor {
        Cursor { order, position, index: 0 }
    }

    fn after(order: Order, event: &AuditEvent) -> Cursor {
        let index = event.index.unwrap_or_default();
        let index = if order == Order::OldestFirst { index + 1 } else { index };
        Cursor { order, position: event.position.unwrap_or_default(), index }
    }

    fn covers(self, event: &AuditEvent) -> bool {
        let at = (event.position.unwrap_or_default(), event.index.unwrap_or_default());
        match self.order {
            Order::NewestFirst => at < (self.position, self.index),
            Order::OldestFirst => at >= (self.position, self.index),
        }
    }

    /// What is left of a range. A page of which a part was shown is looked at again.
    fn rest(self, range: &Range<u64>) -> Range<u64> {
        match self.order {
            Order::NewestFirst => {
                range.start..range.end.min(self.position + u64::from(self.index > 0))
            }
            Order::OldestFirst => range.start.max(self.position)..range.end,
        }
    }
}

impl GivesEvents for ListEventsResponse {
    fn events_given(&self) -> u64 {
        self.events.len() as u64
    }
}

pub(super) async fn list_events(
    call: CallContext,
    r: ListEvents,
) -> Result<ListEventsResponse, Failure> {
    r.filter.check_window(call.now())?;
    let order = if r.oldest_first { Order::OldestFirst } else { Order::NewestFirst };
    let selection = Selection {
        category: r.category,
        key_id: r.key_id,
        filter: r.filter,
        ..Selection::default()
    };
    selection.check_for(&call)?;
    if selection.filter.owner.is_some() {
        // Whose keys are whose is told by the state: it must hold all keys that there were when this was asked.
        call.ledger.catch_up().await?;
    }
    let query = ["ListEvents", &r.query];
    let list = List { call: &call, selection: &selection, size: r.page_size };
    let (events, next_page_token) = list.page_of(order, &query, &r.page_token).await?;
    Ok(ListEventsResponse { events, next_page_token })
}

/// The positions at which something was recorded in the time that was asked for: times never run backwards.
async fn positions_of(call: &CallContext, filter: &EventFilter) -> Result<Range<u64>, Failure> {
    if filter.start.is_none() && filter.end.is_none() {
        return Ok(0..i64::MAX as u64);
    }
    let client = call.ledger.database.client().await?;
    let size = entries::size(&client, call.ledger.id).await?;
    let first = async |time: Time| entries::first_at(&client, call.ledger.id, size, time).await;
    let start = match filter.start {
        Some(time) => first(time).await?,
        None => 0,
    };
    let end = match filter.end {
        Some(time) => first(time).await?,
        None => i64::MAX as u64,
    };
    Ok(start..end.max(start))
}

/// A list that comes in pages.
pub(super) struct List<'a> {
    pub(super) call: &'a CallContext,
    pub(super) selection: &'a Selection,
    /// Of a page.
    pub(super) size: usize,
}

/// What a call has looked at so far.
#[derive(Default)]
struct LookedAt {
    entries: usize,
    bytes: usize,
}

impl LookedAt {
    fn enough(&self) -> bool {
        self.entries >= MAX_LOOKED_AT || self.bytes >= MAX_BYTES
    }
}

impl List<'_> {
    /// The events of the page that a token of this query names, and the token of the next one; empty if there is none.
    pub(super) async fn page_of(
        &self,
        order: Order,
        query: &[&str],
        token: &str,
    ) -> Result<(Vec<AuditEvent>, String), Failure> {
        let token = page_token::read(query, token)?;
        let range = positions_of(self.call, &self.selection.filter).await?;
        let start = if order == Order::OldestFirst { range.start } else { range.end };
        let cursor = match token {
            None => Cursor::at(order, start),
            Some(bytes) => Cursor::read(order, &bytes).ok_or(Failure::PageToken)?,
        };
        let (events, next) = self.page(cursor, range).await?;
        let next = next.map(|cursor| page_token::write(query, &cursor.write()));
        Ok((events, next.unwrap_or_default()))
    }

    /// The events of a page, and where the next one begins, if there is one.
    async fn page(
        &self,
        cursor: Cursor,
        range: Range<u64>,
    ) -> Result<(Vec<AuditEvent>, Option<Cursor>), Failure> {
        let Some(who) = self.selection.who(&Viewer::Caller(self.call)).await? else {
            return Ok((vec![], None));
        };
        let order = cursor.order;
        let limit = self.size.clamp(BATCH.start, BATCH.end);
        let (mut events, mut looked_at) = (vec![], LookedAt::default());
        let mut rest = cursor.rest(&range);
        loop {
            let found = candidates(self.call, self.selection, &who, &rest, order, limit).await?;
            let Positions { positions, edge } = found;
            let mut left = positions.as_slice();
            while !left.is_empty() {
                let read = self.look_at(&mut left, cursor, &mut events, &mut looked_at).await?;
                if events.len() > self.size {
                    events.truncate(self.size);
                    let next = events.last().map(|last| Cursor::after(order, last));
                    return Ok((events, next));
                }
                if looked_at.enough() {
                    return Ok((events, Some(Cursor::at(order, order.after(read)))));
                }
            }
            // Each round costs something, also one that finds nothing.
            looked_at.entries += 1;
            match edge {
                None => return Ok((events, None)),
                Some(edge) if looked_at.enough() => {
                    return Ok((events, Some(Cursor::at(order, edge))));
                }
                Some(edge) => rest = Cursor::at(order, edge).rest(&rest),
            }
        }
    }

    /// Looks at some of the positions and takes them away. Returns the last one.
    async fn look_at(
        &self,
        left: &mut &[u64],
        cursor: Cursor,
        events: &mut Vec<AuditEvent>,
        looked_at: &mut LookedAt,
    ) -> Result<u64, Failure> {
        let (call, order) = (self.call, cursor.order);
        let wanted = (self.size + 1 - events.len()).max(BATCH.start);
        let some = &left[..wanted.min(left.len())];
        let bytes = MAX_BYTES - looked_at.bytes.min(MAX_BYTES - 1);
        let client = call.ledger.database.client().await?;
        let entries =
            entries::some_at_positions(&client, call.ledger.id, some, order, bytes).await?;
        drop(client);
        for entry in &entries {
            looked_at.entries += 1;
            looked_at.bytes += entry.entry.body.len() + entry.sealed.len() + entry.uses.len();
            let mut found = events_of(&Viewer::Caller(call), entry, self.selection).await?;
            if order == Order::NewestFirst {
                found.reverse();
            }
            events.extend(found.into_iter().filter(|e| cursor.covers(e)));
            if events.len() > self.size {
                break;
            }
        }
        // Positions are those of entries; one that is gone is for verification to name.
        let last = entries.last().map_or(some[some.len() - 1], |e| e.position);
        let gone = left.iter().position(|p| *p == last).map_or(some.len(), |at| at + 1);
        *left = &left[gone..];
        Ok(last)
    }
}
