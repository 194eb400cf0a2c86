//! How the shards' outputs become the job's result: concatenated in shard order, or put once more through the module.

use registry::job::Reduce;

use crate::flow::Part;

/// What follows when every shard of the map has its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The parts, in order, are the result.
    Done,
    /// The parts, in order, are the input of the reduce task.
    Reduce,
}

/// What a job's rule says once its map is complete.
pub fn after_map(rule: Reduce) -> Next {
    match rule {
        Reduce::Concat => Next::Done,
        Reduce::Task => Next::Reduce,
    }
}

/// Standard output of a result in bytes.
pub fn stdout_bytes(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.output.stdout_bytes))
}
