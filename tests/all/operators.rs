//! The ONNX project's operator test vectors on every backend: which pass is kept, and none of them may be lost.
//!
//! `tests/data/operators.tsv` has a line for each backend and vector: what came of it. A vector that passed fails the test
//! when it passes no more; the others are printed. `docs/operators.md` is that list as a table. Both are written by
//!
//! ```text
//! tools/install-models
//! QUORATE_WRITE_OPERATORS=1 cargo test -p quorate-tests --test all -- operators
//! ```
//!
//! which replaces what is said of those backends that run there, and leaves the others as they were.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use guest_sdk::abi::nn::TensorType;
use host::sandbox::{
    BackendOptions,
    direct::{DirectInputs, DirectModel},
    model_preflight,
};
use support::models::Models;

use crate::referee::REFEREE;

/// The suites of the package that have inputs and outputs of single models.
const SUITES: [&str; 3] = ["pytorch-operator", "pytorch-converted", "simple"];
/// How far a number may be off, as in ONNX's own runner: absolute, and as a part of what is expected.
const ABSOLUTE: f64 = 1e-7;
const RELATIVE: f64 = 1e-3;
/// What came of a vector that passes.
const PASS: &str = "pass";

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/operators.tsv");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operators.md");

/// What came of vectors, by backend and vector.
type Results = BTreeMap<(String, String), String>;

#[test]
fn vectors_that_passed_still_pass() {
    let Some(models) = Models::or_skip() else { return };
    let vectors = vectors(&models);
    assert!(vectors.len() > 100, "{} vectors", vectors.len());
    let mut found = Results::new();
    for (backend, options) in models.backends_and_referee() {
        for (name, dir) in &vectors {
            let result = run(&options, dir).err().unwrap_or_else(|| PASS.to_owned());
            found.insert((backend.to_owned(), name.clone()), result);
        }
    }
    if std::env::var_os("QUORATE_WRITE_OPERATORS").is_some() {
        write(&vectors, &found);
    }
    let kept = kept();
    for ((backend, vector), result) in found.iter().filter(|(_, result)| *result != PASS) {
        println!("{backend}: {vector}: {result}");
    }
    for (backend, (passed, of)) in counts(&found) {
        println!("{backend}: {passed} of {of} vectors pass");
    }
    let passes = |results: &Results| -> BTreeSet<(String, String)> {
        results.iter().filter(|(_, result)| *result == PASS).map(|(vector, _)| vector.clone()).collect()
    };
    let (before, now) = (passes(&kept), passes(&found));
    let lost: Vec<_> = before.difference(&now).filter(|vector| found.contains_key(*vector)).collect();
    assert!(lost.is_empty(), "vectors passed before and do not now: {lost:?}");
    let gained = now.difference(&before).count();
    if gained > 0 {
        println!("{gained} vectors pass that did not before: keep them by QUORATE_WRITE_OPERATORS=1");
    }
    assert!(counts(&found).values().all(|(passed, _)| *passed > 50), "a backend that passes next to nothing is broken");
}

/// Names and folders of all vectors.
fn vectors(models: &Models) -> Vec<(String, PathBuf)> {
    let mut vectors = Vec::new();
    for suite in SUITES {
        for entry in fs::read_dir(models.path("vectors").join(suite)).expect("the package has the suite") {
            let dir = entry.expect("a folder").path();
            let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if dir.join("model.onnx").is_file() {
                vectors.push((format!("{suite}/{}", name.trim_start_matches("test_")), dir));
            }
        }
    }
    vectors.sort();
    vectors
}

/// Runs all the data of a vector; what is wrong is the error.
fn run(options: &BackendOptions, dir: &Path) -> Result<(), String> {
    let model = fs::read(dir.join("model.onnx")).map_err(|error| error.to_string())?;
    for data in fs::read_dir(dir).map_err(|error| error.to_string())? {
        let data = data.map_err(|error| error.to_string())?.path();
        if !data.is_dir() {
            continue;
        }
        // Before anything is loaded: what wasi-nn cannot hand over is no question to a backend.
        let inputs = tensors(&data, "input")?;
        let expected = tensors(&data, "output")?;
        let loaded = match options {
            BackendOptions::Referee => DirectModel::load_in(&REFEREE, &model),
            options => DirectModel::load(options.clone(), None, &model),
        };
        let direct = loaded.map_err(|error| short("load", &error))?;
        let inputs = DirectInputs::new(inputs.into_iter().map(|tensor| (tensor.element, tensor.dims, tensor.data)));
        direct.open(&inputs).map_err(|error| short("open", &error))?;
        let outputs = direct.run(&inputs).map_err(|error| short("run", &error))?;
        if outputs.len() != expected.len() {
            return Err(format!("{} outputs, not {}", outputs.len(), expected.len()));
        }
        for (found, expected) in outputs.iter().zip(&expected) {
            compare(found, expected)?;
        }
    }
    Ok(())
}

/// One line, of the innermost cause.
fn short(stage: &str, error: &str) -> String {
    let line: String = error.replace(['\t', '\n', '|'], " ").chars().take(160).collect();
    format!("{stage}: {line}")
}

fn compare(found: &[u8], expected: &Tensor) -> Result<(), String> {
    let (found, wanted) = (numbers(expected.element, found), numbers(expected.element, &expected.data));
    if found.len() != wanted.len() {
        return Err(format!("{} elements, not {}", found.len(), wanted.len()));
    }
    let near = |(found, wanted): (&f64, &f64)| {
        found == wanted
            || (found.is_nan() && wanted.is_nan())
            || (found - wanted).abs() <= ABSOLUTE + RELATIVE * wanted.abs()
    };
    match found.iter().zip(&wanted).position(|pair| !near(pair)) {
        None => Ok(()),
        Some(at) => Err(format!("element {at} is {:e}, not {:e}", found[at], wanted[at])),
    }
}

fn numbers(element: TensorType, bytes: &[u8]) -> Vec<f64> {
    let each = |bytes: &[u8]| match element {
        TensorType::F32 => f32::from_le_bytes(bytes.try_into().expect("four bytes")).into(),
        TensorType::F64 => f64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        TensorType::I64 => i64::from_le_bytes(bytes.try_into().expect("eight bytes")) as f64,
        TensorType::I32 => i32::from_le_bytes(bytes.try_into().expect("four bytes")).into(),
        TensorType::U8 => bytes[0].into(),
        other => panic!("no vector has {other:?}"),
    };
    bytes.chunks_exact(element.element_bytes()).map(each).collect()
}

/// A tensor of a vector.
struct Tensor {
    element: TensorType,
    dims: Vec<u32>,
    data: Vec<u8>,
}

/// The tensors of a data set's files, in their order.
fn tensors(data: &Path, kind: &str) -> Result<Vec<Tensor>, String> {
    let file = |at: usize| data.join(format!("{kind}_{at}.pb"));
    (0..).map(file).take_while(|file| file.is_file()).map(|file| tensor(&fs::read(file).expect("a file"))).collect()
}

/// ONNX's `TensorProto`: 1 is its dimensions, 2 its type, 9 its elements; the vectors have no elements elsewhere but texts.
fn tensor(bytes: &[u8]) -> Result<Tensor, String> {
    let (mut dims, mut kind, mut data) = (Vec::new(), 0, Vec::new());
    let mut rest = bytes;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => dims.push(u32::try_from(varint(&mut rest)?).map_err(|error| error.to_string())?),
            (2, 0) => kind = varint(&mut rest)?,
            (_, 0) => drop(varint(&mut rest)?),
            (field, 2) => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|error| error.to_string())?;
                let (content, after) = rest.split_at_checked(length).ok_or("the file is cut")?;
                rest = after;
                match field {
                    1 => {
                        let mut packed = content;
                        while !packed.is_empty() {
                            dims.push(u32::try_from(varint(&mut packed)?).map_err(|error| error.to_string())?);
                        }
                    }
                    9 => data = content.to_vec(),
                    _ => {}
                }
            }
            (field, wire) => return Err(format!("not a tensor: field {field} of wire type {wire}")),
        }
    }
    let element = match kind {
        1 => TensorType::F32,
        2 => TensorType::U8,
        6 => TensorType::I32,
        7 => TensorType::I64,
        10 => TensorType::F16,
        11 => TensorType::F64,
        8 => return Err("wasi-nn has no texts".to_owned()),
        _ => return Err(format!("wasi-nn has no type for ONNX's {kind}")),
    };
    Ok(Tensor { element, dims, data })
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for (at, byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err("the file is cut".to_owned())
}

/// How many pass, of how many, by backend.
fn counts(results: &Results) -> BTreeMap<&str, (usize, usize)> {
    let mut counts = BTreeMap::<&str, (usize, usize)>::new();
    for ((backend, _), result) in results {
        let (passed, of) = counts.entry(backend).or_default();
        *passed += usize::from(result == PASS);
        *of += 1;
    }
    counts
}

/// The list in the repository.
fn kept() -> Results {
    let text = fs::read_to_string(KEPT).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.splitn(3, '\t').map(str::to_owned);
        Some(((fields.next()?, fields.next()?), fields.next()?))
    };
    text.lines().filter_map(line).collect()
}

/// Writes the list, with what was found in place of what was kept of the same backends, and the table.
fn write(vectors: &[(String, PathBuf)], found: &Results) {
    let ran: BTreeSet<&String> = found.keys().map(|(backend, _)| backend).collect();
    let mut all: Results = kept().into_iter().filter(|((backend, _), _)| !ran.contains(backend)).collect();
    all.extend(found.clone());
    let lines = all.iter().map(|((backend, vector), result)| format!("{backend}\t{vector}\t{result}\n"));
    fs::write(KEPT, lines.collect::<String>()).expect("the list is written");
    fs::write(TABLE, table(vectors, &all)).expect("the table is written");
}

/// The page: totals, a line for each operator, and what does not pass.
fn table(vectors: &[(String, PathBuf)], results: &Results) -> String {
    let counts = counts(results);
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "| backend | vectors that pass | of |\n|---|---|---|");
    for (backend, (passed, of)) in &counts {
        let _ = writeln!(page, "| {backend} | {passed} | {of} |");
    }
    let backends: Vec<&str> = counts.keys().copied().collect();
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    page.push_str("\n## By operator\n\nA vector counts for each operator that its model has.\n\n");
    page.push_str(&row([
        vec!["operator".to_owned(), "vectors".to_owned()],
        backends.iter().map(ToString::to_string).collect(),
    ]
    .concat()));
    page.push_str(&row(vec!["---".to_owned(); 2 + backends.len()]));
    for (operator, of) in operators(vectors) {
        let mut cells = vec![operator, of.len().to_string()];
        for backend in &backends {
            let passes = |vector: &&String| {
                results.get(&((*backend).to_owned(), (*vector).clone())).is_some_and(|result| result == PASS)
            };
            cells.push(of.iter().filter(passes).count().to_string());
        }
        page.push_str(&row(cells));
    }
    page.push_str("\n## What does not pass\n\n| backend | vector | why |\n|---|---|---|\n");
    for ((backend, vector), result) in results.iter().filter(|(_, result)| *result != PASS) {
        let _ = writeln!(page, "| {backend} | {vector} | {result} |");
    }
    page
}

const HEAD: &str = "# ONNX operators by backend

The operator test vectors of the `onnx` package, version 1.23.2, in the suites that it ships: `pytorch-operator`,
`pytorch-converted` and `simple`. A vector passes when the backend loads its model and gives the expected outputs within
1e-3 of them, as in ONNX's own runner. Texts and sequences have no type in wasi-nn; models that need them pass nowhere.

This page is written by

```
tools/install-models
QUORATE_WRITE_OPERATORS=1 cargo test -p quorate-tests --test all -- operators
```

and the same test fails when a vector that passes here passes no more.

";

/// The vectors of each operator.
fn operators(vectors: &[(String, PathBuf)]) -> BTreeMap<String, Vec<String>> {
    let mut operators = BTreeMap::<String, Vec<String>>::new();
    for (name, dir) in vectors {
        let model = fs::read(dir.join("model.onnx")).expect("a model");
        let of = model_preflight(&model).map(|facts| facts.operators).unwrap_or_default();
        let found: BTreeSet<String> = of.into_values().flat_map(BTreeMap::into_keys).collect();
        for operator in found {
            operators.entry(operator).or_default().push(name.clone());
        }
    }
    operators
}
