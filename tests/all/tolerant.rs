//! Inference that others can check: a tolerance is measured and published, what models answered is recorded where they
//! answered, and whoever replays the record tells an answer that is not the model's, by its number and its first element.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use guest_sdk::abi;
use host::{
    calibrate::file,
    client::answers::JobAnswer,
    sandbox::{
        Answer, BackendOptions, CpuClass, Finished, NN_RECORD_VERSION, NnRecord, NnTensor, Request, Response, Sandbox,
        SandboxOptions,
    },
};
use registry::{
    canon,
    id::{BlobHash, ModelHash, ModuleHash, NodeId, OperatorId, TaskId},
    job::{Class, JobInput, JobSpec, Policy, ShardInfo, Split, Stage, TaskKey},
    membership::NodeCert,
    preimage::Preimage,
    receipt::{Accepted, Execution, Output, Receipt, Record, Witness},
    sign::{SecretKey, Signed},
    tolerance::{PPM, Tolerance, TopAgreement},
};
use serde_json::Value;
use support::{
    Cluster, Conduct, cli,
    models::Models,
    standins::{StandIn, stand_in},
};

use crate::{EXE, sandbox::SANDBOX};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a verb that has to work; gives its standard output.
async fn say(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.cli(args, b"").await;
    assert!(output.status.success(), "quorate {args:?}: {}\n{}", text(&output.stderr), cluster.logs());
    text(&output.stdout)
}

/// Replays the one record in a folder; gives the exit code and what is said of it.
async fn replay(dir: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let here = dir.to_string_lossy();
    let output = cli(EXE, None, &[&["receipt", "replay", "--json", &here], args].concat(), b"").await;
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", text(&output.stderr)));
    (output.status.code(), said[0].clone())
}

/// Arrays as NumPy writes them, of `<f4`.
fn npy(dims: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[tokio::test]
async fn a_tolerance_goes_from_calibration_to_the_manifest_to_the_job_to_the_replay() {
    if CpuClass::detect() == CpuClass::Generic {
        println!("skipped: this processor has one class of kernels only, so there is nothing to calibrate");
        return;
    }
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 2]).await;
    let path = |name: &str| cluster.scratch(name).to_string_lossy().into_owned();
    let (wasm, model, pixels) = (path("digits.wasm"), path("digits.onnx"), path("pixels.csv"));
    std::fs::write(&wasm, tasks::DIGITS.wasm).unwrap();
    std::fs::write(&model, tasks::data::DIGITS_MODEL).unwrap();
    std::fs::write(&pixels, tasks::data::DIGITS_PIXELS).unwrap();

    // Over inputs that are made up, and over given ones.
    let (made_up, given) = (path("made-up.json"), path("given.json"));
    let range = ["--samples", "200", "--range", "0..16", "--backends", "tract"];
    let said = say_alone(&[&["calibrate", &model, "--out", &made_up], &range[..]].concat()).await;
    assert!(said.contains("tract-avx2 - tract-generic") && said.contains("tolerance, 4 times"), "{said}");
    let inputs = cluster.scratch("inputs");
    std::fs::create_dir(&inputs).unwrap();
    for (at, line) in text(tasks::data::DIGITS_PIXELS).lines().take(50).enumerate() {
        let row: Vec<f32> = line.split(',').map(|pixel| pixel.parse().unwrap()).collect();
        std::fs::write(inputs.join(format!("{at:02}.npy")), npy("1, 64", &row)).unwrap();
    }
    let inputs = inputs.to_string_lossy();
    let said = say_alone(&["calibrate", &model, "--inputs", &inputs, "--out", &given, "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["samples"], 50);
    let measured = file::read(Path::new(&given)).unwrap();
    assert_eq!(measured.model, ModelHash::of(tasks::data::DIGITS_MODEL));

    // One that was measured on another model is for no model here.
    let other = path("other.onnx");
    std::fs::write(&other, stand_in(tasks::data::DIGITS_MODEL, StandIn::Half)).unwrap();
    let (named, others) = (format!("digits={model}"), format!("digits={other}"));
    let push = ["push", &wasm, "--name", "alice/digits@1", "--class", "tolerant", "--tolerance", &given, "--model"];
    let refused = cluster.cli(&[&push[..], &[&others]].concat(), b"").await;
    assert!(text(&refused.stderr).contains("calibrate the file that is"), "{}", text(&refused.stderr));
    let pushed = say(&cluster, &[&push[..], &[&named]].concat()).await;
    assert!(pushed.contains("tract-avx2 runs it") && pushed.contains("tract-generic runs it"), "{pushed}");
    let Tolerance { atol_exp2, rtol_exp2, .. } = measured.tolerance;
    let shown = say(&cluster, &["names", "alice/digits@1"]).await;
    assert!(shown.contains(&format!("2^{atol_exp2} + 2^{rtol_exp2} of the value")), "{shown}");

    let said = say(&cluster, &["submit", "alice/digits@1", "--input", &pixels, "--split", "lines=600"]).await;
    assert_eq!(said.as_bytes(), crate::digits::truth());
    let jobs: Vec<JobAnswer> = serde_json::from_str(&say(&cluster, &["jobs", "--json"]).await).unwrap();
    let (job, kept) = (jobs[0].id.to_string(), tempfile::tempdir().unwrap());
    let kept = kept.path();
    say(&cluster, &["receipt", "get", &job, "--out", &kept.to_string_lossy(), "--content"]).await;
    drop(say_alone(&["receipt", "verify", &kept.to_string_lossy()]).await);
    let record = Record::from_bytes(&std::fs::read(kept.join("map-000001.cbor")).unwrap()).unwrap().check().unwrap();
    assert_eq!(record.execution.class, Class::Tolerant);
    let answers = record.nn_record.expect("the receipts name what the models answered");
    assert!(kept.join("content").join(answers.to_string()).is_file(), "and it is among what was fetched");
    let data_dir = cluster.data_dir().to_owned();
    drop(cluster);
    assert!(!data_dir.exists(), "nothing else is left");
    let (code, said) = replay(&kept.join("map-000001.cbor"), &[]).await;
    assert_eq!((code, &said["verdict"]), (Some(0), &"equal".into()), "{said:#}");
    let of_model = &said["replayed"]["answers"]["models"][0];
    assert_eq!((&of_model["answers"], &of_model["tolerance"]["atol_exp2"]), (&3.into(), &atol_exp2.into()), "{said:#}");
}

/// As [`say`], of no grid.
async fn say_alone(args: &[&str]) -> String {
    let output = cli(EXE, None, args, b"").await;
    assert!(output.status.success(), "quorate {args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What the digits' scores may differ by.
const TOLERANCE: Tolerance =
    Tolerance { atol_exp2: -12, rtol_exp2: -16, top: Some(TopAgreement { k: 1, agreement_ppm: PPM }) };
/// Lines of the one task: three inferences, of 256, 256 and 88 rows.
const LINES: usize = 600;

/// A folder with a job of one task, which a host signs whatever it likes for.
struct Desk {
    dir: tempfile::TempDir,
    spec: JobSpec,
    input: Bytes,
}

impl Desk {
    fn new(class: Class) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lines = text(tasks::data::DIGITS_PIXELS);
        let input = Bytes::from(lines.split_inclusive('\n').take(LINES).collect::<String>());
        let model = ModelHash::of(tasks::data::DIGITS_MODEL);
        let tolerances = if class == Class::Tolerant { [("digits".to_owned(), TOLERANCE)].into() } else { [].into() };
        let spec = JobSpec {
            models: [("digits".to_owned(), model)].into(),
            tolerances,
            input: JobInput::Blob(BlobHash::of(&input)),
            split: Split::Each,
            policy: Policy::Quorum(1),
            class,
            ..JobSpec::new(ModuleHash::of(tasks::DIGITS.wasm), 1)
        };
        spec.check().unwrap();
        let desk = Self { dir, spec, input };
        std::fs::create_dir(desk.dir.path().join("content")).unwrap();
        desk.put(desk.spec.id().0, &canon::encode(&desk.spec));
        for blob in [tasks::DIGITS.wasm, tasks::data::DIGITS_MODEL, &desk.input] {
            desk.put(BlobHash::of(blob).0, blob);
        }
        desk
    }

    fn path(&self, name: [u8; 32]) -> PathBuf {
        self.dir.path().join("content").join(BlobHash(name).to_string())
    }

    fn put(&self, name: [u8; 32], bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    const SHARD: ShardInfo = ShardInfo { stage: Stage::Map, index: 0, count: 1 };

    fn task(&self) -> TaskId {
        let input = BlobHash::of(&self.input);
        TaskId(TaskKey { template: self.spec.template().hash(), shard: Self::SHARD, input }.name())
    }

    /// Runs the task as a host does; `recorded` are answers that the models are said to give.
    fn run(&self, sandbox: &Sandbox, recorded: Option<&NnRecord>) -> Finished {
        let env = [(abi::ENV_SHARD, "0"), (abi::ENV_SHARDS, "1"), (abi::ENV_STAGE, abi::STAGE_MAP)];
        let request = Request {
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            stdin: self.input.clone(),
            models: self.spec.models.clone(),
            limits: self.spec.limits,
            seed: self.task().0,
            record: true,
            recorded: recorded.map(|record| record.to_bytes().into()),
            ..Request::new(self.spec.module)
        };
        sandbox.load_module(self.spec.module, tasks::DIGITS.wasm).unwrap();
        sandbox.load_model(ModelHash::of(tasks::data::DIGITS_MODEL), tasks::data::DIGITS_MODEL).unwrap();
        match sandbox.run(request) {
            Response::Done(finished) => finished,
            Response::Fault(fault) => panic!("{fault}"),
        }
    }

    /// A host signs that this is what came out.
    fn sign(&self, sandbox: &Sandbox, finished: &Finished, record: Option<&NnRecord>) {
        let output = Output {
            stdout: BlobHash::of(&finished.stdout),
            stdout_bytes: finished.stdout.len() as u64,
            files: Vec::new(),
        };
        let execution = Execution {
            task: self.task(),
            module: self.spec.module,
            class: self.spec.class,
            engine: sandbox.fingerprint(),
            outcome: finished.outcome,
            fuel_used: finished.fuel_used,
            output: output.hash(),
            nn_root: finished.nn_root,
            segment_root: None,
        };
        let record = record.map(NnRecord::to_bytes);
        let (node, operator) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let receipt = Receipt {
            job: self.spec.id(),
            shard: Self::SHARD,
            execution,
            device: sandbox.describe().device.clone(),
            node: NodeId(node.public()),
            operator: OperatorId(operator.public()),
            nonce: 7,
            price_micro: 0,
            nn_record: record.as_ref().map(|record| BlobHash::of(record)),
            segment_record: None,
        };
        let cert = NodeCert { node: NodeId(node.public()), issued_ms: 0 };
        let witness = Witness { receipt: Signed::seal(&receipt, &node), cert: Signed::seal(&cert, &operator) };
        let accepted = Record::Accepted(Accepted { quorum: 1, witnesses: vec![witness], drawn: None });
        accepted.check().unwrap();
        self.put(output.hash().0, &canon::encode(&output));
        self.put(output.stdout.0, &finished.stdout);
        self.put(sandbox.fingerprint().0, &canon::encode(sandbox.describe()));
        if let Some(record) = record {
            self.put(BlobHash::of(&record).0, &record);
        }
        std::fs::write(self.record(), accepted.to_bytes()).unwrap();
    }

    /// What the task's inferences answer with another model under the name of the right one.
    fn answers_of(&self, model: &[u8]) -> Vec<Answer> {
        SANDBOX.load_model(ModelHash::of(model), model).unwrap();
        let spec =
            JobSpec { models: BTreeMap::from([("digits".to_owned(), ModelHash::of(model))]), ..self.spec.clone() };
        let other = Self { spec, input: self.input.clone(), dir: tempfile::tempdir().unwrap() };
        recorded(&other.run(&SANDBOX, None)).inferences.into_iter().map(|one| one.answer).collect()
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join("map-000000.cbor")
    }

    /// What a host would sign that is honest, but for what its models are said to answer: everything else follows from that.
    fn forge(&self, sandbox: &Sandbox, lie: impl FnOnce(&mut NnRecord)) {
        let mut record = recorded(&self.run(sandbox, None));
        lie(&mut record);
        let finished = self.run(sandbox, Some(&record));
        assert_eq!(finished.nn_root, record.root(), "the task has it from the record");
        self.sign(sandbox, &finished, Some(&record));
    }
}

fn recorded(finished: &Finished) -> NnRecord {
    canon::decode(finished.nn_record.as_ref().expect("a record"), usize::MAX).unwrap()
}

fn scores(record: &mut NnRecord, inference: usize) -> &mut NnTensor {
    match &mut record.inferences[inference].answer {
        Answer::Outputs(outputs) => &mut outputs[0],
        answer => panic!("{answer:?}"),
    }
}

/// Changes one element.
fn change(tensor: &mut NnTensor, element: usize, change: impl FnOnce(f32) -> f32) {
    let bytes = &mut tensor.data.0[4 * element..4 * element + 4];
    let value = change(f32::from_le_bytes(bytes.try_into().unwrap()));
    bytes.copy_from_slice(&value.to_le_bytes());
}

/// What is said of a lie about an answer: inference, output, element.
fn told(said: &Value) -> (u64, u64, u64) {
    let difference = &said["replayed"]["difference"];
    assert_eq!((&said["verdict"], &difference["what"]), (&"different".into(), &"answer".into()), "{said:#}");
    let number = |name: &str| difference[name].as_u64().unwrap_or_else(|| panic!("{said:#}"));
    (number("index"), number("output"), number("element"))
}

#[tokio::test]
async fn an_honest_record_replays_and_one_that_is_off_by_no_more_than_its_tolerance() {
    let desk = Desk::new(Class::Tolerant);
    desk.forge(&SANDBOX, |_| {});
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["verdict"]), (Some(0), &"equal".into()), "{said:#}");
    desk.forge(&SANDBOX, |record| {
        for inference in 0..3 {
            let tensor = scores(record, inference);
            for element in 0..tensor.data.0.len() / 4 {
                change(tensor, element, |score| score + 0.9 * TOLERANCE.bound(score.into()) as f32);
            }
        }
    });
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["verdict"]), (Some(0), &"within".into()), "{said:#}");
    let people = text(&cli(EXE, None, &["receipt", "replay", &desk.record().to_string_lossy()], b"").await.stdout);
    assert!(people.contains("models within their tolerance; models answered on tract"), "{people}");

    // Whoever replays may ask for less.
    let strict = desk.dir.path().join("strict.json");
    let tolerance = r#"{"atol_exp2": -30, "rtol_exp2": -30}"#;
    let model = ModelHash::of(tasks::data::DIGITS_MODEL);
    std::fs::write(&strict, format!(r#"{{"model": "{model}", "tolerance": {tolerance}}}"#)).unwrap();
    let (code, said) = replay(&desk.record(), &["--tolerance", &strict.to_string_lossy()]).await;
    assert_eq!((code, told(&said)), (Some(1), (0, 0, 0)), "{said:#}");
}

#[tokio::test]
async fn who_answers_something_else_is_told_by_the_inference_and_its_first_element() {
    let desk = Desk::new(Class::Tolerant);

    // One element, by a little more than it may.
    desk.forge(&SANDBOX, |record| {
        change(scores(record, 2), 123, |score| score + 1.1 * TOLERANCE.bound(score.into()) as f32);
    });
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, told(&said)), (Some(1), (2, 0, 123)), "{said:#}");
    let people = text(&cli(EXE, None, &["receipt", "replay", &desk.record().to_string_lossy()], b"").await.stdout);
    let expected = "is outside its tolerance: output 0, element 123: ";
    assert!(people.contains("number 2, of model") && people.contains(expected), "{people}");

    // Another model, whose answers are said to be this one's.
    for how in [StandIn::Shuffled, StandIn::Moved(0.01), StandIn::Int8] {
        let other = stand_in(tasks::data::DIGITS_MODEL, how);
        let answers = desk.answers_of(&other);
        desk.forge(&SANDBOX, |record| {
            for (answered, other) in record.inferences.iter_mut().zip(&answers) {
                answered.answer = other.clone();
            }
        });
        let (code, said) = replay(&desk.record(), &[]).await;
        assert_eq!((code, told(&said).0), (Some(1), 0), "{how:?}: {said:#}");
    }

    // The right model, of the second inference only half of each row.
    let lines: Vec<String> = text(&desk.input).lines().map(str::to_owned).collect();
    let cut: String = lines.iter().map(|line| cut(line)).collect();
    let halved = Desk { input: cut.into(), ..Desk::new(Class::Tolerant) };
    let answers = halved.answers_of(tasks::data::DIGITS_MODEL);
    desk.forge(&SANDBOX, |record| record.inferences[1].answer = answers[1].clone());
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, told(&said).0), (Some(1), 1), "{said:#}");

    // No outputs at all.
    desk.forge(&SANDBOX, |record| {
        // With that the task gives up.
        record.inferences[1].answer = Answer::Errno(6);
        record.inferences.truncate(2);
    });
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["replayed"]["difference"]["what"]), (Some(1), &"answer".into()), "{said:#}");
    assert_eq!(said["replayed"]["difference"]["answer"], "kind", "{said:#}");
}

/// A line of pixels with its second half empty.
fn cut(line: &str) -> String {
    let half = line.split(',').take(32);
    half.chain(std::iter::repeat_n("0", 32)).collect::<Vec<_>>().join(",") + "\n"
}

#[tokio::test]
async fn what_is_no_inference_stays_exact() {
    // An output that does not follow from the answers, and fuel that nobody spent.
    let desk = Desk::new(Class::Tolerant);
    let honest = desk.run(&SANDBOX, None);
    let record = recorded(&honest);
    let mut stdout = honest.stdout.to_vec();
    stdout[0] ^= 1;
    desk.sign(&SANDBOX, &Finished { stdout: stdout.into(), ..honest.clone() }, Some(&record));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["replayed"]["difference"]["what"]), (Some(1), &"output".into()), "{said:#}");
    desk.sign(&SANDBOX, &Finished { fuel_used: honest.fuel_used + 1, ..honest.clone() }, Some(&record));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["replayed"]["difference"]["what"]), (Some(1), &"fuel".into()), "{said:#}");

    // A record that is not the signed one, of another version, or not there.
    desk.sign(&SANDBOX, &honest, Some(&record));
    let path = desk.path(BlobHash::of(&record.to_bytes()).0);
    std::fs::write(&path, b"something else").unwrap();
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["reason"]), (Some(1), &"hash".into()), "{said:#}");
    std::fs::remove_file(&path).unwrap();
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["reason"]), (Some(1), &"content_missing".into()), "{said:#}");
    let mut moved = record.clone();
    change(scores(&mut moved, 0), 0, |score| score + 1.0);
    desk.sign(&SANDBOX, &honest, Some(&moved));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["reason"]), (Some(1), &"nn_root".into()), "{said:#}");
    desk.sign(&SANDBOX, &honest, Some(&NnRecord { version: NN_RECORD_VERSION + 1, ..record }));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["reason"]), (Some(1), &"nn_record".into()), "{said:#}");
}

#[tokio::test]
async fn an_exact_job_and_a_homogeneous_one_give_no_room_at_all() {
    let next_after = |score: f32| f32::from_bits(score.to_bits() + 1);
    // Exact: the record is nobody's business, and the root is compared.
    let desk = Desk::new(Class::Exact);
    let honest = desk.run(&SANDBOX, None);
    desk.sign(&SANDBOX, &honest, None);
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["verdict"]), (Some(0), &"equal".into()), "{said:#}");
    assert!(said["replayed"]["answers"].is_null(), "{said:#}");
    desk.forge(&SANDBOX, |record| change(scores(record, 1), 7, next_after));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, &said["replayed"]["difference"]["what"]), (Some(1), &"inferences".into()), "{said:#}");

    let desk = Desk::new(Class::Homogeneous);
    desk.forge(&SANDBOX, |_| {});
    assert_eq!(replay(&desk.record(), &[]).await.0, Some(0));
    desk.forge(&SANDBOX, |record| change(scores(record, 1), 7, next_after));
    let (code, said) = replay(&desk.record(), &[]).await;
    assert_eq!((code, told(&said)), (Some(1), (1, 0, 7)), "{said:#}");
    assert_eq!(said["replayed"]["difference"]["has_tolerance"], false);
}

#[tokio::test]
async fn what_one_backend_answered_is_within_the_tolerance_on_another() {
    let Some(models) = Models::or_skip() else { return };
    for (name, backend) in models.backends().into_iter().filter(|(_, backend)| *backend != BackendOptions::Tract) {
        let theirs = Sandbox::new(SandboxOptions { backend, ..SandboxOptions::default() }).unwrap();
        let desk = Desk::new(Class::Tolerant);
        let honest = desk.run(&theirs, None);
        desk.sign(&theirs, &honest, Some(&recorded(&honest)));
        // Judged on tract, and on the backend itself where this machine has it.
        for on in ["tract", ""] {
            let args = if on.is_empty() { vec![] } else { vec!["--backend", on] };
            let (code, said) = replay(&desk.record(), &args).await;
            // They may well agree to the bit.
            let verdict = said["verdict"].as_str().unwrap();
            assert_eq!((code, matches!(verdict, "equal" | "within")), (Some(0), true), "{name} on {on}: {said:#}");
            let answers = &said["replayed"]["answers"];
            assert!(answers["backend"].as_str().unwrap().starts_with(on), "{said:#}");
        }
        desk.forge(&theirs, |record| change(scores(record, 0), 5, |score| score + 1.0));
        let (code, said) = replay(&desk.record(), &["--backend", "tract"]).await;
        assert_eq!((code, told(&said)), (Some(1), (0, 0, 5)), "{said:#}");
    }
}
