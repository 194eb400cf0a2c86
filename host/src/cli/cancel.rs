//! `quorate cancel`

use clap::Args;
use serde_json::Value;

use super::{
    Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output,
};

#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The job, or the beginning of its id.
    job: String,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: CancelArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    let answer: Value = client.delete(&format!("/v1/jobs/{id}")).await?;
    if args.connect.json {
        output::json(&answer)?;
    } else if answer["cancelled"] == true {
        output::line(&format!("job {} is cancelled", output::short(id)))?;
    } else {
        output::line(&format!("job {} had ended before", output::short(id)))?;
    }
    Ok(Exit::Ok)
}
