//! How far backends differ on a model, measured; and whether two answers are the same one as far as that goes.
//!
//! ```text
//! model, samples ─measure► answers of each backend ─judge► how close each pair is ─fit► tolerance ─file► manifest, job, replay
//! ```
//!
//! - [`backends`]: what is at hand here.
//! - [`samples`]: what a model is asked, from files ([`npy`]) or made up.
//! - [`measure`]: asks each backend in a jailed process.
//! - [`judge`]: two answers held against each other.
//! - [`fit`]: from measured differences to a tolerance.
//! - [`mod@file`]: what is written of it.
//!
//! **What a tolerance promises.** A host that runs another model, other inputs or coarser weights falls outside, as far as that
//! moves an answer by more than backends differ anyway: `cargo bench --bench separation` says how far that is. Within it an
//! adversary may move answers as it likes.

pub mod backends;
pub mod file;
pub mod fit;
pub mod judge;
pub mod measure;
pub mod npy;
pub mod samples;
