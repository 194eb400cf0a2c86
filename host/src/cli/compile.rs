//! `quorate compile`: what a host starts to compile one module. See `sandbox::compile`.

use clap::Args;

use super::{CliError, Exit, Outcome};
use crate::sandbox::compile::child;

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// What to do, as the host says it.
    order: String,
}

pub(super) fn run(args: &CompileArgs) -> Outcome {
    child::serve(&args.order).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(Exit::Ok)
}
