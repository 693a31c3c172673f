//! Applying what producers register, and the signatures of what they record.

use std::sync::Arc;

use super::{ApplyError, At, bytes};
use crate::body;
use crate::id::KeyId;
use crate::producer::Producer;
use crate::state::State;

pub(super) fn register(
    state: &mut State,
    at: &At,
    e: &body::ProducerKeysRegistered,
) -> Result<(), ApplyError> {
    let id = KeyId::from_slice(&e.key_id).ok_or(ApplyError::Field("key_id"))?;
    // Whoever folds what is about no key has no callers. What they found was checked by whoever appended it.
    if at.caller.is_some_and(|caller| caller != id) {
        return Err(ApplyError::Caller);
    }
    let producer = Producer::new(&e.public_keys, at.position);
    let producer = producer.ok_or(ApplyError::Field("public_keys"))?;
    state.producers.insert(id, Arc::new(producer));
    Ok(())
}

/// Whether the key that a signature names is one that its caller has registered. What was signed is sealed: the signature
/// itself is checked by whoever can open it.
pub(super) fn may_have_signed(
    state: &State,
    caller: Option<KeyId>,
    e: &body::EventRecorded,
) -> bool {
    let Some(signature) = &e.signature else { return true };
    let producer = caller.and_then(|id| state.producers.get(&id));
    let known = producer.is_some_and(|p| p.key(&signature.public_key_sha256).is_some());
    known && bytes::<64>(&signature.signature, "signature").is_ok()
}
