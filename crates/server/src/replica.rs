//! A replica: the ledgers it serves. Ledger 0 knows which others there are; what is found begun is finished here.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use keyledger_ledger::batch::internal_call;
use keyledger_ledger::body::Texts;
use keyledger_ledger::command::{
    Action, Answer, Change, ChangeKind, Changed, Command, CreateKey, Expiry, NewSecret, OpenLedger,
    Refusal,
};
use keyledger_ledger::grant::Grant;
use keyledger_ledger::id::{KeyId, LedgerNumber, Time};
use keyledger_ledger::restrict::Restrictions;
use keyledger_ledger::state::{Key, Owner, RegisteredLedger};
use keyledger_ledger::token::{Secret, Token};
use uuid::Uuid;

use crate::keydir::KeyDirectory;
use crate::sealing::{About, Sealing, random};
use crate::sequencer::{Connections, History, Ledger, SequencerError};
use crate::slow_hash::SlowHashes;
use crate::store::connect::Database;
use crate::store::{StoreError, ledgers};
use crate::streams::Streams;

/// Name of ledger 0.
pub(crate) const SYSTEM: &str = "system";

/// All that handlers need.
pub(crate) struct Replica {
    pub(crate) databases: Connections,
    pub(crate) keys: Arc<KeyDirectory>,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) system: Arc<Ledger>,
    pub(crate) history: History,
    pub(crate) slow_hashes: SlowHashes,
    pub(crate) slow_hashes_of_strangers: SlowHashes,
    pub(crate) streams: Streams,
    ledgers: RwLock<HashMap<u32, Arc<Ledger>>>,
    /// One ledger is started at a time.
    starting: tokio::sync::Mutex<()>,
}

impl Replica {
    /// Starts ledger 0 and every ledger that it knows.
    pub(crate) async fn start(
        databases: Connections,
        sealing: Database,
        keys: Arc<KeyDirectory>,
        max_folded: u64,
        streams: Streams,
    ) -> Result<Replica, StoreError> {
        let id = ledgers::find(&databases.readers.client().await?, 0).await?;
        let id = id.ok_or(StoreError::Refused(
            "the database holds no ledgers: run `keyledger init`".into(),
        ))?;
        let sealing = Arc::new(Sealing::new(sealing, &keys));
        let system = Ledger::start(id, 0, &databases, sealing.clone(), keys.clone()).await?;
        let replica = Replica {
            databases,
            keys,
            sealing,
            system,
            history: History::new(max_folded),
            slow_hashes: SlowHashes::for_callers(),
            slow_hashes_of_strangers: SlowHashes::for_strangers(),
            streams,
            ledgers: RwLock::default(),
            starting: tokio::sync::Mutex::new(()),
        };
        let registered: Vec<Arc<RegisteredLedger>> =
            replica.system.snapshot().state.registered.values().cloned().collect();
        for ledger in registered {
            replica
                .open_registered(&ledger)
                .await
                .map_err(|e| StoreError::Damaged(format!("ledger {}: {e}", ledger.name)))?;
        }
        Ok(replica)
    }

    /// The ledger of a number, if there is one. One that was registered a moment ago, elsewhere, is found too.
    pub(crate) async fn ledger(
        &self,
        number: LedgerNumber,
    ) -> Result<Option<Arc<Ledger>>, SequencerError> {
        if let Some(ledger) = self.started(number) {
            return Ok(Some(ledger));
        }
        if !self.system.snapshot().state.registered.contains_key(&number) {
            self.system.catch_up().await?;
        }
        let registered = self.system.snapshot().state.registered.get(&number).cloned();
        match registered {
            Some(ledger) => Ok(Some(self.open_registered(&ledger).await?)),
            None => Ok(None),
        }
    }

    /// All ledgers that this replica has started.
    pub(crate) fn all(&self) -> Vec<Arc<Ledger>> {
        let ledgers = self.ledgers.read().expect("no holder of this lock panics");
        std::iter::once(self.system.clone()).chain(ledgers.values().cloned()).collect()
    }

    /// A ledger that this replica has started, by its name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Ledger>> {
        let has_it = |l: &Arc<Ledger>| {
            l.snapshot().state.ledger.as_ref().is_some_and(|info| info.name == name)
        };
        self.all().into_iter().find(has_it)
    }

    /// Starts a registered ledger; writes its row and position 0 if nobody has.
    pub(crate) async fn open_registered(
        &self,
        registered: &RegisteredLedger,
    ) -> Result<Arc<Ledger>, SequencerError> {
        let _one = self.starting.lock().await;
        if let Some(ledger) = self.started(registered.number) {
            return Ok(ledger);
        }
        let id = Uuid::from_bytes(registered.id);
        let number = registered.number.0;
        ledgers::insert(&self.databases.readers.client().await?, id, number).await?;
        let (sealing, keys) = (self.sealing.clone(), self.keys.clone());
        let ledger = Ledger::start(id, number, &self.databases, sealing, keys).await?;
        open(&ledger, registered.number, &registered.name, &registered.origin).await?;
        self.ledgers.write().expect("no holder of this lock panics").insert(number, ledger.clone());
        Ok(ledger)
    }

    /// The ledger of a number, if this replica serves it already.
    pub(crate) fn started(&self, number: LedgerNumber) -> Option<Arc<Ledger>> {
        if number == LedgerNumber::SYSTEM {
            return Some(self.system.clone());
        }
        self.ledgers.read().expect("no holder of this lock panics").get(&number.0).cloned()
    }
}

/// Writes position 0, if nobody has.
pub(crate) async fn open(
    ledger: &Ledger,
    number: LedgerNumber,
    name: &str,
    origin: &str,
) -> Result<(), SequencerError> {
    if ledger.snapshot().state.ledger.is_some() {
        return Ok(());
    }
    let kind = ChangeKind::OpenLedger(OpenLedger {
        id: *ledger.id.as_bytes(),
        number,
        name: name.into(),
        origin: origin.into(),
        entry_public_key: ledger.keys.entry_signer.public_key().to_bytes(),
        checkpoint_public_key: ledger.keys.checkpoint_signer.verifying_key().to_bytes(),
    });
    // Another replica may do the same at the same time: then it was opened, which is all we want.
    match by_itself(ledger, Change::new(kind, vec![])).await? {
        Answer::Changed { .. } | Answer::Refused { refusal: Refusal::LedgerExists } => Ok(()),
        other => Err(SequencerError::Stopped(format!("position 0 was not written: {other:?}"))),
    }
}

/// Makes the admin key of a ledger: everything, on everything, without an end. Its token is returned once.
pub(crate) async fn create_admin(
    ledger: &Ledger,
    sealing: &Sealing,
    number: LedgerNumber,
    reason: &str,
) -> Result<(Token, Arc<Key>), SequencerError> {
    let now = own_clock();
    let texts = Texts {
        purpose: "administration of this ledger".into(),
        reason: reason.into(),
        ..Texts::default()
    };
    let sealed = sealing.data_key(ledger.id, About::Nobody, now).await?.seal(ledger.id, &texts);
    let grant = Grant::new(&["*".to_string()], "**", false).expect("a constant, and well-formed");
    let key_id = KeyId::new(now, number, u64::from_be_bytes(random()));
    let secret = new_secret();
    let token = Token { key_id, secret: secret.secret.clone() };
    let kind = ChangeKind::CreateKey(CreateKey {
        key_id,
        owner: Owner::Service("keyledger-admin".into()),
        grants: vec![grant],
        roles: vec![],
        restrictions: Restrictions::default(),
        labels: vec![],
        responsible: None,
        rotation: None,
        expiry: Expiry::Never,
        secret: secret.into(),
    });
    match by_itself(ledger, Change::new(kind, vec![sealed])).await? {
        Answer::Changed { result: Changed::Key(key), .. } => Ok((token, key)),
        other => Err(SequencerError::Stopped(format!("the admin key was not made: {other:?}"))),
    }
}

/// Keyledger itself changes something.
pub(crate) async fn by_itself(ledger: &Ledger, change: Change) -> Result<Answer, SequencerError> {
    ledger
        .submit(Command {
            call: internal_call("keyledger"),
            action: Action::Change(Box::new(change)),
        })
        .await
}

pub(crate) fn new_secret() -> NewSecret {
    NewSecret { secret: Secret::new(random()), salt: random() }
}

/// This replica's clock: for ids and months. What is decided is decided by the database's.
pub(crate) fn own_clock() -> Time {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(since.as_micros() as i64)
}
