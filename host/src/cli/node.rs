//! `quorate node`

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, Outcome, paths};
use crate::{node::HostOptions, worker};

/// How a host is started.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// The grid's ticket, or a file that holds it: `quorate up` prints it and writes it to its data directory.
    #[arg(long, value_name = "TICKET")]
    pub join: String,
    /// Where its blobs and keys are.
    #[arg(long, value_name = "DIR", default_value_os_t = paths::node_dir())]
    pub data_dir: PathBuf,
    /// Where it sends from and serves blobs, over QUIC.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:0")]
    pub net_listen: SocketAddr,
    /// Tasks that it runs at a time; as many as there are cores when left out.
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Memory in bytes that one task may have.
    #[arg(long, value_name = "BYTES")]
    pub memory_bytes_max: Option<u64>,
    /// Where it answers `/metrics`; nowhere when left out.
    #[arg(long, value_name = "ADDR")]
    pub metrics_listen: Option<SocketAddr>,
    /// The key of the operator who answers for it; one of its own is made when left out.
    #[arg(long, value_name = "FILE")]
    pub operator_key: Option<PathBuf>,
    /// A configuration file; unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How it behaves: liars are for demonstrations and tests.
    #[arg(long, hide = true, default_value = "honest")]
    pub conduct: Conduct,
    /// Write one JSON object to standard output when it is up: `node`, `operator`, `engine`.
    #[arg(long)]
    pub json: bool,
    /// Stop when standard input is closed: whoever started it has gone.
    #[arg(long, hide = true)]
    pub tethered: bool,
}

/// How a host behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Conduct {
    /// Signs what it computed.
    #[default]
    Honest,
    /// Signs something else.
    Liar,
}

pub(super) async fn run(args: NodeArgs) -> Outcome {
    let conduct = match args.conduct {
        Conduct::Honest => worker::Conduct::Honest,
        Conduct::Liar => worker::Conduct::Liar,
    };
    let NodeArgs { join, data_dir, net_listen, slots, memory_bytes_max, metrics_listen, operator_key, config, .. } =
        args;
    let options = HostOptions {
        join,
        data_dir,
        net_listen,
        slots,
        memory_bytes_max,
        metrics_listen,
        operator_key,
        config,
        conduct,
        tethered: args.tethered,
    };
    Ok(crate::node::host(options, announcer(args.json)).await.map(|()| Exit::Ok)?)
}

/// Tells programs that a node is up; people read it in the log.
pub(super) fn announcer(json: bool) -> impl FnOnce(&serde_json::Value) {
    move |up| {
        if json && let Err(error) = super::output::json(up) {
            tracing::warn!(%error, "nobody hears that the node is up");
        }
    }
}
