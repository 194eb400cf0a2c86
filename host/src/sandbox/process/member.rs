//! The host's hold on one sandbox process: what it has loaded, how long it has worked, and its end.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, ChildStderr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use registry::{
    id::{ModelHash, ModuleHash},
    job::Limits,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Counters, End,
    content::Content,
    memory::{self, Memory, Room},
    wire::{self, Answer, Ask, Body, Bounds, Reader, Sessions, Wait, WireError},
};
use crate::{
    clock::Stopwatch,
    limits,
    sandbox::{
        CancelToken, EngineDescription, Finished, HostFault, LoadError, Measured, ModelInfo, ModuleInfo, Ran, Request,
        SandboxError, Span, jail::Gap, steps,
    },
};

/// Bounds of an answer without outputs.
const SHORT: Bounds = Bounds { head_bytes_max: limits::SANDBOX_HEAD_BYTES_MAX, body_bytes_max: 0 };
/// Pause between two looks at whether a process that has closed its socket has ended, and how many looks it gets.
const ENDING: (Duration, u32) = (Duration::from_millis(2), 100);

/// A process that serves. Killed and waited for when dropped.
pub(super) struct Member {
    child: Child,
    socket: OwnedFd,
    reader: Reader,
    log: Option<ChildStderr>,
    modules: HashSet<ModuleHash>,
    /// Its sessions, with the memory in bytes that it says each holds.
    models: BTreeMap<ModelHash, u64>,
    /// Those that it was ever given.
    given: HashSet<ModelHash>,
    /// What that takes of the pool's memory for models.
    room: Room,
    /// Those that it forgot too.
    modules_loaded: usize,
    /// Resident memory in bytes before its last tasks.
    base_bytes: u64,
    kept_bytes: u64,
    /// Milliseconds that its tasks took, all together.
    work_ms: u64,
    idle: Stopwatch,
    end: End,
    counters: Arc<Counters>,
}

/// What a process says of itself first.
pub(super) struct Met {
    pub(super) engine: EngineDescription,
    pub(super) gaps: Vec<Gap>,
    /// Memory in bytes that its models can use; 0 where that is not known.
    pub(super) backend_bytes: u64,
}

/// Why a process is of no use any more.
#[derive(Debug)]
pub(super) struct Broken {
    end: End,
    pub(super) how: String,
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        let end = match error {
            WireError::Closed => End::Died,
            WireError::Deadline { .. } => End::Deadline,
            WireError::Cancelled => End::Cancelled,
            _ => End::Garbage,
        };
        Self { end, how: error.to_string() }
    }
}

impl Broken {
    fn garbage(what: &str) -> Self {
        Self { end: End::Garbage, how: format!("killed because of what it said: {what}") }
    }

    /// What becomes of the task at hand.
    pub(super) fn fault(self, limits: &Limits) -> HostFault {
        match self.end {
            End::Deadline => HostFault::Deadline { wall_ms_max: limits.wall_ms_max },
            End::Cancelled => HostFault::Cancelled,
            End::Idle | End::Retired | End::Garbage | End::Died => HostFault::SandboxDied { how: self.how },
        }
    }
}

/// One execution, ready to be sent, as often as it takes.
pub(super) struct Job {
    ask: Ask,
    limits: Limits,
    /// Whether its result may come with a record of inferences.
    records: bool,
    /// Whether it may stop with a snapshot.
    pauses: bool,
    stdin: Bytes,
    /// Input files, a record to feed, and a snapshot.
    files: Vec<Bytes>,
    /// Inputs that are too long to travel inline.
    content: Option<Content>,
}

impl Job {
    pub(super) fn new(mut request: Request, mut span: Span) -> io::Result<Self> {
        let stdin = std::mem::take(&mut request.stdin);
        let files = request.files.values_mut().chain(request.recorded.as_mut()).chain(span.from.as_mut());
        let files: Vec<Bytes> = files.map(std::mem::take).collect();
        let lengths: Vec<u64> = pieces(&stdin, &files).map(|piece| piece.len() as u64).collect();
        let long = lengths.iter().sum::<u64>() > limits::SANDBOX_INLINE_BYTES_MAX as u64;
        let content = long.then(|| Content::seal(&pieces(&stdin, &files).collect::<Vec<_>>())).transpose()?;
        let records = request.record || request.recorded.is_some();
        let (limits, pauses) = (request.limits, span.pauses());
        Ok(Self { limits, records, pauses, ask: Ask::Run { request, span, lengths }, stdin, files, content })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn input_bytes(&self) -> u64 {
        pieces(&self.stdin, &self.files).map(|piece| piece.len() as u64).sum()
    }
}

fn pieces<'a>(stdin: &'a Bytes, files: &'a [Bytes]) -> impl Iterator<Item = &'a [u8]> {
    std::iter::once(stdin).chain(files).map(|bytes| &**bytes)
}

impl Member {
    /// Says hello to a process that was just started.
    pub(super) fn meet(
        child: Child,
        socket: OwnedFd,
        log: Option<ChildStderr>,
        hello: &Ask,
        counters: Arc<Counters>,
        memory: &Arc<Memory>,
    ) -> Result<(Self, Met), SandboxError> {
        let mut member = Self {
            child,
            socket,
            reader: Reader::new(false),
            log,
            modules: HashSet::new(),
            models: BTreeMap::new(),
            given: HashSet::new(),
            room: Room::new(memory),
            modules_loaded: 0,
            base_bytes: 0,
            kept_bytes: 0,
            work_ms: 0,
            idle: Stopwatch::start(),
            end: End::Died,
            counters,
        };
        let answer = member.ask(hello, &Body::Inline(&[]), SHORT, &mut Patience::new(limits::SANDBOX_START_MS_MAX));
        match answer {
            Ok((Answer::Ready { engine, gaps, backend_bytes }, _)) => {
                member.base_bytes = member.resident_bytes();
                Ok((member, Met { engine, gaps, backend_bytes }))
            }
            Ok((Answer::Failed { error }, _)) => Err(error),
            Ok(_) => Err(SandboxError::Isolation { detail: "sandbox process answered something else".to_owned() }),
            Err(error) => {
                let how = member.end(error.into()).how;
                Err(SandboxError::Isolation { detail: format!("sandbox process does not start: {how}") })
            }
        }
    }

    pub(super) fn has_module(&self, hash: ModuleHash) -> bool {
        self.modules.contains(&hash)
    }

    pub(super) fn has_model(&self, hash: ModelHash) -> bool {
        self.models.contains_key(&hash)
    }

    /// Memory in bytes that its session of a model holds.
    pub(super) fn bytes_of(&self, hash: ModelHash) -> u64 {
        self.models.get(&hash).copied().unwrap_or(0)
    }

    /// Memory in bytes that its sessions hold.
    pub(super) fn session_bytes(&self) -> u64 {
        self.models.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Takes room for sessions of so many bytes beside those that it has, if there is.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        self.room.take(self.session_bytes().saturating_add(bytes))
    }

    /// Believes what it says of its sessions: none but those that it was given.
    fn settle(&mut self, said: Sessions) -> Result<(), Broken> {
        let known = said.iter().all(|(model, _)| self.given.contains(model));
        let now: BTreeMap<ModelHash, u64> = said.into_iter().collect();
        let bytes = now.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        if !known || bytes > limits::SANDBOX_ADDRESS_BYTES_MAX {
            return Err(Broken::garbage("sessions that it cannot have"));
        }
        self.room.evicted(self.models.keys().filter(|model| !now.contains_key(model)).count());
        self.models = now;
        self.room.set(memory::Held { bytes, sessions: self.models.len() as u64 });
        Ok(())
    }

    /// Has its sessions hold no more than so many bytes.
    pub(super) fn shrink(&mut self, bytes_max: u64) -> Result<(), Broken> {
        let patience = &mut Patience::new(limits::SANDBOX_LOAD_MS_MAX);
        let (answer, _) = self.ask(&Ask::Shrink { bytes_max }, &Body::Inline(&[]), SHORT, patience)?;
        let Answer::Shrunk { sessions } = answer else { return Err(Broken::garbage("not about its sessions")) };
        self.settle(sessions)?;
        if self.session_bytes() > bytes_max {
            return Err(Broken::garbage("sessions that it was to let go of"));
        }
        self.base_bytes = self.resident_bytes();
        Ok(())
    }

    /// Takes nothing for granted that was loaded.
    pub(super) fn forget(&mut self) {
        self.modules.clear();
        self.models.clear();
    }

    /// Has it load the code of a module.
    pub(super) fn load_module(
        &mut self,
        info: ModuleInfo,
        content: &Content,
        cancel: Option<&CancelToken>,
    ) -> Result<Result<(), LoadError>, Broken> {
        let Answer::Module { loaded } = self.load(&Ask::Module { info }, content, cancel)? else {
            return Err(Broken::garbage("not about a module"));
        };
        if loaded.is_ok() {
            self.modules.insert(info.hash);
            self.modules_loaded += 1;
        }
        Ok(loaded)
    }

    /// Has it load a model, and get ready for an inference when no task waits for it.
    pub(super) fn load_model(
        &mut self,
        hash: ModelHash,
        content: &Content,
        warm: bool,
        cancel: Option<&CancelToken>,
    ) -> Result<Result<ModelInfo, LoadError>, Broken> {
        let Answer::Model { loaded, sessions } = self.load(&Ask::Model { hash, warm }, content, cancel)? else {
            return Err(Broken::garbage("not about a model"));
        };
        if loaded.is_ok() {
            self.given.insert(hash);
        }
        self.settle(sessions)?;
        Ok(loaded)
    }

    fn load(&mut self, ask: &Ask, content: &Content, cancel: Option<&CancelToken>) -> Result<Answer, Broken> {
        let mut patience = Patience { cancel, ..Patience::new(limits::SANDBOX_LOAD_MS_MAX) };
        let (answer, _) = self.ask(ask, &Body::Passed(content), SHORT, &mut patience)?;
        if let Answer::Module { loaded: Err(error) } | Answer::Model { loaded: Err(error), .. } = &answer {
            short(error)?;
        }
        self.base_bytes = self.resident_bytes();
        Ok(answer)
    }

    /// Has it time its inference backend.
    pub(super) fn measure(&mut self) -> Result<Result<Measured, SandboxError>, Broken> {
        let patience = &mut Patience::new(limits::SANDBOX_LOAD_MS_MAX);
        let (answer, _) = self.ask(&Ask::Measure, &Body::Inline(&[]), SHORT, patience)?;
        let Answer::Measured { measured } = answer else { return Err(Broken::garbage("not about its speed")) };
        if let Err(error) = &measured {
            short(error)?;
        }
        Ok(measured)
    }

    /// Has it run a task, whose module and models it has.
    pub(super) fn run(&mut self, job: &Job, cancel: Option<&CancelToken>) -> Result<Result<Ran, HostFault>, Broken> {
        let watch = Stopwatch::start();
        let wall_ms = job.limits.wall_ms_max.saturating_add(limits::SANDBOX_DEADLINE_GRACE_MS);
        let mut patience = Patience { cancel, ..Patience::new(wall_ms) };
        let record_bytes_max = if job.records { limits::NN_RECORD_FILE_BYTES_MAX as u64 } else { 0 };
        let output_bytes_max = job.limits.output_bytes_max.saturating_add(job.limits.log_bytes_max);
        let snapshot_bytes_max = if job.pauses { steps::snapshot_bytes_max(&job.limits) } else { 0 };
        let body_bytes_max = output_bytes_max.saturating_add(record_bytes_max).max(snapshot_bytes_max);
        let bounds = Bounds { body_bytes_max, ..SHORT };
        let inline: Vec<&[u8]> = pieces(&job.stdin, &job.files).collect();
        let body = job.content.as_ref().map_or(Body::Inline(&inline), Body::Passed);
        let (answer, body) = self.ask(&job.ask, &body, bounds, &mut patience)?;
        self.work_ms = self.work_ms.saturating_add(watch.elapsed_ms());
        let Answer::Ran { ran, lengths, sessions } = answer else { return Err(Broken::garbage("not about a task")) };
        self.settle(sessions)?;
        match ran {
            Ok(Ran::Done(finished)) => {
                let filled = filled(*finished, wire::cut(body, &lengths)?, &job.limits, record_bytes_max as usize)?;
                Ok(Ok(Ran::Done(Box::new(filled))))
            }
            // Whoever goes on from it opens it, and believes nothing of it.
            Ok(Ran::Paused(_)) if job.pauses => Ok(Ok(Ran::Paused(body))),
            Ok(Ran::Paused(_)) => Err(Broken::garbage("a pause that nobody asked for")),
            Err(fault) => {
                short(&fault)?;
                Ok(Err(fault))
            }
        }
    }

    fn ask(
        &mut self,
        ask: &Ask,
        body: &Body<'_>,
        bounds: Bounds,
        patience: &mut Patience<'_>,
    ) -> Result<(Answer, Bytes), WireError> {
        wire::send(self.socket.as_fd(), ask, body, patience)?;
        self.reader.receive(self.socket.as_fd(), bounds, patience)
    }

    /// Looks at what a task left behind, where it could be much.
    pub(super) fn worked(&mut self, job: &Job, ran: &Result<Ran, HostFault>) {
        let used = match ran {
            Ok(Ran::Done(finished)) => {
                let files = finished.files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
                finished.memory_peak_bytes.saturating_add(files).saturating_add(finished.stdout.len() as u64)
            }
            // What it used until then is not known.
            Ok(Ran::Paused(_)) | Err(_) => u64::MAX,
        };
        if used.saturating_add(job.input_bytes()) > limits::SANDBOX_LARGE_TASK_BYTES {
            self.kept_bytes = self.resident_bytes().saturating_sub(self.base_bytes);
        }
    }

    /// Whether it should serve no more tasks.
    pub(super) fn is_worn(&self) -> bool {
        self.kept_bytes > limits::SANDBOX_KEPT_BYTES_MAX
            || self.work_ms > limits::SANDBOX_WORK_MS_MAX
            || self.modules_loaded >= limits::SANDBOX_MODULES_MAX
    }

    /// Its task is done.
    pub(super) fn rest(&mut self) {
        self.log();
        self.idle = Stopwatch::start();
    }

    pub(super) fn idle_ms(&self) -> u64 {
        self.idle.elapsed_ms()
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it in peace.
    pub(super) fn retire(mut self, end: End) {
        self.end = end;
    }

    /// Ends it because of what it did; says how it ended, if that was by itself.
    pub(super) fn end(mut self, broken: Broken) -> Broken {
        self.end = broken.end;
        let broken = match broken.end {
            End::Died => self.died(),
            _ => broken,
        };
        self.log();
        tracing::warn!(process = self.child.id(), how = broken.how, "a sandbox process is replaced");
        broken
    }

    /// How it died, which it is about to if it has not yet.
    fn died(&mut self) -> Broken {
        let (pause, looks) = ENDING;
        for _ in 0..looks {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Broken { end: End::Died, how: status.to_string() };
            }
            std::thread::sleep(pause);
        }
        self.end = End::Garbage;
        Broken::garbage("it closed its socket")
    }

    /// Logs what it said on standard error: a part, on one line, and harmless.
    fn log(&mut self) {
        let Some(log) = &mut self.log else { return };
        let (mut first, mut more) = (Vec::new(), 0);
        let mut buffer = [0; limits::SANDBOX_LOG_BYTES_MAX];
        // As much as a pipe holds, at most.
        for _ in 0..32 {
            match log.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) if first.is_empty() => first.extend_from_slice(&buffer[..read]),
                Ok(read) => more += read,
            }
        }
        if !first.is_empty() {
            let said = String::from_utf8_lossy(&first);
            tracing::warn!(process = self.child.id(), more, "sandbox process says: {}", said.escape_debug());
        }
    }

    /// Memory that it has, in bytes; 0 where the system does not tell.
    fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_default();
        let pages: u64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
        pages.saturating_mul(rustix::param::page_size() as u64)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already; then this only takes it from the system's table.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.counters.ended(self.child.id(), self.end);
    }
}

/// The result with its bytes put back, if it keeps the rules that every result keeps.
fn filled(
    mut finished: Finished,
    mut sections: std::collections::VecDeque<Bytes>,
    limits: &Limits,
    record_bytes_max: usize,
) -> Result<Finished, Broken> {
    let mut section = || sections.pop_front().ok_or_else(|| Broken::garbage("too few sections"));
    finished.stdout = section()?;
    finished.stderr = section()?;
    for (_, bytes) in &mut finished.files {
        *bytes = section()?;
    }
    if let Some(record) = &mut finished.nn_record {
        *record = section()?;
    }
    let record_bytes = finished.nn_record.as_ref().map_or(0, Bytes::len);
    let outputs = finished.files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let is_sorted = finished.files.windows(2).all(|pair| pair[0].0 < pair[1].0);
    let is_path = |path: &str| {
        path.len() <= limits::PATH_BYTES_MAX
            && path.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
    };
    let rules = [
        ("fuel", finished.fuel_used <= limits.fuel_max),
        ("memory", finished.memory_peak_bytes <= limits.memory_bytes_max),
        ("outputs", outputs.saturating_add(finished.stdout.len() as u64) <= limits.output_bytes_max),
        ("log", finished.stderr.len() as u64 <= limits.log_bytes_max),
        ("number of files", finished.files.len() <= limits::NODES_MAX),
        ("order of files", is_sorted),
        ("path of a file", finished.files.iter().all(|(path, _)| is_path(path))),
        ("number of inferences", finished.inferences.len() <= limits::NN_INFERENCES_MAX),
        ("root of inferences", finished.nn_root.is_some() != finished.inferences.is_empty()),
        ("length of the record of inferences", record_bytes <= record_bytes_max),
        ("number of segments", finished.segments.as_ref().is_none_or(steps::is_record)),
        ("number of sections", sections.is_empty()),
    ];
    match rules.into_iter().find(|(_, kept)| !kept) {
        Some((what, _)) => Err(Broken::garbage(what)),
        None => Ok(finished),
    }
}

/// What a process says of a failure goes on to logs and to the coordinator.
fn short(said: &impl std::fmt::Display) -> Result<(), Broken> {
    if said.to_string().len() > limits::SANDBOX_DETAIL_BYTES_MAX {
        return Err(Broken::garbage("a reason that is too long"));
    }
    Ok(())
}

/// How long to wait for a process.
struct Patience<'a> {
    watch: Stopwatch,
    ms_max: u64,
    cancel: Option<&'a CancelToken>,
    /// Since the process was told to stop.
    told: Option<Stopwatch>,
}

impl Patience<'_> {
    fn new(ms_max: u64) -> Self {
        Self { watch: Stopwatch::start(), ms_max, cancel: None, told: None }
    }

    /// Tells the process once that its task is cancelled, and gives it some time for that.
    fn check_cancelled(&mut self, socket: BorrowedFd<'_>, event: PollFlags) -> Result<(), WireError> {
        if !self.cancel.is_some_and(CancelToken::is_cancelled) {
            return Ok(());
        }
        match self.told {
            None => {
                self.told = Some(Stopwatch::start());
                // In the middle of a question there is no room for another; then only time helps.
                if event == PollFlags::IN {
                    wire::send(socket, &Ask::Cancel, &Body::Inline(&[]), &mut Never)?;
                }
                Ok(())
            }
            Some(told) if told.elapsed_ms() < limits::SANDBOX_CANCEL_GRACE_MS => Ok(()),
            Some(_) => Err(WireError::Cancelled),
        }
    }
}

impl Wait for Patience<'_> {
    fn wait(&mut self, socket: BorrowedFd<'_>, event: PollFlags) -> Result<(), WireError> {
        loop {
            self.check_cancelled(socket, event)?;
            let left = self.ms_max.saturating_sub(self.watch.elapsed_ms());
            if left == 0 {
                return Err(WireError::Deadline { ms_max: self.ms_max });
            }
            let left = if self.cancel.is_some() { left.min(limits::SANDBOX_POLL_MS) } else { left };
            let left = Timespec::try_from(Duration::from_millis(left)).ok();
            match poll(&mut [PollFd::from_borrowed_fd(socket, event)], left.as_ref()) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Does not wait: a socket that has no room for a few bytes belongs to a process that does not listen.
struct Never;

impl Wait for Never {
    fn wait(&mut self, _: BorrowedFd<'_>, _: PollFlags) -> Result<(), WireError> {
        Err(WireError::Cancelled)
    }
}

#[cfg(test)]
mod tests {
    use registry::{receipt::Outcome, segment::SegmentRecord};

    use super::*;

    fn finished(files: &[&str]) -> Finished {
        Finished {
            outcome: Outcome::Ok,
            fuel_used: 1,
            stdout: Bytes::new(),
            stderr: Bytes::new(),
            files: files.iter().map(|path| ((*path).to_owned(), Bytes::new())).collect(),
            memory_peak_bytes: 0,
            wall_micros: 0,
            inferences: Vec::new(),
            nn_root: None,
            nn_record: None,
            segments: None,
        }
    }

    fn check(finished: Finished, sections: &[&'static [u8]]) -> Result<Finished, String> {
        let sections = sections.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        let limits =
            Limits { fuel_max: 10, memory_bytes_max: 10, output_bytes_max: 4, log_bytes_max: 4, ..Limits::default() };
        filled(finished, sections, &limits, 4).map_err(|broken| broken.how)
    }

    #[test]
    fn a_result_keeps_the_rules_or_its_process_is_killed() {
        let good = check(finished(&["a", "b/c"]), &[b"out", b"log", b"1", b""]).unwrap();
        assert_eq!((&*good.stdout, &*good.stderr, &*good.files[0].1), (&b"out"[..], &b"log"[..], &b"1"[..]));
        let refused = [
            (check(finished(&[]), &[b"out"]), "too few sections"),
            (check(finished(&[]), &[b"", b"", b""]), "number of sections"),
            (check(finished(&[]), &[b"longer", b""]), "outputs"),
            (check(finished(&[]), &[b"", b"longer"]), "log"),
            (check(finished(&["b", "a"]), &[b"", b"", b"", b""]), "order of files"),
            (check(finished(&["a/../../b"]), &[b"", b"", b""]), "path of a file"),
            (check(finished(&["/etc/passwd"]), &[b"", b"", b""]), "path of a file"),
            (check(Finished { fuel_used: 11, ..finished(&[]) }, &[b"", b""]), "fuel"),
            (
                check(Finished { nn_record: Some(Bytes::new()), ..finished(&[]) }, &[b"", b"", b"longer"]),
                "record of inferences",
            ),
            (check(Finished { memory_peak_bytes: 11, ..finished(&[]) }, &[b"", b""]), "memory"),
            (
                check(Finished { segments: Some(SegmentRecord::default()), ..finished(&[]) }, &[b"", b""]),
                "number of segments",
            ),
        ];
        for (result, rule) in refused {
            let how = result.unwrap_err();
            assert!(how.ends_with(rule), "{how} is not about {rule}");
        }
    }
}
