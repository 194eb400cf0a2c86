//! What the author of a Quorate task uses.
//!
//! A task is a pure function: bytes on stdin to bytes on stdout, the same bytes from every host that runs it. An
//! ordinary WASI program is already a task and needs nothing from here. This crate adds what most tasks want next, in
//! reading order:
//!
//! - [`run`], [`text`] and [`lines`]: the three shapes of `main`, for typed values (CBOR), for a text, for a stream of
//!   lines;
//! - [`Steps`]: a state that is worked on step by step, for tasks that take long;
//! - [`Exit`]: how a task ends, and the exit code the host sees;
//! - [`shard`] and [`stage`]: which slice of which part of the job this is;
//! - [`files`]: the named input files, all or those on a list;
//! - [`nn`]: typed wasi-nn, for tasks that declared a model;
//! - [`hash`]: BLAKE3 and SHA-256 by the host, at a fraction of what they take inside the guest;
//! - [`abi`]: the names and numbers shared with the host. No code crosses that wall.
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! fn main() -> guest_sdk::Exit {
//!     guest_sdk::run(|numbers: Vec<u64>| Ok::<u64, Infallible>(numbers.iter().sum()))
//! }
//! ```
//!
//! # Staying deterministic
//! The host already virtualises clock, randomness and directory order. What remains is the author's: prefer `BTreeMap`
//! to `HashMap` in anything that reaches the output (the order of a `HashMap` is the same on every host, but moves with
//! the compiler), and leave out threads and relaxed SIMD. Nothing in this crate reads a clock or draws a number.
//!
//! # Testing without a grid
//! The same source compiles natively. The functions ending in `_with` take their streams as arguments, and
//! [`nn::stub`] stands in for the host's models on every target that is not wasm.

pub mod abi;
mod entry;
mod files;
pub mod hash;
mod job;
pub mod nn;
mod steps;

pub use entry::{Exit, decode, encode, lines, lines_with, run, run_with, text, text_with};
pub use files::{InputFile, files, files_of};
pub use job::{Shard, Stage, shard, stage};
pub use steps::{Next, Steps, steps_with};
#[doc(hidden)]
pub use steps::{begin, step};

/// The CBOR library that [`run`] uses, for authors who need its types.
pub use serde_cbor;
