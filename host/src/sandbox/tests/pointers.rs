//! Every function of the host, called with arguments as bad as they come: an error number or a clean end, never a panic.

use guest_sdk::abi;

use super::*;
use crate::sandbox::imports;

/// A module that calls one import with these arguments and exits with the error number, so that it can be seen.
fn calls(module: &str, name: &str, signature: &str, arguments: &[i64]) -> Vec<u8> {
    let (params, results) = signature.split_once('>').unwrap();
    let ty = |letter: char| if letter == 'i' { "i32" } else { "i64" };
    let params_text: String = params.chars().map(|letter| format!(" {}", ty(letter))).collect();
    let result_text = if results.is_empty() { "" } else { "(result i32)" };
    let pushed: String = params
        .chars()
        .zip(arguments)
        .map(|(letter, value)| match letter {
            'i' => format!("(i32.const {}) ", *value as i32),
            _ => format!("(i64.const {value}) "),
        })
        .collect();
    let end = if results.is_empty() { "" } else { "(call $exit)" };
    wat::parse_str(format!(
        r#"(module
            (import "{module}" "{name}" (func $tested (param{params_text}) {result_text}))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (func (export "_start") {pushed} (call $tested) {end}))"#
    ))
    .unwrap()
}

fn every_import() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let wasi = imports::WASI.into_iter().map(|(name, signature)| (abi::WASI_MODULE, name, signature));
    let nn = imports::NN.into_iter().map(|(name, signature)| (abi::nn::MODULE, name, signature));
    let hash = imports::HASH.into_iter().map(|(name, signature)| (abi::hash::MODULE, name, signature));
    wasi.chain(nn).chain(hash)
}

#[test]
fn all_bits_set_in_every_argument_is_an_error_number() {
    for (module, name, signature) in every_import() {
        let mut request = request(&calls(module, name, signature, &[-1; 9]));
        request.env.insert("NAME".to_owned(), "value".to_owned());
        let finished = run(request);
        match name {
            "sched_yield" => assert_eq!(finished.outcome, Outcome::Ok),
            "proc_raise" => assert!(matches!(finished.outcome, Outcome::Trap(_))),
            "compute" => assert_eq!(finished.outcome, Outcome::Exit(abi::nn::Errno::InvalidArgument as u8)),
            _ => assert!(matches!(finished.outcome, Outcome::Exit(1..)), "{name}: {finished:?}"),
        }
    }
}

#[test]
fn every_mix_of_good_and_bad_arguments_ends_cleanly() {
    // Descriptors and small counts, the end of memory and beyond, the largest of everything.
    let values = [0, 1, 3, 8, 65_532, 65_536, i64::from(u32::MAX), i64::MAX];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for (module, name, signature) in every_import() {
        for _ in 0..40 {
            let arguments: [i64; 9] = std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                values[usize::try_from(state >> 61).unwrap()]
            });
            let response = sandbox().run(request(&calls(module, name, signature, &arguments)));
            assert!(matches!(response, Response::Done(_)), "{name} {arguments:?}: {response:?}");
        }
    }
}

#[test]
fn lists_that_point_outside_memory_are_faults_of_the_guest() {
    // An iovec list inside memory whose buffer is not.
    let bytes = module(
        r#"(data (i32.const 0) "\ff\ff\ff\ff\ff\ff\ff\ff")"#,
        "(call $proc_exit (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))",
    );
    assert_eq!(run(request(&bytes)).outcome, Outcome::Exit(21));
    // Ten thousand buffers are more than a call may have.
    let bytes =
        module("", "(call $proc_exit (call $fd_read (i32.const 0) (i32.const 0) (i32.const 10000) (i32.const 16)))");
    assert_eq!(run(request(&bytes)).outcome, Outcome::Exit(28));
}

#[test]
fn the_linker_and_the_allow_list_are_one_list() {
    for (module, name, signature) in every_import() {
        // Links, so it exists with that type.
        request(&calls(module, name, signature, &[0; 9]));
    }
}
