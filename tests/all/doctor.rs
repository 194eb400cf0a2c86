//! What `quorate doctor` says of machines that have more and less.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use host::{
    sandbox::{ProviderKind, find},
    testing::skipped,
};
use serde_json::Value;

use crate::EXE;

/// Runs it where the library is said to be at this path.
fn doctor(library: Option<&Path>, args: &[&str]) -> Output {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(EXE);
    command.arg("doctor").args(args).env("XDG_CACHE_HOME", empty.path());
    for variable in [find::LIBRARY_VARIABLE, find::WEBGPU_VARIABLE] {
        command.env_remove(variable);
    }
    if let Some(library) = library {
        command.env(find::LIBRARY_VARIABLE, library);
    }
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    let said = serde_json::from_slice(&output.stdout);
    said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn backend<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["backends"].as_array().unwrap().iter().find(|backend| backend["name"] == name).unwrap()
}

#[test]
fn a_machine_without_libraries_runs_tasks_and_is_told_what_it_could_have() {
    let missing = PathBuf::from("/nowhere/libonnxruntime.so");
    let output = doctor(Some(&missing), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output);
    assert_eq!(report["runs"], true);
    assert_eq!(report["jail"].as_array().unwrap().len(), 5, "{report:#}");
    assert!(report["machine"]["memory_bytes"].as_u64().unwrap() > 1 << 28);
    let tract = backend(&report, "tract-generic");
    assert_eq!((&tract["state"], &tract["class"]), (&"runs".into(), &"exact".into()));
    assert!(tract["mflops"].as_u64().unwrap() > 0 && tract["device"]["provider"] == "tract", "{tract:#}");
    let native = backend(&report, "onnxruntime-cpu");
    assert_eq!((&native["state"], &native["found"]), (&"fails".into(), &"environment".into()));
    assert_eq!(native["why"], "/nowhere/libonnxruntime.so: there is no such file");
    assert!(native["advice"].as_str().unwrap().contains("tools/install-onnxruntime"));

    let people = doctor(Some(&missing), &[]);
    let said = String::from_utf8(people.stdout).unwrap();
    assert!(people.status.success() && said.contains("there is no such file"), "{said}");
    assert!(said.lines().any(|line| line.starts_with("tract-generic") && line.contains("GFLOPS")), "{said}");
}

#[test]
fn what_is_no_library_is_a_line_and_never_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("libonnxruntime.so");
    fs::write(&path, "this is a text\n").unwrap();
    // A library, and another one.
    let other = Path::new(EXE).canonicalize().unwrap();
    for path in [path, other, dir.path().to_owned()] {
        let output = doctor(Some(&path), &["--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output);
        let native = backend(&report, "onnxruntime-cpu");
        assert_eq!(native["state"], "fails", "{native:#}");
        assert!(native["why"].as_str().unwrap().contains(&*path.to_string_lossy()), "{native:#}");
    }
}

#[test]
fn a_library_that_runs_is_shown_with_what_it_was_seen_to_do() {
    let Some(library) = find::find(find::Wanted::Library).into_iter().next() else {
        return skipped("no ONNX Runtime: run tools/install-onnxruntime", "QUORATE_REQUIRE_ONNXRUNTIME");
    };
    let report = json(&doctor(Some(&library.path), &["--json"]));
    let native = backend(&report, ProviderKind::Cpu.backend());
    assert_eq!((&native["state"], &native["class"]), (&"runs".into(), &"homogeneous".into()), "{native:#}");
    assert!(native["version"].as_str().unwrap().starts_with("onnxruntime 1."), "{native:#}");
    assert!(native["mflops"].as_u64().unwrap() > 0 && native["device"]["provider"] == "onnxruntime", "{native:#}");
    assert!(native["advice"].as_str().unwrap().contains("[host.inference] onnxruntime = \"auto\""), "{native:#}");
}
