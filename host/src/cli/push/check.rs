//! Which backends of this machine can run a model: each loads it in a jailed process, and tries one inference on made-up input.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    calibrate::{
        backends::{self, AtHand},
        measure::{Asked, MeasureError},
        samples::{Random, random},
    },
    cli::{CliError, output, run::compile_options},
    limits,
    sandbox::{ModelFacts, ModelRefusal, SandboxOptions, TensorDecl, model_preflight},
};

/// Characters of what a backend says that are shown.
const REASON_CHARS: usize = 200;

/// What is known of a model before it is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ModelCheck {
    pub(super) file: PathBuf,
    pub(super) facts: ModelFacts,
    pub(super) backends: Vec<BackendCheck>,
}

/// What one backend makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BackendCheck {
    /// Its word, e.g. `tract-avx2`.
    pub(super) backend: String,
    pub(super) verdict: BackendVerdict,
    /// Why it does not run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// Whether a backend can run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BackendVerdict {
    /// It has run it.
    Runs,
    /// It has loaded it, and has not run it on a made-up input, whose open dimensions are all 1: on a real one it may.
    Loads,
    /// It cannot.
    Refuses,
}

impl ModelCheck {
    /// Tries a model.
    ///
    /// # Errors
    /// When no backend anywhere would take the file, or none here does and the user does not insist.
    pub(super) async fn of(path: &Path, is_allowed: bool) -> Result<Self, CliError> {
        let own = path.to_owned();
        let checked = tokio::task::spawn_blocking(move || check(&own)).await;
        let check = checked.unwrap_or_else(|_| Err(CliError::Failed("checking the model panicked".to_owned())))?;
        let runs = check.backends.iter().any(|backend| backend.verdict != BackendVerdict::Refuses);
        if runs || is_allowed {
            return Ok(check);
        }
        for line in check.lines() {
            output::note(&line);
        }
        Err(CliError::Usage(format!(
            "{}: no backend of this machine can run it; to push it for hosts that can, say --allow-unrunnable",
            path.display()
        )))
    }

    /// A line on what it is, and one for each backend.
    pub(super) fn lines(&self) -> Vec<String> {
        let ModelFacts { opsets, operators, types, quantized, dynamic, .. } = &self.facts;
        let domain = |domain: &str| if domain.is_empty() { String::new() } else { format!("{domain} ") };
        let opsets: Vec<String> = opsets.iter().map(|(name, version)| format!("{}{version}", domain(name))).collect();
        let operators: Vec<String> = operators
            .iter()
            .flat_map(|(name, counts)| counts.iter().map(move |(op, count)| format!("{}{op} {count}", domain(name))))
            .collect();
        let mut about = format!(
            "opset {}, {} kinds of operators ({}), {}",
            opsets.join(", "),
            operators.len(),
            operators.join(", "),
            types.iter().cloned().collect::<Vec<_>>().join(" ")
        );
        if *quantized {
            about.push_str(", quantized");
        }
        if !dynamic.is_empty() {
            let axes: Vec<String> = dynamic.iter().map(|axis| format!("{}[{}]", axis.input, axis.axis)).collect();
            about.push_str(&format!(", open dimensions {}", axes.join(" ")));
        }
        let about: String = about.chars().take(2 * REASON_CHARS).collect();
        let mut lines = vec![format!("{:<8}  {about}", "about")];
        lines.extend(self.backends.iter().map(|BackendCheck { backend, verdict, reason }| {
            let said = match verdict {
                BackendVerdict::Runs => "runs it",
                BackendVerdict::Loads => "loads it, and was not seen to run it",
                BackendVerdict::Refuses => "cannot run it",
            };
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            format!("{:<8}  {backend} {said}{reason}", "backend")
        }));
        lines.iter().map(|line| output::escaped(line)).collect()
    }
}

fn check(path: &Path) -> Result<ModelCheck, CliError> {
    let bytes = super::read(path, limits::MODEL_BYTES_MAX)?;
    let refused = |refusal: ModelRefusal| CliError::Usage(format!("{}: {refusal}", path.display()));
    let facts = model_preflight(&bytes).map_err(refused)?;
    let backends = backends::at_hand().into_iter().map(|at_hand| ask(at_hand, &bytes)).collect();
    Ok(ModelCheck { file: path.to_owned(), facts, backends })
}

/// What one backend makes of the model.
fn ask(AtHand { name, options }: AtHand, model: &Bytes) -> BackendCheck {
    let options = SandboxOptions { compile: compile_options(), ..options };
    let (verdict, reason) = match Asked::start(AtHand { name: name.clone(), options }, model) {
        Ok(asked) => match tried(&asked) {
            Ok(()) => (BackendVerdict::Runs, None),
            Err(reason) => (BackendVerdict::Loads, Some(reason)),
        },
        Err(MeasureError::Load(error)) => (BackendVerdict::Refuses, Some(error.to_string())),
        Err(error) => (BackendVerdict::Refuses, Some(error.to_string())),
    };
    BackendCheck { backend: name, verdict, reason: reason.map(|reason| one_line(&reason)) }
}

/// One inference on made-up input.
fn tried(asked: &Asked) -> Result<(), String> {
    let samples =
        random(&asked.model, Random { samples: 1, ..Random::default() }).map_err(|error| error.to_string())?;
    let is_open = |input: &TensorDecl| input.dims.as_ref().is_none_or(|dims| dims.contains(&None));
    let failed = |error| match error {
        MeasureError::Fails { errno, .. } if asked.model.inputs.iter().any(is_open) => {
            format!("error number {errno} on made-up input, of which every open dimension is 1: give it a real one")
        }
        MeasureError::Fails { errno, .. } => format!("error number {errno} on made-up input"),
        error => error.to_string(),
    };
    asked.answers(&samples).map(drop).map_err(failed)
}

/// A backend may say several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(REASON_CHARS).collect()
}
