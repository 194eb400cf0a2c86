//! `quorate names`

use clap::Args;

use super::{Exit, Outcome, connect::ConnectArgs, output};
use crate::gateway::wire::NameRow;

#[derive(Debug, Args)]
pub(super) struct NamesArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: NamesArgs) -> Outcome {
    let names: Vec<NameRow> = args.connect.client()?.get("/v1/names").await?;
    if args.connect.json {
        output::json(&names)?;
        return Ok(Exit::Ok);
    }
    let row = |row: &NameRow| {
        let yanked =
            row.yanked.as_ref().map_or_else(String::new, |reason| format!("yanked: {}", output::shown(reason)));
        vec![row.name.to_string(), row.manifest.short(), yanked]
    };
    output::table(&["name", "manifest", ""], &names.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}
