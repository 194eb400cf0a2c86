//! tract inside the sandbox: one result for every way of running it, fuel that is exact, bounds that hold. And tract's own
//! kernels: each of their classes gives the same bits whatever else a processor has.

use std::{path::PathBuf, process::Command, sync::LazyLock, time::Duration};

use guest_sdk::abi::nn::TensorType;
use host::sandbox::{
    Answer, BackendOptions, CancelToken, CompileBudget, CompileCache, CompileOptions, CpuClass, Finished, HostFault,
    Isolation, NnRecord, Optimisation, Request, Response, Sandbox, SandboxOptions,
    onnx::{Attribute::Int, FLOAT, Model, f32s, i64s},
};
use registry::{
    canon,
    id::{ModelHash, ModuleHash},
    job::{Limits, Profile},
    receipt::Outcome,
};

use crate::{EXE, PROBE};

/// One for all tests of this binary.
pub(crate) static REFEREE: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::new(options()).unwrap());

/// The portable profile. Its engine takes long to compile: it is kept from one run of the tests to the next.
fn options() -> SandboxOptions {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    let cache = CompileCache { key_file: dir.with_extension("key"), dir, bytes_max: 1 << 30 };
    // Other tests have the machine too.
    let budget = CompileBudget { cpu_s_max: 600, wall_ms_max: 1_800_000, ..CompileBudget::default() };
    let compile = CompileOptions { program: Some(EXE.into()), cache: Some(cache), budget };
    SandboxOptions {
        profile: Profile::Portable,
        program: Some(EXE.into()),
        compile,
        slots_max: 8,
        ..Default::default()
    }
}

/// One tensor as `infer` reads it.
fn tensor(element: TensorType, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    [numbers(&[element as u32, dims.len() as u32]), numbers(dims), numbers(&[data.len() as u32]), data.to_vec()]
        .concat()
}

/// A task that infers once on each of these lists of inputs.
fn request(sandbox: &Sandbox, model: &[u8], inferences: &[&[Vec<u8>]]) -> Request {
    let (module, hash) = (ModuleHash::of(tasks::INFER.wasm), ModelHash::of(model));
    sandbox.load_module(module, tasks::INFER.wasm).unwrap();
    sandbox.load_model(hash, model).unwrap();
    let stdin: Vec<u8> = inferences
        .iter()
        .flat_map(|inputs| [(inputs.len() as u32).to_le_bytes().to_vec(), inputs.concat()].concat())
        .collect();
    Request {
        stdin: stdin.into(),
        models: [("model".to_owned(), hash)].into(),
        limits: Limits { fuel_max: 1 << 40, ..Limits::default() },
        record: true,
        ..Request::new(module)
    }
}

fn run(sandbox: &Sandbox, request: Request) -> Finished {
    match sandbox.run(request) {
        Response::Done(finished) => Finished { wall_micros: 0, ..finished },
        Response::Fault(fault) => panic!("{fault}"),
    }
}

/// The digits' pixels as a batch of `rows`.
fn pixels(rows: u32) -> Vec<u8> {
    let numbers = |line: &str| line.split(',').map(|number| number.trim().parse().unwrap()).collect::<Vec<f32>>();
    let text = std::str::from_utf8(tasks::data::DIGITS_PIXELS).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    let values: Vec<f32> = lines.take(rows as usize).flat_map(numbers).collect();
    assert_eq!(values.len(), 64 * rows as usize);
    tensor(TensorType::F32, &[rows, 64], &f32s(&values))
}

/// Two squares of so many rows, multiplied; the largest element.
fn product() -> Vec<u8> {
    Model::new()
        .input("a", FLOAT, &[-1, -1])
        .node("MatMul", &["a", "a"], &["aa"], &[])
        .node("ReduceMax", &["aa"], &["most"], &[("keepdims", Int(0))])
        .output("most", FLOAT, &[])
        .bytes()
}

fn square(side: u32) -> Vec<u8> {
    tensor(TensorType::F32, &[side, side], &f32s(&vec![0.5; (side * side) as usize]))
}

/// The largest element of a column that is repeated so often.
fn repeated(times: i64) -> Vec<u8> {
    Model::new()
        .input("x", FLOAT, &[-1, 1])
        .constant("shape", 7, &[2], &i64s(&[1, times]))
        .node("Tile", &["x", "shape"], &["wide"], &[])
        .node("Neg", &["wide"], &["less"], &[])
        .node("Mul", &["wide", "less"], &["both"], &[])
        .node("ReduceMax", &["both"], &["most"], &[("keepdims", Int(0))])
        .output("most", FLOAT, &[])
        .bytes()
}

#[test]
fn a_result_depends_on_model_and_inputs_alone() {
    let process = SandboxOptions { isolation: Isolation::Process, ..options() };
    let ways = [
        ("in a thread", REFEREE.clone()),
        ("not optimised", Sandbox::new(SandboxOptions { optimisation: Optimisation::None, ..options() }).unwrap()),
        ("in a process", Sandbox::new(process.clone()).unwrap()),
        ("on any processor", Sandbox::new(SandboxOptions { cpu_class: Some(CpuClass::Generic), ..process }).unwrap()),
    ];
    let mut first = None;
    for (way, sandbox) in ways {
        assert_eq!(sandbox.fingerprint(), REFEREE.fingerprint(), "{way}");
        let digits = [&[pixels(7)][..], &[pixels(2)], &[pixels(7)]];
        let digits = || run(&sandbox, request(&sandbox, tasks::data::DIGITS_MODEL, &digits));
        let other = || run(&sandbox, request(&sandbox, &product(), &[&[square(40)]]));
        let found = [digits(), digits(), other(), digits(), other()];
        assert_eq!((found[0].outcome, found[0].inferences.len()), (Outcome::Ok, 3), "{way}");
        assert_eq!(found[0].inferences[0], found[0].inferences[2], "{way}");
        assert!(found[1] == found[0] && found[3] == found[0] && found[4] == found[2], "{way}: {found:?}");
        let first = first.get_or_insert_with(|| found.clone());
        assert!(*first == found, "{way}: {found:?} and not {first:?}");
    }
}

#[test]
fn it_answers_as_tracts_own_kernels_do() {
    let native = Sandbox::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap();
    let scores = |sandbox: &Sandbox| -> Vec<f32> {
        let done = run(sandbox, request(sandbox, tasks::data::DIGITS_MODEL, &[&[pixels(300)]]));
        let record: NnRecord = canon::decode(&done.nn_record.unwrap(), 1 << 20).unwrap();
        let Answer::Outputs(outputs) = &record.inferences[0].answer else { panic!("{:?}", record.inferences[0]) };
        outputs[0].data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    };
    let (own, referee) = (scores(&native), scores(&REFEREE));
    assert_eq!((own.len(), referee.len()), (3000, 3000));
    let largest = own.iter().zip(&referee).map(|(own, referee)| (own - referee).abs()).fold(0.0, f32::max);
    assert!(largest <= 1e-4, "{largest}");
}

#[test]
fn fuel_ends_an_inference_where_it_is_spent() {
    let limited = |fuel_max| {
        let request = request(&REFEREE, &product(), &[&[square(64)], &[square(64)]]);
        run(&REFEREE, Request { limits: Limits { fuel_max, ..request.limits }, ..request })
    };
    let whole = limited(1 << 40);
    assert_eq!((whole.outcome, whole.inferences.len()), (Outcome::Ok, 2));
    let fuel = whole.fuel_used;
    // A product of such squares takes this at the least; most of it is in the middle of the second inference.
    let within = fuel - 64 * 64 * 64 / 16;
    assert!(limited(fuel) == whole, "what is enough is enough");
    for fuel_max in [within, fuel - 1] {
        let cut = limited(fuel_max);
        assert_eq!((cut.outcome, cut.fuel_used), (Outcome::FuelOut, fuel_max));
    }
    assert_eq!(limited(within).inferences.len(), 1);
    // A host that has never seen the shape charges as one that has.
    let new = Sandbox::new(options()).unwrap();
    for fuel_max in [within, fuel / 3] {
        let request = request(&new, &product(), &[&[square(64)], &[square(64)]]);
        let cut = run(&new, Request { limits: Limits { fuel_max, ..request.limits }, ..request });
        assert!(cut == limited(fuel_max), "{cut:?}");
    }
}

#[test]
fn an_inference_ends_at_the_deadline_and_when_it_is_cancelled() {
    // Some seconds of work in one call of the host.
    let request = || {
        let request = request(&REFEREE, &product(), &[&[square(2048)]]);
        Request { limits: Limits { fuel_max: u64::MAX / 2, ..request.limits }, ..request }
    };
    let asked = request();
    let limits = Limits { wall_ms_max: 200, ..asked.limits };
    let late = REFEREE.run(Request { limits, ..asked });
    assert!(matches!(late, Response::Fault(HostFault::Deadline { wall_ms_max: 200 })), "{late:?}");
    let (asked, cancel) = (request(), CancelToken::new());
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| REFEREE.run_cancellable(asked, &cancel));
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
        let ran = ran.join().unwrap();
        assert!(matches!(ran, Response::Fault(HostFault::Cancelled)), "{ran:?}");
    });
}

#[test]
fn a_model_that_has_no_room_is_an_error_to_the_guest_and_one_that_breaks_its_engine_is_not_loaded() {
    let answered = |model: &[u8], inputs: &[Vec<u8>]| {
        let done = run(&REFEREE, request(&REFEREE, model, &[inputs, inputs]));
        assert_eq!((done.outcome, done.inferences.len()), (Outcome::Ok, 0));
        let record: NnRecord = canon::decode(&done.nn_record.unwrap(), 1 << 20).unwrap();
        record.inferences.into_iter().map(|answered| answered.answer).collect::<Vec<_>>()
    };
    let column = tensor(TensorType::F32, &[1, 1], &f32s(&[1.0]));
    let too_large = Answer::Errno(guest_sdk::abi::nn::Errno::TooLarge as u32);
    // Two tensors that are alive at once: within what a model may have, but not with the engine beside them.
    assert_eq!(answered(&repeated((1 << 27) - 1024), std::slice::from_ref(&column)), [too_large.clone(), too_large]);
    assert_eq!(run(&REFEREE, request(&REFEREE, &repeated(1000), &[&[column]])).inferences.len(), 1);
    // A range that never ends is a panic in tract.
    let endless = Model::new()
        .input("x", FLOAT, &[-1, 1])
        .constant("from", 7, &[], &i64s(&[0]))
        .constant("to", 7, &[], &i64s(&[9]))
        .node("Range", &["from", "to", "from"], &["list"], &[])
        .node("Cast", &["list"], &["floats"], &[("to", Int(FLOAT.into()))])
        .node("ReduceMax", &["floats"], &["most"], &[("keepdims", Int(0))])
        .node("Add", &["x", "most"], &["y"], &[])
        .output("y", FLOAT, &[])
        .bytes();
    let refused = REFEREE.load_model(ModelHash::of(&endless), &endless).unwrap_err().to_string();
    assert!(refused.contains("divide by zero"), "{refused}");
}

/// Names of instructions that glibc does without, so that its mathematics is that of another processor.
const MASKS: [&str; 3] = [
    "",
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-AVX512_VNNI,-AVX_VNNI",
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-FMA,-FMA4,-AVX,-BMI2,-ERMS",
];

#[test]
fn tracts_own_kernels_have_the_same_bits_on_every_processor_of_their_class() {
    let classes = [CpuClass::detect(), CpuClass::Generic];
    for class in classes {
        let said = MASKS.map(|mask| {
            let run = || {
                let mut probe = Command::new(PROBE);
                probe.args(["infer", class.word()]).env("GLIBC_TUNABLES", mask);
                let output = probe.output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            };
            let (first, second) = (run(), run());
            assert_eq!(first, second, "{} {mask}", class.word());
            let (engine, answers) = first.trim().split_once(' ').unwrap();
            (engine.to_owned(), answers.to_owned())
        });
        let [plain, without_512, old] = &said;
        println!("{}: {plain:?}, without AVX-512 {without_512:?}, an older one {old:?}", class.word());
        assert_eq!(plain, without_512, "{}", class.word());
        // Where the platform's mathematics has other bits, the engine is another one.
        assert!(plain.0 != old.0 || plain.1 == old.1, "{}: {said:?}", class.word());
    }
}

#[test]
fn only_the_referee_is_what_the_portable_profile_infers_with() {
    let native = SandboxOptions { profile: Profile::Native, backend: BackendOptions::Referee, ..options() };
    let described = Sandbox::description_of(&native).unwrap();
    assert!(described.backend.starts_with("tract-wasm "), "{described}");
    let portable = REFEREE.describe();
    assert_eq!((&portable.backend, &portable.device), (&described.backend, &None));
    let asked = SandboxOptions { backend: BackendOptions::Tract, ..options() };
    assert_eq!(Sandbox::description_of(&asked).unwrap(), *portable);
}
