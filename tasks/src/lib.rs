//! Hands out the compiled tasks, and the data that the examples run on.
//!
//! One file of `src/bin` is one task is one [`TaskModule`]. There are four kinds:
//!
//! - examples, to copy from: `digits` (a model), `wordcount` (map and reduce), `mandelbrot` (typed values, floats),
//!   `digest` (hashing by the host), `echo`; with models that `tools/install-models` installs, `identify` (files of a
//!   directory), `speech` (a model with a state), `orient` (images, batches);
//! - hostile ones, each after one wall of the sandbox: `spin`, `hog`, `flood`, `deep`, `trap`, `exit`, `clock`,
//!   `bad-nn`;
//! - one to measure by: `kernel`, which runs any of [`kernels`];
//! - two to check interfaces by: `wasi-suite`, the meaning of WASI's public test suite; `nn-script`, which calls wasi-nn through
//!   its public crate as a script says.
//!
//! The list is made by `build.rs` from the directory, so a new task is a new file and nothing else, but for its test:
//!
//! # A task that no test claims does not compile
//! [`foreach_task!`] lets a test binary demand a function for each task:
//!
//! ```
//! mod claims {
//!     # macro_rules! pretend { ($task:ident) => { pub fn $task() {} } }
//!     # tasks::foreach_task!(pretend);
//!     // #[test] pub(super) fn digits() { .. }    one for each task, under the task's name
//! }
//!
//! macro_rules! claimed {
//!     ($task:ident) => {
//!         #[allow(unused_imports, reason = "only its existence matters")]
//!         use claims::$task as _;
//!     };
//! }
//! tasks::foreach_task!(claimed);
//! # fn main() {}
//! ```
//!
//! Adding `tasks/src/bin/new.rs` then fails the build with "no `new` in `claims`" until somebody writes that test.
//! (Identifiers have `_` where the file has `-`.) Where only one of the tasks has a test:
//!
//! ```compile_fail,E0432
//! mod claims {
//!     pub fn digits() {}
//! }
//!
//! macro_rules! claimed {
//!     ($task:ident) => {
//!         use claims::$task as _;
//!     };
//! }
//! tasks::foreach_task!(claimed);
//! # fn main() {}
//! ```
//!
//! On wasm this library is the kernels alone: the other tasks are built with it, but not from it.

#[cfg(not(target_arch = "wasm32"))]
pub mod data;
pub mod kernels;
#[cfg(not(target_arch = "wasm32"))]
mod modules;

#[cfg(not(target_arch = "wasm32"))]
pub use modules::*;
