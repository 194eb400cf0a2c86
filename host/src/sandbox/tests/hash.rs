//! Hashing by the host: right digests, paid for, inside the guest's memory.

use super::*;
use crate::limits;

const FUNCTIONS: [&str; 2] = ["blake3", "sha256"];

/// A module of one page of zeros, which may grow to 2048, that runs `body`, in which `$hash` is the function and `$say` writes to stdout.
fn hashes(function: &str, declared: &str, body: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module
            (import "quorate_hash" "{function}" (func $hash (param i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1 2048)
            {declared}
            (func $say (param $ptr i32) (param $len i32)
                (i32.store (i32.const 65520) (local.get $ptr))
                (i32.store (i32.const 65524) (local.get $len))
                (drop (call $fd_write (i32.const 1) (i32.const 65520) (i32.const 1) (i32.const 65528))))
            (func (export "_start") {body}))"#
    ))
    .unwrap()
}

/// The digest of a message at 1000, put over the start of the message itself.
fn digest(function: &str, message: &str) -> String {
    let bytes = hashes(
        function,
        &format!(r#"(data (i32.const 1000) "{message}")"#),
        &format!(
            "(call $hash (i32.const 1000) (i32.const {}) (i32.const 1000)) (if (then unreachable))
             (call $say (i32.const 1000) (i32.const 32))",
            message.len()
        ),
    );
    let finished = run(request(&bytes));
    assert_eq!(finished.outcome, Outcome::Ok);
    finished.stdout.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn digests_are_those_of_the_standards() {
    assert_eq!(digest("sha256", ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(digest("sha256", "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(digest("blake3", ""), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    assert_eq!(digest("blake3", "abc"), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
}

#[test]
fn a_message_of_all_memory_is_hashed_piece_by_piece() {
    // Eight pages of zeros but for what the digest itself was written to.
    let body = "(drop (memory.grow (i32.const 7)))
        (call $hash (i32.const 0) (i32.const 524288) (i32.const 524256)) (if (then unreachable))
        (call $say (i32.const 524256) (i32.const 32))";
    let zeros = vec![0; 8 << 16];
    let blake = run(request(&hashes("blake3", "", body))).stdout;
    assert_eq!(blake.as_ref(), blake3::hash(&zeros).as_bytes());
    let sha = run(request(&hashes("sha256", "", body))).stdout;
    assert_eq!(sha.as_ref(), <sha2::Sha256 as sha2::Digest>::digest(&zeros).as_slice());
    assert!(zeros.len() > limits::HASH_PIECE_BYTES, "one piece would prove nothing");
}

#[test]
fn pointers_outside_memory_are_an_error_number_and_write_nothing() {
    let outside = guest_sdk::abi::hash::OUTSIDE_MEMORY as u8;
    for function in FUNCTIONS {
        for (message, len, out) in
            [(65_536, 1, 0), (0, 65_537, 0), (-1, 1, 0), (0, -1, 0), (-1, -1, 0), (0, 4, 65_505), (0, 4, -1)]
        {
            let body = format!(
                "(call $hash (i32.const {message}) (i32.const {len}) (i32.const {out}))
                 (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
                 (if (i64.ne (i64.load (i32.const 65528)) (i64.const 0)) (then unreachable))
                 (call $exit)"
            );
            let finished = run(request(&hashes(function, "", &body)));
            assert_eq!(finished.outcome, Outcome::Exit(outside), "{function} {message} {len} {out}");
        }
        // Nothing at the very end of memory is inside it; so is a digest that just fits.
        let body = "(call $exit (call $hash (i32.const 65536) (i32.const 0) (i32.const 65504)))";
        assert_eq!(run(request(&hashes(function, "", body))).outcome, Outcome::Ok);
    }
}

#[test]
fn each_block_is_paid_before_it_is_hashed() {
    let body = |len: u32| format!("(drop (call $hash (i32.const 0) (i32.const {len}) (i32.const 0)))");
    for (function, price) in
        [("blake3", limits::HASH_BLAKE3_FUEL_PER_BLOCK), ("sha256", limits::HASH_SHA256_FUEL_PER_BLOCK)]
    {
        let used = |len: u32| run(request(&hashes(function, "", &body(len)))).fuel_used;
        assert_eq!(used(63), used(0));
        assert_eq!(used(64) - used(0), price);
        assert_eq!(used(6400) - used(0), 100 * price);

        let whole = used(6400);
        let mut request = request(&hashes(function, "", &body(6400)));
        request.limits.fuel_max = whole - 1;
        let finished = run(request.clone());
        assert_eq!((finished.outcome, finished.fuel_used), (Outcome::FuelOut, whole - 1), "{function}");
        request.limits.fuel_max = whole;
        assert_eq!(run(request).outcome, Outcome::Ok);
    }
}

/// There is no loop in this guest: only the host can notice.
#[test]
fn the_deadline_ends_a_task_inside_a_hash() {
    let body = "(drop (memory.grow (i32.const 2047)))
        (drop (call $hash (i32.const 0) (i32.const 0x8000000) (i32.const 0)))";
    for function in FUNCTIONS {
        let mut request = request(&hashes(function, "", body));
        request.limits.fuel_max = u64::MAX / 2;
        request.limits.wall_ms_max = 5;
        assert_eq!(fault(request), HostFault::Deadline { wall_ms_max: 5 });
    }
}
