//! The report of a verification, for people and for programs. All sources share it.

use base64::prelude::{BASE64_STANDARD, Engine};
use keyledger_ledger::note::NoteKey;
use keyledger_ledger::verify::{Counts, Verifier};
use serde::Serialize;

use super::pins::Pins;
use super::walk::{Checked, Trouble};
use crate::json::{Output, line_of};
use crate::screen::{Screen, Tone, inert};
use crate::table::Facts;

/// What was found of one ledger.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    good: bool,
    /// First position at which something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Empty if not even position 0 could be read.
    ledger: String,
    origin: String,
    /// The key that position 0 names for checkpoints.
    verifier_key: String,
    /// How many entries hold, from position 0 on.
    size: u64,
    /// Their root hash (RFC 6962), standard base64.
    root: String,
    uses: u64,
    /// How many uses that services reported were not traced to the answers that they are said to be of.
    uses_untraced: u64,
    texts_opened: u64,
    texts_unopened: u64,
    texts_erased: u64,
    /// How many signed checkpoints held.
    checkpoints: u64,
    /// The size of the largest of them.
    checkpoint_size: u64,
    /// The size of the largest pinned checkpoint. A deletion of entries from this position on can't be seen.
    pinned_size: u64,
}

impl Report {
    /// A pinned key goes first: if position 0 isn't the pinned ledger's, the rest says nothing.
    pub(super) fn new(checked: Checked, pins: &Pins) -> Report {
        let Checked { verifier, trouble } = checked;
        let trouble = pins.check_key(&verifier).err().or(trouble);
        let ledger = verifier.state().ledger.as_ref();
        let Counts {
            entries,
            uses,
            uses_untraced,
            texts_opened,
            texts_unopened,
            texts_erased,
            checkpoints,
        } = verifier.counts();
        Report {
            good: trouble.is_none(),
            ledger: ledger.map(|l| l.name.clone()).unwrap_or_default(),
            origin: ledger.map(|l| l.origin.clone()).unwrap_or_default(),
            verifier_key: verifier_key(&verifier),
            size: entries,
            root: BASE64_STANDARD.encode(verifier.root()),
            uses,
            uses_untraced,
            texts_opened,
            texts_unopened,
            texts_erased,
            checkpoints,
            checkpoint_size: verifier.last_good_checkpoint(),
            pinned_size: pins.size(),
            ..Report::of_trouble(trouble)
        }
    }

    /// Of a ledger that a pin names and that isn't there.
    pub(super) fn absent(origin: &str) -> Report {
        let problem = "the ledger that a pin names is not there".to_string();
        Report { origin: origin.into(), ..Report::of_trouble(Some(Trouble::new(0, problem))) }
    }

    pub(super) fn is_good(&self) -> bool {
        self.good
    }

    /// For programs in one line, because there may be a report for each of many ledgers.
    pub(super) fn print(&self, screen: &Screen, output: Output) -> anyhow::Result<()> {
        match output.is_json() {
            true => Ok(screen.line(&line_of(self)?)?),
            false => Ok(self.print_for_people(screen)?),
        }
    }

    fn print_for_people(&self, screen: &Screen) -> std::io::Result<()> {
        self.facts(screen).print()?;
        match &self.problem {
            None => screen.line(&screen.paint("OK", Tone::Good))?,
            Some(problem) => {
                let position = self.position.unwrap_or_default();
                let verdict = format!("NOT GOOD: position {position}: {}", inert(problem));
                screen.line(&screen.paint(&verdict, Tone::Bad))?;
            }
        }
        self.untraced().map_or(Ok(()), |sentence| screen.line(&sentence))?;
        self.unseen().map_or(Ok(()), |sentence| screen.line(&sentence))?;
        screen.line("")
    }

    fn facts<'a>(&self, screen: &'a Screen) -> Facts<'a> {
        let mut facts = Facts::new(screen);
        facts.add_in("ledger", &self.ledger, Tone::Strong);
        facts.add("origin", &self.origin);
        facts.add("verifier key", &self.verifier_key);
        facts.add("entries", &self.size.to_string());
        facts.add("root", &self.root);
        facts.add("uses", &self.uses.to_string());
        facts.add("texts", &self.texts());
        facts.add("checkpoints", &self.checkpoints());
        facts
    }

    fn texts(&self) -> String {
        let Report { texts_opened, texts_unopened, texts_erased, .. } = self;
        let unopened = match texts_unopened {
            0 => "0 couldn't be opened".into(),
            n => format!("{n} couldn't be opened (no data keys at hand)"),
        };
        format!("{texts_opened} opened, {unopened}, {texts_erased} erased")
    }

    fn checkpoints(&self) -> String {
        match self.checkpoints {
            0 => "none".into(),
            n => format!("{n} held, the largest of size {}", self.checkpoint_size),
        }
    }

    /// Uses that were taken on the word of the service that reported them.
    fn untraced(&self) -> Option<String> {
        match self.uses_untraced {
            0 => None,
            1 => Some("1 reported use was not traced to its answer.".into()),
            n => Some(format!("{n} reported uses were not traced to their answers.")),
        }
    }

    /// What even a good result can't say: how much was there before.
    fn unseen(&self) -> Option<String> {
        match (self.good, self.pinned_size) {
            (false, _) => None,
            (true, 0) => Some(
                "Without an earlier checkpoint, a deletion of the newest entries can't be seen. Keep one from \
                 `keyledger audit checkpoint > FILE` elsewhere, and give it with --pin FILE."
                    .into(),
            ),
            (true, pinned) if pinned < self.size => Some(format!(
                "A deletion of entries newer than the pinned checkpoint (from position {pinned} on) can't be seen."
            )),
            (true, _) => None,
        }
    }

    /// Nothing is known but whether there is trouble.
    fn of_trouble(trouble: Option<Trouble>) -> Report {
        Report {
            good: trouble.is_none(),
            position: trouble.as_ref().map(|t| t.position),
            problem: trouble.map(|t| t.problem),
            ledger: String::new(),
            origin: String::new(),
            verifier_key: String::new(),
            size: 0,
            root: String::new(),
            uses: 0,
            uses_untraced: 0,
            texts_opened: 0,
            texts_unopened: 0,
            texts_erased: 0,
            checkpoints: 0,
            checkpoint_size: 0,
            pinned_size: 0,
        }
    }
}

fn verifier_key(verifier: &Verifier) -> String {
    let ledger = verifier.state().ledger.as_ref();
    let key = ledger.map(|ledger| NoteKey::new(&ledger.origin, ledger.checkpoint_key));
    key.and_then(Result::ok).map(|key| key.vkey()).unwrap_or_default()
}
