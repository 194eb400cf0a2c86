//! The integration tests: one binary, a module per subject.
//!
//! - `sandbox`: every task of `tasks`, and a program of somebody else, through the sandbox alone.

mod sandbox;
