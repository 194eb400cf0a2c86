//! Every kind of bad model and bad use of one, each with its outcome, as one table: on each backend, in threads and in
//! processes, for models that the job declares and for those that the guest brings.
//!
//! An outcome is the word of a refusal before anything runs (`refused(model_malformed)`), or what the guest is told, call by
//! call, by the task `nn-script`: `ok`, numbers, or the name of an error number. What a guest does with pointers and handles
//! that are wrong is in the task `bad-nn`.

use std::collections::BTreeSet;

use host::sandbox::{
    BackendOptions, Response, Sandbox,
    onnx::{Attribute, FLOAT, INT64, Model, f32s, i64s, tensor},
};
use registry::{id::ModelHash, receipt::Outcome};
use support::models::Models;

use crate::{
    nn::{answers, declaring, run, script},
    sandbox::{SANDBOX, jailed},
};

/// What has to be in the table.
const KINDS: [&str; 9] = [
    "corrupt model",
    "unknown operator",
    "huge constant",
    "billion elements",
    "wrong tensor",
    "output buffer too small",
    "context after an error",
    "too many",
    "not what its hash says",
];

/// The calls that follow once the model is graph 0.
struct Row {
    kind: &'static str,
    what: &'static str,
    model: Vec<u8>,
    hash: ModelHash,
    calls: String,
    /// Where the job declares the model: on tract and on ONNX Runtime.
    declared: [&'static str; 2],
    /// Where the guest brings it, on tract; ONNX Runtime takes none from a guest.
    brought: &'static str,
}

fn row(kind: &'static str, what: &'static str, model: &[u8], calls: impl Into<String>, outcome: &'static str) -> Row {
    Row {
        kind,
        what,
        model: model.to_vec(),
        hash: ModelHash::of(model),
        calls: calls.into(),
        declared: [outcome; 2],
        brought: outcome,
    }
}

impl Row {
    /// With another outcome where the guest brings the model.
    fn brought(self, brought: &'static str) -> Self {
        Self { brought, ..self }
    }

    /// With another outcome on ONNX Runtime.
    fn onnxruntime(self, outcome: &'static str) -> Self {
        Self { declared: [self.declared[0], outcome], ..self }
    }
}

/// A model with an input `x` of four numbers, whose output `y` is for the operators of each row to make.
fn base() -> Model {
    Model::new().input("x", FLOAT, &[-1, 1]).output("y", FLOAT, &[]).constant("one", FLOAT, &[1], &f32s(&[1.0]))
}

fn shape(model: Model, dims: &[i64]) -> Model {
    model.constant("shape", INT64, &[dims.len() as i64], &i64s(dims))
}

/// One inference on four numbers.
const INFER: &str = "context 0\ninput 0 0 f32 4x1 1,2,3,4\ncompute 0\noutput 0 0 f32 4\n";

fn corrupt() -> Vec<Row> {
    let digits = tasks::data::DIGITS_MODEL;
    let twice = base().message().field(7, base().graph()).0;
    let elsewhere = base().with(5, tensor("c", FLOAT, &[1], b"").number(14, 1));
    let bad = |what, model: &[u8], refusal, errno| row("corrupt model", what, model, INFER, refusal).brought(errno);
    vec![
        bad("no bytes", b"", "refused(model_malformed)", "InvalidEncoding"),
        bad("text", b"not a model at all", "refused(model_malformed)", "InvalidEncoding"),
        bad("cut short", &digits[..1000], "refused(model_malformed)", "InvalidEncoding"),
        bad("a task", tasks::ECHO.wasm, "refused(model_malformed)", "InvalidEncoding"),
        bad("two graphs", &twice, "refused(model_malformed)", "InvalidEncoding"),
        bad("weights elsewhere", &elsewhere.bytes(), "refused(model_external_data)", "UnsupportedOperation"),
        bad(
            "functions of its own",
            &base().message().field(25, b"").0,
            "refused(model_functions)",
            "UnsupportedOperation",
        ),
        bad(
            "an operator without its input",
            &base().node("Add", &["x", "nobody"], &["y"], &[]).bytes(),
            "refused(model)",
            "RuntimeError",
        ),
    ]
}

fn unknown() -> Vec<Row> {
    let of = |what, model: Model, errno| {
        row("unknown operator", what, &model.bytes(), INFER, "refused(model)").brought(errno)
    };
    vec![
        of("nobody has it", base().node("Frobnicate", &["x"], &["y"], &[]), "UnsupportedOperation"),
        of("of another's domain", base().node_of("acme", "Relu", &["x"], &["y"], &[]), "UnsupportedOperation"),
        row(
            "unknown operator",
            "one that draws random numbers",
            &base().node("RandomNormalLike", &["x"], &["y"], &[]).bytes(),
            INFER,
            "refused(model_random)",
        )
        .brought("UnsupportedOperation"),
    ]
}

fn huge() -> Vec<Row> {
    let constant = |dims: &[i64]| base().constant("c", FLOAT, dims, &[0; 4]).node("Add", &["x", "one"], &["y"], &[]);
    let line = vec![0u8; 400_000];
    let most = |model: Model| {
        model.node("ReduceMax", &["big"], &["most"], &[("keepdims", Attribute::Int(0))]).node(
            "Add",
            &["x", "most"],
            &["y"],
            &[],
        )
    };
    let steps = base().constant("zero", FLOAT, &[], &f32s(&[0.0])).constant("step", FLOAT, &[], &f32s(&[1e-12]));
    let crossed = base().constant("row", FLOAT, &[1, 100_000], &line).constant("column", FLOAT, &[100_000, 1], &line);
    let length = |what, dims: &[i64]| {
        row("huge constant", what, &constant(dims).bytes(), INFER, "refused(model_constant_length)")
            .brought("InvalidEncoding")
    };
    vec![
        length("a trillion in the shape, one in the file", &[1 << 40]),
        length("a product that overflows", &[1 << 40, 1 << 40]),
        row(
            "huge constant",
            "a million numbers in an attribute",
            &base().node("Cast", &["x"], &["y"], &[("to", Attribute::Ints(vec![0; (1 << 20) + 1]))]).bytes(),
            INFER,
            "refused(model_too_large)",
        )
        .brought("TooLarge"),
        row(
            "huge constant",
            "made of a shape",
            &most(shape(base(), &[1 << 33]).node("ConstantOfShape", &["shape"], &["big"], &[])).bytes(),
            INFER,
            "refused(model)",
        )
        .onnxruntime("ok ok RuntimeError InvalidArgument")
        .brought("TooLarge"),
        row(
            "huge constant",
            "a range of tiny steps",
            &most(steps.node("Range", &["zero", "one", "step"], &["big"], &[])).bytes(),
            INFER,
            "ok ok RuntimeError InvalidArgument",
        )
        .onnxruntime("refused(model)"),
        row(
            "huge constant",
            "a row added to a column",
            &most(crossed.node("Add", &["row", "column"], &["big"], &[])).bytes(),
            INFER,
            "ok ok TooLarge InvalidArgument",
        )
        .onnxruntime("ok ok RuntimeError InvalidArgument"),
    ]
}

fn billions() -> Vec<Row> {
    let declared = Model::new().input("x", FLOAT, &[1 << 15, 1 << 15]).node("Neg", &["x"], &["y"], &[]).output(
        "y",
        FLOAT,
        &[1 << 15, 1 << 15],
    );
    let expanded = shape(base(), &[1, 1 << 30]).node("Expand", &["x", "shape"], &["y"], &[]);
    let of = |what, model: Model, calls: &str, outcome| row("billion elements", what, &model.bytes(), calls, outcome);
    vec![
        of("declared", declared, INFER, "refused(model_too_large)").brought("TooLarge"),
        of("made of the input", expanded, INFER, "ok ok TooLarge InvalidArgument")
            .onnxruntime("ok ok RuntimeError InvalidArgument"),
        of(
            "said of a tensor of four",
            base().node("Neg", &["x"], &["y"], &[]),
            "context 0\ninput 0 0 f32 1073741824x1 1,2,3,4\ninput 0 0 f32 4294967295x4294967295 1\ncompute 0\n",
            "ok InvalidArgument InvalidArgument InvalidArgument",
        ),
    ]
}

fn tensors() -> Vec<Row> {
    let model = Model::new()
        .input("x", FLOAT, &[2, -1])
        .input("z", INT64, &[1])
        .node("Cast", &["z"], &["f"], &[("to", Attribute::Int(FLOAT.into()))])
        .node("Add", &["x", "f"], &["y"], &[])
        .output("y", FLOAT, &[2, -1])
        .bytes();
    let wrong = [
        "input 0 0 f32 3x1 1,2,3",
        "input 0 0 f32 2 1,2",
        "input 0 0 f32 2x1x1 1,2",
        "input 0 0 f32 2x0 zeros:0",
        "input 0 0 f32 2x1 1",
        "input 0 0 f32 2x1 1,2,3",
        "input 0 0 f16 2x1 1,2",
        "input 0 0 f64 2x1 1,2",
        "input 0 0 u8 2x1 1,2",
        "input 0 0 i32 2x1 1,2",
        "input 0 1 f32 1 1",
        "input 0 1 i64 2 1,2",
        "input 0 2 f32 1 1",
    ];
    let calls = format!(
        "context 0\n{}\ninput 0 0 f32 1x1x1x1x1x1x1x1x2 1,2\ncompute 0\noutput 0 0 f32 2\n\
         input 0 0 f32 2x1 1,2\ncompute 0\ninput 0 1 i64 1 3\ncompute 0\noutput 0 0 f32 2\noutput 0 1 f32 2\n",
        wrong.join("\n")
    );
    let missing = row(
        "wrong tensor",
        "one after the other, then right ones",
        &model,
        calls,
        "ok InvalidArgument InvalidArgument InvalidArgument InvalidArgument InvalidArgument InvalidArgument \
         InvalidArgument InvalidArgument InvalidArgument InvalidArgument InvalidArgument InvalidArgument \
         InvalidArgument TooLarge InvalidArgument InvalidArgument ok InvalidArgument ok ok ok 4,5 InvalidArgument",
    );
    let fixed = base().constant("w", FLOAT, &[3, 1], &f32s(&[1.0; 3])).node("MatMul", &["x", "w"], &["y"], &[]);
    vec![
        missing,
        row("wrong tensor", "one that no operator takes", &fixed.bytes(), INFER, "ok ok RuntimeError InvalidArgument")
            // It looks at shapes as it loads a model.
            .onnxruntime("refused(model)"),
    ]
}

fn small() -> Vec<Row> {
    let model = base().node("Neg", &["x"], &["y"], &[]).bytes();
    let calls = format!("{INFER}output 0 0 f32 3\noutput 0 0 f32 0\noutput 0 0 f32 5\noutput 0 1 f32 4\n");
    let outcome = "ok ok ok ok -1,-2,-3,-4 TooLarge TooLarge ok -1,-2,-3,-4 InvalidArgument";
    vec![row("output buffer too small", "by one, and by all", &model, calls, outcome)]
}

fn again() -> Vec<Row> {
    // Three numbers fit, and no others.
    let model = shape(base(), &[3]).node("Reshape", &["x", "shape"], &["y"], &[]).bytes();
    let three = "input 0 0 f32 3x1 1,2,3\ncompute 0\noutput 0 0 f32 3\n";
    let four = "input 0 0 f32 4x1 1,2,3,4\ncompute 0\noutput 0 0 f32 3\n";
    let calls = format!("context 0\noutput 0 0 f32 3\n{four}{three}{four}{three}");
    let outcome = "ok InvalidArgument ok RuntimeError InvalidArgument ok ok ok 1,2,3 \
                   ok RuntimeError InvalidArgument ok ok ok 1,2,3";
    let missing = "context 0\ncompute 0\ninput 0 0 f32 3x1 1,2,3\ninput 0 0 f32 3x1 1\ncompute 0\noutput 0 0 f32 3\n";
    vec![
        // An inference that failed leaves no outputs, nor those of the one before.
        row("context after an error", "of the model", &model, calls, outcome),
        row(
            "context after an error",
            "of the guest",
            &model,
            missing,
            "ok InvalidArgument ok InvalidArgument ok ok 1,2,3",
        ),
    ]
}

fn many() -> Vec<Row> {
    let model = base().node("Neg", &["x"], &["y"], &[]).bytes();
    let shapes: String = (1..=20).map(|rows| format!("input 0 0 f32 {rows}x1 zeros:{rows}\ncompute 0\n")).collect();
    let shapes_outcome: &'static str =
        Box::leak(format!("ok{}{}", " ok ok".repeat(16), " ok TooLarge".repeat(4)).into_boxed_str());
    vec![
        row(
            "too many",
            "graphs by name",
            &model,
            "repeat 10000 named model\nrepeat 10000 context 0\nrepeat 10000 context 63\n",
            "9937 TooLarge, 63 ok 9936 TooLarge, 64 ok 10000 TooLarge",
        )
        .brought("10000 NotFound 9936 TooLarge, 64 ok exit(1)"),
        row("too many", "graphs in memory", &model, "repeat 10000 bytes model\n", "9937 TooLarge, 63 ok")
            .onnxruntime("10000 UnsupportedOperation")
            .brought("9937 TooLarge, 63 ok"),
        row(
            "too many",
            "files that do not load",
            &model,
            "repeat 10000 bytes garbage\nbytes model\n",
            "64 InvalidEncoding, 9936 TooLarge TooLarge",
        )
        .onnxruntime("10000 UnsupportedOperation UnsupportedOperation")
        .brought("63 InvalidEncoding, 9937 TooLarge TooLarge"),
        row("too many", "shapes", &model, format!("context 0\n{shapes}"), shapes_outcome),
        row("too many", "bytes in memory", &model, "repeat 3 bytes large\n", "2 InvalidEncoding, 1 TooLarge")
            .onnxruntime("3 UnsupportedOperation"),
    ]
}

fn mistaken() -> Vec<Row> {
    let model = base().node("Neg", &["x"], &["y"], &[]).bytes();
    let other = base().node("Abs", &["x"], &["y"], &[]).bytes();
    let of_another = row("not what its hash says", "a good one", &model, INFER, "refused(hash)");
    let garbage = row("not what its hash says", "no model", b"garbage", INFER, "refused(hash)");
    [of_another, garbage].map(|row| Row { hash: ModelHash::of(&other), brought: "-", ..row }).into()
}

/// The sandboxes that the table runs in, each with the column that it looks into.
fn sandboxes() -> Vec<(&'static str, usize, Sandbox)> {
    let process = |backend| Sandbox::new(jailed(backend)).expect("it starts");
    let mut sandboxes =
        vec![("tract in a thread", 0, SANDBOX.clone()), ("tract in a process", 0, process(BackendOptions::Tract))];
    let further = Models::or_skip().map(|models| models.backends()).unwrap_or_default();
    let further = further.into_iter().filter(|(_, backend)| *backend != BackendOptions::Tract);
    sandboxes.extend(further.map(|(_, backend)| ("ONNX Runtime in a process", 1, process(backend))));
    sandboxes
}

/// Files of the guest.
fn files(row: &Row) -> [(&str, &[u8]); 3] {
    static LARGE: [u8; 24 << 20] = [0xff; 24 << 20];
    [("model", &row.model), ("garbage", b"garbage"), ("large", &LARGE)]
}

/// Answers after the first, which opened the model.
fn told(sandbox: &Sandbox, row: &Row, open: &str, models: &[(&str, &[u8])]) -> String {
    let request = script(sandbox, &format!("{open} model\n{}", row.calls), &files(row));
    let limits = request.limits;
    let done = match sandbox.run(declaring(sandbox, request, models)) {
        Response::Done(done) => done,
        Response::Fault(fault) => return format!("fault({})", fault.word()),
    };
    assert!(done.fuel_used <= limits.fuel_max && done.memory_peak_bytes <= limits.memory_bytes_max, "{done:?}");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut lines: Vec<&str> = said.lines().collect();
    let end = match done.outcome {
        Outcome::Ok => None,
        // The script goes on with what was not opened.
        Outcome::Exit(1) if lines.len() == 1 => None,
        other => Some(other.to_string()),
    };
    lines.extend(end.as_deref());
    let first = lines.remove(0);
    if first == "ok" { lines.join(" ") } else { first.to_owned() }
}

fn declared(sandbox: &Sandbox, row: &Row) -> String {
    if let Err(error) = sandbox.load_model(row.hash, &row.model) {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 500, "{}: {text}", row.what);
        return format!("refused({})", error.word());
    }
    told(sandbox, row, "named", &[("model", &row.model)])
}

#[test]
fn each_kind_of_bad_model_has_its_outcome_and_the_next_task_runs() {
    let rows = [corrupt(), unknown(), huge(), billions(), tensors(), small(), again(), many(), mistaken()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    let kinds: BTreeSet<&str> = rows.iter().map(|row| row.kind).collect();
    assert_eq!(kinds, KINDS.into(), "each kind has its rows");
    let mut wrong = Vec::new();
    for (name, column, sandbox) in sandboxes() {
        for row in &rows {
            let mut hold = |how: &str, found: String, expected: &str| {
                if found != expected {
                    wrong.push(format!("{}, {}, {how}, {name}:\n  {found}\nnot\n  {expected}", row.kind, row.what));
                }
            };
            hold("declared", declared(&sandbox, row), row.declared[column]);
            let brought = if column == 0 { row.brought } else { "UnsupportedOperation" };
            if row.brought != "-" {
                hold("brought", told(&sandbox, row, "bytes", &[]), brought);
            }
        }
        let good = base().node("Neg", &["x"], &["y"], &[]).bytes();
        let request = declaring(&sandbox, script(&sandbox, &format!("named model\n{INFER}"), &[]), &[("model", &good)]);
        assert_eq!(answers(&run(&sandbox, request)), ["ok", "ok", "ok", "ok", "ok -1,-2,-3,-4"], "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What it costs and gives is the same in a thread and in a process.
#[test]
fn walls_make_no_difference_to_a_guest_with_bad_models() {
    let sandboxes = sandboxes();
    for row in [again(), many(), corrupt()].iter().flatten() {
        let [thread, process] = [&sandboxes[0], &sandboxes[1]]
            .map(|(_, _, sandbox)| run(sandbox, script(sandbox, &format!("bytes model\n{}", row.calls), &files(row))));
        assert!(thread == process, "{}: {thread:?} and {process:?}", row.what);
    }
}
