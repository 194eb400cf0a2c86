//! The library beside tract, on models that are made here. Skipped where no library is installed, unless
//! `QUORATE_REQUIRE_ONNXRUNTIME` says that there is one.

use std::sync::OnceLock;

use super::*;
use crate::{
    sandbox::{
        CpuClass,
        nn::{
            measure,
            onnx::{Attribute, BOOL, FLOAT, FLOAT16, INT32, INT64, Model, UINT8, f32s, i64s},
            tract::Tract,
        },
    },
    testing,
};

/// The processor, once for all tests: a process has one library.
fn cpu() -> Option<&'static Onnxruntime> {
    static CPU: OnceLock<Option<Onnxruntime>> = OnceLock::new();
    let cpu = CPU.get_or_init(|| {
        let found = find::find(find::Wanted::Library).into_iter().next()?;
        Some(Onnxruntime::start(&found.path, &Provider::Cpu).unwrap())
    });
    if cpu.is_none() {
        testing::skipped("no ONNX Runtime: run tools/install-onnxruntime", "QUORATE_REQUIRE_ONNXRUNTIME");
    }
    cpu.as_ref()
}

fn tract() -> Tract {
    Tract { class: CpuClass::detect() }
}

/// Numbers between -1 and 1 that are the same every time.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 32_768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(dims: &[u32], values: &[f32]) -> Tensor {
    Tensor { element: TensorType::F32, dims: dims.to_vec(), data: f32s(values) }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.data.chunks_exact(4).map(|bytes| f32::read_from_bytes(bytes).unwrap()).collect()
}

/// A small network of each kind, with inputs for it.
fn networks() -> Vec<(&'static str, Vec<u8>, Vec<Tensor>)> {
    let weights = |name: &str, dims: &[i64], seed: u32, model: Model| {
        let count = dims.iter().product::<i64>();
        model.constant(name, FLOAT, dims, &f32s(&numbers(count as usize, seed)))
    };
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let dense = weights("w", &[20, 12], 1, weights("b", &[12], 2, Model::new()))
        .input("x", FLOAT, &[-1, 20])
        .node("Gemm", &["x", "w", "b"], &["h"], &[])
        .node("Tanh", &["h"], &["t"], &[])
        .node("Softmax", &["t"], &["y"], &[("axis", Attribute::Int(1))])
        .output("y", FLOAT, &[-1, 12]);
    let convolved = weights("w", &[6, 3, 3, 3], 3, weights("b", &[6], 4, Model::new()))
        .input("x", FLOAT, &[-1, 3, 16, 16])
        .node("Conv", &["x", "w", "b"], &["c"], &[("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[2, 2]))])
        .node("Relu", &["c"], &["r"], &[])
        .node("GlobalAveragePool", &["r"], &["y"], &[])
        .output("y", FLOAT, &[-1, 6, 1, 1]);
    let attended = Model::new()
        .input("q", FLOAT, &[-1, 8, 16])
        .input("k", FLOAT, &[-1, 16, 8])
        .node("MatMul", &["q", "k"], &["s"], &[])
        .node("Softmax", &["s"], &["p"], &[("axis", Attribute::Int(2))])
        .node("MatMul", &["p", "q"], &["y"], &[])
        .output("p", FLOAT, &[-1, 8, 8])
        .output("y", FLOAT, &[-1, 8, 16]);
    let matrix = |dims: &[u32], seed| tensor(dims, &numbers(dims.iter().product::<u32>() as usize, seed));
    vec![
        ("dense", dense.clone().bytes(), vec![matrix(&[1, 20], 5)]),
        ("dense in a batch", dense.bytes(), vec![matrix(&[7, 20], 6)]),
        ("convolved", convolved.bytes(), vec![matrix(&[2, 3, 16, 16], 7)]),
        ("attended", attended.bytes(), vec![matrix(&[3, 8, 16], 8), matrix(&[3, 16, 8], 9)]),
        ("digits", tasks::data::DIGITS_MODEL.to_vec(), vec![matrix(&[4, 64], 10)]),
    ]
}

/// Outputs of one inference, what opening cost and what running did.
fn infer(backend: &dyn Backend, file: &[u8], inputs: &[Tensor]) -> Result<(Vec<Tensor>, [u64; 2]), BackendError> {
    let graph = backend.load(file)?;
    let (mut open, mut run) = (u64::MAX, u64::MAX);
    graph.open(&signature(inputs), &mut open)?;
    let outputs = graph.run(inputs, &mut run)?;
    Ok((outputs, [u64::MAX - open, u64::MAX - run]))
}

#[test]
fn it_agrees_with_tract_and_costs_the_same() {
    let Some(cpu) = cpu() else { return };
    for (name, file, inputs) in networks() {
        let (ours, our_fuel) = infer(cpu, &file, &inputs).unwrap();
        let (theirs, their_fuel) = infer(&tract(), &file, &inputs).unwrap();
        assert_eq!(our_fuel, their_fuel, "{name}");
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!((&ours.dims, ours.element), (&theirs.dims, theirs.element), "{name}");
            let apart = floats(ours).iter().zip(floats(theirs)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{name}: {apart}");
        }
        let decls = |backend: &dyn Backend| {
            let graph = backend.load(&file).unwrap();
            (graph.inputs().to_vec(), graph.outputs().iter().map(|decl| decl.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(decls(cpu), decls(&tract()), "{name}");
    }
}

#[test]
fn the_same_inference_has_the_same_bits() {
    let Some(cpu) = cpu() else { return };
    for (name, file, inputs) in networks() {
        let first = infer(cpu, &file, &inputs).unwrap();
        // A session of its own each, and one that is used again.
        let graph = cpu.load(&file).unwrap();
        for _ in 0..10 {
            assert_eq!(infer(cpu, &file, &inputs).unwrap(), first, "{name}");
            assert_eq!(graph.run(&inputs, &mut u64::MAX.clone()).unwrap(), first.0, "{name}");
        }
    }
}

#[test]
fn every_element_type_goes_in_and_comes_out_as_it_is() {
    let Some(cpu) = cpu() else { return };
    let halves: Vec<u8> =
        [0.5f32, -2.0, 65504.0].iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    let cases = [
        (FLOAT16, TensorType::F16, halves),
        (FLOAT, TensorType::F32, f32s(&[1.5, -0.0, f32::MAX])),
        (
            crate::sandbox::nn::onnx::DOUBLE,
            TensorType::F64,
            [1.5f64, -3.25, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (UINT8, TensorType::U8, vec![0, 7, 255]),
        (INT32, TensorType::I32, [1i32, -1, i32::MIN].iter().flat_map(|v| v.to_le_bytes()).collect()),
        (INT64, TensorType::I64, i64s(&[1, -1, i64::MIN])),
    ];
    for (number, element, data) in cases {
        let model =
            Model::new().input("x", number, &[-1]).node("Identity", &["x"], &["y"], &[]).output("y", number, &[-1]);
        let input = Tensor { element, dims: vec![3], data };
        let (outputs, _) = infer(cpu, &model.bytes(), std::slice::from_ref(&input)).unwrap();
        assert_eq!(outputs, [input], "{element:?}");
    }
}

#[test]
fn what_it_cannot_give_or_run_is_told_so() {
    let Some(cpu) = cpu() else { return };
    let truths = Model::new().input("x", FLOAT, &[-1]).node("IsNaN", &["x"], &["y"], &[]).output("y", BOOL, &[-1]);
    assert!(matches!(cpu.load(&truths.bytes()), Err(BackendError::Unsupported { .. })));
    let unknown = Model::new().input("x", FLOAT, &[-1]).node("NoSuch", &["x"], &["y"], &[]).output("y", FLOAT, &[-1]);
    assert!(matches!(cpu.load(&unknown.bytes()), Err(BackendError::Failed { detail }) if detail.contains("NoSuch")));
    assert!(matches!(cpu.load(b"no model"), Err(BackendError::Failed { .. })));
    let fixed = Model::new().input("x", FLOAT, &[2, 3]).node("Relu", &["x"], &["y"], &[]).output("y", FLOAT, &[2, 3]);
    let wrong = [tensor(&[3, 3], &[1.0; 9])];
    let graph = cpu.load(&fixed.bytes()).unwrap();
    assert!(matches!(graph.run(&wrong, &mut u64::MAX.clone()), Err(BackendError::Failed { .. })));
    let short = [Tensor { data: vec![0; 4], ..tensor(&[2, 3], &[1.0; 6]) }];
    assert!(matches!(graph.run(&short, &mut u64::MAX.clone()), Err(BackendError::Failed { .. })));
}

#[test]
fn an_inference_that_cannot_be_paid_does_not_run() {
    let Some(cpu) = cpu() else { return };
    let (_, file, inputs) = networks().remove(0);
    let (_, [open, run]) = infer(cpu, &file, &inputs).unwrap();
    let graph = cpu.load(&file).unwrap();
    assert_eq!(graph.open(&signature(&inputs), &mut (open - 1)), Err(BackendError::Fuel));
    let mut left = run - 1;
    assert_eq!((graph.run(&inputs, &mut left), left), (Err(BackendError::Fuel), 0));
}

#[test]
fn a_model_that_tract_cannot_analyse_has_a_price_too() {
    let Some(cpu) = cpu() else { return };
    let model = Model::new()
        .input("x", FLOAT, &[-1, 40])
        .constant("w", FLOAT, &[40, 30], &f32s(&numbers(40 * 30, 1)))
        .node("MatMul", &["x", "w"], &["h"], &[])
        .node("Det", &["h"], &["y"], &[])
        .output("y", FLOAT, &[]);
    let input = tensor(&[30, 40], &numbers(1200, 2));
    let signature = signature(std::slice::from_ref(&input));
    let file = model.bytes();
    assert!(tract().load(&file).and_then(|graph| graph.open(&signature, &mut u64::MAX.clone())).is_err());
    let (_, [_, run]) = infer(cpu, &file, &[input]).unwrap();
    // Two operators of 1200 elements each; 1200 weights, once for each of forty rows of thirty.
    assert_eq!(run, 2 * 1200 + 1200 * 40);
}

#[test]
fn what_runs_is_named_and_measured() {
    let Some(cpu) = cpu() else { return };
    assert_eq!((cpu.name(), cpu.class()), ("onnxruntime", Class::Homogeneous));
    cpu.device().check().unwrap();
    assert_eq!((cpu.device().kind, cpu.device().provider), (DeviceKind::Cpu, "onnxruntime".to_owned()));
    for backend in [cpu as &dyn Backend, &tract()] {
        let measured = measure::measure(backend).unwrap();
        assert!(measured.mflops > 0 && measured.memory_bytes > 1 << 28, "{measured:?}");
    }
}

#[test]
fn a_library_that_is_not_there_is_told_in_words() {
    let none = |path: &str| Onnxruntime::start(Path::new(path), &Provider::Cpu).err().map(|error| error.to_string());
    if cpu().is_none() {
        assert!(none("/nowhere/libonnxruntime.so").unwrap().contains("no such file"));
        assert!(none("libonnxruntime.so").unwrap().contains("full path"));
    } else {
        assert!(none("/nowhere/libonnxruntime.so").unwrap().contains("this process already has"));
    }
}
