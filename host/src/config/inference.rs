//! `[host.inference]`: what models run on beside tract, which every host has and which needs no library.
//!
//! ONNX Runtime is off until it is asked for. A library that happens to be on a machine parses models of strangers in C++ and
//! takes its share of memory and caches: that is its owner's to decide, and a newcomer's host needs nothing but its own program.
//! `quorate doctor` says what there is to switch on.
//!
//! Each provider is an engine of its own, with sandbox processes of its own, since a process has one such library. So it is
//! refused where tasks run in the host itself. What is configured and missing costs the jobs that need it, and not the host.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::sandbox::{BackendOptions, Isolation, ProviderKind, SandboxOptions, find};

/// A native library: whether there is to be one, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Library {
    /// None.
    Off,
    /// The first that is found: see [`find`].
    #[default]
    Auto,
    /// This file.
    At(PathBuf),
}

impl Library {
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Off | Self::Auto => None,
            Self::At(path) => Some(path),
        }
    }
}

impl TryFrom<String> for Library {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            path if Path::new(path).is_absolute() => Ok(Self::At(text.into())),
            other => Err(format!("`{other}` is not \"off\", \"auto\" or the full path of a library")),
        }
    }
}

/// What models run on beside tract.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    /// ONNX Runtime.
    pub onnxruntime: Library,
    /// What it runs models on, an engine for each.
    pub providers: Vec<ProviderKind>,
    /// Its plug-in for provider `webgpu`.
    pub webgpu_plugin: Library,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { onnxruntime: Library::Off, providers: vec![ProviderKind::Cpu], webgpu_plugin: Library::Auto }
    }
}

/// What does not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InferenceError {
    /// A native library would run in the host.
    #[error(
        "host.inference.onnxruntime is on and host.isolation is \"thread\": a native library runs in sandbox processes alone; set isolation = \"process\", or onnxruntime = \"off\""
    )]
    Isolation,
    /// A library, and nothing to run models on.
    #[error("host.inference.providers is empty: name \"cpu\", \"cuda\" or \"webgpu\", or set onnxruntime = \"off\"")]
    NoProvider,
    /// One provider is one engine.
    #[error("host.inference.providers names \"{}\" twice", provider.word())]
    Twice {
        /// Which.
        provider: ProviderKind,
    },
    /// WebGPU is the plug-in's.
    #[error(
        "host.inference.providers names \"webgpu\" and webgpu_plugin is \"off\": set it to \"auto\" or the plug-in's path"
    )]
    NoPlugin,
}

impl InferenceConfig {
    /// Whether it goes together.
    ///
    /// # Errors
    /// Says what does not.
    pub fn check(&self, isolation: Isolation) -> Result<(), InferenceError> {
        if self.onnxruntime == Library::Off {
            return Ok(());
        }
        if isolation == Isolation::Thread {
            return Err(InferenceError::Isolation);
        }
        if self.providers.is_empty() {
            return Err(InferenceError::NoProvider);
        }
        let earlier = |at: usize| self.providers[..at].contains(&self.providers[at]);
        if let Some(at) = (0..self.providers.len()).find(|at| earlier(*at)) {
            return Err(InferenceError::Twice { provider: self.providers[at] });
        }
        if self.providers.contains(&ProviderKind::Webgpu) && self.webgpu_plugin == Library::Off {
            return Err(InferenceError::NoPlugin);
        }
        Ok(())
    }

    /// A sandbox for each provider, as the host's native one but for what it infers with. Looks for libraries where they are to
    /// be found, and opens none. What is not found is logged and left out.
    pub fn sandboxes(&self, native: &SandboxOptions) -> Vec<SandboxOptions> {
        if self.onnxruntime == Library::Off {
            return Vec::new();
        }
        let found = self.providers.iter().filter_map(|provider| self.backend(*provider));
        found.map(|backend| SandboxOptions { backend, ..native.clone() }).collect()
    }

    fn backend(&self, provider: ProviderKind) -> Option<BackendOptions> {
        let found = find::backend(provider, self.onnxruntime.path(), self.webgpu_plugin.path());
        let missing = |error: &find::Absent| {
            tracing::warn!(backend = provider.backend(), "a backend of inference is not offered: {error}")
        };
        found.inspect_err(missing).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Provider;

    fn parse(text: &str) -> Result<InferenceConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_native_is_on_until_it_is_asked_for() {
        let config = InferenceConfig::default();
        assert_eq!(config, parse("").unwrap());
        assert_eq!(config.onnxruntime, Library::Off);
        assert_eq!(config.sandboxes(&SandboxOptions::default()), []);
        config.check(Isolation::Thread).unwrap();
    }

    #[test]
    fn each_provider_is_a_sandbox_with_the_library_that_is_named() {
        let config = parse(
            "onnxruntime = \"/a/lib.so\"\nproviders = [\"cpu\", \"cuda\", \"webgpu\"]\nwebgpu_plugin = \"/b/p.so\"",
        );
        let config = config.unwrap();
        config.check(Isolation::Process).unwrap();
        let native = SandboxOptions { slots_max: 3, ..SandboxOptions::default() };
        let provider = |provider| BackendOptions::Onnxruntime { library: "/a/lib.so".into(), provider };
        let expected = [Provider::Cpu, Provider::Cuda, Provider::Webgpu { plugin: "/b/p.so".into() }];
        let expected = expected.map(|one| SandboxOptions { backend: provider(one), ..native.clone() });
        assert_eq!(config.sandboxes(&native), expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (text, expected) in [
            ("onnxruntim = \"auto\"", "onnxruntim"),
            ("onnxruntime = \"on\"", "`on` is not \"off\", \"auto\" or the full path"),
            ("onnxruntime = \"lib/libonnxruntime.so\"", "full path"),
            ("onnxruntime = true", "string"),
            ("providers = [\"gpu\"]", "gpu"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert!(refusal.contains(expected), "{refusal}");
        }
        let check = |text: &str, isolation| parse(text).unwrap().check(isolation).unwrap_err().to_string();
        let refusal = check("onnxruntime = \"auto\"", Isolation::Thread);
        assert!(refusal.contains("a native library runs in sandbox processes alone"), "{refusal}");
        for (text, expected) in [
            ("providers = []", "is empty"),
            ("providers = [\"cpu\", \"webgpu\", \"cpu\"]", "names \"cpu\" twice"),
            ("providers = [\"webgpu\"]\nwebgpu_plugin = \"off\"", "webgpu_plugin is \"off\""),
        ] {
            let refusal = check(&format!("onnxruntime = \"auto\"\n{text}"), Isolation::Process);
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
