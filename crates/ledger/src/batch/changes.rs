//! Changes: decided against the newest state, written as entries, answered again when they are repeated, or only tried.

use std::sync::Arc;

use super::uses::{Authorised, RefusedCaller, caller_use};
use super::{FirstUses, Head, KnownRequest, NewRequest, Run, sealed_column};
use crate::anomaly::AnomalyChange;
use crate::apply::apply;
use crate::body::{DecisionReason, Event, Kind};
use crate::command::{
    Answer, Call, Change, ChangeKind, Changed, CreateKey, Refusal, RotateKey, UpdateKey, UpdateRole,
};
use crate::decide::{Beside, decide};
use crate::id::KeyId;
use crate::page::PageWriter;
use crate::state::{Key, State};
use crate::text::Sealed;

impl Run<'_> {
    /// A key may have been made just before, in this very batch.
    pub(super) fn change_one(&mut self, call: Call, change: Change) -> Answer {
        if self.is_seen(&call) { Answer::Seen } else { self.change(call, change) }
    }

    /// Records all of some events, or none: then nothing but the refusal of the first that can't be is left.
    pub(super) fn record_all(&mut self, all: Vec<(Call, Change)>) -> Answer {
        // What was used so far comes first, and stays.
        self.close_page();
        let before = Mark::of(self);
        let mut answers = vec![];
        for (index, (call, change)) in all.into_iter().enumerate() {
            match self.try_event(&call, &change) {
                Ok(answer) => answers.push(answer),
                Err(refused) => {
                    before.restore(self);
                    let refusal = Box::new(refused.refusal);
                    let refusal = Refusal::OneOfAll { index, refusal };
                    return self.refuse(call, RefusedCaller { refusal, ..refused });
                }
            }
        }
        Answer::All(answers)
    }

    fn try_event(&mut self, call: &Call, change: &Change) -> Result<Answer, RefusedCaller> {
        let caller = self.authorise(call)?;
        let by = (caller.id(), caller.caller.as_ref().map_or(0, |c| c.version));
        let refused = |refusal: Refusal| RefusedCaller {
            key_id: by.0,
            version: by.1,
            reason: refusal.recorded_reason(),
            refusal,
        };
        match self.known_request(call, &caller) {
            Some(known) if call.request.is_some_and(|r| r.digest != known.digest) => {
                Err(refused(Refusal::RequestIdReused))
            }
            Some(known) => {
                let r#use = caller_use(call, &caller, DecisionReason::Replayed);
                self.add_use(r#use, call.salt, call.texts.clone());
                Ok(Answer::Replayed { position: known.position })
            }
            None => self.decide_and_write(call, &caller, change).map_err(refused),
        }
    }

    pub(super) fn change(&mut self, mut call: Call, change: Change) -> Answer {
        // A key may always end itself, and whoever holds its secret may: also while it is suspended, or from elsewhere. No
        // permission is asked for, so nothing counts against its limits.
        let caller = if ends_itself(&call, &change) {
            call.permission = "";
            self.identified(&call)
        } else {
            self.authorise(&call)
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(call, refused),
        };
        if change.validate_only {
            return self.validate(call, &caller, &change);
        }
        if let Some(known) = self.known_request(&call, &caller) {
            return self.replay(call, &caller, known);
        }
        match self.decide_and_write(&call, &caller, &change) {
            Ok(answer) => answer,
            // What Keyledger itself was refused is no use of a key.
            Err(refusal) if caller.caller.is_none() => Answer::Refused { refusal },
            Err(refusal) => {
                let r#use = caller_use(&call, &caller, refusal.recorded_reason());
                self.record_refusal(call, r#use, refusal)
            }
        }
    }

    fn known_request(&self, call: &Call, caller: &Authorised) -> Option<KnownRequest> {
        self.means.known.get(&(caller.id()?, call.request?.id)).copied()
    }

    /// The same request id again: the first answer if it is the same request, else a refusal.
    fn replay(&mut self, call: Call, caller: &Authorised, known: KnownRequest) -> Answer {
        if call.request.is_some_and(|request| request.digest != known.digest) {
            let r#use = caller_use(&call, caller, DecisionReason::Refused);
            return self.record_refusal(call, r#use, Refusal::RequestIdReused);
        }
        let r#use = caller_use(&call, caller, DecisionReason::Replayed);
        self.add_use(r#use, call.salt, call.texts);
        Answer::Replayed { position: known.position }
    }

    /// A dry run: the change is made on a copy of the state, and the copy is dropped.
    fn validate(&mut self, call: Call, caller: &Authorised, change: &Change) -> Answer {
        let tried = self.decide_event(&call, caller, change).and_then(|(event, _)| {
            let mut state = self.state().clone();
            apply(&mut state, [0; 32], &event).map_err(|_| Refusal::Internal)?;
            Ok(changed(&state, &change.kind))
        });
        match tried {
            Ok(result) => {
                let r#use = caller_use(&call, caller, DecisionReason::Validated);
                self.add_use(r#use, call.salt, call.texts);
                Answer::Validated { result }
            }
            Err(refusal) => {
                let r#use = caller_use(&call, caller, refusal.recorded_reason());
                self.record_refusal(call, r#use, refusal)
            }
        }
    }

    /// The event that a change would be, and what is kept beside it of the secret that it brings.
    fn decide_event(
        &self,
        call: &Call,
        caller: &Authorised,
        change: &Change,
    ) -> Result<(Event, Beside), Refusal> {
        let key = caller.key.as_deref();
        // Nobody approves what merely happened.
        if !matches!(change.kind, ChangeKind::RecordEvent(_)) {
            self.state().policy.policy.check_approval(call.permission, &change.approval_ref)?;
        }
        let decided = decide(self.state(), self.means.peppers, key, change, self.means.now)?;
        let mut event = self.event(decided.kind, change);
        event.trace_id = call.trace.trace_id_bytes();
        event.span_id = call.trace.span_id_bytes();
        event.caller = caller.caller.clone();
        event.request_id = call.request.map_or(vec![], |r| r.id.to_vec());
        event.approval_ref = change.approval_ref.clone();
        event.texts = change.texts.iter().chain(&call.texts).map(Sealed::to_body).collect();
        Ok((event, decided.beside))
    }

    fn decide_and_write(
        &mut self,
        call: &Call,
        caller: &Authorised,
        change: &Change,
    ) -> Result<Answer, Refusal> {
        // Uses count, or don't, by the limits that hold at the position of their page: so what was used so far comes first.
        let limits = matches!(&change.kind, ChangeKind::UpdateKey(u) if u.restrictions.is_some());
        if limits || !self.spent.is_empty() {
            self.close_page();
        }
        let (event, Beside { secret, imported, counts }) =
            self.decide_event(call, caller, change)?;
        self.note_change(&event, caller);
        let texts = change.texts.iter().chain(&call.texts);
        let sealed = sealed_column(texts.map(|t| t.bytes.clone()).collect());
        let position = self.append(event, sealed, counts)?;
        if let Some(secret) = secret {
            self.batch
                .head
                .state
                .verifiers
                .insert((secret.key_id, secret.version), secret.verifier);
            self.batch.secrets.push(secret);
        }
        if let Some(row) = imported {
            self.batch.head.state.digests.insert(row.key_id, Arc::new(row.digest.clone()));
            self.batch.imported.push(row);
        }
        if let (Some(request), Some(caller)) = (call.request, caller.id()) {
            let known = KnownRequest { digest: request.digest, position };
            self.means.known.insert((caller, request.id), known);
            self.batch.requests.push(NewRequest { caller, id: request.id, known });
        }
        let result = changed(self.state(), &change.kind);
        if let Changed::Key(key) = &result {
            self.note_row(key.id);
        }
        if let (Some(id), Some(by)) = (caller.id(), &caller.caller) {
            let trace = || (call.trace.trace_id_bytes(), call.trace.span_id_bytes());
            self.note_first_use(id, by.version, trace);
        }
        if let Some(caller) = caller.key.as_ref().filter(|key| key.used.is_some()) {
            self.note_row(caller.id);
        }
        Ok(Answer::Changed { position, result })
    }

    fn event(&self, kind: Kind, change: &Change) -> Event {
        let (ledger_id, epoch) = match (&self.state().ledger, &change.kind) {
            (Some(ledger), _) => (ledger.id.to_vec(), ledger.epoch),
            (None, ChangeKind::OpenLedger(open)) => (open.id.to_vec(), 0),
            (None, _) => (vec![], 0),
        };
        Event {
            ledger_id,
            epoch,
            time_us: self.means.now.micros(),
            kind: Some(kind),
            ..Event::default()
        }
    }
}

/// Where a batch stood before several events that are recorded together, when no page was open.
struct Mark {
    head: Head,
    shed: u64,
    entries: usize,
    full_tiles: usize,
    requests: usize,
    changed_keys: Vec<Arc<Key>>,
    first_uses: FirstUses,
}

impl Mark {
    fn of(run: &Run<'_>) -> Mark {
        Mark {
            head: run.batch.head.clone(),
            shed: run.means.shed,
            entries: run.batch.entries.len(),
            full_tiles: run.batch.full_tiles.len(),
            requests: run.batch.requests.len(),
            changed_keys: run.batch.changed_keys.clone(),
            first_uses: run.first_uses.clone(),
        }
    }

    fn restore(self, run: &mut Run<'_>) {
        run.batch.head = self.head;
        run.means.shed = self.shed;
        run.page = PageWriter::default();
        run.in_page.clear();
        run.spent.clear();
        run.batch.entries.truncate(self.entries);
        run.batch.full_tiles.truncate(self.full_tiles);
        for request in run.batch.requests.drain(self.requests..) {
            run.means.known.remove(&(request.caller, request.id));
        }
        run.batch.changed_keys = self.changed_keys;
        run.first_uses = self.first_uses;
    }
}

/// What a change left in the state.
fn changed(state: &State, kind: &ChangeKind) -> Changed {
    let key = |id: &KeyId| {
        let key = state.keys.get(id).expect("the entry just applied is about this key");
        Changed::Key(key.clone())
    };
    let role = |name: &str| {
        let role = state.roles.get(name).expect("the entry just applied is about this role");
        Changed::Role(role.clone())
    };
    match kind {
        ChangeKind::CreateKey(CreateKey { key_id, .. })
        | ChangeKind::UpdateKey(UpdateKey { key_id, .. })
        | ChangeKind::RotateKey(RotateKey { key_id, .. })
        | ChangeKind::SuspendKey { key_id }
        | ChangeKind::ResumeKey { key_id }
        | ChangeKind::NoteDue { key_id }
        | ChangeKind::NoteIdle { key_id, .. }
        | ChangeKind::RevokeKey { key_id, .. } => key(key_id),
        ChangeKind::Anomaly(AnomalyChange::Suspend { position }) => {
            let open = state.anomalies.at(*position).and_then(|(_, open)| open.key.as_ref());
            key(open.expect("the key was just suspended for what goes on"))
        }
        ChangeKind::CreateRole { name, .. }
        | ChangeKind::UpdateRole(UpdateRole { name, .. })
        | ChangeKind::RetireRole { name, .. } => role(name),
        ChangeKind::RegisterPermissions { prefix, .. } => {
            let registered = state.permissions.get(prefix.as_str());
            Changed::Permissions(registered.expect("they were just registered").clone())
        }
        ChangeKind::RegisterLedger(_) => Changed::Ledger(
            *state.registered.keys().next_back().expect("a ledger was just registered"),
        ),
        ChangeKind::UpdatePolicy(_) => Changed::Policy(state.policy.clone()),
        ChangeKind::RecordEvent(_)
        | ChangeKind::Anomaly(_)
        | ChangeKind::CountCategories { .. }
        | ChangeKind::NoteDelivery(_)
        | ChangeKind::DigestFindings { .. }
        | ChangeKind::RegisterProducerKeys { .. }
        | ChangeKind::SetOwnerStatus { .. }
        | ChangeKind::SignReview(_)
        | ChangeKind::StartBounded { .. }
        | ChangeKind::EndBounded { .. }
        | ChangeKind::OpenLedger(_)
        | ChangeKind::StartServer { .. } => Changed::Nothing,
    }
}

fn ends_itself(call: &Call, change: &Change) -> bool {
    match &change.kind {
        ChangeKind::RevokeKey { key_id, .. } => call.credential.key_id() == Some(*key_id),
        _ => false,
    }
}
