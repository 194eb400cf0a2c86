//! What does the sandbox cost over wasmtime itself?
//!
//! The same module, once with a bare `Store`, a pooled `InstancePre` and a call of `_start`, with the same metering and
//! limits, and once through `Sandbox::run`, which adds the WASI world, the deadline, the virtual clock and the result; in a
//! thread of this process, and in a jailed process of its own. Interleaved; medians.
//!
//! And how long is a cold start? A solver of 1.2 MB that an earlier process compiled: its file is authenticated and mapped,
//! linked, instantiated, and entered with fuel for nothing, so that its first instruction is its last. The file is in the
//! page cache; no part of the module is in the process.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, process::ExitCode, time::Duration};

use benches::{interleaved, measured, quantile, row, table, us};
use host::{
    clock::Stopwatch,
    sandbox::{CompileCache, CompileOptions, Isolation, Request, Response, Sandbox, SandboxOptions},
};
use registry::{id::ModuleHash, job::Limits, receipt::Outcome};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder,
};

const ROUNDS: usize = 20_000;
const NOOP: &str = r#"(module (memory (export "memory") 2) (func (export "_start")))"#;

fn raw_engine() -> Result<Engine, Box<dyn Error>> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(16).total_memories(16).total_tables(16).max_memory_size(1 << 30);
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Ok(Engine::new(&config)?)
}

const COLD_STARTS: usize = 200;
const SOLVER: &[u8] = include_bytes!("../tests/data/boolector.wasm");

/// Times of finding a compiled module on disk, and of that and reaching its first instruction.
fn cold_starts() -> Result<(Vec<Duration>, Vec<Duration>), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let cache = CompileCache { dir: dir.path().join("m"), key_file: dir.path().join("key"), bytes_max: 1 << 30 };
    let compile = CompileOptions { cache: Some(cache), ..CompileOptions::default() };
    let options = SandboxOptions { slots_max: 1, compile, ..SandboxOptions::default() };
    let hash = ModuleHash::of(SOLVER);
    Sandbox::new(options.clone())?.load_module(hash, SOLVER)?;
    let request = Request { limits: Limits { fuel_max: 1, ..Limits::default() }, ..Request::new(hash) };
    let (mut loads, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..COLD_STARTS {
        let (sandbox, request) = (Sandbox::new(options.clone())?, request.clone());
        let watch = Stopwatch::start();
        assert!(sandbox.load_compiled(hash).is_some(), "it is on disk");
        loads.push(watch.elapsed());
        let response = sandbox.run(request);
        starts.push(watch.elapsed());
        assert!(matches!(response, Response::Done(done) if done.outcome == Outcome::FuelOut));
    }
    loads.sort_unstable();
    starts.sort_unstable();
    Ok((loads, starts))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    measured(measure)
}

fn measure() -> Result<(), Box<dyn Error>> {
    let bytes = wat::parse_str(NOOP)?;
    let engine = raw_engine()?;
    let module = Module::new(&engine, &bytes)?;
    let linker: Linker<StoreLimits> = Linker::new(&engine);
    let pre = linker.instantiate_pre(&module)?;
    let mut raw = || {
        let watch = Stopwatch::start();
        let mut store = Store::new(&engine, StoreLimitsBuilder::new().memory_size(256 << 20).build());
        store.limiter(|limits| limits);
        store.set_epoch_deadline(u64::MAX / 2);
        store.set_fuel(1_000_000_000).expect("fuel is on");
        let instance = pre.instantiate(&mut store).expect("the module instantiates");
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("it has an entry");
        start.call(&mut store, ()).expect("it returns");
        drop(store);
        watch.elapsed()
    };

    let hash = ModuleHash::of(&bytes);
    let runs = |isolation| -> Result<_, Box<dyn Error>> {
        let sandbox = Sandbox::new(SandboxOptions { isolation, ..SandboxOptions::default() })?;
        sandbox.load_module(hash, &bytes)?;
        Ok(move || {
            let request = Request::new(hash);
            let watch = Stopwatch::start();
            let response = sandbox.run(request);
            let elapsed = watch.elapsed();
            assert!(matches!(response, Response::Done(_)), "{response:?}");
            elapsed
        })
    };
    let (mut ours, mut apart) = (runs(Isolation::Thread)?, runs(Isolation::Process)?);
    for _ in 0..1000 {
        raw();
        ours();
        apart();
    }
    let [raw, ours, apart] = interleaved(ROUNDS, [&mut raw, &mut ours, &mut apart]);
    let raw_p50 = quantile(&raw, 500);
    let times = |p50: std::time::Duration| format!("{:.2}", p50.as_secs_f64() / raw_p50.as_secs_f64());
    let (ours_p50, apart_p50) = (quantile(&ours, 500), quantile(&apart, 500));
    println!("a no-op task, warm, {ROUNDS} runs each, interleaved\n");
    table(&[
        row!["", "p50", "p99", "x raw (p50)"],
        row!["wasmtime, instantiate and call", us(raw_p50), us(quantile(&raw, 990)), "1.00"],
        row!["Sandbox::run, in a thread", us(ours_p50), us(quantile(&ours, 990)), times(ours_p50)],
        row!["Sandbox::run, in a process", us(apart_p50), us(quantile(&apart, 990)), times(apart_p50)],
    ]);
    let (loads, starts) = cold_starts()?;
    println!("\na cold start of a compiled module of {} bytes, {COLD_STARTS} times\n", SOLVER.len());
    table(&[
        row!["", "p50", "p99"],
        row!["load_compiled: from disk to linked", us(quantile(&loads, 500)), us(quantile(&loads, 990))],
        row!["and its first instruction", us(quantile(&starts, 500)), us(quantile(&starts, 990))],
    ]);
    Ok(())
}
