//! What does an inference cost beside the model's own work?
//!
//! - **Calls.** `set_input`, `compute` and `get_output` from a guest, against the same backend called from Rust with the same
//!   input; in a thread of this process, and in a jailed process of its own. What a task costs beside its inferences is taken
//!   out: the cost of a call is the difference between a task of twice as many inferences and one of as many, each run where
//!   such a task has just ended.
//! - **Backends.** tract against ONNX Runtime with one thread.
//! - **Loads.** From a file on disk to the first answer, step by step; and what of that the second task pays.
//! - **Batches.** An inference of many rows against as many of one row, and whether each row has the same bits.
//!
//! All times are medians; alternatives of one line are interleaved. Models are those that `tools/install-models` installs; without
//! them the digits alone are measured, and that is said.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, fmt::Write, process::ExitCode, time::Duration};

use benches::{interleaved, measured, quantile, row, table, us};
use guest_sdk::abi::nn::TensorType;
use host::{
    clock::Stopwatch,
    sandbox::{
        BackendOptions, Isolation, Request, Response, Sandbox, SandboxOptions,
        direct::{DirectInputs, DirectModel},
        onnx::{FLOAT, Model},
    },
};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
};
use support::models::Models;

type Failure = Box<dyn Error>;

/// One tensor: type, dimensions, elements.
type Plain = (TensorType, Vec<u32>, Vec<u8>);

/// A model, and how to make inputs of so many rows for it.
struct Subject {
    name: &'static str,
    file: Vec<u8>,
    inputs: fn(u32) -> Vec<Plain>,
    /// Whether its first axis is open.
    batches: bool,
}

/// Numbers between 0 and 1 that are the same every time.
fn noise(count: u32) -> impl Iterator<Item = f32> {
    let mut state = 7u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    })
}

fn floats(dims: &[u32], from: f32, to: f32) -> Plain {
    let values = noise(dims.iter().product()).map(|part| from + part * (to - from));
    (TensorType::F32, dims.to_vec(), values.flat_map(f32::to_le_bytes).collect())
}

fn subjects(models: Option<&Models>) -> Vec<Subject> {
    let tiny = Model::new().input("x", FLOAT, &[-1, 4]).node("Relu", &["x"], &["y"], &[]);
    let mut subjects = vec![
        Subject {
            name: "tiny",
            file: tiny.output("y", FLOAT, &[-1, 4]).bytes(),
            inputs: |rows| vec![floats(&[rows, 4], -1.0, 1.0)],
            batches: true,
        },
        Subject {
            name: "digits",
            file: tasks::data::DIGITS_MODEL.to_vec(),
            inputs: |rows| vec![floats(&[rows, 64], 0.0, 16.0)],
            batches: true,
        },
    ];
    let Some(models) = models else {
        println!("real models are not installed: run tools/install-models for the lines that are missing\n");
        return subjects;
    };
    subjects.push(Subject {
        name: "silero",
        file: models.read("silero.onnx"),
        inputs: |_| vec![floats(&[1, 576], -0.1, 0.1), floats(&[2, 1, 128], -0.5, 0.5)],
        batches: false,
    });
    subjects.push(Subject {
        name: "orient",
        file: models.read("orient.onnx"),
        inputs: |rows| vec![floats(&[rows, 3, 48, 192], -1.0, 1.0)],
        batches: true,
    });
    subjects.push(Subject {
        name: "magika",
        file: models.read("magika.onnx"),
        inputs: |rows| {
            let bytes = noise(rows * 2048).flat_map(|part| ((part * 257.0) as i32).to_le_bytes());
            vec![(TensorType::I32, vec![rows, 2048], bytes.collect())]
        },
        batches: true,
    });
    subjects
}

/// What runs here, by name.
fn backends(models: Option<&Models>) -> Vec<(&'static str, BackendOptions)> {
    models.map_or_else(|| vec![("tract", BackendOptions::Tract)], Models::backends)
}

/// A model that is called directly, ready for inputs.
struct Direct {
    model: DirectModel,
    inputs: DirectInputs,
}

impl Direct {
    fn new(backend: &BackendOptions, file: &[u8], inputs: Vec<Plain>) -> Result<Self, Failure> {
        let (model, inputs) = (DirectModel::load(backend.clone(), None, file)?, DirectInputs::new(inputs));
        model.open(&inputs)?;
        Ok(Self { model, inputs })
    }

    /// None, and a line about it, where the backend cannot run the model.
    fn or_say(name: &str, backend: &BackendOptions, file: &[u8], inputs: Vec<Plain>) -> Option<Self> {
        Self::new(backend, file, inputs)
            .inspect_err(|error| println!("{name} on {backend:?} is left out: {error}"))
            .ok()
    }

    fn run(&self) -> Vec<Vec<u8>> {
        self.model.run(&self.inputs).expect("it ran before")
    }

    fn time(&self, times: u32) -> Duration {
        let watch = Stopwatch::start();
        (0..times).for_each(|_| drop(self.run()));
        watch.elapsed()
    }
}

/// So many runs that they take some milliseconds.
fn times_of(direct: &Direct) -> u32 {
    let one = (direct.time(3) / 3).max(Duration::from_nanos(200));
    u32::try_from(Duration::from_millis(10).as_nanos() / one.as_nanos()).unwrap_or(1).clamp(1, 20_000)
}

/// A module that infers as often as its input says, on inputs that are part of it. It takes every output.
fn guest(inputs: &[Plain], outputs: &[usize]) -> Result<Vec<u8>, Failure> {
    const RECORDS: u32 = 1024;
    const DIMS: u32 = 2048;
    const DATA: u32 = 4096;
    let (mut records, mut dims, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for (element, shape, bytes) in inputs {
        let at = |from: u32, before: &[u8]| Ok::<u32, Failure>(from + u32::try_from(before.len())?);
        let fields = [at(DIMS, &dims)?, u32::try_from(shape.len())?, *element as u32, at(DATA, &data)?];
        records.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        records.extend(u32::try_from(bytes.len())?.to_le_bytes());
        dims.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    let (mut calls, out) = (String::new(), DATA + u32::try_from(data.len())?);
    for index in 0..inputs.len() {
        let record = RECORDS + 20 * u32::try_from(index)?;
        write!(calls, "(call $ok (call $set_input (local.get $c) (i32.const {index}) (i32.const {record})))")?;
    }
    calls.push_str("(call $ok (call $compute (local.get $c)))");
    for (index, bytes) in outputs.iter().enumerate() {
        let (at, len) = (format!("(i32.const {out})"), format!("(i32.const {bytes})"));
        write!(calls, "(call $ok (call $get_output (local.get $c) (i32.const {index}) {at} {len} (i32.const 48)))")?;
    }
    let pages = 1 + (out as usize + outputs.iter().max().unwrap_or(&0)) / 65_536;
    Ok(wat::parse_str(format!(
        r#"(module
            (import "wasi_ephemeral_nn" "load_by_name" (func $load_by_name (param i32 i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "set_input" (func $set_input (param i32 i32 i32) (result i32)))
            (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
            (import "wasi_ephemeral_nn" "get_output" (func $get_output (param i32 i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") {pages})
            (data (i32.const 0) "model")
            (data (i32.const {RECORDS}) "{}")
            (data (i32.const {DIMS}) "{}")
            (data (i32.const {DATA}) "{}")
            (func $ok (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
            (func (export "_start") (local $c i32) (local $left i32)
                (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 4))
                (call $ok (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
                (local.set $left (i32.load (i32.const 32)))
                (call $ok (call $load_by_name (i32.const 0) (i32.const 5) (i32.const 40)))
                (call $ok (call $init (i32.load (i32.const 40)) (i32.const 44)))
                (local.set $c (i32.load (i32.const 44)))
                (loop $again {calls}
                    (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#,
        escaped(&records),
        escaped(&dims),
        escaped(&data),
    ))?)
}

/// A sandbox with a guest and its model.
struct Guest {
    sandbox: Sandbox,
    request: Request,
}

impl Guest {
    fn new(isolation: Isolation, backend: &BackendOptions, file: &[u8], module: &[u8]) -> Result<Self, Failure> {
        let options = SandboxOptions { isolation, backend: backend.clone(), slots_max: 1, ..SandboxOptions::default() };
        let (sandbox, hash, model) = (Sandbox::new(options)?, ModuleHash::of(module), ModelHash::of(file));
        sandbox.load_module(hash, module)?;
        sandbox.load_model(model, file)?;
        let limits = Limits { fuel_max: u64::MAX / 2, wall_ms_max: 600_000, ..Limits::default() };
        let request = Request { models: [("model".to_owned(), model)].into(), limits, ..Request::new(hash) };
        Ok(Self { sandbox, request })
    }

    fn time(&self, inferences: u32) -> Duration {
        let request = Request { stdin: inferences.to_le_bytes().to_vec().into(), ..self.request.clone() };
        let watch = Stopwatch::start();
        let response = self.sandbox.run(request);
        let elapsed = watch.elapsed();
        assert!(matches!(&response, Response::Done(done) if done.outcome == Outcome::Ok), "{response:?}");
        elapsed
    }

    /// What one call takes: twice as many less as many, of a task. Both come right after a task, since the first call of a
    /// processor that did something else, or nothing, takes longer: that is the price of a pause and not of a call.
    fn call(&self, times: u32) -> Duration {
        self.time(times);
        let more = self.time(2 * times);
        more.saturating_sub(self.time(times)) / times
    }
}

fn median(sorted: &[Duration]) -> Duration {
    quantile(sorted, 500)
}

fn ratio(of: Duration, to: Duration) -> String {
    format!("{:.2}", of.as_secs_f64() / to.as_secs_f64())
}

fn calls(subjects: &[Subject], backends: &[(&'static str, BackendOptions)]) -> Result<(), Failure> {
    const ROUNDS: usize = 41;
    let mut rows = vec![row!["one row", "direct", "x, thread", "added", "x, process", "added"]];
    for Subject { name, file, inputs, .. } in subjects {
        for (backend, options) in backends {
            let Some(direct) = Direct::or_say(name, options, file, inputs(1)) else { continue };
            let outputs: Vec<usize> = direct.run().iter().map(Vec::len).collect();
            let module = guest(&inputs(1), &outputs)?;
            let thread = Guest::new(Isolation::Thread, options, file, &module)?;
            let process = Guest::new(Isolation::Process, options, file, &module)?;
            let times = times_of(&direct);
            for guest in [&thread, &process] {
                guest.time(times);
            }
            let [mut own, mut in_thread, mut in_process] = [(); 3].map(|()| Vec::new());
            // Each triple is of one moment.
            let [..] = interleaved(
                ROUNDS,
                [&mut || {
                    direct.time(times);
                    own.push(direct.time(times) / times);
                    in_thread.push(thread.call(times));
                    in_process.push(process.call(times));
                    Duration::ZERO
                }],
            );
            [&mut own, &mut in_thread, &mut in_process].into_iter().for_each(|times| times.sort_unstable());
            let own = median(&own);
            let mut cells = row![format!("{name} on {backend}"), us(own)];
            for guest in [median(&in_thread), median(&in_process)] {
                cells.extend(row![ratio(guest, own), us(guest.saturating_sub(own))]);
            }
            rows.push(cells);
        }
    }
    println!("a call through wasi-nn against the same call of the backend, {ROUNDS} rounds\n");
    table(&rows);
    Ok(())
}

fn engines(subjects: &[Subject], backends: &[(&'static str, BackendOptions)]) -> Result<(), Failure> {
    const ROUNDS: usize = 41;
    let [(_, tract), (_, library)] = backends else {
        println!("\nONNX Runtime is not installed: run tools/install-models");
        return Ok(());
    };
    let mut rows = vec![row!["one row, one thread", "tract", "onnxruntime", "x"]];
    for Subject { name, file, inputs, .. } in subjects {
        let of = |backend| Direct::or_say(name, backend, file, inputs(1));
        let Some((ours, theirs)) = of(tract).zip(of(library)) else { continue };
        let times = times_of(&ours).min(times_of(&theirs));
        let [ours, theirs] = interleaved(ROUNDS, [&mut || ours.time(times), &mut || theirs.time(times)]);
        let (ours, theirs) = (median(&ours) / times, median(&theirs) / times);
        rows.push(row![name, us(ours), us(theirs), ratio(ours, theirs)]);
    }
    println!("\ntract against ONNX Runtime, {ROUNDS} rounds\n");
    table(&rows);
    Ok(())
}

fn loads(subjects: &[Subject], backends: &[(&'static str, BackendOptions)]) -> Result<(), Failure> {
    const ROUNDS: usize = 9;
    let dir = tempfile::tempdir()?;
    let mut rows = vec![row!["", "file", "read", "load", "open", "first run", "next", "task 1", "task 2"]];
    for Subject { name, file, inputs, .. } in subjects {
        let path = dir.path().join(name);
        std::fs::write(&path, file)?;
        for (backend, options) in backends {
            let mut steps: [Vec<Duration>; 7] = Default::default();
            let inputs = inputs(1);
            let Some(direct) = Direct::or_say(name, options, file, inputs.clone()) else { continue };
            let outputs = direct.run();
            let module = guest(&inputs, &outputs.iter().map(Vec::len).collect::<Vec<_>>())?;
            let hash = ModelHash::of(file);
            for _ in 0..ROUNDS {
                let inputs = DirectInputs::new(inputs.clone());
                let mut watch = Stopwatch::start();
                let mut lap = |step: usize| {
                    steps[step].push(watch.elapsed());
                    watch = Stopwatch::start();
                };
                let bytes = std::fs::read(&path)?;
                lap(0);
                let model = DirectModel::load(options.clone(), None, &bytes)?;
                lap(1);
                model.open(&inputs)?;
                lap(2);
                model.run(&inputs)?;
                lap(3);
                model.run(&inputs)?;
                lap(4);
                // The same in a sandbox process: loaded as the order arrives, by whoever fetches it.
                let own = Guest::new(Isolation::Process, options, file, &module)?;
                let before = own.sandbox.model_stats();
                steps[5].push(own.time(1));
                steps[6].push(own.time(1));
                let after = own.sandbox.model_stats();
                assert!(own.sandbox.has_model(hash));
                assert_eq!((after.loaded, after.found), (before.loaded, before.found + 2), "no task loads it");
            }
            steps.iter_mut().for_each(|times| times.sort_unstable());
            let mut cells = row![format!("{name} on {backend}"), format!("{} kB", file.len() / 1000)];
            cells.extend(steps.iter().map(|times| us(median(times))));
            rows.push(cells);
        }
    }
    println!(
        "\nfrom a file to answers, {ROUNDS} times; tasks of one inference in a process, their model loaded before\n"
    );
    table(&rows);
    Ok(())
}

fn batches(subjects: &[Subject], backends: &[(&'static str, BackendOptions)]) -> Result<(), Failure> {
    const ROUNDS: usize = 21;
    const BATCHES: [u32; 4] = [2, 6, 16, 64];
    let mut rows = vec![row!["a row", "alone", "x in 2", "in 6", "in 16", "in 64", "same bits in"]];
    for Subject { name, file, inputs, .. } in subjects.iter().filter(|subject| subject.batches) {
        for (backend, options) in backends {
            let Some(single) = Direct::or_say(name, options, file, inputs(1)) else { continue };
            let times = times_of(&single);
            let mut cells = row![format!("{name} on {backend}")];
            let mut same = Vec::new();
            let (mut alone, mut parts) = (Vec::new(), Vec::new());
            for batch in BATCHES {
                let all = Direct::new(options, file, inputs(batch))?;
                let each = times.div_ceil(batch);
                let [one, many] = interleaved(ROUNDS, [&mut || single.time(times), &mut || all.time(each)]);
                let (one, many) = (median(&one) / times, median(&many) / (each * batch));
                alone.push(one);
                parts.push(ratio(many, one));
                if rows_equal(options, file, &inputs(batch), batch, &all)? {
                    same.push(batch.to_string());
                }
            }
            alone.sort_unstable();
            cells.push(us(median(&alone)));
            cells.extend(parts);
            cells.push(if same.is_empty() { "none".to_owned() } else { same.join(", ") });
            rows.push(cells);
        }
    }
    println!("\na row in a batch against a row alone, {ROUNDS} rounds\n");
    table(&rows);
    Ok(())
}

/// Whether each row of a batch has the bits that it has alone.
fn rows_equal(
    options: &BackendOptions,
    file: &[u8],
    inputs: &[Plain],
    batch: u32,
    all: &Direct,
) -> Result<bool, Failure> {
    let together = all.run();
    let model = DirectModel::load(options.clone(), None, file)?;
    for at in 0..batch as usize {
        let row = |bytes: &[u8]| {
            let len = bytes.len() / batch as usize;
            bytes[at * len..][..len].to_vec()
        };
        let own = inputs.iter().map(|(element, dims, bytes)| {
            let dims = std::iter::once(1).chain(dims[1..].iter().copied()).collect();
            (*element, dims, row(bytes))
        });
        let own = DirectInputs::new(own);
        model.open(&own)?;
        if model.run(&own)? != together.iter().map(|output| row(output)).collect::<Vec<_>>() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn main() -> Result<ExitCode, Failure> {
    measured(measure)
}

fn measure() -> Result<(), Failure> {
    let models = Models::find();
    let (mut subjects, mut backends) = (subjects(models.as_ref()), backends(models.as_ref()));
    // One part, one model, one backend, each by its name; or all.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let asks = |at: usize, name: &str| asked.get(at).is_none_or(|asked| asked == name || asked == "all");
    let wants = |part: &str| asks(0, part);
    subjects.retain(|subject| asks(1, subject.name));
    backends.retain(|(name, _)| asks(2, name));
    if wants("calls") {
        calls(&subjects, &backends)?;
    }
    if wants("engines") {
        engines(&subjects, &backends)?;
    }
    if wants("loads") {
        loads(&subjects, &backends)?;
    }
    if wants("batches") {
        batches(&subjects, &backends)?;
    }
    Ok(())
}
