//! Very many events at once, for benches: decided, signed and folded as in any batch, at times of one's own choosing, and
//! written without waiting for each other. Nothing may serve the ledger meanwhile.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use keyledger_ledger::batch::{self, Batch, Head, Means};
use keyledger_ledger::body::{self, ActorKind, EventRecorded, Texts};
use keyledger_ledger::command::{Action, Answer, Call, Change, ChangeKind, Command};
use keyledger_ledger::id::{Time, Trace};
use keyledger_ledger::judge::Credential;
use keyledger_ledger::record::ProjectionAt;
use keyledger_ledger::refusals::Refusals;
use keyledger_proto::parse::{ActorName, RecordedEvent};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::load::load;
use super::{Connections, Ledger};
use crate::config::Databases;
use crate::keydir::KeyDirectory;
use crate::observer;
use crate::replica::own_clock;
use crate::sealing::{About, DataKey, Sealing, random};
use crate::serve::{ServeError, connect};
use crate::store::connect::Database;
use crate::store::ledgers::Locked;
use crate::store::{StoreError, keys, ledgers, provision, tiles};

/// Batches that wait to be written.
const AHEAD: usize = 2;

/// Who records, and who acts.
pub struct Cast {
    /// Tokens of the keys that record.
    pub producers: Vec<String>,
    /// Names of the people who are said to have acted.
    pub people: Vec<String>,
}

/// Events of one time, each with the number of the producer that records it.
pub type Events = Vec<(usize, RecordedEvent)>;

/// Records batches of events into ledger 1, each at so many microseconds after the newest entry there is now, and fills the index.
pub async fn record_in_bulk(
    databases: &Databases,
    key_dir: &Path,
    cast: Cast,
    batches: impl Iterator<Item = (i64, Events)> + Send + 'static,
) -> Result<(), ServeError> {
    let keys = Arc::new(KeyDirectory::open(key_dir)?);
    let (connections, sealing) = connect(databases).await?;
    let database = connections.writers.clone();
    let id = ledgers::find(&database.client().await?, 1).await?;
    let id = id.ok_or(StoreError::Refused("there is no ledger 1".into()))?;
    let head = load(&database, id, 1, &keys).await?;
    let seals = Arc::new(Sealing::new(sealing, &keys));
    let signing = Signing::new(id, keys.clone(), head, seals.clone(), cast).await?;
    let (sender, mut ready) = mpsc::channel(AHEAD);
    let signer = tokio::task::spawn_blocking(move || signing.run(batches, &sender));
    while let Some(batch) = ready.recv().await {
        write(&database, id, &keys, batch).await?;
    }
    signer.await.map_err(|e| StoreError::Refused(format!("the batches were not signed: {e}")))?;
    index(id, &connections, seals, keys).await
}

/// Does at once what the server would do behind the commit.
async fn index(
    id: Uuid,
    connections: &Connections,
    sealing: Arc<Sealing>,
    keys: Arc<KeyDirectory>,
) -> Result<(), ServeError> {
    let ledger = Ledger::start(id, 1, connections, sealing, keys).await?;
    Ok(observer::advance(&ledger).await?)
}

/// What Postgres does of itself in time: statistics, and which rows everybody sees. `url` is that of the tables' owner.
pub async fn vacuum(url: &str) -> Result<(), StoreError> {
    provision::vacuum(&Database::new(url)?.client().await?).await
}

struct Signing {
    ledger_id: Uuid,
    keys: Arc<KeyDirectory>,
    head: Head,
    producers: Vec<Credential>,
    people: HashMap<String, Arc<DataKey>>,
    nobody: Arc<DataKey>,
}

impl Signing {
    async fn new(
        ledger_id: Uuid,
        keys: Arc<KeyDirectory>,
        head: Head,
        sealing: Arc<Sealing>,
        cast: Cast,
    ) -> Result<Signing, StoreError> {
        let mut people = HashMap::new();
        for name in cast.people {
            let key = sealing.data_key(ledger_id, About::Person(&name), own_clock()).await?;
            people.insert(name, key);
        }
        let nobody = sealing.data_key(ledger_id, About::Nobody, own_clock()).await?;
        let identified = |token: &String| {
            let mut credential = Credential::from_text(token);
            credential.identify(&head.state, &keys.peppers);
            credential
        };
        let producers = cast.producers.iter().map(identified).collect();
        Ok(Signing { ledger_id, keys, head, producers, people, nobody })
    }

    /// Until all are signed, or nobody writes them any more. Panics if an event is refused: whoever made it is of this program.
    fn run(mut self, batches: impl Iterator<Item = (i64, Events)>, ready: &mpsc::Sender<Batch>) {
        let start = self.head.state.newest_time;
        for (after, events) in batches {
            let commands = events.into_iter().map(|(producer, e)| self.command(producer, e));
            let commands = commands.collect();
            let means = Means {
                signer: &self.keys.entry_signer,
                peppers: &self.keys.peppers,
                now: start.plus_micros(after),
                known: HashMap::new(),
                shed: 0,
                seed: random(),
                refusals: Refusals::default(),
                touched: false,
            };
            let mut batch = batch::run(&self.head, means, commands);
            let recorded = batch.answers.iter().all(|a| matches!(a, Answer::Changed { .. }));
            assert!(recorded, "each event is recorded: {:?}", batch.answers.first());
            let mac = &self.keys.row_mac;
            batch.head.rows = mac.advance(self.head.rows, &self.head.state, &batch.head.state);
            self.head = batch.head.clone();
            if ready.blocking_send(batch).is_err() {
                return;
            }
        }
    }

    fn command(&self, producer: usize, event: RecordedEvent) -> Command {
        let mut texts = Texts {
            reason: event.reason,
            client_address: event.address.map(|a| a.to_string()).unwrap_or_default(),
            ..Texts::default()
        };
        let (actor, about) = match event.actor {
            ActorName::Service(name) => (ActorKind::Service(name), &self.nobody),
            ActorName::User(name) => {
                let about = &self.people[&name];
                texts.actor = name;
                (ActorKind::UserRef(about.subject_ref.to_vec()), about)
            }
        };
        let sealed = about.seal(self.ledger_id, &texts);
        let (trace_id, span_id) = event.trace.unwrap_or_default();
        let call = Call {
            credential: self.producers[producer].clone(),
            method: "AuditService/RecordEvents",
            permission: "audit.write",
            resource: format!("logs/{}", event.category),
            trace: Trace { trace_id, span_id },
            peer: None,
            request: None,
            unseen: None,
            texts: vec![],
            salt: random(),
        };
        let recorded = EventRecorded {
            actor: Some(body::Actor { actor: Some(actor) }),
            on_behalf_of: vec![],
            action: event.action,
            resource: event.resource,
            outcome: event.outcome as i32,
            category: event.category,
            severity: event.severity as i32,
            occurred_time_us: event.occurred.map_or(0, Time::micros),
            attributes: event.attributes,
            number: 0,
            signature: None,
        };
        let change = Change::new(ChangeKind::RecordEvent(Box::new(recorded)), vec![sealed]);
        Command { call, action: Action::Change(Box::new(change)) }
    }
}

async fn write(
    database: &Database,
    id: Uuid,
    keys: &KeyDirectory,
    batch: Batch,
) -> Result<(), StoreError> {
    let next = batch.head.state.next_position;
    let locked = Locked::begin(database, id, next, 1).await?;
    if !batch.full_tiles.is_empty() {
        tiles::append(locked.client(), id, &batch.full_tiles).await?;
    }
    let at = ProjectionAt::of(&batch.head.state);
    let mac = keys.row_mac.of_sum(id.as_bytes(), &at, batch.head.rows);
    keys::bind(locked.client(), id, &at, &mac).await?;
    locked.append_and_commit(database, id, &batch.entries).await
}
