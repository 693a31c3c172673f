//! The first key of each owner. Its usage is kept by itself only; that of all others also together: see
//! [`keyledger_ledger::usage::Meter`]. Which key is the first never changes, since keys stay for ever.

use std::collections::{HashMap, HashSet};

use keyledger_ledger::body::Kind;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::{Key, Owner, State};

use super::seen::Seen;

/// Follows from the state: read out of it once, and from then on from the entries.
#[derive(Default)]
pub(crate) struct FirstKeys {
    /// Keys that were created before this are known.
    before: u64,
    /// With the position that created it.
    of: HashMap<Owner, (u64, KeyId)>,
    /// Owners with more keys than one.
    several: HashSet<Owner>,
}

impl FirstKeys {
    /// Takes over the keys of entries that begin at `from`; the state is at least as new as they are.
    pub(super) fn follow(&mut self, state: &State, from: u64, seen: &[Seen]) {
        if self.before < from || self.before == 0 {
            state.keys.values().for_each(|key| self.add(key));
            self.before = state.next_position;
        }
        let before = self.before;
        for seen in seen.iter().filter(|seen| seen.position >= before) {
            let link = seen.event.as_ref().and_then(|e| e.kind.as_ref()).and_then(Kind::key_link);
            let id = link.and_then(|link| KeyId::from_slice(&link.key_id));
            if let Some(key) = id.and_then(|id| state.keys.get(&id)) {
                self.add(key);
            }
        }
        self.before = seen.last().map_or(self.before, |last| self.before.max(last.position + 1));
    }

    /// The owner of a key that isn't the first one.
    pub(super) fn is_further<'a>(&self, key: &'a Key) -> Option<&'a Owner> {
        let first = self.of(&key.owner);
        first.is_some_and(|first| first != key.id).then_some(&key.owner)
    }

    /// The owner of a key, if they have others.
    pub(super) fn of_several<'a>(&self, key: &'a Key) -> Option<&'a Owner> {
        self.several.contains(&key.owner).then_some(&key.owner)
    }

    pub(crate) fn of(&self, owner: &Owner) -> Option<KeyId> {
        self.of.get(owner).map(|(_, id)| *id)
    }

    fn add(&mut self, key: &Key) {
        let own = (key.created_position, key.id);
        match self.of.get_mut(&key.owner) {
            Some(first) => {
                if first.1 != key.id && !self.several.contains(&key.owner) {
                    self.several.insert(key.owner.clone());
                }
                *first = own.min(*first);
            }
            None => {
                self.of.insert(key.owner.clone(), own);
            }
        }
    }
}
