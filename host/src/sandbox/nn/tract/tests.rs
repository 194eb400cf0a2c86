//! Models that would take any amount of memory, and what becomes of them; models of each element type; quantized ones.

use guest_sdk::abi::nn::TensorType;

use super::{
    super::{
        backend::BackendError,
        guarded,
        onnx::{
            Attribute::{Body, Constant, Int, Ints, Text},
            *,
        },
    },
    *,
};

fn load(model: &Model) -> Result<Arc<dyn Graph>, BackendError> {
    guarded(|| Tract { class: CpuClass::detect() }.load(&model.clone().bytes()))
}

/// Loads a model and runs it on a column of four numbers.
fn run(model: &Model) -> Result<Vec<Tensor>, BackendError> {
    let graph = load(model)?;
    let inputs = [Tensor { element: TensorType::F32, dims: vec![4, 1], data: f32s(&[1.0, 2.0, 3.0, 4.0]) }];
    let mut fuel = 1 << 40;
    guarded(|| graph.open(&signature(&inputs), &mut fuel))?;
    guarded(|| graph.run(&inputs, &mut fuel))
}

fn word_of(result: &Result<Vec<Tensor>, BackendError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(BackendError::TooLarge { .. }) => "too large",
        Err(BackendError::Failed { .. }) => "failed",
        Err(BackendError::Unsupported { .. }) => "unsupported",
        Err(BackendError::Fuel) => "fuel",
        Err(BackendError::Interrupted { .. }) => "interrupted",
        Err(BackendError::Panic { .. }) => "panic",
    }
}

/// A model with an input `x`, whose output `y` is for the operators of each case to make.
fn base() -> Model {
    Model::new()
        .input("x", FLOAT, &[-1, 1])
        .output("y", FLOAT, &[])
        .constant("one", FLOAT, &[1], &f32s(&[1.0]))
        .constant("zero", FLOAT, &[], &f32s(&[0.0]))
}

fn shape(model: Model, name: &str, dims: &[i64]) -> Model {
    model.constant(name, INT64, &[dims.len() as i64], &i64s(dims))
}

fn scalar(model: Model, name: &str, value: i64) -> Model {
    model.constant(name, INT64, &[], &i64s(&[value]))
}

/// Adds the sum of `big` and the input, so that the result is that of nothing else.
fn end(model: Model) -> Model {
    model.node("ReduceMax", &["big"], &["most"], &[("keepdims", Int(0))]).node("Add", &["x", "most"], &["y"], &[])
}

fn bombs() -> Vec<(&'static str, Model, &'static str)> {
    let many = 100_000i64;
    let line = vec![0u8; 400_000];
    let row_and_column =
        |base: Model| base.constant("row", FLOAT, &[1, many], &line).constant("column", FLOAT, &[many, 1], &line);
    let mut doubled = base().constant("d0", FLOAT, &[1 << 18], &vec![0; 1 << 20]);
    for step in 0..30 {
        let (from, to) = (format!("d{step}"), if step == 29 { "big".to_owned() } else { format!("d{}", step + 1) });
        doubled = doubled.node("Concat", &[&from, &from], &[&to], &[("axis", Int(0))]);
    }
    let mut crowd = shape(base(), "shape", &[1_000_000]).node("Identity", &["x"], &["s0"], &[]);
    for step in 0..3_000 {
        let (from, made, to) = (format!("s{step}"), format!("c{step}"), format!("s{}", step + 1));
        let value = tensor("v", FLOAT, &[1], &f32s(&[step as f32]));
        crowd = crowd
            .node("ConstantOfShape", &["shape"], &[&made], &[("value", Constant(value))])
            .node("ReduceMax", &[&made], &[&format!("m{step}")], &[("keepdims", Int(0))])
            .node("Add", &[&from, &format!("m{step}")], &[&to], &[]);
    }
    let crowd = crowd.node("Identity", &["s3000"], &["y"], &[]);
    let inner = shape(Model::new(), "shape", &[1 << 33])
        .node("ConstantOfShape", &["shape"], &["inner"], &[])
        .node("ReduceMax", &["inner"], &["most"], &[("keepdims", Int(0))])
        .output("most", FLOAT, &[]);
    vec![
        (
            "constant of a shape",
            end(shape(base(), "s", &[1 << 33]).node("ConstantOfShape", &["s"], &["big"], &[])),
            "too large",
        ),
        (
            "constant of a computed shape",
            end(shape(base(), "a", &[many]).node("Mul", &["a", "a"], &["s"], &[]).node(
                "ConstantOfShape",
                &["s"],
                &["big"],
                &[],
            )),
            "too large",
        ),
        (
            "constant of a shape that overflows",
            end(shape(base(), "s", &[1 << 40, 1 << 40]).node("ConstantOfShape", &["s"], &["big"], &[])),
            "too large",
        ),
        (
            "expanded constant",
            end(shape(base(), "s", &[many, many]).node("Expand", &["one", "s"], &["big"], &[])),
            "too large",
        ),
        ("expanded input", shape(base(), "s", &[1, 1 << 30]).node("Expand", &["x", "s"], &["y"], &[]), "too large"),
        ("tiled constant", end(shape(base(), "s", &[1 << 40]).node("Tile", &["one", "s"], &["big"], &[])), "too large"),
        (
            "tiled input",
            end(shape(base(), "s", &[1 << 20, 1 << 20]).node("Tile", &["x", "s"], &["big"], &[])),
            "too large",
        ),
        (
            "range",
            end(scalar(scalar(base(), "to", 1 << 36), "by", 1)
                .node("Cast", &["zero"], &["from"], &[("to", Int(INT64.into()))])
                .node("Range", &["from", "to", "by"], &["list"], &[])
                .node("Cast", &["list"], &["big"], &[("to", Int(FLOAT.into()))])),
            "too large",
        ),
        (
            "range of tiny steps",
            end(base().constant("by", FLOAT, &[], &f32s(&[1e-12])).constant("to", FLOAT, &[], &f32s(&[1.0])).node(
                "Range",
                &["zero", "to", "by"],
                &["big"],
                &[],
            )),
            "panic",
        ),
        (
            "range of no steps",
            end(scalar(scalar(scalar(base(), "from", 0), "to", 9), "by", 0)
                .node("Range", &["from", "to", "by"], &["list"], &[])
                .node("Cast", &["list"], &["big"], &[("to", Int(FLOAT.into()))])),
            "panic",
        ),
        (
            "row added to a column",
            end(row_and_column(base()).node("Add", &["row", "column"], &["big"], &[])),
            "too large",
        ),
        (
            "column times a row",
            end(row_and_column(base()).node("MatMul", &["column", "row"], &["big"], &[])),
            "too large",
        ),
        ("concatenated with itself", end(doubled), "too large"),
        ("many that are each small", crowd, "too large"),
        (
            "padded constant",
            end(shape(base(), "s", &[0, 1 << 40]).node("Pad", &["one", "s", "zero"], &["big"], &[])),
            "too large",
        ),
        (
            "padded input",
            end(shape(base(), "s", &[0, 0, 1 << 40, 0]).node("Pad", &["x", "s", "zero"], &["big"], &[])),
            "failed",
        ),
        (
            "one of many",
            end(scalar(base(), "depth", 1 << 40)
                .constant("values", FLOAT, &[2], &f32s(&[0.0, 1.0]))
                .constant("at", INT64, &[1], &i64s(&[3]))
                .node("OneHot", &["at", "depth", "values"], &["big"], &[])),
            "too large",
        ),
        (
            "resized",
            end(shape(base(), "s", &[1 << 20, 1 << 20]).node(
                "Resize",
                &["x", "", "", "s"],
                &["big"],
                &[("mode", Text("nearest".into()))],
            )),
            "too large",
        ),
        (
            "padded convolution",
            end(base()
                .constant("w", FLOAT, &[1, 1, 1], &f32s(&[1.0]))
                .constant("s3", INT64, &[3], &i64s(&[1, 1, -1]))
                .node("Reshape", &["x", "s3"], &["x3"], &[])
                .node("Conv", &["x3", "w"], &["big"], &[("pads", Ints(vec![1 << 40, 0]))])),
            "too large",
        ),
        (
            "transposed convolution of long strides",
            end(base()
                .constant("w", FLOAT, &[1, 1, 1], &f32s(&[1.0]))
                .constant("s3", INT64, &[3], &i64s(&[1, 1, -1]))
                .node("Reshape", &["x", "s3"], &["x3"], &[])
                .node("ConvTranspose", &["x3", "w"], &["big"], &[("strides", Ints(vec![1 << 40]))])),
            "too large",
        ),
        ("window", end(scalar(base(), "n", 1 << 40).opset(17).node("HannWindow", &["n"], &["big"], &[])), "too large"),
        (
            "in a branch that is not taken",
            base()
                .constant("no", BOOL, &[], &[0])
                .node(
                    "If",
                    &["no"],
                    &["most"],
                    &[
                        ("then_branch", Body(inner.clone().graph())),
                        (
                            "else_branch",
                            Body(
                                Model::new()
                                    .node("Identity", &["zero"], &["none"], &[])
                                    .output("none", FLOAT, &[])
                                    .graph(),
                            ),
                        ),
                    ],
                )
                .node("Add", &["x", "most"], &["y"], &[]),
            "too large",
        ),
        (
            "of the input's shape",
            shape(base(), "s", &[1 << 28, 1])
                .node("Shape", &["x"], &["own"], &[])
                .node("Mul", &["own", "s"], &["wide"], &[])
                .node("ConstantOfShape", &["wide"], &["y"], &[]),
            "too large",
        ),
    ]
}

#[test]
fn what_would_grow_without_bound_is_an_error() {
    let mut wrong = Vec::new();
    for (name, model, expected) in bombs() {
        crate::sandbox::model_preflight(&model.clone().bytes()).unwrap();
        let result = run(&model);
        if word_of(&result) != expected {
            wrong.push(format!("{name}: {} instead of {expected}: {:?}", word_of(&result), result.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn padding_works_where_it_is_small() {
    let model = shape(base(), "s", &[0, 0, 2, 0]).node("Pad", &["x", "s", "zero"], &["y"], &[]);
    assert_eq!(run(&model).unwrap()[0].data, f32s(&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0]));
}

#[test]
fn operators_that_are_unknown_are_told_as_a_model_is_loaded() {
    let unknown = base().node("Frobnicate", &["x"], &["y"], &[]);
    let error = load(&unknown).err();
    assert!(matches!(error, Some(BackendError::Unsupported { .. })), "{error:?}");
    // The same name in a domain of somebody else is another operator.
    let foreign = base().node_of("acme", "Relu", &["x"], &["y"], &[]);
    assert_eq!(word_of(&run(&foreign)), "unsupported");
}

#[test]
fn a_branch_costs_what_its_dearer_side_does() {
    let wide = |repeats: i64| {
        shape(Model::new(), "s", &[1, repeats])
            .node("Tile", &["x", "s"], &["wide"], &[])
            .node("ReduceMax", &["wide"], &["most"], &[("keepdims", Int(0))])
            .output("most", FLOAT, &[])
            .graph()
    };
    let model = base()
        .node("ReduceMax", &["x"], &["top"], &[("keepdims", Int(0))])
        .node("Greater", &["top", "zero"], &["yes"], &[])
        .node("If", &["yes"], &["most"], &[("then_branch", Body(wide(2))), ("else_branch", Body(wide(10_000)))])
        .node("Add", &["x", "most"], &["y"], &[]);
    let graph = load(&model).unwrap();
    let inputs = [Tensor { element: TensorType::F32, dims: vec![4, 1], data: f32s(&[1.0; 4]) }];
    let mut fuel = 1 << 40;
    graph.open(&signature(&inputs), &mut fuel).unwrap();
    let before = fuel;
    graph.run(&inputs, &mut fuel).unwrap();
    assert!(before - fuel > 40_000, "{}", before - fuel);
}

#[test]
fn shapes_are_compiled_once_however_many_ask() {
    let graph = load(&base().node("Add", &["x", "one"], &["y"], &[])).unwrap();
    let inputs =
        |rows: u32| [Tensor { element: TensorType::F32, dims: vec![rows, 1], data: vec![0; 4 * rows as usize] }];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| graph.run(&inputs(3), &mut (1 << 30)).unwrap());
        }
    });
    let one = graph.held_bytes() / 2;
    for rows in 1..40 {
        graph.run(&inputs(rows), &mut (1 << 30)).unwrap();
    }
    assert_eq!(graph.held_bytes(), one * (1 + limits::NN_PLANS_MAX as u64));
    graph.shrink(3 * one);
    assert_eq!(graph.held_bytes(), 3 * one);
    graph.shrink(0);
    assert_eq!(graph.held_bytes(), 2 * one, "the next shape counts already");
}

/// One operator on two tensors of a type.
fn typed(element: TensorType, onnx: i32, operator: &str, one: &[u8], two: &[u8], expected: &[u8]) {
    let model = Model::new()
        .input("x", onnx, &[-1])
        .input("z", onnx, &[-1])
        .node(operator, &["x", "z"], &["y"], &[])
        .output("y", onnx, &[-1]);
    let graph = load(&model).unwrap();
    let of = |data: &[u8]| Tensor {
        element,
        dims: vec![u32::try_from(data.len() / element.element_bytes()).unwrap()],
        data: data.to_vec(),
    };
    assert_eq!(graph.inputs()[0].element.as_deref(), Some(element.word()));
    assert_eq!(graph.outputs()[0].element.as_deref(), Some(element.word()));
    let inputs = [of(one), of(two)];
    graph.open(&signature(&inputs), &mut u64::MAX.clone()).unwrap();
    assert_eq!(graph.run(&inputs, &mut u64::MAX.clone()).unwrap(), vec![of(expected)], "{element:?} {operator}");
}

#[test]
fn every_type_of_the_specification_is_computed_with() {
    typed(TensorType::F16, FLOAT16, "Add", &[0x00, 0x3c, 0x00, 0xc0], &[0x00, 0x38, 0x00, 0x40], &[0x00, 0x3e, 0, 0]);
    typed(TensorType::F32, FLOAT, "Mul", &f32s(&[1.5, -2.0]), &f32s(&[2.0, 0.25]), &f32s(&[3.0, -0.5]));
    let f64s = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    typed(
        TensorType::F64,
        DOUBLE,
        "Sub",
        &f64s(&[0.1, 1e300]),
        &f64s(&[0.2, 1e299]),
        &f64s(&[0.1 - 0.2, 1e300 - 1e299]),
    );
    typed(TensorType::U8, UINT8, "Add", &[1, 250], &[2, 5], &[3, 255]);
    let i32s = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    typed(TensorType::I32, INT32, "Mul", &i32s(&[-3, 1 << 20]), &i32s(&[5, 7]), &i32s(&[-15, 7 << 20]));
    typed(TensorType::I64, INT64, "Add", &i64s(&[1 << 40, -1]), &i64s(&[1, -1]), &i64s(&[(1 << 40) + 1, -2]));
}

#[test]
fn shapes_that_a_model_gives_are_integers() {
    let model = Model::new().input("x", FLOAT, &[-1, 1]).node("Shape", &["x"], &["y"], &[]).output("y", INT64, &[2]);
    let outputs = run(&model).unwrap();
    assert_eq!((outputs[0].element, outputs[0].data.clone()), (TensorType::I64, i64s(&[4, 1])));
}

#[test]
fn quantized_models_run() {
    // x -> uint8 with scale 0.5 and zero point 10, times an int8 matrix of one row, in int32 and back.
    let dynamic = base()
        .constant("w", INT8, &[1, 2], &[2, 0xfd])
        .constant("wz", INT8, &[], &[0])
        .node("DynamicQuantizeLinear", &["x"], &["q", "scale", "point"], &[])
        .node("MatMulInteger", &["q", "w", "point", "wz"], &["sum"], &[])
        .node("Cast", &["sum"], &["float"], &[("to", Int(FLOAT.into()))])
        .node("Mul", &["float", "scale"], &["y"], &[]);
    let outputs = run(&dynamic).unwrap();
    let values: Vec<f32> =
        outputs[0].data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_eq!(outputs[0].dims, [4, 2]);
    for (row, pair) in values.chunks_exact(2).enumerate() {
        let x = row as f32 + 1.0;
        assert!((pair[0] - 2.0 * x).abs() < 0.05 && (pair[1] + 3.0 * x).abs() < 0.05, "{values:?}");
    }
    let linear = base()
        .constant("xs", FLOAT, &[], &f32s(&[0.5]))
        .constant("xz", UINT8, &[], &[10])
        .constant("ys", FLOAT, &[], &f32s(&[1.0]))
        .constant("yz", UINT8, &[], &[100])
        .constant("w", UINT8, &[1, 2], &[14, 4])
        .node("QuantizeLinear", &["x", "xs", "xz"], &["q"], &[])
        .node("QLinearMatMul", &["q", "xs", "xz", "w", "xs", "xz", "ys", "yz"], &["p"], &[])
        .node("DequantizeLinear", &["p", "ys", "yz"], &["y"], &[]);
    let outputs = run(&linear).unwrap();
    assert_eq!(outputs[0].data, f32s(&[2.0, -3.0, 4.0, -6.0, 6.0, -9.0, 8.0, -12.0]));
}

#[test]
fn operators_that_share_a_name_are_told_apart() {
    let node = |of: &str, to: &str| Message::default().field(1, of).field(2, to).field(3, "anon").field(4, "Neg");
    let model = base().with(1, node("x", "a")).with(1, node("a", "b")).with(1, node("b", "y"));
    assert_eq!(run(&model).unwrap()[0].data, f32s(&[-1.0, -2.0, -3.0, -4.0]));
}
