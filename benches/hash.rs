//! What does a task gain by having the host hash?
//!
//! The same message hashed three ways: natively with what the processor has, by a task that calls the host, and by a task
//! that does the work itself, which is the kernel `sha256`. Interleaved; medians of the thread's processor time. The fuel
//! says what each way is billed.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, hint::black_box, time::Duration};

use benches::{interleaved, quantile, row, stock::thread_time, table};
use host::sandbox::{Request, Response, Sandbox, SandboxOptions};
use registry::{id::ModuleHash, job::Limits, receipt::Outcome};
use sha2::{Digest as _, Sha256};

const ROUNDS: usize = 9;
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages hashed a run: as many as the kernel is asked for.
const MESSAGES: u32 = 32;

/// Hashes its memory, one message after another.
fn caller(function: &str) -> Result<Vec<u8>, wat::Error> {
    wat::parse_str(format!(
        r#"(module
            (import "quorate_hash" "{function}" (func $hash (param i32 i32 i32) (result i32)))
            (memory (export "memory") 17)
            (func (export "_start") (local $left i32)
                (local.set $left (i32.const {MESSAGES}))
                (loop $next
                    (drop (call $hash (i32.const 0) (i32.const {MESSAGE_BYTES}) (i32.const {MESSAGE_BYTES})))
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br_if $next (local.get $left)))))"#
    ))
}

/// Runs a task to its end: its time and the fuel that it took.
fn run(sandbox: &Sandbox, request: &Request) -> (Duration, u64) {
    let request = request.clone();
    let before = thread_time();
    let response = sandbox.run(request);
    let time = thread_time().saturating_sub(before);
    match response {
        Response::Done(finished) if finished.outcome == Outcome::Ok => (time, finished.fuel_used),
        other => panic!("the task does not end well: {other:?}"),
    }
}

fn timed(mut work: impl FnMut()) -> impl FnMut() -> Duration {
    move || {
        let before = thread_time();
        (0..MESSAGES).for_each(|_| work());
        thread_time().saturating_sub(before)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(SandboxOptions::default())?;
    let load = |wasm: &[u8], args: &[&str]| -> Result<Request, Box<dyn Error>> {
        let module = ModuleHash::of(wasm);
        sandbox.load_module(module, wasm)?;
        let args = args.iter().map(ToString::to_string).collect();
        let limits = Limits { fuel_max: u64::MAX / 2, ..Limits::default() };
        Ok(Request { args, limits, ..Request::new(module) })
    };
    let by_host = [load(&caller("blake3")?, &[])?, load(&caller("sha256")?, &[])?];
    let by_itself = load(tasks::KERNEL.wasm, &["sha256", &MESSAGES.to_string()])?;
    let message = vec![0u8; MESSAGE_BYTES];

    let mut native_blake3 = timed(|| {
        black_box(blake3::hash(black_box(&message)));
    });
    let mut native_sha256 = timed(|| {
        black_box(Sha256::digest(black_box(&message)));
    });
    let times = interleaved(
        ROUNDS,
        [
            &mut native_blake3,
            &mut || run(&sandbox, &by_host[0]).0,
            &mut native_sha256,
            &mut || run(&sandbox, &by_host[1]).0,
            &mut || run(&sandbox, &by_itself).0,
        ],
    );
    let [native_blake3, blake3, native_sha256, sha256, in_guest] = times.map(|times| quantile(&times, 500));
    let fuel = |request: &Request| run(&sandbox, request).1;
    let bytes = f64::from(MESSAGES) * MESSAGE_BYTES as f64;
    let speed = |time: Duration| format!("{:.0}", bytes / time.as_secs_f64() / 1e6);
    let way = |name: &str, time: Duration, native: Duration, fuel: Option<u64>| {
        let fuel_text = |fuel: u64| format!("{:.2}", fuel as f64 / bytes);
        let rate = |fuel: u64| format!("{:.2}", fuel as f64 / time.as_secs_f64() / 1e9);
        row![
            name,
            speed(time),
            format!("{:.2}", time.as_secs_f64() / native.as_secs_f64()),
            fuel.map(fuel_text).unwrap_or_default(),
            fuel.map(rate).unwrap_or_default()
        ]
    };
    println!("{MESSAGES} messages of 1 MiB, median of {ROUNDS}, interleaved\n");
    table(&[
        row!["", "MB/s", "x native", "fuel a byte", "fuel a ns"],
        way("BLAKE3 natively", native_blake3, native_blake3, None),
        way("BLAKE3 by the host", blake3, native_blake3, Some(fuel(&by_host[0]))),
        way("SHA-256 natively", native_sha256, native_sha256, None),
        way("SHA-256 by the host", sha256, native_sha256, Some(fuel(&by_host[1]))),
        way("SHA-256 in the guest", in_guest, native_sha256, Some(fuel(&by_itself))),
    ]);
    Ok(())
}
