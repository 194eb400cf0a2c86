//! `quorate push`: content goes up, a module or model may get a name.
//!
//! A module that gets a name is run on its sample first, under conditions that must not matter (`crate::lint`). One that
//! differs is no task of class `exact`; what was found goes into its manifest. Each model is tried on the backends of this
//! machine before it goes up (`check`).

mod check;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use registry::{
    id::{ManifestHash, ModelHash},
    job::{Class, Limits},
    manifest::{DESCRIPTION_BYTES_MAX, Lint, LintDifference, Manifest, ModelEncoding, ModelManifest, TaskManifest},
    name::{Name, NameStatement},
    sign::{SecretKey, Signed},
    tolerance::Tolerance,
};
use serde::Serialize;

use self::check::ModelCheck;
use super::{
    CliError, Exit, Outcome,
    connect::ConnectArgs,
    output,
    parse::{self, Pair},
    paths, wait,
};
use crate::{
    calibrate::file,
    client::Client,
    gateway::wire::{LimitsRequest, PublishedBlob},
    keys, limits,
    lint::{self, LintError},
    sandbox::Sandbox,
};

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// A module (.wasm), a model (.onnx), or any file.
    #[arg(required_unless_present = "models")]
    file: Option<PathBuf>,
    /// Publish it under this name, e.g. alice/digits@1.
    #[arg(long)]
    name: Option<Name>,
    /// A model that the module loads by a local name; or, without another file, a model to push, whatever its name ends with.
    /// Each is tried on the backends of this machine.
    #[arg(long = "model", value_name = "[NAME=]FILE")]
    models: Vec<String>,
    /// Push a model even if no backend of this machine can run it.
    #[arg(long)]
    allow_unrunnable: bool,
    /// How far answers of a model may differ, as `quorate calibrate --out` wrote it, for its manifest; may be given again.
    #[arg(long = "tolerance", value_name = "FILE")]
    tolerances: Vec<PathBuf>,
    /// What it does, in a sentence or two.
    #[arg(long, default_value = "")]
    description: String,
    /// The strongest determinism class that the module holds.
    #[arg(long, default_value = "exact", value_parser = parse::class)]
    class: Class,
    /// An input to try it on, without one an empty one: the determinism lint runs it several times before it gets its name.
    #[arg(long, value_name = "FILE")]
    sample: Option<PathBuf>,
    /// Publish a module of class `exact` even if the lint finds that its results differ.
    #[arg(long)]
    allow_nondeterministic: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// The key that signs the name; made when there is none.
    #[arg(long, value_name = "FILE", default_value_os_t = paths::publisher_key())]
    key: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What a task may use.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of a task")]
pub(super) struct LimitArgs {
    /// Fuel units: about one a wasm operation.
    #[arg(long, visible_alias = "fuel", value_name = "UNITS")]
    fuel_max: Option<u64>,
    /// Linear memory in bytes.
    #[arg(long, visible_alias = "memory-max", value_name = "BYTES")]
    memory_bytes_max: Option<u64>,
    /// Standard output and files, together, in bytes.
    #[arg(long, value_name = "BYTES")]
    output_bytes_max: Option<u64>,
    /// Files under /tmp, in bytes.
    #[arg(long, value_name = "BYTES")]
    scratch_bytes_max: Option<u64>,
    /// Time in milliseconds.
    #[arg(long, visible_alias = "wall-max", value_name = "MS")]
    wall_ms_max: Option<u64>,
}

impl LimitArgs {
    pub(super) fn request(&self) -> LimitsRequest {
        LimitsRequest {
            fuel_max: self.fuel_max,
            memory_bytes_max: self.memory_bytes_max,
            output_bytes_max: self.output_bytes_max,
            log_bytes_max: None,
            scratch_bytes_max: self.scratch_bytes_max,
            wall_ms_max: self.wall_ms_max,
        }
    }
}

/// What was pushed.
#[derive(Debug, Serialize)]
struct Pushed {
    #[serde(flatten)]
    blob: PublishedBlob,
    kind: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    models: BTreeMap<String, PublishedBlob>,
    /// What the backends of this machine make of each model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<ModelCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lint: Option<Lint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<ManifestHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Name>,
}

/// What is to be pushed.
struct Push {
    args: PushArgs,
    file: PathBuf,
    is_wasm: bool,
    is_model: bool,
    /// Models of a module.
    models: Vec<Pair>,
    tolerances: BTreeMap<ModelHash, Tolerance>,
}

impl Push {
    /// What can be refused before anything is read.
    fn new(args: PushArgs) -> Result<Self, CliError> {
        let usage = |message: String| CliError::Usage(message);
        let (file, models) = match (&args.file, args.models.as_slice()) {
            (None, [model]) => (PathBuf::from(model), Vec::new()),
            (None, _) => return Err(usage("several models belong to a module: name it as well".to_owned())),
            (Some(file), models) => {
                let pair = |text: &String| {
                    text.parse().map_err(|_| usage(format!("--model {text}: a module loads it by a name: NAME=FILE")))
                };
                (file.clone(), models.iter().map(pair).collect::<Result<_, _>>()?)
            }
        };
        let is_wasm = is_wasm(&file)?;
        let is_onnx = file.extension().is_some_and(|extension| extension == "onnx");
        let is_model = !is_wasm && (is_onnx || args.file.is_none());
        let mut tolerances = BTreeMap::new();
        for path in &args.tolerances {
            let said = file::read(path).map_err(|error| usage(error.to_string()))?;
            tolerances.insert(said.model, said.tolerance);
        }
        let push = Self { args, file, is_wasm, is_model, models, tolerances };
        push.check()?;
        Ok(push)
    }

    fn check(&self) -> Result<(), CliError> {
        let usage = |message: String| Err(CliError::Usage(message));
        let file = self.file.display();
        if !self.is_wasm && !self.models.is_empty() {
            return usage(format!("{file} is no module, so it has no models: leave out --model"));
        }
        if !self.is_wasm && !self.is_model && self.args.name.is_some() {
            return usage(format!("{file} is neither a module nor an .onnx model: only these get names"));
        }
        if self.args.description.len() > DESCRIPTION_BYTES_MAX {
            return usage(format!("description is longer than {DESCRIPTION_BYTES_MAX} bytes: shorten it"));
        }
        Ok(())
    }

    /// The files that are models.
    fn model_files(&self) -> Vec<PathBuf> {
        let own = self.is_model.then(|| self.file.clone());
        own.into_iter().chain(self.models.iter().map(Pair::path)).collect()
    }

    /// What the manifest says of a model.
    fn model(&self, blob: &PublishedBlob) -> ModelManifest {
        let model = ModelHash::from(blob.hash);
        let tolerance = self.tolerances.get(&model).copied();
        ModelManifest { model, model_bytes: blob.bytes, encoding: ModelEncoding::Onnx, tolerance }
    }
}

pub(super) async fn run(args: PushArgs) -> Outcome {
    let push = Push::new(args)?;
    let args = &push.args;
    let client = args.connect.client()?;
    let mut checks = Vec::new();
    for file in push.model_files() {
        checks.push(ModelCheck::of(&file, args.allow_unrunnable).await?);
    }
    let lint = if push.is_wasm && args.name.is_some() { lint(&push).await? } else { None };
    let blob = if push.is_wasm { module(&client, &push.file).await? } else { upload(&client, &push.file).await? };
    let models = models(&client, &push.models).await?;
    let kind = match (push.is_wasm, push.is_model) {
        (true, _) => "module",
        (false, true) => "model",
        (false, false) => "blob",
    };
    let mut pushed = Pushed { blob, kind, models, checks, lint, manifest: None, name: None };
    check_tolerances(&push, &pushed)?;
    if let Some(name) = &args.name {
        let manifest = manifest(&client, &push, &pushed).await?;
        let key = publisher_key(&args.key)?;
        client.publish_bytes(manifest.to_bytes().into()).await?;
        let statement = NameStatement::Publish { name: name.clone(), manifest: manifest.hash() };
        pushed.name = Some(client.name(&Signed::seal(&statement, &key)).await?);
        pushed.manifest = Some(manifest.hash());
    }
    show(&pushed, args.connect.json)?;
    Ok(Exit::Ok)
}

/// A tolerance of a model that is not pushed was measured on another file.
fn check_tolerances(push: &Push, pushed: &Pushed) -> Result<(), CliError> {
    let models = std::iter::once(&pushed.blob).chain(pushed.models.values());
    let models: Vec<ModelHash> = models.map(|blob| blob.hash.into()).collect();
    match push.tolerances.keys().find(|model| !models.contains(model)) {
        Some(model) => Err(CliError::Usage(format!(
            "a tolerance is for model {model}, which is none of those that are pushed: calibrate the file that is"
        ))),
        None => Ok(()),
    }
}

/// What the determinism lint says of the module; nothing, with a word to the user, when it comes to no verdict.
async fn lint(push: &Push) -> Result<Option<Lint>, CliError> {
    let args = &push.args;
    let module = read(&push.file, limits::MODULE_BYTES_MAX)?;
    Sandbox::preflight(&module).map_err(|refusal| CliError::Usage(format!("{}: {refusal}", push.file.display())))?;
    let mut models = BTreeMap::new();
    for pair in &push.models {
        models.insert(pair.name.clone(), read(&pair.path(), limits::MODEL_BYTES_MAX)?);
    }
    let sample = match &args.sample {
        Some(path) => read(path, limits::STDIN_BYTES_MAX)?,
        None => Bytes::new(),
    };
    let exe = std::env::current_exe().map_err(|source| CliError::File { path: "quorate".into(), source })?;
    let limits = args.limits.request().over(Limits::default());
    let work = lint::Work::new(module, models, sample, args.class, limits);
    let work = work.map_err(|error| CliError::Usage(error.to_string()))?;
    let linted = tokio::task::spawn_blocking(move || lint::lint(&work, &exe)).await;
    let lint = match linted.unwrap_or(Err(LintError::Thread)) {
        Ok(lint) => lint,
        Err(error) => {
            output::note(&output::escaped(&format!("the determinism lint comes to no verdict: {error}")));
            return Ok(None);
        }
    };
    if lint.difference.is_some() {
        let said = format!("{}: {}", push.file.display(), verdict(&lint));
        check_verdict(&said, args.class, args.allow_nondeterministic)?;
        output::note(&output::escaped(&format!("warning: {said}")));
    }
    Ok(Some(lint))
}

/// A module whose results differ is not published as exact, unless its publisher insists.
fn check_verdict(said: &str, class: Class, is_allowed: bool) -> Result<(), CliError> {
    if class == Class::Exact && !is_allowed {
        return Err(CliError::Failed(format!(
            "{said}: results of class exact must not differ; choose another --class, or say --allow-nondeterministic"
        )));
    }
    Ok(())
}

/// What the lint found, in a few words.
pub(super) fn verdict(lint: &Lint) -> String {
    let conditions: Vec<&str> = lint.runs.iter().map(|run| run.condition.word()).collect();
    match &lint.difference {
        None => format!("equal under {}", conditions.join(", ")),
        Some(LintDifference { condition, subject }) => {
            format!("not deterministic: {} differs under condition {}", subject.word(), condition.word())
        }
    }
}

/// A part of the lint, for the process that lints.
pub(super) fn lint_child() -> Outcome {
    let done = lint::child(std::io::stdin().lock(), std::io::stdout().lock());
    done.map(|()| Exit::Ok).map_err(|error| CliError::Failed(error.to_string()))
}

/// A file in memory.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Bytes, CliError> {
    use std::io::Read;
    let failed = |source| CliError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(CliError::Usage(format!("{}: longer than the {bytes_max} bytes that it may have", path.display())));
    }
    Ok(bytes.into())
}

async fn manifest(client: &Client, push: &Push, pushed: &Pushed) -> Result<Manifest, CliError> {
    if !push.is_wasm {
        return Ok(Manifest::Model(push.model(&pushed.blob)));
    }
    let args = &push.args;
    let sample = match &args.sample {
        Some(sample) => Some(upload(client, sample).await?.hash),
        None => None,
    };
    Ok(Manifest::Task(TaskManifest {
        description: args.description.clone(),
        module: pushed.blob.hash.into(),
        module_bytes: pushed.blob.bytes,
        models: pushed.models.iter().map(|(name, blob)| (name.clone(), push.model(blob))).collect(),
        class: args.class,
        limits: args.limits.request().over(Limits::default()),
        sample,
        lint: pushed.lint.clone(),
    }))
}

fn show(pushed: &Pushed, json: bool) -> Result<(), CliError> {
    if json {
        return output::json(pushed);
    }
    let length = output::bytes(pushed.blob.bytes);
    output::line(&format!("{:<8}  {}  {length}", pushed.kind, pushed.blob.hash))?;
    for (name, blob) in &pushed.models {
        output::line(&format!("{:<8}  {}  {}  {name}", "model", blob.hash, output::bytes(blob.bytes)))?;
    }
    for line in pushed.checks.iter().flat_map(ModelCheck::lines) {
        output::line(&line)?;
    }
    if let Some(lint) = &pushed.lint {
        output::line(&format!("{:<8}  {}", "lint", verdict(lint)))?;
    }
    if let (Some(manifest), Some(name)) = (&pushed.manifest, &pushed.name) {
        output::line(&format!("{:<8}  {manifest}", "manifest"))?;
        output::line(&format!("{:<8}  {name}", "name"))?;
    }
    Ok(())
}

/// Whether the file says that it is WebAssembly, a module or not.
pub(super) fn is_wasm(path: &Path) -> Result<bool, CliError> {
    use std::io::Read;
    let failed = |source| CliError::File { path: path.to_owned(), source };
    let mut start = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(4).read_to_end(&mut start).map_err(failed)?;
    Ok(start == b"\0asm")
}

/// Uploads a module, once it is known to be one that can run.
pub(super) async fn module(client: &Client, path: &Path) -> Result<PublishedBlob, CliError> {
    let bytes = tokio::fs::read(path).await.map_err(|source| CliError::File { path: path.to_owned(), source })?;
    Sandbox::preflight(&bytes).map_err(|refusal| CliError::Usage(format!("{}: {refusal}", path.display())))?;
    Ok(client.publish_bytes(bytes.into()).await?)
}

/// Uploads any file.
pub(super) async fn upload(client: &Client, path: &Path) -> Result<PublishedBlob, CliError> {
    let about = tokio::fs::metadata(path).await.map_err(|source| CliError::File { path: path.to_owned(), source })?;
    let bar = wait::upload_bar(about.len(), path);
    let sent = bar.clone();
    let published = client.publish_file(path, move |bytes| sent.inc(bytes)).await;
    bar.finish_and_clear();
    Ok(published?)
}

/// Uploads models by their local names.
pub(super) async fn models(client: &Client, pairs: &[Pair]) -> Result<BTreeMap<String, PublishedBlob>, CliError> {
    let mut models = BTreeMap::new();
    for pair in pairs {
        if models.insert(pair.name.clone(), upload(client, &pair.path()).await?).is_some() {
            return Err(CliError::Usage(format!("model `{}` is given twice", pair.name)));
        }
    }
    Ok(models)
}

/// The key in the file; a new one when there is none.
pub(super) fn publisher_key(path: &Path) -> Result<SecretKey, CliError> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|source| CliError::File { path: dir.to_owned(), source })?;
    }
    Ok(keys::load_or_create(path)?)
}

#[cfg(test)]
mod tests {
    use registry::{
        id::EngineFingerprint,
        manifest::{LintCondition, LintRun, LintSubject},
    };

    use super::*;

    #[test]
    fn a_module_that_differs_is_not_exact_unless_its_publisher_insists() {
        let run = |condition| LintRun { condition, engine: EngineFingerprint([1; 32]) };
        let runs = vec![run(LintCondition::Plain), run(LintCondition::Unoptimised)];
        let equal = Lint { runs, difference: None };
        assert_eq!(verdict(&equal), "equal under plain, unoptimised");
        let difference = LintDifference { condition: LintCondition::Unoptimised, subject: LintSubject::Stdout };
        let differs = verdict(&Lint { difference: Some(difference), ..equal });
        assert_eq!(differs, "not deterministic: stdout differs under condition unoptimised");
        let refused = check_verdict(&differs, Class::Exact, false).unwrap_err();
        assert!(
            refused.exit() == Exit::Failed && refused.to_string().contains("--allow-nondeterministic"),
            "{refused}"
        );
        check_verdict(&differs, Class::Exact, true).unwrap();
        check_verdict(&differs, Class::Homogeneous, false).unwrap();
    }
}
