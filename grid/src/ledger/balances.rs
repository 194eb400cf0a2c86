//! What stands on each account. An operator has four of them, which are asked for together: what it can lose at each of its
//! receipts, what it has earned at each payment. So they lie together.

use std::collections::BTreeMap;

use registry::{
    credits::Delta,
    id::{JobId, OperatorId, RequesterId},
};
use serde::{Deserialize, Serialize};

use super::account::Account;

/// Of one operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfOperator {
    own: Delta,
    earned: Delta,
    stake: Delta,
    unbonding: Delta,
}

/// Accounts with something on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Balances {
    mint: Delta,
    burn: Delta,
    requesters: BTreeMap<RequesterId, Delta>,
    escrows: BTreeMap<JobId, Delta>,
    operators: BTreeMap<OperatorId, OfOperator>,
}

impl Balances {
    pub(super) fn get(&self, account: Account) -> Delta {
        let of = |operator: OperatorId| self.operators.get(&operator).copied().unwrap_or_default();
        match account {
            Account::Mint => self.mint,
            Account::Burn => self.burn,
            Account::Requester(requester) => self.requesters.get(&requester).copied().unwrap_or_default(),
            Account::Escrow(job) => self.escrows.get(&job).copied().unwrap_or_default(),
            Account::Operator(operator) => of(operator).own,
            Account::Earned(operator) => of(operator).earned,
            Account::Stake(operator) => of(operator).stake,
            Account::Unbonding(operator) => of(operator).unbonding,
        }
    }

    /// What an operator can lose, part by part.
    pub(super) fn at_risk(&self, operator: OperatorId) -> [Delta; 3] {
        let OfOperator { earned, stake, unbonding, .. } = self.operators.get(&operator).copied().unwrap_or_default();
        [stake, unbonding, earned]
    }

    /// An account with nothing on it is not kept.
    pub(super) fn set(&mut self, account: Account, stands: Delta) {
        match account {
            Account::Mint => self.mint = stands,
            Account::Burn => self.burn = stands,
            Account::Requester(requester) => set(&mut self.requesters, requester, stands),
            Account::Escrow(job) => set(&mut self.escrows, job, stands),
            Account::Operator(operator) => self.set_of(operator, |of| of.own = stands),
            Account::Earned(operator) => self.set_of(operator, |of| of.earned = stands),
            Account::Stake(operator) => self.set_of(operator, |of| of.stake = stands),
            Account::Unbonding(operator) => self.set_of(operator, |of| of.unbonding = stands),
        }
    }

    fn set_of(&mut self, operator: OperatorId, change: impl FnOnce(&mut OfOperator)) {
        let of = self.operators.entry(operator).or_default();
        change(of);
        if *of == OfOperator::default() {
            self.operators.remove(&operator);
        }
    }

    /// Every account with something on it, in the order of accounts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Account, Delta)> {
        let requesters = self.requesters.iter().map(|(id, stands)| (Account::Requester(*id), *stands));
        let escrows = self.escrows.iter().map(|(id, stands)| (Account::Escrow(*id), *stands));
        let own = self.operators.iter().map(|(id, of)| (Account::Operator(*id), of.own));
        let earned = self.operators.iter().map(|(id, of)| (Account::Earned(*id), of.earned));
        let stake = self.operators.iter().map(|(id, of)| (Account::Stake(*id), of.stake));
        let unbonding = self.operators.iter().map(|(id, of)| (Account::Unbonding(*id), of.unbonding));
        let grid = [(Account::Mint, self.mint), (Account::Burn, self.burn)].into_iter();
        let all = grid.chain(requesters).chain(own).chain(escrows).chain(earned).chain(stake).chain(unbonding);
        all.filter(|(_, stands)| *stands != Delta::ZERO)
    }
}

fn set<K: Ord>(balances: &mut BTreeMap<K, Delta>, key: K, stands: Delta) {
    if stands == Delta::ZERO {
        balances.remove(&key);
    } else {
        balances.insert(key, stands);
    }
}
