//! How much one ledger may take of this replica: so that one tenant can't fill it for all others.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use keyledger_ledger::command::{Action, ChangeKind, Command};
use keyledger_ledger::judge::Credential;
use tokio::time::Instant;

use super::{Ledger, SequencerError};

/// What a ledger takes now.
#[derive(Default)]
pub(super) struct Quota {
    streams: AtomicU32,
    bytes: Mutex<Bucket>,
}

/// Bytes that may still be written: filled up to what a second allows. It may run into debt by one command, so that a
/// command heavier than a second's worth passes, too.
#[derive(Default)]
struct Bucket {
    left: i64,
    /// `None`: it was never used, and is full.
    filled: Option<Instant>,
}

impl Bucket {
    fn take(&mut self, bytes: usize, per_second: u64, now: Instant) -> bool {
        let most = per_second.min(i64::MAX as u64) as i64;
        let gained = match self.filled {
            None => most,
            Some(before) => {
                let micros = now.saturating_duration_since(before).as_micros();
                (micros * u128::from(per_second) / 1_000_000).min(i64::MAX as u128) as i64
            }
        };
        // What is too little to be counted waits until it is enough.
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(most);
            self.filled = Some(now);
        }
        if self.left <= 0 {
            return false;
        }
        self.left -= bytes as i64;
        true
    }
}

/// The place of an open stream; free again when it is dropped.
pub(crate) struct StreamPlace(Arc<Ledger>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.quota.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ledger {
    /// A place for one more stream, if the ledger may have one.
    pub(crate) fn open_stream(self: &Arc<Ledger>) -> Result<StreamPlace, SequencerError> {
        let most = self.snapshot().state.policy.policy.limits.streams;
        let place = StreamPlace(self.clone());
        match self.quota.streams.fetch_add(1, Ordering::Relaxed) < most {
            true => Ok(place),
            false => Err(SequencerError::LedgerLimit { what: "streams", most: most.into() }),
        }
    }

    /// Whether the ledger may take what a command will write. Nobody is kept from stopping a key, or an operator from raising a
    /// limit; and strangers, whose refusals are counted together, can't use up what is the ledger's.
    pub(super) fn take_bytes(&self, command: &Command) -> Result<(), SequencerError> {
        let free = match (&command.call.credential, &command.action) {
            (Credential::Internal, _) | (Credential::System(_), Action::Change(_)) => true,
            (_, Action::Authenticate | Action::Refuse(_)) => true,
            (_, Action::Change(change)) => {
                matches!(change.kind, ChangeKind::RevokeKey { .. } | ChangeKind::SuspendKey { .. })
            }
            _ => false,
        };
        if free || self.take(command.weight()) {
            return Ok(());
        }
        let most = self.published.load().state.policy.policy.limits.bytes_per_second;
        Err(SequencerError::LedgerLimit { what: "bytes per second", most })
    }

    /// The same for a number of bytes.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let most = self.published.load().state.policy.policy.limits.bytes_per_second;
        let mut bucket = self.quota.bytes.lock().expect("no holder of this lock panics");
        bucket.take(bytes, most, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn in_a_second_no_more_passes_than_its_bytes_and_one_command() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let mut passed = 0;
        for milli in 0..10_000 {
            let now = start + Duration::from_millis(milli);
            while bucket.take(700, 1_000, now) {
                passed += 700;
            }
            let allowed = 1_000 + milli + 700;
            assert!(passed <= allowed, "{passed} bytes after {milli} ms");
        }
        assert!(passed >= 10_000, "{passed} bytes in ten seconds");
    }

    #[test]
    fn a_command_heavier_than_a_second_passes_and_is_paid_for() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert!(bucket.take(5_000, 1_000, start));
        assert!(!bucket.take(1, 1_000, start + Duration::from_secs(4)));
        assert!(bucket.take(1, 1_000, start + Duration::from_millis(4_001)));
    }
}
