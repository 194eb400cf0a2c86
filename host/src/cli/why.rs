//! `quorate why`

use clap::Args;
use grid::{dispatch::Purpose, fleet::Suspension};
use registry::job::{ShardInfo, Stage};
use serde_json::Value;

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
    receipt::evidence_file,
};
use crate::client::answers::{EvidenceAnswer, ExecutionAnswer, WhyAnswer};

/// Hosts that are listed for people; all are in the JSON.
const HOSTS_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The job, or the beginning of its id.
    job: String,
    /// The shard, from 0; the first without a result when left out.
    #[arg(long)]
    shard: Option<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: WhyArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    let shard = args.shard.map_or_else(String::new, |shard| format!("?shard={shard}"));
    let path = format!("/v1/jobs/{id}/why{shard}");
    if args.connect.json {
        output::json(&client.get::<Value>(&path).await?)?;
    } else {
        show(&client.get(&path).await?)?;
    }
    Ok(Exit::Ok)
}

fn show(why: &WhyAnswer) -> Result<(), CliError> {
    let stage = match why.shard.stage {
        Stage::Map => "shard",
        Stage::Reduce => "reduce task",
    };
    output::line(&format!("{stage} {} of {}: {}", why.shard.index, why.shard.count, output::shown(&why.summary)))?;
    output::line(&format!("ordered {} times, {} faults", why.attempts, why.faults))?;
    if why.resumed > 0 {
        output::line(&format!("{} of these went on from a state that an earlier one had kept", why.resumed))?;
    }
    if let Some(fault) = &why.last_fault {
        output::line(&format!("last fault: {}", output::shown(&fault.to_string())))?;
    }
    if !why.executions.is_empty() {
        output::line("")?;
        let row = |it: &ExecutionAnswer| {
            let device = it.device.as_ref().map_or_else(String::new, |device| output::shown(&device.to_string()));
            let pay = it.pay.as_ref().map_or_else(String::new, |pay| output::shown(&pay.to_string()));
            let kept = it.checkpoint.map_or_else(String::new, |kept| kept.index.to_string());
            let purpose = word(it.purpose).to_owned();
            vec![it.node.short(), it.operator.short(), purpose, it.fate.clone(), device, pay, kept]
        };
        output::table(
            &["node", "operator", "asked", "result", "models on", "credits", "kept state"],
            &why.executions.iter().map(row).collect::<Vec<_>>(),
        )?;
    }
    for line in caught(why) {
        output::line(&line)?;
    }
    if !why.hosts.is_empty() {
        output::line("")?;
        let row = |host: &crate::client::answers::WhyHostAnswer| {
            let score = host.score.map_or_else(|| "-".to_owned(), |score| score.to_string());
            vec![host.node.short(), score, host.reason.as_deref().map_or_else(String::new, output::shown)]
        };
        let rows: Vec<_> = why.hosts.iter().take(HOSTS_SHOWN).map(row).collect();
        output::table(&["host", "score", "why not"], &rows)?;
        if why.hosts.len() > HOSTS_SHOWN {
            output::line(&format!("and {} more: see --json", why.hosts.len() - HOSTS_SHOWN))?;
        }
    }
    Ok(())
}

/// Why an execution was ordered, for people.
fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Work => "for the result",
        Purpose::Audit => "to check it",
        Purpose::Qualification => "to show its worth",
        Purpose::Dispute => "since results differ",
        Purpose::Again => "in another's place",
    }
}

/// What became of operators that signed something else than what stands, or were caught elsewhere, with where the evidence is.
fn caught(why: &WhyAnswer) -> Vec<String> {
    let mut lines = Vec::new();
    for EvidenceAnswer { node, seq } in &why.evidence {
        let file = evidence_file(why.shard, *node);
        lines.push(format!(
            "{} signed something that is refuted here: {file} of `quorate receipt get`, record {seq} of the job's log, is the evidence",
            node.short()
        ));
    }
    for it in &why.executions {
        let node = it.node.short();
        let is_accused = why.evidence.iter().any(|evidence| evidence.node == it.node);
        match &it.caught {
            _ if is_accused => {}
            Some(Suspension { job, shard, .. }) => {
                lines.push(format!("{node}: its operator was caught in {} of job {job}", part(*shard)));
            }
            None if it.fate == "contradicted" => lines.push(format!(
                "{node} signed something else than what stands here, and is not accused: no operator that the grid's owner answers for agrees, or results of this class may differ"
            )),
            None => {}
        }
        if it.caught.is_some() {
            let operator = it.operator;
            lines.push(format!(
                "  operator {operator} gets no more work; what it has lost is in `quorate ledger statement earned:{operator}` and `stake:...`, how it came to that in `quorate reputation export {operator}`"
            ));
        }
    }
    lines
}

fn part(shard: ShardInfo) -> String {
    match shard.stage {
        Stage::Map => format!("shard {}", shard.index),
        Stage::Reduce => "the reduce task".to_owned(),
    }
}
