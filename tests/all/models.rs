//! Real models: the example tasks say of the same inputs what the models' own Python packages say, on every backend.
//!
//! Inputs and expectations are made by `tools/install-models` with the packages' own code; the labels must be equal, and
//! scores differ by less than [`SCORE_MAX`].

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use host::sandbox::{BackendOptions, CpuClass, Finished, Request, Response, Sandbox, SandboxOptions};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
};
use serde::Deserialize;
use support::{Cluster, models::Models};
use tasks::TaskModule;

use crate::{EXE, referee::REFEREE, sandbox::SANDBOX};

/// How far a score may be from the package's.
const SCORE_MAX: f64 = 1e-4;

/// How a sandbox is held against the packages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) extent: Extent,
    /// How far a score may be from the package's.
    pub(crate) score_max: f64,
}

/// For whatever runs on the processor.
const TERMS: Terms = Terms { extent: Extent::All, score_max: SCORE_MAX };

/// How much of the inputs a sandbox is given: of a slow one nobody waits for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    All,
    /// So many files or fewer, from all over the list, none of them long.
    Few(usize),
}

impl Extent {
    fn of(self, mut files: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
        if let Self::Few(most) = self {
            // Two seconds of sound are not long.
            files.retain(|(_, content)| content.len() <= 64 << 10);
            let step = files.len().div_ceil(most);
            files = files.into_iter().step_by(step).collect();
        }
        files
    }
}

/// Whether a file is among them.
fn has(files: &[(String, Vec<u8>)], name: &str) -> bool {
    files.iter().any(|(own, _)| own == name)
}

/// The sandboxes to hold against the packages: one for each backend that runs here.
fn backends(models: &Models) -> Vec<(&'static str, Sandbox)> {
    let sandbox = |(name, backend)| match backend {
        BackendOptions::Tract => (name, SANDBOX.clone()),
        BackendOptions::Referee => (name, REFEREE.clone()),
        backend => (name, Sandbox::new(SandboxOptions { backend, ..SandboxOptions::default() }).expect("it starts")),
    };
    models.backends_and_referee().into_iter().map(sandbox).collect()
}

/// Runs an example task over files; gives its lines, cut at tabs.
fn lines(
    sandbox: &Sandbox,
    task: &TaskModule,
    (name, model): (&str, &[u8]),
    files: &[(String, Vec<u8>)],
    args: &[&str],
) -> Vec<Vec<String>> {
    let module = ModuleHash::of(task.wasm);
    sandbox.load_module(module, task.wasm).expect("our own tasks pass preflight");
    let hash = ModelHash::of(model);
    sandbox.load_model(hash, model).unwrap_or_else(|error| panic!("{name}: {error}"));
    let files = files.iter().map(|(name, content)| (name.clone(), Bytes::from(content.clone())));
    let response = sandbox.run(Request {
        args: args.iter().map(ToString::to_string).collect(),
        files: files.collect(),
        models: BTreeMap::from([(name.to_owned(), hash)]),
        // What it takes depends on the build of the host alone.
        limits: Limits { fuel_max: u64::MAX / 2, wall_ms_max: 600_000, ..Limits::default() },
        ..Request::new(module)
    });
    let done: Finished = match response {
        Response::Done(done) => done,
        Response::Fault(fault) => panic!("{}: {fault}", task.name),
    };
    assert_eq!(done.outcome, Outcome::Ok, "{}: {}", task.name, String::from_utf8_lossy(&done.stderr));
    assert!(!done.inferences.is_empty() && done.nn_root.is_some());
    let said = String::from_utf8(done.stdout.to_vec()).expect("a task's lines are text");
    said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// Prints how near the scores came, and fails where one is not near enough.
fn near(backend: &str, what: &str, pairs: impl IntoIterator<Item = (String, f64, f64)>, score_max: f64) {
    let (mut count, mut largest) = (0, (String::new(), 0.0));
    for (name, found, expected) in pairs {
        let difference = (found - expected).abs();
        count += 1;
        if difference > largest.1 {
            largest = (name, difference);
        }
    }
    println!("{what} on {backend}: {count} scores, the largest difference {:.1e}", largest.1);
    assert!(count > 0 && largest.1 <= score_max, "{what} on {backend}: {} differs by {:e}", largest.0, largest.1);
}

fn score(text: &str) -> f64 {
    text.parse::<f32>().unwrap_or_else(|error| panic!("{text:?} is no score: {error}")).into()
}

#[derive(Deserialize)]
struct ExpectedFiles {
    files: Vec<ExpectedFile>,
}

#[derive(Deserialize)]
struct ExpectedFile {
    name: String,
    label: String,
    model_label: String,
    score: f64,
}

#[test]
pub(crate) fn types_of_files_are_what_magika_says() {
    let Some(models) = Models::or_skip() else { return };
    backends(&models).iter().for_each(|(backend, sandbox)| identify(&models, backend, sandbox, TERMS));
}

pub(crate) fn identify(models: &Models, backend: &str, sandbox: &Sandbox, terms: Terms) {
    let mut expected = models.json::<ExpectedFiles>("identify/expected.json").files;
    let mut files = terms.extent.of(models.files("identify/files"));
    files.extend(["magika.json", "magika-kinds.json"].map(|name| (name.to_owned(), models.read(name))));
    let found = lines(sandbox, &tasks::IDENTIFY, ("magika", &models.read("magika.onnx")), &files, &[]);
    expected.retain(|file| has(&files, &file.name));
    assert_eq!(found.len(), expected.len());
    let mut scores = Vec::new();
    for (line, file) in found.iter().zip(&expected) {
        let [name, label, said, model_label] = &line[..] else { panic!("{line:?}") };
        let labels = [name, label, model_label];
        assert_eq!(labels, [&file.name, &file.label, &file.model_label], "on {backend}: {line:?}");
        scores.push((name.clone(), score(said), file.score));
    }
    near(backend, "identify", scores, terms.score_max);
}

#[derive(Deserialize)]
struct ExpectedSounds {
    sounds: Vec<ExpectedSound>,
}

#[derive(Deserialize)]
struct ExpectedSound {
    name: String,
    probabilities: Vec<f64>,
    speech: Vec<Stretch>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Stretch {
    start: u64,
    end: u64,
}

#[test]
pub(crate) fn speech_is_where_silero_hears_it() {
    let Some(models) = Models::or_skip() else { return };
    backends(&models).iter().for_each(|(backend, sandbox)| speech(&models, backend, sandbox, TERMS));
}

pub(crate) fn speech(models: &Models, backend: &str, sandbox: &Sandbox, terms: Terms) {
    let mut expected = models.json::<ExpectedSounds>("speech/expected.json").sounds;
    assert!(expected.iter().any(|sound| sound.speech.len() > 2));
    let files = terms.extent.of(models.files("speech"));
    expected.retain(|sound| has(&files, &format!("{}.wav", sound.name)));
    assert_eq!(files.len(), expected.len());
    let found = lines(sandbox, &tasks::SPEECH, ("silero", &models.read("silero.onnx")), &files, &["windows"]);
    let mut scores = Vec::new();
    for sound in &expected {
        let file = format!("{}.wav", sound.name);
        let of = |kind: &str| -> Vec<&[String]> {
            found.iter().filter(|line| line[0] == file && line[1] == kind).map(|line| &line[2..]).collect()
        };
        let number = |text: &String| text.parse().expect("a sample's number");
        let stretches: Vec<Stretch> =
            of("speech").iter().map(|line| Stretch { start: number(&line[0]), end: number(&line[1]) }).collect();
        assert_eq!(stretches, sound.speech, "{file} on {backend}");
        let windows = of("window");
        assert_eq!(windows.len(), sound.probabilities.len(), "{file}");
        for (line, expected) in windows.iter().zip(&sound.probabilities) {
            scores.push((format!("{file} window {}", line[0]), score(&line[1]), *expected));
        }
    }
    near(backend, "speech", scores, terms.score_max);
}

#[derive(Deserialize)]
struct ExpectedImages {
    images: Vec<ExpectedImage>,
}

#[derive(Deserialize)]
struct ExpectedImage {
    name: String,
    label: String,
    score: f64,
}

#[test]
pub(crate) fn lines_of_text_lie_as_rapidocr_sees_them() {
    let Some(models) = Models::or_skip() else { return };
    backends(&models).iter().for_each(|(backend, sandbox)| orient(&models, backend, sandbox, TERMS));
}

pub(crate) fn orient(models: &Models, backend: &str, sandbox: &Sandbox, terms: Terms) {
    let expected = models.json::<ExpectedImages>("orient/expected.json").images;
    let expected: BTreeMap<&str, &ExpectedImage> = expected.iter().map(|image| (image.name.as_str(), image)).collect();
    let files = terms.extent.of(models.files("orient"));
    let found = lines(sandbox, &tasks::ORIENT, ("orient", &models.read("orient.onnx")), &files, &[]);
    assert_eq!(found.len(), files.len());
    assert!(terms.extent != Extent::All || found.len() == expected.len());
    let mut scores = Vec::new();
    for line in &found {
        let [name, label, said] = &line[..] else { panic!("{line:?}") };
        let image = expected[name.as_str()];
        assert_eq!(label, &image.label, "{name} on {backend}: {said}, not {}", image.score);
        scores.push((name.clone(), score(said), image.score));
    }
    near(backend, "orient", scores, terms.score_max);
}

#[tokio::test]
async fn a_push_says_which_backends_run_a_model_and_refuses_one_that_none_does() {
    let Some(models) = Models::or_skip() else { return };
    let cluster = Cluster::start(EXE, &[]).await;
    let push = async |model: &Path, more: &[&str]| {
        let model = model.to_string_lossy();
        let output = cluster.cli(&[&["push", "--model", &model], more].concat(), b"").await;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), said(&output.stdout), said(&output.stderr))
    };
    let tract = format!("tract-{}", CpuClass::detect().word());
    let runs = format!("{tract} runs it");
    let opsets = [("magika.onnx", "opset 15"), ("silero.onnx", "opset 16"), ("orient.onnx", "opset 11")];
    for (name, opset) in opsets {
        let (code, said, log) = push(&models.path(name), &[]).await;
        assert_eq!(code, Some(0), "{log}");
        assert!(said.contains(opset) && said.contains("kinds of operators (") && said.contains(&runs), "{said}");
    }
    // Where a dimension is left open nobody knows what the model would take.
    let (code, said, log) = push(&models.path("silero-op15.onnx"), &["--json"]).await;
    assert_eq!(code, Some(0), "{log}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let check = &said["checks"][0];
    assert_eq!((&check["facts"]["opsets"][""], &check["facts"]["operators"][""]["LSTM"]), (&15.into(), &2.into()));
    assert_eq!((&check["backends"][0]["backend"], &check["backends"][0]["verdict"]), (&tract.into(), &"loads".into()));
    assert!(check["backends"][0]["reason"].as_str().unwrap().contains("every open dimension is 1"), "{check:#}");

    let vector = |name: &str| models.path("vectors").join(name).join("model.onnx");
    let (code, _, log) = push(&vector("simple/test_gradient_of_add"), &[]).await;
    assert!(code == Some(2) && log.contains("Gradient") && log.contains("--allow-unrunnable"), "{log}");
    assert_eq!(push(&vector("simple/test_gradient_of_add"), &["--allow-unrunnable"]).await.0, Some(0));
    // Of an old operator set, which not every backend has kernels for any more.
    let (code, said, log) = push(&vector("pytorch-operator/test_operator_addconstant"), &[]).await;
    assert!(code == Some(0) && said.contains("opset 6, 2 kinds") && said.contains(&runs), "{said}{log}");

    let cut = cluster.scratch("cut.onnx");
    std::fs::write(&cut, &models.read("magika.onnx")[..100_000]).unwrap();
    let (code, _, log) = push(&cut, &["--allow-unrunnable"]).await;
    assert!(code == Some(2) && log.contains("not an ONNX model"), "{log}");
}
