//! What do steps cost a task?
//!
//! The same work done in `_start` and in steps, by a task that has written over all of its memory, at several sizes of memory:
//! time, fuel, states, and the time for one of them. Interleaved; medians of the thread's processor time. Then what finding the
//! pages that changed would take by comparing them with a copy, which needs as much memory again, where one page in sixteen did.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, hint::black_box, process::ExitCode, time::Duration};

use benches::{interleaved, measured, quantile, row, stock::thread_time, table};
use host::sandbox::{Finished, Request, Response, Sandbox, SandboxOptions};
use registry::{
    id::{BlobHash, ModuleHash},
    job::Limits,
    segment::{PAGE_BYTES, memory_root},
};

const ROUNDS: usize = 7;
/// Memory in MiB.
const SIZES: [u32; 4] = [1, 16, 64, 256];
/// Fuel of all the work, in steps of some milliseconds.
const STEPS: u32 = 200;
const STEP_FUEL: u32 = 10_000_000;

/// Fills its memory, and then works: in steps, or at once.
fn module(mib: u32, steps: bool) -> Result<Vec<u8>, wat::Error> {
    let pages = mib * 16;
    let (loops, bytes) = (STEP_FUEL / 6, pages * 65_536);
    let entry = if steps {
        "(func (export \"step\") (result i32) (call $work))".to_owned()
    } else {
        "(func $all (loop $again (br_if $again (call $work))))".to_owned()
    };
    let call = if steps { "" } else { "(call $all)" };
    wat::parse_str(format!(
        r#"(module
            (memory (export "memory") {pages})
            (global $left (mut i32) (i32.const {STEPS}))
            (func $work (result i32) (local $i i32)
                (local.set $i (i32.const {loops}))
                (loop $again
                    (local.set $i (i32.sub (local.get $i) (i32.const 1)))
                    (br_if $again (local.get $i)))
                (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (i32.store (i32.const 0) (global.get $left))
                (global.get $left))
            {entry}
            (func (export "_start")
                (memory.fill (i32.const 0) (i32.const 7) (i32.const {bytes}))
                {call}))"#
    ))
}

fn run(sandbox: &Sandbox, request: &Request) -> (Duration, Finished) {
    let request = request.clone();
    let before = thread_time();
    let response = sandbox.run(request);
    let time = thread_time().saturating_sub(before);
    match response {
        Response::Done(finished) => (time, finished),
        Response::Fault(fault) => panic!("the task does not end: {fault}"),
    }
}

fn timed(mut work: impl FnMut()) -> impl FnMut() -> Duration {
    move || {
        let before = thread_time();
        work();
        thread_time().saturating_sub(before)
    }
}

fn tasks() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(SandboxOptions::default())?;
    let load = |wasm: &[u8]| -> Result<Request, Box<dyn Error>> {
        let module = ModuleHash::of(wasm);
        sandbox.load_module(module, wasm)?;
        let limits = Limits { memory_bytes_max: 1 << 30, ..Limits::default() };
        Ok(Request { limits, ..Request::new(module) })
    };
    let mut rows = vec![row!["memory", "at once", "in steps", "ratio", "states", "a state", "fuel, ratio"]];
    for mib in SIZES {
        let (whole, stepped) = (load(&module(mib, false)?)?, load(&module(mib, true)?)?);
        let ((_, one), (_, other)) = (run(&sandbox, &whole), run(&sandbox, &stepped));
        let states = other.segments.as_ref().map_or(0, |record| record.states.len());
        let times = interleaved(ROUNDS, [&mut || run(&sandbox, &whole).0, &mut || run(&sandbox, &stepped).0]);
        let [whole_ms, stepped_ms] = times.map(|times| quantile(&times, 500).as_secs_f64() * 1e3);
        rows.push(row![
            format!("{mib} MiB"),
            format!("{whole_ms:.0} ms"),
            format!("{stepped_ms:.0} ms"),
            format!("{:.3}", stepped_ms / whole_ms),
            states,
            format!("{:.2} ms", (stepped_ms - whole_ms) / states as f64),
            format!("{:.3}", other.fuel_used as f64 / one.fuel_used as f64),
        ]);
    }
    table(&rows);
    Ok(())
}

/// Hashing all pages against comparing each with a copy and hashing those that differ.
fn ways() {
    let mut rows = vec![row!["memory", "hash all", "compare, hash 1/16", "ratio"]];
    for mib in SIZES {
        let memory: Vec<u8> = (0..mib << 20).map(|at| (at >> 8) as u8 | 1).collect();
        let mut copy = memory.clone();
        for page in copy.chunks_mut(PAGE_BYTES).step_by(16) {
            page[PAGE_BYTES / 2] ^= 1;
        }
        let mut all = timed(|| {
            black_box(memory_root(&memory));
        });
        let mut compared = timed(|| {
            let pages = memory.chunks(PAGE_BYTES).zip(copy.chunks(PAGE_BYTES));
            for (page, _) in pages.filter(|(page, copy)| page != copy) {
                black_box(BlobHash::of(page));
            }
        });
        let times = interleaved(ROUNDS, [&mut all, &mut compared]);
        let [all, compared] = times.map(|times| quantile(&times, 500).as_secs_f64() * 1e3);
        rows.push(row![
            format!("{mib} MiB"),
            format!("{all:.2} ms"),
            format!("{compared:.2} ms"),
            format!("{:.2}", compared / all)
        ]);
    }
    table(&rows);
}

fn measure() -> Result<(), Box<dyn Error>> {
    tasks()?;
    println!();
    ways();
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    measured(measure)
}
