//! The process that compiles, from within: limits itself, reads one module, writes its machine code, says how it went.
//!
//! # Between parent and child
//! The order is one argument, as JSON. Standard input is the module, a file; standard output takes the code, a file; the last
//! line on standard error is an [`Answer`], as JSON. What stands before that line is what a crash left. The exit code is 0
//! when there is an answer.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{CompileBudget, NoCode, Target, precompile};
use crate::sandbox::{
    Optimisation,
    jail::{self, Jail, JailError, Layers},
    preflight::ModuleInfo,
};

/// The argument by which the program knows that it is to compile; the order follows.
pub(in crate::sandbox) const VERB: &str = "sandbox-compile";

/// Address space in bytes that an engine reserves for the instance that it never makes.
const ADDRESS_BYTES: u64 = 16 << 30;
/// The standard three, and what the compiler may need for itself.
const DESCRIPTORS: u64 = 16;

/// What a child is to do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub(super) target: Target,
    pub(super) budget: CompileBudget,
}

/// How it went: what is known of the module whose code was written, or why there is none.
pub(super) type Answer = Result<ModuleInfo, NoCode>;

/// Why a child has no answer to give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    /// The order is none.
    #[error("this verb is for quorate itself, which orders what to compile: {0}")]
    Order(serde_json::Error),
    /// The answer cannot be written.
    #[error("answer cannot be written: {0}")]
    Answer(io::Error),
}

/// Carries out an order.
pub(crate) fn serve(order: &str) -> Result<(), ChildError> {
    let order: Order = serde_json::from_str(order).map_err(ChildError::Order)?;
    let answer: Answer = carry_out(&order);
    let line = serde_json::to_string(&answer).map_err(|error| ChildError::Answer(error.into()))?;
    // A line of its own, whatever a logger may have left before it.
    let mut stderr = io::stderr().lock();
    stderr.write_all(format!("\n{line}\n").as_bytes()).map_err(ChildError::Answer)
}

fn carry_out(order: &Order) -> Answer {
    let budget = &order.budget;
    enter_jail(budget).map_err(|error| NoCode::failed("limits of the compiler", &error))?;
    let engine = order.target.engine(Optimisation::Speed);
    let engine = engine.map_err(|error| NoCode::failed("start of the compiler", &error))?;
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| NoCode::failed("reading the module", &error))?;
    let (info, code) = precompile(&engine, order.target.profile, &bytes, budget)?;
    write(&code).map_err(|error| NoCode::failed("writing the code", &error))?;
    Ok(info)
}

/// Writes to standard output as it is: the library's own looks for line ends, and the jail allows no second descriptor.
fn write(mut code: &[u8]) -> io::Result<()> {
    while !code.is_empty() {
        match rustix::io::write(io::stdout(), code) {
            Ok(written) => code = &code[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// From here on this process has so much time and memory, opens nothing, and dies with its parent.
fn enter_jail(budget: &CompileBudget) -> Result<(), JailError> {
    let gaps = jail::enter(&Jail {
        layers: Layers::ALL,
        cpu_s_max: Some(budget.cpu_s_max),
        data_bytes_max: Some(budget.memory_bytes_max),
        address_bytes_max: Some(budget.memory_bytes_max.saturating_add(ADDRESS_BYTES)),
        file_bytes_max: budget.artifact_bytes_max,
        descriptors_max: DESCRIPTORS,
        // Nothing can be written there.
        own_dir: PathBuf::from("/proc/self/fdinfo"),
        dies_with_parent: true,
        drivers: None,
    })?;
    for gap in gaps {
        tracing::debug!(%gap, "the compiler is less confined than it could be");
    }
    Ok(())
}
