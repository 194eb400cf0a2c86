//! The process that compiles, from outside: starts it, gives it the module, waits within bounds, judges how it ended.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open},
};

use super::{
    Artifact, Budget, CompileBudget, Target,
    child::{Answer, Order, VERB},
};
use crate::{
    clock::Stopwatch,
    limits,
    sandbox::{LoadError, memory_file, preflight::ModuleInfo},
};

/// What the standard library says before it aborts for want of memory.
const MEMORY_OUT: &str = "memory allocation of";

/// Compiles a module in a process of its own.
pub(super) fn compile(
    program: &Path,
    target: Target,
    budget: CompileBudget,
    bytes: &[u8],
) -> Result<Artifact, LoadError> {
    let failed = |stage: &'static str| move |error| LoadError::failed(stage, &error);
    let code = memory_file::empty("module").map_err(failed("memory for the code"))?;
    let order = Order { target, budget };
    let mut child = start(program, &order, bytes, &code).map_err(failed("start of the compiler"))?;
    let ended = watch(&mut child, budget.wall_ms_max);
    // Whether it ended by itself or not: it is gone after this, and its code is as it is.
    let _ = child.kill();
    let status = child.wait().map_err(failed("end of the compiler"))?;
    let info = judge(&ended.map_err(failed("watch of the compiler"))?, status, &budget)?;
    memory_file::seal(&code).map_err(failed("memory for the code"))?;
    Artifact::made(code, info)
}

fn start(program: &Path, order: &Order, bytes: &[u8], code: &File) -> io::Result<Child> {
    let mut module = memory_file::empty("source")?;
    module.write_all(bytes)?;
    module.rewind()?;
    Command::new(program)
        .arg(VERB)
        .arg(serde_json::to_string(order)?)
        .env_clear()
        .current_dir("/")
        .stdin(module)
        .stdout(code.try_clone()?)
        .stderr(Stdio::piped())
        .spawn()
}

/// How far a child was watched.
struct Ended {
    /// The end of what it said.
    said: Vec<u8>,
    /// Whether its time was over first.
    late: bool,
}

/// Reads what a child says until it ends, or its time is over.
fn watch(child: &mut Child, wall_ms_max: u64) -> io::Result<Ended> {
    let watch = Stopwatch::start();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut stderr = child.stderr.take();
    let mut said = Vec::new();
    loop {
        let left = Duration::from_millis(wall_ms_max).saturating_sub(watch.elapsed());
        if left.is_zero() {
            return Ok(Ended { said, late: true });
        }
        let mut events = vec![PollFd::new(&process, PollFlags::IN)];
        events.extend(stderr.as_ref().map(|stderr| PollFd::new(stderr, PollFlags::IN)));
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !events[0].revents().is_empty();
        let speaks = events.get(1).is_some_and(|event| !event.revents().is_empty());
        if let Some(pipe) = stderr.as_mut().filter(|_| speaks)
            && !hear(pipe, &mut said)?
        {
            stderr = None;
        }
        // What it said last is still in the pipe: read to the end first.
        if ended && !(speaks && stderr.is_some()) {
            return Ok(Ended { said, late: false });
        }
    }
}

/// Reads once, and keeps the end; whether there may be more.
fn hear(pipe: &mut ChildStderr, said: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let read = pipe.read(&mut buffer)?;
    said.extend_from_slice(&buffer[..read]);
    said.drain(..said.len().saturating_sub(limits::COMPILER_WORDS_BYTES_MAX));
    Ok(read > 0)
}

/// What the module is, or whose fault it is that nobody knows.
fn judge(ended: &Ended, status: ExitStatus, budget: &CompileBudget) -> Result<ModuleInfo, LoadError> {
    if ended.late {
        return Err(budget.passed(Budget::WallMs));
    }
    let said = String::from_utf8_lossy(&ended.said);
    if status.success() {
        let answer: Answer = serde_json::from_str(said.lines().last().unwrap_or_default())
            .map_err(|error| LoadError::failed("answer of the compiler", &error))?;
        return answer.map_err(|none| none.into_error(budget));
    }
    let crashed = |how: String| LoadError::CompilerCrashed { detail: super::line(&format!("{how}: {said}")) };
    Err(match (status.signal().and_then(Signal::from_named_raw), status.code()) {
        (Some(Signal::XCPU), _) => budget.passed(Budget::CpuS),
        (Some(Signal::XFSZ), _) => budget.passed(Budget::ArtifactBytes),
        (Some(Signal::ABORT), _) if said.contains(MEMORY_OUT) => budget.passed(Budget::MemoryBytes),
        (Some(Signal::SEGV | Signal::BUS | Signal::ILL | Signal::ABORT | Signal::FPE | Signal::TRAP), _) => {
            crashed(status.to_string())
        }
        // A panic.
        (_, Some(101)) => crashed("it panicked".to_owned()),
        // Killed, by nobody here: the system is short of memory, or somebody ends the host.
        _ => LoadError::failed("end of the compiler", &format_args!("{status}: {said}")),
    })
}
