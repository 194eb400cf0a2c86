//! The compiler and its settings: everything that a result depends on beside the request, and its fingerprint.
//!
//! Determinism comes from what [`super::admit`] writes into each module, from switched-off features and from a target with a
//! fixed instruction set: nothing is inferred from the host but the choice between a few named [`CpuClass`]es. That choice
//! also pins the kernels of the inference backend and is part of the fingerprint, but in the portable profile, where compiled
//! code has nothing to choose that shows, and models run in compiled code too.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use grid::engines::EngineOffer;
use registry::{
    device::Device,
    id::EngineFingerprint,
    job::{Class, Profile},
    preimage::Preimage,
};
use serde::{Deserialize, Serialize};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, RegallocAlgorithm, Strategy,
};

use super::{BackendOptions, Measured, Optimisation, SandboxError, SandboxOptions, admit, nn::backend::Backend};
use crate::limits;

/// Version of what the host gives to guests: WASI semantics, hashing, fuel prices, virtual clock, randomness, tensor hashes, wasi-nn.
pub const HOST_ABI: u32 = 5;

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
    pub fn flags(self) -> &'static [&'static str] {
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

/// The text behind an [`EngineFingerprint`]: hosts with equal descriptions must have equal results. What a profile does not
/// depend on is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineDescription {
    /// What results may depend on.
    pub profile: Profile,
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
    /// Version of how modules are rewritten.
    pub admission: u32,
    /// Name and version of the inference backend.
    pub backend: String,
    /// The strongest class that its results have.
    pub class: Class,
    /// What it infers on; none when it does not depend on that.
    pub device: Option<Device>,
    /// Hash over samples of the platform's mathematical functions, which inference uses.
    pub math: String,
}

impl EngineDescription {
    /// The hash that receipts carry.
    pub fn fingerprint(&self) -> EngineFingerprint {
        EngineFingerprint(self.name())
    }

    /// What a host offers of it, with what was measured.
    pub fn offer(&self, Measured { memory_bytes, mflops }: Measured) -> EngineOffer {
        EngineOffer {
            fingerprint: self.fingerprint(),
            profile: self.profile,
            class: self.class,
            device: self.device.clone(),
            device_memory_bytes: memory_bytes,
            mflops,
        }
    }
}

impl Preimage for EngineDescription {
    const WHAT: &'static str = "engine";
    const DOMAIN: &'static str = "quorate/engine/1";
    const BYTES_MAX: usize = 4096;
}

impl fmt::Display for EngineDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, wasmtime, settings, target, cpu_class, host_abi, admission, backend, math, device, .. } =
            self;
        write!(f, "{} profile, wasmtime {wasmtime}, host ABI {host_abi}, admission {admission}", profile.word())?;
        match profile {
            Profile::Native => write!(f, ", settings {settings}, {target} {cpu_class}, {backend}, math {math}")?,
            Profile::Portable => write!(f, ", {backend}")?,
        }
        match device {
            Some(Device { kind, provider, name }) => write!(f, ", {} by {provider} ({name})", kind.word()),
            None => Ok(()),
        }
    }
}

/// Version of wasmtime. The crate does not tell its own, so a test holds this against the lock file.
const WASMTIME_VERSION: &str = "48.0.8";
const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Describes an engine.
pub(super) fn describe(engine: &Engine, profile: Profile, class: CpuClass, backend: &dyn Backend) -> EngineDescription {
    let mut description = EngineDescription {
        profile,
        wasmtime: WASMTIME_VERSION.to_owned(),
        settings: String::new(),
        target: String::new(),
        cpu_class: String::new(),
        host_abi: HOST_ABI,
        admission: admit::VERSION,
        backend: format!("{} {}", backend.name(), backend.version()),
        class: backend.class(),
        device: None,
        math: String::new(),
    };
    if profile == Profile::Native {
        description.settings = settings(engine);
        description.target = TARGET.to_owned();
        description.cpu_class = class.word().to_owned();
        description.device = Some(backend.device());
        description.math = math();
    }
    description
}

/// Hash of every setting that compiled code depends on.
pub(super) fn settings(engine: &Engine) -> String {
    let mut settings = SettingsHasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    short(&settings.0)
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
    Engine::new(&config(options, class)?).map_err(setup)
}

fn setup(error: wasmtime::Error) -> SandboxError {
    SandboxError::Engine { detail: format!("{error:#}") }
}

/// Its settings.
pub(super) fn config(options: &SandboxOptions, class: CpuClass) -> Result<Config, SandboxError> {
    let mut config = Config::new();
    config.target(TARGET).map_err(setup)?;
    set_instructions(&mut config, class);
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(match options.optimisation {
            Optimisation::Speed => OptLevel::Speed,
            Optimisation::None => OptLevel::None,
        })
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .cranelift_nan_canonicalization(false)
        .consume_fuel(false)
        .epoch_interruption(false)
        .wasm_branch_hinting(true)
        .max_wasm_stack(limits::WASM_STACK_BYTES_MAX)
        .async_stack_size(limits::WASM_STACK_BYTES_MAX + (1 << 20))
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
    Ok(config)
}

fn pool(options: &SandboxOptions) -> PoolingAllocationConfig {
    // A task that infers in the sandbox has a second instance meanwhile, and one more loads models.
    let (slots, memory_bytes_max) = match options.infers_with() {
        BackendOptions::Referee => (
            options.slots_max.saturating_mul(2).saturating_add(1),
            options.memory_bytes_max.max(limits::NN_REFEREE_MEMORY_BYTES_MAX),
        ),
        _ => (options.slots_max, options.memory_bytes_max),
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots.saturating_mul(limits::MODULE_TABLES_MAX))
        .max_memories_per_module(1)
        .max_tables_per_module(limits::MODULE_TABLES_MAX)
        .table_elements(limits::TABLE_ELEMENTS_MAX as usize)
        .max_memory_size(usize::try_from(memory_bytes_max).unwrap_or(usize::MAX))
        .max_core_instance_size(limits::INSTANCE_BYTES_MAX)
        .linear_memory_keep_resident(options.keep_resident_bytes_max)
        .table_keep_resident(options.keep_resident_bytes_max.min(4096))
        // What a task wrote is cleared, not the lowest addresses whatever it did. A jailed process may not ask for that, and
        // clears those.
        .pagemap_scan(Enabled::Auto);
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
