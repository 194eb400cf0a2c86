//! Modules that are equal under every condition, results that are tampered with, and the other process.

use super::*;

fn work(module: &'static [u8], models: BTreeMap<String, Bytes>, sample: &'static [u8]) -> Work {
    let (module, sample) = (Bytes::from_static(module), Bytes::from_static(sample));
    Work::new(module, models, sample, Class::Exact, Limits::default()).unwrap()
}

/// As [`lint`], with every part run in this process.
fn lint_here(work: &Work) -> Lint {
    let parts = work.parts().into_iter().filter(|(part, _)| part.cpu_class.is_none());
    judge(parts.map(|(part, _)| here(&part))).unwrap()
}

fn words(lint: &Lint) -> Vec<&'static str> {
    lint.runs.iter().map(|run| run.condition.word()).collect()
}

#[test]
fn a_task_that_prints_all_that_could_leak_is_equal_under_every_condition() {
    let lint = lint_here(&work(tasks::CLOCK.wasm, BTreeMap::new(), b""));
    assert_eq!(lint.difference, None);
    assert_eq!(words(&lint), ["plain", "used_memory", "unoptimised", "process", "busy"]);
    let engine = |word| lint.runs.iter().find(|run| run.condition.word() == word).unwrap().engine;
    assert_eq!(engine("plain"), engine("process"));
    assert_ne!(engine("plain"), engine("unoptimised"), "the lint compiles twice in the same way");
}

#[test]
fn inference_is_equal_under_every_condition_and_stays_in_its_class() {
    let first = tasks::data::DIGITS_PIXELS.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    let models = BTreeMap::from([("digits".to_owned(), Bytes::from_static(tasks::data::DIGITS_MODEL))]);
    let work = work(tasks::DIGITS.wasm, models, first);
    assert!(work.parts().iter().all(|(part, _)| part.cpu_class.is_none()));
    assert_eq!(lint_here(&work).difference, None);
    let ran = here(&Work { conditions: vec![LintCondition::Plain], ..work }).unwrap();
    assert!(!ran[0].finished[0].inferences.is_empty(), "nothing was inferred");
}

#[test]
fn a_result_that_is_tampered_with_gives_a_difference_that_names_its_condition_and_what() {
    let plain =
        || here(&Work { conditions: vec![LintCondition::Plain], ..work(tasks::ECHO.wasm, BTreeMap::new(), b"x") });
    type Tamper = fn(&mut Finished);
    let tampers: [(Tamper, &str); 7] = [
        (|finished| finished.outcome = registry::receipt::Outcome::FuelOut, "outcome"),
        (|finished| finished.fuel_used += 1, "fuel"),
        (|finished| finished.stdout = Bytes::from_static(b"y"), "stdout"),
        (|finished| finished.files.push(("a".into(), Bytes::new())), "files"),
        (|finished| finished.stderr = Bytes::from_static(b"y"), "stderr"),
        (|finished| finished.nn_root = Some(BlobHash([1; 32])), "inferences"),
        (|finished| finished.memory_peak_bytes += 1, "memory"),
    ];
    for (tamper, word) in tampers {
        let mut other = plain().unwrap();
        other[0].condition = LintCondition::Unoptimised;
        // What comes later does not hide what comes first, and time does not count.
        tamper(&mut other[0].finished[0]);
        other[0].finished[0].memory_peak_bytes += 1;
        other[0].finished[0].wall_micros += 1;
        let after = std::iter::once_with(|| panic!("went on after a difference"));
        let lint = judge([plain(), Ok(other)].into_iter().chain(after)).unwrap();
        let found = lint.difference.unwrap();
        assert_eq!((found.condition, found.subject.word()), (LintCondition::Unoptimised, word));
        assert_eq!(words(&lint), ["plain", "unoptimised"]);
    }
    assert_eq!(judge([plain(), plain()]).unwrap().difference, None);
}

#[test]
fn a_run_without_a_result_is_no_verdict() {
    let (module, limits) = (Bytes::from_static(tasks::SPIN.wasm), Limits { wall_ms_max: 50, ..Limits::default() });
    let limits = Limits { fuel_max: u64::MAX / 2, ..limits };
    let work = Work::new(module, BTreeMap::new(), Bytes::new(), Class::Exact, limits).unwrap();
    let refused = judge(work.parts().iter().map(|(part, _)| here(part))).unwrap_err().to_string();
    assert!(refused.contains("condition plain came to no result") && refused.contains("50 ms"), "{refused}");
}

#[test]
fn the_other_process_answers_for_the_work_that_it_gets() {
    let work = work(tasks::ECHO.wasm, BTreeMap::new(), b"x");
    let mut answer = Vec::new();
    let (part, _) = work.parts().into_iter().find(|(part, apart)| *apart && part.cpu_class.is_none()).unwrap();
    child(&canon::encode(&part)[..], &mut answer).unwrap();
    let ran: Vec<Ran> = canon::decode(&answer, limits::LINT_ANSWER_BYTES_MAX).unwrap();
    let results: Vec<_> = ran.iter().map(|ran| (ran.condition.word(), ran.finished.len())).collect();
    assert_eq!(results, [("process", 1), ("busy", 3)]);
    assert!(child(&b"nonsense"[..], &mut answer).unwrap_err().to_string().contains("malformed"));
}

#[test]
fn the_task_that_fills_memory_is_the_one_in_its_text_and_fills_it() {
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "_start") (local i32)
            loop
                (memory.fill (local.get 0) (i32.const 0xa5) (i32.const 65536))
                (local.set 0 (i32.add (local.get 0) (i32.const 65536)))
                (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
            end))"#;
    assert_eq!(FILL, wat::parse_str(text).unwrap());
    let sandbox = Sandbox::new(task::alone()).unwrap();
    let limits = Limits { memory_bytes_max: 10 * PAGE_BYTES, ..Limits::default() };
    match fill_memory(&sandbox, limits).unwrap() {
        Response::Done(finished) => assert_eq!(finished.memory_peak_bytes, 10 * PAGE_BYTES),
        Response::Fault(fault) => panic!("{fault}"),
    }
}
