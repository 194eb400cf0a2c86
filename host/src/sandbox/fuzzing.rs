//! What must hold of any module: oracles beside the private parts that they judge. See [`crate::fuzzing`].
//!
//! - [`generate`]: modules from a fuzzer's bytes; `entry`: makes a command of a module, which shows what it computed.
//! - [`differential`]: what admission makes of a module against what wasmtime's own switches do.
//! - [`whole`]: a task as a host runs it, in all ways; what preflight takes loads.

pub mod differential;
mod entry;
pub mod generate;
#[cfg(test)]
mod shapes;
pub mod whole;
