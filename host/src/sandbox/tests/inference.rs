//! wasi-nn over the digits model: results, fuel, error numbers, the record.

use registry::{canon, id::BlobHash, id::ModelHash, job::Limits};

use super::*;
use crate::{
    limits,
    sandbox::{LoadError, TensorDecl},
};

const DIGITS: &[u8] = include_bytes!("../../../../data/digits/digits.onnx");

/// Infers once on `rows` rows of 64 pixels, all 8, and says the scores. Exits with the first error number plus ten times
/// the step that it came from.
fn digits(rows: u32, patch: &str) -> Request {
    let (data, scores) = (rows * 256, rows * 40);
    let check = |step: u32, call: &str| {
        format!(
            "(local.set $errno {call}) (if (local.get $errno) (then (call $exit (i32.add (i32.const {}) (local.get $errno)))))",
            step * 10
        )
    };
    let steps = [
        check(1, "(call $load_by_name (i32.const 0) (i32.const 6) (i32.const 64))"),
        check(2, "(call $init (i32.load (i32.const 64)) (i32.const 68))"),
        check(3, "(call $set_input (i32.load (i32.const 68)) (i32.const 0) (i32.const 16))"),
        check(4, "(call $compute (i32.load (i32.const 68)))"),
        check(5, &format!("(call $get_output (i32.load (i32.const 68)) (i32.const 0) (i32.const 1024) (i32.const {scores}) (i32.const 72))")),
    ]
    .join("\n");
    let bytes = wat::parse_str(format!(
        r#"(module
            (import "wasi_ephemeral_nn" "load_by_name" (func $load_by_name (param i32 i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "set_input" (func $set_input (param i32 i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
            (import "wasi_ephemeral_nn" "get_output" (func $get_output (param i32 i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (data (i32.const 0) "digits")
            (func (export "_start") (local $errno i32) (local $at i32)
                (i32.store (i32.const 16) (i32.const 48)) (i32.store (i32.const 20) (i32.const 2))
                (i32.store8 (i32.const 24) (i32.const 1))
                (i32.store (i32.const 28) (i32.const 8192)) (i32.store (i32.const 32) (i32.const {data}))
                (i32.store (i32.const 48) (i32.const {rows})) (i32.store (i32.const 52) (i32.const 64))
                (loop $fill
                    (f32.store (i32.add (i32.const 8192) (local.get $at)) (f32.const 8))
                    (br_if $fill (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 4))) (i32.const {data}))))
                {patch}
                {steps}
                (i32.store (i32.const 80) (i32.const 1024)) (i32.store (i32.const 84) (i32.load (i32.const 72)))
                (drop (call $fd_write (i32.const 1) (i32.const 80) (i32.const 1) (i32.const 88)))))"#
    ))
    .unwrap();
    let model = ModelHash::of(DIGITS);
    sandbox().load_model(model, DIGITS).unwrap();
    let mut request = request(&bytes);
    request.models.insert("digits".to_owned(), model);
    request
}

#[test]
fn a_model_says_what_it_takes_and_gives() {
    let info = sandbox().load_model(ModelHash::of(DIGITS), DIGITS).unwrap();
    let decl = |name: &str, wide| TensorDecl {
        name: name.to_owned(),
        element: Some("f32".to_owned()),
        dims: Some(vec![None, Some(wide)]),
    };
    assert_eq!((info.inputs, info.outputs), (vec![decl("pixels", 64)], vec![decl("scores", 10)]));
    assert!(sandbox().has_model(ModelHash::of(DIGITS)));
}

#[test]
fn an_inference_is_the_same_every_time_and_leaves_a_record() {
    let first = run(digits(1, ""));
    assert_eq!((first.outcome, first.stdout.len(), first.inferences.len()), (Outcome::Ok, 40, 1));
    assert_eq!(first.inferences[0].model, ModelHash::of(DIGITS));
    assert_eq!(first.nn_root, Some(BlobHash(canon::hash("quorate/nn/1", &first.inferences))));
    assert_eq!(run(digits(1, "")), first);
    let three = run(digits(3, ""));
    assert_eq!((three.outcome, three.stdout.len()), (Outcome::Ok, 120));
    // Charged for more work, not for more fixed cost.
    let fixed = limits::NN_INFERENCE_FUEL + limits::NN_SHAPE_FUEL_PER_BYTE * DIGITS.len() as u64;
    let macs = 64 * 256 + 256 * 10;
    assert!(first.fuel_used > fixed + macs, "{}", first.fuel_used);
    assert!(three.fuel_used - first.fuel_used >= 2 * macs, "{} {}", three.fuel_used, first.fuel_used);
}

#[test]
fn an_inference_that_cannot_be_paid_does_not_run() {
    let needs = run(digits(2, "")).fuel_used;
    let request = digits(2, "");
    let limits = Limits { fuel_max: needs - 20_000, ..request.limits };
    let finished = run(Request { limits, ..request });
    assert_eq!((finished.outcome, finished.inferences.len()), (Outcome::FuelOut, 0));
}

#[test]
fn wrong_tensors_and_names_are_error_numbers() {
    let cases = [
        ("(i32.store8 (i32.const 0) (i32.const 68))", 18),
        ("(i32.store8 (i32.const 0) (i32.const 255))", 11),
        ("(i32.store (i32.const 52) (i32.const 65))", 31),
        ("(i32.store (i32.const 20) (i32.const 9))", 37),
        ("(i32.store (i32.const 16) (i32.const -4))", 33),
        ("(i32.store (i32.const 28) (i32.const -4))", 33),
        ("(i32.store (i32.const 32) (i32.const -1))", 33),
        ("(i32.store8 (i32.const 24) (i32.const 4))", 31),
        ("(i32.store8 (i32.const 24) (i32.const 200))", 31),
        ("(i32.store (i32.const 48) (i32.const 0)) (i32.store (i32.const 32) (i32.const 0))", 31),
    ];
    for (patch, code) in cases {
        assert_eq!(run(digits(1, patch)).outcome, Outcome::Exit(code), "{patch}");
    }
}

#[test]
fn a_model_that_is_not_loaded_is_a_fault_and_a_file_that_is_none_is_refused() {
    let mut request = digits(1, "");
    let missing = ModelHash::of(b"missing");
    request.models.insert("digits".to_owned(), missing);
    assert_eq!(fault(request), HostFault::ModelMissing { name: "digits".to_owned(), model: missing });
    for bytes in [&b"not a model"[..], &DIGITS[..1000]] {
        assert!(matches!(sandbox().load_model(ModelHash::of(bytes), bytes), Err(LoadError::ModelRefused(_))));
    }
    assert!(matches!(sandbox().load_model(missing, DIGITS), Err(LoadError::Hash { .. })));
}
