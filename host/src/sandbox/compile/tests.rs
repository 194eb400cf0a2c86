//! The directory of compiled modules, and what a child may end as. The real compiler in a real child: `tests/all/compile.rs`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use registry::receipt::Outcome;

use super::*;
use crate::sandbox::{Request, Response, Sandbox, SandboxOptions};

/// A module that exits with a code.
fn exits(code: u8) -> Vec<u8> {
    let text = format!(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const {code}))))"#
    );
    wat::parse_str(text).unwrap()
}

fn cache(dir: &Path) -> CompileCache {
    CompileCache { dir: dir.join("compiled"), key_file: dir.join("compile.key"), bytes_max: 1 << 30 }
}

fn sandbox_with(compile: CompileOptions) -> Sandbox {
    Sandbox::new(SandboxOptions { slots_max: 1, compile, ..SandboxOptions::default() }).unwrap()
}

fn sandbox(cache: CompileCache) -> Sandbox {
    sandbox_with(CompileOptions { cache: Some(cache), ..CompileOptions::default() })
}

fn load(sandbox: &Sandbox, bytes: &[u8]) -> ModuleInfo {
    sandbox.load_module(ModuleHash::of(bytes), bytes).unwrap()
}

fn ends(sandbox: &Sandbox, bytes: &[u8]) -> Outcome {
    match sandbox.run(Request::new(ModuleHash::of(bytes))) {
        Response::Done(finished) => finished.outcome,
        Response::Fault(fault) => panic!("{fault}"),
    }
}

/// The compiled modules there, by name.
fn files(cache: &CompileCache) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn compiled_and_cached(sandbox: &Sandbox) -> (u64, u64) {
    let stats = sandbox.compile_stats();
    (stats.compiled, stats.cached)
}

#[test]
fn a_module_is_compiled_once_for_every_later_process() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, module) = (cache(dir.path()), exits(7));
    let first = sandbox(cache.clone());
    let info = load(&first, &module);
    assert_eq!((compiled_and_cached(&first), ends(&first, &module)), ((1, 0), Outcome::Exit(7)));
    let second = sandbox(cache.clone());
    assert_eq!(second.load_compiled(ModuleHash::of(&module)), Some(info), "it is found without its bytes");
    assert_eq!(load(&second, &module), info);
    assert_eq!((compiled_and_cached(&second), ends(&second, &module)), ((0, 1), Outcome::Exit(7)));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(files(&cache).len(), 1, "a lock or an unfinished file was left");
    assert_eq!((mode(&cache.dir), mode(&files(&cache)[0]), mode(&cache.key_file)), (0o700, 0o600, 0o600));
}

#[test]
fn a_module_that_is_not_there_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(sandbox(cache(dir.path())).load_compiled(ModuleHash::of(b"")), None);
    assert_eq!(sandbox_with(CompileOptions::default()).load_compiled(ModuleHash::of(b"")), None);
}

type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn a_file_that_was_changed_anywhere_is_never_loaded_but_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, module) = (cache(dir.path()), exits(3));
    load(&sandbox(cache.clone()), &module);
    let path = files(&cache).remove(0);
    let good = fs::read(&path).unwrap();
    let changes: [Change<'_>; 9] = [
        &|bytes| bytes[0] ^= 1,
        &|bytes| bytes[good.len() / 2] ^= 0x80,
        &|bytes| bytes[good.len() - 60] ^= 1,
        &|bytes| bytes[good.len() - 40] ^= 1,
        &|bytes| *bytes.last_mut().unwrap() ^= 1,
        &|bytes| bytes.truncate(good.len() - 1),
        &|bytes| bytes.truncate(10),
        &Vec::clear,
        &|bytes| bytes.push(0),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let sandbox = sandbox(cache.clone());
        assert_eq!(sandbox.load_compiled(ModuleHash::of(&module)), None, "change {index}");
        assert!(!path.exists(), "change {index}: a damaged file is kept");
        load(&sandbox, &module);
        assert_eq!((compiled_and_cached(&sandbox), ends(&sandbox, &module)), ((1, 0), Outcome::Exit(3)), "{index}");
        assert_eq!(fs::read(&path).unwrap(), good, "change {index}");
    }
}

#[test]
fn a_file_of_another_module_key_or_setting_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (own, one, two) = (cache(dir.path()), exits(1), exits(2));
    let sandbox_one = sandbox(own.clone());
    load(&sandbox_one, &one);
    let path_one = files(&own).remove(0);
    load(&sandbox_one, &two);
    let path_two = files(&own).into_iter().find(|path| *path != path_one).unwrap();
    // One host's code under another module's name.
    fs::copy(&path_one, &path_two).unwrap();
    let renamed = sandbox(own.clone());
    load(&renamed, &two);
    assert_eq!((compiled_and_cached(&renamed), ends(&renamed, &two)), ((1, 0), Outcome::Exit(2)));
    // The directory of a host with another key.
    fs::remove_file(&own.key_file).unwrap();
    let foreign = sandbox(own.clone());
    load(&foreign, &one);
    assert_eq!(compiled_and_cached(&foreign), (1, 0));
    // Another engine, profile or admission has another name for the same module.
    let options = SandboxOptions { slots_max: 1, ..SandboxOptions::default() };
    let compiler = Compiler::alone(&options, CpuClass::detect()).unwrap();
    let key = |change: &dyn Fn(&mut Settings)| {
        let mut settings = compiler.settings.clone();
        change(&mut settings);
        canon::hash("quorate/compiled/2", &(ModuleHash::of(&one), &settings))
    };
    let keys = [
        key(&|_| {}),
        key(&|settings| settings.engine.push('1')),
        key(&|settings| settings.target.profile = Profile::Portable),
        key(&|settings| settings.admission += 1),
    ];
    assert_eq!(keys[0], compiler.key(ModuleHash::of(&one)));
    assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
}

#[test]
fn the_least_recently_used_leave_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = cache(dir.path());
    let modules = [exits(1), exits(2), exits(3)];
    load(&sandbox(cache.clone()), &modules[0]);
    let bytes = fs::metadata(&files(&cache)[0]).unwrap().len();
    // Room for two, and for what a third may have about its module.
    cache.bytes_max = 2 * bytes + limits::ARTIFACT_STATEMENT_BYTES_MAX as u64;
    load(&sandbox(cache.clone()), &modules[1]);
    for path in files(&cache) {
        // Both long ago, so that the next use is later whatever the clock's steps are.
        fs::File::options().write(true).open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    let later = sandbox(cache.clone());
    assert!(later.load_compiled(ModuleHash::of(&modules[0])).is_some());
    load(&later, &modules[2]);
    let kept = modules.each_ref().map(|module| sandbox(cache.clone()).load_compiled(ModuleHash::of(module)).is_some());
    assert_eq!(kept, [true, false, true]);
    let sum: u64 = files(&cache).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(sum <= cache.bytes_max, "{sum}");
}

#[test]
fn what_is_longer_than_the_whole_cache_runs_and_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = CompileCache { bytes_max: 100, ..cache(dir.path()) };
    let (sandbox, module) = (sandbox(cache.clone()), exits(5));
    load(&sandbox, &module);
    assert_eq!((ends(&sandbox, &module), files(&cache).len()), (Outcome::Exit(5), 0));
}

#[test]
fn a_directory_that_cannot_be_used_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let module = exits(6);
    let works = |cache: CompileCache, why: &str| {
        let sandbox = sandbox(cache);
        load(&sandbox, &module);
        assert_eq!(ends(&sandbox, &module), Outcome::Exit(6), "{why}");
        assert_eq!(compiled_and_cached(&sandbox), (1, 0), "{why}");
    };
    let usual = cache(dir.path());
    fs::write(dir.path().join("file"), "").unwrap();
    works(CompileCache { dir: dir.path().join("file"), ..usual.clone() }, "a file is in its place");
    fs::write(dir.path().join("no.key"), "no key").unwrap();
    works(CompileCache { key_file: dir.path().join("no.key"), ..usual.clone() }, "there is no key");
    // Even root cannot write there.
    works(CompileCache { dir: "/proc/self/fdinfo".into(), ..usual.clone() }, "nothing can be written");
    let opened = sandbox(usual.clone());
    fs::remove_dir_all(&usual.dir).unwrap();
    load(&opened, &module);
    assert_eq!(ends(&opened, &module), Outcome::Exit(6), "it was deleted meanwhile");
    fs::create_dir(&usual.dir).unwrap();
    fs::set_permissions(&usual.dir, fs::Permissions::from_mode(0o777)).unwrap();
    works(usual.clone(), "others can write there");
    assert!(files(&usual).is_empty());
}

#[test]
fn an_unfinished_file_and_a_lock_of_a_process_that_died_are_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, module) = (cache(dir.path()), exits(4));
    load(&sandbox(cache.clone()), &module);
    let path = files(&cache).remove(0);
    fs::rename(&path, path.with_extension("part")).unwrap();
    fs::write(path.with_extension("lock"), "").unwrap();
    let sandbox = sandbox(cache.clone());
    load(&sandbox, &module);
    assert_eq!(compiled_and_cached(&sandbox), (1, 0));
    assert_eq!(files(&cache), [path]);
}

#[test]
fn of_many_with_one_directory_one_compiles() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, module) = (cache(dir.path()), exits(9));
    let sandboxes: Vec<Sandbox> = (0..4).map(|_| sandbox(cache.clone())).collect();
    std::thread::scope(|scope| {
        sandboxes.iter().for_each(|sandbox| drop(scope.spawn(|| load(sandbox, &module))));
    });
    let compiled: u64 = sandboxes.iter().map(|sandbox| sandbox.compile_stats().compiled).sum();
    let cached: u64 = sandboxes.iter().map(|sandbox| sandbox.compile_stats().cached).sum();
    assert_eq!((compiled, cached, files(&cache).len()), (1, 3, 1));
}

/// A program in place of ours.
fn program(dir: &Path, script: &str) -> CompileOptions {
    let path = dir.join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    CompileOptions { program: Some(path), ..CompileOptions::default() }
}

#[test]
fn each_way_in_which_a_compiler_ends_has_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let module = exits(0);
    let answer = |json: &str| format!("echo noise >&2; echo '{json}' >&2");
    let cases = [
        ("kill -XCPU $$".to_owned(), "compile_budget", "cpu_s is over 120"),
        ("kill -XFSZ $$".to_owned(), "compile_budget", "artifact_bytes is over"),
        (
            "echo 'memory allocation of 64 bytes failed' >&2; kill -ABRT $$".to_owned(),
            "compile_budget",
            "memory_bytes is over",
        ),
        (answer(r#"{"Err":{"passed":"memory_bytes"}}"#), "compile_budget", "memory_bytes is over"),
        (answer(r#"{"Err":{"not_compiled":"why"}}"#), "compile", "why"),
        (answer(r#"{"Err":{"refused":"text"}}"#), "text", "WebAssembly text"),
        (answer(r#"{"Err":{"failed":{"stage":"s","detail":"d"}}}"#), "compiler_failed", "s: d; try again"),
        ("echo boom >&2; kill -SEGV $$".to_owned(), "compiler_crashed", "boom"),
        ("kill -ABRT $$".to_owned(), "compiler_crashed", "signal: 6"),
        ("echo \"thread 'main' panicked\" >&2; exit 101".to_owned(), "compiler_crashed", "panicked"),
        ("kill -KILL $$".to_owned(), "compiler_failed", "signal: 9"),
        ("kill -TERM $$".to_owned(), "compiler_failed", "signal: 15"),
        ("exit 2".to_owned(), "compiler_failed", "exit status: 2"),
        ("exit 0".to_owned(), "compiler_failed", "answer"),
        (answer(r#"{"Ok":{}}"#), "compiler_failed", "answer"),
        ("yes >&2 & yes >&2 & sleep 0.1; kill $!; kill -SEGV $$".to_owned(), "compiler_crashed", "signal: 11"),
    ];
    for (script, word, says) in cases {
        let sandbox = sandbox_with(program(dir.path(), &script));
        let error = sandbox.load_module(ModuleHash::of(&module), &module).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.word(), word, "{script}: {text}");
        assert!(text.contains(says) && !text.contains('\n') && text.len() < 600, "{script}: {text}");
    }
}

#[test]
fn a_compiler_that_does_not_end_or_does_not_start_is_told_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let module = exits(0);
    for script in ["exec sleep 600", "exec 2>&-; exec sleep 600", "while :; do echo talk >&2; sleep 0.01; done"] {
        let mut options = program(dir.path(), script);
        options.budget.wall_ms_max = 200;
        let error = sandbox_with(options).load_module(ModuleHash::of(&module), &module).unwrap_err();
        assert_eq!(error, LoadError::CompileBudget { budget: Budget::WallMs, bound: 200 }, "{script}");
    }
    let missing = CompileOptions { program: Some(dir.path().join("nothing")), ..CompileOptions::default() };
    let error = sandbox_with(missing).load_module(ModuleHash::of(&module), &module).unwrap_err();
    assert!(error.to_string().contains("start of the compiler"), "{error}");
}

#[test]
fn a_module_that_passed_its_budget_is_not_tried_again_and_one_that_the_host_failed_is() {
    let dir = tempfile::tempdir().unwrap();
    let (module, tries) = (exits(0), dir.path().join("tries"));
    let tries_after_two = |end: &str| {
        let _ = fs::remove_file(&tries);
        let sandbox = sandbox_with(program(dir.path(), &format!("echo try >> {}; {end}", tries.display())));
        let word = |_| sandbox.load_module(ModuleHash::of(&module), &module).unwrap_err().word();
        let words: Vec<_> = (0..2).map(word).collect();
        assert_eq!(words[0], words[1]);
        fs::read_to_string(&tries).unwrap().lines().count()
    };
    assert_eq!((tries_after_two("kill -XCPU $$"), tries_after_two("kill -KILL $$")), (1, 2));
}
