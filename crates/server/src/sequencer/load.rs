//! How a replica gets to the head of a ledger: from projected rows, tiles and the newest entries, all of one snapshot, each
//! checked before it is believed. The ledger must extend the last checkpoint that anyone of us knows.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::client::Client;
use keyledger_ledger::apply::{apply, fold_key};
use keyledger_ledger::batch::Head;
use keyledger_ledger::body::{Event, Kind};
use keyledger_ledger::category::CategoryCounts;
use keyledger_ledger::id::{KeyId, Time};
use keyledger_ledger::merkle::TileWriter;
use keyledger_ledger::note::{self, NoteKey};
use keyledger_ledger::record::{RowSum, decode_key, decode_servings, same_mac};
use keyledger_ledger::reports;
use keyledger_ledger::state::{Key, State};
use uuid::Uuid;

use super::catch_up::load_verifiers;
use crate::keydir::KeyDirectory;
use crate::store::connect::{Database, discard};
use crate::store::keys::{self, KeyRow};
use crate::store::{StoreError, checkpoints, entries, tiles};

/// How many rows are read at once.
const CHUNK: i64 = 4_096;

/// Loads state and tree at the head.
pub(crate) async fn load(
    database: &Database,
    ledger_id: Uuid,
    number: u32,
    keys: &KeyDirectory,
) -> Result<Head, StoreError> {
    // Read before the snapshot is taken: what another replica signs in between would not be in it.
    let outside = keys.kept_checkpoint(number)?;
    let client = database.snapshot().await?;
    let result = load_snapshot(&client, ledger_id, outside, keys).await;
    // Nothing was written; the connection goes, whatever state it is in.
    discard(client);
    result
}

async fn load_snapshot(
    client: &Client,
    ledger_id: Uuid,
    outside: Option<String>,
    keys: &KeyDirectory,
) -> Result<Head, StoreError> {
    let size = entries::size(client, ledger_id).await?;
    if size == 0 {
        require_no_checkpoint(client, ledger_id, outside).await?;
        return Ok(nothing_yet());
    }
    let opened = open_position_0(client, ledger_id).await?;
    check_signers(&opened, keys)?;
    check_checkpoints(client, ledger_id, &opened, size, outside).await?;
    match from_projection(client, ledger_id, size, keys).await {
        Ok(Some(head)) => Ok(head),
        Ok(None) | Err(StoreError::Damaged(_)) => {
            tracing::error!(%ledger_id,
                "the projection differs from the ledger and is not believed: every entry is folded instead. \
                 Run `keyledger verify`");
            Ok(nothing_yet())
        }
        Err(error) => Err(error),
    }
}

/// Where a replica begins that believes nothing but the entries: it catches up from position 0.
fn nothing_yet() -> Head {
    Head { state: State::default(), tiles: TileWriter::new(), rows: RowSum::default() }
}

async fn open_position_0(client: &Client, ledger_id: Uuid) -> Result<State, StoreError> {
    let first = entries::from_position(client, ledger_id, 0, 1).await?;
    let first = first.first().filter(|e| e.position == 0);
    let first = first.ok_or_else(|| StoreError::Damaged("position 0 is gone".into()))?;
    let event =
        first.entry.open_first().map_err(|e| StoreError::Damaged(format!("position 0: {e}")))?;
    let mut state = State::default();
    apply(&mut state, first.entry.leaf_hash(), &event)
        .map_err(|e| StoreError::Damaged(format!("position 0: {e}")))?;
    Ok(state)
}

/// State and tree as of the position that all projected rows are bound to. `None` if the rows aren't what was bound: one
/// was changed, left out, or put back to an older one that was good in its time. No unsigned column is relied on: what the
/// rows add up to was bound as a whole.
async fn from_projection(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
    keys: &KeyDirectory,
) -> Result<Option<Head>, StoreError> {
    let Some((at, mac)) = keys::binding(client, ledger_id).await? else { return Ok(None) };
    if at.position == 0 || at.position > size {
        return Ok(None);
    }
    let mut state = fold_what_is_about_no_key(client, ledger_id, at.position).await?;
    if !load_keys(client, ledger_id, &mut state, keys).await? {
        return Ok(None);
    }
    let rows = keys.row_mac.sum(&state);
    if state.next_start != at.next_start
        || !same_mac(&keys.row_mac.of_sum(ledger_id.as_bytes(), &at, rows), &mac)
    {
        return Ok(None);
    }
    let Some(servings) = decode_servings(&at.servings) else { return Ok(None) };
    let Some(sessions) = reports::decode(&at.sessions) else { return Ok(None) };
    let Some(counts) = CategoryCounts::decode(&at.counts) else { return Ok(None) };
    (state.servings, state.sessions, state.counts) = (servings, sessions, counts);
    state.next_position = at.position;
    state.next_page = at.next_page;
    state.next_event = at.next_event;
    state.newest_time = newest_time(client, ledger_id, &state, at.position).await?;
    let tiles = tiles::restore(client, ledger_id, at.position).await?;
    Ok(Some(Head { state, tiles, rows }))
}

/// The opening, roles, registered permissions, ledgers, and what was noticed and told are folded from their entries: few beside keys
/// and uses, though every anomaly, delivery and digest adds one for ever. Their callers' standing was checked by whoever appended
/// them, and is checked again by verification.
pub(super) async fn fold_what_is_about_no_key(
    client: &Client,
    ledger_id: Uuid,
    before: u64,
) -> Result<State, StoreError> {
    let mut state = State::default();
    for stored in entries::about_no_key(client, ledger_id, before).await? {
        let bad = |e: String| StoreError::Damaged(format!("position {}: {e}", stored.position));
        let opened = match &state.ledger {
            Some(ledger) => stored.entry.open(&[ledger.entry_key]),
            None => stored.entry.open_first(),
        };
        let mut event = opened.map_err(|e| bad(e.to_string()))?;
        // Their counts come from pages, which aren't read here: the projection holds them.
        if matches!(event.kind, Some(Kind::BoundedServingStarted(_) | Kind::BoundedServingEnded(_)))
        {
            continue;
        }
        event.caller = None;
        state.next_position = stored.position;
        apply(&mut state, stored.entry.leaf_hash(), &event).map_err(|e| bad(e.to_string()))?;
    }
    Ok(state)
}

/// This replica must be able to append.
fn check_signers(state: &State, keys: &KeyDirectory) -> Result<(), StoreError> {
    let ledger = state
        .ledger
        .as_ref()
        .ok_or_else(|| StoreError::Damaged("position 0 doesn't open the ledger".into()))?;
    let ours = ledger.entry_key == keys.entry_signer.public_key()
        && ledger.checkpoint_key == keys.checkpoint_signer.verifying_key();
    if ours {
        Ok(())
    } else {
        Err(StoreError::Damaged("the key directory's signers are not those of this ledger".into()))
    }
}

/// Reads all rows. False if one of them isn't ours.
async fn load_keys(
    client: &Client,
    ledger_id: Uuid,
    state: &mut State,
    keys: &KeyDirectory,
) -> Result<bool, StoreError> {
    let names: HashMap<String, Arc<str>> =
        state.roles.keys().map(|n| (n.to_string(), n.clone())).collect();
    let mut after = Uuid::nil();
    loop {
        let rows = keys::rows_after(client, ledger_id, after, CHUNK).await?;
        let Some(last) = rows.last() else {
            state.find_due();
            return Ok(true);
        };
        after = last.key_id.uuid();
        let mut loaded = vec![];
        for row in every_other_first(&rows) {
            let Some(key) = believe(row, ledger_id, keys, &names) else { return Ok(false) };
            loaded.push(key.id);
            state.put_key(key);
        }
        load_verifiers(client, ledger_id, state, &loaded).await?;
    }
}

/// In an order that fills the nodes of a map: what comes in order leaves each node half empty, and those in between fill
/// them. With very many keys that is a sixth of the memory.
pub(super) fn every_other_first<T>(sorted: &[T]) -> impl Iterator<Item = &T> {
    sorted.iter().step_by(2).chain(sorted.iter().skip(1).step_by(2))
}

/// A row is one of ours if its MAC holds.
fn believe(
    row: &KeyRow,
    ledger_id: Uuid,
    keys: &KeyDirectory,
    names: &HashMap<String, Arc<str>>,
) -> Option<Key> {
    let id = (ledger_id.as_bytes(), row.key_id.as_bytes());
    let mac = keys.row_mac.of(keys::TABLE, id.0, id.1, row.position, &row.state);
    if !same_mac(&mac, &row.mac) {
        return None;
    }
    let key =
        decode_key(&row.state, |name| names.get(name).cloned().unwrap_or_else(|| name.into()))?;
    (key.id == row.key_id && key.position == row.position).then_some(key)
}

/// A key as its lifecycle entries up to a position left it.
pub(crate) async fn key_as_of(
    client: &Client,
    ledger_id: Uuid,
    state: &State,
    key_id: KeyId,
    up_to: u64,
) -> Result<Option<Arc<Key>>, StoreError> {
    let signer = state
        .ledger
        .as_ref()
        .map(|l| l.entry_key)
        .ok_or(StoreError::Damaged("no position 0".into()))?;
    let mut history: Vec<(u64, [u8; 32], Event)> = vec![];
    for stored in entries::of_key(client, ledger_id, key_id, up_to).await? {
        let event = stored
            .entry
            .open(&[signer])
            .map_err(|e| StoreError::Damaged(format!("position {}: {e}", stored.position)))?;
        history.push((stored.position, stored.entry.leaf_hash(), event));
    }
    fold_key(state, &history)
        .map_err(|e| StoreError::Damaged(format!("the entries of key {key_id}: {e}")))
}

async fn newest_time(
    client: &Client,
    ledger_id: Uuid,
    state: &State,
    size: u64,
) -> Result<Time, StoreError> {
    let signer = state
        .ledger
        .as_ref()
        .map(|l| l.entry_key)
        .ok_or(StoreError::Damaged("no position 0".into()))?;
    let newest = entries::from_position(client, ledger_id, size - 1, 1).await?;
    let newest = newest.first().ok_or(StoreError::Damaged("the newest entry is gone".into()))?;
    let event = newest
        .entry
        .open(&[signer])
        .map_err(|e| StoreError::Damaged(format!("position {}: {e}", newest.position)))?;
    Ok(Time(event.time_us))
}

/// An empty ledger must not have been there before.
async fn require_no_checkpoint(
    client: &Client,
    ledger_id: Uuid,
    outside: Option<String>,
) -> Result<(), StoreError> {
    match known_checkpoints(client, ledger_id, outside).await?.first() {
        None => Ok(()),
        Some(_) => {
            Err(StoreError::Damaged("the ledger is empty, but a checkpoint of it exists".into()))
        }
    }
}

/// The ledger must extend what was signed before, also by what is kept outside the database.
async fn check_checkpoints(
    client: &Client,
    ledger_id: Uuid,
    state: &State,
    size: u64,
    outside: Option<String>,
) -> Result<(), StoreError> {
    let ledger = state.ledger.as_ref().ok_or(StoreError::Damaged("no position 0".into()))?;
    let key = NoteKey::new(&ledger.origin, ledger.checkpoint_key)
        .map_err(|e| StoreError::Damaged(e.to_string()))?;
    for text in known_checkpoints(client, ledger_id, outside).await? {
        let checkpoint = note::open(&text, &key).map_err(|e| {
            StoreError::Damaged(format!("a kept checkpoint is not of this ledger: {e}"))
        })?;
        if checkpoint.size > size {
            return Err(StoreError::Damaged(format!(
                "a checkpoint covers {} entries, but the ledger has {}: the newest ones are missing",
                checkpoint.size, size
            )));
        }
        if tiles::root(client, ledger_id, checkpoint.size).await? != checkpoint.root {
            return Err(StoreError::Damaged(format!(
                "the ledger doesn't extend its checkpoint of size {}",
                checkpoint.size
            )));
        }
    }
    Ok(())
}

/// What is kept outside the database, and the newest in it.
async fn known_checkpoints(
    client: &Client,
    ledger_id: Uuid,
    outside: Option<String>,
) -> Result<Vec<String>, StoreError> {
    Ok(outside.into_iter().chain(checkpoints::newest(client, ledger_id).await?).collect())
}
