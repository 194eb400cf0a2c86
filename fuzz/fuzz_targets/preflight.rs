//! Preflight takes any bytes without a panic, and what it takes loads: bytes as they come, and damaged modules.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use host::fuzzing::campaign::Oracles;
use libfuzzer_sys::{Corpus, fuzz_target};

static ORACLES: LazyLock<Oracles> = LazyLock::new(|| Oracles::new().expect("engines start"));

fuzz_target!(|bytes: &[u8]| -> Corpus {
    for judged in [ORACLES.loads(bytes), ORACLES.damaged(&mut Unstructured::new(bytes))] {
        if let Ok(Err(wrong)) = judged {
            panic!("{wrong}");
        }
    }
    Corpus::Keep
});
