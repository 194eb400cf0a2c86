//! The process itself: jails itself before it reads anything of others, then serves one task after the other until the host
//! closes the socket, which is its standard input.

use std::{collections::VecDeque, os::fd::BorrowedFd, path::PathBuf, process::ExitCode, thread};

use bytes::Bytes;
use registry::id::ModelHash;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, recv},
    stdio::stdin,
};

use super::wire::{self, Answer, Ask, Body, Bounds, Reader, Wait, WireError};
use crate::{
    limits,
    sandbox::{
        CancelToken, CpuClass, EngineDescription, LoadError, ModelInfo, Ran, Request, SandboxError, SandboxOptions,
        Span, ThreadSandbox, compile,
        jail::{self, Gap, Jail, Layers},
        nn,
    },
};

/// The argument by which the program knows that it is a sandbox process.
pub(super) const VERB: &str = "sandbox-process";

/// What the host may send: an input with all files is the longest.
const BOUNDS: Bounds = Bounds {
    head_bytes_max: limits::SANDBOX_HEAD_BYTES_MAX,
    body_bytes_max: limits::STDIN_BYTES_MAX + limits::INPUT_FILES_BYTES_MAX + limits::NN_RECORD_FILE_BYTES_MAX as u64,
};

/// Waits as long as it takes: a host that is gone has closed the socket.
struct Forever;

impl Wait for Forever {
    fn wait(&mut self, socket: BorrowedFd<'_>, event: PollFlags) -> Result<(), WireError> {
        loop {
            match poll(&mut [PollFd::from_borrowed_fd(socket, event)], None) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Waits as long, and gives what the allocator keeps of earlier work back to the system when nothing comes for a while. While one
/// task follows the other it is kept: large tensors come and go many times a second, and memory from the system has to be
/// cleared each time.
#[derive(Default)]
struct WhileIdle {
    /// Something was done since it was given back.
    keeps: bool,
}

impl Wait for WhileIdle {
    fn wait(&mut self, socket: BorrowedFd<'_>, event: PollFlags) -> Result<(), WireError> {
        if std::mem::take(&mut self.keeps) {
            match poll(&mut [PollFd::from_borrowed_fd(socket, event)], Some(&IDLE)) {
                Ok(0) => give_back(),
                Ok(_) => {
                    self.keeps = true;
                    return Ok(());
                }
                Err(Errno::INTR) => self.keeps = true,
                Err(errno) => return Err(errno.into()),
            }
        }
        Forever.wait(socket, event)
    }
}

/// From then on a process is idle.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Gives memory that nothing is in back to the system.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "the allocator has no safe form of it")]
    // SAFETY: It takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Serves as a sandbox process, or as a compiler, if the arguments say so, and gives the program's exit code. A program that
/// starts sandboxes calls this first: before it opens anything or starts a thread.
#[allow(clippy::print_stderr, reason = "the host logs what its sandbox processes say there")]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next()?;
    let served = if verb == VERB {
        match serve() {
            // The host has no more questions.
            Ok(()) | Err(WireError::Closed) => Ok(()),
            Err(error) => Err(format!("sandbox process ends: {error}")),
        }
    } else if verb == compile::child::VERB {
        let order = args.next().unwrap_or_default();
        compile::child::serve(&order.to_string_lossy()).map_err(|error| error.to_string())
    } else {
        return None;
    };
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn serve() -> Result<(), WireError> {
    let mut reader = Reader::new(true);
    let (ask, _) = reader.receive(stdin(), BOUNDS, &mut Forever)?;
    let Ask::Hello { options, own_dir, data_bytes_max } = ask else { return Err(WireError::Sections) };
    let (sandbox, engine, gaps) = match start(options, own_dir.into(), data_bytes_max) {
        Ok(started) => started,
        Err(error) => return answer(&Answer::Failed { error }, &[]),
    };
    answer(&Answer::Ready { engine, gaps, backend_bytes: sandbox.backend_bytes() }, &[])?;
    // A guest's stack is larger than what a main thread is sure to have.
    let task = thread::Builder::new().name("task".to_owned()).stack_size(limits::EXECUTOR_STACK_BYTES);
    let task = task.spawn(move || serve_asks(&sandbox, &mut reader)).map_err(|_| WireError::Socket(Errno::AGAIN))?;
    match task.join() {
        Ok(served) => served,
        // The panic said itself what it was, and nothing is known any more.
        Err(_) => std::process::exit(PANICKED),
    }
}

/// Exit code after a panic, as of any Rust program.
const PANICKED: i32 = 101;

type Started = (ThreadSandbox, EngineDescription, Vec<Gap>);

fn start(options: SandboxOptions, own_dir: PathBuf, data_bytes_max: u64) -> Result<Started, SandboxError> {
    let drivers = options.infers_with().drivers();
    let more = if drivers.is_some() { limits::SANDBOX_GPU_DESCRIPTORS_MAX } else { 0 };
    let jail = Jail {
        layers: Layers::ALL,
        cpu_s_max: Some(limits::SANDBOX_CPU_S_MAX),
        data_bytes_max: Some(data_bytes_max),
        // A driver reserves as much as there is memory of all kinds, and more.
        address_bytes_max: drivers.is_none().then_some(limits::SANDBOX_ADDRESS_BYTES_MAX),
        file_bytes_max: limits::SANDBOX_IMAGE_BYTES_MAX,
        descriptors_max: limits::SANDBOX_DESCRIPTORS_MAX + more,
        own_dir,
        dies_with_parent: true,
        drivers,
    };
    let gaps = enter(&jail, &options)?;
    let sandbox = ThreadSandbox::new(SandboxOptions { slots_max: 1, ..options })?;
    let engine = sandbox.describe().clone();
    Ok((sandbox, engine, gaps))
}

/// Jails this process, with what it infers on. A library opens files and asks what machine this is: it does so before it has
/// seen anything of others. One that starts threads, as drivers do, is loaded in a jail that is open that far.
fn enter(jail: &Jail, options: &SandboxOptions) -> Result<Vec<Gap>, SandboxError> {
    let class = options.cpu_class.unwrap_or_else(CpuClass::detect);
    let prepare = || {
        let prepared = nn::prepare(options.infers_with(), class);
        prepared.map_err(|error| SandboxError::Backend { detail: nn::why(error) })
    };
    let failed = |error: jail::JailError| SandboxError::Isolation { detail: error.to_string() };
    if jail.drivers.is_none() {
        prepare()?;
        return jail::enter(jail).map_err(failed);
    }
    let mut gaps = jail::open(jail).map_err(failed)?;
    prepare()?;
    gaps.extend(jail::shut(jail).map_err(failed)?);
    Ok(gaps)
}

fn answer(answer: &Answer, body: &[&[u8]]) -> Result<(), WireError> {
    wire::send(stdin(), answer, &Body::Inline(body), &mut Forever)
}

fn serve_asks(sandbox: &ThreadSandbox, reader: &mut Reader) -> Result<(), WireError> {
    let mut wait = WhileIdle::default();
    loop {
        let (ask, body) = reader.receive(stdin(), BOUNDS, &mut wait)?;
        wait.keeps = true;
        match ask {
            Ask::Module { info } => answer(&Answer::Module { loaded: sandbox.load_code(info, &body) }, &[])?,
            Ask::Model { hash, warm } => {
                let loaded = load_model(sandbox, hash, body);
                if warm && loaded.is_ok() {
                    sandbox.warm_model(hash);
                }
                answer(&Answer::Model { loaded, sessions: sandbox.sessions() }, &[])?;
            }
            Ask::Shrink { bytes_max } => {
                sandbox.settle_models(Some(bytes_max));
                answer(&Answer::Shrunk { sessions: sandbox.sessions() }, &[])?;
            }
            Ask::Measure => answer(&Answer::Measured { measured: sandbox.measure() }, &[])?,
            Ask::Run { request, span, lengths } => {
                let cancel = CancelToken::asking(is_cancelled);
                if reader.is_ahead() {
                    cancel.cancel();
                }
                let (request, span) = filled(request, span, wire::cut(body, &lengths)?)?;
                run(sandbox, request, span, &cancel)?;
            }
            // Of a task that was done before it could be stopped.
            Ask::Cancel => {}
            Ask::Hello { .. } => return Err(WireError::Sections),
        }
    }
}

/// Whether there is something to read, which while a task runs is a cancellation, or the end of the host.
fn is_cancelled() -> bool {
    recv(stdin(), &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) != Err(Errno::AGAIN)
}

/// Loads a model from what the host handed over.
fn load_model(sandbox: &ThreadSandbox, hash: ModelHash, content: Bytes) -> Result<ModelInfo, LoadError> {
    sandbox.load_model(hash, &content)
}

/// The request with its bytes put back.
fn filled(request: Request, mut span: Span, mut sections: VecDeque<Bytes>) -> Result<(Request, Span), WireError> {
    let mut request = Request { stdin: sections.pop_front().ok_or(WireError::Sections)?, ..request };
    for file in request.files.values_mut() {
        *file = sections.pop_front().ok_or(WireError::Sections)?;
    }
    if let Some(recorded) = &mut request.recorded {
        *recorded = sections.pop_front().ok_or(WireError::Sections)?;
    }
    if let Some(from) = &mut span.from {
        *from = sections.pop_front().ok_or(WireError::Sections)?;
    }
    Ok((request, span))
}

fn run(sandbox: &ThreadSandbox, request: Request, span: Span, cancel: &CancelToken) -> Result<(), WireError> {
    let mut ran = sandbox.run(request, span, Some(cancel));
    let body = ran.as_mut().map(emptied).unwrap_or_default();
    let lengths = body.iter().map(|section| section.len() as u64).collect();
    let pieces: Vec<&[u8]> = body.iter().map(|section| &**section).collect();
    answer(&Answer::Ran { ran, lengths, sessions: sandbox.sessions() }, &pieces)
}

/// Takes the bytes out of a result.
fn emptied(ran: &mut Ran) -> Vec<Bytes> {
    match ran {
        Ran::Done(finished) => {
            let mut body = vec![std::mem::take(&mut finished.stdout), std::mem::take(&mut finished.stderr)];
            body.extend(finished.files.iter_mut().map(|(_, bytes)| std::mem::take(bytes)));
            body.extend(finished.nn_record.as_mut().map(std::mem::take));
            body
        }
        Ran::Paused(snapshot) => vec![std::mem::take(snapshot)],
    }
}
