//! The verifier: takes the entries of a ledger in order and finds the first that can't be true.
//!
//! It needs the entries and nothing else; what else is at hand (columns beside the entries, sealed texts and the means to
//! open them, signed checkpoints from elsewhere) is checked too. The public keys are those that position 0 names: whoever
//! must not trust the ledger's host pins a checkpoint or a public key obtained before.

mod reports;

use std::collections::BTreeMap;

use crate::apply::{ApplyError, apply, is_system_key};
use crate::body::{
    DecisionReason, Event, Kind, SealedColumn, SealedText, UsePage, decode_canonical,
};
use crate::bounded::has_changed_since;
use crate::category;
use crate::entry::{Entry, EntryError};
use crate::id::{KeyId, LedgerNumber, Time};
use crate::judge::{self, Asked};
use crate::merkle::{Hash, Tile, TileWriter};
use crate::note::{Checkpoint, NoteError, NoteKey};
use crate::page::{self, PageError, ReadUse};
use crate::producer::has_signed;
use crate::record::Columns;
use crate::restrict::{Circumstances, OWN_AUDIENCE, Source};
use crate::state::State;
use crate::text::Opened;
use reports::{KeptAnswers, Wrong};

/// An entry as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub position: u64,
    pub entry: Entry,
    /// Serialised SealedColumn; `None` where the sealed bytes are not at hand.
    pub sealed: Option<Vec<u8>>,
    /// Serialised UseColumn of a page, or CountColumn.
    pub uses: Vec<u8>,
    /// The columns beside it, if it comes from a database.
    pub columns: Option<Columns>,
}

/// What came of trying to open sealed texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    Opened(Opened),
    /// No data keys are at hand.
    NoKeys,
    /// The data key was destroyed.
    KeyGone,
    /// The data key doesn't open it.
    Damaged,
}

/// Opens sealed texts, or hands on texts that somebody else opened. `index` counts the texts of an entry and its uses.
pub trait Opener {
    fn open(
        &mut self,
        position: u64,
        index: usize,
        text: &SealedText,
        sealed: Option<&[u8]>,
    ) -> Opening;
}

/// For those who hold no data keys.
pub struct NoKeys;

impl Opener for NoKeys {
    fn open(&mut self, _: u64, _: usize, _: &SealedText, _: Option<&[u8]>) -> Opening {
        Opening::NoKeys
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("position {position}: {problem}")]
pub struct Finding {
    pub position: u64,
    pub problem: Problem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("an entry is missing: the next one found has position {found}")]
    Gap { found: u64 },
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("a column beside the entry differs from the entry: {0}")]
    Column(&'static str),
    #[error("the uses beside the page: {0}")]
    Page(#[from] PageError),
    #[error(
        "the counts of categories beside the entry are not those that were signed, or not those of the entries before it"
    )]
    Counts,
    #[error("what is kept as signed by the producer of the event was not signed by it")]
    Producer,
    #[error("use {index} was allowed, but the state before it doesn't allow it")]
    Verdict { index: usize },
    #[error("use {index} was reported by a service, and can't have been so")]
    Report { index: usize },
    #[error("the sealed texts beside the entry don't fit it")]
    Sealed,
    #[error("sealed text {index} is not the one that was committed to")]
    Commitment { index: usize },
    #[error("the data key of sealed text {index} is missing, and no erasure covers it")]
    TextMissing { index: usize },
    #[error("somewhere in positions {from} to {to}: the root hash is not that of the checkpoint of size {size}", to = size - 1)]
    Root { from: u64, size: u64 },
    #[error(
        "the ledger ends here, but a checkpoint covers {size} entries: the newest ones are missing"
    )]
    Truncated { size: u64 },
    #[error("a checkpoint is not one of this ledger: {0}")]
    Checkpoint(String),
    #[error("stored hashes differ from the entries (level {level}, tile {index})")]
    Tile { level: u8, index: u64 },
    #[error("a projected row differs from the entries: {0}")]
    Projection(String),
}

/// What was seen, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub entries: u64,
    pub uses: u64,
    /// Reported uses of answers that were forgotten by then: whether there were such answers was not looked at.
    pub uses_untraced: u64,
    pub texts_opened: u64,
    pub texts_unopened: u64,
    pub texts_erased: u64,
    pub checkpoints: u64,
}

/// Takes entries in order. A clone goes on from where it was made.
#[derive(Clone)]
pub struct Verifier {
    state: State,
    tiles: TileWriter,
    full_tiles: Vec<Tile>,
    checkpoints: BTreeMap<u64, Vec<Checkpoint>>,
    last_good_checkpoint: u64,
    counts: Counts,
    kept: KeptAnswers,
}

impl Default for Verifier {
    fn default() -> Verifier {
        Verifier {
            state: State::default(),
            tiles: TileWriter::new(),
            full_tiles: vec![],
            checkpoints: BTreeMap::new(),
            last_good_checkpoint: 0,
            counts: Counts::default(),
            kept: KeptAnswers::default(),
        }
    }
}

impl Verifier {
    /// A checkpoint that the ledger must agree with once it is that long; it may be that long already, not longer. Its
    /// signature is checked by [`Verifier::open_checkpoint`] against the key that position 0 names, or by whoever pins a key
    /// of their own.
    pub fn expect(&mut self, checkpoint: Checkpoint) -> Result<(), Finding> {
        let size = checkpoint.size;
        if size < self.state.next_position {
            let problem = Problem::Checkpoint("it came after the entries that it covers".into());
            return Err(Finding { position: size, problem });
        }
        if size == self.state.next_position && size > 0 {
            return self.check_checkpoint(&checkpoint);
        }
        self.checkpoints.entry(size).or_default().push(checkpoint);
        Ok(())
    }

    /// Takes the next entry. After a finding the verifier must not be used for more entries.
    pub fn push(&mut self, found: &Found, opener: &mut dyn Opener) -> Result<(), Finding> {
        let position = self.state.next_position;
        self.check(found, opener).map_err(|problem| Finding { position, problem })?;
        self.counts.entries += 1;
        self.check_root()
    }

    /// Says whether checkpoints cover more than what was found.
    pub fn finish(&self) -> Result<(), Finding> {
        let size = self.state.next_position;
        match self.checkpoints.range(size + 1..).next() {
            Some((larger, _)) => {
                Err(Finding { position: size, problem: Problem::Truncated { size: *larger } })
            }
            None => Ok(()),
        }
    }

    /// Opens a signed note with the checkpoint key of the ledger. `None` before position 0 was taken.
    pub fn open_checkpoint(&self, note: &str) -> Option<Result<Checkpoint, NoteError>> {
        let ledger = self.state.ledger.as_ref()?;
        Some(
            NoteKey::new(&ledger.origin, ledger.checkpoint_key)
                .and_then(|key| crate::note::open(note, &key)),
        )
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn root(&self) -> Hash {
        self.tiles.root()
    }

    /// The size of the largest checkpoint that held.
    pub fn last_good_checkpoint(&self) -> u64 {
        self.last_good_checkpoint
    }

    /// Tiles that became full since this was last asked, to compare with stored ones.
    pub fn take_full_tiles(&mut self) -> Vec<Tile> {
        std::mem::take(&mut self.full_tiles)
    }

    fn check(&mut self, found: &Found, opener: &mut dyn Opener) -> Result<(), Problem> {
        let position = self.state.next_position;
        if found.position != position {
            return Err(Problem::Gap { found: found.position });
        }
        let event = self.open_entry(&found.entry)?;
        let leaf_hash = found.entry.leaf_hash();
        if let Some(columns) = &found.columns {
            compare_columns(columns, &Columns::derive(&event, leaf_hash))?;
        }
        let uses = match &event.kind {
            Some(Kind::UsePage(page)) => self.check_page(page, &event, &found.uses)?,
            Some(Kind::CategoryCounted(counted)) => {
                let counts = category::read_counts(counted, &found.uses);
                let right = counts.is_some_and(|counts| self.state.counts.are(&counts));
                right.then(Vec::new).ok_or(Problem::Counts)?
            }
            _ if !found.uses.is_empty() => return Err(Problem::Column("uses")),
            _ => vec![],
        };
        self.check_texts(position, &event, found.sealed.as_deref(), &uses, opener)?;
        apply(&mut self.state, leaf_hash, &event)?;
        self.counts.uses_untraced += self.kept.untraced(&uses);
        self.kept.note(position, Time(event.time_us), &uses);
        self.state.find_due();
        self.tiles.append(leaf_hash, &mut self.full_tiles);
        self.counts.uses += uses.len() as u64;
        Ok(())
    }

    fn open_entry(&self, entry: &Entry) -> Result<Event, Problem> {
        match &self.state.ledger {
            Some(ledger) => Ok(entry.open(std::slice::from_ref(&ledger.entry_key))?),
            None => Ok(entry.open_first()?),
        }
    }

    /// Every allowed use is judged again, as of its own position.
    fn check_page(
        &self,
        page: &UsePage,
        event: &Event,
        column: &[u8],
    ) -> Result<Vec<ReadUse>, Problem> {
        let uses = page::read_uses(page, column)?;
        if page::times(&uses, Time(event.time_us)) != (page.first_time_us, page.last_time_us) {
            return Err(Problem::Page(PageError::Use("time")));
        }
        let mut counted = BTreeMap::new();
        for id in uses.iter().flat_map(|u| page::counts_for(&u.r#use)) {
            if self.state.keys.get(&id).is_some_and(|key| key.used.is_some()) {
                *counted.entry(id).or_default() += 1;
            }
        }
        if page::spent(&counted) != page.spent {
            return Err(Problem::Page(PageError::Use("spent")));
        }
        let mut bounded = BTreeMap::new();
        for b in uses.iter().filter_map(|u| u.r#use.bounded.as_ref()) {
            let id =
                b.serving_id.as_slice().try_into().map_err(|_| PageError::Use("serving_id"))?;
            *bounded.entry(id).or_default() += 1;
        }
        if page::bounded(&bounded) != page.bounded {
            return Err(Problem::Page(PageError::Use("bounded")));
        }
        self.kept.check(&self.state, event, &page.reported, &uses).map_err(
            |wrong| match wrong {
                Wrong::Page => Problem::Page(PageError::Use("reported")),
                Wrong::Use { index } => Problem::Report { index },
            },
        )?;
        let wrong = uses.iter().position(|u| !self.verdict_holds(u, Time(event.time_us)));
        wrong.map_or(Ok(()), |index| Err(Problem::Verdict { index }))?;
        Ok(uses)
    }

    fn verdict_holds(&self, read: &ReadUse, now: Time) -> bool {
        let u = &read.r#use;
        if u.reason != DecisionReason::Granted as i32 {
            return u.keep_us == 0;
        }
        // What was answered from memory was so at its own position: it may differ from now only if something has changed.
        let since = u.bounded.as_ref().map(|b| (b.as_of_position, Time(b.time_us)));
        // So was what a service gave again. What is doubtful was judged as of now.
        let held = u.reported.as_ref().filter(|r| r.doubts.is_empty());
        let given = held.map(|r| (r.answer_position, Time(r.answer_time_us)));
        let since = since.or(given);
        // A key of the system ledger is judged in that ledger, where a use of its own says so.
        let own = self.state.ledger.as_ref().map_or(LedgerNumber::SYSTEM, |l| l.number);
        let judged = |key_id: &[u8], version, asked: Asked<'_>| {
            KeyId::from_slice(key_id).is_some_and(|id| {
                is_system_key(own, id)
                    || since.is_some_and(|(position, time)| {
                        has_changed_since(&self.state, id, position, time, now)
                    })
                    || judge::judge(&self.state, id, version, asked, now).allowed()
            })
        };
        let circumstances = |audience| Circumstances { from: Source::Judged, audience };
        // Who calls for itself presents its key to Keyledger; who is checked, to whom the caller says.
        let called = Some(OWN_AUDIENCE);
        let audience = match &u.caller {
            Some(_) => Some(u.audience.as_str()),
            None => called.filter(|_| !u.permission.is_empty()),
        };
        let asked = Asked {
            permission: &u.permission,
            resource: &u.resource,
            circumstances: circumstances(audience),
            more_uses: 0,
        };
        let standing = Asked {
            permission: "",
            resource: "",
            circumstances: circumstances(called),
            more_uses: 0,
        };
        let caller_stands =
            u.caller.as_ref().is_none_or(|c| judged(&c.key_id, c.version, standing));
        let kept = reports::may_keep(&self.state, u, now);
        caller_stands && kept && judged(&u.key_id, u.version, asked)
    }

    fn check_texts(
        &mut self,
        position: u64,
        event: &Event,
        sealed: Option<&[u8]>,
        uses: &[ReadUse],
        opener: &mut dyn Opener,
    ) -> Result<(), Problem> {
        let own = match sealed {
            None => vec![None; event.texts.len()],
            Some([]) => vec![],
            Some(bytes) => {
                let column: SealedColumn =
                    decode_canonical(bytes, "SealedColumn").map_err(|_| Problem::Sealed)?;
                column.sealed.into_iter().map(Some).collect()
            }
        };
        if own.len() != event.texts.len() {
            return Err(Problem::Sealed);
        }
        let of_uses = uses
            .iter()
            .flat_map(|u| u.r#use.texts.iter().zip(u.sealed.iter().map(|s| Some(s.as_slice()))));
        let of_entry = event.texts.iter().zip(own.iter().map(|s| s.as_deref()));
        for (index, (text, sealed)) in of_entry.chain(of_uses).enumerate() {
            match opener.open(position, index, text, sealed) {
                Opening::Opened(opened) if opened.matches(text) && opened.decode().is_some() => {
                    self.counts.texts_opened += 1;
                    let texts = opened.decode().unwrap_or_default();
                    if index == 0 && !self.is_signed(event, &texts.signed) {
                        return Err(Problem::Producer);
                    }
                }
                Opening::Opened(_) | Opening::Damaged => return Err(Problem::Commitment { index }),
                Opening::NoKeys => self.counts.texts_unopened += 1,
                Opening::KeyGone => return Err(Problem::TextMissing { index }),
            }
        }
        Ok(())
    }

    /// Whether the producer of an event has signed what is kept of it, if it is said to have.
    fn is_signed(&self, event: &Event, payload: &[u8]) -> bool {
        let Some(Kind::EventRecorded(recorded)) = &event.kind else { return true };
        let Some(signature) = &recorded.signature else { return true };
        let caller = event.caller.as_ref().and_then(|c| KeyId::from_slice(&c.key_id));
        let producer = caller.and_then(|id| self.state.producers.get(&id));
        let key = producer.and_then(|p| p.key(&signature.public_key_sha256));
        key.is_some_and(|key| has_signed(key, payload, &signature.signature))
    }

    fn check_root(&mut self) -> Result<(), Finding> {
        let expected = self.checkpoints.remove(&self.state.next_position).unwrap_or_default();
        expected.iter().try_for_each(|checkpoint| self.check_checkpoint(checkpoint))
    }

    /// A checkpoint of exactly the size reached.
    fn check_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Finding> {
        let size = self.state.next_position;
        if self.state.ledger.as_ref().is_none_or(|l| l.origin != checkpoint.origin) {
            let problem = Problem::Checkpoint(format!("its origin is {}", checkpoint.origin));
            return Err(Finding { position: size - 1, problem });
        }
        if self.tiles.root() != checkpoint.root {
            let from = self.last_good_checkpoint;
            return Err(Finding { position: from, problem: Problem::Root { from, size } });
        }
        self.counts.checkpoints += 1;
        self.last_good_checkpoint = size;
        Ok(())
    }
}

pub(crate) fn compare_columns(found: &Columns, derived: &Columns) -> Result<(), Problem> {
    let differs = [
        ("kind", found.kind != derived.kind),
        ("time_us", found.time_us != derived.time_us),
        ("key_id", found.key_id != derived.key_id),
        ("stream_version", found.stream_version != derived.stream_version),
        ("caller_key_id", found.caller_key_id != derived.caller_key_id),
        ("trace_id", found.trace_id != derived.trace_id),
        ("use_count", found.use_count != derived.use_count),
        ("category", found.category != derived.category),
        ("leaf_hash", found.leaf_hash != derived.leaf_hash),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((column, _)) => Err(Problem::Column(column)),
        None => Ok(()),
    }
}
