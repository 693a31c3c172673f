//! Who changed a key, and why: its newest lifecycle entries, with whose key called as far as the caller may see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keyledger_ledger::batch::Head;
use keyledger_ledger::body::{Event, KeySuspended, Kind, Texts};
use keyledger_ledger::category::ANOMALY;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::state::Key;
use keyledger_proto::document::changes::{noticed_by, what};
use keyledger_proto::{KeyHistory, KeyHistoryEntry, Owner, show};

use crate::grpc::call::CallContext;
use crate::grpc::keys::key_texts;
use crate::grpc::status::Failure;
use crate::store::entries::{self, FullEntry};
use crate::store::event_index::Order;
use crate::store::positions::{self, Which};

/// One of each key, with at most so many changes.
pub(super) async fn of_keys(
    call: &CallContext,
    head: &Head,
    keys: &[Arc<Key>],
    most: usize,
) -> Result<Vec<KeyHistory>, Failure> {
    let mut histories = vec![];
    for key in keys {
        let entries = newest(call, head, key.id, most).await?;
        let mut changes = vec![];
        for entry in &entries {
            changes.push(change(call, entry).await?);
        }
        let older = key.stream_version.saturating_sub(changes.len() as u32);
        histories.push(KeyHistory { withheld: false, entries: changes, older });
    }
    name_callers(call, head, &mut histories).await?;
    Ok(histories)
}

/// The newest entries about a key before the end of the snapshot, newest first.
async fn newest(
    call: &CallContext,
    head: &Head,
    key_id: KeyId,
    most: usize,
) -> Result<Vec<FullEntry>, Failure> {
    let (client, id) = (call.ledger.database.client().await?, call.ledger.id);
    let (which, range) = (Which::ChangesOf(key_id), 0..head.state.next_position);
    let order = Order::NewestFirst;
    let places = positions::of(&client, id, &which, &range, order, most as i64).await?;
    Ok(entries::some_at_positions(&client, id, &places, order, usize::MAX).await?)
}

async fn change(call: &CallContext, entry: &FullEntry) -> Result<KeyHistoryEntry, Failure> {
    let event = Event::from_signed(&entry.entry.body)
        .map_err(|_| Failure::Internal("a stored entry can't be read"))?;
    let Texts { reason, .. } = show::merged(&call.open_entry(entry).await?);
    let kind = event.kind.as_ref();
    let caller = event.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
    Ok(KeyHistoryEntry {
        position: Some(entry.position),
        time: Some(show::timestamp(Time(event.time_us))),
        r#type: kind.map_or("", |kind| kind.name()).into(),
        what: kind.map(what).unwrap_or_default() + &noticed(call, kind).await?,
        caller_key_id: caller.map_or(String::new(), |id| id.to_string()),
        caller: None,
        reason,
        approval_ref: event.approval_ref.clone(),
        span: (!event.trace_id.is_empty())
            .then(|| show::span_reference(&event.trace_id, &event.span_id)),
    })
}

/// By which rule it was noticed what a key was suspended for. Empty for all other changes.
async fn noticed(call: &CallContext, kind: Option<&Kind>) -> Result<String, Failure> {
    let Some(Kind::KeySuspended(KeySuspended { anomaly_position: Some(position), .. })) = kind
    else {
        return Ok(String::new());
    };
    if !call.holds("audit.read", &format!("logs/{ANOMALY}")) {
        return Ok(noticed_by(None));
    }
    let client = call.ledger.database.client().await?;
    let entries = entries::at_positions(&client, call.ledger.id, &[*position]).await?;
    let event = entries.first().map(|entry| Event::from_signed(&entry.entry.body));
    match event {
        Some(Ok(Event { kind: Some(Kind::AnomalyRaised(raised)), .. })) => {
            Ok(noticed_by(Some(raised.rule())))
        }
        _ => Err(Failure::Internal("no anomaly where a suspension says that one is")),
    }
}

/// Whose the keys are that called: of those that the caller may see.
async fn name_callers(
    call: &CallContext,
    head: &Head,
    histories: &mut [KeyHistory],
) -> Result<(), Failure> {
    let entries = histories.iter().flat_map(|h| &h.entries);
    let ids: BTreeSet<KeyId> = entries.filter_map(|e| KeyId::parse(&e.caller_key_id)).collect();
    let seen = ids.into_iter().filter(|id| call.holds("keys.read", &format!("keys/{id}")));
    let keys: Vec<Arc<Key>> = seen.filter_map(|id| head.state.keys.get(&id).cloned()).collect();
    let texts = key_texts(call, &keys).await?;
    let owners: BTreeMap<String, Owner> = keys
        .iter()
        .zip(&texts)
        .map(|(key, texts)| (key.id.to_string(), show::key_owner(&key.owner, texts)))
        .collect();
    for entry in histories.iter_mut().flat_map(|h| &mut h.entries) {
        entry.caller = owners.get(&entry.caller_key_id).cloned();
    }
    Ok(())
}
