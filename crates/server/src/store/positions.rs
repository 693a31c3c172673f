//! Positions of entries, by what stands in their columns, in both orders.

use std::ops::Range;

use super::client::Client;
use keyledger_ledger::id::KeyId;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::StoreError;
use super::event_index::{Order, signed};

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// All that are no pages of uses.
    NoPages,
    Pages,
    /// Neither pages, nor events of other services, nor counts of categories.
    Changes,
    /// Those that tell how many events of each category there are.
    Counts,
    /// Events of other services, of a category.
    OfCategory(String),
    /// Reviews that were signed off.
    SignOffs,
    /// Of a trace; pages have none.
    OfTrace([u8; 16]),
    /// Called by a key.
    CalledBy(KeyId),
    /// Changes of a key.
    ChangesOf(KeyId),
}

/// Positions in a range, in order; at most `limit`.
pub(crate) async fn of(
    client: &Client,
    ledger_id: Uuid,
    which: &Which,
    range: &Range<u64>,
    order: Order,
    limit: i64,
) -> Result<Vec<u64>, StoreError> {
    // Each condition is that of an index which has the position last. That of a key's changes has their number: it rises
    // with the position.
    let (condition, by) = match which {
        Which::NoPages => ("kind <> 23", "position"),
        Which::Pages => ("kind = 23", "position"),
        Which::Changes => ("kind NOT IN (23, 39, 40)", "position"),
        Which::Counts => ("kind = 40", "position"),
        // Found among the changes that are about no key.
        Which::SignOffs => {
            ("kind = 46 AND key_id IS NULL AND kind NOT IN (23, 39, 40)", "position")
        }
        Which::OfCategory(_) => ("category = $5", "position"),
        Which::OfTrace(_) => ("trace_id = $5", "position"),
        Which::CalledBy(_) => ("caller_key_id = $5", "position"),
        Which::ChangesOf(_) => ("key_id = $5", "stream_version"),
    };
    let sql = format!(
        "/* positions::of */ SELECT position FROM entries
         WHERE ledger_id = $1 AND position >= $2 AND position < $3 AND {condition}
         ORDER BY {by} {} LIMIT $4",
        order.sql()
    );
    let (start, end) = (signed(range.start), signed(range.end));
    let mut params: Vec<&(dyn ToSql + Sync)> = vec![&ledger_id, &start, &end, &limit];
    let (category, trace, key): (&str, &[u8], Uuid);
    match which {
        Which::NoPages | Which::Pages | Which::Changes | Which::Counts | Which::SignOffs => {}
        Which::OfCategory(of) => {
            category = of;
            params.push(&category);
        }
        Which::OfTrace(of) => {
            trace = of;
            params.push(&trace);
        }
        Which::CalledBy(id) | Which::ChangesOf(id) => {
            key = id.uuid();
            params.push(&key);
        }
    }
    let rows = client.query(&client.prepare_cached(&sql).await?, &params).await?;
    Ok(rows.iter().map(|r| r.get::<_, i64>(0) as u64).collect())
}
