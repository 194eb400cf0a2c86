//! Writes stdout without end: what the output limit is for.
//!
//! Exits with 1 if the host refuses a write instead of ending the task.

use std::{
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let block = [b'y'; 64 << 10];
    let mut stdout = io::stdout().lock();
    while stdout.write_all(&block).is_ok() {}
    ExitCode::FAILURE
}
