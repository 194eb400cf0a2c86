//! `quorate up`

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use registry::id::OperatorId;

use super::{Exit, Outcome, paths};
use crate::node::UpOptions;

/// How a coordinator is started.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where its journal, blobs, keys and token are.
    #[arg(long, value_name = "DIR", default_value_os_t = paths::data_dir())]
    pub data_dir: PathBuf,
    /// Where it answers HTTP. Beyond loopback the token alone protects it: put TLS in front.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Where hosts reach it, over QUIC.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7701")]
    pub net_listen: SocketAddr,
    /// An address that the ticket tells hosts, where it differs from what is listened on; may be given again.
    #[arg(long, value_name = "ADDR")]
    pub advertise: Vec<SocketAddr>,
    /// Hosts to start on this machine, a process and an operator each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub hosts: u32,
    /// An operator that you answer for, by its key in hexadecimal digits; may be given again. Its results may be accepted alone from
    /// the start, and it decides where others' results differ. Those of --hosts are such operators.
    #[arg(long, value_name = "OPERATOR")]
    pub vouch: Vec<OperatorId>,
    /// A configuration file, for the hosts on this machine too; unknown keys are refused.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Tasks that each of these hosts runs at a time; all cores together when left out.
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// Write one JSON object to standard output when it is up: `url`, `ticket`, `token_file`, `node`.
    #[arg(long)]
    pub json: bool,
    /// Stop when standard input is closed: whoever started it has gone.
    #[arg(long, hide = true)]
    pub tethered: bool,
}

pub(super) async fn run(args: UpArgs) -> Outcome {
    let UpArgs { data_dir, listen, net_listen, advertise, hosts, vouch, config, slots, json, tethered } = args;
    let options = UpOptions { data_dir, listen, net_listen, advertise, hosts, vouch, slots, config, tethered };
    Ok(crate::node::up(options, super::node::announcer(json)).await.map(|()| Exit::Ok)?)
}
