//! Results that were delivered, and that rest on the word of an operator that was caught since.
//!
//! While a job goes on such results are withdrawn and run again. Once its map is over they cannot be taken back, and most of them will be
//! right: whoever uses them is told, so that it can have them run anew. What they cost goes back as far as it is not settled.

use std::{collections::BTreeSet, fmt};

use registry::{
    id::OperatorId,
    job::{ShardInfo, Stage},
};
use serde::{Deserialize, Serialize};

use super::super::{Job, State, job::Shard};

/// Results that are named.
const NAMED_MAX: usize = 8;

/// What of a job rests on nothing but the word of operators that were caught.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubtful {
    /// How many results.
    pub results: u32,
    /// The first of them.
    pub shards: Vec<ShardInfo>,
    /// On whose word.
    pub operators: BTreeSet<OperatorId>,
}

/// One line for whoever uses the results.
impl fmt::Display for Doubtful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.shards.iter().map(name).collect();
        let more = if named.len() < self.results as usize { ", ..." } else { "" };
        let operators = if self.operators.len() == 1 { "an operator that was" } else { "operators that were" };
        write!(
            f,
            "{} of its results ({}{more}) rest on the word of {operators} caught since, and may be wrong: submit it again to have them anew",
            self.results,
            named.join(", ")
        )
    }
}

fn name(shard: &ShardInfo) -> String {
    match shard.stage {
        Stage::Map => format!("shard {}", shard.index),
        Stage::Reduce => "reduce".to_owned(),
    }
}

impl State {
    /// What of the job is doubtful, if anything is.
    pub(super) fn doubtful(&self, job: &Job) -> Option<Doubtful> {
        // Nobody was caught, nearly always.
        self.fleet.suspensions().next()?;
        let doubtful = job.shards().map(|(key, shard)| (job.info(key), self.doubted(shard)));
        let (shards, operators): (Vec<ShardInfo>, Vec<_>) = doubtful.filter(|(_, on)| !on.is_empty()).unzip();
        let results = u32::try_from(shards.len()).ok().filter(|results| *results > 0)?;
        let operators = operators.into_iter().flatten().collect();
        Some(Doubtful { results, shards: shards.into_iter().take(NAMED_MAX).collect(), operators })
    }

    /// On whose word the shard's result rests, if all of them were caught and no referee has come to the same.
    pub(super) fn doubted(&self, shard: &Shard) -> BTreeSet<OperatorId> {
        let stands = shard.accepted.is_none()
            || shard.supporting().any(|operator| !self.fleet.is_suspended(operator))
            || shard.agreeing().any(|operator| self.config.vouched.contains(&operator));
        if stands { BTreeSet::new() } else { shard.supporters() }
    }
}
