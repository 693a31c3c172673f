//! Taking over what other replicas appended: each entry is verified, then applied. A bad one stops the ledger.

use std::sync::Arc;

use crate::store::client::Client;
use keyledger_ledger::apply::apply;
use keyledger_ledger::batch::Head;
use keyledger_ledger::body::Kind;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::imported::{Digest, VERSION, commitment as commit_digest};
use keyledger_ledger::secret;
use keyledger_ledger::state::State;
use uuid::Uuid;

use super::{Ledger, SequencerError, load};
use crate::store::entries::{self, StoredEntry};
use crate::store::{StoreError, imported, keys};

/// How many entries are read at once. Who is further behind than this reads on before it asks for the lock.
pub(super) const CHUNK: i64 = 512;

/// Catches up without the lock, until within a batch of the head.
pub(super) async fn without_lock(ledger: &Ledger) -> Result<(), SequencerError> {
    loop {
        let head = ledger.snapshot();
        let client = ledger.writer.client().await?;
        let news =
            entries::from_position(&client, ledger.id, head.state.next_position, CHUNK).await?;
        let more = news.len() as i64 == CHUNK;
        with_news(ledger, &client, head, news).await?;
        if !more {
            return Ok(());
        }
    }
}

/// Verifies and applies news, and publishes the new head.
pub(super) async fn with_news(
    ledger: &Ledger,
    client: &Client,
    head: Arc<Head>,
    news: Vec<StoredEntry>,
) -> Result<Arc<Head>, SequencerError> {
    if news.is_empty() {
        return Ok(head);
    }
    let before = head;
    let mut head = Head::clone(&before);
    let changed = apply_all(&mut head, &news)?;
    head.rows = ledger.keys.row_mac.advance(before.rows, &before.state, &head.state);
    load_verifiers(client, ledger.id, &mut head.state, &changed).await?;
    let head = Arc::new(head);
    ledger.publish(head.clone());
    Ok(head)
}

/// Returns the keys that got a new secret.
fn apply_all(head: &mut Head, news: &[StoredEntry]) -> Result<Vec<KeyId>, StoreError> {
    let mut new_secrets = vec![];
    for stored in news {
        let bad = |problem: String| {
            StoreError::Damaged(format!("position {}: {problem}", stored.position))
        };
        if stored.position != head.state.next_position {
            return Err(bad(format!("position {} is missing", head.state.next_position)));
        }
        let opened = match &head.state.ledger {
            Some(ledger) => stored.entry.open(&[ledger.entry_key]),
            None => stored.entry.open_first(),
        };
        let event = opened.map_err(|e| bad(e.to_string()))?;
        let leaf_hash = stored.entry.leaf_hash();
        apply(&mut head.state, leaf_hash, &event).map_err(|e| bad(e.to_string()))?;
        // Tiles were stored by whoever appended the entry.
        head.tiles.append(leaf_hash, &mut vec![]);
        if let Some(kind) = event.kind.as_ref().filter(|kind| brings_secret(kind)) {
            new_secrets.extend(kind.key_link().and_then(|l| KeyId::from_slice(&l.key_id)));
        }
    }
    head.state.find_due();
    Ok(new_secrets)
}

fn brings_secret(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::KeyCreated(_)
            | Kind::KeyRotated(_)
            | Kind::KeyImported(_)
            | Kind::VerifierMigrated(_)
    )
}

/// Reads verifiers and keeps those that the signed commitments confirm. A key without its verifier is never accepted.
pub(super) async fn load_verifiers(
    client: &Client,
    ledger_id: Uuid,
    state: &mut State,
    key_ids: &[KeyId],
) -> Result<(), StoreError> {
    if key_ids.is_empty() {
        return Ok(());
    }
    let mut rows = keys::secrets_of(client, ledger_id, key_ids).await?;
    rows.sort_by_key(|row| (row.key_id, row.version));
    for row in load::every_other_first(&rows) {
        let key = state.keys.get(&row.key_id);
        let Some(version) = key.and_then(|k| k.versions.iter().find(|v| v.number == row.version))
        else {
            continue;
        };
        // It was migrated since: the entry that says so comes with the next news.
        if row.version == VERSION && key.is_some_and(|k| k.digest_commitment().is_some()) {
            continue;
        }
        if version.commitment == secret::commitment(&row.salt, &row.verifier) {
            state.verifiers.insert((row.key_id, row.version), row.verifier);
        } else {
            tracing::error!(keyledger.key.id = %row.key_id, version = row.version,
                "a stored verifier differs from the signed commitment: this secret is not accepted");
        }
    }
    load_digests(client, ledger_id, state, key_ids).await
}

/// The same for digests of imported keys that were not used yet.
async fn load_digests(
    client: &Client,
    ledger_id: Uuid,
    state: &mut State,
    key_ids: &[KeyId],
) -> Result<(), StoreError> {
    let commitment = |state: &State, id: &KeyId| state.keys.get(id)?.digest_commitment();
    let wanted = key_ids.iter().copied().filter(|id| commitment(state, id).is_some());
    let wanted: Vec<KeyId> = wanted.collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for row in imported::of_keys(client, ledger_id, &wanted).await? {
        let Some((algorithm, commitment)) = commitment(state, &row.key_id) else { continue };
        let digest = Digest::from_bytes(algorithm, &row.digest);
        match digest.filter(|_| commitment == commit_digest(&row.salt, &row.digest)) {
            Some(digest) => drop(state.digests.insert(row.key_id, Arc::new(digest))),
            None => tracing::error!(keyledger.key.id = %row.key_id,
                "a stored digest differs from the signed commitment: this imported secret is not accepted"),
        }
    }
    Ok(())
}
