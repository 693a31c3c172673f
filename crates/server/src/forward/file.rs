//! Files: events as JSON Lines, appended and on disk before the cursor moves.
//!
//! The file is opened for each batch, so one that was rotated away is left alone and a new one begun. It is locked while it is
//! written to, and what another process left half at its end is cut off: a line is there whole or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;

use super::Failed;

/// How much is read at once to find the last whole line.
const BLOCK: u64 = 64 << 10;

pub(super) struct Lines {
    pub(super) path: PathBuf,
    /// Held by the thread that writes, also when nobody waits for it any more: a disk that hangs holds one thread, not many.
    writing: Arc<Mutex<()>>,
}

impl Lines {
    pub(super) fn new(path: PathBuf) -> Lines {
        Lines { path, writing: Arc::default() }
    }

    /// Returns once the lines are on disk.
    pub(super) async fn append(&self, lines: &[Vec<u8>]) -> Result<(), Failed> {
        let mut text = lines.join(b"\n".as_slice());
        text.push(b'\n');
        let (path, writing) = (self.path.clone(), self.writing.clone().lock_owned().await);
        let written = tokio::task::spawn_blocking(move || {
            let _writing = writing;
            append(&path, &text)
        });
        let written = written.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        written.map_err(|e| Failed::new(format!("the file can't be written: {e}")))
    }
}

fn append(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let is_new = !path.exists();
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(std::io::Error::other("another process is writing to it"));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    cut_partial_line(&mut file)?;
    file.write_all(text)?;
    file.sync_data()?;
    if is_new && let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Cuts off what stands behind the last line break.
fn cut_partial_line(file: &mut File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length { file.set_len(end) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder of its own for a test, gone at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder =
                std::env::temp_dir().join(format!("keyledger-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_are_appended_to_a_file_that_is_its_owners_alone() {
        let folder = Folder::new("forwarded-lines");
        let path = folder.0.join("events.jsonl");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\nthree\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_a_crash_left_half_is_cut_off() {
        let folder = Folder::new("forwarded-half");
        let path = folder.0.join("events.jsonl");
        for (left, kept) in [
            (b"one\ntw".to_vec(), b"one\n".to_vec()),
            (b"half".to_vec(), b"".to_vec()),
            ([b"one\n".to_vec(), vec![b'x'; 200_000]].concat(), b"one\n".to_vec()),
            (vec![b'x'; 200_000], b"".to_vec()),
            (b"one\n".to_vec(), b"one\n".to_vec()),
        ] {
            fs::write(&path, &left).unwrap();
            append(&path, b"next\n").unwrap();
            assert_eq!(fs::read(&path).unwrap(), [kept.as_slice(), b"next\n"].concat());
        }
    }

    #[test]
    fn a_file_that_was_rotated_away_is_left_alone() {
        let folder = Folder::new("forwarded-rotated");
        let (path, old) = (folder.0.join("events.jsonl"), folder.0.join("events.jsonl.1"));
        append(&path, b"one\n").unwrap();
        fs::rename(&path, &old).unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"one\n");
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
    }

    #[test]
    fn two_processes_never_write_at_once() {
        let folder = Folder::new("forwarded-locked");
        let path = folder.0.join("events.jsonl");
        append(&path, b"one\n").unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        assert!(append(&path, b"two\n").unwrap_err().to_string().contains("another process"));
        drop(other);
        append(&path, b"two\n").unwrap();
    }
}
