//! The scrubber: reads a ledger again and again, at a quiet pace, and compares it with what this replica knows. A replica verified
//! each entry when it took it; whoever changes one later is found by this, without anyone asking.
//!
//! Compared are: each entry's signature, the columns beside it, its uses and counts, stored tiles, the root hash, and the projected
//! rows of keys. Not compared are sealed texts, verifiers of secrets, request ids, checkpoints and everything else that lies
//! beside the entries: that is what `keyledger verify` is for.
//!
//! It stops a ledger as soon as an entry, a tile or the root differs, and is seen to differ once more by a connection of the
//! sequencer's own: what it would prove by then is worth nothing. A row of a key that differs stops nothing, since nothing is
//! proved by rows, and whoever starts believes none of them: it is said once, and counted.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyledger_ledger::batch::Head;
use keyledger_ledger::id::KeyId;
use keyledger_ledger::merkle::Tile;
use keyledger_ledger::record::{encode_key, same_mac};
use keyledger_ledger::scrub::Lap;
use keyledger_ledger::verify::{Finding, Found, Problem};
use uuid::Uuid;

use crate::replica::Replica;
use crate::sequencer::Ledger;
use crate::store::connect::Database;
use crate::store::entries::{self, FullEntry};
use crate::store::keys::{self, KeyRow};
use crate::store::{StoreError, tiles};

/// How often it reads, and how much at once: some 500 entries a second, of whichever ledger's turn it is.
const PACE: Duration = Duration::from_millis(500);
const CHUNK: i64 = 256;
const CHUNK_BYTES: usize = 4 << 20;
/// How many projected rows it reads at once.
const ROWS: i64 = 1_024;
/// Most keys of a ledger whose rows are named in the log: of a changed format all would be.
const MAX_TOLD: usize = 100;

/// What the scrubber keeps of a ledger.
struct Scrubbed {
    walk: Walk,
    /// Keys that the log has named.
    told: HashSet<KeyId>,
}

/// Where the walk through a ledger is: first all entries, then all projected rows.
enum Walk {
    Entries(Box<Lap>),
    Rows {
        after: KeyId,
        /// How many have differed on this walk.
        differ: u64,
    },
}

/// What ends a step early.
enum Trouble {
    Found(String),
    /// Nothing could be read: the same step is tried again.
    Unread(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        match error {
            StoreError::Damaged(what) => Trouble::Found(what),
            error => Trouble::Unread(error),
        }
    }
}

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Trouble {
        Trouble::Found(finding.to_string())
    }
}

/// Starts it, for as long as the process lives.
pub(crate) fn start(replica: Arc<Replica>) {
    let scrubber = tokio::spawn(run(replica));
    tokio::spawn(async move {
        // It is cancelled only when the whole process ends.
        if let Err(error) = scrubber.await
            && error.is_panic()
        {
            tracing::error!(%error, "the scrubber has ended, which is a bug of ours: nothing is read again until the next start");
        }
    });
}

/// Goes round all ledgers of this replica, for ever.
async fn run(replica: Arc<Replica>) {
    let mut all: HashMap<Uuid, Scrubbed> = HashMap::new();
    let mut interval = tokio::time::interval(PACE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        for ledger in replica.all() {
            interval.tick().await;
            if ledger.stopped().is_some() {
                continue;
            }
            let begin = || Scrubbed { walk: begin(&ledger), told: HashSet::new() };
            let scrubbed = all.entry(ledger.id).or_insert_with(begin);
            match step(&ledger, scrubbed).await {
                Ok(next) => scrubbed.walk = next,
                Err(Trouble::Found(what)) => {
                    ledger.stop(&format!("stored data has changed: {what}"))
                }
                Err(Trouble::Unread(error)) => {
                    tracing::debug!(%error, "the scrubber could not read")
                }
            }
        }
    }
}

/// A walk to where the ledger is now.
fn begin(ledger: &Ledger) -> Walk {
    let head = ledger.snapshot();
    let info = head.state.ledger.as_ref().expect("a ledger that is served is open");
    Walk::Entries(Box::new(Lap::new(head.state.next_position, head.tiles.root(), info.entry_key)))
}

/// Goes on by one chunk. Returns where the walk is then; until it returns, the walk is where it was.
async fn step(ledger: &Ledger, scrubbed: &mut Scrubbed) -> Result<Walk, Trouble> {
    match &scrubbed.walk {
        Walk::Entries(lap) => {
            let next = confirmed_entries(ledger, lap).await?;
            ledger.scrubbed.store(next.position(), Ordering::Relaxed);
            Ok(match next.left() {
                0 => Walk::Rows { after: KeyId::from_bytes([0; 16]), differ: 0 },
                _ => Walk::Entries(Box::new(next)),
            })
        }
        Walk::Rows { after, differ } => {
            let rows = confirmed_rows(ledger, *after).await?;
            let differ = differ + rows.differ.len() as u64;
            tell(ledger, &mut scrubbed.told, &rows.differ);
            Ok(match rows.last {
                Some(last) => Walk::Rows { after: last, differ },
                None => {
                    ledger.rows_differ.store(differ, Ordering::Relaxed);
                    begin(ledger)
                }
            })
        }
    }
}

/// The lap after the next chunk. What is found must be found once more by the sequencer's own connections: those of readers may
/// lead to a standby that is behind.
async fn confirmed_entries(ledger: &Ledger, lap: &Lap) -> Result<Lap, Trouble> {
    match step_entries(ledger, &ledger.database, lap).await {
        Err(Trouble::Found(what)) => {
            tracing::warn!(ledger_id = %ledger.id, what, "stored data seems to have changed: it is read once more");
            step_entries(ledger, &ledger.writer, lap).await
        }
        other => other,
    }
}

async fn step_entries(ledger: &Ledger, database: &Database, lap: &Lap) -> Result<Lap, Trouble> {
    let limit = CHUNK.min(lap.left() as i64);
    let chunk = {
        let client = database.client().await?;
        let from = lap.position();
        entries::full_from_position(&client, ledger.id, from, limit, CHUNK_BYTES).await?
    };
    if chunk.is_empty() {
        lap.ended()?;
        return Ok(lap.clone());
    }
    let (next, full) = checked(lap.clone(), chunk).await?;
    if !full.is_empty() {
        let client = database.client().await?;
        for tile in full {
            let range = tile.index..tile.index + 1;
            let stored = tiles::range(&client, ledger.id, tile.level, range).await?;
            same_tile(&next, &tile, stored.first())?;
        }
    }
    Ok(next)
}

/// Verifies a chunk where nobody waits for it: 256 signatures take a while.
async fn checked(mut lap: Lap, chunk: Vec<FullEntry>) -> Result<(Lap, Vec<Tile>), Finding> {
    let work = tokio::task::spawn_blocking(move || {
        let mut full = vec![];
        for entry in chunk {
            full.extend(lap.push(&found(entry))?);
        }
        Ok((lap, full))
    });
    work.await.expect("verifying neither panics nor is cancelled")
}

fn same_tile(lap: &Lap, tile: &Tile, stored: Option<&Tile>) -> Result<(), Finding> {
    match stored == Some(tile) {
        true => Ok(()),
        false => {
            let problem = Problem::Tile { level: tile.level, index: tile.index };
            Err(Finding { position: lap.position(), problem })
        }
    }
}

fn found(entry: FullEntry) -> Found {
    Found {
        position: entry.position,
        entry: entry.entry,
        sealed: Some(entry.sealed),
        uses: entry.uses,
        columns: Some(entry.columns),
    }
}

/// What was seen of some projected rows.
#[derive(Default)]
struct Rows {
    /// Keys whose rows differ or are missing.
    differ: Vec<KeyId>,
    /// The last row's key; `None` after the last row of all.
    last: Option<KeyId>,
}

/// The next projected rows. Those that differ are looked at once more by the sequencer's own connections.
async fn confirmed_rows(ledger: &Ledger, after: KeyId) -> Result<Rows, StoreError> {
    let rows = step_rows(ledger, &ledger.database, after).await?;
    match rows.differ.is_empty() {
        true => Ok(rows),
        false => step_rows(ledger, &ledger.writer, after).await,
    }
}

async fn step_rows(ledger: &Ledger, database: &Database, after: KeyId) -> Result<Rows, StoreError> {
    // Before the rows are read: none of them may be older than this.
    let head = ledger.snapshot();
    let rows = {
        let client = database.client().await?;
        keys::rows_after(&client, ledger.id, after.uuid(), ROWS).await?
    };
    let last = rows.last().map(|row| row.key_id);
    let mut differ: Vec<KeyId> =
        rows.iter().filter(|row| !is_good(ledger, &head, row)).map(|row| row.key_id).collect();
    let stored: HashSet<KeyId> = rows.iter().map(|row| row.key_id).collect();
    let end = last.map_or(Bound::Unbounded, Bound::Included);
    let known = head.state.keys.range((Bound::Excluded(after), end));
    differ.extend(known.map(|(id, _)| *id).filter(|id| !stored.contains(id)));
    Ok(Rows { differ, last })
}

/// A row has the MAC of its bytes and, unless its key has changed since, says what this replica knows.
fn is_good(ledger: &Ledger, head: &Head, row: &KeyRow) -> bool {
    let (id, key_id) = (ledger.id.as_bytes(), row.key_id.as_bytes());
    let mac = ledger.keys.row_mac.of(keys::TABLE, id, key_id, row.position, &row.state);
    let agrees = head.state.keys.get(&row.key_id).is_none_or(|key| {
        // Uses that count change a row, and not its position.
        let same = || key.used.is_some() || encode_key(key) == row.state;
        row.position > key.position || row.position == key.position && same()
    });
    agrees && same_mac(&mac, &row.mac)
}

/// Names each key once, as long as the log can bear it.
fn tell(ledger: &Ledger, told: &mut HashSet<KeyId>, differ: &[KeyId]) {
    for key_id in differ {
        if told.len() < MAX_TOLD && told.insert(*key_id) {
            tracing::error!(ledger_id = %ledger.id, %key_id,
                "the projected row of a key differs from its entries or is missing: run `keyledger verify`");
        }
    }
}
