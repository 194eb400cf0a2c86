//! The configuration file: TOML, every key optional, unknown keys refused.
//!
//! ```toml
//! [grid]                      # how the coordinator decides: see `grid::config::Config`
//! host_grace_ms = 3000
//!
//! [store]                     # blobs on disk
//! quota_bytes_max = 10000000000
//!
//! [host]                      # what a host offers
//! slots = 2
//! memory_bytes_max = 1073741824
//! isolation = "process"       # or "thread": see `sandbox::Isolation`
//! cpu_class = "generic"       # or "avx2": the processor's best when left out; hosts of different classes never agree
//! every_layer = false         # true: no node where the kernel lacks a part of `sandbox::jail`
//! checkpoint_ms = 30000       # how often a state of a long task with steps is kept, to go on from should the host be lost
//!
//! [host.prices]               # what it asks, in millionths of a credit; nothing when left out
//! giga_fuel_micro = 1000      # for 10^9 units of fuel
//! gib_second_micro = 500      # for a GiB of memory limit over a second of the task's own time
//! mib_out_micro = 20          # for a MiB of output
//! model_second_micro = { cpu = 100, gpu = 9000 }
//!
//! [host.compile]              # what compiling one module may take, and what is kept
//! cpu_s_max = 120
//! memory_bytes_max = 2147483648
//! wall_ms_max = 240000
//! cache_bytes_max = 4294967296
//!
//! [host.inference]            # what models run on beside tract: see `inference`
//! onnxruntime = "off"         # or "auto", or the full path of the library
//! providers = ["cpu"]         # of "cpu", "cuda" and "webgpu": an engine for each
//! webgpu_plugin = "auto"      # or its full path
//! ```

mod inference;

use std::path::{Path, PathBuf};

use grid::{
    bounds::{self, OutOfBounds},
    ledger::RulesError,
};
use registry::price::{PriceError, PriceTable};
use serde::Deserialize;

pub use self::inference::{InferenceConfig, InferenceError, Library};
use crate::{
    limits,
    sandbox::{CompileBudget, CpuClass, Isolation, SandboxOptions},
};

/// What a configuration file may say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How the coordinator decides.
    pub grid: grid::config::Config,
    /// Blobs on disk.
    pub store: StoreConfig,
    /// What a host offers.
    pub host: HostConfig,
}

/// Blobs on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Bytes that all blobs together may have.
    pub quota_bytes_max: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { quota_bytes_max: limits::STORE_BYTES_MAX }
    }
}

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Tasks that run at a time.
    pub slots: u32,
    /// Assignments held besides those that run.
    pub queue_max: u32,
    /// Memory in bytes that one task may have.
    pub memory_bytes_max: u64,
    /// What code is compiled for; the processor's best when absent.
    pub cpu_class: Option<CpuClass>,
    /// Where tasks run, and a coordinator looks into models.
    pub isolation: Isolation,
    /// Whether the node does not start where the kernel lacks a part of the jail.
    pub every_layer: bool,
    /// Time in milliseconds after which a state of a task with steps is kept.
    pub checkpoint_ms: u64,
    /// How modules are compiled.
    pub compile: CompileConfig,
    /// What models run on beside tract.
    pub inference: InferenceConfig,
    /// What it asks.
    pub prices: PriceTable,
}

/// What compiling one module may take, and how much is kept of what was compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompileConfig {
    /// Processor time in seconds.
    pub cpu_s_max: u64,
    /// Memory in bytes.
    pub memory_bytes_max: u64,
    /// Time in milliseconds.
    pub wall_ms_max: u64,
    /// Machine code kept on disk, in bytes; 0 keeps none.
    pub cache_bytes_max: u64,
}

impl Default for CompileConfig {
    fn default() -> Self {
        let CompileBudget { cpu_s_max, memory_bytes_max, wall_ms_max, .. } = CompileBudget::default();
        Self { cpu_s_max, memory_bytes_max, wall_ms_max, cache_bytes_max: limits::COMPILED_BYTES_MAX }
    }
}

impl CompileConfig {
    /// As the sandbox takes it.
    pub fn budget(self) -> CompileBudget {
        let Self { cpu_s_max, memory_bytes_max, wall_ms_max, .. } = self;
        CompileBudget { cpu_s_max, memory_bytes_max, wall_ms_max, ..CompileBudget::default() }
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        let slots = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        Self {
            slots,
            queue_max: limits::HOST_AHEAD_MAX,
            memory_bytes_max: limits::TASK_MEMORY_BYTES_MAX,
            cpu_class: None,
            isolation: Isolation::Process,
            every_layer: false,
            checkpoint_ms: limits::CHECKPOINT_MS,
            compile: CompileConfig::default(),
            inference: InferenceConfig::default(),
            prices: PriceTable::default(),
        }
    }
}

/// Why a configuration file is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that it may not.
    #[error("configuration {}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What, and where.
        source: Box<toml::de::Error>,
    },
    /// A number is outside its bounds.
    #[error("{0}")]
    Bound(#[from] OutOfBounds),
    /// What models run on.
    #[error("{0}")]
    Inference(#[from] InferenceError),
    /// A price is over its bound.
    #[error("host.prices: {0}")]
    Price(#[from] PriceError),
    /// A parameter of the grid's decisions is out of its bounds.
    #[error("grid.{0}")]
    Grid(#[source] OutOfBounds),
    /// The ledger's rules do not fit together.
    #[error("grid.ledger: {0}")]
    Rules(#[from] RulesError),
}

impl Config {
    /// Reads the file, or takes every default when there is none.
    ///
    /// # Errors
    /// When it cannot be read, has an unknown key, or a value is out of bounds.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        config.host.check()?;
        config.grid.check().map_err(ConfigError::Grid)?;
        config.grid.ledger.check()?;
        Ok(config)
    }
}

impl HostConfig {
    /// A sandbox as this says.
    pub fn sandbox(&self) -> SandboxOptions {
        SandboxOptions {
            memory_bytes_max: self.memory_bytes_max,
            slots_max: self.slots,
            cpu_class: self.cpu_class,
            isolation: self.isolation,
            every_layer: self.every_layer,
            ..SandboxOptions::default()
        }
    }

    /// Whether every number is within its bounds, and all goes together.
    ///
    /// # Errors
    /// Names the first that is not or does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.inference.check(self.isolation)?;
        self.prices.check()?;
        let compile = &self.compile;
        bounds::check([
            ("host.slots", self.slots.into(), 1, limits::HOST_SLOTS_MAX.into()),
            ("host.queue_max", self.queue_max.into(), 0, limits::HOST_QUEUE_MAX.into()),
            ("host.memory_bytes_max", self.memory_bytes_max, 1 << 16, limits::MEMORY_BYTES_MAX),
            ("host.checkpoint_ms", self.checkpoint_ms, limits::CHECKPOINT_MS_MIN, limits::CHECKPOINT_MS_MAX),
            ("host.compile.cpu_s_max", compile.cpu_s_max, 1, limits::COMPILE_CPU_S_MAX),
            (
                "host.compile.memory_bytes_max",
                compile.memory_bytes_max,
                limits::COMPILE_MEMORY_BYTES_MIN,
                limits::COMPILE_MEMORY_BYTES_MAX,
            ),
            ("host.compile.wall_ms_max", compile.wall_ms_max, 1, limits::COMPILE_WALL_MS_MAX),
        ])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quorate.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path))
    }

    #[test]
    fn a_file_says_only_what_differs() {
        let config = load("[host]\nslots = 7\n[grid]\nhost_grace_ms = 9\n").unwrap();
        assert_eq!((config.host.slots, config.grid.host_grace_ms), (7, 9));
        assert_eq!(config.store, StoreConfig::default());
        assert_eq!(config.host.sandbox().isolation, Isolation::Process, "nothing has to be said for that");
        assert_eq!(load("[host]\nisolation = \"thread\"\n").unwrap().host.sandbox().isolation, Isolation::Thread);
        assert_eq!(config.host.sandbox().cpu_class, None);
        let generic = load("[host]\ncpu_class = \"generic\"\n").unwrap().host.sandbox();
        assert_eq!(generic.cpu_class, Some(CpuClass::Generic));
    }

    #[test]
    fn what_compiling_may_take_is_told_within_bounds() {
        let config = load("[host.compile]\ncpu_s_max = 9\ncache_bytes_max = 0\n").unwrap().host.compile;
        assert_eq!((config.budget().cpu_s_max, config.cache_bytes_max), (9, 0));
        assert_eq!(config.budget(), CompileBudget { cpu_s_max: 9, ..CompileBudget::default() });
        for (text, expected) in [
            ("cpu_s_max = 0", "host.compile.cpu_s_max is 0, outside the bounds of 1 to 3600"),
            ("memory_bytes_max = 1000", "host.compile.memory_bytes_max is 1000, outside"),
            ("wall_ms_max = 99999999", "host.compile.wall_ms_max is 99999999, outside"),
            ("artifact = 1", "artifact"),
        ] {
            let refusal = load(&format!("[host.compile]\n{text}\n")).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn unknown_keys_and_wild_values_are_refused_by_name() {
        for (text, expected) in [
            ("[host]\nslotz = 7\n", "slotz"),
            ("[host]\nslots = 0\n", "host.slots is 0, outside"),
            ("[host]\ncheckpoint_ms = 9\n", "host.checkpoint_ms is 9, outside the bounds of 100 to 86400000"),
            ("[host]\nisolation = \"none\"\n", "isolation"),
            ("[host]\ncpu_class = \"avx9\"\n", "avx9"),
            ("[host.prices]\nwall_second_micro = 7\n", "wall_second_micro"),
            ("[host.prices]\nmib_out_micro = 1000000000001\n", "price mib_out_micro is 1000000000001"),
            ("[grid]\nscan_max = 0\n", "grid.scan_max is 0, outside the bounds of 1 to 1048576"),
            ("[grid.audit]\nrate_ppm_min = 0\n", "grid.audit.rate_ppm_min is 0, outside the bounds of 1 to 1000000"),
            ("[grid.ledger]\nunbonding_ms = 7\n", "unbonding_ms is 7, below audit_window_ms"),
            ("[host.inference]\nonnxruntimes = \"auto\"\n", "onnxruntimes"),
            ("[host]\nisolation = \"thread\"\n[host.inference]\nonnxruntime = \"auto\"\n", "native library"),
        ] {
            let refusal = load(text).unwrap_err().to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
        assert!(Config::load(Some(Path::new("/nowhere.toml"))).unwrap_err().to_string().contains("/nowhere.toml"));
    }
}
