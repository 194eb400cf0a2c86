//! The promises of the sandbox, by subject. Guests are WebAssembly text, so that a test shows all that its guest does.

mod hash;
mod inference;
mod isolation;
mod outcomes;
mod pointers;
mod refusals;
mod steps;
mod wasi;

use std::sync::OnceLock;

use registry::{id::ModuleHash, job::Limits, receipt::Outcome};

use super::{Finished, HostFault, Request, Response, Sandbox, SandboxOptions};

/// One sandbox for all tests: they run at once in it, as tasks do.
fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(SandboxOptions::default()).unwrap()).clone()
}

/// A module of a `_start` body, with one page of memory and whatever else is declared.
fn module(declared: &str, body: &str) -> Vec<u8> {
    let wasi = |name: &str, params: &str, result: &str| {
        format!(r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {params}) {result}))"#)
    };
    let imports = [
        wasi("fd_write", "i32 i32 i32 i32", "(result i32)"),
        wasi("fd_read", "i32 i32 i32 i32", "(result i32)"),
        wasi("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "(result i32)"),
        wasi("random_get", "i32 i32", "(result i32)"),
        wasi("clock_time_get", "i32 i64 i32", "(result i32)"),
        wasi("poll_oneoff", "i32 i32 i32 i32", "(result i32)"),
        wasi("fd_close", "i32", "(result i32)"),
        wasi("proc_exit", "i32", ""),
    ]
    .join("\n");
    wat::parse_str(format!(
        r#"(module {imports} (memory (export "memory") 1)
            {declared}
            ;; Writes len bytes at ptr to a stream.
            (func $say (param $fd i32) (param $ptr i32) (param $len i32)
                (i32.store (i32.const 65520) (local.get $ptr))
                (i32.store (i32.const 65524) (local.get $len))
                (drop (call $fd_write (local.get $fd) (i32.const 65520) (i32.const 1) (i32.const 65528))))
            (func (export "_start") {body}))"#
    ))
    .unwrap()
}

/// A request for a module, which is loaded.
fn request(bytes: &[u8]) -> Request {
    let hash = ModuleHash::of(bytes);
    sandbox().load_module(hash, bytes).unwrap();
    Request::new(hash)
}

fn run(request: Request) -> Finished {
    match sandbox().run(request) {
        Response::Done(finished) => Finished { wall_micros: 0, ..finished },
        Response::Fault(fault) => panic!("faulted: {fault}"),
    }
}

fn fault(request: Request) -> HostFault {
    match sandbox().run(request) {
        Response::Done(finished) => panic!("finished: {finished:?}"),
        Response::Fault(fault) => fault,
    }
}

/// How a `_start` body ends under the default limits.
fn outcome(declared: &str, body: &str) -> Outcome {
    run(request(&module(declared, body))).outcome
}
