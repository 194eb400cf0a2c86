//! From arguments to how the task ended: read, check as the gateway does, load and run as a host does.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
    thread,
};

use grid::engines::EngineAsk;
use registry::{
    device::{Device, DeviceAsk},
    id::{BlobHash, EngineFingerprint, ModelHash, ModuleHash},
    job::{DEADLINE_MS_MAX, JobError, JobSpec, Limits, ShardInfo},
    receipt::{Execution, Output},
};

use super::{
    RunArgs,
    spans::{self, Stopped},
};
use crate::{
    calibrate::backends::{self, AtHand},
    cli::{CliError, parse::Pair, paths},
    limits,
    sandbox::{
        CompileCache, CompileOptions, Finished, HostFault, Isolation, LoadError, Measured, Sandbox, SandboxOptions,
    },
    task::{self, Call, Unfit},
};

/// What `--stdin` calls our own standard input.
const STDIN: &str = "-";

/// How it ended.
pub(super) enum Ended {
    /// A result, as a host would sign it.
    Done(Box<Done>),
    /// No host would take it.
    Rejected(Reason),
    /// This machine could not carry it through.
    Fault(Reason),
}

/// A result.
pub(super) struct Done {
    pub(super) finished: Finished,
    pub(super) output: Output,
    pub(super) execution: Execution,
    /// What its models ran on, if it has inferred.
    pub(super) device: Option<Device>,
    /// What it was allowed.
    pub(super) limits: Limits,
}

/// Why there is no result.
pub(super) struct Reason {
    /// A stable word for programs.
    pub(super) word: &'static str,
    /// One line for people.
    pub(super) detail: String,
    /// Of the sandbox, once there was one.
    pub(super) engine: Option<EngineFingerprint>,
    /// Whether it may go well another time.
    again: bool,
}

impl Reason {
    pub(super) fn new(word: &'static str, detail: impl ToString) -> Self {
        // A backend may say several lines.
        let detail = detail.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { word, detail, engine: None, again: false }
    }

    /// Why the content of a file is refused.
    fn of_file(path: &Path, error: &LoadError) -> Self {
        let again = matches!(error, LoadError::CompilerFailed { .. } | LoadError::SandboxDied { .. });
        Self { again, ..Self::new(error.word(), format!("{}: {error}", path.display())) }
    }
}

impl From<JobError> for Reason {
    fn from(error: JobError) -> Self {
        Self::new("argument", error)
    }
}

impl From<Unfit> for Reason {
    fn from(unfit: Unfit) -> Self {
        Self::new(unfit.word(), unfit)
    }
}

/// Runs it on a thread like those of a host, which have stack enough for guests.
pub(super) async fn run(args: RunArgs) -> Result<Ended, CliError> {
    let (say, said) = tokio::sync::oneshot::channel();
    let own = thread::Builder::new().name("task".into()).stack_size(limits::EXECUTOR_STACK_BYTES);
    // Whoever asked may have gone.
    own.spawn(move || drop(say.send(ended(&args)))).map_err(CliError::Runtime)?;
    // A panic is a bug of the host, and is told as a host tells it.
    Ok(said.await.unwrap_or_else(|_| Ended::Fault(Reason::new("internal", "host panicked while it ran the task"))))
}

fn ended(args: &RunArgs) -> Ended {
    let content = match Content::read(args) {
        Ok(content) => content,
        Err(reason) => return Ended::Rejected(reason),
    };
    let options = SandboxOptions { profile: args.profile, compile: compile_options(), ..task::alone() };
    let options = SandboxOptions { isolation: Isolation::Process, ..options };
    let sandbox = match start(args, &content.spec, options) {
        Ok(sandbox) => sandbox,
        Err(ended) => return ended,
    };
    let engine = Some(sandbox.fingerprint());
    match load(&sandbox, args, &content) {
        Ok(()) => execute(&sandbox, args, content),
        // What failed is this machine, not what it was given.
        Err(reason) if reason.again => Ended::Fault(Reason { engine, ..reason }),
        Err(reason) => Ended::Rejected(Reason { engine, ..reason }),
    }
}

/// The sandbox for the job: that of the backend which is named; of those with a GPU the first that starts, where a GPU is asked
/// for; else the plain one.
fn start(args: &RunArgs, spec: &JobSpec, plain: SandboxOptions) -> Result<Sandbox, Ended> {
    let rejected = |word, detail: String| Ended::Rejected(Reason::new(word, detail));
    let with = |one: AtHand| SandboxOptions { compile: plain.compile.clone(), ..one.options };
    let candidates: Vec<SandboxOptions> = match &args.backend {
        Some(name) => {
            let named = backends::named(std::slice::from_ref(name)).map_err(|word| {
                rejected(
                    "no_backend",
                    format!("no backend of this machine has a name that begins with `{word}`: see `quorate doctor`"),
                )
            })?;
            named.into_iter().take(1).map(with).collect()
        }
        None if args.device == DeviceAsk::Gpu => {
            backends::at_hand().into_iter().filter(|one| one.options.backend.is_gpu()).map(with).collect()
        }
        None => vec![plain.clone()],
    };
    let mut why = None;
    for options in candidates {
        match Sandbox::new(options) {
            Ok(sandbox) => {
                let offer = sandbox.describe().offer(Measured::default());
                return match EngineAsk::from(spec).lack(std::slice::from_ref(&offer)) {
                    None => Ok(sandbox),
                    Some(lack) => Err(rejected("engine_lacks", format!("this engine {lack}: no host runs it there"))),
                };
            }
            Err(error) => why = why.or(Some(error)),
        }
    }
    Err(match why {
        Some(error) => Ended::Fault(Reason::new("engine", error)),
        None => Ended::Fault(Reason::new("no_gpu", "this machine has no GPU that models run on: see `quorate doctor`")),
    })
}

/// As a host compiles, with what a host gives to it by default.
pub(in crate::cli) fn compile_options() -> CompileOptions {
    let dir = paths::cache_dir();
    let cache = CompileCache {
        dir: dir.join("compiled"),
        key_file: dir.join("compile.key"),
        bytes_max: limits::COMPILED_BYTES_MAX,
    };
    CompileOptions { program: CompileOptions::this_program(), cache: Some(cache), ..CompileOptions::default() }
}

/// Everything that the task needs, and the job that it would be the only shard of.
struct Content {
    spec: JobSpec,
    module: Vec<u8>,
    stdin: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
    models: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// Reads the files, and checks everything that needs no look at what is in them.
    fn read(args: &RunArgs) -> Result<Self, Reason> {
        let module = read(&args.module, limits::MODULE_BYTES_MAX)?;
        let stdin = match &args.stdin {
            None => Vec::new(),
            Some(path) if path == Path::new(STDIN) => read_from(io::stdin().lock(), path, limits::STDIN_BYTES_MAX)?,
            Some(path) => read(path, limits::STDIN_BYTES_MAX)?,
        };
        let mut left = limits::FILE_CACHE_BYTES_MAX;
        let files = read_all("file", &args.files, |path| {
            let bytes = read(path, left)?;
            left -= bytes.len() as u64;
            Ok(bytes)
        })?;
        let models = read_all("model", &args.models, |path| read(path, limits::MODEL_BYTES_MAX))?;
        let spec = JobSpec {
            args: args.args.clone(),
            env: args.env.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect(),
            files: files.iter().map(|(name, bytes)| (name.clone(), BlobHash::of(bytes))).collect(),
            models: models.iter().map(|(name, bytes)| (name.clone(), ModelHash::of(bytes))).collect(),
            class: args.class,
            profile: args.profile,
            device: args.device,
            limits: args.limits.request().over(Limits::default()),
            // A job may say so, too: the limit of the task is the one that counts here.
            deadline_ms: DEADLINE_MS_MAX,
            ..JobSpec::new(ModuleHash::of(&module), 0)
        };
        spec.check()?;
        task::check_limits(&spec.limits)?;
        Ok(Self { spec, module, stdin, files, models })
    }
}

fn read_all(
    what: &str,
    pairs: &[Pair],
    mut read: impl FnMut(&Path) -> Result<Vec<u8>, Reason>,
) -> Result<BTreeMap<String, Vec<u8>>, Reason> {
    let mut all = BTreeMap::new();
    for pair in pairs {
        if all.insert(pair.name.clone(), read(&pair.path())?).is_some() {
            return Err(Reason::new("argument", format!("{what} `{}` is given twice", pair.name)));
        }
    }
    Ok(all)
}

pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Reason> {
    match File::open(path) {
        Ok(file) => read_from(file, path, bytes_max),
        Err(error) => Err(Reason::new("file", format!("{}: {error}", path.display()))),
    }
}

fn read_from(from: impl Read, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    let read = from.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| Reason::new("file", format!("{}: {error}", path.display())))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Reason::new(
            "too_large",
            format!("{}: longer than the {bytes_max} bytes left to it", path.display()),
        ));
    }
    Ok(bytes)
}

/// Loads module and models into the sandbox, as a host does before it runs the first task of a job.
fn load(sandbox: &Sandbox, args: &RunArgs, content: &Content) -> Result<(), Reason> {
    let loaded = sandbox.load_module(content.spec.module, &content.module);
    let info = loaded.map_err(|error| Reason::of_file(&args.module, &error))?;
    task::check_memory(&info, &content.spec.limits)?;
    for pair in &args.models {
        if let (Some(hash), Some(bytes)) = (content.spec.models.get(&pair.name), content.models.get(&pair.name)) {
            sandbox.load_model(*hash, bytes).map_err(|error| Reason::of_file(&pair.path(), &error))?;
        }
    }
    Ok(())
}

fn execute(sandbox: &Sandbox, args: &RunArgs, content: Content) -> Ended {
    let engine = sandbox.fingerprint();
    let template = content.spec.template();
    let call = Call {
        template: &template,
        template_hash: template.hash(),
        shard: ShardInfo { stage: args.stage(), index: 0, count: 1 },
        input: BlobHash::of(&content.stdin),
    };
    let files = content.files.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
    let request = call.request(content.stdin.into(), files, template.limits.wall_ms_max);
    match spans::run(sandbox, &request, args) {
        Ok(finished) => {
            let output = task::output(&finished);
            let execution = call.execution(engine, &finished, &output);
            let device = finished.nn_root.and_then(|_| sandbox.describe().device.clone());
            Ended::Done(Box::new(Done { finished, output, execution, device, limits: template.limits }))
        }
        Err(Stopped::Refused(reason)) => Ended::Rejected(Reason { engine: Some(engine), ..reason }),
        Err(Stopped::File(reason)) => Ended::Fault(Reason { engine: Some(engine), ..reason }),
        Err(Stopped::Fault(fault)) => {
            let reason = Reason { engine: Some(engine), ..Reason::new(fault.word(), &fault) };
            match fault {
                HostFault::LimitTooLarge { .. } | HostFault::BadRequest { .. } | HostFault::Snapshot { .. } => {
                    Ended::Rejected(reason)
                }
                _ => Ended::Fault(reason),
            }
        }
    }
}
