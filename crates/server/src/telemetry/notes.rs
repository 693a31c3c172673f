//! What a call's span is to tell of keys, entries and verdicts. It is gathered while the call runs, and written once: the SDK
//! would keep each value of an attribute that is set twice.

use std::sync::{Arc, Mutex, MutexGuard};

use keyledger_ledger::batch::{Touched, TouchedKey};
use keyledger_ledger::body::DecisionReason;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::state::{Key, State};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanRef;

use super::links::{Place, Wanted};
use super::span::Known;
use crate::event_names::{decision, reason_code, subject_ref};
use crate::names;

/// Most commands of one call that its span tells of: those of a large batch are all in the ledger.
const MAX_TOUCHES: usize = 128;

/// What one call's span is to tell. Stands in the context of the call.
#[derive(Clone, Default)]
pub(crate) struct Noted(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    known: Known,
    /// The key that the message names, where it exists.
    named: Option<TouchedBy>,
    touches: Vec<Touch>,
    /// Seconds in the queues of sequencers, and the largest batch.
    wait: Option<f64>,
    batch: usize,
}

/// What one command touched, with what it takes to link to it.
struct Touch {
    place: Place,
    key: Option<TouchedBy>,
    caller: Option<TouchedBy>,
    reason: DecisionReason,
    position: Option<u64>,
    event: &'static str,
}

struct TouchedBy {
    place: Place,
    key: TouchedKey,
    /// As it was then: whose it is.
    known: Option<Arc<Key>>,
}

impl Noted {
    pub(super) fn of(known: Known) -> Noted {
        Noted(Arc::new(Mutex::new(Notes { known, ..Notes::default() })))
    }

    /// The key that the message names, as this replica knows it.
    pub(crate) fn named(&self, place: Place, key: &Arc<Key>) {
        let version = key.newest_version().number;
        let touched = TouchedKey { id: key.id, version, entry: Some(key.position) };
        self.notes().named = Some(TouchedBy { place, key: touched, known: Some(key.clone()) });
    }

    /// What one command touched. `state` is that after it, and `event` what came of it.
    pub(crate) fn touched(
        &self,
        place: Place,
        state: &State,
        touched: &Touched,
        event: &'static str,
    ) {
        let mut notes = self.notes();
        if notes.touches.len() >= MAX_TOUCHES {
            return;
        }
        let by = |mut key: TouchedKey| {
            let known = state.keys.get(&key.id);
            // A change is of the key as it is then.
            if key.version == 0 && touched.reason == DecisionReason::Granted {
                key.version = known.map_or(0, |known| known.newest_version().number);
            }
            TouchedBy { place: place.clone(), key, known: known.cloned() }
        };
        notes.touches.push(Touch {
            key: touched.key.map(by),
            caller: touched.caller.map(by),
            reason: touched.reason,
            position: touched.position,
            event,
            place: place.clone(),
        });
    }

    /// How long a command of this call waited, and in how large a batch it was.
    pub(super) fn waited(&self, seconds: f64, batch: usize) {
        let mut notes = self.notes();
        *notes.wait.get_or_insert_default() += seconds;
        notes.batch = notes.batch.max(batch);
    }

    /// Writes all of it on the span. Returns what is to be linked.
    pub(super) fn tell(&self, span: &SpanRef<'_>) -> Vec<Wanted> {
        let notes = std::mem::take(&mut *self.notes());
        span.set_attributes(notes.attributes());
        notes.wanted()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Notes {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = Vec::with_capacity(12);
        if let Some(wait) = self.wait {
            all.push(KeyValue::new(names::SEQUENCER_WAIT, wait));
            all.push(KeyValue::new(names::BATCH_SIZE, self.batch as i64));
        }
        let Some(last) = self.touches.last() else {
            all.extend(self.named.as_ref().map(|named| named.place.attribute()));
            all.extend(self.named.iter().flat_map(TouchedBy::attributes));
            return all;
        };
        all.push(last.place.attribute());
        all.push(KeyValue::new(names::ENTRY_TYPE, last.event));
        if let Some(position) = last.position {
            all.push(KeyValue::new(names::ENTRY_POSITION, position as i64));
        }
        if self.touches.iter().all(|touch| touch.reason == last.reason) {
            let allowed = last.reason.allows();
            all.push(KeyValue::new(names::DECISION, decision(allowed)));
            all.push(KeyValue::new(names::REASON_CODE, reason_code(last.reason)));
        }
        if let Some(caller) = self.caller().filter(|_| self.known.caller.is_none()) {
            all.push(KeyValue::new(names::CALLER_KEY_ID, caller.to_string()));
        }
        if let Some(key) = self.the_key() {
            if self.known.key.is_none() {
                all.push(KeyValue::new(names::KEY_ID, key.key.id.to_string()));
            }
            all.extend(key.attributes());
        }
        all
    }

    fn caller(&self) -> Option<KeyId> {
        self.touches.iter().find_map(|touch| touch.caller.as_ref()).map(|caller| caller.key.id)
    }

    /// The one key that the call was about: that which the message names, else the one that was touched if there is only one
    /// besides the caller's, else the caller's.
    fn the_key(&self) -> Option<&TouchedBy> {
        let touched = || self.touches.iter().rev().filter_map(|touch| touch.key.as_ref());
        let named = self.known.key.or(self.named.as_ref().map(|named| named.key.id));
        if let Some(id) = named {
            return touched().find(|key| key.key.id == id).or(self.named.as_ref());
        }
        let caller = self.caller();
        let other = |key: &&TouchedBy| Some(key.key.id) != caller;
        match touched().find(other) {
            Some(key) => {
                let one = touched().filter(other).all(|k| k.key.id == key.key.id);
                one.then_some(key)
            }
            None => touched().next().or(self.touches.iter().find_map(|t| t.caller.as_ref())),
        }
    }

    /// The newest lifecycle entry, before the call, of each key that it used, changed or named: each key once.
    fn wanted(self) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = vec![];
        let mut want = |place: &Place, key: &TouchedKey| {
            let known = all.iter().any(|wanted| wanted.key == key.id);
            if let Some(position) = key.entry.filter(|_| !known) {
                all.push(Wanted { place: place.clone(), key: key.id, position });
            }
        };
        for touch in &self.touches {
            touch.key.iter().for_each(|by| want(&by.place, &by.key));
        }
        self.named.iter().for_each(|by| want(&by.place, &by.key));
        for touch in &self.touches {
            touch.caller.iter().for_each(|by| want(&by.place, &by.key));
        }
        all
    }
}

impl TouchedBy {
    fn attributes(&self) -> Vec<KeyValue> {
        let mut all = vec![];
        if self.key.version != 0 {
            all.push(KeyValue::new(names::KEY_VERSION, i64::from(self.key.version)));
        }
        let subject = self.known.as_ref().map(|known| subject_ref(&known.owner));
        all.extend(subject.map(|subject| KeyValue::new(names::SUBJECT_REF, subject)));
        all
    }
}
