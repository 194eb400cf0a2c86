//! Where ONNX Runtime, and its plug-in for WebGPU, may be on this machine: what `quorate doctor` looks through, and a host
//! whose configuration says `onnxruntime = "auto"`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::{
    super::backend::{BackendOptions, Provider, ProviderKind},
    library, raw,
};

/// Environment variable with the path of the library.
pub const LIBRARY_VARIABLE: &str = "QUORATE_ONNXRUNTIME";
/// Environment variable with the path of the WebGPU plug-in.
pub const WEBGPU_VARIABLE: &str = "QUORATE_ONNXRUNTIME_WEBGPU";

/// Directories that systems and people install libraries into.
const SYSTEM: &[&str] = &[
    "/usr/local/lib",
    "/usr/lib",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/opt/onnxruntime/lib",
];
/// Where Python keeps packages, one directory a line.
const SITE_PACKAGES: &str = "import site, sys; print('\\n'.join(p for p in sys.path + [site.getusersitepackages()] if p.endswith('-packages')))";

/// What lies beside a library that is built for CUDA.
const CUDA_PROVIDER: &str = "libonnxruntime_providers_cuda.so";

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// ONNX Runtime.
    Library,
    /// ONNX Runtime that is built for CUDA.
    Cuda,
    /// Its plug-in for WebGPU.
    Webgpu,
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An environment variable names it.
    Environment,
    /// `tools/install-onnxruntime` put it there.
    Installed,
    /// Among the system's libraries.
    System,
    /// In a package of `python3`.
    Python,
}

impl Place {
    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Installed => "installed",
            Self::System => "system",
            Self::Python => "python",
        }
    }
}

/// A library that was found, and not tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Where.
    pub place: Place,
}

impl Wanted {
    const fn variable(self) -> &'static str {
        match self {
            Self::Library | Self::Cuda => LIBRARY_VARIABLE,
            Self::Webgpu => WEBGPU_VARIABLE,
        }
    }

    /// Where a Python package has it.
    const fn in_package(self) -> &'static str {
        match self {
            Self::Library | Self::Cuda => "onnxruntime/capi",
            Self::Webgpu => "onnxruntime_ep_webgpu",
        }
    }

    /// Whether a file is called so.
    fn is_named(self, name: &str) -> bool {
        match self {
            Self::Library | Self::Cuda => name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so."),
            Self::Webgpu => name == "libonnxruntime_providers_webgpu.so",
        }
    }
}

/// What this machine has, the best first: what was said comes before what was installed for it, and that before the rest.
pub fn find(wanted: Wanted) -> Vec<Found> {
    // Who says where it is has it nowhere else.
    if let Some(path) = std::env::var_os(wanted.variable()).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let will_do = wanted != Wanted::Cuda || has_cuda(&path);
        return will_do.then_some(Found { path, place: Place::Environment }).into_iter().collect();
    }
    let mut found = Vec::new();
    let mut add = |dir: &Path, place| {
        let new = in_dir(wanted, dir).into_iter().filter(|path| !found.iter().any(|found: &Found| found.path == *path));
        let new: Vec<Found> = new.map(|path| Found { path, place }).collect();
        found.extend(new);
    };
    if let Some(dir) = installed_dir() {
        if wanted == Wanted::Cuda {
            add(&dir.join("cuda"), Place::Installed);
        }
        add(&dir, Place::Installed);
    }
    SYSTEM.iter().for_each(|dir| add(Path::new(dir), Place::System));
    site_packages().iter().for_each(|dir| add(&dir.join(wanted.in_package()), Place::Python));
    found
}

/// Why there is nothing to infer with. Each says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// No ONNX Runtime.
    #[error("no ONNX Runtime is found: run tools/install-onnxruntime, or name the library")]
    Library,
    /// None that is built for CUDA.
    #[error(
        "no ONNX Runtime that is built for CUDA is found: for an NVIDIA GPU run tools/install-onnxruntime cuda, with CUDA 13 and cuDNN 9 on the system"
    )]
    Cuda,
    /// No plug-in for WebGPU.
    #[error("no WebGPU plug-in is found: for a GPU with a Vulkan driver run tools/install-onnxruntime webgpu")]
    Webgpu,
}

/// What to infer with by a provider: the library and the plug-in that are named, or the best that is found. Nothing is opened.
///
/// # Errors
/// When none is named and none is found.
pub fn backend(kind: ProviderKind, library: Option<&Path>, plugin: Option<&Path>) -> Result<BackendOptions, Absent> {
    let first = |named: Option<&Path>, wanted, absent| match named {
        Some(path) => Ok(path.to_owned()),
        None => find(wanted).into_iter().next().map(|found| found.path).ok_or(absent),
    };
    let (wanted, absent) = match kind {
        ProviderKind::Cpu | ProviderKind::Webgpu => (Wanted::Library, Absent::Library),
        ProviderKind::Cuda => (Wanted::Cuda, Absent::Cuda),
    };
    let library = first(library, wanted, absent)?;
    let provider = match kind {
        ProviderKind::Cpu => Provider::Cpu,
        ProviderKind::Cuda => Provider::Cuda,
        ProviderKind::Webgpu => Provider::Webgpu { plugin: first(plugin, Wanted::Webgpu, Absent::Webgpu)? },
    };
    Ok(BackendOptions::Onnxruntime { library, provider })
}

/// Where `tools/install-onnxruntime` puts libraries.
pub fn installed_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("quorate").join("onnxruntime"))
}

/// The libraries of a directory, the newest version first, each once however many links lead to it.
fn in_dir(wanted: Wanted, dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named =
        entries.filter(|path| path.file_name().and_then(OsStr::to_str).is_some_and(|name| wanted.is_named(name)));
    let mut files: Vec<PathBuf> = named.filter_map(|path| fs::canonicalize(path).ok()).collect();
    if wanted == Wanted::Cuda {
        files.retain(|path| has_cuda(path));
    }
    files.sort_by_cached_key(|path| std::cmp::Reverse((version(path), path.clone())));
    files.dedup();
    files
}

/// Whether a library is built for CUDA.
fn has_cuda(library: &Path) -> bool {
    library.with_file_name(CUDA_PROVIDER).is_file()
}

/// The version that a library's name ends with.
fn version(path: &Path) -> Vec<u32> {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let numbers = name.split_once(".so.").map_or("", |(_, version)| version);
    numbers.split('.').filter_map(|number| number.parse().ok()).collect()
}

/// Asked once: starting Python takes its time.
fn site_packages() -> &'static [PathBuf] {
    static DIRS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    DIRS.get_or_init(ask_python)
}

fn ask_python() -> Vec<PathBuf> {
    let python =
        Command::new("python3").args(["-I", "-c", SITE_PACKAGES]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let said = python.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().map(PathBuf::from).collect()
}

/// The version that a library says it has, or why it will not do.
///
/// # Errors
/// When it does not open, or is too old.
pub fn check(path: &Path) -> Result<String, String> {
    let version = raw::version(path)?;
    if library::parse(&version).is_none_or(|found| found < library::VERSION_MIN) {
        let (major, minor) = library::VERSION_MIN;
        return Err(format!("it is version {version}, and {major}.{minor} is the oldest that will do"));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_library_of_a_directory_comes_first_and_each_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so", "other"]
        {
            fs::write(dir.path().join(name), name).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("libonnxruntime.so.1.32.0", dir.path().join("libonnxruntime.so")).unwrap();
        let found = in_dir(Wanted::Library, dir.path());
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["libonnxruntime.so.1.32.0", "libonnxruntime.so.1.9.0"]);
        assert!(in_dir(Wanted::Webgpu, dir.path()).is_empty());
        assert!(in_dir(Wanted::Cuda, dir.path()).is_empty());
        fs::write(dir.path().join(CUDA_PROVIDER), "").unwrap();
        assert_eq!(in_dir(Wanted::Cuda, dir.path()), found);
    }

    #[test]
    fn what_is_named_is_taken_as_it_is() {
        let (library, plugin) = (Path::new("/a/libonnxruntime.so"), Path::new("/b/plugin.so"));
        for kind in ProviderKind::ALL {
            let backend = backend(kind, Some(library), Some(plugin)).unwrap();
            let BackendOptions::Onnxruntime { library: named, provider } = &backend else { panic!("{backend:?}") };
            assert_eq!((named.as_path(), provider.kind()), (library, kind));
            assert_eq!(backend.is_gpu(), kind != ProviderKind::Cpu);
            // What lies beside them is what a jailed driver may read of them.
            #[cfg(target_os = "linux")]
            if let Some(drivers) = backend.drivers() {
                assert!(drivers.readable.contains(&PathBuf::from("/a")) && backend.is_gpu());
                assert_eq!(drivers.readable.contains(&PathBuf::from("/b")), kind == ProviderKind::Webgpu);
            } else {
                assert!(!backend.is_gpu());
            }
        }
    }

    #[test]
    fn what_is_no_library_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so");
        assert!(check(&path).unwrap_err().contains("cannot open"));
        fs::write(&path, "no library").unwrap();
        assert!(check(&path).is_err());
    }
}
