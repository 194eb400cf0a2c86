//! What tests of this crate and of others share.

use std::{fs::OpenOptions, io::Write};

/// File that the lines of skipped tests are added to, for whoever runs them to count.
const SKIPPED_VARIABLE: &str = "QUORATE_SKIPPED";

/// Says that a test is skipped, and why.
///
/// # Panics
/// When the variable `required` is set: then what is missing had to be there.
#[allow(clippy::print_stderr, reason = "a test that does not run says so")]
pub fn skipped(why: &str, required: &str) {
    assert!(std::env::var_os(required).is_none(), "{why}, and {required} is set");
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os(SKIPPED_VARIABLE) {
        // One write of a short line: those of tests that run at once do not mix.
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(format!("skipped: {why}\n").as_bytes()));
    }
}
