//! ListEvents: events by key, category and what else is asked, newest first.

use std::collections::BTreeSet;
use std::ops::Range;

use keyledger_ledger::category::LIFECYCLE;
use keyledger_ledger::id::Time;
use keyledger_proto::parse::{EventFilter, ListEvents};
use keyledger_proto::{AuditEvent, ListEventsResponse};

use super::call::CallContext;
use super::events::{Selection, Viewer, events_of};
use super::gate::GivesEvents;
use super::page_token;
use super::status::Failure;
use crate::store::{entries, key_uses};

/// Most entries that one call looks at; a page may be short and still have a next one.
const MAX_CANDIDATES: usize = 64;
/// Entries read at once.
const CHUNK: usize = 8;

/// Events before this one are still to come: newest first.
#[derive(Clone, Copy)]
struct Before {
    position: u64,
    index: u32,
}

impl Before {
    fn read(bytes: &[u8]) -> Option<Before> {
        let (position, index) = bytes.split_at_checked(8)?;
        let position = u64::from_be_bytes(position.try_into().ok()?);
        let index = u32::from_be_bytes(index.try_into().ok()?);
        (position <= i64::MAX as u64).then_some(Before { position, index })
    }

    fn write(self) -> Vec<u8> {
        [self.position.to_be_bytes().as_slice(), &self.index.to_be_bytes()].concat()
    }

    fn covers(self, event: &AuditEvent) -> bool {
        let at = (event.position.unwrap_or_default(), event.index.unwrap_or_default());
        at < (self.position, self.index)
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
    let selection = Selection { category: r.category, key_id: r.key_id, filter: r.filter };
    selection.check_for(&call)?;
    let viewer = Viewer::Caller(&call);
    let query = ["ListEvents", &r.query];
    let cursor = page_token::read(&query, &r.page_token)?;
    let range = positions_of(&call, &selection.filter).await?;
    let mut before = match cursor {
        None => Before { position: range.end, index: 0 },
        Some(bytes) => Before::read(&bytes).ok_or(Failure::PageToken)?,
    };
    let (positions, floor) = candidates(&call, &selection, before).await?;
    let floor = floor.max(range.start);
    let positions: Vec<u64> = positions.into_iter().filter(|p| range.contains(p)).collect();
    let mut events: Vec<AuditEvent> = vec![];
    for chunk in positions.chunks(CHUNK) {
        let client = call.ledger.database.client().await?;
        let entries = entries::at_positions(&client, call.ledger.id, chunk).await?;
        drop(client);
        for entry in entries.iter().rev() {
            let found = events_of(&viewer, entry, &selection).await?;
            events.extend(found.into_iter().rev().filter(|e| before.covers(e)));
        }
        if events.len() > r.page_size {
            events.truncate(r.page_size);
            let last = events.last().expect("a page holds at least one event");
            before = Before {
                position: last.position.unwrap_or_default(),
                index: last.index.unwrap_or_default(),
            };
            return Ok(ListEventsResponse {
                events,
                next_page_token: page_token::write(&query, &before.write()),
            });
        }
    }
    // Everything from `floor` on was looked at.
    let next = match floor <= range.start {
        true => String::new(),
        false => page_token::write(&query, &Before { position: floor, index: 0 }.write()),
    };
    Ok(ListEventsResponse { events, next_page_token: next })
}

/// The positions at which something was recorded in the time that was asked for: times never run backwards.
async fn positions_of(call: &CallContext, filter: &EventFilter) -> Result<Range<u64>, Failure> {
    let size = call.head().state.next_position;
    let client = call.ledger.database.client().await?;
    // The first position at a time or later: as many entries are older.
    let first = async |time: Time| {
        entries::size_at(&client, call.ledger.id, size, time.plus_micros(-1)).await
    };
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

/// Positions that may hold events, newest first, and the position down to which they are complete.
async fn candidates(
    call: &CallContext,
    s: &Selection,
    before: Before,
) -> Result<(Vec<u64>, u64), Failure> {
    let viewer = Viewer::Caller(call);
    let (lifecycle, uses) = (s.wants(&viewer, LIFECYCLE), s.wants_uses(&viewer));
    let client = call.ledger.database.client().await?;
    let id = call.ledger.id;
    // A page of which a part was shown is looked at again.
    let end = if before.index > 0 { before.position + 1 } else { before.position };
    let limit = MAX_CANDIDATES as i64;
    let mut found: BTreeSet<u64> = BTreeSet::new();
    let mut floor = 0;
    let mut add = |positions: Vec<u64>| {
        if positions.len() == MAX_CANDIDATES {
            floor = floor.max(positions.last().copied().unwrap_or(0));
        }
        found.extend(positions);
    };
    if let (Some(trace), true) = (&s.filter.trace_id, s.is_of_events()) {
        add(entries::trace_positions(&client, id, trace, end, limit).await?);
    } else if s.is_of_events() {
        add(entries::category_positions(&client, id, &s.category, end, limit).await?);
    } else if lifecycle || s.category.is_empty() {
        add(entries::change_positions(&client, id, s.key_id, end, limit).await?);
    }
    match s.key_id {
        None if uses => add(entries::page_positions(&client, id, 0..end, limit).await?),
        Some(key) if uses => {
            let indexed = key_uses::progress(&client, id).await?.min(end);
            let newest = entries::page_positions(&client, id, indexed..end, limit).await?;
            let all_of_the_newest = newest.len() < MAX_CANDIDATES;
            add(newest);
            if all_of_the_newest {
                add(key_uses::positions(&client, id, key, indexed, limit).await?);
            }
        }
        _ => {}
    }
    Ok((found.into_iter().rev().filter(|p| *p >= floor).collect(), floor))
}
