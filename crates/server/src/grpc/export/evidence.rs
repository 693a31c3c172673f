//! What proves the lines of an export: signed bytes, paths and opened texts, and of these nothing that is of another category.

use std::collections::BTreeMap;
use std::convert::Infallible;

use keyledger_ledger::body::{
    Event, Kind, SealedColumn, SealedText, Use, UseColumn, decode_canonical,
};
use keyledger_ledger::category::{ACCESS, USE};
use keyledger_ledger::merkle::{Hash, TilePrefix};
use keyledger_ledger::page::use_leaf;
use keyledger_ledger::proof::{inclusion_from_tiles, inclusion_tiles};
use keyledger_ledger::tree::Tree;
use keyledger_proto::export::Evidence;
use keyledger_proto::export::json_lines::UseEvidence;
use keyledger_proto::{AuditEvent, OpenedTexts};
use uuid::Uuid;

use crate::grpc::call::{CallContext, open_all};
use crate::grpc::status::Failure;
use crate::store::entries::FullEntry;
use crate::store::tiles;

/// Most tiles that are kept: neighbours need nearly the same.
const MAX_TILES: usize = 32;

/// Paths from entries to the root of the snapshot.
pub(in crate::grpc) struct Proofs {
    ledger_id: Uuid,
    size: u64,
    tiles: BTreeMap<TilePrefix, Vec<Hash>>,
}

impl Proofs {
    pub(in crate::grpc) fn new(ledger_id: Uuid, size: u64) -> Proofs {
        Proofs { ledger_id, size, tiles: BTreeMap::new() }
    }

    /// The path from an entry to the root.
    pub(in crate::grpc) async fn path(
        &mut self,
        call: &CallContext,
        position: u64,
    ) -> Result<Vec<Hash>, Failure> {
        let beyond = Failure::Internal("an entry beyond the snapshot");
        let Some(needed) = inclusion_tiles(position, self.size) else { return Err(beyond) };
        if self.tiles.len() > MAX_TILES {
            self.tiles.clear();
        }
        for prefix in needed {
            if !self.tiles.contains_key(&prefix) {
                let client = call.ledger.database.client().await?;
                let hashes = tiles::prefix(&client, self.ledger_id, prefix).await?;
                self.tiles.insert(prefix, hashes);
            }
        }
        let read = |prefix: TilePrefix| Ok::<_, Infallible>(self.tiles[&prefix].clone());
        let Ok(path) = inclusion_from_tiles(position, self.size, read);
        path.ok_or(beyond)
    }
}

/// What proves some events of one entry.
pub(super) async fn of(
    call: &CallContext,
    proofs: &mut Proofs,
    entry: &FullEntry,
    events: &[AuditEvent],
) -> Result<Vec<Evidence>, Failure> {
    let event = Event::from_signed(&entry.entry.body)
        .map_err(|_| Failure::Internal("a stored entry can't be decoded"))?;
    let is_page = matches!(event.kind, Some(Kind::UsePage(_)));
    // The body of a page tells of all its uses: how many read the log, and which limited keys were used how often.
    let whole = !is_page || (call.may_read(USE) && call.may_read(ACCESS));
    let entry_part = match whole {
        true => Some((entry.entry.clone(), proofs.path(call, entry.position).await?)),
        false => None,
    };
    if is_page {
        return of_uses(call, entry, events, entry_part).await;
    }
    let column: SealedColumn = decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
    let opened = open(call, &event.texts, &column.sealed).await?;
    Ok(vec![Evidence { entry: entry_part, r#use: None, opened }])
}

async fn of_uses(
    call: &CallContext,
    entry: &FullEntry,
    events: &[AuditEvent],
    entry_part: Option<(keyledger_ledger::entry::Entry, Vec<Hash>)>,
) -> Result<Vec<Evidence>, Failure> {
    let damaged = || Failure::Internal("the uses beside a page can't be read");
    let column: UseColumn = decode_canonical(&entry.uses, "UseColumn").map_err(|_| damaged())?;
    let leaves = column.uses.iter().map(|u| use_leaf(&u.salt, &u.r#use)).collect();
    // Without its page a path leads nowhere, and would tell how many uses there are.
    let tree = entry_part.as_ref().map(|_| Tree::new(leaves));
    let mut evidence = vec![];
    for event in events {
        let index = event.index.unwrap_or_default() as usize;
        let record = column.uses.get(index).ok_or_else(damaged)?;
        let u: Use = decode_canonical(&record.r#use, "Use").map_err(|_| damaged())?;
        evidence.push(Evidence {
            entry: entry_part.clone(),
            r#use: Some(UseEvidence {
                record: record.r#use.clone(),
                salt: record.salt.clone(),
                path: tree.as_ref().and_then(|tree| tree.path(index)).unwrap_or_default(),
            }),
            opened: open(call, &u.texts, &record.sealed).await?,
        });
    }
    Ok(evidence)
}

/// One for each commitment; empty where the text can't be opened.
async fn open(
    call: &CallContext,
    texts: &[SealedText],
    sealed: &[Vec<u8>],
) -> Result<Vec<OpenedTexts>, Failure> {
    let opened = open_all(&call.replica, &call.ledger, texts, sealed).await?;
    let part = |opened: Option<keyledger_ledger::text::Opened>| {
        opened.map_or(OpenedTexts::default(), |o| OpenedTexts {
            salt: o.salt.to_vec(),
            texts: o.texts,
        })
    };
    let mut parts: Vec<OpenedTexts> = opened.into_iter().map(part).collect();
    parts.resize(texts.len(), OpenedTexts::default());
    Ok(parts)
}
