//! One call that has passed the gate: what its handler can ask of the ledger. Whatever it asks is authorised and recorded.

use std::collections::HashMap;
use std::sync::Arc;

use keyledger_ledger::batch::Head;
use keyledger_ledger::body::{DecisionReason, SealedColumn, SealedText, Texts, decode_canonical};
use keyledger_ledger::command::{
    Action, Answer, Call, Change, ChangeKind, Changed, Check, CheckAnswer, Command, EXPLAIN,
    Refusal, RequestId,
};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time, Trace};
use keyledger_ledger::imported::Digest as ImportedDigest;
use keyledger_ledger::judge::{self, Credential, Identity, SystemCaller};
use keyledger_ledger::reports::Report;
use keyledger_ledger::state::{Key, Owner};
use keyledger_ledger::text::Sealed;
use keyledger_ledger::verify::Opening;
use keyledger_proto::methods::Asked;
use keyledger_proto::parse::{Common, RecordedEvent};
use keyledger_proto::show;
use prost::Message;
use sha2::{Digest, Sha256};

use super::status::Failure;
use crate::replica::{Replica, own_clock};
use crate::sealing::{About, random};
use crate::sequencer::{Ledger, SequencerError};
use crate::slow_hash::SlowHashes;
use crate::store::entries::{self, FullEntry};

pub(crate) struct CallContext {
    pub(crate) replica: Arc<Replica>,
    pub(crate) ledger: Arc<Ledger>,
    caller: Option<Arc<Key>>,
    pub(super) call: Call,
    digest: [u8; 32],
    asked: Arc<Asked>,
}

/// What became of a change.
pub(crate) enum Outcome {
    Done {
        position: u64,
        result: Changed,
    },
    /// It could be made, and wasn't: a dry run.
    Validated {
        result: Changed,
    },
    /// It was made before, at this position.
    Replayed {
        position: u64,
    },
    /// Nothing was done: this replica knows by now the key that it didn't know. Seal the texts again, and ask.
    Seen,
}

/// Another ledger than the caller's own.
pub(crate) struct Elsewhere {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) name: String,
}

impl CallContext {
    pub(crate) fn new(
        replica: Arc<Replica>,
        ledger: Arc<Ledger>,
        caller: Option<Arc<Key>>,
        call: Call,
    ) -> CallContext {
        CallContext { replica, ledger, caller, call, digest: [0; 32], asked: Arc::default() }
    }

    /// The caller's key, as this replica knows it.
    pub(crate) fn caller(&self) -> Result<&Arc<Key>, Failure> {
        self.caller.as_ref().ok_or(Failure::Internal("a call without a caller passed the gate"))
    }

    /// What makes a repeated request the same: method and message.
    pub(super) fn digest_request(&mut self, message: &impl Message) {
        let digest = Sha256::new().chain_update(self.call.method).chain_update(b"\n");
        let digest = digest.chain_update(message.encode_to_vec()).finalize();
        self.digest = self.keyed_digest("request", &digest);
    }

    /// What makes a repeated event the same: all that is said in it.
    pub(super) fn digest_event(&mut self, event: &RecordedEvent) {
        let digest = Sha256::new().chain_update("RecordEvents\n");
        let digest = digest.chain_update(format!("{event:?}")).finalize();
        self.digest = self.keyed_digest("request", &digest);
    }

    /// What is kept of requests for good must not confirm a guess at what stood in them: it takes a key to make it.
    pub(super) fn keyed_digest(&self, what: &str, digest: &[u8]) -> [u8; 32] {
        let table = format!("digest of a {what}");
        self.replica.keys.row_mac.of(&table, self.ledger.id.as_bytes(), &[], 0, digest)
    }

    /// The event happened in a trace of its own.
    pub(super) fn set_trace(&mut self, trace_id: [u8; 16], span_id: [u8; 8]) {
        self.call.trace = Trace { trace_id, span_id };
    }

    pub(super) async fn refuse(&self, reason: DecisionReason) -> Result<(), Failure> {
        match self.submit(Action::Refuse(reason)).await? {
            // The refusal's own cause is told by whoever refused.
            Answer::Refused { refusal: Refusal::Earlier } => Ok(()),
            Answer::Refused { refusal } => Err(refusal.into()),
            _ => Err(Failure::Internal("a refusal was answered otherwise")),
        }
    }

    /// Records that the caller reads, if it may.
    pub(super) async fn record_read(&mut self) -> Result<(), Failure> {
        self.record_reading(None).await
    }

    /// Records that the caller reads the log: what it asked, and how many events it is given.
    pub(super) async fn record_access(&mut self, returned: Option<u64>) -> Result<(), Failure> {
        self.seal_asked().await?;
        self.record_reading(returned).await
    }

    /// Whoever may not read at all is refused before anything is read, and recorded so.
    pub(super) async fn refuse_early(&mut self) -> Result<(), Failure> {
        if self.may(&self.call.resource) {
            return Ok(());
        }
        // This replica may only be behind.
        self.ledger.catch_up().await?;
        if self.may(&self.call.resource) { Ok(()) } else { self.record_access(None).await }
    }

    /// What the caller asks of the log, for the record.
    pub(super) fn set_asked(&mut self, asked: Asked) {
        self.asked = Arc::new(asked);
    }

    /// Beside where the call came from lies what was asked, and whose events were looked for.
    async fn seal_asked(&mut self) -> Result<(), Failure> {
        let asked = self.asked.clone();
        let peer_address = self.call.peer.map(|peer| peer.to_string()).unwrap_or_default();
        let texts = Texts { peer_address, asked: asked.text.clone(), ..Texts::default() };
        self.call.texts = self.seal_about_key(self.caller.as_deref(), &texts).await?;
        for name in &asked.people {
            // Of a person that nobody knows no reference is made.
            let known = self.replica.sealing.find_person(self.ledger.id, name).await?;
            let about = known.map_or(About::Nobody, About::Reference);
            let texts = Texts { actor: name.clone(), ..Texts::default() };
            let sealed = self.seal(about, &texts).await?;
            self.call.texts.extend(sealed);
        }
        Ok(())
    }

    async fn record_reading(&mut self, returned: Option<u64>) -> Result<(), Failure> {
        match self.submit(Action::Read { returned }).await? {
            Answer::Allowed { caller } => {
                self.caller = caller;
                Ok(())
            }
            Answer::Refused { refusal } => Err(refusal.into()),
            _ => Err(Failure::Internal("a read was answered otherwise")),
        }
    }

    /// The same call again, for one more question: it leaves a use of its own.
    pub(crate) fn again(&self) -> CallContext {
        CallContext {
            replica: self.replica.clone(),
            ledger: self.ledger.clone(),
            caller: self.caller.clone(),
            call: Call { salt: random(), ..self.call.clone() },
            digest: self.digest,
            asked: self.asked.clone(),
        }
    }

    /// The same call, by whoever holds a secret of this ledger: what is said of it is sealed there.
    pub(crate) async fn presented(
        &self,
        ledger: Arc<Ledger>,
        credential: Credential,
    ) -> Result<CallContext, Failure> {
        let again = self.again();
        let call = Call { credential, texts: vec![], ..again.call };
        let mut there = CallContext { ledger, call, ..again };
        if let Some(peer) = there.call.peer {
            let texts = Texts { peer_address: peer.to_string(), ..Texts::default() };
            there.call.texts = there.seal(About::Nobody, &texts).await?;
        }
        Ok(there)
    }

    /// The ledger that a key of the system ledger calls about, by its number. `None`: it stays where it is.
    pub(crate) async fn elsewhere(
        &self,
        number: LedgerNumber,
    ) -> Result<Option<Elsewhere>, Failure> {
        let system = self.ledger.number == LedgerNumber::SYSTEM.0;
        if !system || number == LedgerNumber::SYSTEM {
            return Ok(None);
        }
        let Some(ledger) = self.replica.ledger(number).await? else { return Ok(None) };
        let name = ledger.snapshot().state.ledger.as_ref().map(|l| l.name.clone());
        Ok(name.map(|name| Elsewhere { ledger, name }))
    }

    /// The same call in another ledger, by a key of the system ledger that may make it there. First the key is judged, and
    /// its use is durable, under the system ledger's own lock. Apart from OpenLedger, in no other way does a call cross
    /// ledgers.
    pub(crate) async fn cross(
        &self,
        there: &Elsewhere,
        resource: String,
    ) -> Result<CallContext, Failure> {
        let mut here = self.again_on(resource);
        here.record_read().await?;
        let key = here.caller()?.clone();
        let head = self.head();
        let identity =
            judge::identify(&self.call.credential, &head.state, &self.replica.keys.peppers);
        let Identity::Known { version, .. } = identity else {
            return Err(Failure::Internal("a caller that was judged is not known"));
        };
        let keys = format!("ledgers/{}/keys", there.name);
        let explain = judge::matching_grant(&head.state, &key, EXPLAIN, &keys).is_some();
        let by = SystemCaller { key_id: key.id, version, explain };
        let mut crossed = self.presented(there.ledger.clone(), Credential::System(by)).await?;
        crossed.caller = None;
        Ok(crossed)
    }

    /// The same call again, about one of the things that it is about.
    pub(crate) fn again_on(&self, resource: String) -> CallContext {
        let again = self.again();
        CallContext { call: Call { resource, ..again.call }, ..again }
    }

    /// The same call, where it needs another permission besides the method's.
    pub(crate) fn with_permission(self, permission: &'static str) -> CallContext {
        CallContext { call: Call { permission, ..self.call }, ..self }
    }

    /// Whether the caller holds a permission besides the method's.
    pub(crate) fn holds(&self, permission: &str, resource: &str) -> bool {
        let head = self.head();
        self.caller_in(&head).is_some_and(|key| {
            judge::matching_grant(&head.state, key, permission, resource).is_some()
        })
    }

    /// Whether the caller holds the method's permission on a resource, as of the newest state that this replica knows.
    pub(crate) fn may(&self, resource: &str) -> bool {
        self.holds(self.call.permission, resource)
    }

    /// The caller's key as it is in a state: it may have been changed since the call began.
    fn caller_in<'a>(&self, head: &'a Head) -> Option<&'a Arc<Key>> {
        self.caller.as_ref().and_then(|key| head.state.keys.get(&key.id))
    }

    /// Finds out whose a token of a request is, as far as this replica knows. That of an imported key may cost a slow hash.
    pub(crate) async fn recognise(
        &self,
        credential: Credential,
        token: &str,
    ) -> Result<Credential, Failure> {
        // Nobody who may not ask costs a slow hash.
        let slow = matches!(credential, Credential::Foreign(_));
        let system = matches!(self.call.credential, Credential::System(_));
        match !slow || system || self.may(&self.call.resource) {
            true => recognise(&self.ledger, &self.replica.slow_hashes, credential, token).await,
            false => Ok(credential),
        }
    }

    /// Asks for a verdict on the key behind a token.
    ///
    /// `unseen` is a key that this replica doesn't know. `None` means that it does by now: seal the texts again, and ask.
    pub(crate) fn verify(
        self,
        check: Check,
        unseen: Option<KeyId>,
    ) -> impl Future<Output = Result<Option<Box<CheckAnswer>>, Failure>> + Send + use<> {
        let call = Call { unseen, ..self.call };
        let command = Command { call, action: Action::Verify(Box::new(check)) };
        let answer = self.ledger.submit(command);
        async move {
            match answer.await? {
                Answer::Verdict(answer) => Ok(Some(answer)),
                Answer::Seen => Ok(None),
                Answer::Refused { refusal } => Err(refusal.into()),
                _ => Err(Failure::Internal("a check was answered otherwise")),
            }
        }
    }

    /// Records uses that the caller answered by itself. Returns the number of the next one.
    pub(crate) async fn report(&self, report: Report) -> Result<u64, Failure> {
        match self.submit(Action::Report(Box::new(report))).await? {
            Answer::Reported { recorded } => Ok(recorded),
            Answer::Refused { refusal } => Err(refusal.into()),
            _ => Err(Failure::Internal("a report was answered otherwise")),
        }
    }

    /// Says that this replica doesn't know a key that the texts of the next question are about.
    pub(crate) fn set_unseen(&mut self, key_id: Option<KeyId>) {
        self.call.unseen = key_id;
    }

    /// Changes something.
    pub(crate) async fn change(
        &mut self,
        kind: ChangeKind,
        texts: Vec<Sealed>,
        common: &Common,
    ) -> Result<Outcome, Failure> {
        self.call.request = common.request_id.map(|id| RequestId { id, digest: self.digest });
        let approval_ref = common.approval_ref.clone();
        let change = Change { kind, texts, approval_ref, validate_only: common.validate_only };
        outcome_of(self.submit(Action::Change(Box::new(change))).await?)
    }

    /// Records all of some events, or none. Each was made a change by [`CallContext::to_change`].
    pub(super) async fn record_all(
        &self,
        events: Vec<(Call, Change)>,
    ) -> Result<Vec<Outcome>, Failure> {
        match self.submit(Action::RecordAll(events)).await? {
            Answer::All(answers) => answers.into_iter().map(outcome_of).collect(),
            other => Err(outcome_of(other).err().unwrap_or(Failure::Internal(
                "events that were recorded together were answered as one",
            ))),
        }
    }

    /// The same call as a change to be made together with others.
    pub(super) fn to_change(
        &self,
        kind: ChangeKind,
        texts: Vec<Sealed>,
        request_id: Option<[u8; 16]>,
    ) -> (Call, Change) {
        let request = request_id.map(|id| RequestId { id, digest: self.digest });
        (Call { request, ..self.call.clone() }, Change::new(kind, texts))
    }

    /// The newest state that is durable. After a call was recorded it includes that record.
    pub(crate) fn head(&self) -> Arc<Head> {
        self.ledger.snapshot()
    }

    /// Time as the ledger sees it: never before its newest entry.
    pub(crate) fn now(&self) -> Time {
        self.head().state.newest_time.max(own_clock())
    }

    /// Whether the caller may read a category of the log.
    pub(crate) fn may_read(&self, category: &str) -> bool {
        self.may(&format!("logs/{category}"))
    }

    /// Whether the caller's key still stands, as of the newest state that this replica knows.
    pub(crate) fn still_stands(&self) -> bool {
        let head = self.head();
        match judge::identify(&self.call.credential, &head.state, &self.replica.keys.peppers) {
            Identity::Known { key_id, version } => head
                .state
                .keys
                .get(&key_id)
                .is_some_and(|key| judge::standing(key, version, self.now()).is_ok()),
            Identity::Internal | Identity::System(_) | Identity::Unknown { .. } => false,
        }
    }

    /// Raw entries hold every category: whoever reads them must be allowed all.
    pub(crate) fn require_everything(&self) -> Result<(), Failure> {
        let everything = Grant::new(&[self.call.permission.to_string()], "logs/**", false);
        let everything =
            everything.map_err(|_| Failure::Internal("a method's permission is malformed"))?;
        let head = self.head();
        let held =
            self.caller_in(&head).is_some_and(|key| judge::holds(&head.state, key, &everything));
        if held { Ok(()) } else { Err(self.denied("logs/**")) }
    }

    /// What the method asks for.
    pub(crate) fn permission(&self) -> &'static str {
        self.call.permission
    }

    /// The caller lacks the method's permission on a resource that only the request names.
    pub(crate) fn denied(&self, resource: &str) -> Failure {
        Refusal::PermissionDenied {
            permission: self.call.permission.into(),
            resource: resource.into(),
        }
        .into()
    }

    /// Seals texts about the owner of a key.
    pub(crate) async fn seal_about_key(
        &self,
        key: Option<&Key>,
        texts: &Texts,
    ) -> Result<Vec<Sealed>, Failure> {
        let about = match key.map(|k| &k.owner) {
            Some(Owner::User(reference)) => About::Reference(*reference),
            Some(Owner::Service(_)) | None => About::Nobody,
        };
        self.seal(about, texts).await
    }

    pub(crate) async fn seal(
        &self,
        about: About<'_>,
        texts: &Texts,
    ) -> Result<Vec<Sealed>, Failure> {
        let key = self.replica.sealing.data_key(self.ledger.id, about, own_clock()).await?;
        Ok(vec![key.seal(self.ledger.id, texts)])
    }

    /// The texts of entries at the given positions, by position; those that can't be opened are empty.
    pub(crate) async fn texts_at(&self, positions: &[u64]) -> Result<HashMap<u64, Texts>, Failure> {
        let client = self.ledger.database.client().await?;
        let entries = entries::at_positions(&client, self.ledger.id, positions).await?;
        drop(client);
        let mut all = HashMap::new();
        for entry in &entries {
            all.insert(entry.position, show::merged(&self.open_entry(entry).await?));
        }
        Ok(all)
    }

    /// The texts of one entry, in order.
    pub(crate) async fn open_entry(&self, entry: &FullEntry) -> Result<Vec<Texts>, Failure> {
        let event = keyledger_ledger::body::Event::from_signed(&entry.entry.body)
            .map_err(|_| Failure::Internal("a stored entry can't be decoded"))?;
        let column: SealedColumn =
            decode_canonical(&entry.sealed, "SealedColumn").unwrap_or_default();
        open_texts(&self.replica, &self.ledger, &event.texts, &column.sealed).await
    }

    fn submit(
        &self,
        action: Action,
    ) -> impl Future<Output = Result<Answer, SequencerError>> + Send + use<> {
        self.ledger.submit(Command { call: self.call.clone(), action })
    }
}

fn outcome_of(answer: Answer) -> Result<Outcome, Failure> {
    match answer {
        Answer::Changed { position, result } => Ok(Outcome::Done { position, result }),
        Answer::Seen => Ok(Outcome::Seen),
        Answer::Validated { result } => Ok(Outcome::Validated { result }),
        Answer::Replayed { position } => Ok(Outcome::Replayed { position }),
        Answer::Refused { refusal } => Err(refusal.into()),
        _ => Err(Failure::Internal("a change was answered otherwise")),
    }
}

/// Finds out whose a token of a request is in a ledger, as far as this replica knows. Whoever gets no place for a slow hash is
/// told to come back, and counted.
pub(crate) async fn recognise(
    ledger: &Ledger,
    slow_hashes: &SlowHashes,
    mut credential: Credential,
    token: &str,
) -> Result<Credential, Failure> {
    let (head, peppers) = (ledger.snapshot(), &ledger.keys.peppers);
    if let Credential::Foreign(foreign) = &mut credential {
        foreign.look_up(token, &head.state, peppers);
        for (key_id, digest) in foreign.slow_digests(&head.state) {
            let ImportedDigest::Argon2id(hash) = &*digest else { continue };
            let matches = slow_hashes.matches(hash, token).await;
            if matches.inspect_err(|_| ledger.count_shed())? {
                foreign.matched_slowly(key_id);
                break;
            }
        }
    }
    credential.identify(&head.state, peppers);
    Ok(credential)
}

/// Opens sealed texts in order; `None` where the key is gone or the text is not the one committed to.
pub(crate) async fn open_all(
    replica: &Replica,
    ledger: &Ledger,
    texts: &[SealedText],
    sealed: &[Vec<u8>],
) -> Result<Vec<Option<keyledger_ledger::text::Opened>>, Failure> {
    let references: Vec<[u8; 16]> =
        texts.iter().filter_map(|t| t.subject_ref.as_slice().try_into().ok()).collect();
    replica.sealing.load(ledger.id, &references).await?;
    let open = |(text, sealed): (&SealedText, &Vec<u8>)| match replica
        .sealing
        .open(ledger.id, text, sealed)
    {
        Opening::Opened(opened) if opened.matches(text) => Some(opened),
        _ => None,
    };
    Ok(texts.iter().zip(sealed).map(open).collect())
}

/// Opens sealed texts, as far as their keys exist; the others are empty.
pub(crate) async fn open_texts(
    replica: &Replica,
    ledger: &Ledger,
    texts: &[SealedText],
    sealed: &[Vec<u8>],
) -> Result<Vec<Texts>, Failure> {
    let opened = open_all(replica, ledger, texts, sealed).await?;
    Ok(opened.iter().map(|o| o.as_ref().and_then(|o| o.decode()).unwrap_or_default()).collect())
}
