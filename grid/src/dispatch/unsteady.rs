//! Modules of which nobody reproduced a result: they are marked, so that whoever wrote or uses one is told.
//!
//! A mark accuses nobody and changes no decision: hosts that lie each in its own way look the same. The shard's record has all receipts.

use std::{collections::BTreeMap, fmt};

use registry::{
    id::{JobId, ModuleHash},
    job::ShardInfo,
};
use serde::{Deserialize, Serialize};

use crate::flow::Millis;

/// Modules that are remembered, those that were marked last.
const MARKS_MAX: usize = 1_024;

/// When nobody reproduced a module's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsteady {
    /// In which job, the last time.
    pub job: JobId,
    /// In which part of it.
    pub shard: ShardInfo,
    /// When.
    pub at_ms: Millis,
    /// How often so far.
    pub times: u32,
}

/// One line for the module's author.
impl fmt::Display for Unsteady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { job, shard, times, .. } = self;
        let often = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        write!(
            f,
            "results of this module differed {often}, and nobody reproduced any: the last time in shard {} of job {job}; \
             `quorate receipt get` has what was signed",
            shard.index
        )
    }
}

/// Every module that is marked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Marks(BTreeMap<ModuleHash, Unsteady>);

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, module: ModuleHash) -> Option<Unsteady> {
        self.0.get(&module).copied()
    }

    /// Nobody reproduced the module's result once more.
    pub(super) fn mark(&mut self, module: ModuleHash, job: JobId, shard: ShardInfo, at_ms: Millis) {
        let times = self.get(module).map_or(0, |mark| mark.times).saturating_add(1);
        self.0.insert(module, Unsteady { job, shard, at_ms, times });
        if self.0.len() > MARKS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, mark)| mark.at_ms).map(|(module, _)| *module);
            oldest.map(|module| self.0.remove(&module));
        }
    }
}

#[cfg(test)]
mod tests {
    use registry::job::Stage;

    use super::*;

    #[test]
    fn the_oldest_marks_are_forgotten() {
        let (mut marks, shard) = (Marks::default(), ShardInfo { stage: Stage::Map, index: 3, count: 9 });
        let module = |number: u64| ModuleHash::of(&number.to_be_bytes());
        let most = MARKS_MAX as u64;
        (0..=most).for_each(|at_ms| marks.mark(module(at_ms), JobId([1; 32]), shard, at_ms));
        marks.mark(module(1), JobId([2; 32]), shard, most + 1);
        assert_eq!((marks.0.len(), marks.get(module(0))), (MARKS_MAX, None));
        let mark = marks.get(module(1)).unwrap();
        assert_eq!((mark.times, mark.job), (2, JobId([2; 32])));
        assert!(mark.to_string().contains("differed 2 times") && mark.to_string().contains("shard 3 of job 0202"));
    }
}
