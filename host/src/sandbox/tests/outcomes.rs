//! Every way for a task to end, and what it leaves behind.

use std::time::Duration;

use registry::{job::Limits, receipt::Trap};

use super::*;
use crate::{clock::Stopwatch, sandbox::CancelToken};

const FOREVER: &str = "(loop $again (br $again))";

#[test]
fn returning_and_exiting_with_zero_are_ok_and_other_codes_keep_their_lowest_byte() {
    assert_eq!(outcome("", ""), Outcome::Ok);
    for (code, expected) in [
        (0, Outcome::Ok),
        (1, Outcome::Exit(1)),
        (134, Outcome::Exit(134)),
        (255, Outcome::Exit(255)),
        (256, Outcome::Ok),
        (257, Outcome::Exit(1)),
    ] {
        assert_eq!(outcome("", &format!("(call $proc_exit (i32.const {code}))")), expected);
    }
}

#[test]
fn every_trap_has_its_name() {
    let table = r#"(table 2 funcref) (elem (i32.const 0) $takes) (type $plain (func)) (func $takes (param i32))"#;
    let cases = [
        ("unreachable", Trap::Unreachable),
        ("(drop (i32.load (i32.const 65536)))", Trap::MemoryOutOfBounds),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", Trap::IntegerDivisionByZero),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", Trap::IntegerOverflow),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", Trap::BadConversionToInteger),
        ("(call_indirect (type $plain) (i32.const 0))", Trap::BadSignature),
        ("(call_indirect (type $plain) (i32.const 1))", Trap::IndirectCallToNull),
        ("(call_indirect (type $plain) (i32.const 2))", Trap::TableOutOfBounds),
    ];
    for (body, trap) in cases {
        assert_eq!(outcome(table, body), Outcome::Trap(trap), "{body}");
    }
}

#[test]
fn spent_fuel_is_exact_and_keeps_what_was_written() {
    let bytes = module(
        r#"(data (i32.const 0) "x")"#,
        "(loop $again (call $say (i32.const 1) (i32.const 0) (i32.const 1)) (br $again))",
    );
    let limits = Limits { fuel_max: 100_000, ..Limits::default() };
    let first = run(Request { limits, ..request(&bytes) });
    assert_eq!((first.outcome, first.fuel_used), (Outcome::FuelOut, 100_000));
    assert!(first.stdout.len() > 100);
    for _ in 0..3 {
        assert_eq!(run(Request { limits, ..request(&bytes) }), first);
    }
    // What a task needs is what it is charged: one unit less is not enough.
    let bytes = module("", "(call $say (i32.const 1) (i32.const 0) (i32.const 1000))");
    let needs = run(request(&bytes)).fuel_used;
    let with = |fuel_max| run(Request { limits: Limits { fuel_max, ..Limits::default() }, ..request(&bytes) });
    assert_eq!((with(needs).outcome, with(needs).fuel_used), (Outcome::Ok, needs));
    assert_eq!(with(300).outcome, Outcome::FuelOut);
}

#[test]
fn memory_past_the_limit_is_refused_and_only_a_task_that_fails_of_it_is_memory_out() {
    let limits = Limits { memory_bytes_max: 4 << 16, ..Limits::default() };
    let end = |pages: i32, then: &str| {
        let refused = format!("(if (i32.ne (memory.grow (i32.const {pages})) (i32.const -1)) (then (return))) {then}");
        let finished = run(Request { limits, ..request(&module("", &refused)) });
        (finished.outcome, finished.memory_peak_bytes >> 16)
    };
    assert_eq!(end(3, "unreachable"), (Outcome::Ok, 4));
    assert_eq!(end(4, "unreachable"), (Outcome::MemoryOut, 1));
    assert_eq!(end(4, "(call $proc_exit (i32.const 7))"), (Outcome::MemoryOut, 1));
    assert_eq!(end(4, ""), (Outcome::Ok, 1));
    assert_eq!(end(65536, "unreachable"), (Outcome::MemoryOut, 1));
    let large = wat::parse_str(r#"(module (memory (export "memory") 5) (func (export "_start")))"#).unwrap();
    let finished = run(Request { limits, ..request(&large) });
    assert_eq!((finished.outcome, finished.fuel_used), (Outcome::MemoryOut, 0));
}

#[test]
fn output_past_the_limit_ends_the_task_and_keeps_what_fitted() {
    let bytes = module("", "(loop $again (call $say (i32.const 1) (i32.const 0) (i32.const 30)) (br $again))");
    let limits = Limits { output_bytes_max: 100, ..Limits::default() };
    let finished = run(Request { limits, ..request(&bytes) });
    assert_eq!((finished.outcome, finished.stdout.len()), (Outcome::OutputOut, 90));
}

#[test]
fn a_log_past_its_limit_is_cut_in_silence() {
    let bytes = module(
        "",
        "(call $say (i32.const 2) (i32.const 0) (i32.const 30)) (call $say (i32.const 2) (i32.const 0) (i32.const 30))",
    );
    let limits = Limits { log_bytes_max: 40, ..Limits::default() };
    let finished = run(Request { limits, ..request(&bytes) });
    assert_eq!((finished.outcome, finished.stderr.len(), finished.stdout.len()), (Outcome::Ok, 40, 0));
}

#[test]
fn an_endless_loop_meets_its_deadline_or_its_cancellation() {
    let bytes = module("", FOREVER);
    let limits = Limits { fuel_max: u64::MAX, wall_ms_max: 200, ..Limits::default() };
    let watch = Stopwatch::start();
    assert_eq!(fault(Request { limits, ..request(&bytes) }), HostFault::Deadline { wall_ms_max: 200 });
    assert!((200..1500).contains(&watch.elapsed_ms()));

    let token = CancelToken::new();
    let request = Request { limits: Limits { wall_ms_max: 60_000, ..limits }, ..request(&bytes) };
    let response = std::thread::scope(|scope| {
        let run = scope.spawn(|| sandbox().run_cancellable(request, &token));
        std::thread::sleep(Duration::from_millis(50));
        token.cancel();
        run.join().unwrap()
    });
    assert_eq!(response, Response::Fault(HostFault::Cancelled));
}

#[test]
fn recursion_without_end_is_a_trap_at_the_same_depth_every_time() {
    let deep = |frame: &str| {
        module(
            &format!(
                "(global $depth (mut i32) (i32.const 0)) (func $deep (param i32) (result i32) {frame}
                (i32.store (i32.const 0) (local.get 0))
                (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (local.get 0)))"
            ),
            "(drop (call $deep (i32.const 0)))",
        )
    };
    let narrow = run(request(&deep("")));
    assert_eq!(narrow.outcome, Outcome::Trap(Trap::StackOverflow));
    assert_eq!(run(request(&deep(""))), narrow);
    // Deeper frames, fewer of them.
    let wide = run(request(&deep(&"(local i64)".repeat(200))));
    assert_eq!(wide.outcome, Outcome::Trap(Trap::StackOverflow));
    assert!(wide.fuel_used * 10 < narrow.fuel_used, "{} {}", wide.fuel_used, narrow.fuel_used);
    // Calls that lead back through a table count as well, and what returns has given back what it took.
    let table = "(type $f (func (param i32))) (table 1 funcref) (elem (i32.const 0) $again)
        (func $again (param i32) (if (local.get 0) (then (call_indirect (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))";
    assert_eq!(outcome(table, "(call $again (i32.const 2000000000))"), Outcome::Trap(Trap::StackOverflow));
    let often = "(local i32) (loop $l (call $again (i32.const 1000))
        (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))";
    assert_eq!(outcome(table, often), Outcome::Ok);
}

#[test]
fn a_request_for_more_than_the_host_gives_is_refused_by_name() {
    let base = request(&module("", ""));
    let limits = base.limits;
    let cases = [
        (Limits { memory_bytes_max: u64::MAX, ..limits }, "memory_bytes_max"),
        (Limits { output_bytes_max: u64::MAX, ..limits }, "output_bytes_max"),
        (Limits { scratch_bytes_max: u64::MAX, ..limits }, "scratch_bytes_max"),
        (Limits { log_bytes_max: u64::MAX, ..limits }, "log_bytes_max"),
        (Limits { wall_ms_max: u64::MAX, ..limits }, "wall_ms_max"),
    ];
    for (limits, name) in cases {
        let fault = fault(Request { limits, ..base.clone() });
        assert!(matches!(&fault, HostFault::LimitTooLarge { what, .. } if what == name), "{fault}");
    }
    let missing = ModuleHash::of(b"never loaded");
    assert_eq!(fault(Request::new(missing)), HostFault::ModuleMissing { module: missing });
    let mut named = base;
    named.files.insert("../x".to_owned(), Default::default());
    assert_eq!(fault(named).word(), "bad_request");
}
