//! AuditService: events by key and category, single events, checkpoints.

use std::collections::BTreeSet;
use std::ops::Range;

use keyledger_ledger::body::{Event, Kind, SealedColumn, decode_canonical};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::note::NoteKey;
use keyledger_ledger::page::{ReadUse, read_uses};
use keyledger_proto::parse::{EventFilter, ListEvents};
use keyledger_proto::show::{self, LIFECYCLE, USE};
use keyledger_proto::{
    AuditEvent, EventView, GetCheckpointResponse, GetEventRequest, GetEventResponse,
    ListEventsResponse, OpenedTexts, RawEntry,
};

use super::call::{CallContext, open_all};
use super::page_token;
use super::status::Failure;
use crate::store::entries::{self, FullEntry};
use crate::store::key_uses;

/// Most entries that one call looks at; a page may be short and still have a next one.
const MAX_CANDIDATES: usize = 64;
/// Entries read at once.
const CHUNK: usize = 8;

/// Which events of an entry a caller sees.
#[derive(Clone)]
pub(super) struct Selection {
    /// What was asked for; empty for all that the caller may read.
    category: String,
    lifecycle: bool,
    uses: bool,
    key_id: Option<KeyId>,
}

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

impl Selection {
    /// What the caller may read of what it asks for. Asking for a category that it may not read is refused.
    pub(super) fn of(
        call: &CallContext,
        category: &str,
        key_id: Option<KeyId>,
    ) -> Result<Selection, Failure> {
        let wants = |c: &str| category.is_empty() || category == c;
        let selection = Selection {
            category: category.into(),
            lifecycle: wants(LIFECYCLE) && call.may_read(LIFECYCLE),
            uses: wants(USE) && call.may_read(USE),
            key_id,
        };
        if !category.is_empty() && !call.may_read(category) {
            return Err(call.denied(&format!("logs/{category}")));
        }
        Ok(selection)
    }

    fn wants_use(&self, read: &ReadUse) -> bool {
        let Some(id) = self.key_id else { return true };
        let caller = read.r#use.caller.as_ref().is_some_and(|c| c.key_id == id.as_bytes());
        caller || read.r#use.key_id == id.as_bytes()
    }

    /// Whether the category of an event of another service was asked for, and may be read.
    fn wants_event(&self, call: &CallContext, category: &str) -> bool {
        (self.category.is_empty() || self.category == category) && call.may_read(category)
    }

    /// Whether only events of other services can be meant.
    fn is_of_events(&self) -> bool {
        !matches!(self.category.as_str(), "" | LIFECYCLE | USE)
    }

    fn wants_change(&self, entry: &FullEntry) -> bool {
        let id = self.key_id;
        id.is_none() || entry.columns.key_id == id || entry.columns.caller_key_id == id
    }
}

pub(super) async fn list_events(
    call: CallContext,
    r: ListEvents,
) -> Result<ListEventsResponse, Failure> {
    r.filter.check_window(call.now())?;
    let selection = Selection::of(&call, &r.category, r.key_id)?;
    let query = ["ListEvents", &r.query];
    let cursor = page_token::read(&query, &r.page_token)?;
    let range = positions_of(&call, &r.filter).await?;
    let mut before = match cursor {
        None => Before { position: range.end, index: 0 },
        Some(bytes) => Before::read(&bytes).ok_or(Failure::PageToken)?,
    };
    let (positions, floor) = candidates(&call, &selection, &r.filter, before).await?;
    let floor = floor.max(range.start);
    let positions: Vec<u64> = positions.into_iter().filter(|p| range.contains(p)).collect();
    let mut events: Vec<AuditEvent> = vec![];
    for chunk in positions.chunks(CHUNK) {
        let client = call.ledger.database.client().await?;
        let entries = entries::at_positions(&client, call.ledger.id, chunk).await?;
        drop(client);
        for entry in entries.iter().rev() {
            let found = events_of(&call, entry, &selection).await?;
            let wanted = |e: &AuditEvent| before.covers(e) && r.filter.matches(e);
            events.extend(found.into_iter().rev().filter(wanted));
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
    filter: &EventFilter,
    before: Before,
) -> Result<(Vec<u64>, u64), Failure> {
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
    if let (Some(trace), true) = (&filter.trace_id, s.is_of_events()) {
        add(entries::trace_positions(&client, id, trace, end, limit).await?);
    } else if s.is_of_events() {
        add(entries::category_positions(&client, id, &s.category, end, limit).await?);
    } else if s.lifecycle || s.category.is_empty() {
        add(entries::change_positions(&client, id, s.key_id, end, limit).await?);
    }
    match s.key_id {
        None if s.uses => add(entries::page_positions(&client, id, 0..end, limit).await?),
        Some(key) if s.uses => {
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

/// The events of one entry that a caller sees, in order.
pub(super) async fn events_of(
    call: &CallContext,
    entry: &FullEntry,
    s: &Selection,
) -> Result<Vec<AuditEvent>, Failure> {
    let event = decode(entry)?;
    let leaf_hash = entry.entry.leaf_hash();
    let Some(Kind::UsePage(page)) = &event.kind else {
        if let Some(Kind::EventRecorded(recorded)) = &event.kind {
            if !s.wants_event(call, &recorded.category) || !s.wants_change(entry) {
                return Ok(vec![]);
            }
            let texts = call.open_entry(entry).await?;
            return Ok(vec![show::recorded_event(entry.position, &leaf_hash, &event, &texts)]);
        }
        if !s.lifecycle || !s.wants_change(entry) {
            return Ok(vec![]);
        }
        let texts = call.open_entry(entry).await?;
        return Ok(vec![show::change_event(entry.position, &leaf_hash, &event, &texts)]);
    };
    if !s.uses {
        return Ok(vec![]);
    }
    let uses = read_uses(page, &entry.uses).map_err(|_| damaged(entry.position))?;
    let mut events = vec![];
    for (index, read) in uses.iter().enumerate().filter(|(_, read)| s.wants_use(read)) {
        let texts = call.open_texts(&read.r#use.texts, &read.sealed).await?;
        let time = Time(event.time_us);
        events.push(show::use_event(
            entry.position,
            index as u32,
            time,
            &leaf_hash,
            &read.r#use,
            &texts,
        ));
    }
    Ok(events)
}

pub(super) async fn get_event(
    call: CallContext,
    r: GetEventRequest,
) -> Result<GetEventResponse, Failure> {
    let position = r.position.unwrap_or_default();
    let client = call.ledger.database.client().await?;
    let mut entries = entries::at_positions(&client, call.ledger.id, &[position]).await?;
    drop(client);
    let entry = entries.pop().ok_or(Failure::EventNotFound)?;
    if r.view() == EventView::Raw {
        call.require_everything()?;
        return Ok(GetEventResponse { event: Some(raw_event(&call, &entry).await?) });
    }
    let selection = Selection::of(&call, "", None)?;
    let events = events_of(&call, &entry, &selection).await?;
    let wanted = events.into_iter().find(|e| e.index == r.index);
    Ok(GetEventResponse { event: Some(wanted.ok_or(Failure::EventNotFound)?) })
}

/// An entry whole, with what offline verification needs.
pub(super) async fn raw_event(
    call: &CallContext,
    entry: &FullEntry,
) -> Result<AuditEvent, Failure> {
    let event = decode(entry)?;
    let leaf_hash = entry.entry.leaf_hash();
    let column: SealedColumn = decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
    let mut opened = open_all(&call.replica, &call.ledger, &event.texts, &column.sealed).await?;
    if let Some(Kind::UsePage(page)) = &event.kind {
        for read in read_uses(page, &entry.uses).map_err(|_| damaged(entry.position))? {
            opened.extend(
                open_all(&call.replica, &call.ledger, &read.r#use.texts, &read.sealed).await?,
            );
        }
    }
    let raw = RawEntry {
        payload_type: entry.entry.payload_type.clone(),
        body: entry.entry.body.clone(),
        public_key_sha256: entry.entry.public_key_sha256.to_vec(),
        signature: entry.entry.signature.to_vec(),
        uses: entry.uses.clone(),
        opened: opened
            .into_iter()
            .map(|o| {
                o.map_or(OpenedTexts::default(), |o| OpenedTexts {
                    salt: o.salt.to_vec(),
                    texts: o.texts,
                })
            })
            .collect(),
    };
    let category = match &event.kind {
        Some(Kind::UsePage(_)) => USE,
        Some(Kind::EventRecorded(recorded)) => &recorded.category,
        _ => LIFECYCLE,
    };
    let shown = show::change_event(entry.position, &leaf_hash, &event, &[]);
    Ok(AuditEvent { raw: Some(raw), category: category.into(), ..shown })
}

pub(super) async fn get_checkpoint(
    call: CallContext,
    _: (),
) -> Result<GetCheckpointResponse, Failure> {
    let head = call.head();
    let info = head.state.ledger.as_ref().ok_or(Failure::Internal("no ledger"))?;
    let signed = call
        .ledger
        .sign_checkpoint()
        .await?
        .ok_or(Failure::Internal("a ledger without entries"))?;
    let key = NoteKey::new(&info.origin, info.checkpoint_key)
        .map_err(|_| Failure::Internal("a bad origin"))?;
    Ok(GetCheckpointResponse {
        note: signed.note.clone(),
        size: signed.checkpoint.size,
        root_hash: signed.checkpoint.root.to_vec(),
        verifier_key: key.vkey(),
    })
}

fn decode(entry: &FullEntry) -> Result<Event, Failure> {
    Event::from_signed(&entry.entry.body).map_err(|_| damaged(entry.position))
}

fn damaged(position: u64) -> Failure {
    tracing::error!(position, "a stored entry can't be read: run `keyledger verify`");
    Failure::Internal("a stored entry can't be read")
}
