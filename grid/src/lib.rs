//! Every decision of a Quorate grid, without I/O: values in, values out, `now` and seeds as arguments.
//!
//! In the order in which work flows:
//! - [`flow`]: what is handed from stage to stage.
//! - [`config`]: the parameters of the decisions, each named with its unit. [`bounds`]: numbers held against what makes sense.
//! - [`engines`]: which of a host's engines a task runs on.
//! - [`plan`]: cuts a job's input into shards.
//! - [`fleet`]: what is known of the hosts.
//! - [`place`]: which host runs a shard, and why the others do not.
//! - [`reputation`]: what operators have shown.
//! - [`audit`]: how often an operator's results are run again.
//! - [`verify`]: when results are believed.
//! - [`aggregate`]: how the shards' outputs become the job's result.
//! - [`ledger`]: who has which credits, and why: verdicts become payments.
//! - [`dispatch`]: the event machine, the only parent that calls the others.
//! - [`sim`]: that machine in a made-up world on virtual time, with every adversary.
//!
//! `few` and `named` are how short lists and long ones lie in memory.
//!
//! The stages are leaves and never import each other. The crate has no clock, no network and no disk, so that the same
//! code decides in the field, when a journal is replayed, and in a simulation.

pub mod aggregate;
pub mod audit;
pub mod bounds;
pub mod config;
pub mod dispatch;
pub mod engines;
mod few;
pub mod fleet;
pub mod flow;
pub mod ledger;
mod named;
pub mod place;
pub mod plan;
pub mod reputation;
pub mod sim;
pub mod subnet;
pub mod verify;
