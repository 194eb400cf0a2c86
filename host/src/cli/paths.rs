//! Where files are by default, as the XDG base directory specification has it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// A coordinator's data directory.
pub fn data_dir() -> PathBuf {
    base("XDG_DATA_HOME", ".local/share").join("quorate")
}

/// A host's data directory, beside the coordinator's.
pub fn node_dir() -> PathBuf {
    base("XDG_DATA_HOME", ".local/share").join("quorate-node")
}

/// What can be made again: compiled modules.
pub fn cache_dir() -> PathBuf {
    base("XDG_CACHE_HOME", ".cache").join("quorate")
}

/// The key that names are published with.
pub fn publisher_key() -> PathBuf {
    base("XDG_CONFIG_HOME", ".config").join("quorate/publisher.key")
}

/// Relative paths in these variables are to be ignored.
fn base(variable: &str, below_home: &str) -> PathBuf {
    let given = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    given.unwrap_or_else(|| env::home_dir().unwrap_or_else(|| Path::new(".").to_owned()).join(below_home))
}
