//! The walk through entries that somebody handed on, with the texts that somebody else opened.

use keyledger_ledger::body::SealedText;
use keyledger_ledger::entry::Entry;
use keyledger_ledger::text::Opened;
use keyledger_ledger::verify::{Finding, Found, Opener, Opening, Problem, Verifier};
use keyledger_proto::{OpenedTexts, RawEntry};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) position: u64,
    pub(super) problem: String,
}

/// What came of a verification.
pub(super) struct Checked {
    pub(super) verifier: Verifier,
    pub(super) trouble: Option<Trouble>,
}

impl Trouble {
    pub(super) fn new(position: u64, problem: impl Into<String>) -> Trouble {
        Trouble { position, problem: problem.into() }
    }
}

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Trouble {
        Trouble::new(finding.position, finding.problem.to_string())
    }
}

impl From<(Verifier, Option<Finding>)> for Checked {
    /// A ledger without entries is never good: whatever was there is gone.
    fn from((verifier, finding): (Verifier, Option<Finding>)) -> Checked {
        let trouble = match (finding, verifier.state().next_position) {
            (None, 0) => {
                Some(Trouble::new(0, "there is no entry: each ledger has at least its opening"))
            }
            (finding, _) => finding.map(Trouble::from),
        };
        Checked { verifier, trouble }
    }
}

/// Takes raw entries in order.
#[derive(Default)]
pub(super) struct Walk {
    verifier: Verifier,
    /// Signed notes that the ledger must agree with; their key is known after position 0.
    notes: Vec<String>,
}

impl Walk {
    pub(super) fn new(notes: Vec<String>) -> Walk {
        Walk { notes, verifier: Verifier::default() }
    }

    /// The position that the next entry must have.
    pub(super) fn position(&self) -> u64 {
        self.verifier.state().next_position
    }

    /// Takes the next entry. After trouble the walk must end.
    pub(super) fn push(&mut self, position: u64, raw: RawEntry) -> Result<(), Trouble> {
        let (entry, uses, opened) =
            take_apart(raw).map_err(|what| Trouble::new(self.position(), what))?;
        let found = Found { position, entry, sealed: None, uses, columns: None };
        self.verifier.push(&found, &mut HandedOn(opened))?;
        if position == 0 { self.expect_notes() } else { Ok(()) }
    }

    pub(super) fn stop(self, trouble: Trouble) -> Checked {
        Checked { verifier: self.verifier, trouble: Some(trouble) }
    }

    /// No entry comes any more.
    pub(super) fn finish(self) -> Checked {
        let finding = self.verifier.finish().err();
        Checked::from((self.verifier, finding))
    }

    /// Position 0 names the key that opens checkpoints.
    fn expect_notes(&mut self) -> Result<(), Trouble> {
        for note in &self.notes {
            let opened = self.verifier.open_checkpoint(note).expect("position 0 was taken");
            let refused = |e: keyledger_ledger::note::NoteError| Problem::Checkpoint(e.to_string());
            let checkpoint = opened.map_err(|e| Trouble::new(0, refused(e).to_string()))?;
            self.verifier.expect(checkpoint)?;
        }
        Ok(())
    }
}

/// Hands on the texts that lie beside an entry, in the order of their commitments.
struct HandedOn(Vec<OpenedTexts>);

impl Opener for HandedOn {
    fn open(&mut self, _: u64, index: usize, _: &SealedText, _: Option<&[u8]>) -> Opening {
        match self.0.get(index) {
            None => Opening::NoKeys,
            Some(opened) if opened.salt.is_empty() => Opening::NoKeys,
            Some(opened) => match opened.salt.as_slice().try_into() {
                Ok(salt) => Opening::Opened(Opened { salt, texts: opened.texts.clone() }),
                Err(_) => Opening::Damaged,
            },
        }
    }
}

fn take_apart(raw: RawEntry) -> Result<(Entry, Vec<u8>, Vec<OpenedTexts>), &'static str> {
    let entry = Entry {
        payload_type: raw.payload_type,
        body: raw.body,
        public_key_sha256: raw
            .public_key_sha256
            .try_into()
            .map_err(|_| "its key digest is not 32 bytes")?,
        signature: raw.signature.try_into().map_err(|_| "its signature is not 64 bytes")?,
    };
    Ok((entry, raw.uses, raw.opened))
}
