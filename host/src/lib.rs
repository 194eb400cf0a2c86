//! The binary `quorate` as a library: what its tests and benches reach.
//!
//! Reading order, from the ground floor up:
//! - [`limits`]: every bound of the host, named with its unit.
//! - [`clock`]: the one file that reads the time.
//! - [`metrics`]: what a process tells Prometheus.
//! - [`sandbox`]: runs one task of an untrusted module, deterministically and within its limits.
//! - [`gateway`]: HTTP, the only user of hyper and axum besides the client.

pub mod clock;
pub mod coordinator;
pub mod gateway;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod sandbox;
