//! `quorate demo`

use std::path::PathBuf;

use clap::Args;
use registry::job::Policy;

use super::{Exit, Outcome, output};
use crate::demo;

/// How the demonstration is run.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Hosts that lie.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub liars: u32,
    /// Hosts in all.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub hosts: u32,
    /// Shards of the job, about.
    #[arg(long, value_name = "N", default_value_t = 36)]
    pub shards: u32,
    /// How results are checked: audit, quorum:K, where hosts of K distinct operators must agree, or none.
    #[arg(long, value_name = "POLICY", default_value = "audit")]
    pub policy: Policy,
    /// Keep everything that it writes in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(args: DemoArgs) -> Outcome {
    let options = demo::Options {
        hosts: args.hosts,
        liars: args.liars,
        shards: args.shards,
        policy: args.policy,
        dir: args.keep,
        progress: !args.json,
    };
    if !args.json {
        let demo::Options { hosts, liars, policy, .. } = &options;
        let checked = match policy {
            Policy::None => "results are believed".to_owned(),
            Policy::Quorum(quorum) => format!("{quorum} operators have to agree on each result"),
            Policy::Audit => "results of known hosts are audited at random, strangers repeat some first".to_owned(),
        };
        output::note(&format!("a coordinator and {hosts} hosts on this machine, {liars} of them lying; {checked}\n"));
    }
    let report = demo::run(&options).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(report.to_string().trim_end())?;
    }
    Ok(if report.is_right() { Exit::Ok } else { Exit::Failed })
}
