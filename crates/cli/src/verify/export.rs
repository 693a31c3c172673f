//! Entries from an export.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use keyledger_proto::RawEntry;

use super::pins::Pins;
use super::walk::{Checked, Trouble, Walk};
use crate::export_file::{EndLine, EntryLine, read_line};
use crate::failure::Failure;
use crate::progress::Progress;

/// The last line is shorter than this: a note has at most 64 KiB.
const MAX_END: u64 = 1024 * 1024;

enum Line {
    Entry(u64, RawEntry),
    End,
}

pub(super) fn verify(file: &Path, pins: &Pins) -> Result<Checked, Failure> {
    let unreadable = |e: io::Error| {
        Failure::new(format!("the export {} can't be read: {e}", file.display()))
            .next("name a file that `keyledger audit export --output FILE` wrote")
    };
    let mut open = File::open(file).map_err(unreadable)?;
    // Its checkpoint stands in the last line, but must be known before the first.
    let end = last_line(&mut open).map_err(unreadable)?;
    let notes = pins.notes().into_iter().chain(end.map(|end| end.checkpoint)).collect();
    walk_through(BufReader::with_capacity(1 << 20, open), Walk::new(notes)).map_err(unreadable)
}

fn walk_through(mut lines: impl BufRead, mut walk: Walk) -> io::Result<Checked> {
    let mut progress = Progress::new("entries verified");
    let mut line = vec![];
    while read_line(&mut lines, &mut line)? {
        match parse(&line) {
            Ok(Line::Entry(position, raw)) => {
                if let Err(trouble) = walk.push(position, raw) {
                    return Ok(walk.stop(trouble));
                }
            }
            Ok(Line::End) if read_line(&mut lines, &mut line)? => {
                let trouble =
                    Trouble::new(walk.position(), "the export goes on after its checkpoint");
                return Ok(walk.stop(trouble));
            }
            Ok(Line::End) => return Ok(walk.finish()),
            Err(error) => {
                let number = walk.position() + 1;
                let problem = format!("line {number} of the export is damaged: {error}");
                let trouble = Trouble::new(walk.position(), problem);
                return Ok(walk.stop(trouble));
            }
        }
        progress.at(walk.position(), 0);
    }
    let trouble =
        Trouble::new(walk.position(), "the export ends without a checkpoint: it was cut short");
    Ok(walk.stop(trouble))
}

/// The error is that of an entry, because all lines but one are entries.
fn parse(line: &[u8]) -> Result<Line, serde_json::Error> {
    match serde_json::from_slice::<EntryLine>(line) {
        Ok(entry) => Ok(Line::Entry(entry.position, entry.into_raw())),
        Err(error) => serde_json::from_slice::<EndLine>(line).map(|_| Line::End).map_err(|_| error),
    }
}

/// The last line, if it is what a last line is. The file stands at its beginning afterwards.
fn last_line(file: &mut File) -> io::Result<Option<EndLine>> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(MAX_END)))?;
    let mut tail = vec![];
    (&*file).take(MAX_END).read_to_end(&mut tail)?;
    file.rewind()?;
    let tail = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let line = tail.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::super::report::Report;
    use super::super::sample::{ORIGIN, checkpoint, checkpoint_key, entries};
    use super::*;

    fn export(entries: Vec<RawEntry>, end: usize) -> Vec<String> {
        let lines = (0..).zip(entries).map(|(position, raw)| EntryLine::new(position, raw));
        let mut lines: Vec<String> = lines.map(|l| serde_json::to_string(&l).unwrap()).collect();
        let end = EndLine { checkpoint: checkpoint(end), verifier_key: String::new() };
        lines.push(serde_json::to_string(&end).unwrap());
        lines
    }

    /// Where trouble is and what, or the number of checkpoints that held.
    fn verified(text: &str, pins: &Pins) -> Result<u64, (u64, String)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("export");
        std::fs::write(&file, text).unwrap();
        let checked = verify(&file, pins).unwrap();
        let checkpoints = checked.verifier.counts().checkpoints;
        checked.trouble.map_or(Ok(checkpoints), |t| Err((t.position, t.problem)))
    }

    fn position(text: &str) -> Option<u64> {
        verified(text, &Pins::default()).err().map(|(position, _)| position)
    }

    #[test]
    fn a_good_export_holds_with_and_without_a_newline_at_its_end() {
        let text = export(entries(), 3).join("\n");
        assert_eq!(verified(&text, &Pins::default()), Ok(1));
        assert_eq!(verified(&(text + "\n"), &Pins::default()), Ok(1));
        assert_eq!(verified(&export(entries(), 1).join("\n"), &Pins::default()), Ok(1));
    }

    #[test]
    fn whatever_is_cut_added_swapped_or_left_out_is_found_where_it_is() {
        let good = export(entries(), 3);
        let without = |index: usize| {
            let mut lines = good.clone();
            lines.remove(index);
            lines.join("\n")
        };
        assert_eq!(position(""), Some(0));
        assert_eq!(position(&without(0)), Some(0));
        assert_eq!(position(&without(1)), Some(1));
        assert_eq!(position(&without(2)), Some(2));
        assert_eq!(position(&without(3)), Some(3));
        assert_eq!(position(&(good.join("\n") + "\n{}")), Some(3));
        let swapped = [good[0].clone(), good[2].clone(), good[1].clone(), good[3].clone()];
        assert_eq!(position(&swapped.join("\n")), Some(1));
        let all = good.join("\n");
        for cut in (1..all.len()).filter(|cut| all.is_char_boundary(*cut)) {
            assert!(position(&all[..cut]).is_some(), "cut at {cut}");
        }
    }

    #[test]
    fn no_byte_of_an_entry_can_change() {
        for (at, good) in entries().into_iter().enumerate() {
            let changes: [fn(&mut RawEntry) -> &mut Vec<u8>; 4] = [
                |r| &mut r.body,
                |r| &mut r.public_key_sha256,
                |r| &mut r.signature,
                |r| &mut r.uses,
            ];
            for change in changes {
                let length = change(&mut good.clone()).len();
                for byte in 0..length {
                    let mut changed = entries();
                    change(&mut changed[at])[byte] ^= 1;
                    let found = position(&export(changed, 3).join("\n"));
                    // Sealed bytes can't be checked without data keys; the texts beside them are.
                    let sealed = at == 2 && found.is_none();
                    assert!(
                        found == Some(at as u64) || sealed,
                        "entry {at}, byte {byte}: {found:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_text_that_was_not_committed_to_is_found_and_one_that_is_withheld_is_counted() {
        let mut changed = entries();
        changed[1].opened[0].texts[2] ^= 1;
        assert_eq!(position(&export(changed, 3).join("\n")), Some(1));
        let mut shortened = entries();
        shortened[2].opened[0].salt.pop();
        assert_eq!(position(&export(shortened, 3).join("\n")), Some(2));
        let mut withheld = entries();
        withheld[1].opened[0].salt.clear();
        withheld[2].opened.clear();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("export");
        std::fs::write(&file, export(withheld, 3).join("\n")).unwrap();
        let checked = verify(&file, &Pins::default()).unwrap();
        assert_eq!((checked.trouble, checked.verifier.counts().texts_unopened), (None, 2));
    }

    #[test]
    fn a_pin_shows_what_a_shorter_ledger_hides() {
        let dir = tempfile::tempdir().unwrap();
        let pinned = |note: &str| {
            let file = dir.path().join("pin");
            std::fs::write(&file, note).unwrap();
            let args = super::super::pins::PinArgs { pins: vec![file], keys: vec![] };
            args.read().unwrap()
        };
        let whole = export(entries(), 3).join("\n");
        let short = export(entries().into_iter().take(2).collect(), 2).join("\n");
        assert_eq!(verified(&short, &Pins::default()), Ok(1));
        assert_eq!(verified(&short, &pinned(&checkpoint(3))).unwrap_err().0, 2);
        for size in 1..=3 {
            assert_eq!(verified(&whole, &pinned(&checkpoint(size))), Ok(2), "pin of size {size}");
        }
        let root = [0; 32];
        let of = |origin: &str, key| {
            let claim = keyledger_ledger::note::Checkpoint { origin: origin.into(), size: 1, root };
            keyledger_ledger::note::sign(&claim, key)
        };
        let stranger = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        for bad in
            [of(ORIGIN, &checkpoint_key()), of(ORIGIN, &stranger), of("x/main", &checkpoint_key())]
        {
            assert!(verified(&whole, &pinned(&bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pinned_key_must_be_the_one_of_position_0() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("export");
        std::fs::write(&file, export(entries(), 3).join("\n")).unwrap();
        let good = |origin: &str, seed: u8| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
            let keys = vec![keyledger_ledger::note::NoteKey::new(origin, key).unwrap()];
            let pins = super::super::pins::PinArgs { pins: vec![], keys }.read().unwrap();
            Report::new(verify(&file, &pins).unwrap(), &pins).is_good()
        };
        assert!(good(ORIGIN, 2));
        assert!(!good(ORIGIN, 3));
        assert!(!good("keys.example/other", 2));
    }
}
