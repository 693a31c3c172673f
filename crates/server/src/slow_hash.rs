//! Slow hashes: computed before the lock, a few at a time, on threads that may block. Whoever doesn't get a place in time is told
//! to come back.

use std::sync::Arc;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use keyledger_ledger::imported::Argon2id;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::sequencer::SequencerError;

/// How many are computed at once for callers that are known: each takes a core, and up to 64 MiB.
const AT_ONCE: usize = 2;
/// Most that are computed, or wait: more than one call can ask for, else it would never get through.
const MAX_WAITING: usize = 256;
/// The same for strangers, who end a key by its secret: they can't take the places of those that are known.
const AT_ONCE_FOR_STRANGERS: usize = 1;
const MAX_WAITING_STRANGERS: usize = 8;
/// How long a caller waits for a place.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Some places of one replica.
pub(crate) struct SlowHashes {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl SlowHashes {
    pub(crate) fn for_callers() -> SlowHashes {
        SlowHashes::new(AT_ONCE, MAX_WAITING)
    }

    pub(crate) fn for_strangers() -> SlowHashes {
        SlowHashes::new(AT_ONCE_FOR_STRANGERS, MAX_WAITING_STRANGERS)
    }

    fn new(at_once: usize, waiting: usize) -> SlowHashes {
        let (running, waiting) = (Arc::new(Semaphore::new(at_once)), Semaphore::new(waiting));
        SlowHashes { running, waiting }
    }

    /// Whether a hash is that of a token.
    pub(crate) async fn matches(
        &self,
        hash: &Argon2id,
        token: &str,
    ) -> Result<bool, SequencerError> {
        let overloaded = || SequencerError::Overloaded;
        let _waiting = self.waiting.try_acquire().map_err(|_| overloaded())?;
        let place = tokio::time::timeout(MAX_WAIT, self.running.clone().acquire_owned()).await;
        let place = place.map_err(|_| overloaded())?.map_err(|_| overloaded())?;
        let (hash, token) = (hash.clone(), Zeroizing::new(token.to_string()));
        // It keeps its place until it is done, also when nobody waits for it any more.
        let computed = tokio::task::spawn_blocking(move || {
            let _place = place;
            is_hash_of(&hash, token.as_bytes())
        });
        computed.await.map_err(|_| overloaded())
    }
}

fn is_hash_of(hash: &Argon2id, token: &[u8]) -> bool {
    let length = Some(hash.output.len());
    let Ok(params) = Params::new(hash.memory_kib, hash.passes, hash.lanes, length) else {
        return false;
    };
    let mut output = Zeroizing::new(vec![0; hash.output.len()]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let computed = argon2.hash_password_into(token, &hash.salt, &mut output);
    computed.is_ok() && bool::from(output.as_slice().ct_eq(&hash.output))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tests of the reference implementation.
    const PHC: &str =
        "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    #[test]
    fn a_hash_of_the_reference_implementation_is_that_of_its_token_and_of_no_other() {
        let hash = Argon2id::parse(PHC).unwrap();
        assert!(is_hash_of(&hash, b"password"));
        assert!(!is_hash_of(&hash, b"Password"));
        assert!(!is_hash_of(&hash, b""));
        let other = Argon2id { salt: b"othersalt".to_vec(), ..hash };
        assert!(!is_hash_of(&other, b"password"));
    }

    #[tokio::test]
    async fn who_gets_no_place_is_told_to_come_back() {
        let hash = Argon2id::parse(PHC).unwrap();
        let places = SlowHashes::new(1, 1);
        assert!(places.matches(&hash, "password").await.unwrap());
        assert!(!places.matches(&hash, "Password").await.unwrap());
        let full = SlowHashes::new(1, 0);
        let refused = full.matches(&hash, "password").await;
        assert!(matches!(refused, Err(SequencerError::Overloaded)));
    }
}
