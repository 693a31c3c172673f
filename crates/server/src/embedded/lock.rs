//! One guard per data directory. The kernel frees the lock when the guard dies in whatever way, and
//! Postgres doesn't inherit it, so a held lock means a living guard.
//!
//! The file says what its holder does, for the one who is refused, and to tell a guard that serves
//! from one that is stopping, as it does for some seconds after its parent was killed: that one is
//! waited for.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::create::INITDB_LIMIT;
use super::error::EmbeddedError;
use super::layout::Layout;
use super::leftovers::{FAST_LIMIT, IMMEDIATE_LIMIT};

const STOPPING: &str = "stopping";
const SERVING: &str = "serving";

/// A parent that died a moment ago: its guard learns of it at once, but must still say so.
const SERVING_PATIENCE: Duration = Duration::from_millis(1500);
/// As long as a guard may take to see its last step through and stop.
const STOPPING_PATIENCE: Duration = INITDB_LIMIT
    .saturating_add(FAST_LIMIT)
    .saturating_add(IMMEDIATE_LIMIT)
    .saturating_add(Duration::from_secs(10));

pub(super) struct Lock {
    file: File,
    /// Whom to name to others.
    parent: u32,
}

impl Lock {
    pub(super) fn take(layout: &Layout) -> Result<Lock, EmbeddedError> {
        let path = layout.lock();
        let doing = format!("lock {}", path.display());
        let begun = Instant::now();
        let mut options = File::options();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(EmbeddedError::io(doing.clone()))?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => check_patience(layout, begun.elapsed())?,
                Err(TryLockError::Error(e)) => return Err(EmbeddedError::io(doing)(e)),
            }
            thread::sleep(Duration::from_millis(50));
        }
        let lock = Lock { file, parent: parent_id() };
        lock.say(SERVING);
        Ok(lock)
    }

    /// From here on a new guard waits for the lock instead of being refused.
    pub(super) fn say_stopping(&self) {
        self.say(STOPPING);
    }

    /// Only a message to others: if it can't be written, they are less patient.
    fn say(&self, what: &str) {
        let text = format!("{what} {}\n", self.parent);
        let _: io::Result<()> =
            self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
    }
}

fn check_patience(layout: &Layout, waited: Duration) -> Result<(), EmbeddedError> {
    let (state, parent) = holder(&layout.lock());
    let patience = match state.as_str() {
        STOPPING => STOPPING_PATIENCE,
        _ => SERVING_PATIENCE,
    };
    if waited < patience {
        return Ok(());
    }
    Err(EmbeddedError::InUse(format!(
        "{} is in use: process {parent} runs its Postgres; stop that process first, or choose \
         another data directory",
        layout.data_dir.display()
    )))
}

fn holder(path: &Path) -> (String, String) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (state, parent) = text.trim().split_once(' ').unwrap_or(("", "of another program"));
    (state.to_owned(), parent.to_owned())
}
