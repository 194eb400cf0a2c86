//! Shards that wait for hosts, and whose turn it is.
//!
//! Jobs take turns, one assignment at a time, in two [`Line`]s. What only few hosts may do comes first, since others can do all else that
//! these could: to referee, for until then a liar goes on, and to go on from a state that was kept, for whoever else does it begins anew.

use std::collections::{BTreeSet, VecDeque};

use registry::id::JobId;
use serde::{Deserialize, Serialize};

use super::job::ShardKey;

/// Why a shard waits for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// No host has had it.
    Fresh,
    /// Some have, and more are wanted.
    Partial,
    /// A host of some operators may go on from a state that was kept of it, and is waited for.
    Kept,
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
    kept: BTreeSet<ShardKey>,
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
            (Waits::Kept, &mut self.kept),
            (Waits::Disputed, &mut self.disputed),
        ];
        for (queue_waits, queue) in queues {
            if waits == Some(queue_waits) {
                queue.insert(key)
            } else {
                queue.remove(&key)
            };
        }
    }

    /// Whether any waits.
    pub(super) fn is_empty(&self) -> bool {
        Line::ALL.into_iter().all(|line| !self.has(line))
    }

    /// Whether any waits in this line.
    pub(super) fn has(&self, line: Line) -> bool {
        self.of(line).into_iter().any(|queue| !queue.is_empty())
    }

    /// Whether one is waited for who may go on from a state of the shard.
    pub(super) fn is_kept(&self, key: ShardKey) -> bool {
        self.kept.contains(&key)
    }

    /// Those of which results differ.
    pub(super) fn disputed(&self) -> impl Iterator<Item = ShardKey> {
        self.disputed.iter().copied()
    }

    /// In the order in which they should be looked at, `max` of each queue at most: those that somebody has had come first, so that shards
    /// are finished rather than begun.
    pub(super) fn first(&self, line: Line, max: usize) -> impl Iterator<Item = ShardKey> {
        self.of(line).into_iter().flat_map(move |queue| queue.iter().take(max)).copied()
    }

    fn of(&self, line: Line) -> [&BTreeSet<ShardKey>; 2] {
        match line {
            Line::Few => [&self.disputed, &self.kept],
            Line::Others => [&self.partial, &self.fresh],
        }
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
