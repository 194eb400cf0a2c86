//! A stream of frames gives the messages that are on it, or breaks.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Unstructured;
use host::fuzzing::frames;
use libfuzzer_sys::fuzz_target;

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(frames::samples);

fuzz_target!(|bytes: &[u8]| {
    let damaged = frames::damaged(&mut Unstructured::new(bytes), &SAMPLES).unwrap_or_default();
    for bytes in [bytes, &damaged] {
        if let Err(wrong) = frames::stream(bytes) {
            panic!("{wrong}");
        }
    }
});
