//! One more look at a log that was verified before: whether entries, the columns beside them and uses still are what they were;
//! sealed texts aren't looked at. It needs no state, so a server
//! can do it all day beside its work; what only the entries before it can tell was checked when the entry was taken.

use ed25519_dalek::VerifyingKey;

use crate::body::Kind;
use crate::category;
use crate::merkle::{Hash, Tile, TileWriter};
use crate::page;
use crate::record::Columns;
use crate::verify::{Finding, Found, Problem, compare_columns};

/// One walk from the first entry to a size whose root hash is known. Whoever takes an entry on a clone can drop it, and take the
/// entry again.
#[derive(Clone)]
pub struct Lap {
    size: u64,
    root: Hash,
    signer: VerifyingKey,
    tiles: TileWriter,
}

impl Lap {
    pub fn new(size: u64, root: Hash, signer: VerifyingKey) -> Lap {
        Lap { size, root, signer, tiles: TileWriter::new() }
    }

    /// The position of the next entry.
    pub fn position(&self) -> u64 {
        self.tiles.size()
    }

    /// How many entries are left.
    pub fn left(&self) -> u64 {
        self.size - self.position()
    }

    /// Takes the next entry. Returns the tiles that it fills, to compare with stored ones.
    pub fn push(&mut self, found: &Found) -> Result<Vec<Tile>, Finding> {
        let position = self.position();
        let leaf_hash = self.check(found).map_err(|problem| Finding { position, problem })?;
        let mut full = vec![];
        self.tiles.append(leaf_hash, &mut full);
        match self.left() == 0 && self.tiles.root() != self.root {
            true => {
                let problem = Problem::Root { from: 0, size: self.size };
                Err(Finding { position, problem })
            }
            false => Ok(full),
        }
    }

    /// That nothing more can be read, though entries are left, is a finding too.
    pub fn ended(&self) -> Result<(), Finding> {
        match self.left() {
            0 => Ok(()),
            _ => {
                let problem = Problem::Truncated { size: self.size };
                Err(Finding { position: self.position(), problem })
            }
        }
    }

    fn check(&self, found: &Found) -> Result<Hash, Problem> {
        if found.position != self.position() {
            return Err(Problem::Gap { found: found.position });
        }
        let event = found.entry.open(std::slice::from_ref(&self.signer))?;
        let leaf_hash = found.entry.leaf_hash();
        if let Some(columns) = &found.columns {
            compare_columns(columns, &Columns::derive(&event, leaf_hash))?;
        }
        match &event.kind {
            Some(Kind::UsePage(page)) => drop(page::read_uses(page, &found.uses)?),
            Some(Kind::CategoryCounted(counted)) => {
                category::read_counts(counted, &found.uses).ok_or(Problem::Counts)?;
            }
            _ if !found.uses.is_empty() => return Err(Problem::Column("uses")),
            _ => {}
        }
        Ok(leaf_hash)
    }
}
