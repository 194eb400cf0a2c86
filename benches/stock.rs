//! Wasmtime as it comes, for comparison: the sandbox's target and optimisation, with its own switches on or off.
//!
//! A [`Stock`] is one module under one [`Config`], so that settings and modules that nobody has yet can be held against
//! the bare engine too. It times a call of `run_kernel` alone, of the task `kernel`: in a fresh instance, as a task has,
//! but without making it, and without WASI, which a kernel does not call.

use std::{error::Error, time::Duration};

use host::sandbox::CpuClass;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm, Store, Strategy,
};

const MEMORY_BYTES_MAX: usize = 256 << 20;

/// Wasmtime's switches that metering and determinism need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Switches {
    /// Fuel for each operation, checked at loops and calls.
    pub fuel: bool,
    /// A look at the epoch at loops and calls.
    pub epoch: bool,
    /// One bit pattern for all NaNs, after each operation on floats.
    pub nan: bool,
}

/// The sandbox's settings, but for these switches.
pub fn config(switches: Switches) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(2).total_memories(2).total_tables(2).max_memory_size(MEMORY_BYTES_MAX);
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .cranelift_nan_canonicalization(switches.nan)
        .consume_fuel(switches.fuel)
        .epoch_interruption(switches.epoch)
        .memory_init_cow(true)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .wasm_relaxed_simd(false)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    set_target(&mut config);
    config
}

/// Compiles for the instructions that the sandbox compiles for here.
#[allow(
    unsafe_code,
    reason = "code for instructions that the processor lacks would be undefined; Engine::new checks every flag set here \
              against the processor and refuses"
)]
fn set_target(config: &mut Config) {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    config.target(&target).expect("wasmtime compiles for the machine it runs on");
    for flag in CpuClass::detect().flags() {
        // SAFETY: see the reason above.
        unsafe {
            config.cranelift_flag_enable(flag);
        }
    }
}

/// A module that is ready to be timed.
pub struct Stock {
    engine: Engine,
    pre: InstancePre<()>,
    metered: Switches,
}

impl Stock {
    /// Compiles the task `kernel`, or what was made of it, as [`config`] has it.
    ///
    /// # Errors
    /// When the engine refuses the module.
    pub fn new(wasm: &[u8], switches: Switches) -> Result<Self, Box<dyn Error>> {
        Self::with_config(wasm, &config(switches), switches)
    }

    /// Compiles it for other settings; the switches say which limits a store of theirs needs.
    ///
    /// # Errors
    /// When the engine refuses the settings or the module.
    pub fn with_config(wasm: &[u8], config: &Config, metered: Switches) -> Result<Self, Box<dyn Error>> {
        let engine = Engine::new(config)?;
        let module = Module::new(&engine, wasm)?;
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&module)?;
        let pre = linker.instantiate_pre(&module)?;
        Ok(Self { engine, pre, metered })
    }

    /// Runs the kernel at this position of `tasks::kernels::ALL` in a fresh instance: its time and its checksum.
    ///
    /// # Errors
    /// When the guest traps.
    pub fn time(&self, position: u32, size: u32) -> Result<(Duration, u64), Box<dyn Error>> {
        let mut store = Store::new(&self.engine, ());
        if self.metered.fuel {
            store.set_fuel(u64::MAX / 2)?;
        }
        if self.metered.epoch {
            store.set_epoch_deadline(u64::MAX / 2);
        }
        let instance = self.pre.instantiate(&mut store)?;
        let run = instance.get_typed_func::<(u32, u32), u64>(&mut store, "run_kernel")?;
        let before = thread_time();
        let checksum = run.call(&mut store, (position, size))?;
        Ok((thread_time().saturating_sub(before), checksum))
    }
}

/// Processor time of this thread: what others do on the machine disturbs it least.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
