//! The integration tests: one binary, a module per subject.
//!
//! - `compile`: modules compiled by a child, within its budget, once for all processes.
//! - `sandbox`: every task of `tasks`, and a program of somebody else, through the sandbox alone.
//! - `grid`: the main job over real processes: results, liars, losses.
//! - `devices`: jobs that ask for what models run on, and hosts that have it, or say so.
//! - `engines`: hosts with more to infer with, and what it costs when it is missing, slow or broken.
//! - `gpu`: the example tasks on every way to a GPU that this machine has.
//! - `doctor`: what `quorate doctor` says of machines that have more and less.
//! - `refusals`: bad input over HTTP, on the command line and between hosts.
//! - `tolerant`: what models answered, recorded, and judged by a tolerance where it is replayed.
//! - `users`: what task authors and teams do, by the command line.
//! - `run`: one task on this machine, without a grid, and that it comes out as on one.
//! - `receipts`: logs of a job and of its hosts, checked offline, whole and tampered with.
//! - `reputation`: histories of operators, checked offline, whole and tampered with.
//! - `replay`: records of receipts run again, with everything stopped.
//! - `isolation`: what each layer around a task stops by itself, and what becomes of processes that are hurt.
//! - `ledger`: jobs that somebody pays for, and bills that anybody computes again.
//! - `hostile`: peers, clients, modules and disks that mean harm; its modules, and those of `bad_input`, are made in `bombs`.
//! - `wasi`: preview 1 as the public test suite means it, and the table of what is supported.
//! - `bad_input`: every kind of bad module and bad behaviour, each with its outcome, as one table.
//! - `bad_models`: every kind of bad model and bad use of one, each with its outcome, as one table.
//! - `nn`: wasi-nn as the public Rust crate and a guest in C call it, and every element type.
//! - `metrics`: what Prometheus reads.
//! - `models`: example tasks over real models, held against what the models' own Python packages say.
//! - `operators`: the ONNX project's operator test vectors on every backend.
//! - `referee`: tract inside the sandbox: one result everywhere, fuel that is exact, bounds; and tract's own kernels by class.
//! - `audit`: results that are accepted on one operator's word, and what is drawn against that.
//! - `steps`: tasks in steps, cut and gone on from, and disputes about one of their segments.
//! - `sessions`: models in memory, within their bound; batches of any size, and quantized models.
//! - `digits`: the main job's input, and what is true about it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod audit;
mod bad_input;
mod bad_models;
mod bombs;
mod compile;
mod devices;
mod digits;
mod doctor;
mod engines;
mod gpu;
mod grid;
mod hostile;
mod isolation;
mod ledger;
mod metrics;
mod models;
mod nn;
mod operators;
mod receipts;
mod referee;
mod refusals;
mod replay;
mod reputation;
mod run;
mod sandbox;
mod sessions;
mod steps;
mod tolerant;
mod users;
mod wasi;

/// The program under test.
const EXE: &str = env!("CARGO_BIN_EXE_quorate-under-test");
/// The program that tries what it must not.
const PROBE: &str = env!("CARGO_BIN_EXE_quorate-probe");
