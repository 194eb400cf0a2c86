//! What is no module here, and what it is told.

use super::*;
use crate::sandbox::{LoadError, Refusal, preflight};

#[test]
fn each_bad_module_is_refused_by_its_rule() {
    let start = r#"(func (export "_start"))"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let cases = [
        (format!("(module {memory})"), "export_missing"),
        (format!("(module {start})"), "export_missing"),
        (format!("(module (memory 1) {start})"), "export_missing"),
        (format!(r#"(module {memory} (func (export "_start") (param i32)))"#), "export_type"),
        (format!(r#"(module {memory} (global (export "_start") i32 (i32.const 0)))"#), "export_type"),
        (format!(r#"(module {start} (memory 1) (func (export "memory")))"#), "export_type"),
        (format!(r#"(module (import "env" "x" (func)) {memory} {start})"#), "import_unknown"),
        (
            format!(r#"(module (import "wasi_unstable" "fd_close" (func (param i32) (result i32))) {memory} {start})"#),
            "import_unknown",
        ),
        (
            format!(
                r#"(module (import "wasi_snapshot_preview1" "fd_close" (func (param i64) (result i32))) {memory} {start})"#
            ),
            "import_type",
        ),
        (format!(r#"(module (import "env" "memory" (memory 1)) {start})"#), "import_kind"),
        (format!(r#"(module (memory (export "memory") i64 1) {start})"#), "memory"),
        (format!(r#"(module (memory (export "memory") 1 2 shared) {start})"#), "memory"),
        (format!(r#"(module {memory} (memory 1) {start})"#), "too_large"),
        (format!(r#"(module {memory} (table 1000000 funcref) {start})"#), "too_large"),
        (format!(r#"(module {memory} {start} (func (local {}) ))"#, "i64 ".repeat(10_001)), "too_large"),
        (format!(r#"(module {memory} {start} (tag))"#), "invalid"),
        (format!(r#"(module {memory} {start} (type (struct)))"#), "invalid"),
        (format!(r#"(module {memory} {start} (func (param externref)))"#), "invalid"),
        (
            format!(
                r#"(module {memory} {start} (func (drop (f32x4.relaxed_madd (v128.const i64x2 0 0) (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))"#
            ),
            "invalid",
        ),
        (format!(r#"(module {memory} {start} (func (return_call 0)))"#), "invalid"),
        ("(component)".to_owned(), "component"),
    ];
    for (text, word) in cases {
        let refusal = preflight(&wat::parse_str(&text).unwrap()).unwrap_err();
        assert_eq!(refusal.word(), word, "{text:.200}: {refusal}");
        assert!(!refusal.to_string().contains('\n') && refusal.to_string().len() < 400, "{refusal}");
    }
}

#[test]
fn what_is_not_wasm_is_told_apart_from_text() {
    assert_eq!(preflight(b"").unwrap_err(), Refusal::NotWasm);
    assert_eq!(preflight(b"\x7fELF").unwrap_err(), Refusal::NotWasm);
    assert_eq!(preflight(b"  (module)").unwrap_err(), Refusal::Text);
    let good = module("", "");
    assert!(preflight(&good).is_ok());
    // Names of functions come last and may be missing; a cut anywhere before them is noticed.
    let whole = good.windows(4).position(|window| window == b"name").unwrap() - 3;
    for cut in 0..whole {
        assert!(preflight(&good[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn too_many_functions_are_refused_before_they_are_compiled() {
    let functions = "(func)".repeat(200_001);
    let bomb = wat::parse_str(format!(r#"(module (memory (export "memory") 1) (func (export "_start")) {functions})"#))
        .unwrap();
    let refusal = preflight(&bomb).unwrap_err().to_string();
    assert!(refusal.contains("number of functions is 200002, over the bound of 200000"), "{refusal}");
}

#[test]
fn changed_bytes_never_panic_and_never_pass_for_another_module() {
    let good = module("", "(call $say (i32.const 1) (i32.const 0) (i32.const 1))");
    for at in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] ^= flip;
            let _ = preflight(&changed);
        }
    }
    let wrong = ModuleHash::of(b"other");
    assert!(matches!(sandbox().load_module(wrong, &good), Err(LoadError::Hash { .. })));
    assert!(!sandbox().has_module(wrong));
}
