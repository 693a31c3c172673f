//! The Merkle tree of a ledger: RFC 6962 §2.1, cut into tiles of 256 hashes (C2SP tlog-tiles,
//! height 8).
//!
//! One tree in three sizes of memory: `root_of` is the definition, for a list one can hold; a
//! `Frontier` is the least from which a log can grow and know its root; a `TileWriter` also hands
//! out every tile that becomes full, and from full tiles any earlier root (`root_at`) and any proof
//! (`crate::proof`) can be computed.
//!
//! Hashes that are read back are taken as they come. What proves them right is that they lead to a
//! signed root.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// The hash of a leaf or of a node: SHA-256.
pub type Hash = [u8; 32];

/// Hashes in a full tile: 2^8, eight levels of the tree (C2SP tlog-tiles).
pub const TILE_WIDTH: u64 = 256;

/// The largest tree that can be restored. Positions are signed 64-bit numbers wherever they are
/// stored; so no shift or sum in this file overflows, whatever a store claims its size to be.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// RFC 6962 §2.1: the hash of a leaf is SHA-256(0x00 ‖ data).
pub fn leaf_hash(data: &[u8]) -> Hash {
    leaf_hash_of(&[data])
}

/// `leaf_hash` of the concatenation of `parts`, which need not be built.
pub fn leaf_hash_of(parts: &[&[u8]]) -> Hash {
    let leaf = Sha256::new_with_prefix([0x00]);
    parts.iter().fold(leaf, |hash, part| hash.chain_update(part)).finalize().into()
}

/// RFC 6962 §2.1: the hash of an inner node is SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// RFC 6962 §2.1: the root of the empty tree is the SHA-256 of nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// RFC 6962 §2.1: MTH over the given leaf hashes.
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// A compact range from position 0: the roots of the perfect subtrees that make up a tree, largest
/// first. There is one for every bit set in the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// `None` if there is not exactly one root for every bit set in `size`, or `size` is above
    /// `MAX_SIZE`.
    pub fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (size <= MAX_SIZE && roots.len() == size.count_ones() as usize)
            .then_some(Self { size, roots })
    }

    /// The roots of the perfect subtrees, largest first: with `size`, what `from_parts` takes.
    pub fn parts(&self) -> &[Hash] {
        &self.roots
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Hash {
        join(&self.roots)
    }

    /// Adds a leaf. Adding one to the size carries through its lowest bits, and each carry joins
    /// two subtrees.
    pub fn append(&mut self, leaf: Hash) {
        let mut root = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left =
                self.roots.pop().expect("a frontier has a root for every bit set in its size");
            root = node_hash(&left, &root);
        }
        self.roots.push(root);
        self.size += 1;
    }
}

/// A full tile. Its hashes are leaf hashes at level 0, and roots of full tiles of the level below
/// above that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub level: u8,
    pub index: u64,
    pub hashes: Vec<Hash>,
}

impl Tile {
    /// The root of the perfect subtree above these hashes: one hash of a tile of the next level.
    pub fn root(&self) -> Hash {
        root_of(&self.hashes)
    }
}

/// The first `width` hashes of a tile: what is asked of a store. The tile itself may be full by
/// now, or still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePrefix {
    pub level: u8,
    pub index: u64,
    /// 0 to `TILE_WIDTH`.
    pub width: u64,
}

impl TilePrefix {
    /// What these hashes are made of, one each, for a store that doesn't have the tile: at level 0
    /// the leaves at these positions, at level L the full tiles with these indexes at level L - 1.
    pub fn sources(&self) -> Range<u64> {
        let first = self.index * TILE_WIDTH;
        first..first + self.width
    }

    /// As much of a tile as a tree of `size` leaves has.
    pub(crate) fn within(size: u64, level: u8, index: u64) -> Self {
        let width = (hashes_at(size, level) - index * TILE_WIDTH).min(TILE_WIDTH);
        Self { level, index, width }
    }

    /// Asks `read` for exactly these hashes.
    pub(crate) fn read_with<E>(
        self,
        read: &mut impl FnMut(Self) -> Result<Vec<Hash>, E>,
    ) -> Result<Vec<Hash>, E> {
        let hashes = read(self)?;
        assert_eq!(
            hashes.len() as u64,
            self.width,
            "a reader of tiles answers with the width asked for, or an error"
        );
        Ok(hashes)
    }
}

/// Follows an appender and hands out each tile when it becomes full. It keeps the open tile of
/// every level, which is at most 255 hashes (8 KiB) each: a batch works on a clone, and drops it if
/// the batch fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileWriter {
    size: u64,
    /// The hashes of each level's open tile, as wide as `open_widths(size)` says.
    open: Vec<Vec<Hash>>,
}

impl TileWriter {
    /// The writer of an empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The writer of a tree of `size` leaves, given the hashes of the open tile of every level, as
    /// listed by `open_tiles(size)`. `None` if one is not as wide as it must be, or `size` is above
    /// `MAX_SIZE`.
    pub fn restore(size: u64, open: Vec<Vec<Hash>>) -> Option<Self> {
        let widths = open.iter().map(|hashes| hashes.len() as u64);
        (size <= MAX_SIZE && widths.eq(open_widths(size))).then_some(Self { size, open })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The compact range of the same tree. Costs a hash for every hash in an open tile: call it
    /// once per batch.
    pub fn frontier(&self) -> Frontier {
        let roots = self.open.iter().rev().flat_map(|hashes| perfect_roots(hashes)).collect();
        Frontier { size: self.size, roots }
    }

    /// The root of the whole tree, at the cost of `frontier`.
    pub fn root(&self) -> Hash {
        self.frontier().root()
    }

    /// Adds a leaf, and pushes every tile that this made full to `full`, lowest level first.
    pub fn append(&mut self, leaf: Hash, full: &mut Vec<Tile>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0u8.. {
            if self.open.len() == usize::from(level) {
                self.open.push(Vec::new());
            }
            let open = &mut self.open[usize::from(level)];
            open.push(hash);
            if (open.len() as u64) < TILE_WIDTH {
                break;
            }
            let index = hashes_at(self.size, level + 1) - 1;
            let tile = Tile { level, index, hashes: std::mem::take(open) };
            hash = tile.root();
            full.push(tile);
        }
    }

    /// The hashes asked for, if they stand in an open tile. All others stand in tiles this writer,
    /// or the one it was restored from, has handed out.
    pub fn open_prefix(&self, prefix: TilePrefix) -> Option<&[Hash]> {
        let open = self.open.get(usize::from(prefix.level))?;
        let open_index = hashes_at(self.size, prefix.level) / TILE_WIDTH;
        if prefix.index == open_index { open.get(..prefix.width as usize) } else { None }
    }
}

/// How many hashes the open tile of each level holds in a tree of `size` leaves, from level 0 up to
/// the highest level that has any: the digits of `size` in base 256, lowest first (C2SP tlog-tiles,
/// "Partial Tiles").
pub fn open_widths(size: u64) -> Vec<u64> {
    open_tiles(size).iter().map(|tile| tile.width).collect()
}

/// The open tile of each level in a tree of `size` leaves, from level 0 up. Empty ones are listed
/// too, so that a loader who reads them in order (by `TilePrefix::sources`) has what
/// `TileWriter::restore` takes.
pub fn open_tiles(size: u64) -> Vec<TilePrefix> {
    (0u8..)
        .map(|level| (level, hashes_at(size, level)))
        .take_while(|&(_, hashes)| hashes > 0)
        .map(|(level, hashes)| TilePrefix {
            level,
            index: hashes / TILE_WIDTH,
            width: hashes % TILE_WIDTH,
        })
        .collect()
}

/// The root of the first `size` leaves of a log that may have grown since. Reads one prefix per
/// level, those of `open_tiles(size)` that are not empty, from the top level down.
///
/// Panics if `read` answers `Ok` with more or fewer hashes than asked for.
pub fn root_at<E>(
    size: u64,
    mut read: impl FnMut(TilePrefix) -> Result<Vec<Hash>, E>,
) -> Result<Hash, E> {
    let mut roots = Vec::new();
    for tile in open_tiles(size).into_iter().rev().filter(|tile| tile.width > 0) {
        roots.extend(perfect_roots(&tile.read_with(&mut read)?));
    }
    Ok(join(&roots))
}

/// RFC 6962 §2.1: the largest power of two smaller than `leaves`, where a tree of two leaves or
/// more is split.
pub(crate) fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The root of a tree from the roots of its perfect subtrees, largest first.
pub(crate) fn join(roots: &[Hash]) -> Hash {
    let right_to_left = roots.iter().rev().copied();
    right_to_left.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root)
}

/// The roots of the perfect subtrees over `hashes`, largest first.
fn perfect_roots(mut hashes: &[Hash]) -> Vec<Hash> {
    let mut roots = Vec::new();
    while !hashes.is_empty() {
        let (perfect, rest) = hashes.split_at(1 << hashes.len().ilog2());
        roots.push(root_of(perfect));
        hashes = rest;
    }
    roots
}

/// How many hashes stand at a tile level in a tree of `size` leaves: each covers 256^level leaves.
fn hashes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(8 * u32::from(level)).unwrap_or(0)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The leaves that the tests of the certificate-transparency project publish roots and proofs
    /// for.
    pub(crate) fn published_leaves() -> Vec<Hash> {
        [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .iter()
        .map(|data| leaf_hash(&unhex(data)))
        .collect()
    }

    pub(crate) const PUBLISHED_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    pub(crate) fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    pub(crate) fn hash(text: &str) -> Hash {
        unhex(text).try_into().unwrap()
    }

    pub(crate) fn numbered_leaves(count: u64) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    /// The formula of C2SP tlog-tiles, "Merkle Tree": hash i of a level is
    /// MTH(D[i * 256^level : (i + 1) * 256^level]).
    pub(crate) fn tile_by_definition(
        leaves: &[Hash],
        prefix: TilePrefix,
    ) -> Result<Vec<Hash>, Infallible> {
        let covered = 1 << (8 * usize::from(prefix.level));
        let subtree = |source: u64| root_of(&leaves[source as usize * covered..][..covered]);
        Ok(prefix.sources().map(subtree).collect())
    }

    fn written(leaves: &[Hash]) -> (TileWriter, Vec<Tile>) {
        let (mut writer, mut full) = (TileWriter::new(), Vec::new());
        leaves.iter().for_each(|leaf| writer.append(*leaf, &mut full));
        (writer, full)
    }

    #[test]
    fn roots_are_those_published_by_certificate_transparency() {
        let leaves = published_leaves();
        let (mut frontier, mut writer) = (Frontier::new(), TileWriter::new());
        for (size, root) in PUBLISHED_ROOTS.into_iter().enumerate() {
            assert_eq!(root_of(&leaves[..size]), hash(root));
            assert_eq!(frontier.root(), hash(root));
            assert_eq!(writer.root(), hash(root));
            if let Some(leaf) = leaves.get(size) {
                frontier.append(*leaf);
                writer.append(*leaf, &mut Vec::new());
            }
        }
    }

    #[test]
    fn a_leaf_hashes_the_same_whole_and_in_parts() {
        assert_eq!(leaf_hash_of(&[b"key", b"", b"ledger"]), leaf_hash(b"keyledger"));
        assert_eq!(leaf_hash_of(&[]), leaf_hash(b""));
    }

    #[test]
    fn a_frontier_takes_one_root_for_each_bit_of_its_size() {
        let root = [7; 32];
        assert!(Frontier::from_parts(0, vec![]).is_some());
        assert!(Frontier::from_parts(6, vec![root; 2]).is_some());
        assert!(Frontier::from_parts(6, vec![root; 3]).is_none());
        assert!(Frontier::from_parts(MAX_SIZE, vec![root; 63]).is_some());
        assert!(Frontier::from_parts(MAX_SIZE + 1, vec![root]).is_none());
    }

    #[test]
    fn seventy_thousand_leaves_have_the_tiles_of_the_example_in_tlog_tiles() {
        let leaves = numbered_leaves(70_000);
        let (writer, full) = written(&leaves);
        let full_at = |level| full.iter().filter(|tile| tile.level == level).count();
        assert_eq!([full_at(0), full_at(1), full_at(2)], [273, 1, 0]);
        assert_eq!(open_widths(70_000), [112, 17, 1]);
        assert_eq!(writer.root(), root_of(&leaves));
        for tile in &full {
            let prefix = TilePrefix { level: tile.level, index: tile.index, width: TILE_WIDTH };
            assert_eq!(Ok(tile.hashes.clone()), tile_by_definition(&leaves, prefix));
        }
        let open = open_tiles(70_000)
            .into_iter()
            .map(|tile| tile_by_definition(&leaves, tile).unwrap())
            .collect();
        assert_eq!(TileWriter::restore(70_000, open), Some(writer));
    }

    #[test]
    fn tiles_fill_at_256_and_carry_upwards_at_65536() {
        let (mut writer, mut full) = (TileWriter::new(), Vec::new());
        for leaf in numbered_leaves(65_536) {
            let before = full.len();
            writer.append(leaf, &mut full);
            let carried =
                if writer.size() == 65_536 { 2 } else { usize::from(writer.size() % 256 == 0) };
            assert_eq!(full.len() - before, carried, "at size {}", writer.size());
        }
        let last: Vec<_> =
            full[full.len() - 2..].iter().map(|tile| (tile.level, tile.index)).collect();
        assert_eq!(last, [(0, 255), (1, 0)]);
        assert_eq!(writer.root(), full.last().unwrap().root());
        assert_eq!(open_widths(65_536), [0, 0, 1]);
    }

    #[test]
    fn the_open_tiles_of_any_size_are_its_digits() {
        assert_eq!(open_widths(0), [0; 0]);
        assert_eq!(open_widths(255), [255]);
        assert_eq!(open_widths(256), [0, 1]);
        assert_eq!(open_widths(u64::MAX), [255; 8]);
        let open = TilePrefix { level: 1, index: 1, width: 17 };
        assert_eq!(open_tiles(70_000)[1], open);
        assert_eq!(open.sources(), 256..273);
    }

    #[test]
    fn a_writer_is_not_restored_from_tiles_of_another_size() {
        let open =
            |widths: &[usize]| widths.iter().map(|&width| vec![[7; 32]; width]).collect::<Vec<_>>();
        assert!(TileWriter::restore(0, vec![]).is_some());
        assert!(TileWriter::restore(256, open(&[0, 1])).is_some());
        assert!(TileWriter::restore(256, open(&[256])).is_none());
        assert!(TileWriter::restore(256, open(&[0, 1, 0])).is_none());
        assert!(TileWriter::restore(257, open(&[0, 1])).is_none());
        assert!(TileWriter::restore(u64::MAX, open(&[255; 8])).is_none());
    }

    #[test]
    fn a_writer_answers_for_its_open_tiles_only() {
        let leaves = numbered_leaves(300);
        let (writer, _) = written(&leaves);
        let answer = |level, index, width| writer.open_prefix(TilePrefix { level, index, width });
        assert_eq!(answer(0, 1, 44), Some(&leaves[256..]));
        assert_eq!(answer(0, 1, 3), Some(&leaves[256..259]));
        assert_eq!(answer(1, 0, 1), Some(&[root_of(&leaves[..256])][..]));
        for (level, index, width) in [(0, 0, 44), (0, 1, 45), (0, 2, 1), (1, 1, 1), (2, 0, 1)] {
            assert_eq!(answer(level, index, width), None);
        }
        assert_eq!((0..=u8::MAX).filter_map(|level| answer(level, 9, 1)).count(), 0);
    }

    #[test]
    fn a_root_reads_no_empty_tile() {
        let mut read = Vec::new();
        let root = root_at(65_536, |tile| {
            read.push(tile);
            Ok::<_, Infallible>(vec![[7; 32]])
        });
        assert_eq!(root, Ok([7; 32]));
        assert_eq!(read, [TilePrefix { level: 2, index: 0, width: 1 }]);
    }

    #[test]
    fn an_error_of_the_reader_is_handed_on() {
        assert_eq!(root_at(1, |_| Err("gone")), Err("gone"));
        assert_eq!(root_at(0, |_| Err("gone")), Ok(empty_root()));
    }

    #[test]
    #[should_panic(expected = "the width asked for")]
    fn a_reader_that_answers_short_is_a_bug() {
        let _ = root_at(2, |_| Ok::<_, Infallible>(vec![[7; 32]]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn frontier_writer_and_definition_agree(size in 0u64..1_200) {
            let leaves = numbered_leaves(size);
            let (writer, _) = written(&leaves);
            let mut frontier = Frontier::new();
            leaves.iter().for_each(|leaf| frontier.append(*leaf));
            prop_assert_eq!(frontier.root(), root_of(&leaves));
            let parts = frontier.parts().to_vec();
            prop_assert_eq!(Frontier::from_parts(size, parts), Some(frontier.clone()));
            prop_assert_eq!(writer.frontier(), frontier);
        }

        #[test]
        fn a_restored_writer_goes_on_like_the_first(size in 0u64..1_200, more in 0u64..600) {
            let leaves = numbered_leaves(size + more);
            let (before, after) = leaves.split_at(size as usize);
            let (mut first, _) = written(before);
            let open = open_tiles(size).into_iter();
            let open = open.map(|tile| tile_by_definition(before, tile).unwrap()).collect();
            let mut second = TileWriter::restore(size, open).unwrap();
            prop_assert_eq!(&first, &second);
            let (mut from_first, mut from_second) = (Vec::new(), Vec::new());
            after.iter().for_each(|leaf| first.append(*leaf, &mut from_first));
            after.iter().for_each(|leaf| second.append(*leaf, &mut from_second));
            prop_assert_eq!((first, from_first), (second, from_second));
        }

        #[test]
        fn full_and_open_tiles_give_the_root_at_every_earlier_size(
            size in 0u64..2_000,
            back in 0u64..2_000,
        ) {
            let leaves = numbered_leaves(size);
            let (writer, full) = written(&leaves);
            let full = full.iter().map(|tile| ((tile.level, tile.index), &tile.hashes));
            let full: HashMap<_, _> = full.collect();
            let earlier = size.saturating_sub(back);
            let root = root_at(earlier, |tile| match writer.open_prefix(tile) {
                Some(open) => Ok(open.to_vec()),
                None => {
                    let stored = full.get(&(tile.level, tile.index)).ok_or(tile)?;
                    Ok::<_, TilePrefix>(stored[..tile.width as usize].to_vec())
                }
            });
            prop_assert_eq!(root, Ok(root_of(&leaves[..earlier as usize])));
        }
    }
}
