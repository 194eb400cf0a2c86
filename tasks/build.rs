//! Compiles each file of `src/bin` to wasm and writes the list of them that `src/lib.rs` includes.
//!
//! A nested cargo builds this same package for `wasm32-wasip1`, optimised whatever the outer profile is: task modules
//! are named by their hash, and one source should have one hash. For the same reason paths of this machine are kept out
//! of the modules.
//!
//! The referee is built beside them, from `referee/`, a workspace of its own since nothing else wants tract for wasm: the
//! inference backend that runs in the sandbox. Files of the host's are compiled into it.
//!
//! The nested cargo has a target directory of its own, `target/wasm-tasks`: the outer one is locked by the cargo that
//! waits for us. Dev and release builds share it, one at a time, and copy what they need to their own `OUT_DIR`.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const TARGET: &str = "wasm32-wasip1";

/// Settings of the nested build; everything else that cargo would take from the environment is removed.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "true"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
];

/// Cargo's variables that say where to find crates, not what to build.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
    "CARGO_MAKEFLAGS",
];

/// What the referee is made of, beside what tasks are.
const REFEREE_SOURCES: [&str; 9] = [
    "tasks/referee/Cargo.lock",
    "tasks/referee/Cargo.toml",
    "tasks/referee/build.rs",
    "tasks/referee/src",
    "host/src/sandbox/nn/referee/wire.rs",
    "host/src/sandbox/nn/tensor.rs",
    "host/src/sandbox/nn/tract/bounded.rs",
    "host/src/sandbox/nn/tract/model.rs",
    "host/src/sandbox/nn/tract/tanh.rs",
];

/// Others that would change the build; `RUSTC_WORKSPACE_WRAPPER` is how clippy gets in.
const REMOVED: [&str; 5] =
    ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_LINKER", "LLVM_PROFILE_FILE"];

fn main() -> Result<(), Box<dyn Error>> {
    // This script also runs inside the nested build.
    if env::var("CARGO_CFG_TARGET_ARCH")? == "wasm32" {
        println!("cargo::rerun-if-changed=build.rs");
        return Ok(());
    }
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or("the package has no workspace around it")?;
    // Not the workspace's Cargo.toml: others edit it all day, and the lock file says which dependencies are built.
    for source in [
        "tasks/build.rs",
        "tasks/Cargo.toml",
        "tasks/src/bin",
        "tasks/src/kernels.rs",
        "tasks/src/kernels",
        "guest-sdk/Cargo.toml",
        "guest-sdk/src",
        "Cargo.lock",
    ]
    .into_iter()
    .chain(REFEREE_SOURCES)
    {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    if !(target_installed()? || add_target() && target_installed()?) {
        println!("cargo::error=tasks are compiled to {TARGET}, which is not installed: rustup target add {TARGET}");
        return Ok(());
    }
    let names = names(&package.join("src/bin"))?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    build(workspace, &names, &out)?;
    fs::write(out.join("modules.rs"), list(&names)?)?;
    Ok(())
}

/// The tasks: one a file.
fn names(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.push(
                path.file_stem().and_then(|stem| stem.to_str()).ok_or("a task's name is not Unicode")?.to_owned(),
            );
        }
    }
    names.sort();
    Ok(names)
}

fn target_installed() -> Result<bool, Box<dyn Error>> {
    let output = Command::new(env::var("RUSTC")?).args(["--print", "target-libdir", "--target", TARGET]).output()?;
    Ok(output.status.success() && Path::new(String::from_utf8(output.stdout)?.trim()).is_dir())
}

/// Has rustup add the target, if this is a toolchain of rustup's: it brings what a toolchain file names when it installs a toolchain, and
/// not to one that is there already.
fn add_target() -> bool {
    let Ok(toolchain) = env::var("RUSTUP_TOOLCHAIN") else { return false };
    println!("cargo::warning=rustup target add {TARGET} --toolchain {toolchain}");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET, "--toolchain", &toolchain]).stdin(Stdio::null()).stdout(Stdio::null());
    rustup.status().is_ok_and(|status| status.success())
}

/// Compiles the tasks and copies them to `out`.
fn build(workspace: &Path, names: &[String], out: &Path) -> Result<(), Box<dyn Error>> {
    // OUT_DIR is target/PROFILE/build/PACKAGE/out; where a cargo lays it out otherwise, any directory beside it will
    // do.
    let shared = out.ancestors().nth(4).unwrap_or(out).join("wasm-tasks");
    fs::create_dir_all(&shared)?;
    // Held until the copies are made: cargo's own lock would let the next build replace the files we read.
    let lock = File::create(shared.join(".lock-of-tasks"))?;
    lock.lock()?;

    cargo(workspace, &shared, &["--package", "quorate-tasks", "--bins"])?;
    cargo(workspace, &shared, &["--manifest-path", "tasks/referee/Cargo.toml"])?;
    for name in names.iter().map(String::as_str).chain(["referee"]) {
        let file = format!("{name}.wasm");
        fs::copy(shared.join(TARGET).join("release").join(&file), out.join(&file))?;
    }
    Ok(())
}

/// Builds something for wasm.
fn cargo(workspace: &Path, shared: &Path, what: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.current_dir(workspace).arg("build").args(what);
    cargo.args(["--release", "--locked", "--target", TARGET]).arg("--target-dir").arg(shared);
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let cargos = name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept));
        if cargos || REMOVED.contains(&&*name) {
            cargo.env_remove(&*name);
        }
    }
    cargo.envs(PROFILE).env("CARGO_ENCODED_RUSTFLAGS", flags(workspace)?);
    // Standard output is for cargo's directives; the nested build's errors reach the reader through standard error.
    let status = cargo.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("{what:?} does not compile for {TARGET}: {status}").into());
    }
    Ok(())
}

/// Flags of the wasm code, separated as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn flags(workspace: &Path) -> Result<String, Box<dyn Error>> {
    let sysroot = Command::new(env::var("RUSTC")?).args(["--print", "sysroot"]).output()?;
    let library = Path::new(String::from_utf8(sysroot.stdout)?.trim()).join("lib/rustlib/src/rust");
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned()];
    let mut remap = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(workspace, "/quorate");
    remap(&library, "/rust");
    if let Some(home) = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo"))) {
        remap(&home, "/cargo");
    }
    Ok(flags.join("\x1f"))
}

/// The Rust source of the list: a static for each task, a slice of all, and the macro over their names.
fn list(names: &[String]) -> Result<String, std::fmt::Error> {
    let mut source = String::new();
    for name in names {
        let ident = ident(name).to_uppercase();
        writeln!(source, "/// `src/bin/{name}.rs`, compiled.")?;
        writeln!(source, "pub static {ident}: TaskModule = TaskModule {{")?;
        writeln!(source, "    name: {name:?},")?;
        writeln!(source, "    wasm: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\")),")?;
        writeln!(source, "}};")?;
    }
    writeln!(source, "static ALL: [&TaskModule; {}] = [", names.len())?;
    for name in names {
        writeln!(source, "    &{},", ident(name).to_uppercase())?;
    }
    writeln!(source, "];")?;
    writeln!(source, "/// Calls `$each!(name)` for the name of every task, as an identifier; see [the crate](crate).")?;
    writeln!(source, "#[macro_export]")?;
    writeln!(source, "macro_rules! foreach_task {{")?;
    writeln!(source, "    ($each:ident) => {{")?;
    for name in names {
        writeln!(source, "        $each!({});", ident(name))?;
    }
    writeln!(source, "    }};")?;
    writeln!(source, "}}")?;
    Ok(source)
}

fn ident(name: &str) -> String {
    name.replace('-', "_")
}
