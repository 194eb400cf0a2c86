//! One execution: check the request, instantiate, call `_start`, turn how it ended into a result or a fault.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use registry::{
    job::{self, Class, Limits},
    receipt::{Outcome, Trap},
};
use wasmtime::{Extern, PoolConcurrencyLimitError, Store};

use super::{
    LoadedModule, SandboxOptions, ThreadSandbox as Sandbox,
    fuel::{self, Fuel},
    nn::{
        Inferences, NamedModel,
        backend::Backend,
        record::{self, Recorder},
    },
    preflight::PAGE_BYTES,
    request::{CancelToken, Finished, HostFault, Ran, Request, Span},
    state::{State, Stop, Watch},
    steps::{Foreign, Steps},
    wasi::tree::Tree,
};
use crate::{clock::Stopwatch, limits};

/// One slot of the pool, given back when dropped.
pub(super) struct Slot<'a>(&'a AtomicU32);

impl<'a> Slot<'a> {
    pub(super) fn take(used: &'a AtomicU32, slots_max: u32) -> Result<Self, HostFault> {
        let slot = Self(used);
        // The guard exists before the check, so that a refusal also gives the count back.
        if used.fetch_add(1, Ordering::AcqRel) < slots_max { Ok(slot) } else { Err(HostFault::NoSlot { slots_max }) }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a request, or a span of it.
pub(super) fn run(
    sandbox: &Sandbox,
    request: Request,
    span: Span,
    cancel: Option<CancelToken>,
) -> Result<Ran, HostFault> {
    let started = Stopwatch::start();
    let infers = !request.models.is_empty();
    let watch = Watch::new(started, request.limits.wall_ms_max, cancel);
    let mut ran = finish(sandbox, request, &span, watch);
    if infers {
        sandbox.settle_models(None);
    }
    if let Ok(Ran::Done(finished)) = &mut ran {
        finished.wall_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    }
    ran
}

fn finish(sandbox: &Sandbox, request: Request, span: &Span, watch: Watch) -> Result<Ran, HostFault> {
    check(&request, &sandbox.shared.options)?;
    let module = sandbox.shared.modules.get(request.module);
    let module = module.ok_or(HostFault::ModuleMissing { module: request.module })?;
    let models = models(sandbox, &request)?;
    let limits = request.limits;
    if module.info.memory_pages_min.saturating_mul(PAGE_BYTES) > limits.memory_bytes_max {
        return Ok(Ran::Done(Box::new(empty(Outcome::MemoryOut))));
    }
    let mut steps = Steps::new(sandbox, &module, &request, span)?;
    let _slot = Slot::take(&sandbox.shared.slots_used, sandbox.shared.options.slots_max)?;
    sandbox.shared.model_counts.found.fetch_add(models.len() as u64, Ordering::Relaxed);
    let recorder = Recorder::new(&request)?;
    let inferences = Inferences::new(models, loads_with(sandbox, &request), recorder);
    let mut state = State::new(request, inferences, watch);
    if let Some(steps) = &mut steps {
        steps.put_back(&mut state)?;
    }
    let mut store = Store::new(&sandbox.shared.engine, state);
    // Threads that run tasks have it already.
    let ended = stacker::maybe_grow(limits::TASK_STACK_BYTES, limits::TASK_STACK_BYTES, || {
        execute(&mut store, &module, steps.as_mut())
    });
    let fuel = store.data().fuel;
    let balance = fuel.balance(&mut store);
    let state = store.into_data();
    let outcome = match ended {
        Ok(Some(snapshot)) => return Ok(Ran::Paused(snapshot.into())),
        // What ends between two checks may have spent more than there was.
        Ok(None) if balance < 0 => Outcome::FuelOut,
        Ok(None) => Outcome::Ok,
        Err(error) => outcome(&error, &state)?,
    };
    let outcome = match outcome {
        Outcome::Trap(_) | Outcome::Exit(_) if state.limiter.refused => Outcome::MemoryOut,
        outcome => outcome,
    };
    let fuel_used =
        if outcome == Outcome::FuelOut { limits.fuel_max } else { limits.fuel_max.saturating_sub(fuel::left(balance)) };
    let segments = steps.and_then(Steps::into_record);
    Ok(Ran::Done(Box::new(Finished { segments, ..collect(sandbox, state, outcome, fuel_used) })))
}

/// Runs it to its end, or to where a span ends: then it gives a snapshot.
fn execute(
    store: &mut Store<State>,
    module: &LoadedModule,
    mut steps: Option<&mut Steps<'_>>,
) -> wasmtime::Result<Option<Vec<u8>>> {
    store.limiter(|state| &mut state.limiter);
    let instance = module.pre.instantiate(&mut *store)?;
    let export = |store: &mut Store<State>, export| instance.get_module_export(store, export);
    let missing = || wasmtime::Error::msg("module was rewritten without its exports");
    let fuel = export(store, &module.exports.fuel).and_then(Extern::into_global).ok_or_else(missing)?;
    Fuel::start(store, fuel)?;
    if let Some(steps) = &mut steps
        && steps.goes_on()
    {
        return steps.go_on(store, instance);
    }
    for function in module.exports.start.iter().chain([&module.exports.entry]) {
        let function = export(store, function).and_then(Extern::into_func).ok_or_else(missing)?;
        function.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
    }
    match steps {
        Some(steps) => steps.begin(store, instance),
        None => Ok(None),
    }
}

/// How an error ends the task: a result, or a fault of the host.
fn outcome(error: &wasmtime::Error, state: &State) -> Result<Outcome, HostFault> {
    if state.limiter.host_failed {
        return Err(HostFault::HostMemory { detail: format!("{error:#}") });
    }
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stopped(stop, state.limits);
    }
    if let Some(foreign) = error.downcast_ref::<Foreign>() {
        return Err(HostFault::Snapshot { detail: foreign.to_string() });
    }
    let Some(trap) = error.downcast_ref::<wasmtime::Trap>() else {
        return Err(match error.downcast_ref::<PoolConcurrencyLimitError>() {
            Some(_) => HostFault::HostMemory { detail: format!("{error:#}") },
            None => internal(error),
        });
    };
    Ok(Outcome::Trap(match trap {
        wasmtime::Trap::UnreachableCodeReached => Trap::Unreachable,
        wasmtime::Trap::MemoryOutOfBounds => Trap::MemoryOutOfBounds,
        wasmtime::Trap::TableOutOfBounds => Trap::TableOutOfBounds,
        wasmtime::Trap::IndirectCallToNull => Trap::IndirectCallToNull,
        wasmtime::Trap::BadSignature => Trap::BadSignature,
        wasmtime::Trap::IntegerOverflow => Trap::IntegerOverflow,
        wasmtime::Trap::IntegerDivisionByZero => Trap::IntegerDivisionByZero,
        wasmtime::Trap::BadConversionToInteger => Trap::BadConversionToInteger,
        wasmtime::Trap::HeapMisaligned => Trap::HeapMisaligned,
        wasmtime::Trap::StackOverflow => {
            return Err(HostFault::StackOverflow { stack_bytes_max: limits::WASM_STACK_BYTES_MAX as u64 });
        }
        _ => return Err(internal(error)),
    }))
}

fn stopped(stop: &Stop, limits: Limits) -> Result<Outcome, HostFault> {
    match stop {
        // Codes have a byte, as everywhere on Unix: 256 is 0.
        Stop::Exit(code) => Ok(match code.to_le_bytes()[0] {
            0 => Outcome::Ok,
            code => Outcome::Exit(code),
        }),
        Stop::Fuel => Ok(Outcome::FuelOut),
        Stop::Output => Ok(Outcome::OutputOut),
        Stop::Abort => Ok(Outcome::Trap(Trap::Unreachable)),
        Stop::Stack => Ok(Outcome::Trap(Trap::StackOverflow)),
        Stop::Deadline => Err(HostFault::Deadline { wall_ms_max: limits.wall_ms_max }),
        Stop::Cancelled => Err(HostFault::Cancelled),
        Stop::Backend(detail) => Err(HostFault::Backend { detail: detail.clone() }),
    }
}

fn internal(error: impl std::borrow::Borrow<wasmtime::Error>) -> HostFault {
    HostFault::Internal { detail: format!("{:#}", error.borrow()).chars().take(300).collect() }
}

fn empty(outcome: Outcome) -> Finished {
    Finished {
        outcome,
        fuel_used: 0,
        stdout: Bytes::new(),
        stderr: Bytes::new(),
        files: Vec::new(),
        memory_peak_bytes: 0,
        wall_micros: 0,
        inferences: Vec::new(),
        nn_root: None,
        nn_record: None,
        segments: None,
    }
}

fn collect(sandbox: &Sandbox, state: State, outcome: Outcome, fuel_used: u64) -> Finished {
    let (inferences, recorder) = state.nn.into_record();
    let nn_root = record::root(&inferences);
    Finished {
        fuel_used,
        stdout: state.stdout.into(),
        stderr: state.stderr.into(),
        files: state.tree.map(|tree| Tree::into_outputs(*tree)).unwrap_or_default(),
        memory_peak_bytes: state.limiter.peak_bytes,
        inferences,
        nn_root,
        nn_record: recorder.into_bytes(sandbox.describe()).map(Bytes::from),
        ..empty(outcome)
    }
}

/// The rules that a checked job keeps, and this host's bounds.
pub(super) fn check(request: &Request, options: &SandboxOptions) -> Result<(), HostFault> {
    let Limits { memory_bytes_max, output_bytes_max, log_bytes_max, scratch_bytes_max, wall_ms_max, .. } =
        request.limits;
    let bounds = [
        ("memory_bytes_max", memory_bytes_max, options.memory_bytes_max),
        ("output_bytes_max", output_bytes_max, options.output_bytes_max),
        ("log_bytes_max", log_bytes_max, limits::LOG_BYTES_MAX),
        ("scratch_bytes_max", scratch_bytes_max, options.scratch_bytes_max),
        ("wall_ms_max", wall_ms_max, limits::WALL_MS_MAX),
        ("number of arguments", request.args.len() as u64, job::ARGS_MAX as u64),
        ("number of environment variables", request.env.len() as u64, job::ENV_MAX as u64),
        ("number of input files", request.files.len() as u64, job::FILES_MAX as u64),
    ];
    if let Some((what, asked, bound)) = bounds.into_iter().find(|(_, asked, bound)| asked > bound) {
        return Err(HostFault::LimitTooLarge { what: what.to_owned(), asked, bound });
    }
    let bad = |detail: &str| Err(HostFault::BadRequest { detail: detail.to_owned() });
    let texts = || request.args.iter().chain(request.env.keys()).chain(request.env.values());
    if texts().map(String::len).fold(0, usize::saturating_add) > 2 * job::ARGS_BYTES_MAX {
        return bad("arguments and environment variables are too long");
    }
    if texts().any(|text| text.contains('\0')) || request.env.keys().any(|name| name.is_empty() || name.contains('=')) {
        return bad("arguments and variables have no NUL, names of variables no `=`");
    }
    if !request.files.keys().chain(request.models.keys()).all(|name| job::is_file_name(name)) {
        return bad("file and model names are single path components");
    }
    Ok(())
}

/// What a task may load models with that it brings itself: only the exact class has results that need no record.
fn loads_with(sandbox: &Sandbox, request: &Request) -> Option<Arc<dyn Backend>> {
    let is_exact = sandbox.shared.backend.class() == Class::Exact && !request.record && request.recorded.is_none();
    // What runs in a module of ours has it only where a model was loaded before, of which no task may see anything.
    let is_ready = sandbox.shared.backend.module().is_none();
    (is_exact && is_ready).then(|| Arc::clone(&sandbox.shared.backend))
}

fn models(sandbox: &Sandbox, request: &Request) -> Result<BTreeMap<String, Arc<NamedModel>>, HostFault> {
    let find = |(name, model): (&String, &_)| match sandbox.shared.models.get(*model) {
        Some(loaded) => Ok((name.clone(), loaded)),
        None => Err(HostFault::ModelMissing { name: name.clone(), model: *model }),
    };
    request.models.iter().map(find).collect()
}
