//! Every kind of bad module and bad behaviour, each with its outcome, as one table.
//!
//! An outcome is the word of a result (`fuel_out`, `trap(unreachable)`, `exit(7)`), of a refusal before anything is compiled
//! (`refused(text)`), or of a host's fault that is no result (`fault(deadline)`). What the same input is told over HTTP is in
//! `refusals`, what peers and clients do in `hostile`.

use std::collections::BTreeSet;

use host::sandbox::{Request, Response};
use registry::id::ModuleHash;

use crate::{
    bombs::{self, Bomb},
    sandbox::SANDBOX,
};

/// What has to be in the table.
const KINDS: [&str; 18] = [
    "loop",
    "recursion",
    "memory bomb",
    "table bomb",
    "compile bomb",
    "stdout flood",
    "stderr flood",
    "descriptors",
    "files",
    "path escape",
    "sleep",
    "wrong export",
    "missing export",
    "corrupted",
    "component",
    "precompiled",
    "text",
    "unknown import",
];

struct Row {
    kind: &'static str,
    wasm: Vec<u8>,
    /// What the request has beside the default.
    asks: fn(&mut Request),
    expected: &'static str,
}

fn row(kind: &'static str, wasm: impl Into<Vec<u8>>, expected: &'static str) -> Row {
    asking(kind, wasm, |request| request.limits.fuel_max = 100_000_000, expected)
}

fn asking(kind: &'static str, wasm: impl Into<Vec<u8>>, asks: fn(&mut Request), expected: &'static str) -> Row {
    Row { kind, wasm: wasm.into(), asks, expected }
}

/// A case of `wasi-suite`, which asserts what happens and then is done.
fn suite(kind: &'static str, asks: fn(&mut Request)) -> Row {
    asking(kind, tasks::WASI_SUITE.wasm, asks, "ok")
}

/// Runs or refuses a row's module; says how that ended.
fn outcome(row: &Row) -> String {
    let hash = ModuleHash::of(&row.wasm);
    if let Err(error) = SANDBOX.load_module(hash, &row.wasm) {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 400, "{}: {text}", row.kind);
        return format!("refused({})", error.word());
    }
    let mut request = Request::new(hash);
    request.files.insert("words.txt".into(), "hello".into());
    (row.asks)(&mut request);
    let limits = request.limits;
    match SANDBOX.run(request) {
        Response::Fault(fault) => format!("fault({})", fault.word()),
        Response::Done(done) => {
            let output: usize = done.stdout.len() + done.files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            assert!(output as u64 <= limits.output_bytes_max, "{}: {output} bytes", row.kind);
            assert!(done.stderr.len() as u64 <= limits.log_bytes_max, "{}: {} bytes", row.kind, done.stderr.len());
            assert!(done.fuel_used <= limits.fuel_max && done.memory_peak_bytes <= limits.memory_bytes_max, "{done:?}");
            let log = String::from_utf8_lossy(&done.stderr);
            format!("{}{}", done.outcome, if log.contains("panicked") { format!(": {log}") } else { String::new() })
        }
    }
}

const BEGIN: &str = r#"(memory (export "memory") 1)"#;
const START: &str = r#"(func (export "_start"))"#;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A module of a `_start` body and whatever else is declared.
fn guest(declared: &str, body: &str) -> Vec<u8> {
    wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            {BEGIN} {declared} (func (export "_start") {body}))"#
    ))
}

/// Nothing ends these but a limit.
fn endless() -> Vec<Row> {
    let deep = "(func $deep (param i32) (result i32)
        (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (local.get 0)))";
    let table = "(type $f (func)) (table 1 funcref) (elem (i32.const 0) $again)
        (func $again (call_indirect (type $f) (i32.const 0)) (call_indirect (type $f) (i32.const 0)))";
    let flood = |stream: u32| {
        let write = format!("(drop (call $write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 16)))");
        guest(r#"(data (i32.const 0) "\00\00\00\00\00\80\00\00")"#, &format!("(loop $more {write} (br $more))"))
    };
    vec![
        row("loop", guest("", "(loop $again (br $again))"), "fuel_out"),
        row("loop", wat(&format!("(module {BEGIN} {START} (func $s (loop br 0)) (start $s))")), "fuel_out"),
        row("loop", tasks::SPIN.wasm, "fuel_out"),
        asking(
            "loop",
            tasks::SPIN.wasm,
            |request| (request.limits.fuel_max, request.limits.wall_ms_max) = (u64::MAX / 2, 300),
            "fault(deadline)",
        ),
        row("recursion", guest(deep, "(drop (call $deep (i32.const 0)))"), "trap(stack_overflow)"),
        row("recursion", guest(table, "(call $again)"), "trap(stack_overflow)"),
        row("recursion", tasks::DEEP.wasm, "trap(stack_overflow)"),
        asking("memory bomb", tasks::HOG.wasm, |request| request.limits.memory_bytes_max = 16 << 20, "memory_out"),
        row("memory bomb", wat(&format!(r#"(module (memory (export "memory") 8192) {START})"#)), "memory_out"),
        // More than this host gives to any task.
        row("memory bomb", wat(&format!(r#"(module (memory (export "memory") 65536) {START})"#)), "refused(too_large)"),
        // Each is a call of the host's, so that the usual fuel would last for most of a minute.
        asking(
            "memory bomb",
            guest("", "(loop $more (drop (memory.grow (i32.const 1))) (br $more))"),
            |request| request.limits.fuel_max = 100_000_000,
            "fuel_out",
        ),
        row("memory bomb", wat(&format!(r#"(module (memory (export "memory") i64 1) {START})"#)), "refused(memory)"),
        row("table bomb", wat(&format!("(module {BEGIN} {START} (table 10000000 funcref))")), "refused(too_large)"),
        row(
            "table bomb",
            wat(&format!("(module {BEGIN} {START} {})", "(table 1 funcref)".repeat(5))),
            "refused(too_large)",
        ),
        row(
            "table bomb",
            guest(
                "(table $t 1 funcref)",
                "(if (i32.eq (table.grow $t (ref.null func) (i32.const 10000000)) (i32.const -1))
                    (then (call $exit (i32.const 7))))",
            ),
            "exit(7)",
        ),
        asking("stdout flood", tasks::FLOOD.wasm, |request| request.limits.output_bytes_max = 1 << 20, "output_out"),
        row("stdout flood", flood(1), "output_out"),
        row("stderr flood", flood(2), "fuel_out"),
        // A relative sleep of 292 years on the monotonic clock is over at once.
        row(
            "sleep",
            guest(
                "",
                "(i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 9223372036854775807))
                 (call $exit (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 180)))",
            ),
            "ok",
        ),
        suite("sleep", |request| request.args.push("poll_oneoff_clock".into())),
    ]
}

/// What a task asks of the file system.
fn greedy() -> Vec<Row> {
    vec![
        suite("descriptors", |request| request.args.push("descriptors_end".into())),
        suite("files", |request| request.args.push("names_end".into())),
        suite("files", |request| request.args.push("output_files_end".into())),
        suite("files", |request| request.args.push("path_lengths_end".into())),
        suite("files", |request| {
            request.args.push("scratch_ends".into());
            request.limits.scratch_bytes_max = 64 << 10;
        }),
        suite("path escape", |request| request.args.push("no_way_out".into())),
        suite("path escape", |request| request.args.push("symlink_no_way_out".into())),
        suite("path escape", |request| request.args.push("interesting_paths".into())),
        suite("path escape", |request| request.args.push("fopen_with_no_access".into())),
    ]
}

/// What would cost a compiler more than a module may, each over another bound, and what costs as much as it may.
fn costly() -> Vec<Row> {
    let constant = |additions| [&[0x7f, 0][..], &bombs::sum(additions)].concat();
    let elements = [&[1, 0, 0x80, 0x80, 0x20][..], &[0; 1 << 19]].concat();
    let refused = [
        // Work of compiling.
        Bomb::new().functions(1, 0, &bombs::blocks(250_000)),
        Bomb::new().functions(30, 0, &bombs::nested(40_000)),
        Bomb::new().functions(700, 0, &bombs::loops(500, 1_000)),
        Bomb::new().functions(200, 10_000, &bombs::loops(900, 10_000)),
        // Lengths.
        Bomb::new().functions(1, 0, &bombs::chain(700_000)),
        Bomb::new().functions(20, 0, &bombs::chain(500_000)),
        // Counts.
        Bomb::new().functions(200_001, 0, &[]),
        Bomb::new().signatures(20_000, 14),
        Bomb::new().signatures(10, 100),
        Bomb::new().exports(10_000),
        Bomb::new().functions(1, 10_001, &[]),
        Bomb::new().section(6, 1, &constant(10_000)),
        Bomb::new().section(9, 2, &elements),
    ];
    let taken = [Bomb::new().exports(9_998), Bomb::new().functions(100, 10_000, &[])];
    let refused = refused.iter().map(|bomb| row("compile bomb", bomb.build(), "refused(too_large)"));
    refused.chain(taken.iter().map(|bomb| row("compile bomb", bomb.build(), "ok"))).collect()
}

/// What is no task.
fn malformed() -> Vec<Row> {
    let module = |rest: &str| wat(&format!("(module {rest})"));
    let echo = tasks::ECHO.wasm;
    let flipped = |at: usize| {
        let mut bytes = echo.to_vec();
        bytes[at] ^= 0xff;
        bytes
    };
    // The length of the first section says that it goes on past the end.
    let overlong = [&echo[..9], &[0xff, 0xff, 0xff, 0xff, 0x0f], &echo[10..]].concat();
    let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 57], echo].concat();
    vec![
        row(
            "wrong export",
            module(&format!(r#"{BEGIN} (func (export "_start") (param i32))"#)),
            "refused(export_type)",
        ),
        row(
            "wrong export",
            module(&format!(r#"{BEGIN} (func (export "_start") (result i32) i32.const 0)"#)),
            "refused(export_type)",
        ),
        row(
            "wrong export",
            module(&format!(r#"{BEGIN} (global (export "_start") i32 (i32.const 0))"#)),
            "refused(export_type)",
        ),
        row("wrong export", module(&format!(r#"{START} (func (export "memory"))"#)), "refused(export_type)"),
        row("missing export", module(BEGIN), "refused(export_missing)"),
        row("missing export", module(START), "refused(export_missing)"),
        row("missing export", module(&format!(r#"{BEGIN} (func (export "main"))"#)), "refused(export_missing)"),
        row("missing export", module(""), "refused(export_missing)"),
        row("corrupted", *b"", "refused(not_wasm)"),
        row("corrupted", *b"not wasm at all", "refused(not_wasm)"),
        row("corrupted", &echo[..200], "refused(invalid)"),
        row("corrupted", &echo[..echo.len() - 1], "refused(invalid)"),
        row("corrupted", [echo, &[0x0a]].concat(), "refused(invalid)"),
        row("corrupted", flipped(0), "refused(not_wasm)"),
        row("corrupted", flipped(4), "refused(not_wasm)"),
        row("corrupted", flipped(8), "refused(invalid)"),
        row("corrupted", overlong, "refused(invalid)"),
        row("corrupted", module(&format!("{BEGIN} {START} (tag)")), "refused(invalid)"),
        row("component", wat("(component)"), "refused(component)"),
        row("component", wat(&format!("(component (core module {BEGIN} {START}))")), "refused(component)"),
        row("precompiled", elf, "refused(not_wasm)"),
        row("precompiled", *b"\0aot\x04\0\0\0", "refused(not_wasm)"),
        row("text", *b"(module)", "refused(text)"),
        row("text", format!("\n  (module {BEGIN} {START})"), "refused(text)"),
        row(
            "unknown import",
            module(&format!(r#"(import "env" "launch" (func)) {BEGIN} {START}"#)),
            "refused(import_unknown)",
        ),
        row(
            "unknown import",
            module(&format!(
                r#"(import "wasi_snapshot_preview1" "sock_open" (func (param i32) (result i32))) {BEGIN} {START}"#
            )),
            "refused(import_unknown)",
        ),
        row(
            "unknown import",
            module(&format!(r#"(import "quorate" "refuel" (func (param i64))) {BEGIN} {START}"#)),
            "refused(import_unknown)",
        ),
        row(
            "unknown import",
            module(&format!(r#"(import "wasi_snapshot_preview1" "fd_close" (func (param i64))) {BEGIN} {START}"#)),
            "refused(import_type)",
        ),
        row(
            "unknown import",
            module(&format!(r#"(import "env" "memory" (memory 1)) {START}"#)),
            "refused(import_kind)",
        ),
    ]
}

#[test]
fn each_kind_of_bad_input_has_its_outcome_and_the_next_task_runs() {
    let rows: Vec<Row> = [endless(), greedy(), costly(), malformed()].into_iter().flatten().collect();
    let kinds: BTreeSet<&str> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, KINDS.into(), "each kind has its rows");
    let wrong: Vec<String> = rows
        .iter()
        .map(|row| (row, outcome(row)))
        .filter(|(row, found)| found != row.expected)
        .map(|(row, found)| format!("{} ({} bytes): {found} instead of {}", row.kind, row.wasm.len(), row.expected))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(outcome(&row("none", tasks::ECHO.wasm, "ok")), "ok");
}
