//! A job's payments as they are kept. There are as many as executions, of which a large grid has millions within an audit
//! window, so they lie in one list, in the order in which they were made, and what else is known of them is a place in it.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    id::{JobId, NodeId, OperatorId},
    job::ShardInfo,
};
use serde::{Deserialize, Serialize};

use super::{
    Due, Ledger,
    account::{PaymentKey, PostingId},
    error::LedgerError,
    escrow::Job,
    payment::{Payment, Standing},
};
use crate::flow::Millis;

/// Where a payment is among its job's.
pub(super) type Place = u32;

/// A payment, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paid {
    pub(super) shard: ShardInfo,
    pub(super) node: NodeId,
    pub(super) payment: Payment,
}

impl Paid {
    /// What it is known by.
    pub(super) fn key(&self, job: JobId) -> PaymentKey {
        PaymentKey { job, shard: self.shard, node: self.node }
    }
}

/// All payments of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payments {
    made: Vec<Paid>,
    of_shard: BTreeSet<(ShardInfo, Place)>,
}

impl Payments {
    pub(super) fn len(&self) -> usize {
        self.made.len()
    }

    /// In the order in which they were made.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, &Paid)> {
        (0..).zip(&self.made)
    }

    pub(super) fn at(&self, place: Place) -> Option<&Paid> {
        self.made.get(place as usize)
    }

    fn at_mut(&mut self, place: Place) -> Option<&mut Paid> {
        self.made.get_mut(place as usize)
    }

    /// Shard by shard, as indexed.
    pub(super) fn by_shard(&self) -> impl Iterator<Item = (ShardInfo, Option<&Paid>)> {
        self.of_shard.iter().map(|(shard, place)| (*shard, self.at(*place)))
    }

    /// Those for one shard, with their places.
    pub(super) fn of(&self, shard: ShardInfo) -> impl Iterator<Item = (Place, &Paid)> {
        let places = self.of_shard.range((shard, 0)..=(shard, Place::MAX));
        places.filter_map(|(_, place)| Some((*place, self.at(*place)?)))
    }

    pub(super) fn get(&self, shard: ShardInfo, node: NodeId) -> Option<&Payment> {
        self.of(shard).find(|(_, paid)| paid.node == node).map(|(_, paid)| &paid.payment)
    }

    /// Where the next payment will be.
    ///
    /// # Errors
    /// When there are as many as there can be.
    pub(super) fn next(&self) -> Result<Place, LedgerError> {
        Place::try_from(self.made.len()).map_err(|_| LedgerError::Full)
    }

    /// Adds the next payment, which is at this place.
    pub(super) fn push(&mut self, place: Place, paid: Paid) {
        self.of_shard.insert((paid.shard, place));
        self.made.push(paid);
    }

    /// No more, or few, are to come.
    pub(super) fn shrink(&mut self) {
        self.made.shrink_to_fit();
    }
}

/// Of each operator the payments that it can still lose, by the posting that opened their job.
pub(super) type Unsettled = BTreeMap<OperatorId, BTreeSet<(PostingId, Place)>>;

impl Job {
    /// Payments that are settled when their date comes: those of contested shards wait.
    pub(super) fn pending(&self) -> impl Iterator<Item = (Place, &Paid)> {
        let paid = self.payments.iter().filter(|(_, paid)| paid.payment.standing.is_pending());
        paid.filter(|(_, paid)| !self.contested.contains(&paid.shard))
    }

    /// One more of its payments is settled then.
    pub(super) fn date(&mut self, id: JobId, due_ms: Millis, due: &mut BTreeSet<(Millis, Due)>) {
        let count = self.dates.entry(due_ms).or_default();
        *count += 1;
        if *count == 1 {
            due.insert((due_ms, Due::Job(id)));
        }
    }

    /// One of them is not.
    fn undate(&mut self, id: JobId, due_ms: Millis, due: &mut BTreeSet<(Millis, Due)>) {
        let Some(count) = self.dates.get_mut(&due_ms) else { return };
        *count -= 1;
        if *count == 0 {
            self.dates.remove(&due_ms);
            due.remove(&(due_ms, Due::Job(id)));
        }
    }

    /// When the pending payments of a shard are settled.
    fn dates_of(&self, shard: ShardInfo) -> Vec<Millis> {
        self.payments.of(shard).filter_map(|(_, paid)| paid.payment.standing.due_ms()).collect()
    }
}

impl Ledger {
    /// The result of a shard is in dispute: its payments are not settled before [`Ledger::absolve`].
    ///
    /// # Errors
    /// When there is no such job.
    pub fn contest(&mut self, job: JobId, shard: ShardInfo) -> Result<(), LedgerError> {
        let contested = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        if contested.contested.insert(shard) {
            for due_ms in contested.dates_of(shard) {
                contested.undate(job, due_ms, &mut self.due);
            }
        }
        self.changed();
        Ok(())
    }

    /// The dispute is over: payments that nobody lost are settled at their date, or now if it has passed.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn absolve(&mut self, job: JobId, shard: ShardInfo) -> Result<(), LedgerError> {
        let contested = self.jobs.get_mut(&job).ok_or(LedgerError::JobUnknown { job })?;
        if contested.contested.remove(&shard) {
            for due_ms in contested.dates_of(shard) {
                contested.date(job, due_ms, &mut self.due);
            }
        }
        self.changed();
        Ok(())
    }

    /// A payment is pending no more, and stands like this for good.
    pub(super) fn decide(&mut self, id: JobId, place: Place, standing: Standing) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(Paid { shard, payment, .. }) = job.payments.at_mut(place) else { return };
        let Some(due_ms) = payment.standing.due_ms() else { return };
        payment.standing = standing;
        let (shard, operator, key) = (*shard, payment.operator, (job.opened, place));
        if !job.contested.contains(&shard) {
            job.undate(id, due_ms, &mut self.due);
        }
        if let Some(own) = self.unsettled.get_mut(&operator) {
            own.remove(&key);
            if own.is_empty() {
                self.unsettled.remove(&operator);
            }
        }
    }
}
