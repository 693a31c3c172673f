//! Tiles: full ones are stored, open ones are computed again from what lies below them.

use super::client::Client;
use keyledger_ledger::merkle::{
    Hash, TILE_WIDTH, Tile, TilePrefix, TileWriter, open_tiles, root_at,
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{StoreError, entries, fixed};

/// Stores tiles that became full.
pub(crate) async fn append(
    client: &Client,
    ledger_id: Uuid,
    tiles: &[Tile],
) -> Result<(), StoreError> {
    let statement = client
        .prepare_cached(
            "/* tiles::append */ INSERT INTO tiles (ledger_id, level, tile_index, hashes)
             SELECT $1, * FROM unnest($2::smallint[], $3::bigint[], $4::bytea[])",
        )
        .await?;
    let level: Vec<i16> = tiles.iter().map(|t| i16::from(t.level)).collect();
    let index: Vec<i64> = tiles.iter().map(|t| t.index as i64).collect();
    let hashes: Vec<Vec<u8>> = tiles.iter().map(|t| t.hashes.concat()).collect();
    client.execute(&statement, &[&ledger_id, &level, &index, &hashes]).await?;
    Ok(())
}

/// Stored tiles of one level whose index lies in the range, in order.
pub(crate) async fn range(
    client: &Client,
    ledger_id: Uuid,
    level: u8,
    range: std::ops::Range<u64>,
) -> Result<Vec<Tile>, StoreError> {
    let sql = "/* tiles::range */ SELECT tile_index, hashes FROM tiles
               WHERE ledger_id = $1 AND level = $2 AND tile_index >= $3 AND tile_index < $4 ORDER BY tile_index";
    let params: [&(dyn ToSql + Sync); 4] =
        [&ledger_id, &i16::from(level), &(range.start as i64), &(range.end as i64)];
    let rows = client.query(sql, &params).await?;
    rows.iter()
        .map(|r| {
            let hashes = r
                .get::<_, &[u8]>(1)
                .chunks(32)
                .map(|h| fixed(h, "a hash of a tile"))
                .collect::<Result<_, _>>()?;
            Ok(Tile { level, index: r.get::<_, i64>(0) as u64, hashes })
        })
        .collect()
}

/// Level and index of a stored tile that a tree of this size doesn't fill.
pub(crate) async fn surplus(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
) -> Result<Option<(u8, u64)>, StoreError> {
    // A shift by 64 would be one by 0; sizes have at most 63 bits.
    let sql = "/* tiles::surplus */ SELECT level, tile_index FROM tiles
               WHERE ledger_id = $1 AND tile_index >= $2::bigint >> least(8 * (level + 1), 63)
               ORDER BY level, tile_index LIMIT 1";
    let row = client.query_opt(sql, &[&ledger_id, &(size as i64)]).await?;
    Ok(row.map(|r| (r.get::<_, i16>(0) as u8, r.get::<_, i64>(1) as u64)))
}

/// The tree at a size, as the appender keeps it.
pub(crate) async fn restore(
    client: &Client,
    ledger_id: Uuid,
    size: u64,
) -> Result<TileWriter, StoreError> {
    let open = read_all(client, ledger_id, &open_tiles(size)).await?;
    TileWriter::restore(size, open)
        .ok_or_else(|| StoreError::Damaged("the tiles don't add up to the tree".into()))
}

/// The root hash that the ledger had at an earlier size.
pub(crate) async fn root(client: &Client, ledger_id: Uuid, size: u64) -> Result<Hash, StoreError> {
    let prefixes = open_tiles(size);
    let hashes = read_all(client, ledger_id, &prefixes).await?;
    root_at(size, |wanted: TilePrefix| {
        let known = prefixes.iter().position(|p| *p == wanted).map(|i| hashes[i].clone());
        known.ok_or_else(|| {
            StoreError::Damaged(format!(
                "no hashes for tile {} of level {}",
                wanted.index, wanted.level
            ))
        })
    })
}

/// The first hashes of a tile, full or open.
pub(crate) async fn prefix(
    client: &Client,
    ledger_id: Uuid,
    prefix: TilePrefix,
) -> Result<Vec<Hash>, StoreError> {
    let TilePrefix { level, index, width } = prefix;
    let stored = range(client, ledger_id, level, index..index + 1).await?.pop();
    match stored.filter(|tile| tile.hashes.len() as u64 >= width) {
        Some(mut tile) => {
            tile.hashes.truncate(width as usize);
            Ok(tile.hashes)
        }
        None => read(client, ledger_id, prefix).await,
    }
}

async fn read_all(
    client: &Client,
    ledger_id: Uuid,
    prefixes: &[TilePrefix],
) -> Result<Vec<Vec<Hash>>, StoreError> {
    let mut all = vec![];
    for prefix in prefixes {
        all.push(if prefix.width == 0 { vec![] } else { read(client, ledger_id, *prefix).await? });
    }
    Ok(all)
}

/// The first hashes of a tile, from what lies below it.
async fn read(
    client: &Client,
    ledger_id: Uuid,
    prefix: TilePrefix,
) -> Result<Vec<Hash>, StoreError> {
    let sources = prefix.sources();
    let hashes: Vec<Hash> = match prefix.level {
        0 => {
            let entries =
                entries::from_position(client, ledger_id, sources.start, TILE_WIDTH as i64).await?;
            entries
                .iter()
                .take_while(|e| e.position < sources.end)
                .map(|e| e.entry.leaf_hash())
                .collect()
        }
        level => range(client, ledger_id, level - 1, sources.clone())
            .await?
            .iter()
            .map(Tile::root)
            .collect(),
    };
    if hashes.len() as u64 != prefix.width {
        return Err(StoreError::Damaged(format!(
            "level {} of the tree lacks hashes",
            prefix.level
        )));
    }
    Ok(hashes)
}
