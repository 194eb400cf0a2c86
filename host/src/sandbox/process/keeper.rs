//! The thread that starts sandbox processes, and ends those that have had nothing to do for long.
//!
//! It is one thread for the whole life of a pool because the kernel ties a process to the thread that started it: when the
//! host dies, or drops the pool, the processes go too, whatever they are doing.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use rustix::fs::{OFlags, fcntl_setfl};

use super::{
    Counters, Pool, child,
    member::{Member, Met},
    memory::Memory,
    wire::{self, Ask},
};
use crate::{
    limits,
    sandbox::{Isolation, SandboxError, SandboxOptions},
};

/// This very program, even when its file was replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What the process is called in lists of processes.
const OWN_NAME: &str = "quorate";
/// From this size on memory is taken from the system, and given back to it, for each allocation by itself. The largest that the
/// allocator takes: what is smaller it keeps until the process is idle.
const MMAP_THRESHOLD_BYTES: &str = "33554432";

/// The thread.
pub(super) struct Keeper {
    orders: Mutex<mpsc::Sender<Order>>,
    options: SandboxOptions,
    counters: Arc<Counters>,
}

enum Order {
    Start { program: PathBuf, env: Vec<(OsString, OsString)>, say: mpsc::Sender<io::Result<Started>> },
    Watch { pool: Weak<Pool>, idle_ms: u64 },
}

/// A process that has not said hello.
struct Started {
    child: Child,
    socket: OwnedFd,
    log: Option<ChildStderr>,
}

impl Keeper {
    /// A keeper of processes with these options.
    pub(super) fn start(options: SandboxOptions, counters: Arc<Counters>) -> Result<Self, SandboxError> {
        let (orders, taken) = mpsc::channel();
        let thread = thread::Builder::new().name("sandbox-keeper".to_owned()).spawn(move || keep(&taken));
        thread.map_err(|error| SandboxError::Thread { detail: error.to_string() })?;
        Ok(Self { orders: Mutex::new(orders), options, counters })
    }

    /// Has the idle processes of a pool ended in time.
    pub(super) fn watch(&self, pool: &Arc<Pool>) {
        self.order(Order::Watch { pool: Arc::downgrade(pool), idle_ms: self.options.process_idle_ms });
    }

    /// A new process, with what it says of itself. Its sessions count against this memory.
    pub(super) fn member(&self, memory: &Arc<Memory>) -> Result<(Member, Met), SandboxError> {
        let failed = |error: &dyn std::fmt::Display| SandboxError::Isolation {
            detail: format!("sandbox process does not start: {error}"),
        };
        let own = OwnDir::make().map_err(|error| failed(&error))?;
        let own_dir = own.0.to_str().ok_or_else(|| failed(&"the directory for temporary files is no UTF-8"))?;
        let hello = Ask::Hello {
            options: SandboxOptions { isolation: Isolation::Thread, program: None, ..self.options.clone() },
            own_dir: own_dir.to_owned(),
            data_bytes_max: data_bytes_max(&self.options),
        };
        let (say, said) = mpsc::channel();
        let program = self.options.program.clone().unwrap_or_else(|| PathBuf::from(OWN_PROGRAM));
        self.order(Order::Start { program, env: self.options.infers_with().env(), say });
        let started = said.recv().map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let Started { child, socket, log } = started;
        self.counters.started(child.id());
        Member::meet(child, socket, log, &hello, Arc::clone(&self.counters), memory)
    }

    fn order(&self, order: Order) {
        // The thread ends with this sender; if it is gone before, whoever waits for an answer is told by the channel.
        let _ = self.orders.lock().unwrap_or_else(PoisonError::into_inner).send(order);
    }
}

/// Memory that a process may write to: all that a task may have, its outputs while they are copied, what is loaded.
fn data_bytes_max(options: &SandboxOptions) -> u64 {
    let outputs = options.output_bytes_max.saturating_add(options.scratch_bytes_max).saturating_mul(2);
    let loaded = options.module_cache_bytes_max.saturating_add(options.model_cache_bytes_max.saturating_mul(2));
    let driver = if options.infers_with().is_gpu() { limits::SANDBOX_GPU_BYTES } else { 0 };
    [options.memory_bytes_max, outputs, loaded, driver]
        .into_iter()
        .fold(limits::SANDBOX_BASE_BYTES, u64::saturating_add)
}

fn keep(orders: &mpsc::Receiver<Order>) {
    let mut watched: Option<(Weak<Pool>, u64)> = None;
    loop {
        let pause = watched.as_ref().map_or(limits::SANDBOX_IDLE_MS, |(_, idle_ms)| idle_ms / 4);
        match orders.recv_timeout(Duration::from_millis(pause.max(limits::SANDBOX_POLL_MS))) {
            // Whoever asked may have given up.
            Ok(Order::Start { program, env, say }) => drop(say.send(launch(&program, env))),
            Ok(Order::Watch { pool, idle_ms }) => watched = Some((pool, idle_ms)),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
        if let Some((pool, idle_ms)) = &watched
            && let Some(pool) = pool.upgrade()
        {
            pool.reap(*idle_ms);
        }
    }
}

/// Starts the program as a sandbox process: one socket, nothing of the environment but what its backend needs, a process group of its own, so that a
/// Ctrl-C in a terminal is for the host to handle.
fn launch(program: &Path, env: Vec<(OsString, OsString)>) -> io::Result<Started> {
    let (ours, theirs) = wire::pair()?;
    let mut child = Command::new(program)
        .arg0(OWN_NAME)
        .arg(child::VERB)
        .env_clear()
        .envs(env)
        .env("MALLOC_MMAP_THRESHOLD_", MMAP_THRESHOLD_BYTES)
        .env("MALLOC_TRIM_THRESHOLD_", MMAP_THRESHOLD_BYTES)
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = child.stderr.take();
    if let Some(log) = &log
        && let Err(error) = fcntl_setfl(log, OFlags::NONBLOCK)
    {
        child.kill().and_then(|()| child.wait())?;
        return Err(error.into());
    }
    Ok(Started { child, socket: ours, log })
}

/// An empty directory that nobody else knows. Its process stays in it after it is removed, which is once the process is jailed:
/// files of tasks are in memory, and nothing is ever written there.
struct OwnDir(PathBuf);

impl OwnDir {
    fn make() -> io::Result<Self> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let name = data_encoding::HEXLOWER.encode(&name);
        let path = std::env::temp_dir().join(format!("quorate-sandbox-{name}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        // What is left is an empty directory among temporary ones.
        let _ = std::fs::remove_dir(&self.0);
    }
}
