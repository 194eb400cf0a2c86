//! Real models: the example tasks say of the same inputs what the models' own Python packages say, on every backend.
//!
//! Inputs and expectations are made by `tools/install-models` with the packages' own code; the labels must be equal, and
//! scores differ by less than [`SCORE_MAX`].

use std::collections::BTreeMap;

use bytes::Bytes;
use host::sandbox::{BackendOptions, Finished, Request, Response, Sandbox, SandboxOptions};
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
    receipt::Outcome,
};
use serde::Deserialize;
use support::models::Models;
use tasks::TaskModule;

use crate::{referee::REFEREE, sandbox::SANDBOX};

/// How far a score may be from the package's.
const SCORE_MAX: f64 = 1e-4;

/// The sandboxes to hold against the packages: one for each backend that runs here.
fn backends(models: &Models) -> Vec<(&'static str, Sandbox)> {
    let sandbox = |(name, backend)| match backend {
        BackendOptions::Tract => (name, SANDBOX.clone()),
        BackendOptions::Referee => (name, REFEREE.clone()),
        backend => (name, Sandbox::new(SandboxOptions { backend, ..SandboxOptions::default() }).expect("it starts")),
    };
    models.backends().into_iter().map(sandbox).collect()
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
fn near(backend: &str, what: &str, pairs: impl IntoIterator<Item = (String, f64, f64)>) {
    let (mut count, mut largest) = (0, (String::new(), 0.0));
    for (name, found, expected) in pairs {
        let difference = (found - expected).abs();
        count += 1;
        if difference > largest.1 {
            largest = (name, difference);
        }
    }
    println!("{what} on {backend}: {count} scores, the largest difference {:.1e}", largest.1);
    assert!(count > 0 && largest.1 <= SCORE_MAX, "{what} on {backend}: {} differs by {:e}", largest.0, largest.1);
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
    let expected = models.json::<ExpectedFiles>("identify/expected.json").files;
    let mut files = models.files("identify/files");
    files.extend(["magika.json", "magika-kinds.json"].map(|name| (name.to_owned(), models.read(name))));
    for (backend, sandbox) in backends(&models) {
        let found = lines(&sandbox, &tasks::IDENTIFY, ("magika", &models.read("magika.onnx")), &files, &[]);
        assert_eq!(found.len(), expected.len());
        let mut scores = Vec::new();
        for (line, file) in found.iter().zip(&expected) {
            let [name, label, said, model_label] = &line[..] else { panic!("{line:?}") };
            let labels = [name, label, model_label];
            assert_eq!(labels, [&file.name, &file.label, &file.model_label], "on {backend}: {line:?}");
            scores.push((name.clone(), score(said), file.score));
        }
        near(backend, "identify", scores);
    }
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
    let expected = models.json::<ExpectedSounds>("speech/expected.json").sounds;
    let files = models.files("speech");
    assert!(files.len() == expected.len() && expected.iter().any(|sound| sound.speech.len() > 2));
    for (backend, sandbox) in backends(&models) {
        let found = lines(&sandbox, &tasks::SPEECH, ("silero", &models.read("silero.onnx")), &files, &["windows"]);
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
        near(backend, "speech", scores);
    }
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
    let expected = models.json::<ExpectedImages>("orient/expected.json").images;
    let expected: BTreeMap<&str, &ExpectedImage> = expected.iter().map(|image| (image.name.as_str(), image)).collect();
    let files = models.files("orient");
    for (backend, sandbox) in backends(&models) {
        let found = lines(&sandbox, &tasks::ORIENT, ("orient", &models.read("orient.onnx")), &files, &[]);
        assert_eq!(found.len(), expected.len());
        let mut scores = Vec::new();
        for line in &found {
            let [name, label, said] = &line[..] else { panic!("{line:?}") };
            let image = expected[name.as_str()];
            assert_eq!(label, &image.label, "{name} on {backend}: {said}, not {}", image.score);
            scores.push((name.clone(), score(said), image.score));
        }
        near(backend, "orient", scores);
    }
}
