//! How far backends differ on a model, measured; and whether two answers are the same one as far as that goes.
//!
//! - [`judge`]: two answers held against each other.
//! - [`fit`]: from measured differences to a tolerance.

pub mod fit;
pub mod judge;
