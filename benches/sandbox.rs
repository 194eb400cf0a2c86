//! What does the sandbox cost over wasmtime itself?
//!
//! The same module, once with a bare `Store`, a pooled `InstancePre` and a call of `_start`, with the same metering and
//! limits, and once through `Sandbox::run`, which adds the WASI world, the deadline, the virtual clock and the result; in a
//! thread of this process, and in a jailed process of its own. Interleaved; medians.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, process::ExitCode};

use benches::{interleaved, quantile, row, table, us};
use host::{
    clock::Stopwatch,
    sandbox::{Isolation, Request, Response, Sandbox, SandboxOptions, child},
};
use registry::id::ModuleHash;
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

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = child::run_if_asked() {
        return Ok(code);
    }
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
    Ok(ExitCode::SUCCESS)
}
