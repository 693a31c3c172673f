//! `keyledger verify` straight from the databases, and `keyledger doctor`. Both work when nothing is served, and change nothing.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::store::client::Client;
use keyledger_ledger::body::{Event, Kind, SealedText, Use, UseColumn, decode_canonical};
use keyledger_ledger::id::KeyId;
use keyledger_ledger::imported::{VERSION, commitment as commit_digest};
use keyledger_ledger::merkle::TILE_WIDTH;
use keyledger_ledger::record::{encode_key, same_mac};
use keyledger_ledger::secret;
use keyledger_ledger::verify::{Finding, Found, Opener, Opening, Problem, Verifier};
use prost::Message;
use uuid::Uuid;

use crate::config::Databases;
use crate::keydir::KeyDirectory;
use crate::sealing::Sealing;
use crate::store::connect::Database;
use crate::store::entries::{self, FullEntry};
use crate::store::{StoreError, checkpoints, imported, keys, ledgers, migrate, settings, tiles};

/// Entries and bytes read at once.
const CHUNK: i64 = 512;
const CHUNK_BYTES: usize = 16 << 20;

/// Where a ledger lies, and what opens its sealed texts, if that is at hand.
#[derive(Clone)]
pub struct Source {
    pub ledger: String,
    pub sealing: Option<String>,
    pub key_dir: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    KeyDirectory(#[from] crate::keydir::KeyDirectoryError),
    #[error("there is no ledger {0} in this database")]
    NoSuchLedger(String),
}

/// Names of the ledgers of a database, by number. A ledger whose position 0 can't be read is named by its number.
pub async fn ledger_names(source: &Source) -> Result<Vec<String>, InspectError> {
    let client = Database::new(&source.ledger)?.client().await?;
    let mut names = vec![];
    for (id, number) in ledgers::all(&client).await? {
        names.push(name_of(&client, id).await?.unwrap_or_else(|| format!("#{number}")));
    }
    Ok(names)
}

async fn name_of(client: &Client, ledger_id: Uuid) -> Result<Option<String>, StoreError> {
    let first = entries::from_position(client, ledger_id, 0, 1).await?;
    let event = first
        .first()
        .filter(|e| e.position == 0)
        .and_then(|e| Event::from_signed(&e.entry.body).ok());
    Ok(event.and_then(|e| match e.kind {
        Some(Kind::LedgerOpened(opened)) => Some(opened.name),
        _ => None,
    }))
}

/// Verifies one ledger: every entry and what lies beside it, tiles, checkpoints, projected rows and verifiers. `pins` are
/// signed notes obtained before. `progress` hears of entries done and in all.
pub async fn verify_ledger(
    source: &Source,
    ledger: &str,
    pins: &[String],
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(Verifier, Option<Finding>), InspectError> {
    let database = Database::new(&source.ledger)?;
    let keys = source.key_dir.as_deref().map(KeyDirectory::open).transpose()?;
    let sealing = match (&source.sealing, &keys) {
        (Some(url), Some(keys)) => Some(Sealing::new(Database::new(url)?, keys)),
        _ => None,
    };
    let (ledger_id, number) = find(&database.client().await?, ledger).await?;
    // What the replicas keep outside the database, read before the snapshot: it covers no more than that.
    let kept = keys.as_ref().map(|keys| keys.kept_checkpoint(number)).transpose()?.flatten();
    let pins: Vec<String> = pins.iter().cloned().chain(kept).collect();
    let pins = pins.as_slice();
    // One snapshot: entries and what lies beside them belong together, also while the ledger grows.
    let client = database.snapshot().await?;
    let mut walk = Walk { client, ledger_id, verifier: Verifier::default(), sealing };
    let finding = match walk.run(pins, progress).await {
        Ok(()) => match walk.check_beside(keys.as_ref()).await {
            Ok(()) => None,
            Err(Stop::Found(finding)) => Some(finding),
            Err(Stop::Failed(error)) => return Err(error.into()),
        },
        Err(Stop::Found(finding)) => Some(finding),
        Err(Stop::Failed(error)) => return Err(error.into()),
    };
    Ok((walk.verifier, finding))
}

async fn find(client: &Client, ledger: &str) -> Result<(Uuid, u32), InspectError> {
    for (id, number) in ledgers::all(client).await? {
        if ledger == format!("#{number}") || name_of(client, id).await?.as_deref() == Some(ledger) {
            return Ok((id, number));
        }
    }
    Err(InspectError::NoSuchLedger(ledger.into()))
}

struct Walk {
    client: Client,
    ledger_id: Uuid,
    verifier: Verifier,
    sealing: Option<Sealing>,
}

enum Stop {
    Found(Finding),
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    /// A column of the wrong form is a finding, not a failure to look.
    fn from(error: StoreError) -> Stop {
        Stop::Failed(error)
    }
}

impl From<Finding> for Stop {
    fn from(finding: Finding) -> Stop {
        Stop::Found(finding)
    }
}

impl Walk {
    async fn run(
        &mut self,
        pins: &[String],
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), Stop> {
        let total = entries::size(&self.client, self.ledger_id).await?;
        loop {
            let next = self.verifier.state().next_position;
            let chunk = match entries::full_from_position(
                &self.client,
                self.ledger_id,
                next,
                CHUNK,
                CHUNK_BYTES,
            )
            .await
            {
                Err(StoreError::Damaged(what)) => {
                    return Err(at(next, Problem::Projection(what)).into());
                }
                other => other?,
            };
            if chunk.is_empty() {
                break;
            }
            self.load_data_keys(&chunk).await?;
            for entry in chunk {
                let first = entry.position == 0;
                self.push(entry)?;
                if first {
                    self.expect_checkpoints(pins).await?;
                }
            }
            self.check_tiles().await?;
            progress(self.verifier.state().next_position, total);
        }
        self.verifier.finish()?;
        self.check_for_surplus_tiles().await
    }

    fn push(&mut self, entry: FullEntry) -> Result<(), Finding> {
        let found = Found {
            position: entry.position,
            entry: entry.entry,
            sealed: Some(entry.sealed),
            uses: entry.uses,
            columns: Some(entry.columns),
        };
        let mut opener = FromSealing { sealing: self.sealing.as_ref(), ledger_id: self.ledger_id };
        self.verifier.push(&found, &mut opener)
    }

    /// Brings the data keys of a chunk into memory, so that they need not be asked for one by one.
    async fn load_data_keys(&self, chunk: &[FullEntry]) -> Result<(), StoreError> {
        let Some(sealing) = &self.sealing else { return Ok(()) };
        let references: HashSet<[u8; 16]> = chunk.iter().flat_map(references).collect();
        sealing.load(self.ledger_id, &references.into_iter().collect::<Vec<_>>()).await
    }

    /// Stored checkpoints and pinned ones must agree with the entries.
    async fn expect_checkpoints(&mut self, pins: &[String]) -> Result<(), Stop> {
        let stored = checkpoints::all(&self.client, self.ledger_id).await?;
        let stored = stored.into_iter().map(|(size, note)| (Some(size), note));
        for (size, note) in stored.chain(pins.iter().map(|note| (None, note.clone()))) {
            let position = size.unwrap_or_default().saturating_sub(1);
            let opened = self.verifier.open_checkpoint(&note).expect("position 0 was taken");
            let checkpoint =
                opened.map_err(|e| at(position, Problem::Checkpoint(e.to_string())))?;
            if size.is_some_and(|size| size != checkpoint.size) {
                let problem = Problem::Checkpoint("it is stored under another size".into());
                return Err(at(position, problem).into());
            }
            self.verifier.expect(checkpoint)?;
        }
        Ok(())
    }

    async fn check_tiles(&mut self) -> Result<(), Stop> {
        for tile in self.verifier.take_full_tiles() {
            let stored =
                tiles::range(&self.client, self.ledger_id, tile.level, tile.index..tile.index + 1)
                    .await?;
            if stored.first() != Some(&tile) {
                let position = (tile.index * TILE_WIDTH) << (8 * u64::from(tile.level));
                return Err(
                    at(position, Problem::Tile { level: tile.level, index: tile.index }).into()
                );
            }
        }
        Ok(())
    }

    /// A tile that isn't full yet must not be there: whoever fills it could not store it.
    async fn check_for_surplus_tiles(&self) -> Result<(), Stop> {
        let size = self.verifier.state().next_position;
        match tiles::surplus(&self.client, self.ledger_id, size).await? {
            Some((level, index)) => Err(at(size, Problem::Tile { level, index }).into()),
            None => Ok(()),
        }
    }

    /// What lies beside the ledger: projected rows and verifiers.
    async fn check_beside(&self, keys: Option<&KeyDirectory>) -> Result<(), Stop> {
        let state = self.verifier.state();
        let (mut after, mut seen) = (Uuid::nil(), 0);
        loop {
            let rows = keys::rows_after(&self.client, self.ledger_id, after, 4_096).await?;
            let Some(last) = rows.last() else { break };
            after = last.key_id.uuid();
            seen += rows.len();
            for row in &rows {
                let table = keys::TABLE;
                let mac = keys.map(|k| {
                    k.row_mac.of(
                        table,
                        self.ledger_id.as_bytes(),
                        row.key_id.as_bytes(),
                        row.position,
                        &row.state,
                    )
                });
                let key = state.keys.get(&row.key_id);
                let same =
                    key.is_some_and(|k| k.position == row.position && encode_key(k) == row.state);
                if !same || mac.is_some_and(|mac| mac.as_slice() != row.mac) {
                    let position = key.map_or(row.position, |k| k.position);
                    return Err(
                        at(position, Problem::Projection(format!("key {}", row.key_id))).into()
                    );
                }
            }
        }
        if seen != state.keys.len() {
            let problem = Problem::Projection(format!("{seen} rows for {} keys", state.keys.len()));
            return Err(at(state.next_position, problem).into());
        }
        self.check_ledger_rows().await?;
        let Some(keys) = keys else { return Ok(()) };
        self.check_binding(keys).await?;
        // An auditor's role can't see verifiers at all.
        self.check_verifiers().await
    }

    /// All rows of keys together are bound to a position: what they add up to is what the entries come to.
    async fn check_binding(&self, keys: &KeyDirectory) -> Result<(), Stop> {
        let state = self.verifier.state();
        let id = self.ledger_id.as_bytes();
        let bound = keys::binding(&self.client, self.ledger_id).await?;
        let holds = bound.is_some_and(|(at, mac)| {
            at.position <= state.next_position
                && same_mac(&keys.row_mac.of_sum(id, &at, keys.row_mac.sum(state)), &mac)
        });
        match holds {
            true => Ok(()),
            false => {
                let problem = Problem::Projection("the binding of all rows".into());
                Err(at(state.next_position, problem).into())
            }
        }
    }

    /// Ledger 0 knows which ledgers there must be.
    async fn check_ledger_rows(&self) -> Result<(), Stop> {
        let rows = ledgers::all(&self.client).await?;
        for ledger in self.verifier.state().registered.values() {
            if !rows.contains(&(Uuid::from_bytes(ledger.id), ledger.number.0)) {
                let problem = Problem::Projection(format!("the row of ledger {}", ledger.name));
                return Err(at(ledger.position, problem).into());
            }
        }
        Ok(())
    }

    async fn check_verifiers(&self) -> Result<(), Stop> {
        let ids: Vec<_> = self.verifier.state().keys.keys().copied().collect();
        for chunk in ids.chunks(4_096) {
            let rows = keys::secrets_of(&self.client, self.ledger_id, chunk).await?;
            self.check_digests(chunk).await?;
            for key in chunk.iter().filter_map(|id| self.verifier.state().keys.get(id)) {
                // A secret that was imported and not used yet has a digest in place of a verifier.
                let digested = key.digest_commitment().is_some();
                let holds = key.versions.iter().all(|v| {
                    digested && v.number == VERSION
                        || rows.iter().any(|r| {
                            r.key_id == key.id
                                && r.version == v.number
                                && r.pepper_id == v.pepper_id
                                && secret::commitment(&r.salt, &r.verifier) == v.commitment
                        })
                });
                if !holds {
                    let problem = Problem::Projection(format!("a verifier of key {}", key.id));
                    return Err(at(key.position, problem).into());
                }
            }
        }
        Ok(())
    }
}

impl Walk {
    /// Digests of imported keys that were not used yet; no others are kept.
    async fn check_digests(&self, chunk: &[KeyId]) -> Result<(), Stop> {
        let rows = imported::of_keys(&self.client, self.ledger_id, chunk).await?;
        for key in chunk.iter().filter_map(|id| self.verifier.state().keys.get(id)) {
            let row = rows.iter().find(|row| row.key_id == key.id);
            let holds = match (key.digest_commitment(), row) {
                (Some((_, commitment)), Some(row)) => {
                    commitment == commit_digest(&row.salt, &row.digest)
                }
                (None, None) => true,
                // Rotated away before it was ever used.
                (None, Some(_)) => key.imported.as_ref().is_some_and(|i| !i.migrated),
                (Some(_), None) => false,
            };
            if !holds {
                let problem = Problem::Projection(format!("the digest of key {}", key.id));
                return Err(at(key.position, problem).into());
            }
        }
        Ok(())
    }
}

fn at(position: u64, problem: Problem) -> Finding {
    Finding { position, problem }
}

/// Subjects that the texts of an entry and its uses are about.
fn references(entry: &FullEntry) -> Vec<[u8; 16]> {
    let event = Event::from_signed(&entry.entry.body).unwrap_or_default();
    let column: UseColumn = decode_canonical(&entry.uses, "UseColumn").unwrap_or_default();
    let of_uses =
        column.uses.iter().flat_map(|u| Use::decode(u.r#use.as_slice()).unwrap_or_default().texts);
    let texts: Vec<SealedText> = event.texts.into_iter().chain(of_uses).collect();
    texts.iter().filter_map(|t| t.subject_ref.as_slice().try_into().ok()).collect()
}

struct FromSealing<'a> {
    sealing: Option<&'a Sealing>,
    ledger_id: Uuid,
}

impl Opener for FromSealing<'_> {
    fn open(&mut self, _: u64, _: usize, text: &SealedText, sealed: Option<&[u8]>) -> Opening {
        match (self.sealing, sealed) {
            (Some(sealing), Some(sealed)) => sealing.open(self.ledger_id, text, sealed),
            _ => Opening::NoKeys,
        }
    }
}

/// One thing that `doctor` looked at.
pub struct Check {
    pub what: String,
    /// The reason if it is not good.
    pub result: Result<String, String>,
}

/// Looks at everything that must be right before serving, and says what is not.
pub async fn doctor(databases: &Databases, key_dir: &std::path::Path) -> Vec<Check> {
    let mut checks = vec![];
    let mut add = |what: &str, result: Result<String, String>| {
        checks.push(Check { what: what.into(), result })
    };
    let keys = KeyDirectory::open(key_dir);
    add(
        "key directory",
        keys.as_ref().map(|_| key_dir.display().to_string()).map_err(ToString::to_string),
    );
    for (what, url, schema) in [
        ("ledger database", &databases.ledger, &migrate::LEDGER),
        ("sealing database", &databases.sealing, &migrate::SEALING),
    ] {
        add(what, check_database(url, schema).await.map_err(|e| e.to_string()));
    }
    if let Ok(keys) = keys {
        match load_ledgers(databases, keys).await {
            Ok(ledgers) => ledgers.into_iter().for_each(|(name, result)| add(&name, result)),
            Err(error) => add("ledgers", Err(error.to_string())),
        }
    }
    checks
}

async fn check_database(url: &str, schema: &migrate::Schema) -> Result<String, StoreError> {
    let database = Database::new(url)?;
    let mut client = database.client().await?;
    settings::require_durable(&client).await?;
    migrate::check(&mut client, schema).await?;
    let warning = settings::excess_privilege(&client).await?;
    Ok(warning.unwrap_or_else(|| "reachable, durable, schema of this version".into()))
}

type LedgerCheck = (String, Result<String, String>);

async fn load_ledgers(
    databases: &Databases,
    keys: KeyDirectory,
) -> Result<Vec<LedgerCheck>, StoreError> {
    let database = Database::new(&databases.ledger)?;
    let client = database.client().await?;
    let mut found = vec![];
    for (id, number) in ledgers::all(&client).await? {
        let name = name_of(&client, id).await?.unwrap_or_else(|| format!("#{number}"));
        let loaded = crate::sequencer::load(&database, id, number, &keys).await;
        let result = loaded.map(|_| "extends its last checkpoint".to_string());
        found.push((format!("ledger {name}"), result.map_err(|e| e.to_string())));
    }
    Ok(found)
}
