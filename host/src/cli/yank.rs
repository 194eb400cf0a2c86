//! `quorate yank`

use std::path::PathBuf;

use clap::Args;
use registry::{
    name::{Name, NameStatement},
    sign::Signed,
};

use super::{Exit, Outcome, connect::ConnectArgs, output, push};

#[derive(Debug, Args)]
pub(super) struct YankArgs {
    /// The version, e.g. alice/digits@1.
    name: Name,
    /// Why, for those who used it.
    #[arg(long)]
    reason: String,
    /// The publisher's key.
    #[arg(long, value_name = "FILE", default_value_os_t = super::paths::publisher_key())]
    key: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: YankArgs) -> Outcome {
    let client = args.connect.client()?;
    let key = push::publisher_key(&args.key)?;
    let statement = NameStatement::Yank { name: args.name, reason: args.reason };
    let name = client.name(&Signed::seal(&statement, &key)).await?;
    if args.connect.json {
        output::json(&serde_json::json!({ "yanked": name }))?;
    } else {
        output::line(&format!("{name} is yanked: jobs that run keep it, new ones cannot use it"))?;
    }
    Ok(Exit::Ok)
}
