//! A task gives the same result in all ways to run it, and the host is never at fault.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use host::fuzzing::campaign::Oracles;
use libfuzzer_sys::{Corpus, fuzz_target};

static ORACLES: LazyLock<Oracles> = LazyLock::new(|| Oracles::new().expect("engines start"));

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match ORACLES.task(&mut Unstructured::new(bytes)) {
        Ok(Ok(_)) => Corpus::Keep,
        Ok(Err(wrong)) => panic!("{wrong}"),
        Err(_) => Corpus::Reject,
    }
});
