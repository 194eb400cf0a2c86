//! One hash for a list of hashes, and short proofs that something is in the list at its place.
//!
//! A level pairs the one below it from the left; what is left over goes up as it is. Leaves, nodes and the top are told apart
//! by a byte, lists of different kinds by their domain, and the top commits to the length, so that nothing can stand for
//! something else: a node is no leaf, and a list is no beginning of a longer one.

use serde::{Deserialize, Serialize};

use crate::id::{BlobHash, ID_BYTES};

/// A hash in a tree.
pub type Hash = [u8; ID_BYTES];

/// Levels that a proof may have: enough for every list that has a 32-bit length.
pub const LEVELS_MAX: usize = 32;

const LEAF: u8 = 0;
const NODE: u8 = 1;
const TOP: u8 = 2;

/// A kind of list, by its domain and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree(pub &'static str);

impl Tree {
    fn hash(self, kind: u8, parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.0.as_bytes()).update(&[0, kind]);
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    fn node(self, pair: &[Hash]) -> Hash {
        match pair {
            [left, right] => self.hash(NODE, &[left, right]),
            // `chunks(2)` gives no others.
            rest => rest.first().copied().unwrap_or_default(),
        }
    }

    fn top(self, count: u32, hash: &[u8]) -> Hash {
        self.hash(TOP, &[&count.to_le_bytes(), hash])
    }

    /// The root over a list. Lists have no more than 2^32 - 1 leaves.
    pub fn root(self, leaves: impl IntoIterator<Item = Hash>) -> Hash {
        let mut level: Vec<Hash> = leaves.into_iter().map(|leaf| self.hash(LEAF, &[&leaf])).collect();
        let count = length(level.len());
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| self.node(pair)).collect();
        }
        self.top(count, level.first().map_or(&[], Hash::as_slice))
    }

    /// The proof of the leaf at `index`, if there is one.
    pub fn prove(self, leaves: impl IntoIterator<Item = Hash>, index: u32) -> Option<Proof> {
        let mut level: Vec<Hash> = leaves.into_iter().map(|leaf| self.hash(LEAF, &[&leaf])).collect();
        let count = length(level.len());
        let (mut at, mut siblings) = (usize::try_from(index).ok()?, Vec::new());
        if at >= level.len() {
            return None;
        }
        while level.len() > 1 {
            siblings.extend(level.get(at ^ 1).copied().map(BlobHash));
            level = level.chunks(2).map(|pair| self.node(pair)).collect();
            at /= 2;
        }
        Some(Proof { index, count, siblings })
    }
}

fn length(leaves: usize) -> u32 {
    u32::try_from(leaves).unwrap_or(u32::MAX)
}

/// That a leaf is in a list, at its place, and how long the list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Place of the leaf, from 0.
    pub index: u32,
    /// Leaves of the list.
    pub count: u32,
    /// What the leaf is paired with, level by level; nothing where it goes up as it is.
    pub siblings: Vec<BlobHash>,
}

impl Proof {
    /// The root of the list that has this leaf at the proof's place; none where the proof has too few or too many parts.
    pub fn root(&self, tree: Tree, leaf: Hash) -> Option<Hash> {
        if self.index >= self.count || self.siblings.len() > LEVELS_MAX {
            return None;
        }
        let mut siblings = self.siblings.iter();
        let (mut at, mut length, mut hash) = (self.index, self.count, tree.hash(LEAF, &[&leaf]));
        while length > 1 {
            let is_left_over = at.is_multiple_of(2) && at + 1 == length;
            if !is_left_over {
                let sibling = siblings.next()?.0;
                hash = if at.is_multiple_of(2) { tree.node(&[hash, sibling]) } else { tree.node(&[sibling, hash]) };
            }
            (at, length) = (at / 2, length.div_ceil(2));
        }
        siblings.next().is_none().then(|| tree.top(self.count, &hash))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TREE: Tree = Tree("quorate/test/1");

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect()
    }

    #[test]
    fn every_leaf_of_every_length_has_a_proof_and_no_other_place_takes_it() {
        for count in 0..40 {
            let leaves = leaves(count);
            let root = TREE.root(leaves.iter().copied());
            for (index, leaf) in (0..).zip(&leaves) {
                let proof = TREE.prove(leaves.iter().copied(), index).unwrap();
                assert_eq!(proof.root(TREE, *leaf), Some(root), "{index} of {count}");
                let moved = Proof { index: index + 1, ..proof.clone() };
                assert_ne!(moved.root(TREE, *leaf), Some(root), "{index} of {count}");
                assert_ne!(proof.root(TREE, [7; 32]), Some(root), "{index} of {count}");
                assert_ne!(proof.root(Tree("quorate/other/1"), *leaf), Some(root), "{index} of {count}");
            }
            assert_eq!(TREE.prove(leaves.iter().copied(), count), None);
        }
    }

    #[test]
    fn a_list_is_none_of_its_beginnings_and_a_node_is_no_leaf() {
        let roots: std::collections::BTreeSet<Hash> = (0..40).map(|count| TREE.root(leaves(count))).collect();
        assert_eq!(roots.len(), 40);
        let four = leaves(4);
        let nodes = four.chunks(2).map(|pair| {
            let pair: Vec<Hash> = pair.iter().map(|leaf| TREE.hash(LEAF, &[leaf])).collect();
            TREE.node(&pair)
        });
        assert_ne!(TREE.root(nodes), TREE.root(four.clone()));
    }

    proptest! {
        #[test]
        fn no_proof_panics(index: u32, count: u32, siblings in proptest::collection::vec(any::<[u8; 32]>(), 0..40)) {
            let siblings = siblings.into_iter().map(BlobHash).collect();
            let proof = Proof { index, count, siblings };
            prop_assert_ne!(proof.root(TREE, [0; 32]), Some([0; 32]));
        }

        #[test]
        fn a_proof_with_a_part_changed_proves_nothing(count in 2u32..200, index: u32, at: usize, cut: bool) {
            let leaves = leaves(count);
            let (root, index) = (TREE.root(leaves.iter().copied()), index % count);
            let mut proof = TREE.prove(leaves.iter().copied(), index).unwrap();
            let at = at % proof.siblings.len();
            if cut { proof.siblings.remove(at); } else { proof.siblings[at].0[5] ^= 1; }
            prop_assert_ne!(proof.root(TREE, leaves[index as usize]), Some(root));
        }
    }
}
