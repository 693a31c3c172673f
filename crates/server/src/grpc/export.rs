//! ExportEvents: events as lines of a file, in the order of the ledger, closed by a signed manifest.
//!
//! An export covers the ledger up to the checkpoint that was signed when it began, so it ends, and is the same on every replica
//! and however often it breaks. Nothing is kept here between calls: where it stands lies in the resume token. What is left out
//! is decided from the signed bytes of every position, never from a column beside them, which somebody could have changed.

mod evidence;
mod token;

use std::ops::Range;
use std::time::Duration;

use keyledger_ledger::export::{self, ExportFormat, ExportManifest, line_hash};
use keyledger_ledger::id::Time;
use keyledger_ledger::merkle::Frontier;
use keyledger_ledger::note::{self, Checkpoint};
use keyledger_ledger::roles;
use keyledger_proto::export::{Evidence, Exporter};
use keyledger_proto::parse::{EventFilter, ExportEvents};
use keyledger_proto::{
    AuditEvent, ExportEventsResponse, ExportProgress, ManifestSignature, SignedManifest,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uuid::Uuid;

use super::call::CallContext;
use super::events::{Selection, Viewer, events_of};
use super::replies::Stopped;
use super::status::Failure;
use crate::replica::own_clock;
use crate::sequencer::Ledger;
use crate::store::entries::{self, FullEntry};
use crate::streams::OpenStream;
pub(super) use evidence::Proofs;
use token::Token;

/// Lines go out when there is so much of them.
const MESSAGE: usize = 256 << 10;
/// Messages that wait for a reader.
const BUFFER: usize = 4;
/// How long a reader may leave them waiting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a reader hears nothing where there is little to give.
const QUIET: Duration = Duration::from_secs(1);
/// Entries and bytes read at once.
const CHUNK: u64 = 256;
const CHUNK_BYTES: usize = 4 << 20;

type Replies = mpsc::Sender<Result<ExportEventsResponse, Status>>;

/// The gate has recorded what is asked. When the stream ends, however it does, it is recorded how many events it gave.
pub(super) async fn export_events(
    call: CallContext,
    r: ExportEvents,
) -> Result<ReceiverStream<Result<ExportEventsResponse, Status>>, Failure> {
    let place = call.ledger.open_stream()?;
    let mut open = call.replica.streams.open();
    let export = Export::begin(call, r).await?;
    let (replies, receiver) = mpsc::channel(BUFFER);
    // A task of its own: the stream is dropped when its reader goes away, and what it gave must still be recorded.
    tokio::spawn(async move {
        export.run(replies, &mut open).await;
        drop((place, open));
    });
    Ok(ReceiverStream::new(receiver))
}

/// Where an export stands: everything before is done.
#[derive(Clone, Copy)]
struct Cursor {
    position: u64,
    /// The next event of a page.
    index: u32,
}

/// An export that goes on.
struct Export {
    call: CallContext,
    selection: Selection,
    format: ExportFormat,
    asked: Vec<u8>,
    exporter: Exporter,
    /// Size and root that the proofs lead to.
    snapshot: Checkpoint,
    /// The positions that are looked at.
    range: Range<u64>,
    cursor: Cursor,
    /// What the caller could read when the export began.
    rights: Vec<u8>,
    /// The tree over all lines, those of earlier calls included.
    lines: Frontier,
    proofs: Proofs,
    /// Lines that wait to be sent.
    waiting: Vec<u8>,
    /// Events that this call gave.
    given: u64,
}

impl Export {
    async fn begin(call: CallContext, r: ExportEvents) -> Result<Export, Failure> {
        let token = match r.resume_token.as_slice() {
            [] => {
                r.filter.check_window(call.now())?;
                None
            }
            bytes => Some(Token::read(&call, &r.asked, bytes)?),
        };
        let selection = Selection {
            category: r.category,
            key_id: r.key_id,
            filter: r.filter,
            ..Selection::default()
        };
        selection.check_for(&call)?;
        let rights = rights(&call, &selection)?;
        if token.as_ref().is_some_and(|token| token.rights != rights) {
            return Err(Failure::RightsChanged);
        }
        let head = call.head();
        let info = head.state.ledger.as_ref().ok_or(Failure::Internal("no ledger"))?;
        let snapshot = match &token {
            None => newest(&call.ledger).await?,
            Some(token) => token.snapshot(&info.origin)?,
        };
        // Another replica may have begun.
        if head.state.next_position < snapshot.size {
            call.ledger.catch_up().await?;
        }
        let range =
            positions(&call.ledger, &selection.filter, r.from_position, snapshot.size).await?;
        let exporter = Exporter {
            origin: info.origin.clone(),
            ledger_id: Uuid::from_bytes(info.id).to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
        };
        let start = Cursor { position: range.start, index: 0 };
        Ok(Export {
            proofs: Proofs::new(call.ledger.id, snapshot.size),
            cursor: token.as_ref().map_or(start, Token::cursor),
            lines: token.map_or(Ok(Frontier::new()), |token| token.lines())?,
            call,
            selection,
            format: r.format,
            asked: r.asked,
            rights,
            exporter,
            snapshot,
            range,
            waiting: vec![],
            given: 0,
        })
    }

    async fn run(mut self, replies: Replies, open: &mut OpenStream) {
        let end = tokio::select! {
            given = self.give_all(&replies) => given.err(),
            () = open.stopping() => {
                Some(Stopped::Because(Failure::Stopping { next_position: None }))
            }
        };
        // Before the manifest: whoever holds one finds in the log how much was given.
        let mut recorder = self.call.again();
        let recorded = recorder.record_access(Some(self.given)).await;
        let last = match (end, recorded) {
            (Some(Stopped::Gone), Ok(())) => return,
            (Some(Stopped::Because(failure)), _) => Err(failure.into()),
            (None, Ok(())) => Ok(self.reply(Some(self.manifest()))),
            (None | Some(Stopped::Gone), Err(failure)) => {
                tracing::warn!("how much an export gave could not be recorded");
                Err(failure.into())
            }
        };
        let _ = tokio::time::timeout(PATIENCE, replies.send(last)).await;
    }

    async fn give_all(&mut self, replies: &Replies) -> Result<(), Stopped> {
        // At once, so that there is something to go on from.
        self.send(replies).await?;
        let mut sent = Instant::now();
        if let Some(header) = self.exporter.header(self.format).filter(|_| self.lines.size() == 0) {
            self.add(&header);
        }
        while self.cursor.position < self.range.end {
            self.check()?;
            for entry in self.next_entries().await? {
                self.give(&entry, replies).await?;
                self.cursor = Cursor { position: entry.position + 1, index: 0 };
            }
            if sent.elapsed() >= QUIET {
                self.send(replies).await?;
                sent = Instant::now();
            }
        }
        if !self.waiting.is_empty() { self.send(replies).await } else { Ok(()) }
    }

    /// An error once the caller's key has ended, or may read other things than when the export began: its manifest says that
    /// nothing was left out.
    fn check(&self) -> Result<(), Failure> {
        if !self.call.still_stands() {
            return Err(Failure::KeyEnded);
        }
        self.selection.check_for(&self.call)?;
        match rights(&self.call, &self.selection)? == self.rights {
            true => Ok(()),
            false => Err(Failure::RightsChanged),
        }
    }

    async fn next_entries(&self) -> Result<Vec<FullEntry>, Failure> {
        let from = self.cursor.position;
        let limit = CHUNK.min(self.range.end - from) as i64;
        let (client, id) = (self.call.ledger.database.client().await?, self.call.ledger.id);
        let found = entries::full_from_position(&client, id, from, limit, CHUNK_BYTES).await?;
        match found.first() {
            Some(first) if first.position == from => Ok(found),
            _ => Err(Failure::Internal("entries that a checkpoint covers are not there")),
        }
    }

    /// What of one entry is asked for and may be read.
    async fn give(&mut self, entry: &FullEntry, replies: &Replies) -> Result<(), Stopped> {
        let mut events = events_of(&Viewer::Caller(&self.call), entry, &self.selection).await?;
        events.retain(|event| event.index.unwrap_or(0) >= self.cursor.index);
        let evidence = self.evidence(entry, &events).await?;
        for (event, evidence) in events.iter().zip(evidence) {
            let line = self.exporter.line(self.format, event, evidence);
            self.add(&line);
            self.given += 1;
            self.cursor.index = event.index.unwrap_or(0) + 1;
            if self.waiting.len() >= MESSAGE {
                self.send(replies).await?;
            }
        }
        Ok(())
    }

    /// Only JSON Lines carry proofs.
    async fn evidence(
        &mut self,
        entry: &FullEntry,
        events: &[AuditEvent],
    ) -> Result<Vec<Evidence>, Failure> {
        match self.format {
            ExportFormat::JsonLines if !events.is_empty() => {
                evidence::of(&self.call, &mut self.proofs, entry, events).await
            }
            _ => Ok(vec![Evidence::default(); events.len()]),
        }
    }

    fn add(&mut self, line: &[u8]) {
        self.lines.append(line_hash(line));
        self.waiting.extend_from_slice(line);
    }

    async fn send(&mut self, replies: &Replies) -> Result<(), Stopped> {
        let mut reply = self.reply(None);
        reply.lines = std::mem::take(&mut self.waiting);
        match tokio::time::timeout(PATIENCE, replies.send(Ok(reply))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stopped::Gone),
            Err(_) => Err(Failure::ReaderTooSlow { next_position: self.cursor.position }.into()),
        }
    }

    fn reply(&self, manifest: Option<SignedManifest>) -> ExportEventsResponse {
        let progress = ExportProgress {
            positions_done: self.cursor.position - self.range.start,
            positions: self.range.end - self.range.start,
            lines: self.lines.size(),
        };
        let token = Token::new(&self.asked, &self.snapshot, self.cursor, &self.lines, &self.rights);
        ExportEventsResponse {
            lines: vec![],
            progress: Some(progress),
            resume_token: token.write(&self.call),
            manifest,
        }
    }

    fn manifest(&self) -> SignedManifest {
        let keys = &self.call.ledger.keys;
        let manifest = ExportManifest {
            ledger_id: self.call.ledger.id.as_bytes().to_vec(),
            origin: self.snapshot.origin.clone(),
            entry_public_key: keys.entry_signer.public_key().to_bytes().to_vec(),
            checkpoint_public_key: keys.checkpoint_signer.verifying_key().to_bytes().to_vec(),
            format: self.format as i32,
            asked: self.asked.clone(),
            first_position: self.range.start,
            end_position: self.range.end,
            snapshot_size: self.snapshot.size,
            lines: self.lines.size(),
            root: self.lines.root().to_vec(),
            // The same bytes, whenever and wherever it is signed: Ed25519 takes no chance.
            checkpoint: note::sign(&self.snapshot, &keys.checkpoint_signer),
            time_us: own_clock().micros(),
            caller_key_id: self.call.caller().map(|k| k.id.as_bytes().to_vec()).unwrap_or_default(),
        };
        let signed = export::sign(&manifest, &keys.entry_signer, &keys.checkpoint_signer);
        let signature = |(digest, signature): &([u8; 32], [u8; 64])| ManifestSignature {
            public_key_sha256: digest.to_vec(),
            signature: signature.to_vec(),
        };
        SignedManifest {
            signatures: signed.signatures.iter().map(signature).collect(),
            payload_type: signed.payload_type,
            payload: signed.payload,
        }
    }
}

/// A digest of what a caller that asks for all categories may do; empty for one that asks for a single one, which it may read or
/// not.
fn rights(call: &CallContext, selection: &Selection) -> Result<Vec<u8>, Failure> {
    if !selection.category.is_empty() {
        return Ok(vec![]);
    }
    let (head, caller) = (call.head(), call.caller()?.id);
    let key = head.state.keys.get(&caller).ok_or(Failure::KeyEnded)?;
    let grants = roles::of_key(&head.state, key).flat_map(|(grants, _)| grants.to_vec());
    let digest =
        grants.fold(Sha256::new(), |digest, grant| digest.chain_update(format!("{grant}\n")));
    Ok(digest.finalize().to_vec())
}

/// The ledger as it is now, signed.
async fn newest(ledger: &Ledger) -> Result<Checkpoint, Failure> {
    let signed = ledger.sign_checkpoint().await?;
    let signed = signed.ok_or(Failure::Internal("a ledger without entries"))?;
    Ok(signed.checkpoint.clone())
}

/// The positions of a snapshot that are asked for: times never run backwards.
async fn positions(
    ledger: &Ledger,
    filter: &EventFilter,
    from: u64,
    size: u64,
) -> Result<Range<u64>, Failure> {
    let client = ledger.database.client().await?;
    let first = async |time: Time| entries::first_at(&client, ledger.id, size, time).await;
    let start = match filter.start {
        Some(time) => first(time).await?,
        None => 0,
    };
    let end = match filter.end {
        Some(time) => first(time).await?,
        None => size,
    };
    let start = start.max(from).min(size);
    Ok(start..end.max(start))
}
