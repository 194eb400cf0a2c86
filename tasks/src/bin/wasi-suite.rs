//! What each program of WASI's public test suite for preview 1 asserts, said again as one guest: the first argument names
//! the case, `list` prints the names. A case that fails panics, so the log holds its line.
//!
//! Where the suite lets hosts differ, the case asserts what this host does. `docs/WASI.md` is the same in words.

#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/abi.rs"]
mod abi;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/descriptors.rs"]
mod descriptors;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/files.rs"]
mod files;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/limits.rs"]
mod limits;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/links.rs"]
mod links;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/paths.rs"]
mod paths;
#[cfg(target_arch = "wasm32")]
#[path = "wasi-suite/process.rs"]
mod process;

/// A case: its name in the suite, and what it does.
#[cfg(target_arch = "wasm32")]
type Case = (&'static str, fn());

#[cfg(target_arch = "wasm32")]
#[allow(clippy::print_stdout, reason = "stdout is the task's output")]
fn main() {
    let subjects = [descriptors::CASES, files::CASES, limits::CASES, links::CASES, paths::CASES, process::CASES];
    let cases = || subjects.iter().copied().flatten();
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "list" {
        cases().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let (_, case) = cases().find(|(known, _)| *known == name).expect("a case of this name");
    case();
}

/// The cases are about WASI and mean nothing elsewhere.
#[cfg(not(target_arch = "wasm32"))]
fn main() {}
