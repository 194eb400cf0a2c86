//! A rewritten module does what wasmtime's own switches for fuel and NaNs do.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use host::fuzzing::campaign::Oracles;
use libfuzzer_sys::{Corpus, fuzz_target};

static ORACLES: LazyLock<Oracles> = LazyLock::new(|| Oracles::new().expect("engines start"));

fuzz_target!(|bytes: &[u8]| -> Corpus {
    match ORACLES.admitted(&mut Unstructured::new(bytes)) {
        Ok(Ok(_)) => Corpus::Keep,
        Ok(Err(wrong)) => panic!("{wrong}"),
        Err(_) => Corpus::Reject,
    }
});
