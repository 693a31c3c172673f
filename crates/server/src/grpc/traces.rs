//! From a trace to its keys, and from a key to its traces. What is signed names both; the index finds one by the other.

use std::collections::HashMap;
use std::sync::Arc;

use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::category::{self, ACCESS, LIFECYCLE, USE};
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::page::read_uses;
use keyledger_ledger::state::Key;
use keyledger_proto::parse::{AsOf, EventFilter, GetTrace};
use keyledger_proto::{
    AuditEvent, GetTraceResponse, KeyTrace, KeyTraces, TraceEvent, TraceKey, show,
};

use super::call::CallContext;
use super::candidates::pages_of_key;
use super::events::{Selection, damaged};
use super::gate::GivesEvents;
use super::list_events::List;
use super::moment::Moment;
use super::status::Failure;
use crate::store::entries::{self, FullEntry};
use crate::store::event_index::Order;
use crate::store::positions::{self, Which};

/// Most keys of a page of a trace that are shown as they are, and not only named.
const KEYS_SHOWN: usize = 100;
/// Most changes of a key that are looked at, and most uses in a trace that are told.
const CHANGES: usize = 32;
const USES: usize = 16;
/// Most pages, and about as many bytes, in which uses of a key are looked for.
const PAGES: usize = 256;
const PAGE_BYTES: usize = 8 << 20;
/// Pages that are read at once: of 4,096 uses each at most.
const CHUNK: usize = 8;

impl GivesEvents for GetTraceResponse {
    fn events_given(&self) -> u64 {
        self.events.len() as u64
    }
}

pub(super) async fn get_trace(call: CallContext, r: GetTrace) -> Result<GetTraceResponse, Failure> {
    let filter = EventFilter { trace_id: Some(r.trace_id), ..EventFilter::default() };
    let selection = Selection { filter, ..Selection::default() };
    let trace_id = show::hex(&r.trace_id);
    let list = List { call: &call, selection: &selection, size: r.page_size };
    let query = ["GetTrace", &trace_id];
    let (events, next_page_token) = list.page_of(Order::OldestFirst, &query, &r.page_token).await?;
    let keys = keys_of(&call, &events).await?;
    let events = events.into_iter().map(|event| in_trace(event, &trace_id)).collect();
    Ok(GetTraceResponse { events, keys, next_page_token })
}

/// An event with its spans in this trace.
fn in_trace(event: AuditEvent, trace_id: &str) -> TraceEvent {
    let own = (event.trace_id == trace_id).then_some(&event.span_id);
    let folded = event.spans.iter().filter(|span| span.trace_id == trace_id).map(|s| &s.span_id);
    let span_ids = own.into_iter().chain(folded).filter(|id| !id.is_empty()).cloned().collect();
    TraceEvent { event: Some(event), span_ids }
}

/// The keys in events. Their ids stand in what the caller sees; what else there is to a key is shown to those who may read it.
async fn keys_of(call: &CallContext, events: &[AuditEvent]) -> Result<Vec<TraceKey>, Failure> {
    let mut keys = named_in(events);
    let head = call.head();
    let may_read = |id: &KeyId| call.holds("keys.read", &format!("keys/{id}"));
    let ids = keys.iter().take(KEYS_SHOWN).filter_map(|key| KeyId::parse(&key.key_id));
    let seen: Vec<Arc<Key>> =
        ids.filter(may_read).filter_map(|id| head.state.keys.get(&id).cloned()).collect();
    let moment = Moment::of(call, AsOf::Now).await?;
    let shown = moment.show_keys(call, &head.state, &seen).await?;
    let mut shown: HashMap<String, _> =
        shown.into_iter().map(|key| (key.key_id.clone(), key)).collect();
    keys.iter_mut().for_each(|key| key.key = shown.remove(&key.key_id));
    Ok(keys)
}

/// The keys that events name, in the order in which they come.
fn named_in(events: &[AuditEvent]) -> Vec<TraceKey> {
    let mut keys: Vec<TraceKey> = vec![];
    let mut places: HashMap<&str, usize> = HashMap::new();
    for event in events {
        let other = event.caller_key_id != event.key_id;
        let caller = Some(&event.caller_key_id).filter(|_| other);
        for id in [Some(&event.key_id), caller].into_iter().flatten().filter(|id| !id.is_empty()) {
            let place = *places.entry(id).or_insert_with(|| {
                let (key_id, first_time) = (id.clone(), event.time);
                keys.push(TraceKey { key_id, first_time, ..TraceKey::default() });
                keys.len() - 1
            });
            keys[place].last_time = event.time;
            keys[place].events += 1;
        }
    }
    keys
}

/// In which traces a key was changed and used before a position, as far as the caller may read the log.
pub(super) async fn of_key(call: &CallContext, key: &Key, end: u64) -> Result<KeyTraces, Failure> {
    let readable = Readable::by(call);
    let (changes, older_changes) = match readable.changes {
        true => changes_of(call, key.id, end).await?,
        false => (vec![], false),
    };
    let (uses, older_uses) = match readable.uses || readable.accesses {
        true => uses_of(call, key.id, end, &readable).await?,
        false => (vec![], false),
    };
    let changes_withheld = !readable.changes;
    let uses_withheld = !readable.uses && !readable.accesses;
    Ok(KeyTraces { changes_withheld, changes, older_changes, uses_withheld, uses, older_uses })
}

/// What of the log a caller may read that asks for a key.
struct Readable {
    changes: bool,
    uses: bool,
    accesses: bool,
}

impl Readable {
    fn by(call: &CallContext) -> Readable {
        let may = |category: &str| call.holds("audit.read", &format!("logs/{category}"));
        Readable { changes: may(LIFECYCLE), uses: may(USE), accesses: may(ACCESS) }
    }

    fn is_readable(&self, category: &str) -> bool {
        if category == ACCESS { self.accesses } else { self.uses }
    }
}

/// Those of the newest changes that were made in a trace, and whether there are older ones.
async fn changes_of(
    call: &CallContext,
    key_id: KeyId,
    end: u64,
) -> Result<(Vec<KeyTrace>, bool), Failure> {
    let (client, id) = (call.ledger.database.client().await?, call.ledger.id);
    let (which, order) = (Which::ChangesOf(key_id), Order::NewestFirst);
    let limit = CHANGES as i64 + 1;
    let mut places = positions::of(&client, id, &which, &(0..end), order, limit).await?;
    let older = places.len() > CHANGES;
    places.truncate(CHANGES);
    drop(client);
    let mut changes = vec![];
    for entry in &read(call, &places).await? {
        changes.extend(show::change_trace(entry.position, &decode(entry)?));
    }
    Ok((changes, older))
}

/// The newest uses in a trace, and whether there may be older ones.
async fn uses_of(
    call: &CallContext,
    key_id: KeyId,
    end: u64,
    readable: &Readable,
) -> Result<(Vec<KeyTrace>, bool), Failure> {
    let (mut uses, mut rest, mut looked_at, mut bytes) = (vec![], 0..end, 0, 0);
    loop {
        let found = pages_of_key(&call.ledger, key_id, &rest, PAGES).await?;
        let some = &found.positions[..found.positions.len().min(CHUNK)];
        for page in read(call, some).await? {
            bytes += page.uses.len();
            uses.extend(uses_in(&page, key_id, readable)?);
        }
        // A round costs something, also one that finds nothing.
        looked_at += some.len().max(1);
        let next = match found.positions.len() > some.len() {
            true => some.last().copied(),
            false => found.edge,
        };
        let enough = uses.len() > USES || looked_at >= PAGES || bytes >= PAGE_BYTES;
        match next {
            Some(next) if !enough => rest = 0..next,
            next => {
                let older = uses.len() > USES || next.is_some();
                uses.truncate(USES);
                return Ok((uses, older));
            }
        }
    }
}

async fn read(call: &CallContext, positions: &[u64]) -> Result<Vec<FullEntry>, Failure> {
    let (client, id) = (call.ledger.database.client().await?, call.ledger.id);
    let order = Order::NewestFirst;
    Ok(entries::some_at_positions(&client, id, positions, order, usize::MAX).await?)
}

/// The uses of a page in a trace, of a key or by it, newest first.
fn uses_in(page: &FullEntry, key_id: KeyId, readable: &Readable) -> Result<Vec<KeyTrace>, Failure> {
    let event = decode(page)?;
    let Some(Kind::UsePage(signed)) = &event.kind else { return Ok(vec![]) };
    let all = read_uses(signed, &page.uses).map_err(|_| damaged(page.position))?;
    let mut uses = vec![];
    for (index, read) in all.iter().enumerate().rev() {
        let u = &read.r#use;
        let asker = u.caller.as_ref().map(|c| c.key_id.as_slice());
        let is_of_key = [Some(u.key_id.as_slice()), asker].contains(&Some(key_id.as_bytes()));
        if is_of_key && readable.is_readable(category::of_use(signed, u)) {
            uses.extend(show::use_traces(page.position, index as u32, Time(event.time_us), u));
        }
    }
    Ok(uses)
}

fn decode(entry: &FullEntry) -> Result<Event, Failure> {
    Event::from_signed(&entry.entry.body).map_err(|_| damaged(entry.position))
}
