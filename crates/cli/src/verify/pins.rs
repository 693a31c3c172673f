//! Pins: checkpoints and keys obtained before and kept elsewhere, which the ledger must still agree with.

use std::io::Read;
use std::path::{Path, PathBuf};

use keyledger_ledger::note::{self, Checkpoint, MAX_NOTE_BYTES, NoteKey};
use keyledger_ledger::verify::Verifier;

use super::walk::Trouble;
use crate::failure::Failure;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Pins")]
pub(super) struct PinArgs {
    /// File with a signed checkpoint obtained before, from `keyledger audit checkpoint`: the ledger must still hold
    /// everything that it covers. May be repeated.
    #[arg(long = "pin", value_name = "FILE")]
    pub(super) pins: Vec<PathBuf>,
    /// Verifier key obtained before, `<origin>+<hash>+<base64>`: the checkpoint key of the ledger must be this one. May be
    /// repeated, for several ledgers.
    #[arg(long = "verifier-key", value_name = "VKEY", value_parser = NoteKey::parse_vkey)]
    pub(super) keys: Vec<NoteKey>,
}

/// A signed note, with what it claims. Only the key of position 0 can say whether it is true.
#[derive(Clone, Debug)]
struct Pin {
    note: String,
    claim: Checkpoint,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pins {
    pins: Vec<Pin>,
    keys: Vec<NoteKey>,
}

impl PinArgs {
    pub(super) fn read(&self) -> Result<Pins, Failure> {
        let pins = self.pins.iter().map(|file| read_pin(file)).collect::<Result<_, _>>()?;
        Ok(Pins { pins, keys: self.keys.clone() })
    }
}

impl Pins {
    pub(super) fn notes(&self) -> Vec<String> {
        self.pins.iter().map(|pin| pin.note.clone()).collect()
    }

    /// The size of the largest pinned checkpoint; 0 without any.
    pub(super) fn size(&self) -> u64 {
        self.pins.iter().map(|pin| pin.claim.size).max().unwrap_or(0)
    }

    /// Whether the checkpoint key and origin of the ledger are the pinned ones. Position 0 names them.
    pub(super) fn check_key(&self, verifier: &Verifier) -> Result<(), Trouble> {
        let Some(ledger) = &verifier.state().ledger else { return Ok(()) };
        let fits = |key: &NoteKey| {
            key.name() == ledger.origin && *key.verifying_key() == ledger.checkpoint_key
        };
        match self.keys.iter().find(|key| !fits(key)) {
            Some(key) => {
                Err(Trouble::new(0, format!("the ledger's checkpoint key is not {}", key.vkey())))
            }
            None => Ok(()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pins.is_empty() && self.keys.is_empty()
    }

    /// What an export's key and checkpoint have against the pins. Of checkpoints of other sizes only the key is compared: an
    /// export doesn't hold what lies between.
    pub(super) fn problems_of(&self, key: &NoteKey, checkpoint: &Checkpoint) -> Vec<String> {
        let mut problems = vec![];
        for pinned in self.keys.iter().filter(|pinned| *pinned != key) {
            problems.push(format!("the ledger's checkpoint key is not {}", pinned.vkey()));
        }
        for pin in &self.pins {
            match note::open(&pin.note, key) {
                Err(e) => {
                    problems.push(format!("the pinned checkpoint is not one of its ledger: {e}"))
                }
                Ok(pinned) if pinned.size == checkpoint.size && pinned != *checkpoint => {
                    problems.push("its checkpoint is not the pinned one of the same size".into())
                }
                Ok(_) => {}
            }
        }
        problems
    }

    /// Gives each of several ledgers the pins that name it in their origin, and returns the origins that name none.
    pub(super) fn shared_out(&self, ledgers: Vec<String>) -> (Vec<(String, Pins)>, Vec<String>) {
        let origins = self.pins.iter().map(|pin| pin.claim.origin.as_str());
        let origins = origins.chain(self.keys.iter().map(NoteKey::name));
        let astray = |origin: &&str| !ledgers.iter().any(|l| names(origin, l));
        let mut astray: Vec<String> = origins.filter(astray).map(str::to_string).collect();
        astray.sort();
        astray.dedup();
        (ledgers.iter().map(|ledger| (ledger.clone(), self.of_ledger(ledger))).collect(), astray)
    }

    fn of_ledger(&self, ledger: &str) -> Pins {
        Pins {
            pins: self.pins.iter().filter(|p| names(&p.claim.origin, ledger)).cloned().collect(),
            keys: self.keys.iter().filter(|k| names(k.name(), ledger)).cloned().collect(),
        }
    }
}

/// An origin is `<host>/<ledger>`, with `/<epoch>` after a restore.
fn names(origin: &str, ledger: &str) -> bool {
    origin.split('/').nth(1) == Some(ledger)
}

fn read_pin(file: &Path) -> Result<Pin, Failure> {
    let unfit = |reason: String| {
        Failure::new(format!("{} is no checkpoint: {reason}", file.display()))
            .next("give a file that `keyledger audit checkpoint > FILE` wrote")
    };
    let mut note = String::new();
    let open = std::fs::File::open(file).map_err(|e| unfit(e.to_string()))?;
    open.take(MAX_NOTE_BYTES as u64 + 1)
        .read_to_string(&mut note)
        .map_err(|e| unfit(e.to_string()))?;
    let claim = note::peek(&note).map_err(|e| unfit(e.to_string()))?;
    Ok(Pin { note, claim })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn pin(origin: &str, size: u64) -> Pin {
        let claim = Checkpoint { origin: origin.into(), size, root: [0; 32] };
        Pin { note: note::sign(&claim, &SigningKey::from_bytes(&[1; 32])), claim }
    }

    #[test]
    fn each_ledger_gets_its_pins_and_a_pin_without_a_ledger_is_astray() {
        let key = NoteKey::new("h/gone", SigningKey::from_bytes(&[1; 32]).verifying_key()).unwrap();
        let pins = vec![pin("h/main", 3), pin("h/main/1", 9), pin("h/system", 5), pin("h/gone", 7)];
        let pins = Pins { pins, keys: vec![key] };
        let (shared, astray) = pins.shared_out(vec!["system".into(), "main".into(), "new".into()]);
        let sizes: Vec<(String, usize, u64)> =
            shared.into_iter().map(|(name, pins)| (name, pins.pins.len(), pins.size())).collect();
        assert_eq!(sizes, [("system".into(), 1, 5), ("main".into(), 2, 9), ("new".into(), 0, 0)]);
        assert_eq!(astray, ["h/gone"]);
    }

    #[test]
    fn a_pin_is_a_signed_note() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pin");
        std::fs::write(&file, pin("h/main", 3).note).unwrap();
        assert_eq!(read_pin(&file).unwrap().claim.size, 3);
        for bad in ["", "klk_x", "h/main\n3\n"] {
            std::fs::write(&file, bad).unwrap();
            assert!(read_pin(&file).is_err(), "{bad:?}");
        }
        assert!(read_pin(&dir.path().join("none")).is_err());
    }
}
