//! What does the sandbox cost over wasmtime itself?
//!
//! The same module, once with a bare `Store`, a pooled `InstancePre` and a call of `_start`, with the same metering and
//! limits, and once through `Sandbox::run`, which adds the WASI world, the deadline, the virtual clock and the result.
//! Interleaved in one process; medians.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::error::Error;

use benches::{interleaved, quantile, row, table, us};
use host::{
    clock::Stopwatch,
    sandbox::{Request, Response, Sandbox, SandboxOptions},
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

fn main() -> Result<(), Box<dyn Error>> {
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

    let sandbox = Sandbox::new(SandboxOptions::default())?;
    let hash = ModuleHash::of(&bytes);
    sandbox.load_module(hash, &bytes)?;
    let request = Request::new(hash);
    let mut ours = || {
        let request = request.clone();
        let watch = Stopwatch::start();
        let response = sandbox.run(request);
        let elapsed = watch.elapsed();
        assert!(matches!(response, Response::Done(_)), "{response:?}");
        elapsed
    };
    for _ in 0..1000 {
        raw();
        ours();
    }
    let [raw, ours] = interleaved(ROUNDS, [&mut raw, &mut ours]);
    let (raw_p50, ours_p50) = (quantile(&raw, 500), quantile(&ours, 500));
    println!("a no-op task, warm, {ROUNDS} runs each, interleaved\n");
    table(&[
        row!["", "p50", "p99", "x raw (p50)"],
        row!["wasmtime, instantiate and call", us(raw_p50), us(quantile(&raw, 990)), "1.00"],
        row![
            "Sandbox::run",
            us(ours_p50),
            us(quantile(&ours, 990)),
            format!("{:.2}", ours_p50.as_secs_f64() / raw_p50.as_secs_f64())
        ],
    ]);
    Ok(())
}
