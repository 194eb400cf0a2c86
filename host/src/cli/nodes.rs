//! `quorate nodes`

use clap::Args;
use serde_json::Value;

use super::{Exit, Outcome, connect::ConnectArgs, output};
use crate::client::answers::{EngineAnswer, HostAnswer};

#[derive(Debug, Args)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: NodesArgs) -> Outcome {
    let client = args.connect.client()?;
    if args.connect.json {
        output::json(&client.get::<Value>("/v1/nodes").await?)?;
        return Ok(Exit::Ok);
    }
    let hosts: Vec<HostAnswer> = client.get("/v1/nodes").await?;
    if hosts.is_empty() {
        output::note("no host has joined: start one with `quorate node --join TICKET`, or `quorate up --hosts 4`");
    }
    let head = [
        "node",
        "operator",
        "state",
        "standing",
        "slots",
        "busy",
        "task",
        "confirmed",
        "contradicted",
        "faults",
        "infers on",
        "",
    ];
    output::table(&head, &hosts.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

fn row(host: &HostAnswer) -> Vec<String> {
    let state = match (&host.suspended, host.connected) {
        (Some(_), _) => "suspended",
        (None, true) => "connected",
        (None, false) => "away",
    };
    let caught = host.suspended.as_ref().map_or_else(String::new, |caught| {
        format!("caught in shard {} of job {}", caught.shard.index, output::short(caught.job))
    });
    vec![
        host.node.short(),
        host.operator.short(),
        state.to_owned(),
        standing(host).to_owned(),
        host.slots.to_string(),
        host.in_flight.to_string(),
        output::span_ms(host.task_us / 1000),
        host.confirmed.to_string(),
        host.contradicted.to_string(),
        host.faults.to_string(),
        devices(host),
        caught,
    ]
}

/// Whether results are accepted on its operator's word.
fn standing(host: &HostAnswer) -> &'static str {
    match (host.vouched, host.qualified) {
        (true, _) => "vouched",
        (false, true) => "qualified",
        (false, false) => "newcomer",
    }
}

/// Each device with what was measured of it.
fn devices(host: &HostAnswer) -> String {
    let engine = |engine: &EngineAnswer| {
        let device = engine.device.as_ref()?;
        let mut text = output::shown(&device.to_string());
        if engine.device_memory_bytes > 0 {
            text.push_str(&format!(", {}", output::bytes(engine.device_memory_bytes)));
        }
        if engine.mflops > 0 {
            text.push_str(&format!(", {} GFLOPS", engine.mflops.div_ceil(1000)));
        }
        Some(text)
    };
    host.engines.iter().filter_map(engine).collect::<Vec<_>>().join("; ")
}
