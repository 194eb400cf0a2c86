//! What does the thread sandbox cost over wasmtime with what a host of wasmtime's own would give a task?
//!
//! The same module through a pooled `InstancePre` with fuel, epochs, canonical NaNs, limits on memory, and a WASI context of
//! `wasmtime-wasi` with bounded pipes; and through `Sandbox::run` in a thread. Interleaved; medians.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

#[path = "../../measure.rs"]
mod measure;

use std::{error::Error, process::ExitCode, thread};

use host::{
    clock::Stopwatch,
    limits,
    sandbox::{Isolation, Request, Response, Sandbox, SandboxOptions},
};
use measure::{interleaved, quantile, table, us};
use registry::id::ModuleHash;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, Linker, Module, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder,
};
use wasmtime_wasi::{
    WasiCtxBuilder,
    p1::{WasiP1Ctx, add_to_linker_sync},
    p2::pipe::{MemoryInputPipe, MemoryOutputPipe},
};

const ROUNDS: usize = 20_000;
const NOOP: &str = r#"(module (memory (export "memory") 2) (func (export "_start")))"#;

/// What a store of the raw side has.
struct Context {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

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

fn measure() -> Result<(), Box<dyn Error>> {
    let bytes = wat::parse_str(NOOP)?;
    let engine = raw_engine()?;
    let mut linker: Linker<Context> = Linker::new(&engine);
    add_to_linker_sync(&mut linker, |context| &mut context.wasi)?;
    let pre = linker.instantiate_pre(&Module::new(&engine, &bytes)?)?;
    let limits = Request::new(ModuleHash::of(&bytes)).limits;
    let mut raw = || {
        let watch = Stopwatch::start();
        let pipe = |bytes| MemoryOutputPipe::new(usize::try_from(bytes).unwrap_or(usize::MAX));
        let (stdout, stderr) = (pipe(limits.output_bytes_max), pipe(limits.log_bytes_max));
        let wasi = WasiCtxBuilder::new()
            .arg("task")
            .stdin(MemoryInputPipe::new(Vec::new()))
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .build_p1();
        let memory = usize::try_from(limits.memory_bytes_max).unwrap_or(usize::MAX);
        let context = Context { wasi, limits: StoreLimitsBuilder::new().memory_size(memory).build() };
        let mut store = Store::new(&engine, context);
        store.limiter(|context| &mut context.limits);
        store.set_epoch_deadline(u64::MAX / 2);
        store.set_fuel(limits.fuel_max).expect("fuel is on");
        let instance = pre.instantiate(&mut store).expect("the module instantiates");
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("it has an entry");
        start.call(&mut store, ()).expect("it returns");
        drop(store);
        drop((stdout.contents(), stderr.contents()));
        watch.elapsed()
    };
    let sandbox = Sandbox::new(SandboxOptions { isolation: Isolation::Thread, ..SandboxOptions::default() })?;
    let hash = ModuleHash::of(&bytes);
    sandbox.load_module(hash, &bytes)?;
    let mut ours = || {
        let request = Request::new(hash);
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
    let line = |name: &str, times, p50: std::time::Duration| {
        let ratio = p50.as_secs_f64() / raw_p50.as_secs_f64();
        vec![name.to_owned(), us(p50), us(quantile(times, 990)), format!("{ratio:.2}")]
    };
    table(&[
        ["", "p50", "p99", "x raw (p50)"].map(str::to_owned).to_vec(),
        line("wasmtime with a WASI context", &raw, raw_p50),
        line("Sandbox::run, in a thread", &ours, ours_p50),
    ]);
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // As a host's threads that run tasks, which have the stack for it.
    let own = thread::Builder::new().stack_size(limits::EXECUTOR_STACK_BYTES);
    let measured = own.spawn(|| measure().map_err(|error| error.to_string()))?.join();
    measured.map_err(|_| "the measuring thread panicked")??;
    Ok(ExitCode::SUCCESS)
}
