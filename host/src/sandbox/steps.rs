//! Tasks in steps: a module that exports `step` is called again and again, and between two calls nothing of it is on a stack.
//!
//! ```text
//! _start ─state 0─ step step step ─state 1─ step step ─state 2─ step: done
//! └ segment 0 ┘    └─ segment 1 ─┘          └ segment 2 ┘       └ segment 3, to the end
//! ```
//! - **Where a segment ends** follows from the task alone: after `_start`, and after the step in which its fuel reaches
//!   [`Steps::due`]. That is a share of all the task's fuel, so that no task has more than
//!   [`SEGMENTS_MAX`] segments, and many times what the state costs.
//! - **Only where the task holds nothing but its memory**: while it has a file or a graph open, or has written below `/out` or
//!   `/tmp`, a segment goes on. What cannot be told between two steps at all is refused before the module is compiled:
//!   tables that change, dropped segments, globals that are no numbers.
//! - **What a state costs** is what reading the whole memory costs in any call of the host. All pages are hashed each time:
//!   comparing them with a copy first would take 0.4 to 0.8 of the time, and as much memory again.
//! - **Going on** from a snapshot is a new instance with memory and globals put back. Each state begins a new slice of fuel, so
//!   that nothing depends on where a task was cut.
//!
//! Modules without `step` have none of this.

use guest_sdk::abi;
use registry::{
    id::{BlobHash, EngineFingerprint, ModuleHash, StateRoot, TaskId},
    job::{Limits, Profile},
    segment::{
        self, MemoryState, SEGMENTS_MAX, SNAPSHOT_HEAD_BYTES_MAX, SegmentRecord, Snapshot, Stream, chain, chained,
        memory_root,
    },
};
use wasmtime::{Global, Instance, Memory, Store, TypedFunc, Val};

use super::{
    LoadedModule, StepExports, ThreadSandbox as Sandbox,
    fuel::{self, Fuel},
    preflight::PAGE_BYTES,
    request::{HostFault, Request, Span},
    state::State,
    wasi::tree::Zone,
};
use crate::{clock::Stopwatch, limits};

/// Length in bytes that a snapshot of a task with these limits may have.
pub fn snapshot_bytes_max(limits: &Limits) -> u64 {
    let streams = limits.output_bytes_max.saturating_add(limits.log_bytes_max);
    limits.memory_bytes_max.saturating_add(streams).saturating_add(SNAPSHOT_HEAD_BYTES_MAX as u64)
}

/// Whether a task may have so many segments.
pub(super) fn is_record(record: &SegmentRecord) -> bool {
    !record.states.is_empty() && record.states.len() < SEGMENTS_MAX as usize
}

/// The steps of one task.
pub(super) struct Steps<'a> {
    exports: &'a StepExports,
    module: ModuleHash,
    task: TaskId,
    engine: EngineFingerprint,
    profile: Profile,
    limits: Limits,
    /// What to go on from.
    from: Option<Snapshot<'a>>,
    /// The state to stop at.
    until: Option<u32>,
    /// Since when it runs, and after how many milliseconds it stops at the next state.
    pause: Option<(Stopwatch, u64)>,
    states: Vec<StateRoot>,
    /// What stands for these.
    link: BlobHash,
    stdout: Hashing,
    log: Hashing,
    /// Fuel that was left at the last state.
    left: u64,
}

/// Where the state is, in a running instance.
struct Parts {
    step: TypedFunc<(), i32>,
    memory: Memory,
    globals: Vec<Global>,
}

impl<'a> Steps<'a> {
    /// Those of a task, if its module has any.
    pub(super) fn new(
        sandbox: &Sandbox,
        module: &'a LoadedModule,
        request: &Request,
        span: &'a Span,
    ) -> Result<Option<Self>, HostFault> {
        let refused = |detail: String| HostFault::Snapshot { detail };
        let Some(exports) = &module.exports.steps else {
            return if span.names_state() { Err(refused("the module has no steps".to_owned())) } else { Ok(None) };
        };
        let limits = request.limits;
        let (task, engine) = (TaskId(request.seed), sandbox.shared.fingerprint);
        let from = match &span.from {
            Some(bytes) => {
                let snapshot = Snapshot::open(bytes, snapshot_bytes_max(&limits));
                let snapshot = snapshot.map_err(|error| refused(error.to_string()))?;
                snapshot.check_of(request.module, task, engine).map_err(|error| refused(error.to_string()))?;
                Some(snapshot)
            }
            None => None,
        };
        let mut steps = Self {
            exports,
            module: request.module,
            task,
            engine,
            profile: sandbox.shared.options.profile,
            limits,
            from: None,
            until: span.until,
            pause: span.pause_ms.map(|pause_ms| (Stopwatch::start(), pause_ms)),
            states: Vec::new(),
            link: chained([]),
            stdout: Hashing::default(),
            log: Hashing::default(),
            left: limits.fuel_max,
        };
        if let Some(snapshot) = from {
            steps.take(snapshot, request)?;
        }
        Ok(Some(steps))
    }

    /// Takes a snapshot to go on from, whose bytes are those of its state. That the state is one that this task comes to is not
    /// known, so its numbers are held against the task.
    fn take(&mut self, snapshot: Snapshot<'a>, request: &Request) -> Result<(), HostFault> {
        let state = &snapshot.state;
        let pages_max = self.limits.memory_bytes_max / PAGE_BYTES;
        let rules = [
            ("fuel", state.fuel_used, self.limits.fuel_max),
            // Each costs one.
            ("random bytes", state.random_bytes, state.fuel_used),
            ("pages of memory", state.memory.pages.into(), pages_max),
            ("bytes of input", state.stdin_bytes, request.stdin.len() as u64),
            ("bytes of output", state.stdout.bytes, self.limits.output_bytes_max),
            ("bytes of log", state.log.bytes, self.limits.log_bytes_max),
        ];
        if let Some((what, value, bound)) = rules.into_iter().find(|(_, value, bound)| value > bound) {
            let detail = format!("its state has {value} {what}, over the task's {bound}");
            return Err(HostFault::Snapshot { detail });
        }
        if let Some(until) = self.until.filter(|until| *until <= state.index) {
            let detail = format!("it is of state {}, and state {until} lies not after it", state.index);
            return Err(HostFault::Snapshot { detail });
        }
        let root = state.root();
        self.states = snapshot.earlier.clone();
        self.states.push(root);
        self.link = chain(state.before, root);
        self.left = self.limits.fuel_max - state.fuel_used;
        self.from = Some(snapshot);
        Ok(())
    }

    /// Puts back what a task has beside memory and globals.
    pub(super) fn put_back(&self, task: &mut State) -> Result<(), HostFault> {
        let Some(Snapshot { state, stdout, log, .. }) = &self.from else { return Ok(()) };
        task.fuel = Fuel::new(self.left);
        task.slept_ns = state.slept_ns;
        task.random.skip_to(state.random_bytes);
        task.limiter.refused = state.memory.refused;
        task.stdin_at = usize::try_from(state.stdin_bytes).unwrap_or(usize::MAX);
        task.stdout = stdout.to_vec();
        task.stderr = log.to_vec();
        let full = |_| HostFault::Snapshot { detail: "its output is over the task's limit".to_owned() };
        task.quota.take(Zone::Out, state.stdout.bytes).map_err(full)
    }

    /// Whether there is something to go on from.
    pub(super) fn goes_on(&self) -> bool {
        self.from.is_some()
    }

    /// Runs the steps after `_start`. Gives a snapshot where the span ends before the task does.
    pub(super) fn begin(&mut self, store: &mut Store<State>, instance: Instance) -> wasmtime::Result<Option<Vec<u8>>> {
        let parts = self.parts(store, instance)?;
        if is_quiet(store.data())
            && let Some(snapshot) = self.keep(store, &parts)?
        {
            return Ok(Some(snapshot));
        }
        self.run(store, &parts)
    }

    /// The same from a snapshot on, in an instance that has not run.
    pub(super) fn go_on(&mut self, store: &mut Store<State>, instance: Instance) -> wasmtime::Result<Option<Vec<u8>>> {
        let parts = self.parts(store, instance)?;
        if let Some(snapshot) = self.from.take() {
            put_back(store, &parts, &snapshot)?;
        }
        self.run(store, &parts)
    }

    /// The states that it came through, if any.
    pub(super) fn into_record(self) -> Option<SegmentRecord> {
        (!self.states.is_empty()).then_some(SegmentRecord { states: self.states })
    }

    fn parts(&self, store: &mut Store<State>, instance: Instance) -> wasmtime::Result<Parts> {
        let missing = || wasmtime::Error::msg("module was rewritten without its exports");
        let mut export = |export| instance.get_module_export(&mut *store, export).ok_or_else(missing);
        let step = export(&self.exports.step)?.into_func().ok_or_else(missing)?;
        let memory = export(&self.exports.memory)?.into_memory().ok_or_else(missing)?;
        let globals = self.exports.globals.iter();
        let globals = globals.map(|global| export(global).and_then(|found| found.into_global().ok_or_else(missing)));
        let globals = globals.collect::<wasmtime::Result<_>>()?;
        Ok(Parts { step: step.typed(&*store)?, memory, globals })
    }

    fn run(&mut self, store: &mut Store<State>, parts: &Parts) -> wasmtime::Result<Option<Vec<u8>>> {
        loop {
            fuel::charge(store, limits::HOST_CALL_FUEL)?;
            if parts.step.call(&mut *store, ())? == abi::STEP_DONE {
                return Ok(None);
            }
            let fuel = store.data().fuel;
            let spent = self.left.saturating_sub(fuel::left(fuel.balance(store)));
            if spent >= self.due(parts.memory.size(&*store))
                && is_quiet(store.data())
                && let Some(snapshot) = self.keep(store, parts)?
            {
                return Ok(Some(snapshot));
            }
        }
    }

    /// Fuel after which a segment ends.
    fn due(&self, pages: u64) -> u64 {
        let share = self.limits.fuel_max.div_ceil(u64::from(SEGMENTS_MAX) - 2);
        let state = state_fuel(pages).saturating_mul(limits::SEGMENT_FUEL_PER_STATE_FUEL);
        limits::SEGMENT_FUEL_MIN.max(share).max(state)
    }

    /// Keeps the root of the state as it is now; gives its snapshot where the span ends.
    fn keep(&mut self, store: &mut Store<State>, parts: &Parts) -> wasmtime::Result<Option<Vec<u8>>> {
        self.left = fuel::renew(store, state_fuel(parts.memory.size(&*store)))?;
        let state = self.state(store, parts)?;
        let root = state.root();
        let snapshot = self.stops_at(state.index).then(|| {
            let task = store.data();
            Snapshot::encode(&state, &self.states, parts.memory.data(&*store), &task.stdout, &task.stderr)
        });
        self.states.push(root);
        self.link = chain(self.link, root);
        Ok(snapshot)
    }

    /// Whether the span ends with this state.
    fn stops_at(&self, index: u32) -> bool {
        let in_time = self.pause.as_ref().is_some_and(|(since, pause_ms)| since.elapsed_ms() >= *pause_ms);
        in_time || self.until.is_some_and(|until| until <= index)
    }

    fn state(&mut self, store: &mut Store<State>, parts: &Parts) -> wasmtime::Result<segment::State> {
        let globals = parts.globals.iter().map(|global| value(&global.get(&mut *store), self.profile));
        let globals = globals.collect::<wasmtime::Result<_>>()?;
        let (memory, task) = (parts.memory.data(&*store), store.data());
        Ok(segment::State {
            module: self.module,
            task: self.task,
            engine: self.engine,
            // There are few states.
            index: u32::try_from(self.states.len()).unwrap_or(u32::MAX),
            before: self.link,
            fuel_used: self.limits.fuel_max - self.left,
            slept_ns: task.slept_ns,
            random_bytes: task.random.drawn(),
            memory: MemoryState {
                pages: u32::try_from(memory.len() as u64 / PAGE_BYTES).unwrap_or(u32::MAX),
                root: memory_root(memory),
                refused: task.limiter.refused,
            },
            globals,
            stdin_bytes: task.stdin_at as u64,
            stdout: self.stdout.all(&task.stdout),
            log: self.log.all(&task.stderr),
        })
    }
}

/// Whether the task has nothing that its state does not tell.
fn is_quiet(task: &State) -> bool {
    let is_tree_quiet = task.tree.as_ref().is_none_or(|tree| tree.is_untouched());
    is_tree_quiet && task.fds.are_first() && task.nn.is_untouched()
}

/// Fuel for hashing a state: for reading the whole memory, as in any call of the host.
fn state_fuel(pages: u64) -> u64 {
    limits::HOST_CALL_FUEL.saturating_add(pages.saturating_mul(PAGE_BYTES / limits::HOST_CALL_BYTES_PER_FUEL))
}

/// A hash over bytes that only ever get more.
#[derive(Default)]
struct Hashing {
    hasher: blake3::Hasher,
    bytes: usize,
}

impl Hashing {
    /// That of all bytes so far.
    fn all(&mut self, bytes: &[u8]) -> Stream {
        self.hasher.update(bytes.get(self.bytes..).unwrap_or_default());
        self.bytes = bytes.len();
        Stream { hash: BlobHash(*self.hasher.finalize().as_bytes()), bytes: self.bytes as u64 }
    }
}

/// A global's value. In the portable profile the bits of a NaN are made canonical where they can be seen, and here they are.
fn value(value: &Val, profile: Profile) -> wasmtime::Result<segment::Global> {
    const CANONICAL_F32: u32 = 0x7fc0_0000;
    const CANONICAL_F64: u64 = 0x7ff8_0000_0000_0000;
    let portable = profile == Profile::Portable;
    Ok(match *value {
        Val::I32(value) => segment::Global::I32(value.cast_unsigned()),
        Val::I64(value) => segment::Global::I64(value.cast_unsigned()),
        Val::F32(bits) if portable && f32::from_bits(bits).is_nan() => segment::Global::F32(CANONICAL_F32),
        Val::F32(bits) => segment::Global::F32(bits),
        Val::F64(bits) if portable && f64::from_bits(bits).is_nan() => segment::Global::F64(CANONICAL_F64),
        Val::F64(bits) => segment::Global::F64(bits),
        _ => return Err(wasmtime::Error::msg("module passed preflight with a global that is no number")),
    })
}

/// A snapshot's state is none of its module: nobody's task comes to it.
#[derive(Debug, thiserror::Error)]
#[error("its state has {what} other than the module's")]
pub(super) struct Foreign {
    what: &'static str,
}

/// Puts memory and globals back.
fn put_back(store: &mut Store<State>, parts: &Parts, snapshot: &Snapshot<'_>) -> wasmtime::Result<()> {
    let state = &snapshot.state;
    let foreign = |what| wasmtime::Error::new(Foreign { what });
    if state.globals.len() != parts.globals.len() {
        return Err(foreign("globals"));
    }
    for (global, value) in parts.globals.iter().zip(&state.globals) {
        let value = match *value {
            segment::Global::I32(value) => Val::I32(value.cast_signed()),
            segment::Global::I64(value) => Val::I64(value.cast_signed()),
            segment::Global::F32(bits) => Val::F32(bits),
            segment::Global::F64(bits) => Val::F64(bits),
        };
        global.set(&mut *store, value).map_err(|_| foreign("globals"))?;
    }
    let more = u64::from(state.memory.pages).checked_sub(parts.memory.size(&*store));
    let more = more.ok_or_else(|| foreign("less memory, or more,"))?;
    if more > 0 && parts.memory.grow(&mut *store, more).is_err() {
        // The limit allows it, so that the module does not, unless the host has none.
        return Err(foreign("less memory, or more,"));
    }
    let memory = parts.memory.data_mut(&mut *store).chunks_mut(segment::PAGE_BYTES);
    for (own, (_, page)) in memory.zip(snapshot.all_pages()) {
        match page {
            Some(page) => own.copy_from_slice(page),
            None if segment::is_zero(own) => {}
            None => own.fill(0),
        }
    }
    Ok(())
}
