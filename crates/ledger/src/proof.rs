//! Proofs that a leaf stands in a tree, and that a tree extends an earlier one (RFC 6962 §2.1.1 and
//! §2.1.2).
//!
//! Every hash of a proof is the root of a range of leaves. Which ranges depends on the positions
//! alone; so one list of ranges serves both a slice of leaves and a store of tiles, and says
//! beforehand which tiles are needed: an asynchronous store loads `inclusion_tiles` first and then
//! answers from memory.
//!
//! The verifiers follow RFC 9162 §2.1.3.2 and §2.1.4.2, step by step, and share nothing with the
//! makers. They take any input: a proof has at most one hash per bit of a size, and a longer one is
//! refused when the bits run out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::merkle::{Hash, TILE_WIDTH, TilePrefix, empty_root, join, node_hash, root_of, split};

/// The path from the leaf at `index` to the root, lowest first: PATH of RFC 6962 §2.1.1. `None` if
/// there is no such leaf.
pub fn inclusion(leaves: &[Hash], index: u64) -> Option<Vec<Hash>> {
    Some(roots_of_slice(leaves, &inclusion_ranges(index, leaves.len() as u64)?))
}

/// That the tree of these leaves extends that of the first `m`: PROOF of RFC 6962 §2.1.2. `None` if
/// `m` is more than there are. Empty where there is nothing to show: for `m` = 0, and for all
/// leaves.
pub fn consistency(leaves: &[Hash], m: u64) -> Option<Vec<Hash>> {
    Some(roots_of_slice(leaves, &consistency_ranges(m, leaves.len() as u64)?))
}

/// What `inclusion_from_tiles` will read, each once and in this order: at most two per level.
pub fn inclusion_tiles(index: u64, size: u64) -> Option<Vec<TilePrefix>> {
    Some(tiles_of(&inclusion_ranges(index, size)?, size))
}

/// What `consistency_from_tiles` will read, each once and in this order: at most two per level.
pub fn consistency_tiles(m: u64, n: u64) -> Option<Vec<TilePrefix>> {
    Some(tiles_of(&consistency_ranges(m, n)?, n))
}

/// `inclusion` in the first `size` leaves of a log of tiles.
///
/// Panics if `read` answers `Ok` with more or fewer hashes than asked for.
pub fn inclusion_from_tiles<E>(
    index: u64,
    size: u64,
    read: impl FnMut(TilePrefix) -> Result<Vec<Hash>, E>,
) -> Result<Option<Vec<Hash>>, E> {
    inclusion_ranges(index, size).map(|ranges| roots_of_tiles(&ranges, size, read)).transpose()
}

/// `consistency` of the first `m` with the first `n` leaves of a log of tiles.
///
/// Panics if `read` answers `Ok` with more or fewer hashes than asked for.
pub fn consistency_from_tiles<E>(
    m: u64,
    n: u64,
    read: impl FnMut(TilePrefix) -> Result<Vec<Hash>, E>,
) -> Result<Option<Vec<Hash>>, E> {
    consistency_ranges(m, n).map(|ranges| roots_of_tiles(&ranges, n, read)).transpose()
}

/// Whether `path` leads from `leaf` at `index` to the root of a tree of `size` leaves (RFC 9162
/// §2.1.3.2).
///
/// `size` must come from where `root` comes from, a checkpoint: some other sizes would accept the
/// same path.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A node at the right edge without a sibling stands unchanged on the levels up to its
            // first one.
            (node, last) = shift(node, last, node.trailing_zeros());
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = shift(node, last, 1);
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree (`n`, `root_n`) extends the tree (`m`, `root_m`) (RFC 9162
/// §2.1.4.2).
///
/// The RFC leaves out two cases with nothing to prove. They take an empty path: a tree extends
/// itself, and every tree extends the empty one.
pub fn verify_consistency(m: u64, root_m: &Hash, n: u64, root_n: &Hash, path: &[Hash]) -> bool {
    if m > n {
        return false;
    }
    if m == n {
        return path.is_empty() && root_m == root_n;
    }
    if m == 0 {
        return path.is_empty() && *root_m == empty_root();
    }
    // The path begins at the last perfect subtree of the earlier tree; if that is all of it, its
    // root is known.
    let (first, rest) = match path.split_first() {
        None => return false,
        Some(_) if m.is_power_of_two() => (root_m, path),
        Some(first_and_rest) => first_and_rest,
    };
    let (mut node, mut last) = shift(m - 1, n - 1, (m - 1).trailing_ones());
    let (mut earlier, mut later) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            earlier = node_hash(sibling, &earlier);
            later = node_hash(sibling, &later);
            (node, last) = shift(node, last, node.trailing_zeros());
        } else {
            later = node_hash(&later, sibling);
        }
        (node, last) = shift(node, last, 1);
    }
    last == 0 && earlier == *root_m && later == *root_n
}

/// Climbs `levels`: both the node and the last node of its level.
fn shift(node: u64, last: u64, levels: u32) -> (u64, u64) {
    (node >> levels, last >> levels)
}

/// The ranges whose roots are PATH(index, D[size]): what was left aside on the way down to the
/// leaf, lowest first.
fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    if index >= size {
        return None;
    }
    let (mut here, mut aside) = (0..size, Vec::new());
    while here.end - here.start > 1 {
        let middle = here.start + split(here.end - here.start);
        if index < middle {
            aside.push(middle..here.end);
            here.end = middle;
        } else {
            aside.push(here.start..middle);
            here.start = middle;
        }
    }
    aside.reverse();
    Some(aside)
}

/// The ranges whose roots are PROOF(m, D[n]): those left aside on the way down to the subtree that
/// ends at m, lowest first, and that subtree before them unless it is the whole earlier tree, whose
/// root the verifier has.
fn consistency_ranges(m: u64, n: u64) -> Option<Vec<Range<u64>>> {
    if m > n {
        return None;
    }
    let (mut here, mut aside) = (0..n, Vec::new());
    while m > 0 && here.end != m {
        let middle = here.start + split(here.end - here.start);
        if m <= middle {
            aside.push(middle..here.end);
            here.end = middle;
        } else {
            aside.push(here.start..middle);
            here.start = middle;
        }
    }
    if here.start > 0 {
        aside.push(here);
    }
    aside.reverse();
    Some(aside)
}

fn roots_of_slice(leaves: &[Hash], ranges: &[Range<u64>]) -> Vec<Hash> {
    ranges.iter().map(|range| root_of(&leaves[range.start as usize..range.end as usize])).collect()
}

fn roots_of_tiles<E>(
    ranges: &[Range<u64>],
    size: u64,
    mut read: impl FnMut(TilePrefix) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, E> {
    let mut tiles = BTreeMap::new();
    for tile in tiles_of(ranges, size) {
        tiles.insert(tile, tile.read_with(&mut read)?);
    }
    let root = |subtree: Subtree| root_of(&tiles[&subtree.tile(size)][subtree.run()]);
    let roots =
        ranges.iter().map(|range| join(&perfect_subtrees(range).map(root).collect::<Vec<_>>()));
    Ok(roots.collect())
}

/// The tiles of a tree of `size` leaves in which the roots of all `ranges` can be computed.
fn tiles_of(ranges: &[Range<u64>], size: u64) -> Vec<TilePrefix> {
    let tiles: BTreeSet<_> =
        ranges.iter().flat_map(perfect_subtrees).map(|subtree| subtree.tile(size)).collect();
    tiles.into_iter().collect()
}

/// A perfect subtree: the 2^height leaves from index * 2^height on.
#[derive(Clone, Copy)]
struct Subtree {
    height: u32,
    index: u64,
}

/// Eight levels of the tree stand between one level of tiles and the next.
const TILE_HEIGHT: u32 = TILE_WIDTH.ilog2();

impl Subtree {
    /// The tile whose hashes lie on or next below this subtree's root.
    fn tile(self, size: u64) -> TilePrefix {
        let level = (self.height / TILE_HEIGHT) as u8;
        TilePrefix::within(size, level, self.first_hash() / TILE_WIDTH)
    }

    /// Which hashes of that tile this subtree covers.
    fn run(self) -> Range<usize> {
        let first = (self.first_hash() % TILE_WIDTH) as usize;
        first..first + (1 << (self.height % TILE_HEIGHT))
    }

    /// The index of the first of them within their level.
    fn first_hash(self) -> u64 {
        self.index << (self.height % TILE_HEIGHT)
    }
}

/// The perfect subtrees of a range that is itself a subtree of a log, perfect or at its right edge;
/// largest first.
fn perfect_subtrees(range: &Range<u64>) -> impl Iterator<Item = Subtree> + use<> {
    let Range { mut start, end } = *range;
    std::iter::from_fn(move || {
        let height = (end - start).checked_ilog2()?;
        let subtree = Subtree { height, index: start >> height };
        start += 1 << height;
        Some(subtree)
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::merkle::tests::{
        PUBLISHED_ROOTS, hash, numbered_leaves, published_leaves, tile_by_definition,
    };

    /// The recursion of RFC 6962 §2.1.1, as it stands there.
    fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return vec![];
        }
        let (left, right) = d.split_at(split(d.len() as u64) as usize);
        let (mut proof, sibling) = if m < left.len() {
            (path(m, left), right)
        } else {
            (path(m - left.len(), right), left)
        };
        proof.push(root_of(sibling));
        proof
    }

    /// The recursion of RFC 6962 §2.1.2, as it stands there.
    fn subproof(m: usize, d: &[Hash], known: bool) -> Vec<Hash> {
        if m == d.len() {
            return if known { vec![] } else { vec![root_of(d)] };
        }
        let (left, right) = d.split_at(split(d.len() as u64) as usize);
        let (mut proof, sibling) = if m <= left.len() {
            (subproof(m, left, known), right)
        } else {
            (subproof(m - left.len(), right, false), left)
        };
        proof.push(root_of(sibling));
        proof
    }

    fn hashes(texts: &[&str]) -> Vec<Hash> {
        texts.iter().map(|text| hash(text)).collect()
    }

    #[test]
    fn proofs_are_those_published_by_certificate_transparency() {
        let leaves = published_leaves();
        let inclusion_of_5 = [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(inclusion(&leaves, 5), Some(hashes(&inclusion_of_5)));
        let from_1_to_8 = [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ];
        assert_eq!(inclusion(&leaves, 0), Some(hashes(&from_1_to_8)));
        assert_eq!(consistency(&leaves, 1), Some(hashes(&from_1_to_8)));
        let from_6_to_8 = [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ];
        assert_eq!(consistency(&leaves, 6), Some(hashes(&from_6_to_8)));
        let from_2_to_5 = [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ];
        assert_eq!(consistency(&leaves[..5], 2), Some(hashes(&from_2_to_5)));
    }

    #[test]
    fn the_published_roots_are_consistent_with_each_other() {
        let leaves = published_leaves();
        let roots = hashes(&PUBLISHED_ROOTS);
        for n in 0..=8 {
            for m in 0..=n {
                let proof = consistency(&leaves[..n], m as u64).unwrap();
                assert!(
                    verify_consistency(m as u64, &roots[m], n as u64, &roots[n], &proof),
                    "{m} to {n}"
                );
            }
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_is_that_of_the_rfc_and_verifies() {
        let leaves = numbered_leaves(70);
        for n in 1..=leaves.len() {
            let (tree, root) = (&leaves[..n], root_of(&leaves[..n]));
            for (index, leaf) in tree.iter().enumerate() {
                let proof = inclusion(tree, index as u64).unwrap();
                assert_eq!(proof, path(index, tree));
                assert!(verify_inclusion(leaf, index as u64, n as u64, &proof, &root));
            }
            for m in 1..=n {
                let proof = consistency(tree, m as u64).unwrap();
                assert_eq!(proof, subproof(m, tree, true));
                assert!(verify_consistency(
                    m as u64,
                    &root_of(&leaves[..m]),
                    n as u64,
                    &root,
                    &proof
                ));
            }
        }
    }

    #[test]
    fn there_is_no_proof_beyond_the_end() {
        let leaves = numbered_leaves(3);
        assert_eq!(inclusion(&leaves, 3), None);
        assert_eq!(inclusion(&[], 0), None);
        assert_eq!(consistency(&leaves, 4), None);
        assert_eq!(inclusion_tiles(3, 3), None);
        assert_eq!(consistency_tiles(4, 3), None);
        assert_eq!(inclusion_from_tiles(3, 3, |_| Err(())), Ok(None));
        assert_eq!(consistency_from_tiles(4, 3, |_| Err(())), Ok(None));
        assert!(!verify_inclusion(&leaves[0], 3, 3, &[], &leaves[0]));
        assert!(!verify_inclusion(&leaves[0], 1, 1, &[], &leaves[0]));
        assert!(!verify_consistency(4, &leaves[0], 3, &leaves[0], &[]));
    }

    #[test]
    fn nothing_is_to_be_shown_from_the_empty_tree_or_to_oneself() {
        let leaves = numbered_leaves(5);
        let (root, other) = (root_of(&leaves), leaves[0]);
        assert_eq!(consistency(&leaves, 0), Some(vec![]));
        assert_eq!(consistency(&leaves, 5), Some(vec![]));
        assert!(verify_consistency(0, &empty_root(), 5, &root, &[]));
        assert!(!verify_consistency(0, &other, 5, &root, &[]));
        assert!(!verify_consistency(0, &empty_root(), 5, &root, &[other]));
        assert!(verify_consistency(5, &root, 5, &root, &[]));
        assert!(!verify_consistency(5, &root, 5, &other, &[]));
        assert!(!verify_consistency(5, &root, 5, &root, &[other]));
        assert!(!verify_consistency(0, &empty_root(), 0, &root, &[]));
        assert!(!verify_consistency(4, &root, 5, &root, &[]));
    }

    #[test]
    fn a_big_log_proves_from_its_tiles_what_it_proves_from_its_leaves() {
        let leaves = numbered_leaves(70_000);
        for (position, size) in
            [(0, 70_000), (65_535, 65_536), (65_536, 70_000), (65_792, 69_999), (69_999, 70_000)]
        {
            let tree = &leaves[..size as usize];
            let read = |tile| tile_by_definition(tree, tile);
            assert_eq!(inclusion_from_tiles(position, size, read), Ok(inclusion(tree, position)));
            assert_eq!(
                consistency_from_tiles(position, size, read),
                Ok(consistency(tree, position))
            );
        }
    }

    #[test]
    fn a_proof_that_stops_below_the_root_is_refused() {
        let leaves = numbered_leaves(4);
        let (root_2, root_4) = (root_of(&leaves[..2]), root_of(&leaves));
        let (path, proof) = (inclusion(&leaves, 2).unwrap(), consistency(&leaves, 2).unwrap());
        assert!(verify_inclusion(&leaves[2], 2, 4, &path, &root_4));
        assert!(!verify_inclusion(&leaves[2], 2, 8, &path, &root_4));
        assert!(verify_consistency(2, &root_2, 4, &root_4, &proof));
        assert!(!verify_consistency(2, &root_2, 8, &root_4, &proof));
    }

    #[test]
    fn the_longest_proofs_read_two_tiles_per_level() {
        assert!(inclusion_tiles(0, u64::MAX).unwrap().len() <= 16);
        assert!(consistency_tiles(u64::MAX - 1, u64::MAX).unwrap().len() <= 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn tiles_and_leaves_give_the_same_proofs(size in 1u64..1_500, position in any::<Index>()) {
            let leaves = numbered_leaves(size);
            let position = position.index(size as usize) as u64;
            let mut read = Vec::new();
            let mut reader = |tile| {
                read.push(tile);
                tile_by_definition(&leaves, tile)
            };
            let included = inclusion_from_tiles(position, size, &mut reader);
            prop_assert_eq!(included, Ok(inclusion(&leaves, position)));
            let consistent = consistency_from_tiles(position, size, &mut reader);
            prop_assert_eq!(consistent, Ok(consistency(&leaves, position)));
            let planned = [inclusion_tiles(position, size), consistency_tiles(position, size)];
            prop_assert_eq!(read, planned.into_iter().flatten().flatten().collect::<Vec<_>>());
        }

        #[test]
        fn a_changed_proof_of_inclusion_is_refused(
            size in 1u64..300,
            position in any::<Index>(),
            at in any::<Index>(),
            byte in 0usize..32,
        ) {
            let leaves = numbered_leaves(size);
            let index = position.index(size as usize);
            let (leaf, root) = (&leaves[index], root_of(&leaves));
            let proof = inclusion(&leaves, index as u64).unwrap();
            let verify = |leaf, path: &[Hash]| {
                verify_inclusion(leaf, index as u64, size, path, &root)
            };
            prop_assert!(verify(leaf, &proof));
            for change in changes(&proof, at, byte) {
                prop_assert!(!verify(leaf, &change));
            }
            for other in (0..size).filter(|other| *other != index as u64) {
                prop_assert!(!verify_inclusion(leaf, other, size, &proof, &root));
                prop_assert!(!verify(&leaves[other as usize], &proof));
            }
        }

        #[test]
        fn a_changed_proof_of_consistency_is_refused(
            n in 2u64..300,
            position in any::<Index>(),
            at in any::<Index>(),
            byte in 0usize..32,
        ) {
            let leaves = numbered_leaves(n);
            let m = 1 + position.index(n as usize - 1) as u64;
            let (root_m, root_n) = (root_of(&leaves[..m as usize]), root_of(&leaves));
            let proof = consistency(&leaves, m).unwrap();
            prop_assert!(verify_consistency(m, &root_m, n, &root_n, &proof));
            for change in changes(&proof, at, byte) {
                prop_assert!(!verify_consistency(m, &root_m, n, &root_n, &change));
            }
            let mut forked = leaves[..m as usize].to_vec();
            forked[at.index(m as usize)][byte] ^= 1;
            prop_assert!(!verify_consistency(m, &root_of(&forked), n, &root_n, &proof));
            prop_assert!(!verify_consistency(m, &root_m, n, &root_m, &proof));
        }

        #[test]
        fn verifiers_take_any_input(
            m in sizes(),
            n in sizes(),
            path in prop::collection::vec(any::<Hash>(), 0..70),
            root in any::<Hash>(),
        ) {
            prop_assert!(!verify_inclusion(&[0; 32], m, n, &path, &root));
            prop_assert!(!verify_consistency(m, &[0; 32], n, &root, &path));
        }

        #[test]
        fn plans_take_any_input(m in sizes(), n in sizes()) {
            let plans = [inclusion_tiles(m, n), consistency_tiles(m, n)];
            prop_assert!(plans.into_iter().flatten().all(|tiles| tiles.len() <= 16));
            let read = |tile: TilePrefix| Ok::<_, Infallible>(vec![[7; 32]; tile.width as usize]);
            inclusion_from_tiles(m, n, read).unwrap();
            consistency_from_tiles(m, n, read).unwrap();
        }
    }

    /// Small ones, and those next to a power of two or to the end of the numbers.
    fn sizes() -> impl Strategy<Value = u64> {
        let near_power = (0u32..64, 0u64..3)
            .prop_map(|(bit, off)| (1u64 << bit).wrapping_add(off).wrapping_sub(1));
        prop_oneof![0u64..9, near_power, any::<u64>(), Just(u64::MAX)]
    }

    /// A proof with one bit flipped, one hash less, one more.
    fn changes(proof: &[Hash], at: Index, byte: usize) -> Vec<Vec<Hash>> {
        let mut longer = proof.to_vec();
        longer.insert(at.index(proof.len() + 1), [7; 32]);
        if proof.is_empty() {
            return vec![longer];
        }
        let at = at.index(proof.len());
        let (mut flipped, mut shorter) = (proof.to_vec(), proof.to_vec());
        flipped[at][byte] ^= 1;
        shorter.remove(at);
        vec![flipped, shorter, longer]
    }
}
