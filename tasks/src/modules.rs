//! The compiled tasks. The statics and the macro over their names come from `build.rs`.

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

/// A compiled task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TaskModule {
    /// The name of its file, without `.rs`.
    pub name: &'static str,
    /// A core module for WASI preview 1.
    pub wasm: &'static [u8],
}

impl fmt::Debug for TaskModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskModule({}, {} bytes)", self.name, self.wasm.len())
    }
}

/// tract as a module, which the host runs models in: no task, but compiled as they are.
pub static REFEREE: TaskModule =
    TaskModule { name: "referee", wasm: include_bytes!(concat!(env!("OUT_DIR"), "/referee.wasm")) };

/// Every task, by name.
pub fn all() -> &'static [&'static TaskModule] {
    &ALL
}

/// The task of this name.
pub fn by_name(name: &str) -> Option<&'static TaskModule> {
    all().iter().copied().find(|task| task.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_a_core_module_found_by_its_name() {
        assert!(!all().is_empty());
        for task in all() {
            assert_eq!(task.wasm[..8], *b"\0asm\x01\0\0\0", "{task:?}");
            assert_eq!(by_name(task.name), Some(*task));
        }
        assert_eq!(by_name("no such task"), None);
    }

    /// A module is named by its hash, so nothing of the machine it was built on may be in it.
    #[test]
    fn no_module_tells_where_it_was_built() {
        let here = env!("CARGO_MANIFEST_DIR").trim_end_matches("/tasks");
        let home = std::env::home_dir().map(|home| home.join(".cargo").display().to_string()).unwrap_or_default();
        for task in all().iter().copied().chain([&REFEREE]) {
            for path in [here, home.as_str()].into_iter().filter(|path| path.len() > 3) {
                let found = task.wasm.windows(path.len()).any(|bytes| bytes == path.as_bytes());
                assert!(!found, "{task:?} contains {path}");
            }
        }
    }

    #[test]
    fn the_echo_is_small_enough_to_measure_the_grid_by() {
        assert!(ECHO.wasm.len() < 4096, "{ECHO:?}");
    }
}
