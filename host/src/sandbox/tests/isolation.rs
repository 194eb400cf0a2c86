//! Runs do not see each other, nor the host: alone, together, or again, a request has one result.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Says the time, some random bytes, and what the last run may have left in memory.
const TELLTALE: &str = "
    (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 0)))
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)))
    (drop (call $random_get (i32.const 16) (i32.const 64)))
    (i32.store (i32.const 100) (i32.add (i32.load (i32.const 60000)) (i32.const 1)))
    (i32.store (i32.const 60000) (i32.const 77))
    (call $say (i32.const 1) (i32.const 0) (i32.const 128))";

#[test]
fn a_result_depends_on_the_request_alone() {
    let bytes = module("", TELLTALE);
    let first = run(request(&bytes));
    let other = Sandbox::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap();
    other.load_module(ModuleHash::of(&bytes), &bytes).unwrap();
    let Response::Done(again) = other.run(request(&bytes)) else { panic!("faulted") };
    assert_eq!(Finished { wall_micros: 0, ..again }, first);
    assert_eq!(other.fingerprint(), sandbox().fingerprint());
    let seeded = run(Request { seed: [1; 32], ..request(&bytes) });
    assert_ne!(seeded.stdout[16..80], first.stdout[16..80], "the seed decides randomness");
    assert_eq!(seeded.stdout[..16], first.stdout[..16], "the seed decides nothing else");
    assert_eq!(seeded.fuel_used, first.fuel_used);
}

#[test]
fn many_runs_at_once_are_equal_to_one_alone() {
    let request = request(&module(
        "",
        &format!(
            "(local $n i32) (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1))) (br_if $again (i32.lt_u (local.get $n) (i32.const 200000)))) {TELLTALE}"
        ),
    ));
    let alone = run(request.clone());
    let runs = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(run(request.clone()), alone);
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(runs.into_inner(), 160);
}

#[test]
fn a_full_pool_says_so_and_serves_again_when_a_slot_is_free() {
    let small = Sandbox::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap();
    let (busy, quick) = (module("", "(loop $again (br $again))"), module("", ""));
    for bytes in [&busy, &quick] {
        small.load_module(ModuleHash::of(bytes), bytes).unwrap();
    }
    let (token, quick) = (crate::sandbox::CancelToken::new(), Request::new(ModuleHash::of(&quick)));
    let mut endless = Request::new(ModuleHash::of(&busy));
    endless.limits.fuel_max = u64::MAX;
    std::thread::scope(|scope| {
        // The quick ones may hold the slot at first.
        let run = scope.spawn(|| {
            loop {
                let response = small.run_cancellable(endless.clone(), &token);
                if !matches!(response, Response::Fault(HostFault::NoSlot { .. })) {
                    return response;
                }
            }
        });
        while small.run(quick.clone()) != Response::Fault(HostFault::NoSlot { slots_max: 1 }) {
            std::thread::yield_now();
        }
        token.cancel();
        assert_eq!(run.join().unwrap(), Response::Fault(HostFault::Cancelled));
    });
    for _ in 0..10 {
        assert!(matches!(small.run(quick.clone()), Response::Done(_)));
    }
}

#[test]
fn versions_in_the_fingerprint_are_those_of_the_lock_file() {
    let lock = include_str!("../../../../Cargo.lock").replace("\r\n", "\n");
    let description = sandbox().describe().clone();
    let locked = |name: &str| {
        let at = lock.find(&format!("name = \"{name}\"\nversion = \"")).unwrap();
        lock[at..].lines().nth(1).unwrap().trim_start_matches("version = ").trim_matches('"').to_owned()
    };
    assert_eq!(description.wasmtime, locked("wasmtime"));
    assert_eq!(description.backend, format!("tract {}+tanh", locked("tract-onnx")));
    assert_eq!(description.fingerprint(), sandbox().fingerprint());
}
