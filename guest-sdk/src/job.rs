//! Which slice of the job this task is, as the host says in the environment.
//!
//! A program started by hand has no such environment: it is the only shard of its job, in the map stage. Values that
//! are there but make no sense are a broken host, not a case to handle, and panic with the name of the variable.

use std::env;

use crate::abi::{ENV_SHARD, ENV_SHARDS, ENV_STAGE, STAGE_MAP, STAGE_REDUCE};

/// One of the equal parts of a job's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Position in the job, from 0; always below `count`.
    pub index: u64,
    /// Number of shards of the job.
    pub count: u64,
}

/// Which part of the job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// One of many tasks, each over its shard of the input.
    Map,
    /// The one task that joins the shards' outputs.
    Reduce,
}

/// The shard this task has; `0` of `1` outside a grid.
///
/// # Panics
/// When the host set the variables to something that is no shard.
pub fn shard() -> Shard {
    let (index, count) = (variable(ENV_SHARD), variable(ENV_SHARDS));
    match Shard::parse(index.as_deref(), count.as_deref()) {
        Some(shard) => shard,
        None => {
            panic!("{ENV_SHARD}={index:?} of {ENV_SHARDS}={count:?} is no shard: the host sets both, index below count")
        }
    }
}

/// The stage this task belongs to; [`Stage::Map`] outside a grid.
///
/// # Panics
/// When the host set the variable to a word that is no stage.
pub fn stage() -> Stage {
    let word = variable(ENV_STAGE);
    match Stage::parse(word.as_deref()) {
        Some(stage) => stage,
        None => panic!("{ENV_STAGE}={word:?} is no stage: the host sets {STAGE_MAP} or {STAGE_REDUCE}"),
    }
}

/// A variable's value; one that is not Unicode is kept visible, so that parsing refuses it.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Shard {
    fn parse(index: Option<&str>, count: Option<&str>) -> Option<Self> {
        match (index, count) {
            (None, None) => Some(Self { index: 0, count: 1 }),
            (Some(index), Some(count)) => {
                let shard = Self { index: index.parse().ok()?, count: count.parse().ok()? };
                (shard.index < shard.count).then_some(shard)
            }
            _ => None,
        }
    }
}

impl Stage {
    fn parse(word: Option<&str>) -> Option<Self> {
        match word {
            None | Some(STAGE_MAP) => Some(Self::Map),
            Some(STAGE_REDUCE) => Some(Self::Reduce),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_started_by_hand_is_the_whole_map() {
        assert_eq!(Shard::parse(None, None), Some(Shard { index: 0, count: 1 }));
        assert_eq!(Stage::parse(None), Some(Stage::Map));
    }

    #[test]
    fn the_host_names_shard_and_stage() {
        assert_eq!(Shard::parse(Some("3"), Some("8")), Some(Shard { index: 3, count: 8 }));
        assert_eq!(Stage::parse(Some("map")), Some(Stage::Map));
        assert_eq!(Stage::parse(Some("reduce")), Some(Stage::Reduce));
    }

    #[test]
    fn half_a_shard_or_one_past_the_end_is_none() {
        for (index, count) in
            [(Some("8"), Some("8")), (Some("0"), Some("0")), (Some("-1"), Some("2")), (Some("0"), None)]
        {
            assert_eq!(Shard::parse(index, count), None, "{index:?} of {count:?}");
        }
        assert_eq!(Stage::parse(Some("combine")), None);
    }
}
