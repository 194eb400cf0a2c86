//! Every compiled task through the sandbox, twice: what it is for, and that it comes out the same.

use std::sync::LazyLock;

use host::sandbox::{BackendOptions, Finished, HostFault, Isolation, Request, Response, Sandbox, SandboxOptions};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::{Outcome, Trap},
};
use tasks::TaskModule;

use crate::EXE;

/// One for all tests of this binary.
pub(crate) static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let sandbox = Sandbox::new(SandboxOptions::default()).expect("a sandbox");
    let model = tasks::data::DIGITS_MODEL;
    sandbox.load_model(ModelHash::of(model), model).expect("the digit classifier loads");
    sandbox
});

/// A sandbox in one jailed process of the program under test, which infers with this.
pub(crate) fn jailed(backend: BackendOptions) -> SandboxOptions {
    SandboxOptions {
        backend,
        isolation: Isolation::Process,
        program: Some(EXE.into()),
        slots_max: 1,
        ..SandboxOptions::default()
    }
}

/// A request to a task of ours.
fn request(task: &TaskModule, stdin: &[u8], args: &[&str]) -> Request {
    let module = ModuleHash::of(task.wasm);
    SANDBOX.load_module(module, task.wasm).expect("our own tasks pass preflight");
    Request {
        stdin: stdin.to_vec().into(),
        args: args.iter().map(ToString::to_string).collect(),
        limits: Limits { fuel_max: 2_000_000_000, ..Limits::default() },
        ..Request::new(module)
    }
}

/// Runs it twice; both must be the same, time apart.
fn run(request: &Request) -> Finished {
    let [first, second] = [(); 2].map(|()| match SANDBOX.run(request.clone()) {
        Response::Done(finished) => Finished { wall_micros: 0, ..finished },
        Response::Fault(fault) => panic!("the host failed: {fault}"),
    });
    assert!(first == second, "two runs differ: {first:?} and {second:?}");
    first
}

fn with_digits(request: Request) -> Request {
    let model = ModelHash::of(tasks::data::DIGITS_MODEL);
    Request { models: [("digits".to_owned(), model)].into(), ..request }
}

/// One test for each task, under its name: the list at the end does not compile without.
mod claims {
    use super::*;

    #[test]
    pub(super) fn digits() {
        let pixels = tasks::data::DIGITS_PIXELS;
        let done = run(&with_digits(request(&tasks::DIGITS, pixels, &[])));
        assert_eq!(done.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&done.stderr));
        assert!(!done.inferences.is_empty() && done.nn_root.is_some());
        let said = String::from_utf8(done.stdout.to_vec()).expect("labels are text");
        let labels = std::str::from_utf8(tasks::data::DIGITS_LABELS).expect("labels are text");
        let held_out: Vec<(&str, &str)> = said
            .lines()
            .zip(labels.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit())))
            .filter_map(|(said, label)| Some((said, label.strip_suffix(",heldout")?)))
            .collect();
        let right = held_out.iter().filter(|(said, label)| said == label).count();
        assert_eq!(held_out.len(), 540);
        assert!(right * 100 >= held_out.len() * 97, "{right} of {} held-out digits are right", held_out.len());
    }

    #[test]
    pub(super) fn wordcount() {
        let text = b"the cat and the dog\nand the bird\n";
        let done = run(&request(&tasks::WORDCOUNT, text, &[]));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(said.contains("the 3") && said.contains("and 2") && said.contains("bird 1"), "{said}");
        let mut reduce = request(&tasks::WORDCOUNT, b"and 2\nthe 3\nthe 4\n", &[]);
        reduce.env.insert(guest_sdk::abi::ENV_STAGE.into(), guest_sdk::abi::STAGE_REDUCE.into());
        assert_eq!(run(&reduce).stdout.as_ref(), b"and 2\nthe 7\n");
    }

    pub(super) use crate::steps::a_task_comes_to_the_same_in_threads_and_processes_and_from_every_snapshot as kmeans;

    #[test]
    pub(super) fn mandelbrot() {
        #[derive(serde::Serialize)]
        struct View {
            width: u32,
            height: u32,
            first_row: u32,
            rows: u32,
            steps_max: u32,
        }
        let view = View { width: 64, height: 64, first_row: 0, rows: 64, steps_max: 200 };
        let input = guest_sdk::encode(&view).expect("a view encodes");
        let done = run(&request(&tasks::MANDELBROT, &input, &[]));
        assert_eq!(done.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&done.stderr));
        assert!(done.stdout.len() > 64 * 64, "{} bytes of steps", done.stdout.len());
    }

    #[test]
    pub(super) fn digest() {
        let done = run(&request(&tasks::DIGEST, b"abc", &[]));
        let expected = "blake3 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\n\
                        sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n";
        assert_eq!(String::from_utf8_lossy(&done.stdout), expected);
    }

    #[test]
    pub(super) fn echo() {
        let input: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(run(&request(&tasks::ECHO, &input, &[])).stdout, input);
    }

    #[test]
    pub(super) fn spin() {
        let mut request = request(&tasks::SPIN, b"", &[]);
        request.limits.fuel_max = 10_000_000;
        let done = run(&request);
        assert_eq!((done.outcome, done.fuel_used), (Outcome::FuelOut, 10_000_000));
        request.limits = Limits { fuel_max: u64::MAX / 2, wall_ms_max: 300, ..request.limits };
        let fault = SANDBOX.run(request);
        assert!(matches!(fault, Response::Fault(HostFault::Deadline { .. })), "{fault:?}");
    }

    #[test]
    pub(super) fn hog() {
        let mut request = request(&tasks::HOG, b"", &[]);
        request.limits.memory_bytes_max = 16 << 20;
        let done = run(&request);
        assert_eq!(done.outcome, Outcome::MemoryOut);
        assert!(done.memory_peak_bytes <= 16 << 20);
    }

    #[test]
    pub(super) fn flood() {
        let mut request = request(&tasks::FLOOD, b"", &[]);
        request.limits.output_bytes_max = 1 << 20;
        let done = run(&request);
        assert_eq!(done.outcome, Outcome::OutputOut);
        assert!(done.stdout.len() <= 1 << 20);
    }

    #[test]
    pub(super) fn trap() {
        assert_eq!(run(&request(&tasks::TRAP, b"", &[])).outcome, Outcome::Trap(Trap::Unreachable));
    }

    #[test]
    pub(super) fn deep() {
        assert_eq!(run(&request(&tasks::DEEP, b"", &[])).outcome, Outcome::Trap(Trap::StackOverflow));
    }

    #[test]
    pub(super) fn exit() {
        for code in [0u8, 1, 3, 125, 126, 127, 255] {
            let expected = if code == 0 { Outcome::Ok } else { Outcome::Exit(code) };
            assert_eq!(run(&request(&tasks::EXIT, b"", &[&code.to_string()])).outcome, expected);
        }
    }

    #[test]
    pub(super) fn clock() {
        // Clock, random bytes, the order of a HashMap and sleeping: `run` holds two runs against each other.
        let done = run(&request(&tasks::CLOCK, b"", &[]));
        assert_eq!(done.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&done.stderr));
        let other = run(&Request { seed: [1; 32], ..request(&tasks::CLOCK, b"", &[]) });
        assert_ne!(done.stdout, other.stdout, "another task has other randomness");
    }

    /// The same source here and there: equal checksums mean equal operations, floats to the last bit.
    #[test]
    pub(super) fn kernel() {
        for kernel in &tasks::kernels::ALL {
            let expected = format!("{:016x}\n", (kernel.run)(2));
            let done = run(&request(&tasks::KERNEL, b"", &[kernel.name, "2"]));
            assert_eq!(done.outcome, Outcome::Ok, "{}", kernel.name);
            assert_eq!(done.stdout, expected.as_bytes(), "{}", kernel.name);
        }
    }

    pub(super) use crate::models::{
        lines_of_text_lie_as_rapidocr_sees_them as orient, speech_is_where_silero_hears_it as speech,
        types_of_files_are_what_magika_says as identify,
    };
    pub(super) use crate::nn::the_public_crate_finds_models_by_name_in_memory_and_in_files as nn_script;
    pub(super) use crate::wasi::every_case_of_the_guest_is_a_test as wasi_suite;

    #[test]
    pub(super) fn infer() {
        // Two inferences of one blank picture each: inputs, type, rank, dimensions, length, elements.
        let numbers = [1, guest_sdk::abi::nn::TensorType::F32 as u32, 2, 1, 64, 256].map(u32::to_le_bytes);
        let one = [numbers.as_flattened(), &[0; 256]].concat();
        let model = ModelHash::of(tasks::data::DIGITS_MODEL);
        let models = [("model".to_owned(), model)].into();
        let done = run(&Request { models, ..request(&tasks::INFER, &one.repeat(2), &[]) });
        assert_eq!((done.outcome, &done.stdout[..], done.inferences.len()), (Outcome::Ok, &b"2\n"[..], 2));
        assert_eq!(done.inferences[0], done.inferences[1]);
    }

    #[test]
    pub(super) fn bad_nn() {
        let done = run(&with_digits(request(&tasks::BAD_NN, b"", &[])));
        assert_eq!(done.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&done.stderr));
    }
}

macro_rules! claimed {
    ($task:ident) => {
        #[allow(unused_imports, reason = "only its existence matters")]
        use claims::$task as _;
    };
}
tasks::foreach_task!(claimed);

/// A program that knows nothing of us gives its own output.
#[test]
fn a_solver_of_somebody_else_runs_as_it_is() {
    let wasm = include_bytes!("../data/boolector.wasm");
    let module = ModuleHash::of(wasm);
    SANDBOX.load_module(module, wasm).expect("a WASI program passes preflight");
    let formula = b"(set-logic QF_BV)(declare-const x (_ BitVec 8))\
        (assert (= (bvmul x x) #x31))(assert (bvult x #x10))(check-sat)(get-value (x))";
    let request =
        Request { args: vec!["--smt2".into(), "-m".into()], stdin: formula.to_vec().into(), ..Request::new(module) };
    let done = run(&request);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.starts_with("sat\n") && said.contains("#b00000111"), "{:?}: {said}", done.outcome);
}
