//! Trees of hashes over what is signed together, so that one signature holds for all of it.
//!
//! ```text
//!            root
//!          /      \
//!       node       \          leaf = BLAKE3(quorate/leaf/1, kind, payload)
//!      /    \       \         node = BLAKE3(quorate/node/1, left, right)
//!   leaf 0  leaf 1  leaf 2
//! ```
//! Leaves and nodes are hashed under domains of their own, so that neither passes for the other, and a leaf names the kind
//! of its statement. A node without a neighbour goes up as it is. So index and count alone say how long a path is and on
//! which side each of its hashes stands: a leaf has one path and no other.
//!
//! A [`List`] is a tree whose root commits to its length too, so that no list is the beginning of a longer one, and the empty one
//! has a root.

use serde::{Deserialize, Serialize};

use crate::{
    canon::hash_parts,
    id::{ID_BYTES, MerkleHash},
};

const LEAF_DOMAIN: &str = "quorate/leaf/1";
const NODE_DOMAIN: &str = "quorate/node/1";
const LIST_DOMAIN: &str = "quorate/list/1";

/// The leaf of a statement of a kind, from its canonical bytes.
pub fn leaf(kind: &str, payload: &[u8]) -> MerkleHash {
    // No kind has a zero byte in it: where it ends is not for the payload to say.
    MerkleHash(hash_parts(LEAF_DOMAIN, [kind.as_bytes(), &[0], payload]))
}

fn node(left: MerkleHash, right: MerkleHash) -> MerkleHash {
    MerkleHash(hash_parts(NODE_DOMAIN, [left.as_bytes(), right.as_bytes()]))
}

/// All nodes of a tree, from the leaves to the root.
#[derive(Debug)]
pub struct Tree {
    below: Vec<Vec<MerkleHash>>,
    root: MerkleHash,
}

impl Tree {
    /// The tree over these leaves; none over nothing.
    pub fn new(leaves: Vec<MerkleHash>) -> Option<Self> {
        let (mut below, mut level) = (Vec::new(), leaves);
        while level.len() > 1 {
            let pair = |pair: &[MerkleHash]| match pair {
                [left, right] => node(*left, *right),
                lone => lone[0],
            };
            let above = level.chunks(2).map(pair).collect();
            below.push(std::mem::replace(&mut level, above));
        }
        let root = *level.first()?;
        Some(Self { below, root })
    }

    /// What stands for all leaves.
    pub fn root(&self) -> MerkleHash {
        self.root
    }

    /// The neighbours on the way from a leaf to the root.
    pub fn path(&self, index: usize) -> Vec<MerkleHash> {
        let neighbour = |(height, level): (usize, &Vec<MerkleHash>)| level.get((index >> height) ^ 1).copied();
        self.below.iter().enumerate().filter_map(neighbour).collect()
    }
}

/// On which side the hashes of the path of leaf `index` of `count` stand, from the bottom: whether on the left.
fn sides(index: u32, count: u32) -> impl Iterator<Item = bool> {
    let last = count.saturating_sub(1);
    let levels = u32::BITS - last.leading_zeros();
    let side = move |height: u32| {
        let (at, last) = (index >> height, last >> height);
        let is_right = at & 1 == 1;
        (is_right || at < last).then_some(is_right)
    };
    (0..levels).filter_map(side)
}

/// Hashes that the path of leaf `index` of `count` has.
pub fn path_len(index: u32, count: u32) -> usize {
    sides(index, count).count()
}

/// The root that a path leads to from leaf `index` of `count`; none if it is longer or shorter than the way.
pub fn fold(leaf: MerkleHash, index: u32, count: u32, path: &[MerkleHash]) -> Option<MerkleHash> {
    let step = |at, (neighbour, is_left): (&MerkleHash, bool)| match is_left {
        true => node(*neighbour, at),
        false => node(at, *neighbour),
    };
    (index < count && path.len() == path_len(index, count))
        .then(|| path.iter().zip(sides(index, count)).fold(leaf, step))
}

/// A hash in a list.
pub type Hash = [u8; ID_BYTES];

/// A kind of list of hashes, by its domain and version. Lists have no more than 2^32 - 1 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List(pub &'static str);

impl List {
    fn tree(self, hashes: impl IntoIterator<Item = Hash>) -> (u32, Option<Tree>) {
        let leaves: Vec<MerkleHash> = hashes.into_iter().map(|hash| leaf(self.0, &hash)).collect();
        (u32::try_from(leaves.len()).unwrap_or(u32::MAX), Tree::new(leaves))
    }

    fn top(self, count: u32, root: Option<MerkleHash>) -> Hash {
        let root = root.as_ref().map_or(&[][..], |root| root.as_bytes());
        hash_parts(LIST_DOMAIN, [self.0.as_bytes(), &[0], &count.to_le_bytes(), root])
    }

    /// The root over a list.
    pub fn root(self, hashes: impl IntoIterator<Item = Hash>) -> Hash {
        let (count, tree) = self.tree(hashes);
        self.top(count, tree.map(|tree| tree.root()))
    }

    /// The proof of the hash at `index`, if there is one.
    pub fn prove(self, hashes: impl IntoIterator<Item = Hash>, index: u32) -> Option<Proof> {
        let (count, tree) = self.tree(hashes);
        let tree = tree.filter(|_| index < count)?;
        Some(Proof { index, count, siblings: tree.path(usize::try_from(index).ok()?) })
    }
}

/// That a hash is in a list, at its place, and how long the list is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Place of the hash, from 0.
    pub index: u32,
    /// Hashes of the list.
    pub count: u32,
    /// The path of its leaf.
    pub siblings: Vec<MerkleHash>,
}

impl Proof {
    /// The root of the list that has this hash at the proof's place; none where the proof has too few or too many parts.
    pub fn root(&self, list: List, hash: Hash) -> Option<Hash> {
        let root = fold(leaf(list.0, &hash), self.index, self.count, &self.siblings)?;
        Some(list.top(self.count, Some(root)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: u32) -> Vec<MerkleHash> {
        (0..count).map(|number| leaf("test/note/1", &number.to_be_bytes())).collect()
    }

    #[test]
    fn every_leaf_of_every_size_has_a_path_and_it_is_that_leafs_alone() {
        for count in 1..=67 {
            let leaves = leaves(count);
            let tree = Tree::new(leaves.clone()).unwrap();
            for index in 0..count {
                let (leaf, path) = (leaves[index as usize], tree.path(index as usize));
                assert_eq!(fold(leaf, index, count, &path), Some(tree.root()), "leaf {index} of {count}");
                for other in (0..count).filter(|other| *other != index) {
                    assert_ne!(fold(leaf, other, count, &path), Some(tree.root()), "{index} as {other} of {count}");
                    assert_ne!(fold(leaves[other as usize], index, count, &path), Some(tree.root()));
                }
            }
        }
    }

    #[test]
    fn a_path_that_is_longer_or_shorter_than_the_way_leads_nowhere() {
        let leaves = leaves(5);
        let path = Tree::new(leaves.clone()).unwrap().path(1);
        assert_eq!(path.len(), 3);
        let longer = [path.clone(), vec![leaves[0]]].concat();
        assert_eq!(fold(leaves[1], 1, 5, &longer), None);
        assert_eq!(fold(leaves[1], 1, 5, &path[..2]), None);
        assert_eq!(fold(leaves[1], 5, 5, &path), None);
        assert_eq!(fold(leaves[1], 0, 0, &[]), None);
        // The last of five goes up alone until the root.
        assert_eq!(path_len(4, 5), 1);
    }

    #[test]
    fn nothing_has_no_tree_and_a_leaf_is_no_node() {
        assert!(Tree::new(Vec::new()).is_none());
        let [left, right] = leaves(2)[..] else { unreachable!("two were asked for") };
        let as_payload = [left.0, right.0].concat();
        assert_ne!(Tree::new(vec![left, right]).unwrap().root(), leaf("", &as_payload));
        assert_ne!(leaf("test/a/1", b"x"), leaf("test/b/1", b"x"));
    }

    proptest! {
        #[test]
        fn a_changed_byte_anywhere_leads_to_another_root(
            count in 1u32..1025, at in any::<u32>(), change in 1u8.., byte in 0usize..32, place in any::<usize>(),
        ) {
            let leaves = leaves(count);
            let (tree, index) = (Tree::new(leaves.clone()).unwrap(), at % count);
            let (mut leaf, mut path) = (leaves[index as usize], tree.path(index as usize));
            match path.len() {
                len if place % (len + 1) < len => path[place % (len + 1)].0[byte] ^= change,
                _ => leaf.0[byte] ^= change,
            }
            prop_assert_ne!(fold(leaf, index, count, &path), Some(tree.root()));
        }
    }

    mod lists {
        use super::*;

        const LIST: List = List("quorate/test/1");

        fn hashes(count: u32) -> Vec<Hash> {
            (0..count).map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect()
        }

        #[test]
        fn every_leaf_of_every_length_has_a_proof_and_no_other_place_takes_it() {
            for count in 0..40 {
                let leaves = hashes(count);
                let root = LIST.root(leaves.iter().copied());
                for (index, leaf) in (0..).zip(&leaves) {
                    let proof = LIST.prove(leaves.iter().copied(), index).unwrap();
                    assert_eq!(proof.root(LIST, *leaf), Some(root), "{index} of {count}");
                    let moved = Proof { index: index + 1, ..proof.clone() };
                    assert_ne!(moved.root(LIST, *leaf), Some(root), "{index} of {count}");
                    assert_ne!(proof.root(LIST, [7; 32]), Some(root), "{index} of {count}");
                    assert_ne!(proof.root(List("quorate/other/1"), *leaf), Some(root), "{index} of {count}");
                }
                assert_eq!(LIST.prove(leaves.iter().copied(), count), None);
            }
        }

        #[test]
        fn a_list_is_none_of_its_beginnings_and_no_list_of_another_kind() {
            let roots: std::collections::BTreeSet<Hash> = (0..40).map(|count| LIST.root(hashes(count))).collect();
            assert_eq!(roots.len(), 40);
            assert_ne!(LIST.root(hashes(0)), List("quorate/other/1").root(hashes(0)));
        }

        proptest! {
            #[test]
            fn no_proof_panics(index: u32, count: u32, siblings in proptest::collection::vec(any::<[u8; 32]>(), 0..40)) {
                let siblings = siblings.into_iter().map(MerkleHash).collect();
                let proof = Proof { index, count, siblings };
                prop_assert_ne!(proof.root(LIST, [0; 32]), Some([0; 32]));
            }

            #[test]
            fn a_proof_with_a_part_changed_proves_nothing(count in 2u32..200, index: u32, at: usize, cut: bool) {
                let leaves = hashes(count);
                let (root, index) = (LIST.root(leaves.iter().copied()), index % count);
                let mut proof = LIST.prove(leaves.iter().copied(), index).unwrap();
                let at = at % proof.siblings.len();
                if cut { proof.siblings.remove(at); } else { proof.siblings[at].0[5] ^= 1; }
                prop_assert_ne!(proof.root(LIST, leaves[index as usize]), Some(root));
            }
        }
    }
}
