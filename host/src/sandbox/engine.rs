//! The compiler and its settings: everything that a result depends on beside the request, and its fingerprint.
//!
//! Determinism comes from fuel, canonical NaNs, switched-off features and a target with a fixed instruction set: nothing is
//! inferred from the host but the choice between a few named [`CpuClass`]es. That choice also pins the kernels of the
//! inference backend and is part of the fingerprint.

use std::{
    fmt,
    hash::{Hash, Hasher},
    thread,
    time::Duration,
};

use registry::{canon, id::EngineFingerprint};
use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, RegallocAlgorithm, Strategy,
};

use super::{Optimisation, SandboxError, SandboxOptions};
use crate::limits;

/// Version of what the host gives to guests: WASI semantics, fuel prices, virtual clock, randomness, tensor hashes.
pub const HOST_ABI: u32 = 1;

/// A named set of processor instructions: the most that compiled code and inference kernels use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuClass {
    /// Any processor of the architecture; on x86-64 with SSE4.2, which all since 2009 have.
    Generic,
    /// x86-64 with AVX2 and FMA, which nearly all since 2013 have.
    Avx2,
}

impl CpuClass {
    /// The best class of this processor.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has = [
                std::is_x86_feature_detected!("avx2"),
                std::is_x86_feature_detected!("fma"),
                std::is_x86_feature_detected!("f16c"),
                std::is_x86_feature_detected!("bmi1"),
                std::is_x86_feature_detected!("bmi2"),
                std::is_x86_feature_detected!("lzcnt"),
            ];
            if has.iter().all(|has| *has) {
                return Self::Avx2;
            }
        }
        Self::Generic
    }

    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::Avx2 => "avx2",
        }
    }

    /// Cranelift's names of the instructions that compiled code may use.
    fn flags(self) -> &'static [&'static str] {
        const V2: [&str; 5] = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"];
        const V3: [&str; 11] = [
            "has_sse3",
            "has_ssse3",
            "has_sse41",
            "has_sse42",
            "has_popcnt",
            "has_avx",
            "has_avx2",
            "has_fma",
            "has_bmi1",
            "has_bmi2",
            "has_lzcnt",
        ];
        match self {
            _ if !cfg!(target_arch = "x86_64") => &[],
            Self::Generic => &V2,
            Self::Avx2 => &V3,
        }
    }
}

/// The text behind an [`EngineFingerprint`]: hosts with equal descriptions must have equal results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineDescription {
    /// Version of the WebAssembly engine.
    pub wasmtime: String,
    /// Hash of every setting that compiled code depends on.
    pub settings: String,
    /// What code is compiled for.
    pub target: String,
    /// The instruction set, see [`CpuClass`].
    pub cpu_class: String,
    /// [`HOST_ABI`].
    pub host_abi: u32,
    /// Name and version of the inference backend.
    pub backend: String,
    /// Hash over samples of the platform's mathematical functions, which inference uses.
    pub math: String,
}

impl EngineDescription {
    /// The hash that receipts carry.
    pub fn fingerprint(&self) -> EngineFingerprint {
        EngineFingerprint(canon::hash("quorate/engine/1", self))
    }
}

impl fmt::Display for EngineDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wasmtime, settings, target, cpu_class, host_abi, backend, math } = self;
        write!(f, "wasmtime {wasmtime} ({settings}), {target} {cpu_class}, host ABI {host_abi}, {backend}, math {math}")
    }
}

/// Version of wasmtime. The crate does not tell its own, so a test holds this against the lock file.
const WASMTIME_VERSION: &str = "48.0.8";
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Describes an engine.
pub(super) fn describe(engine: &Engine, class: CpuClass, backend: String) -> EngineDescription {
    let mut settings = SettingsHasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    EngineDescription {
        wasmtime: WASMTIME_VERSION.to_owned(),
        settings: short(&settings.0),
        target: TARGET.to_owned(),
        cpu_class: class.word().to_owned(),
        host_abi: HOST_ABI,
        backend,
        math: math(),
    }
}

/// Feeds what the engine says of itself to a hash that is the same in every process.
struct SettingsHasher(blake3::Hasher);

impl Hasher for SettingsHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        u64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at]))
    }
}

fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Samples the mathematical functions that models call: C libraries differ in their last bits.
fn math() -> String {
    let mut hasher = blake3::Hasher::new();
    for step in 1..=500u16 {
        let x = f32::from(step) * 0.037 - 9.1;
        for y in [x.exp(), x.tanh(), x.sin(), x.cos(), x.abs().ln(), x.abs().powf(0.37), x.exp_m1(), x.sinh()] {
            hasher.update(&y.to_bits().to_le_bytes());
        }
        let x = f64::from(x);
        for y in [x.exp(), x.tanh(), x.sin(), x.abs().ln(), x.abs().powf(0.37)] {
            hasher.update(&y.to_bits().to_le_bytes());
        }
    }
    short(&hasher)
}

/// Builds the engine.
pub(super) fn build(options: &SandboxOptions, class: CpuClass) -> Result<Engine, SandboxError> {
    let mut config = Config::new();
    let setup = |error: wasmtime::Error| SandboxError::Engine { detail: format!("{error:#}") };
    config.target(TARGET).map_err(setup)?;
    set_instructions(&mut config, class);
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(match options.optimisation {
            Optimisation::Speed => OptLevel::Speed,
            Optimisation::None => OptLevel::None,
        })
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(limits::WASM_STACK_BYTES_MAX)
        .memory_init_cow(true)
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .wasm_simd(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        .native_unwind_info(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    Engine::new(&config).map_err(setup)
}

fn pool(options: &SandboxOptions) -> PoolingAllocationConfig {
    let slots = options.slots_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots.saturating_mul(limits::MODULE_TABLES_MAX))
        .max_memories_per_module(1)
        .max_tables_per_module(limits::MODULE_TABLES_MAX)
        .table_elements(limits::TABLE_ELEMENTS_MAX as usize)
        .max_memory_size(usize::try_from(options.memory_bytes_max).unwrap_or(usize::MAX))
        .max_core_instance_size(limits::INSTANCE_BYTES_MAX)
        .linear_memory_keep_resident(options.keep_resident_bytes_max)
        .table_keep_resident(options.keep_resident_bytes_max.min(4096));
    pool
}

/// Fixes the instruction set.
#[allow(
    unsafe_code,
    reason = "code for instructions that the processor lacks would be undefined; Engine::new checks every flag set here \
              against the processor and refuses, and CpuClass::detect chose by the same test"
)]
fn set_instructions(config: &mut Config, class: CpuClass) {
    for flag in class.flags() {
        // SAFETY: see the reason above.
        unsafe {
            config.cranelift_flag_enable(flag);
        }
    }
}

/// Ticks the engine's epoch until the engine is gone.
pub(super) fn start_ticker(engine: &Engine) -> Result<(), SandboxError> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(Duration::from_millis(limits::EPOCH_MS));
        }
    };
    let thread = thread::Builder::new().name("sandbox-epoch".to_owned()).stack_size(64 << 10).spawn(tick);
    thread.map(drop).map_err(|source| SandboxError::Thread { detail: source.to_string() })
}
