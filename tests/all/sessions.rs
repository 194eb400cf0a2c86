//! Models in memory: loaded once for as many tasks as there are, within a bound that is in bytes, and never beyond it. And what a
//! session is asked that was made for no particular shape: batches of any size, and models whose numbers are whole ones.

use std::{collections::BTreeMap, thread};

use host::{
    calibrate::{backends::AtHand, measure::Asked, samples::Sample},
    sandbox::{
        Finished, HostFault, Isolation, LoadError, ModelStats, NnTensor, Request, Response, Sandbox, SandboxOptions,
        onnx::{Attribute, FLOAT, INT8, Model, UINT8, f32s},
    },
};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
};
use support::models::Models;

use crate::{EXE, sandbox::jailed};

/// Rows and columns of the weights of a model: 256 kB, so that nothing else counts.
const SIDE: u32 = 256;
/// About as long is its file.
const FILE_BYTES: u64 = 4 * (SIDE as u64) * (SIDE as u64);

/// One layer with weights of its own.
fn model(seed: u16) -> Vec<u8> {
    let weights: Vec<f32> = (0..SIDE * SIDE).map(|at| ((at + u32::from(seed)) % 17) as f32 / 64.0).collect();
    let side = i64::from(SIDE);
    Model::new()
        .input("x", FLOAT, &[-1, side])
        .constant("w", FLOAT, &[side, side], &f32s(&weights))
        .node("MatMul", &["x", "w"], &["y"], &[])
        .output("y", FLOAT, &[-1, side])
        .bytes()
}

/// Inferences as the task `infer` takes them: each of so many rows.
fn inferences(rows: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for rows in rows {
        let fields = [1, 1, 2, rows, SIDE, 4 * rows * SIDE];
        bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
        bytes.resize(bytes.len() + 4 * (rows * SIDE) as usize, 0);
    }
    bytes
}

fn sandbox(isolation: Isolation, slots_max: u32, model_cache_bytes_max: u64) -> Sandbox {
    let program = Some(EXE.into());
    let options = SandboxOptions { isolation, program, slots_max, model_cache_bytes_max, ..SandboxOptions::default() };
    let sandbox = Sandbox::new(options).unwrap();
    sandbox.load_module(ModuleHash::of(tasks::INFER.wasm), tasks::INFER.wasm).unwrap();
    sandbox
}

/// A task that infers with these models, loaded before as a worker does it.
fn request(sandbox: &Sandbox, models: &[&[u8]], input: Vec<u8>) -> Request {
    let named = |(at, file): (usize, &&[u8])| {
        let hash = ModelHash::of(file);
        sandbox.load_model(hash, file).unwrap();
        (if at == 0 { "model".to_owned() } else { format!("model-{at}") }, hash)
    };
    let models = models.iter().enumerate().map(named).collect::<BTreeMap<_, _>>();
    let limits = Limits { fuel_max: u64::MAX / 2, ..Limits::default() };
    Request { stdin: input.into(), models, limits, ..Request::new(ModuleHash::of(tasks::INFER.wasm)) }
}

fn done(response: Response) -> Finished {
    match response {
        Response::Done(done) if done.outcome == Outcome::Ok => done,
        other => panic!("{other:?}"),
    }
}

/// What was counted since.
fn since(sandbox: &Sandbox, before: ModelStats) -> (u64, u64, u64) {
    let now = sandbox.model_stats();
    (now.loaded - before.loaded, now.found - before.found, now.evicted - before.evicted)
}

#[test]
fn the_second_task_pays_no_load() {
    for isolation in [Isolation::Thread, Isolation::Process] {
        let sandbox = sandbox(isolation, 1, 1 << 30);
        let file = model(1);
        let first = request(&sandbox, &[&file], inferences([1]));
        let before = sandbox.model_stats();
        assert_eq!((before.loaded, before.sessions), (1, 1), "it was loaded before there was a task");
        for _ in 0..3 {
            done(sandbox.run(first.clone()));
        }
        assert_eq!(since(&sandbox, before), (0, 3, 0), "{isolation:?}");
        // Asked for again, it is there.
        request(&sandbox, &[&file], Vec::new());
        assert_eq!(since(&sandbox, before), (0, 3, 0), "{isolation:?}");
    }
}

#[test]
fn a_row_is_ready_for_before_any_task_infers() {
    for isolation in [Isolation::Thread, Isolation::Process] {
        let sandbox = sandbox(isolation, 1, 1 << 30);
        let file = model(1);
        let row = request(&sandbox, &[&file], inferences([1]));
        let loaded = sandbox.model_stats();
        let fuel = done(sandbox.run(row.clone())).fuel_used;
        assert_eq!(sandbox.model_stats().bytes, loaded.bytes, "{isolation:?}: nothing was left to make");
        done(sandbox.run(request(&sandbox, &[&file], inferences([4]))));
        assert!(sandbox.model_stats().bytes > loaded.bytes, "{isolation:?}: another shape is another plan");
        assert_eq!(done(sandbox.run(row)).fuel_used, fuel, "nobody pays more or less for what is there");
    }
}

#[test]
fn tasks_at_once_load_a_model_once_for_each_process() {
    for (isolation, sessions_max) in [(Isolation::Thread, 1), (Isolation::Process, 2)] {
        let sandbox = sandbox(isolation, 2, 1 << 30);
        let file = model(1);
        let outputs: Vec<u64> = thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let request = request(&sandbox, &[&file], inferences([4, 1]));
                        // Two slots for eight tasks: a worker would have them wait.
                        loop {
                            match sandbox.run(request.clone()) {
                                Response::Fault(HostFault::NoSlot { .. }) => thread::yield_now(),
                                response => return done(response).fuel_used,
                            }
                        }
                    })
                })
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "who loads it pays no more: {outputs:?}");
        let stats = sandbox.model_stats();
        assert!((1..=sessions_max).contains(&stats.loaded), "{isolation:?}: {stats:?}");
        assert_eq!((stats.sessions, stats.evicted), (stats.loaded, 0), "{isolation:?}: {stats:?}");
        // Each task's need is either.
        assert!((8..=9).contains(&(stats.loaded + stats.found)), "{isolation:?}: {stats:?}");
    }
}

#[test]
fn a_model_without_room_is_refused_by_name_before_anything_is_made_of_it() {
    for isolation in [Isolation::Thread, Isolation::Process] {
        let sandbox = sandbox(isolation, 1, FILE_BYTES);
        let file = model(1);
        let refusal = sandbox.load_model(ModelHash::of(&file), &file).unwrap_err();
        let LoadError::ModelMemory { bytes, bytes_max } = refusal else { panic!("{refusal}") };
        assert!(bytes >= 2 * FILE_BYTES && bytes_max == FILE_BYTES, "{refusal}");
        assert_eq!(refusal.word(), "model_memory");
        assert!(refusal.to_string().contains("over the 262144 that models get on this host"), "{refusal}");
        let ModelStats { loaded, refused, sessions, bytes, .. } = sandbox.model_stats();
        assert_eq!((loaded, refused, sessions, bytes), (0, 1, 0, 0), "{isolation:?}");
        assert!(!sandbox.has_model(ModelHash::of(&file)));
    }
}

#[test]
fn models_that_are_together_too_much_for_one_task_are_refused() {
    let sandbox = sandbox(Isolation::Process, 1, 5 * FILE_BYTES);
    let (one, two, three) = (model(1), model(2), model(3));
    let request = request(&sandbox, &[&one, &two, &three], inferences([1]));
    let fault = sandbox.run(request);
    let Response::Fault(HostFault::LimitTooLarge { what, asked, bound }) = fault else { panic!("{fault:?}") };
    assert!(what.contains("models") && asked > bound && bound == 5 * FILE_BYTES, "{what}: {asked} of {bound}");
}

#[test]
fn the_least_recently_used_leave_by_their_bytes() {
    for isolation in [Isolation::Thread, Isolation::Process] {
        // Room for two that have run with one shape.
        let sandbox = sandbox(isolation, 1, 5 * FILE_BYTES);
        let files = [model(1), model(2), model(3)];
        let run = |at: usize| {
            let before = sandbox.model_stats();
            done(sandbox.run(request(&sandbox, &[&files[at]], inferences([1]))));
            let now = sandbox.model_stats();
            assert!(now.bytes <= 5 * FILE_BYTES, "{isolation:?}: {now:?}");
            (now.loaded - before.loaded, now.evicted - before.evicted)
        };
        assert_eq!([run(0), run(1), run(0)], [(1, 0), (1, 0), (0, 0)], "{isolation:?}");
        assert_eq!(run(2), (1, 1), "{isolation:?}: the second leaves");
        assert_eq!([run(0), run(1)], [(0, 0), (1, 1)], "{isolation:?}: the first stayed, the third leaves");
        assert_eq!(run(2), (1, 1), "{isolation:?}");
    }
}

#[test]
fn what_sessions_grow_by_is_counted_and_given_back() {
    for isolation in [Isolation::Thread, Isolation::Process] {
        let bound = 6 * FILE_BYTES;
        let sandbox = sandbox(isolation, 1, bound);
        let (grown, other) = (model(1), model(2));
        let small = request(&sandbox, &[&grown], inferences([1]));
        done(sandbox.run(small.clone()));
        let before = sandbox.model_stats();
        done(sandbox.run(request(&sandbox, &[&grown], inferences([1, 2]))));
        let two_shapes = sandbox.model_stats();
        assert!(two_shapes.bytes >= before.bytes + FILE_BYTES, "{isolation:?}: {before:?}, {two_shapes:?}");
        // Twelve shapes are more than there is room for: it lets go of some, and is still loaded.
        done(sandbox.run(request(&sandbox, &[&grown], inferences(1..=12))));
        let full = sandbox.model_stats();
        assert!(full.bytes <= bound && full.bytes > 4 * FILE_BYTES, "{isolation:?}: {full:?}");
        assert_eq!((full.evicted, full.sessions), (0, 1), "{isolation:?}");
        // Another model's first session takes the room of shapes, and no model leaves.
        done(sandbox.run(request(&sandbox, &[&other], inferences([1]))));
        let both = sandbox.model_stats();
        assert!(both.bytes <= bound, "{isolation:?}: {both:?}");
        assert_eq!((both.evicted, both.sessions), (0, 2), "{isolation:?}: {both:?}");
        done(sandbox.run(small));
        assert!(sandbox.model_stats().bytes <= bound, "{isolation:?}");
    }
}

#[test]
fn tasks_wait_for_room_and_each_gets_it() {
    // Of two models one session has room at a time, and four slots want both.
    let bound = 3 * FILE_BYTES;
    let sandbox = sandbox(Isolation::Process, 4, bound);
    let files = [model(1), model(2)];
    thread::scope(|scope| {
        for at in 0..4 {
            let (sandbox, file) = (&sandbox, &files[at % 2]);
            scope.spawn(move || {
                for _ in 0..5 {
                    done(sandbox.run(request(sandbox, &[file], inferences([1, 1]))));
                    let stats = sandbox.model_stats();
                    assert!(stats.bytes <= bound && stats.sessions <= 1, "{stats:?}");
                }
            });
        }
    });
    let stats = sandbox.model_stats();
    assert!(stats.evicted >= 1 && stats.loaded >= 2, "{stats:?}");
}

/// x -> uint8 with scale 0.5 and zero point 10, times int8 weights, to uint8 with scale 0.25, and back: with numbers that all of
/// this leaves as they are.
fn quantized() -> Vec<u8> {
    let scalar = |model: Model, name: &str, value: f32| model.constant(name, FLOAT, &[], &f32s(&[value]));
    let model = Model::new().input("x", FLOAT, &[-1, 2]);
    let model = scalar(scalar(scalar(model, "xs", 0.5), "ws", 0.5), "ys", 0.25);
    model
        .constant("xz", UINT8, &[], &[10])
        .constant("wz", INT8, &[], &[0])
        .constant("yz", UINT8, &[], &[100])
        .constant("w", INT8, &[2, 3], &[1, 2, 0xff, 0, 3, 4])
        .node("QuantizeLinear", &["x", "xs", "xz"], &["q"], &[])
        .node("QLinearMatMul", &["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], &["p"], &[])
        .node("DequantizeLinear", &["p", "ys", "yz"], &["y"], &[])
        .output("y", FLOAT, &[-1, 3])
        .bytes()
}

/// The same weights in whole numbers, scaled when they are summed.
fn integers() -> Vec<u8> {
    Model::new()
        .input("x", FLOAT, &[-1, 2])
        .constant("xs", FLOAT, &[], &f32s(&[0.5]))
        .constant("scale", FLOAT, &[], &f32s(&[0.25]))
        .constant("xz", UINT8, &[], &[10])
        .constant("w", INT8, &[2, 3], &[1, 2, 0xff, 0, 3, 4])
        .node("QuantizeLinear", &["x", "xs", "xz"], &["q"], &[])
        .node("MatMulInteger", &["q", "w", "xz"], &["sum"], &[])
        .node("Cast", &["sum"], &["float"], &[("to", Attribute::Int(FLOAT.into()))])
        .node("Mul", &["float", "scale"], &["y"], &[])
        .output("y", FLOAT, &[-1, 3])
        .bytes()
}

#[test]
fn quantized_models_take_batches_of_any_size_on_every_backend() {
    let weights = [[1.0, 2.0, -1.0], [0.0, 3.0, 4.0]].map(|row: [f32; 3]| row.map(|weight| weight * 0.5));
    let batch = |rows: u32| {
        let values: Vec<f32> = (0..rows * 2).map(|at| (at % 9) as f32 * 0.5 - 2.0).collect();
        let expected: Vec<f32> = values
            .chunks(2)
            .flat_map(|row| std::array::from_fn::<f32, 3, _>(|at| row[0] * weights[0][at] + row[1] * weights[1][at]))
            .collect();
        let input = NnTensor { element: 1, dims: vec![rows, 2], data: f32s(&values).into() };
        (Sample { name: format!("{rows} rows"), inputs: vec![input] }, vec![rows, 3], f32s(&expected))
    };
    let backends = Models::or_skip().map_or_else(|| vec![("tract", Default::default())], |models| models.backends());
    for (name, backend) in backends {
        let options = SandboxOptions { memory_bytes_max: host::limits::MEMORY_BYTES_MAX, ..jailed(backend) };
        for (what, file) in [("QLinearMatMul", quantized()), ("MatMulInteger", integers())] {
            let at_hand = AtHand { name: name.to_owned(), options: options.clone() };
            let asked = Asked::start(at_hand, &file).unwrap_or_else(|error| panic!("{what} on {name}: {error}"));
            assert_eq!(asked.model.inputs[0].dims, Some(vec![None, Some(2)]), "{what} on {name}");
            let batches = [1, 3, 1, 7, 64, 3].map(batch);
            let samples: Vec<Sample> = batches.iter().map(|(sample, ..)| sample.clone()).collect();
            let answers = asked.answers(&samples).unwrap_or_else(|error| panic!("{what} on {name}: {error}"));
            for ((sample, dims, expected), answer) in batches.iter().zip(answers) {
                let [NnTensor { dims: found, data, .. }] = &answer[..] else { panic!("{answer:?}") };
                assert_eq!((found, &data[..]), (dims, &expected[..]), "{what} on {name}: {}", sample.name);
            }
        }
    }
}
