//! What must hold of any module and of any frame, whoever made it: oracles, and generators of what they judge.
//!
//! The same oracles are called by the fuzz targets in `fuzz/`, which a coverage-guided fuzzer drives, by the run on
//! stable ([`campaign`]), which a seed drives, and by unit tests over hand-written shapes.
//! - [`modules`]: a rewritten module against wasmtime's own switches; a task in all ways to run it; what preflight takes.
//! - [`frames`]: canonical values and the frames between a host and its coordinator.
//!
//! An oracle gives an error that says what is wrong; it panics only where the code that it judges does.

pub use crate::sandbox::fuzzing as modules;

pub mod campaign;
pub mod frames;
