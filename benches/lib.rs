//! What the benches share: medians, one table, and [`stock`], the engine without our sandbox.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

mod measure;
pub mod stock;

use std::{error::Error, process::ExitCode, thread};

use host::{limits, sandbox::child};

pub use measure::{interleaved, quantile, table, us};

/// The `main` of a bench that runs tasks: in a thread as a host's that do, which have the stack for it; and as a sandbox process,
/// where it is started as one.
///
/// # Errors
/// When it cannot measure.
pub fn measured(measure: fn() -> Result<(), Box<dyn Error>>) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = child::run_if_asked() {
        return Ok(code);
    }
    let own = thread::Builder::new().stack_size(limits::EXECUTOR_STACK_BYTES);
    let measured = own.spawn(move || measure().map_err(|error| error.to_string()))?.join();
    measured.map_err(|_| "the measuring thread panicked")??;
    Ok(ExitCode::SUCCESS)
}

/// A row of a [`table`].
#[macro_export]
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(($cell).to_string()),*] };
}
