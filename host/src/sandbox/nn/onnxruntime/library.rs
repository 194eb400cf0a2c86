//! The library itself: opened once in a process, before it is jailed, and never closed.
//!
//! **It is not to report to its maker.** Builds from 1.31 on start a thread that does as soon as there is an environment, and
//! the switch in the interface comes too late for it. [`SILENCE`] in the environment comes in time; without it nothing is
//! opened. Sandbox processes get it from their host, and could not reach anybody anyway.

use std::{
    collections::BTreeSet,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use super::find;

/// The oldest version that has what is asked of it.
pub(super) const VERSION_MIN: (u32, u32) = (1, 24);

/// The variable, with its value, that keeps the library from reporting what it runs.
pub(in crate::sandbox) const SILENCE: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");

/// An open library, and its environment.
pub(super) struct Library {
    path: PathBuf,
    pub(super) version: String,
    pub(super) environment: Environment,
    plugins: Mutex<BTreeSet<PathBuf>>,
}

/// Opens a library, which this process then has for its life.
pub(super) fn open(path: &Path) -> Result<&'static Library, String> {
    static OPEN: OnceLock<Library> = OnceLock::new();
    static OPENING: Mutex<()> = Mutex::new(());
    let _opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    if OPEN.get().is_none() {
        let library = start(path).map_err(|why| format!("{}: {why}", path.display()))?;
        return Ok(OPEN.get_or_init(|| library));
    }
    match OPEN.get() {
        Some(open) if open.path == path => Ok(open),
        Some(open) => Err(format!("this process already has {}, and can have one", open.path.display())),
        None => Err("it is not open".to_owned()),
    }
}

fn start(path: &Path) -> Result<Library, String> {
    // A name without a directory would be searched for, and what is found depend on the environment.
    if !path.is_absolute() {
        return Err("name the library by its full path".to_owned());
    }
    if !path.exists() {
        return Err("there is no such file".to_owned());
    }
    if std::env::var_os(SILENCE.0).is_none_or(|value| value != SILENCE.1) {
        return Err(format!(
            "set {}={} for this program: it would report what it runs to its maker",
            SILENCE.0, SILENCE.1
        ));
    }
    let version = find::check(path)?;
    let path = path.to_owned();
    // The crate panics on a library that says one thing and is another.
    let started = catch_unwind(|| {
        let builder = ort::init_from(&path).map_err(|error| error.to_string())?;
        let environment =
            builder.with_name("quorate").with_telemetry(false).build().map_err(|error| error.to_string())?;
        // What goes wrong is told by the call; the rest would be said by models.
        environment.set_log_level(LogLevel::Fatal);
        Ok::<_, String>(Library { path, version, environment, plugins: Mutex::default() })
    });
    started.map_err(|_| "it does not have the interface that its version should have".to_owned())?
}

/// Major and minor number of a version.
pub(super) fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Library {
    /// Adds a plug-in that provides another device, once.
    pub(super) fn plug_in(&self, name: &str, plugin: &Path) -> Result<(), String> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        if !plugins.contains(plugin) {
            let failed = |why: String| format!("{}: {why}", plugin.display());
            if !plugin.is_file() {
                return Err(failed("there is no such file".to_owned()));
            }
            self.environment.register_ep_library(name, plugin).map_err(|error| failed(error.to_string()))?;
            plugins.insert(plugin.to_owned());
        }
        Ok(())
    }
}
