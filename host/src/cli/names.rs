//! `quorate names`: every name, or what one stands for.

use clap::Args;
use grid::dispatch::Unsteady;
use registry::{
    id::ManifestHash,
    manifest::{Manifest, ModelManifest, TaskManifest},
    name::Name,
    tolerance::{Tolerance, TopAgreement},
};
use serde::{Deserialize, Serialize};

use super::{CliError, Exit, Outcome, connect::ConnectArgs, output, push};
use crate::gateway::wire::NameRow;

#[derive(Debug, Args)]
pub(super) struct NamesArgs {
    /// Show the manifest of this one.
    name: Option<Name>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A name with its manifest, as the gateway tells it.
#[derive(Debug, Serialize, Deserialize)]
struct NameAnswer {
    name: Name,
    manifest: ManifestHash,
    #[serde(flatten)]
    content: Manifest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsteady: Option<Unsteady>,
}

pub(super) async fn run(args: NamesArgs) -> Outcome {
    match &args.name {
        Some(name) => one(&args, name).await,
        None => list(&args).await,
    }
}

async fn list(args: &NamesArgs) -> Outcome {
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

async fn one(args: &NamesArgs, name: &Name) -> Outcome {
    let Name { publisher, name, version } = name;
    let answer: NameAnswer = args.connect.client()?.get(&format!("/v1/names/{publisher}/{name}/{version}")).await?;
    if args.connect.json {
        output::json(&answer)?;
        return Ok(Exit::Ok);
    }
    say("name", &answer.name)?;
    say("manifest", &answer.manifest)?;
    match &answer.content {
        Manifest::Task(task) => show_task(task)?,
        Manifest::Model(model) => {
            say("model", &format_args!("{}  {}", model.model, output::bytes(model.model_bytes)))?;
            show_tolerance(model)?;
        }
    }
    if let Some(unsteady) = &answer.unsteady {
        say("unsteady", unsteady)?;
    }
    Ok(Exit::Ok)
}

fn show_task(task: &TaskManifest) -> Result<(), CliError> {
    if !task.description.is_empty() {
        say("about", &output::shown(&task.description))?;
    }
    say("module", &format_args!("{}  {}", task.module, output::bytes(task.module_bytes)))?;
    for (name, model) in &task.models {
        let length = output::bytes(model.model_bytes);
        say("model", &format_args!("{}  {length}  {}", model.model, output::shown(name)))?;
        show_tolerance(model)?;
    }
    say("class", &format_args!("{:?}", task.class).to_string().to_lowercase())?;
    if let Some(sample) = task.sample {
        say("sample", &sample)?;
    }
    match &task.lint {
        Some(lint) => say("lint", &format_args!("{}, says its publisher", push::verdict(lint))),
        None => say("lint", &"none: its publisher did not say whether its results differ"),
    }
}

fn show_tolerance(model: &ModelManifest) -> Result<(), CliError> {
    let Some(Tolerance { atol_exp2, rtol_exp2, top }) = model.tolerance else { return Ok(()) };
    let top = top.map_or_else(String::new, |TopAgreement { k, agreement_ppm }| {
        format!(", top-{k} the same in {:.4} %", f64::from(agreement_ppm) / 1e4)
    });
    say("tolerance", &format_args!("2^{atol_exp2} + 2^{rtol_exp2} of the value{top}, says its publisher"))
}

fn say(what: &str, value: &dyn std::fmt::Display) -> Result<(), CliError> {
    output::line(&format!("{what:<8}  {value}"))
}
