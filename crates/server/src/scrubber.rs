//! The scrubber: reads all that is stored again and again, at a quiet pace, and compares it with what this replica knows. A replica
//! verified each entry when it took it; whoever changes one later is found by this, without anyone asking.
//!
//! It stops a ledger as soon as something differs: what it would prove by then is worth nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyledger_ledger::batch::Head;
use keyledger_ledger::merkle::Tile;
use keyledger_ledger::record::{encode_key, same_mac};
use keyledger_ledger::scrub::Lap;
use keyledger_ledger::verify::{Finding, Found, Problem};
use uuid::Uuid;

use crate::replica::Replica;
use crate::sequencer::Ledger;
use crate::store::entries::{self, FullEntry};
use crate::store::keys::{self, KeyRow};
use crate::store::{StoreError, tiles};

/// How often it reads, and how much at once: some 500 entries a second, of whichever ledger's turn it is.
const PACE: Duration = Duration::from_millis(500);
const CHUNK: i64 = 256;
const CHUNK_BYTES: usize = 4 << 20;
/// How many projected rows it reads at once.
const ROWS: i64 = 1_024;

/// Where the walk through a ledger is: first all entries, then all projected rows.
enum Walk {
    Entries(Box<Lap>),
    Rows { after: Uuid },
}

/// What ends a step early.
enum Trouble {
    Found(Finding),
    /// Nothing could be read: the same step is tried again.
    Unread(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        Trouble::Unread(error)
    }
}

impl From<Finding> for Trouble {
    fn from(finding: Finding) -> Trouble {
        Trouble::Found(finding)
    }
}

/// Goes round all ledgers of this replica, for ever.
pub(crate) async fn run(replica: Arc<Replica>) {
    let mut walks: HashMap<Uuid, Walk> = HashMap::new();
    let mut interval = tokio::time::interval(PACE);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        for ledger in replica.all() {
            interval.tick().await;
            if ledger.stopped().is_some() {
                continue;
            }
            let walk = walks.entry(ledger.id).or_insert_with(|| begin(&ledger));
            match step(&ledger, walk).await {
                Ok(()) => {}
                Err(Trouble::Found(finding)) => {
                    ledger.stop(&format!("stored data has changed: {finding}"))
                }
                Err(Trouble::Unread(StoreError::Damaged(what))) => ledger.stop(&what),
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

async fn step(ledger: &Ledger, walk: &mut Walk) -> Result<(), Trouble> {
    let done = match walk {
        Walk::Entries(lap) => {
            step_entries(ledger, lap).await?;
            ledger.scrubbed.store(lap.position(), Ordering::Relaxed);
            (lap.left() == 0).then_some(Walk::Rows { after: Uuid::nil() })
        }
        Walk::Rows { after } => match step_rows(ledger, *after).await? {
            Some(last) => Some(Walk::Rows { after: last }),
            None => Some(begin(ledger)),
        },
    };
    if let Some(next) = done {
        *walk = next;
    }
    Ok(())
}

async fn step_entries(ledger: &Ledger, lap: &mut Lap) -> Result<(), Trouble> {
    let client = ledger.database.client().await?;
    let limit = CHUNK.min(lap.left() as i64);
    let read = entries::full_from_position(&client, ledger.id, lap.position(), limit, CHUNK_BYTES);
    let chunk = read.await?;
    if chunk.is_empty() {
        return Ok(lap.ended()?);
    }
    let mut full = vec![];
    for entry in chunk {
        full.extend(lap.push(&found(entry))?);
    }
    for tile in full {
        let range = tile.index..tile.index + 1;
        let stored = tiles::range(&client, ledger.id, tile.level, range).await?;
        same_tile(lap, &tile, stored.first())?;
    }
    Ok(())
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

/// Checks the next projected rows of keys. Returns the last one's id; `None` after the last row of all.
async fn step_rows(ledger: &Ledger, after: Uuid) -> Result<Option<Uuid>, Trouble> {
    // Before the rows are read: none of them may be older than this.
    let head = ledger.snapshot();
    let client = ledger.database.client().await?;
    let rows = keys::rows_after(&client, ledger.id, after, ROWS).await?;
    for row in &rows {
        check_row(ledger, &head, row)?;
    }
    Ok(rows.last().map(|row| row.key_id.uuid()))
}

/// A row has the MAC of its bytes and, unless its key has changed since, says what this replica knows.
fn check_row(ledger: &Ledger, head: &Head, row: &KeyRow) -> Result<(), Finding> {
    let (id, key_id) = (ledger.id.as_bytes(), row.key_id.as_bytes());
    let mac = ledger.keys.row_mac.of(keys::TABLE, id, key_id, row.position, &row.state);
    let agrees = head.state.keys.get(&row.key_id).is_none_or(|key| {
        // Uses that count change a row, and not its position.
        let same = || key.used.is_some() || encode_key(key) == row.state;
        row.position > key.position || row.position == key.position && same()
    });
    match agrees && same_mac(&mac, &row.mac) {
        true => Ok(()),
        false => {
            let problem = Problem::Projection(format!("key {}", row.key_id));
            Err(Finding { position: row.position, problem })
        }
    }
}
