//! Names of machines and operators.
//!
//! Nothing is signed in a simulation, so that a name is nothing but random bytes with a number at their end. Where tasks have steps, what
//! two hosts say of one goes to trial, and the record of a trial is worth nothing without signatures: names are public keys then, and
//! the few receipts that come before a trial are signed with them.

use std::{collections::BTreeMap, sync::Arc};

use registry::{
    id::{NodeId, OperatorId},
    membership::NodeCert,
    sign::{SecretKey, Signed, Statement},
};

use super::random::mix;

/// Who has names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Operator = 1,
    Host = 2,
}

/// Who is called what.
#[derive(Debug)]
pub(super) struct Names {
    seed: u64,
    /// Whether names are keys.
    sign: bool,
    /// Who has which key.
    numbers: BTreeMap<[u8; 32], u32>,
    /// What stands for everybody's certificate where nobody signs.
    nothing: Arc<Signed<NodeCert>>,
}

impl Names {
    pub(super) fn new(seed: u64, sign: bool) -> Self {
        Self { seed, sign, numbers: BTreeMap::new(), nothing: Arc::new(Signed::nothing()) }
    }

    /// A new name.
    pub(super) fn give(&mut self, kind: Kind, number: u32) -> [u8; 32] {
        if !self.sign {
            return self.bytes(kind, number);
        }
        let name = self.key(kind, number).public();
        self.numbers.insert(name, number);
        name
    }

    /// Whose name this is.
    pub(super) fn number(&self, name: &[u8; 32]) -> u32 {
        if self.sign {
            return self.numbers.get(name).copied().unwrap_or(u32::MAX);
        }
        let [.., a, b, c, d] = name;
        u32::from_le_bytes([*a, *b, *c, *d])
    }

    pub(super) fn host(&self, node: NodeId) -> u32 {
        self.number(&node.0)
    }

    pub(super) fn operator(&self, operator: OperatorId) -> u32 {
        self.number(&operator.0)
    }

    /// An operator's word for a machine.
    pub(super) fn cert(&self, operator: u32, node: NodeId) -> Arc<Signed<NodeCert>> {
        if !self.sign {
            return self.nothing.clone();
        }
        Arc::new(Signed::seal(&NodeCert { node, issued_ms: 0 }, &self.key(Kind::Operator, operator)))
    }

    /// A statement as the machine signs it.
    pub(super) fn sealed<T: Statement>(&self, statement: &T, host: u32) -> Signed<T> {
        Signed::seal(statement, &self.key(Kind::Host, host))
    }

    fn key(&self, kind: Kind, number: u32) -> SecretKey {
        SecretKey::from_bytes(&self.bytes(kind, number))
    }

    /// Bytes that tell nothing, with the number of whom they belong to at their end.
    fn bytes(&self, kind: Kind, number: u32) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (word, at) in bytes.chunks_exact_mut(8).zip(0..) {
            let which = (kind as u64) << 40 | u64::from(number) << 4 | at;
            word.copy_from_slice(&mix(self.seed ^ mix(which)).to_le_bytes());
        }
        bytes[28..].copy_from_slice(&number.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_whether_or_not_it_is_a_key() {
        for sign in [false, true] {
            let mut names = Names::new(7, sign);
            let (node, operator) = (NodeId(names.give(Kind::Host, 5)), OperatorId(names.give(Kind::Operator, 9)));
            assert_eq!((names.host(node), names.operator(operator)), (5, 9));
            assert_eq!(names.cert(9, node).open().map(|(_, signer)| signer).ok(), sign.then_some(operator.0));
        }
    }
}
