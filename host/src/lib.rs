//! The binary `quorate` as a library: what its tests and benches reach.
//!
//! Reading order, from the ground floor up:
//! - [`limits`]: every bound of the host, named with its unit. [`clock`]: the one file that reads the time.
//!   [`config`]: the configuration file. [`keys`]: secrets on disk. [`metrics`]: what a process tells Prometheus.
//! - [`sandbox`]: runs one task of an untrusted module, deterministically and within its limits. `task`: what goes into it
//!   and what is signed of what comes out, the same for a host and for `quorate run`.
//! - [`journal`]: the coordinator's memory. [`coordinator`]: drives the event machine of `grid`.
//! - [`worker`]: the host's side of the work: fetch, run, sign, send.
//! - `replay`: runs the task of a record of receipts again. `lint`: runs a module twice and more before it is published.
//!   `doctor`: what this machine has for all that.
//! - [`net`]: what crosses sockets between hosts and coordinator; the only user of iroh's control plane.
//! - [`gateway`]: HTTP, the only user of axum. [`client`]: its other end.
//! - [`node`]: wires the parts into processes. [`launch`]: starts such processes. [`demo`]: the main job, on one machine.
//! - [`cli`]: what people type.
//! - `fuzzing` (feature, and tests): what must hold of any module and any frame.

pub mod calibrate;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod coordinator;
pub mod demo;
pub mod doctor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod journal;
pub mod keys;
pub mod launch;
pub mod limits;
mod lint;
pub mod metrics;
pub mod net;
pub mod node;
mod replay;
pub mod sandbox;
mod task;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod testing;
pub mod worker;
