//! Shapes written by hand, where the placement of charges, the counted stack and canonical NaNs have corners.

use std::sync::OnceLock;

use registry::job::Profile;

use super::differential::{Case, Differential, Seen};
use crate::limits;

const BOTH: [Profile; 2] = [Profile::Native, Profile::Portable];

fn differential() -> &'static Differential {
    static ENGINES: OnceLock<Differential> = OnceLock::new();
    ENGINES.get_or_init(|| Differential::new().unwrap())
}

/// A module with a memory, and an entry with four locals of each kind: `$i`, `$j`, `$a`, `$b` ...
fn module(declared: &str, body: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1 4) {declared}
            (func (export "_start") (local $i i32) (local $j i32) (local $l i64) (local $a f32) (local $b f32)
                (local $x f64) (local $y f64) (local $v v128) (local $w v128) {body}))"#
    )
}

/// Judges a shape in all slices and with two limits; with the larger one it ends as `seen`.
fn judge(profiles: &[Profile], seen: Seen, text: &str) {
    let wasm = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
    for profile in profiles {
        for slice_max in [1, 5, 1000, limits::FUEL_SLICE] {
            for (fuel_max, ends) in [(300_000, Some(seen)), (40, None)] {
                let case = Case { wasm: wasm.clone(), profile: *profile, fuel_max, slice_max };
                match differential().judge(&case) {
                    Ok(found) if ends.is_none_or(|ends| found == ends) => {}
                    Ok(found) => panic!("{case:?} ends as {found:?} instead of {seen:?}\n{text}"),
                    Err(error) => panic!("{case:?}: {error}\n{text}"),
                }
            }
        }
    }
}

fn ends(declared: &str, body: &str) {
    judge(&BOTH, Seen::Ok, &module(declared, body));
}

/// A loop that counts `$i` up to a bound around a body.
fn counted(times: u32, body: &str) -> String {
    format!(
        "(loop $again {body}
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const {times}))))"
    )
}

const NOTE: &str = "(i32.store (i32.and (local.get $j) (i32.const 0xfffc)) (local.get $i))";

#[test]
fn branches_to_every_level_of_nested_loops_and_blocks() {
    // Eight targets: three loops, three blocks, an `if` and the function. `$j` counts steps and ends it.
    for kind in ["br_if", "if_br", "br_table"] {
        for depth in 0..7 {
            let leave = match kind {
                "br_if" => format!("(br_if {depth} (i32.eqz (i32.rem_u (local.get $j) (i32.const 3))))"),
                "if_br" => format!(
                    "(if (i32.eqz (i32.rem_u (local.get $j) (i32.const 3))) (then (nop) (br {}))
                         (else (local.set $i (i32.add (local.get $i) (i32.const 7)))))",
                    depth + 1
                ),
                _ => format!("(br_table {depth} 0 {depth} 1 6 (i32.rem_u (local.get $j) (i32.const 5)))"),
            };
            ends(
                "",
                &format!(
                    "(block $all
                       (block (loop (block (loop (if (i32.const 1) (then (loop
                         (local.set $j (i32.add (local.get $j) (i32.const 1)))
                         {NOTE}
                         (br_if $all (i32.gt_u (local.get $j) (i32.const 50)))
                         {leave}
                         (local.set $i (i32.add (local.get $i) (i32.const 1)))
                         (br_if 0 (i32.and (local.get $i) (i32.const 1)))
                       )))
                       (local.set $i (i32.mul (local.get $i) (i32.const 3)))
                       (br_if 0 (i32.lt_u (local.get $j) (i32.const 40)))))
                       (br_if 0 (i32.lt_u (local.get $j) (i32.const 45)))))
                     {NOTE})"
                ),
            );
        }
    }
}

#[test]
fn loops_and_blocks_with_parameters_and_results() {
    // A loop that takes its state as operands cannot be left for fuel.
    ends(
        "",
        "(i32.const 0) (i32.const 1)
         (loop $again (param i32 i32) (result i32)
            (local.set $i) (local.set $j)
            (i32.store (i32.const 8) (local.get $i))
            (i32.add (local.get $i) (local.get $j)) (i32.add (local.get $j) (i32.const 1))
            (br_if $again (i32.lt_u (local.get $j) (i32.const 30)))
            (drop))
         (local.set $i) (i32.store (i32.const 0) (local.get $i))",
    );
    // Results of a loop that is left and entered again.
    ends(
        "(func $two (param $n i32) (result i64 f32) (local $k i64)
            (loop $again (result i64 f32)
                (local.set $k (i64.add (local.get $k) (i64.const 3)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $again (local.get $n))
                (local.get $k) (f32.const 2.5)))",
        "(call $two (i32.const 9)) (local.set $a) (local.set $l)
         (i64.store (i32.const 0) (local.get $l)) (f32.store (i32.const 8) (local.get $a))",
    );
    // Branches that carry values, out of a loop and within.
    ends(
        "",
        "(i32.store (i32.const 0) (block $out (result i32)
            (loop $again (result i32)
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $out (i32.const 77) (i32.gt_u (local.get $i) (i32.const 12)))
                (drop)
                (block $in (result i32)
                    (br_if $in (i32.const 5) (i32.and (local.get $i) (i32.const 1)))
                    (drop) (nop) (i32.const 6) (i32.const 1) (i32.add))
                (local.set $j)
                (i32.store (i32.const 4) (local.get $j))
                (br $again))))",
    );
    // A table whose targets carry a value.
    ends(
        "(func $pick (param i32) (result i32)
            (block $a (result i32) (block $b (result i32) (block $c (result i32)
                (br_table $a $b $c $b (i32.const 10) (local.get 0)))
                (return (i32.add (i32.const 1))))
                (i32.mul (i32.const 3)) (br $a))
            (i32.sub (i32.const 4)))",
        &counted(6, "(i32.store (i32.shl (local.get $i) (i32.const 2)) (call $pick (local.get $i)))"),
    );
}

#[test]
fn code_that_is_never_reached_costs_nothing() {
    for dead in ["(br 0)", "(return)", "(br_table 0 0 (local.get $i))"] {
        ends(
            "",
            &format!(
                "(block {NOTE} {dead}
                    (i32.store (i32.const 0) (i32.const 9)) (loop (br 0)) (if (then (nop)) (else (br 0))) (drop))
                 {NOTE}
                 (block (block (br_if 1 (local.get $i)) {dead} (block (nop)) (f32.add) (drop)) {NOTE}) {NOTE}"
            ),
        );
    }
    ends(
        "",
        "(if (i32.const 0) (then (unreachable) (i32.add) (drop)) (else (local.set $i (i32.const 3))))
         (if (i32.const 1) (then (local.set $j (i32.const 4)) (return)) (else (unreachable)))
         (unreachable)",
    );
    judge(&BOTH, Seen::Trap, &module("", "(i32.store (i32.const 0) (i32.const 7)) (unreachable)"));
}

#[test]
fn both_arms_of_an_if_and_an_if_without_else() {
    let body = "(if (i32.and (local.get $i) (i32.const 1))
                  (then (i32.store (i32.const 0) (i32.mul (local.get $i) (i32.const 5))) (nop))
                  (else (local.set $j (i32.add (local.get $j) (i32.const 1)))))
                (if (i32.and (local.get $i) (i32.const 2)) (then (i32.store8 (i32.const 5) (local.get $j))))
                (if (i32.and (local.get $i) (i32.const 4)) (then) (else (local.set $j (i32.const 2))))
                (i32.store (i32.const 8) (if (result i32) (i32.and (local.get $i) (i32.const 3))
                    (then (i32.const 4)) (else (i32.add (local.get $i) (i32.mul (local.get $i) (local.get $j))))))
                (if (i32.gt_u (local.get $i) (i32.const 20)) (then (br 2)) (else (nop)))
                (if (i32.eq (local.get $i) (i32.const 7))
                    (then (local.set $i (i32.const 9)) (br_if 1 (local.get $j)) (nop)) (else (br_if 0 (local.get $j))))";
    ends("", &format!("(block {})", counted(30, body)));
}

#[test]
fn calls_with_and_without_loops_and_recursion() {
    let functions = "(type $unary (func (param i32) (result i32)))
        (table 4 funcref) (elem (i32.const 0) $leaf $loops $fib)
        (func $leaf (type $unary) (i32.add (local.get 0) (i32.const 1)))
        (func $nothing)
        (func $loops (type $unary) (local $k i32)
            (loop (local.set $k (i32.add (local.get $k) (call $leaf (local.get 0)))) (call $nothing)
                (br_if 0 (i32.lt_u (local.get $k) (i32.const 40)))) (local.get $k))
        (func $fib (type $unary)
            (if (i32.lt_u (local.get 0) (i32.const 2)) (then (return (local.get 0))))
            (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))
        (func $even (type $unary)
            (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 1)) (else (call $odd (i32.sub (local.get 0) (i32.const 1))))))
        (func $odd (type $unary)
            (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 0))
                (else (call_indirect (type $unary) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))";
    ends(
        functions,
        &counted(
            9,
            "(i32.store (i32.mul (local.get $i) (i32.const 16)) (call $fib (local.get $i)))
             (i32.store offset=4 (i32.mul (local.get $i) (i32.const 16)) (call $even (local.get $i)))
             (i32.store offset=8 (i32.mul (local.get $i) (i32.const 16))
                (call_indirect (type $unary) (local.get $i) (i32.rem_u (local.get $i) (i32.const 3))))",
        ),
    );
    judge(&BOTH, Seen::Trap, &module(functions, "(drop (call_indirect (type $unary) (i32.const 1) (i32.const 3)))"));
    judge(&BOTH, Seen::Fuel, &module("", "(loop (br 0))"));
    judge(&BOTH, Seen::Fuel, &module("(func $f (loop (call $g))) (func $g (br 0))", "(loop (call $f) (br 0))"));
}

#[test]
fn recursion_without_end_is_out_of_fuel_or_out_of_stack() {
    judge(&BOTH, Seen::Stack, &module("(func $f (call $f))", "(call $f)"));
    judge(&BOTH, Seen::Fuel, &module("(func $f (loop (nop) (br 0)) (call $f))", "(call $f)"));
    // It spends its fuel before the stack.
    let slow = "(func $f (local $k i32)
        (loop (br_if 0 (i32.lt_u (local.tee $k (i32.add (local.get $k) (i32.const 1))) (i32.const 50)))) (call $f))";
    judge(&BOTH, Seen::Fuel, &module(slow, "(call $f)"));
}

#[test]
fn a_start_function_is_paid_too() {
    let start = "(global $g (mut i32) (i32.const 1)) (start $s)
        (func $s (loop (global.set $g (i32.mul (global.get $g) (i32.const 3)))
            (br_if 0 (i32.lt_u (global.get $g) (i32.const 1000)))))";
    ends(start, "(i32.store (i32.const 0) (global.get $g))");
    judge(&BOTH, Seen::Trap, &module("(start $s) (func $s (unreachable))", ""));
}

#[test]
fn segments_outside_their_memory_or_table_end_before_anything_runs() {
    judge(&BOTH, Seen::Trap, &module(r#"(data (i32.const 65534) "abc")"#, ""));
    judge(&BOTH, Seen::Trap, &module("(table 1 funcref) (elem (i32.const 1) $f) (func $f)", ""));
}

#[test]
fn bulk_operations_pay_by_the_byte_whatever_their_length() {
    let declared = r#"(data $d "some bytes of a segment") (table $t 40 60 funcref) (elem $e func $f $f $f) (func $f)"#;
    let lengths = ["(i32.const 0)", "(i32.const 5)", "(i32.const 200)", "(local.get $i)"];
    for length in lengths {
        ends(
            declared,
            &counted(
                12,
                &format!(
                    "(memory.fill (i32.const 16) (local.get $i) {length})
                     (memory.copy (i32.const 3000) (i32.const 10) {length})
                     (table.copy (i32.const 1) (i32.const 2) (i32.and {length} (i32.const 31)))
                     (table.fill (i32.const 3) (ref.func $f) (i32.and {length} (i32.const 31)))
                     (memory.init $d (i32.const 60) (i32.const 0) (i32.and {length} (i32.const 7)))
                     (table.init $e (i32.const 9) (i32.const 0) (i32.and {length} (i32.const 3)))
                     (i32.store (i32.const 0) (table.grow (ref.null func) {length}))
                     (i32.store (i32.const 4) (memory.grow (i32.and {length} (i32.const 1))))"
                ),
            ),
        );
    }
    for huge in ["(i32.const -1)", "(i32.const 0x7fffffff)", "(i32.sub (local.get $i) (i32.const 1))"] {
        judge(&BOTH, Seen::Fuel, &module("", &format!("(memory.fill (i32.const 0) (i32.const 1) {huge})")));
        judge(&BOTH, Seen::Fuel, &module("", &format!("(memory.copy (i32.const 0) (i32.const 1) {huge})")));
    }
    let beyond = "(memory.fill (i32.const 60000) (i32.const 1) (i32.const 10000))";
    judge(&BOTH, Seen::Trap, &module("", beyond));
    // Without a loop, in a function of its own that neither loops nor calls.
    ends(
        "(func $fill (param i32) (memory.fill (i32.const 0) (local.get 0) (local.get 0)))",
        &counted(5, "(call $fill (local.get $i)) (call $fill (i32.const 100))"),
    );
}

/// Quotients without a value, a signalling NaN with a payload among what they are made of.
const RAW: &str = "(local.set $a (f32.div (f32.const 0) (f32.const 0)))
    (local.set $b (f32.add (f32.const nan:0x200123) (f32.const 1)))
    (local.set $x (f64.sqrt (f64.const -1)))
    (local.set $y (f64.sub (f64.const nan:0x4000000000123) (local.get $x)))
    (local.set $v (f32x4.div (v128.const f32x4 0 1 nan:0x200123 -0) (v128.const f32x4 0 2 1 -0)))
    (local.set $w (f64x2.sqrt (v128.const f64x2 -1 4)))";

fn portable(declared: &str, body: &str) {
    let text = module(declared, &format!("{RAW} {body}"));
    let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let case = Case { wasm, profile: Profile::Portable, fuel_max: 300_000, slice_max: 50 };
    assert_eq!(differential().judge(&case), Ok(Seen::Ok), "{text}");
}

#[test]
fn a_nan_is_canonical_wherever_its_bits_are_seen() {
    let singles = [
        "(local.get $a)",
        "(f32.neg (local.get $a))",
        "(f32.abs (local.get $b))",
        "(f32.copysign (f32.const 1) (local.get $a))",
        "(f32.copysign (local.get $a) (f32.const -1))",
        "(f32.copysign (f32.const 1) (f32.neg (f32.mul (local.get $a) (local.get $b))))",
        "(f32.min (local.get $a) (local.get $b))",
        "(f32.max (f32.const 1) (f32.neg (local.get $a)))",
        "(f32.demote_f64 (local.get $y))",
        "(f32.demote_f64 (f64.neg (f64.promote_f32 (local.get $b))))",
        "(select (local.get $a) (f32.neg (local.get $b)) (i32.const 1))",
        "(select (result f32) (local.get $a) (local.get $b) (local.get $i))",
        "(local.tee $b (f32.add (local.get $a) (local.get $a)))",
        "(f32.add (local.tee $a (f32.sub (local.get $b) (local.get $a))) (local.get $a))",
        "(block (result f32) (f32.add (local.get $a) (local.get $b)))",
        "(block (result f32) (br_if 0 (f32.add (local.get $a) (local.get $b)) (i32.const 1)))",
        "(if (result f32) (i32.const 1) (then (f32.floor (local.get $a))) (else (f32.ceil (local.get $b))))",
        "(f32.reinterpret_i32 (i32.reinterpret_f32 (f32.nearest (local.get $a))))",
        "(f32x4.extract_lane 0 (local.get $v))",
        "(f32x4.extract_lane 2 (f32x4.neg (local.get $v)))",
        "(f32x4.extract_lane 1 (f32x4.splat (f32.trunc (local.get $a))))",
        "(f32x4.extract_lane 3 (f32x4.replace_lane 3 (local.get $v) (local.get $b)))",
        "(f32x4.extract_lane 0 (f32x4.demote_f64x2_zero (local.get $w)))",
        "(call $same (f32.mul (local.get $a) (local.get $b)))",
        "(global.get $g)",
    ];
    let declared = "(func $same (param f32) (result f32) (local.get 0))
        (global $g (mut f32) (f32.const nan:0x1)) (global $h (mut f64) (f64.const 0)) (global $k (mut v128) (v128.const i64x2 0 0))";
    for single in singles {
        for see in [
            format!("(f32.store (i32.const 0) {single})"),
            format!("(i32.store (i32.const 0) (i32.reinterpret_f32 {single}))"),
            format!("(i32.store (i32.const 0) (i32.shr_u (i32.reinterpret_f32 (f32.neg {single})) (i32.const 20)))"),
            format!("(global.set $g {single}) (f32.store (i32.const 0) (global.get $g))"),
            format!("(f64.store (i32.const 0) (f64.promote_f32 {single}))"),
            format!("(v128.store (i32.const 0) (f32x4.splat {single}))"),
            format!("(i32.store (i32.const 0) (f32.eq {single} {single}))"),
            format!("(f32.store (i32.const 0) (call $same {single}))"),
            format!(
                "(local.set $b (f32.add {single} (f32.const 1))) (local.set $a (local.get $b)) (f32.store (i32.const 0) (local.get $a))"
            ),
        ] {
            portable(declared, &see);
        }
    }
}

#[test]
fn a_wide_nan_is_canonical_wherever_its_bits_are_seen() {
    let wides = [
        "(local.get $v)",
        "(local.get $w)",
        "(f32x4.neg (local.get $v))",
        "(f64x2.abs (f64x2.add (local.get $w) (local.get $w)))",
        "(f32x4.min (local.get $v) (f32x4.neg (local.get $v)))",
        "(f32x4.pmin (local.get $v) (local.get $w))",
        "(f64x2.pmax (local.get $w) (f64x2.neg (local.get $w)))",
        "(f64x2.max (local.get $w) (local.get $v))",
        "(f64x2.promote_low_f32x4 (local.get $v))",
        "(f32x4.demote_f64x2_zero (f64x2.sub (local.get $w) (local.get $w)))",
        "(f64x2.mul (f32x4.div (local.get $v) (local.get $v)) (local.get $w))",
        "(f32x4.sqrt (f64x2.sqrt (local.get $w)))",
        "(i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 8 9 10 31 (f32x4.add (local.get $v) (local.get $v)) (local.get $w))",
        "(v128.not (f64x2.nearest (local.get $w)))",
        "(v128.bitselect (f32x4.ceil (local.get $v)) (local.get $w) (f64x2.floor (local.get $w)))",
        "(i32x4.add (local.get $v) (f32x4.trunc (local.get $v)))",
        "(i32x4.trunc_sat_f32x4_s (local.get $v))",
        "(f64x2.splat (f64.mul (local.get $x) (local.get $y)))",
        "(f64x2.replace_lane 1 (local.get $w) (f64.neg (local.get $y)))",
        "(select (f32x4.div (local.get $v) (local.get $v)) (local.get $w) (local.get $i))",
        "(local.tee $w (f32x4.add (local.get $v) (local.get $v)))",
    ];
    for wide in wides {
        for see in [
            format!("(v128.store (i32.const 0) {wide})"),
            format!("(i64.store (i32.const 0) (i64x2.extract_lane 1 {wide}))"),
            format!("(f64.store (i32.const 0) (f64x2.extract_lane 0 {wide}))"),
            format!("(i32.store (i32.const 0) (i32x4.bitmask {wide}))"),
            format!("(v128.store (i32.const 0) (f32x4.mul {wide} (local.get $v)))"),
            format!("(v128.store (i32.const 0) (f64x2.div (local.get $w) {wide}))"),
            format!(
                "(local.set $v (f32x4.add {wide} {wide})) (local.set $v (f64x2.add (local.get $v) (local.get $v))) (v128.store (i32.const 0) (local.get $v))"
            ),
        ] {
            portable("", &see);
        }
    }
}

#[test]
fn nans_that_a_loop_accumulates_are_canonical_at_its_end() {
    portable(
        "",
        &format!(
            "{}
             (f32.store (i32.const 0) (local.get $a)) (f64.store (i32.const 8) (f64.neg (local.get $y)))
             (v128.store (i32.const 16) (local.get $v))",
            counted(
                20,
                "(local.set $a (f32.sub (f32.mul (local.get $a) (f32.const -3)) (local.get $b)))
                 (local.set $b (f32.div (local.get $b) (local.get $a)))
                 (if (f32.ne (local.get $a) (local.get $b)) (then (local.set $y (f64.promote_f32 (local.get $b)))))
                 (local.set $x (f64.add (local.get $x) (local.get $y)))
                 (local.set $v (f32x4.mul (local.get $v) (f32x4.splat (local.get $a))))
                 (br_if 1 (f64.lt (local.get $x) (f64.const 0)))"
            )
            .replacen("(loop", "(block (loop", 1)
                + ")"
        ),
    );
}

#[test]
fn code_that_is_never_reached_takes_no_operands_of_blocks_around_it() {
    // Admission once took the sum below for what the unreachable `local.set` takes: it left a module that is not
    // valid, or lost sight of the sum, whose bits then showed.
    portable(
        "",
        "(f32.add (local.get $a) (local.get $b))
         (block (br_if 0 (i32.const 1)) (unreachable) (local.set $i))
         (i32.store (i32.const 8) (local.get $i))
         (local.set $b) (f32.store (i32.const 0) (local.get $b))",
    );
    portable(
        "",
        "(i32.const 0) (f32.neg (f32.add (local.get $a) (local.get $b)))
         (block (br_if 0 (i32.const 1)) (unreachable) (local.set $a))
         (f32.store)",
    );
}
