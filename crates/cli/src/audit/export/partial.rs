//! An export that isn't complete: FILE.partial with the lines so far, and FILE.partial.state, which says up to where they are
//! whole and what goes on after them. Whenever this process ends, the next one finds what it needs: lines are written before the
//! state that counts them, and a state replaces the one before as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use keyledger_ledger::merkle::Frontier;
use keyledger_proto::{ExportEventsRequest, SignedManifest};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::export_file::{Base64, create, read_line};
use crate::failure::Failure;
use crate::manifest_file;

pub(super) struct Partial {
    /// Under which name it appears when it is complete.
    file: PathBuf,
    path: PathBuf,
    lines: File,
    state: State,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// A serialised ExportEventsRequest: another one can't go on here.
    request: Base64,
    /// How many bytes of lines there are.
    bytes: u64,
    lines: u64,
    resume_token: Base64,
}

impl Partial {
    /// Goes on with what an earlier run has left, or begins anew.
    pub(super) fn open(file: &Path, request: &ExportEventsRequest) -> anyhow::Result<Partial> {
        let path = with_suffix(file, ".partial");
        let request = Base64(request.encode_to_vec());
        let partial = match read_state(&path)? {
            Some(state) if state.request != request => {
                return Err(Failure::new(format!("{} is of another export", path.display()))
                    .next("repeat that one, name another file, or remove this one and its .state")
                    .into());
            }
            Some(state) => {
                Partial { file: file.into(), lines: reopen(&path, state.bytes)?, path, state }
            }
            None => {
                // One that another command writes to must not be taken away from it.
                File::open(&path).map_or(Ok(()), |earlier| lock(&earlier, &path))?;
                Partial {
                    file: file.into(),
                    lines: create(&path).with_context(|| cannot_write(&path))?,
                    path,
                    state: State { request, bytes: 0, lines: 0, resume_token: Base64::default() },
                }
            }
        };
        lock(&partial.lines, &partial.path)?;
        Ok(partial)
    }

    pub(super) fn lines(&self) -> u64 {
        self.state.lines
    }

    pub(super) fn resume_token(&self) -> Vec<u8> {
        self.state.resume_token.0.clone()
    }

    /// Keeps one message.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        lines: u64,
        resume_token: Vec<u8>,
    ) -> anyhow::Result<()> {
        let what = || cannot_write(&self.path);
        self.lines.write_all(bytes).with_context(what)?;
        self.state.bytes += bytes.len() as u64;
        self.state.lines = lines;
        self.state.resume_token = Base64(resume_token);
        let (state, next) = (state_of(&self.path), with_suffix(&self.path, ".state.next"));
        let written = create(&next)
            .and_then(|mut file| file.write_all(serde_json::to_string(&self.state)?.as_bytes()))
            .and_then(|()| std::fs::rename(&next, &state));
        written.with_context(what)
    }

    /// All lines are there, and these are they: only then they get their name, and the manifest beside them. Returns how many
    /// there are.
    pub(super) fn finish(self, manifest: SignedManifest) -> anyhow::Result<u64> {
        let what = || cannot_write(&self.path);
        self.lines.sync_all().with_context(what)?;
        let envelope = manifest_file::from_wire(manifest)?;
        let opened = envelope.open().map_err(|e| {
            Failure::new(format!("the server sent a manifest that can't be believed: {e}"))
        })?;
        let manifest_path = manifest_file::path_of(&self.file);
        let next = with_suffix(&manifest_path, ".partial");
        let mut out = manifest_file::Writer::create(&next, &envelope).with_context(what)?;
        let mut lines = BufReader::new(File::open(&self.path).with_context(what)?);
        let (mut line, mut tree) = (vec![], Frontier::new());
        while read_line(&mut lines, &mut line).with_context(what)? {
            tree.append(out.add(&line).with_context(what)?);
        }
        out.finish().with_context(what)?;
        if (tree.size(), tree.root().as_slice())
            != (opened.manifest.lines, opened.manifest.root.as_slice())
        {
            let name = self.path.display();
            return Err(Failure::new(format!(
                "{name} does not hold the lines that the server sent"
            ))
            .next(format!("remove {name} and {name}.state, and run the command again"))
            .into());
        }
        std::fs::rename(&next, &manifest_path).with_context(what)?;
        std::fs::rename(&self.path, &self.file).with_context(what)?;
        std::fs::remove_file(state_of(&self.path)).with_context(what)?;
        Ok(tree.size())
    }
}

/// One command writes to it at a time.
fn lock(lines: &File, path: &Path) -> Result<(), Failure> {
    let busy = |_| {
        Failure::new(format!("{} is being written to", path.display()))
            .next("wait for the other command")
    };
    lines.try_lock().map_err(busy)
}

/// What an earlier run has left; `None` if nothing, or not even one whole message.
fn read_state(path: &Path) -> anyhow::Result<Option<State>> {
    let state = state_of(path);
    let text = match std::fs::read(&state) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("can't read {}", state.display()))?,
    };
    let state = serde_json::from_slice(&text).with_context(|| {
        format!("{} is damaged: remove it to begin the export again", state.display())
    })?;
    Ok(Some(state))
}

/// The lines up to the last whole message. What came after them is written again.
fn reopen(path: &Path, bytes: u64) -> anyhow::Result<File> {
    let what = || cannot_write(path);
    let found = std::fs::symlink_metadata(path).with_context(what)?;
    if !found.is_file() || found.len() < bytes {
        let problem = format!("{} does not hold all that its .state says", path.display());
        return Err(Failure::new(problem).next("remove both to begin the export again").into());
    }
    let mut lines =
        OpenOptions::new().read(true).write(true).mode(0o600).open(path).with_context(what)?;
    lines.set_len(bytes).with_context(what)?;
    lines.seek(SeekFrom::End(0)).with_context(what)?;
    Ok(lines)
}

fn state_of(path: &Path) -> PathBuf {
    with_suffix(path, ".state")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn cannot_write(path: &Path) -> String {
    format!("can't write {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn request(category: &str) -> ExportEventsRequest {
        ExportEventsRequest { category: category.into(), ..Default::default() }
    }

    #[test]
    fn what_came_after_the_last_whole_message_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.csv");
        let mut partial = Partial::open(&file, &request("error")).unwrap();
        partial.append(b"one\ntwo\n", 2, vec![7]).unwrap();
        partial.lines.write_all(b"thr").unwrap();
        drop(partial);
        let partial = Partial::open(&file, &request("error")).unwrap();
        assert_eq!((partial.lines(), partial.resume_token()), (2, vec![7]));
        assert_eq!(std::fs::read(&partial.path).unwrap(), b"one\ntwo\n");
        for path in [partial.path.clone(), state_of(&partial.path)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Partial::open(&file, &request("error")).is_err(), "somebody writes to it");
        drop(partial);
        assert!(Partial::open(&file, &request("other")).is_err(), "it is of another export");
        std::fs::write(with_suffix(&file, ".partial"), "one\n").unwrap();
        assert!(Partial::open(&file, &request("error")).is_err(), "lines are gone");
    }

    #[test]
    fn a_run_that_kept_nothing_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.csv");
        let mut partial = Partial::open(&file, &request("")).unwrap();
        partial.lines.write_all(b"some").unwrap();
        drop(partial);
        let partial = Partial::open(&file, &request("other")).unwrap();
        assert_eq!(std::fs::read(&partial.path).unwrap(), b"");
    }
}
