//! Deciding what producers register, and whose signatures are taken.

use super::wrong;
use crate::body::{self, Kind};
use crate::command::Refusal;
use crate::producer::{MAX_KEYS, Producer};
use crate::state::{Key, State};

/// Each caller registers keys for itself alone, all that it has.
pub(super) fn register(caller: Option<&Key>, public_keys: &[Vec<u8>]) -> Result<Kind, Refusal> {
    let caller = caller.ok_or(Refusal::Internal)?;
    if Producer::new(public_keys, 0).is_none() {
        let problem = format!("must hold at most {MAX_KEYS} Ed25519 public keys, each once");
        return Err(wrong("public_keys", problem));
    }
    Ok(Kind::ProducerKeysRegistered(body::ProducerKeysRegistered {
        key_id: caller.id.as_bytes().to_vec(),
        public_keys: public_keys.to_vec(),
    }))
}

/// A signature must be by a key that the caller has registered. Whether it is good was checked before the lock.
pub(super) fn check_signer(
    state: &State,
    caller: Option<&Key>,
    event: &body::EventRecorded,
) -> Result<(), Refusal> {
    let Some(signature) = &event.signature else { return Ok(()) };
    let producer = caller.and_then(|key| state.producers.get(&key.id));
    match producer.is_some_and(|p| p.key(&signature.public_key_sha256).is_some()) {
        true => Ok(()),
        false => Err(wrong(
            "signature.public_key_sha256",
            "must be that of a key which the caller has registered",
        )),
    }
}
