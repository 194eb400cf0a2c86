//! What inference runs on: what a job asks for, and what a receipt names.

use serde::{Deserialize, Serialize};

/// What a job asks its models to run on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAsk {
    /// Whatever the host has.
    #[default]
    Any,
    /// The processor.
    Cpu,
    /// A GPU, and nothing else: a host without one does not get the task.
    Gpu,
}

impl DeviceAsk {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }

    /// Whether it is what jobs take unless they ask.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Whether a device of this kind will do.
    pub const fn takes(self, kind: DeviceKind) -> bool {
        matches!((self, kind), (Self::Any, _) | (Self::Cpu, DeviceKind::Cpu) | (Self::Gpu, DeviceKind::Gpu))
    }
}

/// What kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A processor.
    Cpu,
    /// A GPU.
    Gpu,
}

impl DeviceKind {
    /// A stable word, as it is encoded.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

/// A device that models run on, and through what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What kind.
    pub kind: DeviceKind,
    /// What drives it, in one word: `tract`, `onnxruntime`, `cuda`, `webgpu`.
    pub provider: String,
    /// What it calls itself, e.g. the name of a GPU, or the instruction set that kernels are pinned to.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ask_takes_its_own_kind_and_no_other() {
        for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
            assert!(DeviceAsk::Any.takes(kind));
            assert_eq!(DeviceAsk::Cpu.takes(kind), kind == DeviceKind::Cpu);
            assert_eq!(DeviceAsk::Gpu.takes(kind), kind == DeviceKind::Gpu);
        }
    }
}
