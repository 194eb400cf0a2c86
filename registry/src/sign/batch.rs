//! What is signed together: one signature over the root of a tree, so that signing bounds no throughput.
//!
//! A [`Head`] stands for a batch. Heads of one node form a chain, its log: each names the one before by its hash and counts
//! on from it. A [`Signed`] of a batch carries the head, the head's signature and the path from its own leaf to the head's
//! root ([`Inclusion`]), so that it is as good alone as one that is signed for itself.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::{SecretKey, SignatureError, Signed, Statement};
use crate::{
    canon::{self, Bytes},
    id::{HeadId, MerkleHash, NodeId},
    merkle::{self, Tree},
};

/// Statements that one signature may stand for: a path of ten hashes.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// Bytes that a statement of a batch is longer than one that is signed for itself, at most.
pub const INCLUSION_BYTES_MAX: usize = 640;

/// How far a chain of heads goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tip {
    /// Heads so far, and with it the number of the next one.
    pub heads: u64,
    /// The last of them; zeros before the first.
    pub last: HeadId,
}

impl Tip {
    /// Before the first head.
    pub const START: Self = Self { heads: 0, last: HeadId([0; 32]) };
}

/// What a node signs about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Who signs; in it, so that the chain of one node is none of another.
    pub node: NodeId,
    /// Heads that the node signed before.
    pub seq: u64,
    /// The last of those; zeros for the first.
    pub prev: HeadId,
    /// Root of the tree over the batch.
    pub root: MerkleHash,
    /// Leaves of the tree.
    pub count: u32,
}

impl Statement for Head {
    const DOMAIN: &'static str = "quorate/head/1";
    const BYTES_MAX: usize = 256;
}

impl Head {
    /// The hash that names it.
    pub fn id(&self) -> HeadId {
        HeadId(canon::hash(Self::DOMAIN, self))
    }

    /// Where the chain goes on after it.
    pub fn tip(&self) -> Tip {
        Tip { heads: self.seq.saturating_add(1), last: self.id() }
    }

    /// How far the chain went before it.
    pub fn before(&self) -> Tip {
        Tip { heads: self.seq, last: self.prev }
    }

    /// Checks that these are the head's bytes, that its node signed them, and that they are signed for themselves.
    ///
    /// # Errors
    /// When one of it is not so.
    pub fn open(&self, signed: &Signed<Self>) -> Result<(), SignatureError> {
        if signed.inclusion.is_some() {
            return Err(SignatureError::Nested);
        }
        let (head, signer) = signed.open()?;
        let signer = NodeId(signer);
        if head.node != signer || head != *self {
            return Err(SignatureError::OtherHead { head: head.node, signer });
        }
        Ok(())
    }

    /// Whether a batch may have as many leaves as this one says.
    fn check_count(&self) -> Result<(), SignatureError> {
        match self.count as usize {
            1..=BATCH_ITEMS_MAX => Ok(()),
            count => Err(SignatureError::Count { count }),
        }
    }
}

/// Where in which batch a statement stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// The batch.
    pub head: Head,
    /// Which of its leaves.
    pub index: u32,
    /// The neighbours on the way from the leaf to the root.
    pub path: Vec<MerkleHash>,
}

impl Inclusion {
    /// Checks that the path leads from this leaf to the head's root, and that the head is the signer's.
    pub(super) fn check(&self, leaf: MerkleHash, signer: NodeId) -> Result<(), SignatureError> {
        let Head { node, root, count, .. } = self.head;
        if node != signer {
            return Err(SignatureError::OtherHead { head: node, signer });
        }
        self.head.check_count()?;
        if merkle::fold(leaf, self.index, count, &self.path) != Some(root) {
            return Err(SignatureError::Path { index: self.index, count, seq: self.head.seq });
        }
        Ok(())
    }
}

/// A batch as it is kept: with all that it stands for, its tree needs no paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct Batch<T> {
    /// The head.
    pub head: Signed<Head>,
    /// The statements, as they were signed.
    payloads: Vec<Bytes>,
    #[serde(skip)]
    kind: PhantomData<T>,
}

impl<T: Statement> Batch<T> {
    /// Signs statements together, as what comes after `tip`; gives the head's own tip.
    ///
    /// # Errors
    /// When they are none, or over [`BATCH_ITEMS_MAX`].
    pub fn seal(statements: &[T], tip: Tip, key: &SecretKey) -> Result<(Self, Tip), SignatureError> {
        let payloads: Vec<Bytes> = statements.iter().map(|statement| canon::encode(statement).into()).collect();
        let count = payloads.len();
        let tree = tree::<T>(&payloads)?;
        let head = Head {
            node: NodeId(key.public()),
            seq: tip.heads,
            prev: tip.last,
            root: tree.root(),
            count: u32::try_from(count).map_err(|_| SignatureError::Count { count })?,
        };
        Ok((Self { head: Signed::seal(&head, key), payloads, kind: PhantomData }, head.tip()))
    }

    /// The head and the statements, when `believe` says that the head is signed and it stands for these and no others.
    ///
    /// # Errors
    /// When it does not, or one of them is not a canonical statement of this kind.
    pub fn open_by<E: From<SignatureError>>(
        &self,
        believe: impl FnOnce(&Signed<Head>) -> Result<(), E>,
    ) -> Result<(Head, Vec<T>), E> {
        believe(&self.head)?;
        Ok(self.opened()?)
    }

    fn opened(&self) -> Result<(Head, Vec<T>), SignatureError> {
        let (head, signer) = (self.head.peek()?, NodeId(self.head.signer()?));
        if self.head.inclusion.is_some() {
            return Err(SignatureError::Nested);
        }
        if head.node != signer {
            return Err(SignatureError::OtherHead { head: head.node, signer });
        }
        head.check_count()?;
        let found = self.payloads.len();
        if found != head.count as usize {
            return Err(SignatureError::Items { seq: head.seq, count: head.count, found });
        }
        if tree::<T>(&self.payloads)?.root() != head.root {
            return Err(SignatureError::Root { seq: head.seq });
        }
        let statements = self.payloads.iter().map(|payload| super::decode(payload));
        Ok((head, statements.collect::<Result<_, _>>()?))
    }

    /// The statements, each with its place in the batch.
    ///
    /// # Errors
    /// When the head is malformed, or does not stand for as many.
    pub fn signed(&self) -> Result<Vec<Signed<T>>, SignatureError> {
        let head = self.head.peek()?;
        let tree = tree::<T>(&self.payloads)?;
        let signed = |(index, payload): (u32, &Bytes)| Signed {
            payload: payload.clone(),
            signer: self.head.signer.clone(),
            signature: self.head.signature.clone(),
            inclusion: Some(Box::new(Inclusion { head, index, path: tree.path(index as usize) })),
            kind: PhantomData,
        };
        Ok((0..head.count).zip(&self.payloads).map(signed).collect())
    }
}

fn tree<T: Statement>(payloads: &[Bytes]) -> Result<Tree, SignatureError> {
    let count = payloads.len();
    let leaves = payloads.iter().map(|payload| merkle::leaf(T::DOMAIN, payload)).collect();
    let tree = Tree::new(leaves).ok_or(SignatureError::Count { count })?;
    if count <= BATCH_ITEMS_MAX { Ok(tree) } else { Err(SignatureError::Count { count }) }
}
