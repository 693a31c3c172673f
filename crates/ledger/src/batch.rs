//! A batch: a list of commands becomes entries, a new state and an answer for each. Pure; the sequencer makes it durable.
//!
//! Commands of one batch run at the same time, so their order is ours to choose: first all uses, judged as of the head and
//! recorded in a page that comes first; then what first uses of imported keys bring with them; then the changes, one entry each;
//! then, if changes were refused, a page for those. So every use and every entry is true as of its own position, and an auditor
//! can judge each again. Last come rotations that were completed by the first use of the new secret.

mod changes;
mod migrations;
mod reports;
mod touched;
mod uses;

pub use touched::{Touched, TouchedKey};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message;

use crate::apply::apply;
use crate::body::{self, Event, Kind, SealedColumn, Use};
use crate::command::{Action, Answer, Call, Change, Command, Refusal, UseAddress};
use crate::decide::{SecretRow, next_link};
use crate::entry::{Entry, EntryError, EntrySigner};
use crate::id::{KeyId, Time};
use crate::imported::ImportedRow;
use crate::judge::Credential;
use crate::merkle::{Hash, Tile, TileWriter};
use crate::page::{self, PageWriter};
use crate::record::RowSum;
use crate::refusals::Refusals;
use crate::secret::Peppers;
use crate::state::{Key, State};
use crate::text::Sealed;
use migrations::FirstUse;

/// Where a ledger stands: its state and its tree, at the same position.
#[derive(Clone)]
pub struct Head {
    pub state: State,
    pub tiles: TileWriter,
    /// What the projected rows of this state add up to. Kept by whoever stores them.
    pub rows: RowSum,
}

/// What a batch works with, besides the head.
pub struct Means<'a> {
    pub signer: &'a EntrySigner,
    pub peppers: &'a Peppers,
    /// The batch's time: never before the newest entry's.
    pub now: Time,
    /// Requests of these callers that were answered before.
    pub known: HashMap<(KeyId, [u8; 16]), KnownRequest>,
    /// Calls shed since the last page.
    pub shed: u64,
    /// Random: the salts of counts are made from it.
    pub seed: [u8; 32],
    /// Refusals counted so far; the batch hands on what they are after it.
    pub refusals: Refusals,
    /// Whether what each command touched is to be told.
    pub touched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRequest {
    pub digest: [u8; 32],
    pub position: u64,
}

/// What a batch came to. Nothing of it is true before COMMIT.
pub struct Batch {
    pub head: Head,
    pub entries: Vec<NewEntry>,
    pub full_tiles: Vec<Tile>,
    pub secrets: Vec<SecretRow>,
    /// Digests of imported keys, to be kept until their first use.
    pub imported: Vec<ImportedRow>,
    /// Imported keys that were used for the first time: their digests are to be deleted.
    pub migrated: Vec<KeyId>,
    pub requests: Vec<NewRequest>,
    pub changed_keys: Vec<Arc<Key>>,
    /// One for each command, in the order of the commands.
    pub answers: Vec<Answer>,
    /// What each command touched, in their order. Empty if nobody asked.
    pub touched: Vec<Option<Touched>>,
    /// Shed calls that no page of this batch could record.
    pub shed_left: u64,
    /// Refusals as counted after this batch.
    pub refusals: Refusals,
}

/// An entry to be written, with what lies beside it.
pub struct NewEntry {
    pub position: u64,
    pub entry: Entry,
    pub leaf_hash: Hash,
    pub event: Event,
    /// Serialised SealedColumn; empty if there are no texts.
    pub sealed: Vec<u8>,
    /// Serialised UseColumn of a page, or CountColumn; empty for other kinds.
    pub uses: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRequest {
    pub caller: KeyId,
    pub id: [u8; 16],
    pub known: KnownRequest,
}

/// Runs a batch of commands against a head.
pub fn run(head: &Head, means: Means<'_>, commands: Vec<Command>) -> Batch {
    let mut run = Run {
        batch: Batch {
            head: head.clone(),
            entries: vec![],
            full_tiles: vec![],
            secrets: vec![],
            imported: vec![],
            migrated: vec![],
            requests: vec![],
            changed_keys: vec![],
            answers: vec![],
            touched: vec![None; if means.touched { commands.len() } else { 0 }],
            shed_left: 0,
            refusals: Refusals::default(),
        },
        means,
        page: PageWriter::default(),
        spent: BTreeMap::new(),
        bounded: BTreeMap::new(),
        reported: BTreeMap::new(),
        first_uses: BTreeMap::new(),
        first_of_imported: BTreeMap::new(),
        command: usize::MAX,
        in_page: vec![],
    };
    run.record_folded();
    let mut answers: Vec<Option<Answer>> = vec![None; commands.len()];
    let mut changes = vec![];
    for (i, command) in commands.into_iter().enumerate() {
        run.command = i;
        match command.action {
            _ if run.is_seen(&command.call) || run.is_behind(&command.action) => {
                answers[i] = Some(Answer::Seen)
            }
            Action::Change(change) => {
                changes.push((i, ToChange::One(Box::new((command.call, *change)))))
            }
            Action::RecordAll(all) => changes.push((i, ToChange::All(all))),
            Action::Record(bounded) => {
                answers[i] = Some(run.record_bounded(command.call, *bounded))
            }
            action => answers[i] = Some(run.record_use(command.call, action)),
        }
    }
    run.close_page();
    run.migrate_imported();
    for (i, change) in changes {
        run.command = i;
        answers[i] = Some(match change {
            ToChange::One(one) => run.change_one(one.0, one.1),
            ToChange::All(all) => run.record_all(all),
        });
    }
    run.close_page();
    run.complete_rotations();
    run.batch.head.state.find_due();
    run.batch.shed_left = run.means.shed;
    run.batch.refusals = run.means.refusals;
    run.batch.answers =
        answers.into_iter().map(|a| a.expect("each command is a use or a change")).collect();
    run.batch
}

/// What comes after the first page of uses.
enum ToChange {
    One(Box<(Call, Change)>),
    All(Vec<(Call, Change)>),
}

type TraceAndSpan = (Vec<u8>, Vec<u8>);
type FirstUses = BTreeMap<KeyId, (u32, TraceAndSpan)>;

struct Run<'a> {
    batch: Batch,
    means: Means<'a>,
    page: PageWriter,
    /// Uses in the open page that count against limits.
    spent: BTreeMap<KeyId, u32>,
    /// Uses in the open page that were answered from memory, by serving.
    bounded: BTreeMap<[u8; 16], u32>,
    /// What the open page tells of sessions of reports.
    reported: reports::Pending,
    /// Keys whose rotation is completed by a use in this batch: the version used, with trace and span ids of that use.
    first_uses: FirstUses,
    /// Imported keys that a use of this batch allows for the first time.
    first_of_imported: BTreeMap<KeyId, FirstUse>,
    /// The command that runs, if one does.
    command: usize,
    /// Commands whose uses are in the open page, where what they touched is asked for.
    in_page: Vec<usize>,
}

impl Run<'_> {
    fn state(&self) -> &State {
        &self.batch.head.state
    }

    /// Seals an event into the next entry and applies it. An event that doesn't apply changes nothing.
    fn append(&mut self, event: Event, sealed: Vec<u8>, uses: Vec<u8>) -> Result<u64, Refusal> {
        let entry = self.means.signer.sign(event.encode_to_vec()).map_err(|e| match e {
            EntryError::TooLarge => Refusal::EntryTooLarge,
            _ => Refusal::Internal,
        })?;
        let leaf_hash = entry.leaf_hash();
        let head = &mut self.batch.head;
        let position = head.state.next_position;
        apply(&mut head.state, leaf_hash, &event).map_err(|_| Refusal::Internal)?;
        head.tiles.append(leaf_hash, &mut self.batch.full_tiles);
        self.batch.entries.push(NewEntry { position, entry, leaf_hash, event, sealed, uses });
        Ok(position)
    }

    fn is_seen(&self, call: &Call) -> bool {
        call.unseen.is_some_and(|id| self.state().keys.contains_key(&id))
    }

    /// Uses of a key that count and that no page holds yet.
    fn more_uses(&self, key_id: KeyId) -> u32 {
        self.spent.get(&key_id).copied().unwrap_or_default()
    }

    /// The row of a key that was changed, or whose uses were counted.
    fn note_row(&mut self, id: KeyId) {
        let key = self.batch.head.state.keys.get(&id).expect("what was changed exists").clone();
        self.batch.changed_keys.retain(|k| k.id != id);
        self.batch.changed_keys.push(key);
    }

    /// Adds a use to the open page. Its position is that of the page only if no change comes in between: so it is asked
    /// for in the first page only.
    fn add_use(
        &mut self,
        mut r#use: Use,
        salt: crate::page::UseSalt,
        texts: Vec<Sealed>,
    ) -> UseAddress {
        // What counts stands in the signed body of the page, which has a bound. A session takes the place of two keys.
        let full = self.spent.len() + 2 * self.reported.len() + 4 > page::MAX_SPENT;
        if full || self.page.len() >= page::MAX_USES {
            self.close_page();
        }
        for id in page::counts_for(&r#use) {
            if self.state().keys.get(&id).is_some_and(|key| key.used.is_some()) {
                *self.spent.entry(id).or_default() += 1;
            }
        }
        self.note_first_uses(&r#use);
        r#use.texts = texts.iter().map(Sealed::to_body).collect();
        self.note_use(&r#use, true);
        let index = self.page.add(&r#use, salt, texts.into_iter().map(|t| t.bytes).collect());
        UseAddress { position: self.batch.head.state.next_position, index }
    }

    /// Whether an accepted secret is the new one of a rotation that waits for its first use.
    /// What a service reports completes none: it was answered as of before.
    fn note_first_uses(&mut self, r#use: &Use) {
        let seen = r#use.reported.is_none();
        for (id, version) in page::used_with(r#use).filter(|_| seen) {
            let trace = || (r#use.trace_id.clone(), r#use.span_id.clone());
            self.note_first_use(id, version, trace);
        }
    }

    fn note_first_use(&mut self, id: KeyId, version: u32, trace: impl Fn() -> TraceAndSpan) {
        let waits = |key: &Arc<Key>| key.until_first_use && key.newest_version().number == version;
        if self.state().keys.get(&id).is_some_and(waits) {
            self.first_uses.entry(id).or_insert_with(|| (version, trace()));
        }
    }

    /// The old secret of each key whose new one was used ends here.
    fn complete_rotations(&mut self) {
        for (id, (version, (trace_id, span_id))) in std::mem::take(&mut self.first_uses) {
            // It may have been rotated again since it was used.
            let waits =
                |key: &&Arc<Key>| key.until_first_use && key.newest_version().number == version;
            let Some(key) = self.state().keys.get(&id).filter(waits) else { continue };
            let link = Some(next_link(key));
            let kind = Kind::RotationCompleted(body::RotationCompleted { link, version });
            let event = Event { trace_id, span_id, ..self.event_of(kind) };
            self.append(event, vec![], vec![]).expect("it is small, and fits the key");
            self.note_row(id);
        }
    }

    /// An event of Keyledger itself.
    fn event_of(&self, kind: Kind) -> Event {
        let ledger = self.state().ledger.as_ref().expect("only an open ledger has keys");
        Event {
            ledger_id: ledger.id.to_vec(),
            epoch: ledger.epoch,
            time_us: self.means.now.micros(),
            kind: Some(kind),
            ..Event::default()
        }
    }

    fn close_page(&mut self) {
        if self.page.is_empty() {
            return;
        }
        self.note_page();
        let page = std::mem::take(&mut self.page);
        let (page, uses) = page.finish(
            self.state().next_page,
            self.means.now,
            std::mem::take(&mut self.means.shed),
            page::spent(&self.spent),
            page::bounded(&std::mem::take(&mut self.bounded)),
            reports::told(&std::mem::take(&mut self.reported)),
        );
        let spent = std::mem::take(&mut self.spent);
        let event = self.event_of(Kind::UsePage(page));
        self.append(event, vec![], uses).expect("a page is small and fits any state");
        spent.into_keys().for_each(|id| self.note_row(id));
    }
}

fn caller_of(key: &Key, version: u32) -> body::Caller {
    body::Caller { key_id: key.id.as_bytes().to_vec(), version }
}

fn sealed_column(sealed: Vec<Vec<u8>>) -> Vec<u8> {
    SealedColumn { sealed }.encode_to_vec()
}

/// A credential that stands for Keyledger itself.
pub fn internal_call(method: &'static str) -> Call {
    Call {
        credential: Credential::Internal,
        method,
        permission: "",
        resource: String::new(),
        trace: crate::id::Trace::default(),
        peer: None,
        request: None,
        unseen: None,
        texts: vec![],
        salt: [0; 16],
    }
}
