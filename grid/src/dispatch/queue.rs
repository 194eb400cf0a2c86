//! Shards that wait for hosts, and whose turn it is.
//!
//! Jobs take turns, one assignment at a time, in two [`Line`]s. What only few hosts may do comes first, since others can do all else that
//! these could: to referee, for until then a liar goes on, and to go on from a state that was kept, for whoever else does it begins anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use registry::id::{JobId, OperatorId};
use serde::{Deserialize, Serialize};

use super::job::ShardKey;

/// Why a shard waits for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// No host has had it.
    Fresh,
    /// Some have, and more are wanted.
    Partial,
    /// This operator has kept a state of it, and whoever may go on from there is waited for.
    Kept(OperatorId),
    /// Its results differ.
    Disputed,
}

/// Where jobs take their turn; the first is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// For what only few hosts may do.
    Few,
    /// For all others.
    Others,
}

impl Line {
    pub(super) const ALL: [Self; 2] = [Self::Few, Self::Others];
}

/// A job's shards that wait for hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queued {
    fresh: BTreeSet<ShardKey>,
    partial: BTreeSet<ShardKey>,
    /// By who has kept their states: whose hosts are all busy hides nobody else's.
    kept: BTreeMap<OperatorId, BTreeSet<ShardKey>>,
    disputed: BTreeSet<ShardKey>,
}

impl Queued {
    /// None of these has been had.
    pub(super) fn fresh(shards: impl Iterator<Item = ShardKey>) -> Self {
        Self { fresh: shards.collect(), ..Self::default() }
    }

    /// The shard waits in this way and in no other, or not at all.
    pub(super) fn put(&mut self, key: ShardKey, waits: Option<Waits>) {
        let queues = [
            (Waits::Fresh, &mut self.fresh),
            (Waits::Partial, &mut self.partial),
            (Waits::Disputed, &mut self.disputed),
        ];
        for (queue_waits, queue) in queues {
            if waits == Some(queue_waits) {
                queue.insert(key)
            } else {
                queue.remove(&key)
            };
        }
        self.kept.retain(|_, shards| {
            shards.remove(&key);
            !shards.is_empty()
        });
        if let Some(Waits::Kept(operator)) = waits {
            self.kept.entry(operator).or_default().insert(key);
        }
    }

    /// Whether any waits.
    pub(super) fn is_empty(&self) -> bool {
        Line::ALL.into_iter().all(|line| !self.has(line))
    }

    /// Whether any waits in this line.
    pub(super) fn has(&self, line: Line) -> bool {
        match line {
            Line::Few => !(self.disputed.is_empty() && self.kept.is_empty()),
            Line::Others => !(self.partial.is_empty() && self.fresh.is_empty()),
        }
    }

    /// Whether one is waited for who may go on from a state of the shard.
    pub(super) fn is_kept(&self, key: ShardKey) -> bool {
        self.kept.values().any(|shards| shards.contains(&key))
    }

    /// Those of which results differ.
    pub(super) fn disputed(&self) -> impl Iterator<Item = ShardKey> {
        self.disputed.iter().copied()
    }

    /// Those of which a state was kept, by whom.
    pub(super) fn kept(&self) -> impl Iterator<Item = (OperatorId, &BTreeSet<ShardKey>)> {
        self.kept.iter().map(|(operator, shards)| (*operator, shards))
    }

    /// All others, in the order in which they should be looked at, `max` of each queue at most: those that somebody has had come first, so
    /// that shards are finished rather than begun.
    pub(super) fn others(&self, max: usize) -> impl Iterator<Item = ShardKey> {
        [&self.partial, &self.fresh].into_iter().flat_map(move |queue| queue.iter().take(max)).copied()
    }
}

/// Jobs that have queued shards, in the order of their turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turns {
    few: VecDeque<JobId>,
    others: VecDeque<JobId>,
}

impl Turns {
    /// One line.
    pub(super) fn of(&mut self, line: Line) -> &mut VecDeque<JobId> {
        match line {
            Line::Few => &mut self.few,
            Line::Others => &mut self.others,
        }
    }

    /// Whether the job has its turn there.
    pub(super) fn contains(&self, line: Line, job: JobId) -> bool {
        match line {
            Line::Few => self.few.contains(&job),
            Line::Others => self.others.contains(&job),
        }
    }

    /// The job is the last in the line, unless it is there already.
    pub(super) fn join(&mut self, line: Line, job: JobId) {
        if !self.contains(line, job) {
            self.of(line).push_back(job);
        }
    }
}
