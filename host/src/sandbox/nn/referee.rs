//! Inference by tract inside the sandbox: the engine itself is a module of ours, compiled to wasm.
//!
//! What a processor offers does not reach it: the module is admitted, compiled and metered as a task's own, with NaNs made
//! canonical where the profile says so. Its bits are the same on every processor, its fuel is that of every operation that it
//! did, and it can be stopped in the middle. So it decides where others differ, and it is what the portable profile infers
//! with. It takes several times as long as tract's own kernels.
//!
//! ```text
//! load   fresh instance ──────────► memory with the parsed model    kept
//! open   that memory ─────────────► memory with a compiled shape    kept, for each shape
//! run    that memory, new instance ► outputs                        memory dropped
//! ```
//!
//! **Nothing is left of earlier tasks.** Each call is of a new instance whose memory is one that was kept, so what an allocator
//! or a cache in there did in the last inference has no part in this one. That is enough, since the memory is all that lasts in
//! the module: its one global is back where it was between calls, and its table does not change (a test looks). What
//! a task pays for a shape is what loading the model and compiling it for the shape took, whether it was done for this task or
//! long before.
//!
//! **A model that breaks it.** A panic, and memory that runs out, end a call and are errors to the guest: the same on every
//! host.

#[allow(dead_code, reason = "the other half of it is for the other side")]
pub(in crate::sandbox) mod wire;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use registry::{
    device::{Device, DeviceKind},
    id::ModuleHash,
    job::{Class, Limits},
};
use wasmtime::{Engine, Extern, Memory, PoolConcurrencyLimitError, Store};

use self::wire::{Answer, Question};
use super::{
    Inferences, TensorDecl,
    backend::{Allowance, Backend, BackendError, Graph, Signature, Tensor, draw, signature},
    record::Recorder,
    tract::TRACT_VERSION,
};
use crate::{
    limits,
    sandbox::{
        LoadedModule, PAGE_BYTES, Request,
        fuel::{self, Fuel},
        state::{State, Stop, Watch},
    },
};

/// A module of ours that a backend runs.
pub(in crate::sandbox) struct OwnModule {
    pub(in crate::sandbox) hash: ModuleHash,
    pub(in crate::sandbox) bytes: &'static [u8],
}

/// The module.
pub(in crate::sandbox) fn module() -> &'static OwnModule {
    static MODULE: OnceLock<OwnModule> = OnceLock::new();
    MODULE.get_or_init(|| OwnModule { hash: ModuleHash::of(tasks::REFEREE.wasm), bytes: tasks::REFEREE.wasm })
}

/// Its name.
pub(in crate::sandbox) const REFEREE: &str = "tract-wasm";

/// The backend.
#[derive(Default)]
pub(in crate::sandbox) struct Referee {
    machine: OnceLock<Arc<Machine>>,
    /// Models are loaded one at a time, so that they need one instance more than tasks do.
    loading: Mutex<()>,
}

impl Backend for Referee {
    fn name(&self) -> &'static str {
        REFEREE
    }

    fn version(&self) -> String {
        format!("{TRACT_VERSION} ({})", module().hash.short())
    }

    fn class(&self) -> Class {
        Class::Exact
    }

    fn device(&self) -> Device {
        Device { kind: DeviceKind::Cpu, provider: self.name().to_owned(), name: "any".to_owned() }
    }

    fn module(&self) -> Option<&'static OwnModule> {
        Some(module())
    }

    fn equip(&self, engine: &Engine, module: Arc<LoadedModule>) -> Result<(), BackendError> {
        if self.machine.get().is_none() {
            // Whoever comes first is as good as any.
            let _ = self.machine.set(Arc::new(Machine::new(engine.clone(), module)?));
        }
        Ok(())
    }

    fn load(&self, bytes: &[u8]) -> Result<Arc<dyn Graph>, BackendError> {
        let machine = self.machine.get().ok_or_else(|| broken("its module is not loaded"))?;
        let _loading = lock(&self.loading);
        let mut fuel = limits::NN_REFEREE_LOAD_FUEL_MAX;
        let (answer, memory) = machine.ask(None, Question::Load(bytes).encode(), &mut fuel).map_err(unbounded)?;
        let Answer::Declared { inputs, outputs } = answer else { return Err(broken("it answers something else")) };
        let load_fuel = limits::NN_REFEREE_LOAD_FUEL_MAX - fuel;
        let machine = Arc::clone(machine);
        Ok(Arc::new(Model { machine, inputs, outputs, load_fuel, loaded: memory, shapes: Mutex::default() }))
    }
}

/// A model whose loading takes more fuel than it may.
fn unbounded(error: BackendError) -> BackendError {
    let bound = limits::NN_REFEREE_LOAD_FUEL_MAX;
    match error {
        BackendError::Fuel => {
            BackendError::TooLarge { what: "fuel for loading the model".to_owned(), value: u64::MAX, bound }
        }
        error => error,
    }
}

/// What no model brings about.
fn broken(detail: &str) -> BackendError {
    BackendError::Panic { detail: format!("referee: {detail}") }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The module, ready to be instantiated.
struct Machine {
    engine: Engine,
    module: Arc<LoadedModule>,
    /// The memory that an instance starts with.
    fresh: Vec<u8>,
}

impl Machine {
    fn new(engine: Engine, module: Arc<LoadedModule>) -> Result<Self, BackendError> {
        let mut machine = Self { engine, module, fresh: Vec::new() };
        let mut store = machine.store(Request::new(module_hash()), Limits::default(), Watch::forever());
        let instance = machine.module.pre.instantiate(&mut store).map_err(|error| ended(&error, store.data()))?;
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(|| broken("it has no memory"))?;
        machine.fresh = memory.data(&store).to_vec();
        Ok(machine)
    }

    fn store(&self, request: Request, limits: Limits, watch: Watch) -> Store<State> {
        let nothing = Inferences::new(Default::default(), None, Recorder::default());
        let mut store = Store::new(&self.engine, State::new(Request { limits, ..request }, nothing, watch));
        store.limiter(|state| &mut state.limiter);
        store
    }

    /// As [`Machine::answer`], with the memory after it.
    fn ask(
        &self,
        memory: Option<&Kept>,
        question: Vec<u8>,
        allowance: &mut dyn Allowance,
    ) -> Result<(Answer, Kept), BackendError> {
        self.answer(memory, question, allowance, |memory| Kept::new(memory, &self.fresh))
    }

    /// Has an instance with this memory answer, which draws what it takes.
    fn answer<K>(
        &self,
        memory: Option<&Kept>,
        question: Vec<u8>,
        allowance: &mut dyn Allowance,
        keep: impl FnOnce(&[u8]) -> K,
    ) -> Result<(Answer, K), BackendError> {
        let limits = Limits {
            fuel_max: *allowance.left(),
            memory_bytes_max: limits::NN_REFEREE_MEMORY_BYTES_MAX,
            output_bytes_max: limits::NN_REFEREE_ANSWER_BYTES_MAX,
            ..Limits::default()
        };
        let request = Request { stdin: Bytes::from(question), ..Request::new(module_hash()) };
        let mut store = self.store(request, limits, allowance.watch());
        // A guest that infers may be deep in its own stack.
        let ran =
            stacker::maybe_grow(limits::TASK_STACK_BYTES, limits::TASK_STACK_BYTES, || self.call(&mut store, memory));
        let fuel = store.data().fuel;
        let balance = fuel.balance(&mut store);
        *allowance.left() = fuel::left(balance);
        let memory = match ran {
            // What ends between two checks may have taken more than there was, however it ended.
            _ if balance < 0 => return Err(BackendError::Fuel),
            Ok(memory) => keep(memory.data(&store)),
            Err(error) => {
                let error = ended(&error, store.data());
                if error == BackendError::Fuel {
                    *allowance.left() = 0;
                }
                return Err(error);
            }
        };
        let state = store.into_data();
        match Answer::decode(&state.stdout) {
            Some(Answer::Refused(error)) => Err(error),
            Some(answer) => Ok((answer, memory)),
            // Only a model that has taken it over makes it say nonsense.
            None => Err(BackendError::Failed { detail: "the model's engine gives no answer".to_owned() }),
        }
    }

    fn call(&self, store: &mut Store<State>, from: Option<&Kept>) -> wasmtime::Result<Memory> {
        let missing = || wasmtime::Error::msg("module was rewritten without its exports");
        let instance = self.module.pre.instantiate(&mut *store)?;
        let memory = instance.get_memory(&mut *store, "memory").ok_or_else(missing)?;
        if let Some(from) = from {
            let more = from.bytes.saturating_sub(memory.data_size(&*store) as u64) / PAGE_BYTES;
            memory.grow(&mut *store, more)?;
            from.restore(memory.data_mut(&mut *store));
        }
        let exports = &self.module.exports;
        let export = |store: &mut Store<State>, export| instance.get_module_export(store, export).ok_or_else(missing);
        let slice = export(store, &exports.fuel)?.into_global().ok_or_else(missing)?;
        Fuel::start(store, slice)?;
        let entry = export(store, &exports.entry).map(Extern::into_func)?.ok_or_else(missing)?;
        entry.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
        Ok(memory)
    }
}

fn module_hash() -> ModuleHash {
    module().hash
}

/// How a call ended that gave no answer.
fn ended(error: &wasmtime::Error, state: &State) -> BackendError {
    if state.limiter.host_failed || error.is::<PoolConcurrencyLimitError>() {
        return broken(&format!("host has no memory: {error:#}"));
    }
    match error.downcast_ref::<Stop>() {
        Some(Stop::Fuel) => return BackendError::Fuel,
        Some(Stop::Cancelled) => return BackendError::Interrupted { cancelled: true },
        Some(Stop::Deadline) => return BackendError::Interrupted { cancelled: false },
        Some(Stop::Output) => {
            let (value, bound) = (u64::MAX, limits::NN_REFEREE_ANSWER_BYTES_MAX);
            return BackendError::TooLarge { what: "bytes of all outputs".to_owned(), value, bound };
        }
        _ => {}
    }
    if state.limiter.refused {
        let bound = limits::NN_REFEREE_MEMORY_BYTES_MAX;
        return BackendError::TooLarge { what: "bytes of the model at work".to_owned(), value: u64::MAX, bound };
    }
    match error.downcast_ref::<wasmtime::Trap>() {
        // Where compiled code has no stack left differs from host to host.
        None | Some(wasmtime::Trap::StackOverflow) => broken(&format!("{error:#}")),
        Some(trap) => {
            let said = String::from_utf8_lossy(&state.stderr);
            BackendError::Failed {
                detail: format!("{trap}: {}", said.split_whitespace().collect::<Vec<_>>().join(" ")),
            }
        }
    }
}

/// Bytes that are compared and copied at once.
const PIECE_BYTES: usize = 4096;
const ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// A memory, as far as it differs from a fresh one.
struct Kept {
    /// Its length.
    bytes: u64,
    /// Where the pieces of `content` belong, and how long each is.
    pieces: Vec<(usize, usize)>,
    content: Box<[u8]>,
}

impl Kept {
    fn new(memory: &[u8], fresh: &[u8]) -> Self {
        let mut pieces: Vec<(usize, usize)> = Vec::new();
        let mut content = Vec::new();
        for (at, piece) in memory.chunks(PIECE_BYTES).enumerate() {
            let start = at * PIECE_BYTES;
            // Memory that is grown is zero.
            if fresh.get(start..start + piece.len()).unwrap_or(&ZEROS[..piece.len()]) == piece {
                continue;
            }
            content.extend_from_slice(piece);
            match pieces.last_mut() {
                Some((last, len)) if *last + *len == start => *len += piece.len(),
                _ => pieces.push((start, piece.len())),
            }
        }
        Self { bytes: memory.len() as u64, pieces, content: content.into() }
    }

    /// Writes it over a fresh memory of its length.
    fn restore(&self, memory: &mut [u8]) {
        let mut content = &self.content[..];
        for (start, len) in &self.pieces {
            let (piece, rest) = content.split_at(*len);
            memory[*start..start + len].copy_from_slice(piece);
            content = rest;
        }
    }

    fn held_bytes(&self) -> u64 {
        (self.content.len() + self.pieces.len() * size_of::<(usize, usize)>()) as u64
    }
}

/// A model that was loaded.
struct Model {
    machine: Arc<Machine>,
    inputs: Vec<TensorDecl>,
    outputs: Vec<TensorDecl>,
    load_fuel: u64,
    loaded: Kept,
    /// Compiled shapes, the last used at the end.
    shapes: Mutex<Vec<Arc<Shape>>>,
}

/// The model compiled for one shape, or why it cannot be.
struct Shape {
    signature: Signature,
    /// Empty until somebody could pay for it.
    made: Mutex<Option<Made>>,
}

#[derive(Clone)]
struct Made {
    memory: Result<Arc<Kept>, BackendError>,
    /// What it took, loading the model included.
    fuel: u64,
}

impl Model {
    fn shape(&self, signature: &Signature) -> Arc<Shape> {
        let mut shapes = lock(&self.shapes);
        let found = shapes.iter().position(|shape| shape.signature == *signature);
        let shape = match found {
            Some(at) => shapes.remove(at),
            None => Arc::new(Shape { signature: signature.clone(), made: Mutex::new(None) }),
        };
        shapes.push(Arc::clone(&shape));
        drop(shapes);
        self.shrink(limits::NN_REFEREE_KEPT_BYTES_MAX);
        shape
    }

    /// The memory for a shape, for its price. Who asks while it is made waits, and makes it if the first one could not pay.
    fn made(&self, signature: &Signature, allowance: &mut dyn Allowance) -> Result<Arc<Kept>, BackendError> {
        let shape = self.shape(signature);
        let mut made = lock(&shape.made);
        if let Some(Made { memory, fuel }) = &*made {
            draw(allowance, *fuel)?;
            return memory.clone();
        }
        let before = *allowance.left();
        draw(allowance, self.load_fuel)?;
        let question = Question::Open(signature.clone()).encode();
        let memory = match self.machine.ask(Some(&self.loaded), question, allowance) {
            Ok((Answer::Ready, memory)) => Ok(Arc::new(memory)),
            Ok(_) => Err(broken("it answers something else")),
            // Of the task, and not of the shape.
            Err(error @ (BackendError::Fuel | BackendError::Interrupted { .. } | BackendError::Panic { .. })) => {
                return Err(error);
            }
            Err(error) => Err(error),
        };
        *made = Some(Made { memory: memory.clone(), fuel: before - *allowance.left() });
        memory
    }
}

/// All fuel, and the time that is left of a task: for work that it has paid already.
struct Paid(u64, Watch);

impl Allowance for Paid {
    fn left(&mut self) -> &mut u64 {
        &mut self.0
    }

    fn watch(&self) -> Watch {
        self.1.clone()
    }
}

impl Graph for Model {
    fn inputs(&self) -> &[TensorDecl] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorDecl] {
        &self.outputs
    }

    fn held_bytes(&self) -> u64 {
        let shapes = lock(&self.shapes).iter().map(|shape| shape.held_bytes()).fold(0, u64::saturating_add);
        self.loaded.held_bytes().saturating_add(shapes)
    }

    fn shrink(&self, bytes_max: u64) {
        let mut shapes = lock(&self.shapes);
        let mut left = bytes_max.saturating_sub(self.loaded.held_bytes());
        // From the last used on, as long as there is room.
        let mut kept = 0;
        for shape in shapes.iter().rev().take(limits::NN_PLANS_MAX) {
            let Some(rest) = left.checked_sub(shape.held_bytes()) else { break };
            (left, kept) = (rest, kept + 1);
        }
        let gone = shapes.len() - kept;
        shapes.drain(..gone);
    }

    fn open(&self, signature: &Signature, allowance: &mut dyn Allowance) -> Result<(), BackendError> {
        self.made(signature, allowance).map(drop)
    }

    fn run(&self, inputs: &[Tensor], allowance: &mut dyn Allowance) -> Result<Vec<Tensor>, BackendError> {
        // The task has paid for its shape when it opened it; others may have pushed it out since.
        let memory = self.made(&signature(inputs), &mut Paid(u64::MAX, allowance.watch()))?;
        match self.machine.answer(Some(&memory), wire::run(inputs), allowance, |_| ())? {
            (Answer::Outputs(outputs), ()) => Ok(outputs),
            _ => Err(broken("it answers something else")),
        }
    }
}

impl Shape {
    /// Nothing while it is being made.
    fn held_bytes(&self) -> u64 {
        let Ok(made) = self.made.try_lock() else { return 0 };
        made.as_ref().and_then(|made| made.memory.as_ref().ok()).map_or(0, |memory| memory.held_bytes())
    }
}

#[cfg(test)]
mod tests;
