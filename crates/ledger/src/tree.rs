//! A whole tree at once, for as many leaves as one can hold: every path, without hashing anything twice.

use crate::merkle::{Hash, node_hash};

/// The tree of RFC 6962 §2.1 over some leaves, level by level. A node at the right edge without a sibling stands on the next
/// level too.
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    pub fn new(leaves: Vec<Hash>) -> Tree {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let join = |pair: &[Hash]| match pair {
                [left, right] => node_hash(left, right),
                alone => alone[0],
            };
            let level = below.chunks(2).map(join).collect();
            levels.push(level);
        }
        Tree { levels }
    }

    /// The path from the leaf at `index` to the root, lowest first: PATH of RFC 6962 §2.1.1. `None` if there is no such leaf.
    pub fn path(&self, index: usize) -> Option<Vec<Hash>> {
        self.levels[0].get(index)?;
        let sibling =
            |(height, level): (usize, &Vec<Hash>)| level.get((index >> height) ^ 1).copied();
        Some(self.levels.iter().enumerate().filter_map(sibling).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;
    use crate::proof::inclusion;

    #[test]
    fn its_paths_are_those_of_the_definition() {
        for size in 0..70u8 {
            let leaves: Vec<Hash> = (0..size).map(|n| leaf_hash(&[n])).collect();
            let tree = Tree::new(leaves.clone());
            for index in 0..=usize::from(size) {
                assert_eq!(tree.path(index), inclusion(&leaves, index as u64), "{index} of {size}");
            }
        }
    }
}
