//! A batch: a list of commands becomes entries, a new state and an answer for each. Pure; the sequencer makes it durable.
//!
//! Commands of one batch run at the same time, so their order is ours to choose: first all uses, judged as of the head and
//! recorded in a page that comes first; then the changes, one entry each; then, if changes were refused, a page for those.
//! So every use and every entry is true as of its own position, and an auditor can judge each again.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::apply::apply;
use crate::body::{self, Decision, DecisionReason, Event, Kind, SealedColumn, Use};
use crate::command::{
    Action, Answer, Call, Change, ChangeKind, Changed, Check, CheckAnswer, Command, CreateKey,
    EXPLAIN, Refusal, UpdateKey, UseAddress,
};
use crate::decide::{SecretRow, decide};
use crate::entry::{Entry, EntryError, EntrySigner};
use crate::id::{KeyId, Time};
use crate::judge::{self, Asked, Credential, Identity, identify};
use crate::merkle::{Hash, Tile, TileWriter};
use crate::page::PageWriter;
use crate::record::RowSum;
use crate::refusals::{Group, Refusals, Who, network_of};
use crate::restrict::{Circumstances, OWN_AUDIENCE, Source};
use crate::secret::Peppers;
use crate::state::{Key, State};
use crate::text::Sealed;

/// Where a ledger stands: its state and its tree, at the same position.
#[derive(Clone)]
pub struct Head {
    pub state: State,
    pub tiles: TileWriter,
    /// What the projected rows of this state add up to. Kept by whoever stores them.
    pub rows: RowSum,
}

/// What a batch works with, besides the head.
pub struct Means<'a> {
    pub signer: &'a EntrySigner,
    pub peppers: &'a Peppers,
    /// The batch's time: never before the newest entry's.
    pub now: Time,
    /// Requests of these callers that were answered before.
    pub known: HashMap<(KeyId, [u8; 16]), KnownRequest>,
    /// Calls shed since the last page.
    pub shed: u64,
    /// Random: the salts of counts are made from it.
    pub seed: [u8; 32],
    /// Refusals counted so far; the batch hands on what they are after it.
    pub refusals: Refusals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownRequest {
    pub digest: [u8; 32],
    pub position: u64,
}

/// What a batch came to. Nothing of it is true before COMMIT.
pub struct Batch {
    pub head: Head,
    pub entries: Vec<NewEntry>,
    pub full_tiles: Vec<Tile>,
    pub secrets: Vec<SecretRow>,
    pub requests: Vec<NewRequest>,
    pub changed_keys: Vec<Arc<Key>>,
    /// One for each command, in the order of the commands.
    pub answers: Vec<Answer>,
    /// Shed calls that no page of this batch could record.
    pub shed_left: u64,
    /// Refusals as counted after this batch.
    pub refusals: Refusals,
}

/// An entry to be written, with what lies beside it.
pub struct NewEntry {
    pub position: u64,
    pub entry: Entry,
    pub leaf_hash: Hash,
    pub event: Event,
    /// Serialised SealedColumn; empty if there are no texts.
    pub sealed: Vec<u8>,
    /// Serialised UseColumn of a page; empty for other kinds.
    pub uses: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRequest {
    pub caller: KeyId,
    pub id: [u8; 16],
    pub known: KnownRequest,
}

/// Runs a batch of commands against a head.
pub fn run(head: &Head, means: Means<'_>, commands: Vec<Command>) -> Batch {
    let mut run = Run {
        batch: Batch {
            head: head.clone(),
            entries: vec![],
            full_tiles: vec![],
            secrets: vec![],
            requests: vec![],
            changed_keys: vec![],

            answers: vec![],
            shed_left: 0,
            refusals: Refusals::default(),
        },
        means,
        page: PageWriter::default(),
    };
    run.record_folded();
    let mut answers: Vec<Option<Answer>> = vec![None; commands.len()];
    let mut changes = vec![];
    for (i, command) in commands.into_iter().enumerate() {
        match command.action {
            Action::Change(change) => changes.push((i, command.call, change)),
            action => answers[i] = Some(run.record_use(command.call, action)),
        }
    }
    run.close_page();
    for (i, call, change) in changes {
        answers[i] = Some(run.change(call, *change));
    }
    run.close_page();
    run.batch.shed_left = run.means.shed;
    run.batch.refusals = run.means.refusals;
    run.batch.answers =
        answers.into_iter().map(|a| a.expect("each command is a use or a change")).collect();
    run.batch
}

struct Run<'a> {
    batch: Batch,
    means: Means<'a>,
    page: PageWriter,
}

/// A caller that stands and holds the permission of the method.
struct Authorised {
    key: Option<Arc<Key>>,
    version: u32,
}

impl Run<'_> {
    fn state(&self) -> &State {
        &self.batch.head.state
    }

    fn record_use(&mut self, call: Call, action: Action) -> Answer {
        let caller = match self.authorise(&call) {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(call, refused),
        };
        match action {
            Action::Verify(check) => self.verify(call, &caller, *check),
            Action::Refuse(reason) => {
                let r#use = caller_use(&call, &caller, reason);
                self.record_refusal(call, r#use, Refusal::Earlier)
            }
            Action::Authenticate => Answer::Allowed { caller: caller.key },
            Action::Read | Action::Change(_) => {
                let r#use = caller_use(&call, &caller, DecisionReason::Granted);
                self.add_use(r#use, call.salt, call.texts);
                Answer::Allowed { caller: caller.key }
            }
        }
    }

    /// The one ladder for callers: known, standing, permitted.
    fn authorise(&self, call: &Call) -> Result<Authorised, RefusedCaller> {
        let refused = |key_id, version, reason, refusal| {
            Err(RefusedCaller { key_id, version, reason, refusal })
        };
        match identify(&call.credential, self.state(), self.means.peppers) {
            Identity::Internal => Ok(Authorised { key: None, version: 0 }),
            Identity::Unknown { key_id, reason } => {
                refused(key_id, 0, reason, Refusal::Unauthenticated)
            }
            Identity::Known { key_id, version } => {
                let asked = Asked {
                    permission: call.permission,
                    resource: &call.resource,
                    circumstances: Circumstances {
                        from: source(call.peer),
                        audience: Some(OWN_AUDIENCE).filter(|_| !call.permission.is_empty()),
                    },
                };
                let verdict = judge::judge(self.state(), key_id, version, asked, self.means.now);
                match verdict.reason {
                    DecisionReason::Granted => {
                        Ok(Authorised { key: self.state().keys.get(&key_id).cloned(), version })
                    }
                    DecisionReason::NoGrant => {
                        let refusal = Refusal::PermissionDenied {
                            permission: call.permission.into(),
                            resource: call.resource.clone(),
                        };
                        refused(Some(key_id), version, DecisionReason::NoGrant, refusal)
                    }
                    reason => refused(Some(key_id), version, reason, Refusal::Unauthenticated),
                }
            }
        }
    }

    fn refuse(&mut self, call: Call, refused: RefusedCaller) -> Answer {
        let mut r#use = call_use(&call, refused.reason);
        r#use.key_id = refused.key_id.map_or(vec![], |id| id.as_bytes().to_vec());
        r#use.version = refused.version;
        self.record_refusal(call, r#use, refused.refusal)
    }

    /// Records that a caller was refused: by a use of its own or, if there are many, by a count in the next second's page.
    fn record_refusal(&mut self, call: Call, r#use: Use, refusal: Refusal) -> Answer {
        let who = KeyId::from_slice(&r#use.key_id)
            .map_or_else(|| Who::Network(network_of(call.peer)), Who::Key);
        let reason = DecisionReason::try_from(r#use.reason).expect("we wrote it");
        let group = Group { method: call.method, who, reason };
        if !self.means.refusals.admit(group, self.means.now, call.trace) {
            return Answer::Folded { refusal };
        }
        self.add_use(r#use, call.salt, call.texts);
        Answer::Refused { refusal }
    }

    /// The counts of seconds that have passed.
    fn record_folded(&mut self) {
        for (i, r#use) in self.means.refusals.begin(self.means.now).into_iter().enumerate() {
            let salt = Sha256::new()
                .chain_update(self.means.seed)
                .chain_update(i.to_be_bytes())
                .finalize();
            let salt = salt[..16].try_into().expect("a SHA-256 has 32 bytes");
            self.add_use(r#use, salt, vec![]);
        }
    }

    fn verify(&mut self, call: Call, caller: &Authorised, check: Check) -> Answer {
        let (key_id, version, verdict) =
            match identify(&check.credential, self.state(), self.means.peppers) {
                Identity::Known { key_id, version } => {
                    let asked = Asked {
                        permission: &check.permission,
                        resource: &check.resource,
                        circumstances: Circumstances {
                            from: source(check.address),
                            audience: Some(&check.audience),
                        },
                    };
                    let verdict =
                        judge::judge(self.state(), key_id, version, asked, self.means.now);
                    (Some(key_id), version, verdict)
                }
                Identity::Unknown { key_id, reason } => {
                    (key_id, 0, judge::Verdict { reason, matched: None })
                }
                // A check is always of what somebody presented.
                Identity::Internal => {
                    (None, 0, judge::Verdict { reason: DecisionReason::Missing, matched: None })
                }
            };
        let r#use = Use {
            key_id: key_id.map_or(vec![], |id| id.as_bytes().to_vec()),
            version,
            caller: caller.key.as_ref().map(|key| caller_of(key, caller.version)),
            permission: check.permission,
            resource: check.resource,
            audience: check.audience,
            ..call_use(&call, verdict.reason)
        };
        let at = self.add_use(r#use, call.salt, check.texts);
        let key =
            key_id.filter(|_| version != 0).and_then(|id| self.state().keys.get(&id).cloned());
        let explain = verdict.allowed() || self.may_explain(caller);
        Answer::Verdict(Box::new(CheckAnswer {
            reason: verdict.reason,
            matched: verdict.matched,
            key,
            explain,
            at,
        }))
    }

    fn may_explain(&self, caller: &Authorised) -> bool {
        caller
            .key
            .as_ref()
            .is_none_or(|key| judge::matching_grant(self.state(), key, EXPLAIN, "keys").is_some())
    }

    fn change(&mut self, mut call: Call, change: Change) -> Answer {
        // A key may always end itself.
        if ends_itself(&call, &change) {
            call.permission = "";
        }
        let caller = match self.authorise(&call) {
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
            Err(refusal) if caller.key.is_none() => Answer::Refused { refusal },
            Err(refusal) => {
                let r#use = caller_use(&call, &caller, refusal.recorded_reason());
                self.record_refusal(call, r#use, refusal)
            }
        }
    }

    fn known_request(&self, call: &Call, caller: &Authorised) -> Option<KnownRequest> {
        self.means.known.get(&(caller.key.as_ref()?.id, call.request?.id)).copied()
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

    /// The event that a change would be, and the verifier of the secret that it makes.
    fn decide_event(
        &self,
        call: &Call,
        caller: &Authorised,
        change: &Change,
    ) -> Result<(Event, Option<SecretRow>), Refusal> {
        let key = caller.key.as_deref();
        let decided = decide(self.state(), self.means.peppers, key, change, self.means.now)?;
        let mut event = self.event(decided.kind, change);
        event.trace_id = call.trace.trace_id_bytes();
        event.span_id = call.trace.span_id_bytes();
        event.caller = key.map(|key| caller_of(key, caller.version));
        event.request_id = call.request.map_or(vec![], |r| r.id.to_vec());
        event.texts = change.texts.iter().chain(&call.texts).map(Sealed::to_body).collect();
        Ok((event, decided.secret))
    }

    fn decide_and_write(
        &mut self,
        call: &Call,
        caller: &Authorised,
        change: &Change,
    ) -> Result<Answer, Refusal> {
        let (event, secret) = self.decide_event(call, caller, change)?;
        let texts = change.texts.iter().chain(&call.texts);
        let sealed = sealed_column(texts.map(|t| t.bytes.clone()).collect());
        let position = self.append(event, sealed, vec![])?;
        if let Some(secret) = secret {
            self.batch
                .head
                .state
                .verifiers
                .insert((secret.key_id, secret.version), secret.verifier);
            self.batch.secrets.push(secret);
        }
        if let (Some(request), Some(key)) = (call.request, &caller.key) {
            let known = KnownRequest { digest: request.digest, position };
            self.means.known.insert((key.id, request.id), known);
            self.batch.requests.push(NewRequest { caller: key.id, id: request.id, known });
        }
        let result = changed(self.state(), &change.kind);
        if let Changed::Key(key) = &result {
            self.batch.changed_keys.retain(|k| k.id != key.id);
            self.batch.changed_keys.push(key.clone());
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

    /// Seals an event into the next entry and applies it. An event that doesn't apply changes nothing.
    fn append(&mut self, event: Event, sealed: Vec<u8>, uses: Vec<u8>) -> Result<u64, Refusal> {
        let entry = self.means.signer.sign(event.encode_to_vec()).map_err(|e| match e {
            EntryError::TooLarge => Refusal::EntryTooLarge,
            _ => Refusal::Internal,
        })?;
        let leaf_hash = entry.leaf_hash();
        let head = &mut self.batch.head;
        let position = head.state.next_position;
        apply(&mut head.state, leaf_hash, &event).map_err(|_| Refusal::Internal)?;
        head.tiles.append(leaf_hash, &mut self.batch.full_tiles);
        self.batch.entries.push(NewEntry { position, entry, leaf_hash, event, sealed, uses });
        Ok(position)
    }

    /// Adds a use to the open page. Its position is that of the page only if no change comes in between: so it is asked
    /// for in the first page only.
    fn add_use(
        &mut self,
        mut r#use: Use,
        salt: crate::page::UseSalt,
        texts: Vec<Sealed>,
    ) -> UseAddress {
        r#use.texts = texts.iter().map(Sealed::to_body).collect();
        let index = self.page.add(&r#use, salt, texts.into_iter().map(|t| t.bytes).collect());
        UseAddress { position: self.batch.head.state.next_position, index }
    }

    fn close_page(&mut self) {
        if self.page.is_empty() {
            return;
        }
        let page = std::mem::take(&mut self.page);
        let (page, uses) = page.finish(
            self.state().next_page,
            self.means.now,
            std::mem::take(&mut self.means.shed),
        );
        let ledger = self.state().ledger.clone().expect("only an open ledger has uses");
        let event = Event {
            ledger_id: ledger.id.to_vec(),
            epoch: ledger.epoch,
            time_us: self.means.now.micros(),
            kind: Some(Kind::UsePage(page)),
            ..Event::default()
        };
        self.append(event, vec![], uses).expect("a page is small and fits any state");
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
        | ChangeKind::RotateKey { key_id, .. }
        | ChangeKind::SuspendKey { key_id }
        | ChangeKind::ResumeKey { key_id }
        | ChangeKind::RevokeKey { key_id, .. } => key(key_id),
        ChangeKind::CreateRole { name, .. }
        | ChangeKind::UpdateRole { name, .. }
        | ChangeKind::RetireRole { name, .. } => role(name),
        ChangeKind::RegisterLedger(_) => Changed::Ledger(
            *state.registered.keys().next_back().expect("a ledger was just registered"),
        ),
        ChangeKind::OpenLedger(_) | ChangeKind::StartServer { .. } => Changed::Nothing,
    }
}

fn ends_itself(call: &Call, change: &Change) -> bool {
    match &change.kind {
        ChangeKind::RevokeKey { key_id, .. } => call.credential.key_id() == Some(*key_id),
        _ => false,
    }
}

fn source(address: Option<std::net::IpAddr>) -> Source {
    address.map_or(Source::Unknown, Source::Address)
}

struct RefusedCaller {
    key_id: Option<KeyId>,
    version: u32,
    reason: DecisionReason,
    refusal: Refusal,
}

fn caller_of(key: &Key, version: u32) -> body::Caller {
    body::Caller { key_id: key.id.as_bytes().to_vec(), version }
}

fn call_use(call: &Call, reason: DecisionReason) -> Use {
    let decision = match reason {
        DecisionReason::Granted | DecisionReason::Replayed | DecisionReason::Validated => {
            Decision::Allow
        }
        _ => Decision::Deny,
    };
    Use {
        method: call.method.into(),
        permission: call.permission.into(),
        resource: call.resource.clone(),
        decision: decision as i32,
        reason: reason as i32,
        trace_id: call.trace.trace_id_bytes(),
        span_id: call.trace.span_id_bytes(),
        ..Use::default()
    }
}

fn caller_use(call: &Call, caller: &Authorised, reason: DecisionReason) -> Use {
    Use {
        key_id: caller.key.as_ref().map_or(vec![], |key| key.id.as_bytes().to_vec()),
        version: caller.version,
        ..call_use(call, reason)
    }
}

fn sealed_column(sealed: Vec<Vec<u8>>) -> Vec<u8> {
    SealedColumn { sealed }.encode_to_vec()
}

/// A credential that stands for Keyledger itself.
pub fn internal_call(method: &'static str) -> Call {
    Call {
        credential: Credential::Internal,
        method,
        permission: "",
        resource: String::new(),
        trace: crate::id::Trace::default(),
        peer: None,
        request: None,
        texts: vec![],
        salt: [0; 16],
    }
}
