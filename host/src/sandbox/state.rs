//! What one running task has, and how its calls of the host reach it.
//!
//! A [`State`] lives in the task's store and dies with it. Every host function runs inside [`call`], which charges fuel
//! and hands out a [`Call`]: the guest's memory through checked slices, and the state. An `Err` is either an error number
//! that the guest sees or a [`Stop`] that ends the task.

use std::collections::BTreeMap;

use bytes::Bytes;
use registry::job::Limits;
use wasmtime::{Caller, Extern, Memory};

use super::{
    fuel::{self, Fuel},
    limiter::Limiter,
    nn::{Inferences, backend::Allowance},
    request::{CancelToken, Request},
    wasi::{
        fds::Fds,
        random::Random,
        tree::{Tree, Zone},
    },
};
use crate::{clock::Stopwatch, limits};

/// Why a task ends from inside a call of the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("exited with code {0}")]
    Exit(u32),
    #[error("fuel is spent")]
    Fuel,
    #[error("output limit is reached")]
    Output,
    #[error("deadline has passed")]
    Deadline,
    #[error("cancelled")]
    Cancelled,
    #[error("guest aborted itself")]
    Abort,
    #[error("stack is spent")]
    Stack,
    #[error("inference backend failed: {0}")]
    Backend(String),
}

/// How a call of the host fails.
#[derive(Debug)]
pub(super) enum Fail {
    /// The guest gets this number; each interface has its own.
    Errno(u32),
    /// A pointer or length leads outside the guest's memory: each interface has a number for that.
    Pointer,
    /// The task ends.
    Stop(Stop),
}

impl From<Stop> for Fail {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// A pointer or length leads outside the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadPointer;

impl From<BadPointer> for Fail {
    fn from(_: BadPointer) -> Self {
        Self::Pointer
    }
}

/// Bytes that a task may keep in the host, by where they are.
#[derive(Debug)]
pub(super) struct Quota {
    output_used: u64,
    output_max: u64,
    scratch_used: u64,
    scratch_max: u64,
}

/// A quota has no room.
pub(super) enum Full {
    /// The task ends as `OutputOut`.
    Output,
    /// The guest is told that the disk is full.
    Scratch,
}

impl Quota {
    /// Takes room.
    pub(super) fn take(&mut self, zone: Zone, bytes: u64) -> Result<(), Full> {
        let (used, max, full) = match zone {
            Zone::Out => (&mut self.output_used, self.output_max, Full::Output),
            Zone::Fixed | Zone::Tmp => (&mut self.scratch_used, self.scratch_max, Full::Scratch),
        };
        match used.checked_add(bytes) {
            Some(sum) if sum <= max => *used = sum,
            _ => return Err(full),
        }
        Ok(())
    }

    /// Gives room back.
    pub(super) fn give(&mut self, zone: Zone, bytes: u64) {
        let used = match zone {
            Zone::Out => &mut self.output_used,
            Zone::Fixed | Zone::Tmp => &mut self.scratch_used,
        };
        *used = used.saturating_sub(bytes);
    }
}

/// Everything that a running task has.
pub(super) struct State {
    memory: Option<Memory>,
    pub(super) fuel: Fuel,
    pub(super) limiter: Limiter,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) stdin: Bytes,
    pub(super) stdin_at: usize,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) quota: Quota,
    pub(super) fds: Fds,
    /// Built when the first path or directory is touched.
    pub(super) tree: Option<Box<Tree>>,
    pub(super) files: BTreeMap<String, Bytes>,
    pub(super) slept_ns: u64,
    pub(super) random: Random,
    pub(super) limits: Limits,
    pub(super) nn: Inferences,
    watch: Watch,
}

/// Why a task may have to end for a reason outside itself.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    started: Stopwatch,
    wall_ms_max: u64,
    cancel: Option<CancelToken>,
}

impl Watch {
    pub(super) fn new(started: Stopwatch, wall_ms_max: u64, cancel: Option<CancelToken>) -> Self {
        Self { started, wall_ms_max, cancel }
    }

    /// One that ends nothing.
    pub(super) fn forever() -> Self {
        Self::new(Stopwatch::start(), u64::MAX, None)
    }

    /// Whether the task has to end now.
    pub(super) fn interrupted(&self) -> Option<Stop> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Some(Stop::Cancelled);
        }
        (self.started.elapsed_ms() >= self.wall_ms_max).then_some(Stop::Deadline)
    }
}

impl State {
    pub(super) fn new(request: Request, nn: Inferences, watch: Watch) -> Self {
        let limits = request.limits;
        Self {
            memory: None,
            fuel: Fuel::new(limits.fuel_max),
            limiter: Limiter::new(limits.memory_bytes_max),
            args: request.args,
            env: request.env,
            stdin: request.stdin,
            stdin_at: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            quota: Quota {
                output_used: 0,
                output_max: limits.output_bytes_max,
                scratch_used: 0,
                scratch_max: limits.scratch_bytes_max,
            },
            fds: Fds::new(),
            tree: None,
            files: request.files,
            slept_ns: 0,
            random: Random::new(request.seed),
            limits,
            nn,
            watch,
        }
    }

    /// Whether the task has to end now for a reason outside itself.
    pub(super) fn interrupted(&self) -> Option<Stop> {
        self.watch.interrupted()
    }
}

/// One call of the host by a guest.
pub(super) struct Call<'a> {
    pub(super) memory: Guest<'a>,
    pub(super) state: &'a mut State,
    fuel: u64,
}

impl Call<'_> {
    /// Charges fuel.
    pub(super) fn pay(&mut self, fuel: u64) -> Result<(), Stop> {
        match self.fuel.checked_sub(fuel) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => {
                self.fuel = 0;
                Err(Stop::Fuel)
            }
        }
    }

    /// What the task can still pay, for who draws from it.
    pub(super) const fn fuel(&mut self) -> &mut u64 {
        &mut self.fuel
    }

    /// Charges for bytes that are read, written or compared.
    pub(super) fn pay_bytes(&mut self, bytes: u64) -> Result<(), Stop> {
        self.pay(bytes.div_ceil(limits::HOST_CALL_BYTES_PER_FUEL))
    }

    /// Nanoseconds of virtual time that the task has run: one for each unit of fuel.
    pub(super) fn ran_ns(&self) -> u64 {
        self.state.limits.fuel_max.saturating_sub(self.fuel)
    }

    /// The tree of files, built on first use, beside the rest of the call.
    pub(super) fn tree(&mut self) -> &mut Tree {
        let State { tree, files, .. } = &mut *self.state;
        tree.get_or_insert_with(|| Box::new(Tree::new(std::mem::take(files))))
    }
}

/// A task that infers pays as it pays for any call, and ends where it would.
impl Allowance for Call<'_> {
    fn left(&mut self) -> &mut u64 {
        self.fuel()
    }

    fn watch(&self) -> Watch {
        self.state.watch.clone()
    }
}

/// Runs one host function: charges its call, gives it memory and state, and turns its failure into an error number or the
/// end of the task. `fault` is the interface's number for bad pointers.
pub(super) fn call(
    mut caller: Caller<'_, State>,
    fault: u32,
    body: impl FnOnce(&mut Call<'_>) -> Result<(), Fail>,
) -> wasmtime::Result<u32> {
    let mut fuel = caller.data().fuel;
    let left = fuel::left(fuel.balance(&mut caller));
    let memory = match caller.data().memory {
        Some(memory) => memory,
        None => {
            let memory = caller.get_export("memory").and_then(Extern::into_memory);
            let memory = memory.ok_or_else(|| wasmtime::Error::msg("module passed preflight without a memory"))?;
            caller.data_mut().memory = Some(memory);
            memory
        }
    };
    let (bytes, state) = memory.data_and_store_mut(&mut caller);
    let mut call = Call { memory: Guest(bytes), state, fuel: left };
    let result = call.pay(limits::HOST_CALL_FUEL).map_err(Fail::from).and_then(|()| body(&mut call));
    let left = call.fuel;
    fuel.give(&mut caller, left, 0)?;
    caller.data_mut().fuel = fuel;
    match result {
        Ok(()) => Ok(0),
        Err(Fail::Errno(errno)) => Ok(errno),
        Err(Fail::Pointer) => Ok(fault),
        Err(Fail::Stop(stop)) => Err(stop.into()),
    }
}

/// A guest's memory. Everything goes through checked slices.
pub(super) struct Guest<'a>(&'a mut [u8]);

impl Guest<'_> {
    /// `len` bytes at `ptr`.
    pub(super) fn slice(&self, ptr: u32, len: u32) -> Result<&[u8], BadPointer> {
        let (start, len) = (ptr as usize, len as usize);
        start.checked_add(len).and_then(|end| self.0.get(start..end)).ok_or(BadPointer)
    }

    /// `len` bytes at `ptr`, to write to.
    pub(super) fn slice_mut(&mut self, ptr: u32, len: u32) -> Result<&mut [u8], BadPointer> {
        let (start, len) = (ptr as usize, len as usize);
        start.checked_add(len).and_then(|end| self.0.get_mut(start..end)).ok_or(BadPointer)
    }

    /// `N` bytes at `ptr` plus `offset`.
    pub(super) fn read<const N: usize>(&self, ptr: u32, offset: u32) -> Result<[u8; N], BadPointer> {
        let start = (ptr as usize).checked_add(offset as usize).ok_or(BadPointer)?;
        let end = start.checked_add(N).ok_or(BadPointer)?;
        self.0.get(start..end).and_then(|slice| slice.try_into().ok()).ok_or(BadPointer)
    }

    /// The byte at `ptr` plus `offset`.
    pub(super) fn read_u8(&self, ptr: u32, offset: u32) -> Result<u8, BadPointer> {
        self.read::<1>(ptr, offset).map(|[byte]| byte)
    }

    /// The integer at `ptr` plus `offset`.
    pub(super) fn read_u16(&self, ptr: u32, offset: u32) -> Result<u16, BadPointer> {
        self.read(ptr, offset).map(u16::from_le_bytes)
    }

    /// The integer at `ptr` plus `offset`.
    pub(super) fn read_u32(&self, ptr: u32, offset: u32) -> Result<u32, BadPointer> {
        self.read(ptr, offset).map(u32::from_le_bytes)
    }

    /// The integer at `ptr` plus `offset`.
    pub(super) fn read_u64(&self, ptr: u32, offset: u32) -> Result<u64, BadPointer> {
        self.read(ptr, offset).map(u64::from_le_bytes)
    }

    /// Writes all of `bytes` at `ptr`.
    pub(super) fn write(&mut self, ptr: u32, bytes: &[u8]) -> Result<(), BadPointer> {
        let len = u32::try_from(bytes.len()).map_err(|_| BadPointer)?;
        self.slice_mut(ptr, len)?.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes an integer.
    pub(super) fn write_u32(&mut self, ptr: u32, value: u32) -> Result<(), BadPointer> {
        self.write(ptr, &value.to_le_bytes())
    }

    /// Writes an integer.
    pub(super) fn write_u64(&mut self, ptr: u32, value: u64) -> Result<(), BadPointer> {
        self.write(ptr, &value.to_le_bytes())
    }
}
