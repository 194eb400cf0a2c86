//! Does a sandbox grow with the tasks that it has run?
//!
//! 100,000 tasks that do nothing, one after the other, in a thread of this process and in a jailed process of its own. Resident
//! memory and open descriptors of this process and of its sandbox process, after the first tenth and at the end; what grows by
//! the task shows as bytes a task.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, fs, process::ExitCode};

use benches::{row, table};
use host::sandbox::{Isolation, Request, Response, Sandbox, SandboxOptions, child};
use registry::id::ModuleHash;

const TASKS: usize = 100_000;
const NOOP: &str = r#"(module (memory (export "memory") 2) (func (export "_start")))"#;

/// What a process has.
#[derive(Clone, Copy)]
struct Has {
    resident_bytes: u64,
    descriptors: usize,
}

fn has(process: &str) -> Result<Has, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text.split_whitespace().nth(1).ok_or("no resident pages")?.parse()?;
    let page = rustix::param::page_size() as u64;
    Ok(Has { resident_bytes: pages * page, descriptors: fs::read_dir(format!("/proc/{process}/fd"))?.count() })
}

/// This process, and the sandbox process if there is one.
fn all(sandbox: &Sandbox) -> Result<Vec<(&'static str, Has)>, Box<dyn Error>> {
    let mut all = vec![("host", has("self")?)];
    for process in sandbox.process_ids() {
        all.push(("sandbox process", has(&process.to_string())?));
    }
    Ok(all)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = child::run_if_asked() {
        return Ok(code);
    }
    let bytes = wat::parse_str(NOOP)?;
    let hash = ModuleHash::of(&bytes);
    let mut rows =
        vec![row!["isolation", "process", "MiB after 10 %", "MiB at the end", "bytes a task", "descriptors"]];
    for (name, isolation) in [("thread", Isolation::Thread), ("process", Isolation::Process)] {
        let sandbox = Sandbox::new(SandboxOptions { isolation, slots_max: 1, ..SandboxOptions::default() })?;
        sandbox.load_module(hash, &bytes)?;
        let run = |tasks| -> Result<(), Box<dyn Error>> {
            for _ in 0..tasks {
                let response = sandbox.run(Request::new(hash));
                if !matches!(response, Response::Done(_)) {
                    return Err(format!("{response:?}").into());
                }
            }
            Ok(())
        };
        run(TASKS / 10)?;
        let early = all(&sandbox)?;
        run(TASKS - TASKS / 10)?;
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        for ((what, early), (_, late)) in early.into_iter().zip(all(&sandbox)?) {
            let grown = late.resident_bytes as f64 - early.resident_bytes as f64;
            rows.push(row![
                name,
                what,
                mib(early.resident_bytes),
                mib(late.resident_bytes),
                format!("{:.2}", grown / (TASKS - TASKS / 10) as f64),
                format!("{} -> {}", early.descriptors, late.descriptors)
            ]);
        }
    }
    println!("{TASKS} tasks that do nothing, one after the other\n");
    table(&rows);
    Ok(ExitCode::SUCCESS)
}
