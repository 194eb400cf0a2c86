//! What the benches share: medians, one table, and [`stock`], the engine without our sandbox.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

mod measure;
pub mod stock;

pub use measure::{interleaved, quantile, table, us};

/// A row of a [`table`].
#[macro_export]
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(($cell).to_string()),*] };
}
