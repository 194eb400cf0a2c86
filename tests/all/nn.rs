//! wasi-nn as other people's guests see it: through the public `wasi-nn` crate, which the task `nn-script` calls as a script
//! says, and from C with the header of `guest-sdk`. Every element type goes in and comes out, on every backend.

use std::{fmt::Write as _, path::Path, process::Command};

use bytes::Bytes;
use host::{
    limits,
    sandbox::{
        BackendOptions, Finished, Request, Response, Sandbox, SandboxOptions,
        onnx::{Attribute, DOUBLE, FLOAT, FLOAT16, INT32, INT64, Model, UINT8},
    },
    testing,
};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
};
use support::models::Models;

use crate::sandbox::SANDBOX;

/// Digits that are labelled line by line: enough to see that the labels are theirs.
const LINES: usize = 5;

/// Sandboxes of this process: one for each backend that there is.
fn sandboxes() -> Vec<(&'static str, Sandbox)> {
    let further = Models::or_skip().map(|models| models.backends()).unwrap_or_default();
    let further = further.into_iter().filter(|(_, backend)| *backend != BackendOptions::Tract);
    let start = |(name, backend)| {
        (name, Sandbox::new(SandboxOptions { backend, ..SandboxOptions::default() }).expect("it starts"))
    };
    std::iter::once(("tract", SANDBOX.clone())).chain(further.map(start)).collect()
}

/// A request that runs a script of [`tasks::NN_SCRIPT`], with files below `/in`.
pub(crate) fn script(sandbox: &Sandbox, lines: &str, files: &[(&str, &[u8])]) -> Request {
    let wasm = tasks::NN_SCRIPT.wasm;
    let module = ModuleHash::of(wasm);
    sandbox.load_module(module, wasm).expect("our own tasks pass preflight");
    Request {
        stdin: Bytes::copy_from_slice(lines.as_bytes()),
        files: files.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::copy_from_slice(bytes))).collect(),
        limits: Limits { fuel_max: 1 << 40, ..Limits::default() },
        ..Request::new(module)
    }
}

/// The same with models that the job declares.
pub(crate) fn declaring(sandbox: &Sandbox, request: Request, models: &[(&str, &[u8])]) -> Request {
    let load = |(name, bytes): &(&str, &[u8])| {
        let hash = ModelHash::of(bytes);
        sandbox.load_model(hash, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        ((*name).to_owned(), hash)
    };
    Request { models: models.iter().map(load).collect(), ..request }
}

/// Runs it, and gives what does not depend on time.
pub(crate) fn run(sandbox: &Sandbox, request: Request) -> Finished {
    match sandbox.run(request) {
        Response::Done(done) => Finished { wall_micros: 0, ..done },
        Response::Fault(fault) => panic!("the host failed: {fault}"),
    }
}

/// Answers of a script, line by line.
pub(crate) fn answers(done: &Finished) -> Vec<String> {
    assert_eq!(done.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
}

/// What the task `digits` says of these lines of pixels.
fn labels(pixels: &[u8]) -> Bytes {
    let module = ModuleHash::of(tasks::DIGITS.wasm);
    SANDBOX.load_module(module, tasks::DIGITS.wasm).expect("our own tasks pass preflight");
    let request = Request { stdin: Bytes::copy_from_slice(pixels), ..Request::new(module) };
    let done = run(&SANDBOX, declaring(&SANDBOX, request, &[("digits", tasks::data::DIGITS_MODEL)]));
    assert_eq!(done.outcome, Outcome::Ok);
    done.stdout
}

/// The label of an answer with ten scores.
fn label(answer: &str) -> usize {
    let scores = answer.strip_prefix("ok ").unwrap_or_else(|| panic!("no scores: {answer}"));
    let scores: Vec<f32> = scores.split(',').map(|score| score.parse().unwrap()).collect();
    assert_eq!(scores.len(), 10, "{answer}");
    (0..10).max_by(|one, other| scores[*one].total_cmp(&scores[*other])).unwrap()
}

#[test]
pub(crate) fn the_public_crate_finds_models_by_name_in_memory_and_in_files() {
    let pixels = String::from_utf8(tasks::data::DIGITS_PIXELS.to_vec()).unwrap();
    let mut lines = "named digits\nbytes digits.onnx\nfiles digits.onnx\n".to_owned();
    for graph in 0..3 {
        writeln!(lines, "context {graph}").unwrap();
        for digit in pixels.lines().take(LINES) {
            writeln!(lines, "input {graph} 0 f32 1x64 {digit}\ncompute {graph}\noutput {graph} 0 f32 10").unwrap();
        }
    }
    let model = tasks::data::DIGITS_MODEL;
    let request = script(&SANDBOX, &lines, &[("digits.onnx", model)]);
    let done = run(&SANDBOX, declaring(&SANDBOX, request, &[("digits", model)]));
    let answers = answers(&done);
    let (opened, inferred) = answers.split_at(3);
    assert_eq!(opened, ["ok"; 3]);
    let graphs: Vec<&[String]> = inferred.chunks(1 + 3 * LINES).collect();
    assert_eq!((graphs.len(), graphs[1], graphs[2]), (3, graphs[0], graphs[0]), "the same model answers the same");
    let found: String = graphs[0][1..].chunks(3).map(|calls| format!("{}\n", label(&calls[2]))).collect();
    let head: String = pixels.lines().take(LINES).map(|line| format!("{line}\n")).collect();
    assert_eq!(found.as_bytes(), labels(head.as_bytes()));
    // However a model came, it stands in the record by its hash.
    assert_eq!(done.inferences.len(), 3 * LINES);
    assert!(done.inferences.iter().all(|inference| inference.model == ModelHash::of(model)) && done.nn_root.is_some());
}

/// Words of `nn-script`, and ONNX's numbers, of all types of the specification.
const TYPES: [(&str, i32); 6] =
    [("f16", FLOAT16), ("f32", FLOAT), ("f64", DOUBLE), ("u8", UINT8), ("i32", INT32), ("i64", INT64)];

fn cast(from: i32, to: i32) -> Vec<u8> {
    Model::new()
        .input("x", from, &[-1])
        .node("Cast", &["x"], &["y"], &[("to", Attribute::Int(to.into()))])
        .output("y", to, &[-1])
        .bytes()
}

#[test]
fn every_type_goes_in_and_comes_out_as_every_type() {
    let models: Vec<(String, &str, &str, Vec<u8>)> = TYPES
        .iter()
        .flat_map(|(from, number)| {
            TYPES.iter().map(move |(to, other)| (format!("{from}-{to}"), *from, *to, cast(*number, *other)))
        })
        .collect();
    let files: Vec<(&str, &[u8])> = models.iter().map(|(name, .., model)| (name.as_str(), model.as_slice())).collect();
    for (backend, sandbox) in sandboxes() {
        for way in ["named", "bytes"] {
            if (backend, way) == ("onnxruntime", "bytes") {
                continue;
            }
            let mut lines = String::new();
            for (at, (name, from, to, _)) in models.iter().enumerate() {
                writeln!(lines, "{way} {name}\ncontext {at}\ninput {at} 0 {from} 4 0,1,100,255").unwrap();
                writeln!(lines, "compute {at}\noutput {at} 0 {to} 4").unwrap();
            }
            let request = script(&sandbox, &lines, &files);
            let done = run(&sandbox, declaring(&sandbox, request, &files));
            let answers = answers(&done);
            for ((name, ..), answers) in models.iter().zip(answers.chunks(5)) {
                assert_eq!(answers, ["ok", "ok", "ok", "ok", "ok 0,1,100,255"], "{name} {way} on {backend}");
            }
            assert_eq!((answers.len(), done.inferences.len()), (5 * models.len(), models.len()));
        }
    }
}

#[test]
fn the_ends_of_every_type_keep_their_bits() {
    let ends = [
        ("f16", "65504,-0,0.00000005960464", "65504,-0,0.000000059604645"),
        ("f32", "0.1,-0,340282350000000000000000000000000000000", "0.1,-0,340282350000000000000000000000000000000"),
        ("f64", "0.1,-0,123456789.01234567", "0.1,-0,123456789.01234567"),
        ("u8", "0,127,255", "0,127,255"),
        ("i32", "-2147483648,0,2147483647", "-2147483648,0,2147483647"),
        ("i64", "-9223372036854775808,0,9223372036854775807", "-9223372036854775808,0,9223372036854775807"),
    ];
    let models: Vec<(&str, Vec<u8>)> = TYPES
        .iter()
        .map(|(word, number)| {
            let model = Model::new().input("x", *number, &[-1]).output("y", *number, &[-1]);
            (*word, model.node("Identity", &["x"], &["y"], &[]).bytes())
        })
        .collect();
    let files: Vec<(&str, &[u8])> = models.iter().map(|(name, model)| (*name, model.as_slice())).collect();
    let mut lines = String::new();
    for (at, (word, numbers, _)) in ends.iter().enumerate() {
        writeln!(lines, "named {word}\ncontext {at}\ninput {at} 0 {word} 3 {numbers}\ncompute {at}").unwrap();
        writeln!(lines, "output {at} 0 {word} 3").unwrap();
    }
    for (backend, sandbox) in sandboxes() {
        let done = run(&sandbox, declaring(&sandbox, script(&sandbox, &lines, &[]), &files));
        for ((word, _, expected), answers) in ends.iter().zip(answers(&done).chunks(5)) {
            assert_eq!(answers[4], format!("ok {expected}"), "{word} on {backend}");
        }
    }
}

#[test]
fn the_sdk_takes_a_model_from_memory() {
    let half = Model::new().input("x", FLOAT16, &[-1]).node("Neg", &["x"], &["y"], &[]).output("y", FLOAT16, &[-1]);
    let lines = "sdk own f32 1,2.5\nsdk half f16 0.5,-65504\nsdk garbage f32 1\nsdk half f32 1\n";
    let files: [(&str, &[u8]); 3] = [("own", &own_model(1.0)), ("half", &half.bytes()), ("garbage", b"garbage")];
    let said = answers(&run(&SANDBOX, script(&SANDBOX, lines, &files)));
    assert_eq!(said, ["ok 2,3.5", "ok -0.5,65504", "InvalidEncoding", "InvalidArgument"]);
}

/// A model of one constant that nobody else has.
fn own_model(seed: f32) -> Vec<u8> {
    Model::new()
        .input("x", FLOAT, &[-1])
        .constant("own", FLOAT, &[1], &seed.to_le_bytes())
        .node("Add", &["x", "own"], &["y"], &[])
        .output("y", FLOAT, &[-1])
        .bytes()
}

#[test]
fn a_model_that_a_guest_brings_costs_the_same_whatever_the_host_has() {
    let model = own_model(0.25);
    let lines = "bytes own\ncontext 0\ninput 0 0 f32 2 1,2\ncompute 0\noutput 0 0 f32 2\nbytes own own\n";
    let request = || script(&SANDBOX, lines, &[("own", &model)]);
    let first = run(&SANDBOX, request());
    assert_eq!(answers(&first), ["ok", "ok", "ok", "ok", "ok 1.25,2.25", "InvalidArgument"]);
    assert_eq!(run(&SANDBOX, request()), first, "of the first task nothing is left");
    assert!(!SANDBOX.has_model(ModelHash::of(&model)), "others would see by the time that it is there");
    SANDBOX.load_model(ModelHash::of(&model), &model).unwrap();
    assert_eq!(run(&SANDBOX, request()), first, "the host has it, and the guest does not see that");

    let fuel =
        |times: usize| run(&SANDBOX, script(&SANDBOX, &"bytes own\n".repeat(times), &[("own", &model)])).fuel_used;
    let least = limits::NN_LOAD_FUEL_PER_BYTE * model.len() as u64;
    assert!(fuel(3) - fuel(2) > least, "the same again is not for nothing");

    let mut request = script(&SANDBOX, "bytes digits\n", &[("digits", tasks::data::DIGITS_MODEL)]);
    request.limits.fuel_max = run(&SANDBOX, request.clone()).fuel_used - 1_000_000;
    let done = run(&SANDBOX, request);
    assert_eq!((done.outcome, &done.stdout[..]), (Outcome::FuelOut, &b""[..]), "what is not paid for is not loaded");
}

#[test]
fn only_a_task_whose_results_are_exact_brings_models() {
    let model = own_model(0.5);
    let said = |sandbox: &Sandbox, change: fn(&mut Request)| {
        let mut request = script(sandbox, "bytes own\nas onnx gpu own\nas openvino cpu own\n", &[("own", &model)]);
        change(&mut request);
        answers(&run(sandbox, request)).join(" ")
    };
    assert_eq!(said(&SANDBOX, |_| {}), "ok UnsupportedOperation InvalidEncoding");
    let refused = "UnsupportedOperation UnsupportedOperation InvalidEncoding";
    // What is recorded is of another class.
    assert_eq!(said(&SANDBOX, |request| request.record = true), refused);
    for (_, sandbox) in sandboxes().iter().filter(|(backend, _)| *backend == "onnxruntime") {
        assert_eq!(said(sandbox, |_| {}), refused);
    }
}

/// Compiles a guest in C, if this machine's compiler can.
fn compiled(source: &str) -> Option<Vec<u8>> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
    let dir = tempfile::tempdir().unwrap();
    let clang = |source: &Path, target: &Path| {
        let mut clang = Command::new("clang");
        clang.args(["--target=wasm32-wasi", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
        clang.arg(sdk.join("include")).arg(source).arg("-o").arg(target).output()
    };
    // Any program: without it nothing is said about ours.
    let (hello, target) = (dir.path().join("hello.c"), dir.path().join("guest.wasm"));
    std::fs::write(&hello, "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n").unwrap();
    if !clang(&hello, &target).is_ok_and(|output| output.status.success()) {
        testing::skipped(
            "no clang for wasm32-wasi (Debian's packages clang, lld, wasi-libc, libclang-rt-dev-wasm32)",
            "QUORATE_REQUIRE_CLANG",
        );
        return None;
    }
    let output = clang(&sdk.join(source), &target).unwrap();
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(&target).unwrap())
}

#[test]
fn a_guest_in_c_says_what_the_one_in_rust_does() {
    let Some(wasm) = compiled("examples/digits.c") else { return };
    let (pixels, model) = (tasks::data::DIGITS_PIXELS, tasks::data::DIGITS_MODEL);
    let module = ModuleHash::of(&wasm);
    SANDBOX.load_module(module, &wasm).expect("a WASI program passes preflight");
    let request = Request {
        stdin: pixels.into(),
        limits: Limits { fuel_max: 1 << 40, ..Limits::default() },
        ..Request::new(module)
    };
    let expected = labels(pixels);
    let named = run(&SANDBOX, declaring(&SANDBOX, request.clone(), &[("digits", model)]));
    assert_eq!((named.outcome, &named.stdout), (Outcome::Ok, &expected), "{}", String::from_utf8_lossy(&named.stderr));
    let brought = run(
        &SANDBOX,
        Request {
            args: vec!["/in/digits.onnx".to_owned()],
            files: [("digits.onnx".to_owned(), Bytes::from_static(model))].into(),
            ..request.clone()
        },
    );
    assert_eq!(
        (brought.outcome, &brought.stdout),
        (Outcome::Ok, &expected),
        "{}",
        String::from_utf8_lossy(&brought.stderr)
    );
    assert_eq!(brought.inferences, named.inferences);
    let without = run(&SANDBOX, request);
    assert_eq!((without.outcome, &without.stderr[..]), (Outcome::Exit(1), &b"load_by_name: error 8\n"[..]));
}

#[test]
fn the_documented_bounds_are_those_of_the_host() {
    let documented = include_str!("../../docs/WASI-NN.md");
    let bounds = [
        ("NN_HANDLES_MAX", limits::NN_HANDLES_MAX as u64),
        ("NN_BROUGHT_BYTES_MAX", limits::NN_BROUGHT_BYTES_MAX),
        ("NN_TENSOR_BYTES_MAX", limits::NN_TENSOR_BYTES_MAX),
        ("NN_RANK_MAX", limits::NN_RANK_MAX.into()),
        ("NN_SHAPES_MAX", limits::NN_SHAPES_MAX as u64),
        ("NN_NAME_BYTES_MAX", limits::NN_NAME_BYTES_MAX.into()),
        ("NN_INFERENCES_MAX", limits::NN_INFERENCES_MAX as u64),
        ("NN_INFERENCE_FUEL", limits::NN_INFERENCE_FUEL),
        ("NN_SHAPE_FUEL_PER_BYTE", limits::NN_SHAPE_FUEL_PER_BYTE),
        ("NN_LOAD_FUEL_PER_BYTE", limits::NN_LOAD_FUEL_PER_BYTE),
        ("NN_LOAD_FUEL_PER_NODE", limits::NN_LOAD_FUEL_PER_NODE),
    ];
    for (name, value) in bounds {
        assert!(documented.contains(&format!("| `{name}` | {value} |")), "{name} is {value}");
    }
}
