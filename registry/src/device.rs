//! What inference runs on: what a job asks for, and what a receipt names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length in bytes of what drives a device, and of what it calls itself, each.
pub const DEVICE_TEXT_BYTES_MAX: usize = 128;

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

/// A device's texts are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} of a device is no text of 1 to {DEVICE_TEXT_BYTES_MAX} bytes without control characters")]
pub struct DeviceError {
    /// `provider` or `name`.
    pub what: &'static str,
}

impl Device {
    /// Whether its texts are short enough to be signed, and may be shown as they are.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), DeviceError> {
        for (what, text) in [("provider", &self.provider), ("name", &self.name)] {
            if !(1..=DEVICE_TEXT_BYTES_MAX).contains(&text.len()) || text.chars().any(char::is_control) {
                return Err(DeviceError { what });
            }
        }
        Ok(())
    }
}

/// One line: `gpu by cuda (NVIDIA H200)`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} ({})", self.kind.word(), self.provider, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_of_one_line() {
        let device = |name: &str| Device { kind: DeviceKind::Gpu, provider: "cuda".into(), name: name.into() };
        device("NVIDIA H200").check().unwrap();
        assert_eq!(device("NVIDIA H200").to_string(), "gpu by cuda (NVIDIA H200)");
        for name in ["", "a\nb", &"x".repeat(DEVICE_TEXT_BYTES_MAX + 1)] {
            assert_eq!(device(name).check(), Err(DeviceError { what: "name" }), "{name:?}");
        }
    }

    #[test]
    fn an_ask_takes_its_own_kind_and_no_other() {
        for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
            assert!(DeviceAsk::Any.takes(kind));
            assert_eq!(DeviceAsk::Cpu.takes(kind), kind == DeviceKind::Cpu);
            assert_eq!(DeviceAsk::Gpu.takes(kind), kind == DeviceKind::Gpu);
        }
    }
}
