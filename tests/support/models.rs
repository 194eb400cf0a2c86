//! The real models that `tools/install-models` installs, for tests and benches that use them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use host::{
    sandbox::{BackendOptions, Provider, find},
    testing::skipped,
};
use serde::de::DeserializeOwned;

/// The directory of the real models.
#[derive(Debug, Clone)]
pub struct Models {
    dir: PathBuf,
}

impl Models {
    /// Finds them where the script puts them: in `$QUORATE_MODELS`, or in the user's cache.
    pub fn find() -> Option<Self> {
        let named = env::var_os("QUORATE_MODELS").map(PathBuf::from);
        let cache =
            || env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache")));
        let dir = named.or_else(|| Some(cache()?.join("quorate/models")))?;
        dir.join(".complete").is_file().then_some(Self { dir })
    }

    /// As [`Models::find`], for a test: says that it is skipped where there are none.
    ///
    /// # Panics
    /// Where they are required (`QUORATE_REQUIRE_MODELS`) and missing.
    pub fn or_skip() -> Option<Self> {
        let found = Self::find();
        if found.is_none() {
            skipped("real models are not installed: run tools/install-models", "QUORATE_REQUIRE_MODELS");
        }
        found
    }

    /// Path of a file or folder of theirs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What can run them here, and the referee in the sandbox, which takes no models from guests themselves.
    pub fn backends_and_referee(&self) -> Vec<(&'static str, BackendOptions)> {
        self.backends().into_iter().chain([("tract-wasm", BackendOptions::Referee)]).collect()
    }

    /// What can run them here, by name.
    pub fn backends(&self) -> Vec<(&'static str, BackendOptions)> {
        let mut backends = vec![("tract", BackendOptions::Tract)];
        // One process has one such library: that which other tests of it find.
        let found = find::find(find::Wanted::Library).into_iter().map(|found| found.path).next();
        let library = found.or_else(|| self.path("libonnxruntime.so").canonicalize().ok());
        if let Some(library) = library {
            backends.push(("onnxruntime", BackendOptions::Onnxruntime { library, provider: Provider::Cpu }));
        }
        backends
    }

    /// Content of a file of theirs.
    ///
    /// # Panics
    /// When it cannot be read, although the script was done.
    pub fn read(&self, name: &str) -> Vec<u8> {
        read(&self.path(name))
    }

    /// Value of a JSON file of theirs.
    ///
    /// # Panics
    /// When it is none of that type.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> T {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Names and contents of the files in a folder of theirs, but for those that end in `.json`.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file());
        let mut files: Vec<(String, Vec<u8>)> = paths
            .filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), read(&path))))
            .filter(|(name, _)| !name.ends_with(".json"))
            .collect();
        files.sort();
        files
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
