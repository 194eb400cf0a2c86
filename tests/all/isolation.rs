//! What stands around a task: each layer by itself, with the inner ones switched off; and what becomes of processes that are
//! hurt, and of those who wait for them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixListener},
            process::ExitStatusExt,
        },
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use host::{
    clock::Stopwatch,
    fuzzing::campaign::{self, Oracles},
    sandbox::{
        BackendOptions, CancelToken, Finished, HostFault, Request, Response, Sandbox, SandboxError, SandboxOptions,
    },
};
use registry::{
    id::{ModelHash, ModuleHash},
    receipt::Outcome,
};
use rustix::{
    process::{Pid, Signal, geteuid, kill_process},
    thread::{CapabilitySet, capabilities},
};
use tasks::TaskModule;

use crate::{EXE, PROBE, sandbox::jailed};

/// Time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    Done,
    Stopped,
    Killed,
}

use Got::{Done as D, Killed as K, Stopped as S};

const COLUMNS: [&str; 6] = ["none", "privileges", "descriptors", "rlimits", "landlock", "seccomp"];

/// The table of `sandbox::jail`, with a column for no layer at all: every attempt can succeed.
const TABLE: [(&str, [Got; 6]); 18] = [
    ("descriptor", [D, D, S, D, D, D]),
    ("read", [D, D, D, D, S, S]),
    ("stat", [D, D, D, D, D, S]),
    ("write", [D, D, D, D, S, S]),
    ("fill", [D, D, D, K, D, S]),
    ("tcp", [D, D, D, D, S, K]),
    ("udp", [D, D, D, D, D, K]),
    ("abstract", [D, D, D, D, S, K]),
    ("fork", [D, D, D, D, D, K]),
    ("exec", [D, D, D, D, S, K]),
    ("allocate", [D, D, D, S, D, D]),
    ("share", [D, D, D, D, D, S]),
    ("open", [D, D, D, S, D, S]),
    ("spin", [D, D, D, K, D, D]),
    ("kill", [D, D, D, D, S, S]),
    ("trace", [D, S, D, D, S, K]),
    ("mount", [D, S, D, D, S, K]),
    ("raise", [D, S, D, D, D, S]),
];

/// The table for whoever runs this: what there is no privilege for needs no layer to be stopped.
fn expected(attempt: &str, got: Got) -> Got {
    let own = capabilities(None).unwrap();
    let needs = match attempt {
        "mount" => CapabilitySet::SYS_ADMIN,
        "raise" => CapabilitySet::SYS_RESOURCE,
        // The other way round: without any, others are no more than equals.
        "trace" if got == Stopped && own.permitted.is_empty() => return Done,
        _ => CapabilitySet::empty(),
    };
    if got == Done && !own.effective.contains(needs) { Stopped } else { got }
}

use Got::{Done, Stopped};

/// What an attempt is made on.
struct Target {
    dir: tempfile::TempDir,
    descriptor: std::fs::File,
    tcp: TcpListener,
    udp: UdpSocket,
    name: String,
    _service: UnixListener,
    victim: Child,
}

impl Target {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("own")).unwrap();
        std::fs::write(dir.path().join("file"), "secret").unwrap();
        let name = dir.path().to_string_lossy().into_owned();
        Self {
            descriptor: std::fs::File::open(dir.path().join("file")).unwrap(),
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            _service: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            victim: Command::new("sleep").arg("600").spawn().unwrap(),
            name,
            dir,
        }
    }

    /// What comes of an attempt behind these layers.
    fn attempt(&self, layers: &str, attempt: &str) -> Got {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let given = [
            format!("own={}", at("own")),
            format!("file={}", at("file")),
            format!("tcp={}", self.tcp.local_addr().unwrap()),
            format!("udp={}", self.udp.local_addr().unwrap()),
            format!("abstract={}", self.name),
            format!("victim={}", self.victim.id()),
            format!("descriptor={}", self.descriptor.as_raw_fd()),
        ];
        rustix::io::fcntl_setfd(&self.descriptor, rustix::io::FdFlags::empty()).unwrap();
        let output = Command::new(PROBE).arg(layers).arg(attempt).args(given).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match (output.status.signal(), said.split([':', '\n']).next()) {
            (Some(_), _) => Got::Killed,
            (None, Some("done")) if output.status.success() => Got::Done,
            (None, Some("stopped")) if output.status.success() => Got::Stopped,
            _ => panic!(
                "{attempt} behind {layers}: {} {said} {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
    }
}

#[test]
fn each_layer_stops_by_itself_what_the_table_says() {
    let target = Target::new();
    let mut wrong = Vec::new();
    for (attempt, row) in TABLE {
        for (layer, cell) in COLUMNS.into_iter().zip(row) {
            // Landlock stops tracing for everybody.
            let expected = if (attempt, layer) == ("trace", "landlock") { cell } else { expected(attempt, cell) };
            let got = target.attempt(layer, attempt);
            if expected != got {
                wrong.push(format!("{attempt} behind {layer}: {got:?} instead of {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_layers_together_stop_everything() {
    let target = Target::new();
    for (attempt, _) in TABLE {
        assert_ne!(target.attempt("all", attempt), Got::Done, "{attempt}");
    }
}

#[test]
fn a_driver_has_what_it_needs_and_the_rest_is_stopped() {
    let target = Target::new();
    for (attempt, _) in TABLE {
        // What `jail` says is given up.
        let is_open = ["stat", "share"].contains(&attempt);
        assert_eq!(target.attempt("driver", attempt) == Got::Done, is_open, "{attempt}");
    }
    for attempt in ["library", "device"] {
        assert_eq!(target.attempt("driver", attempt), Got::Done, "{attempt}");
        assert_eq!(target.attempt("all", attempt), Got::Stopped, "{attempt}");
    }
}

/// Sandbox processes of the program under test.
fn options() -> SandboxOptions {
    SandboxOptions { slots_max: 2, ..jailed(BackendOptions::Tract) }
}

fn sandbox() -> Sandbox {
    Sandbox::new(options()).unwrap()
}

fn request(sandbox: &Sandbox, task: &TaskModule) -> Request {
    let module = ModuleHash::of(task.wasm);
    sandbox.load_module(module, task.wasm).unwrap();
    Request::new(module)
}

/// A task that does not end before its deadline, which is far.
fn endless(sandbox: &Sandbox) -> Request {
    let mut request = request(sandbox, &tasks::SPIN);
    request.limits.fuel_max = u64::MAX;
    request.limits.wall_ms_max = 600_000;
    request
}

fn done(response: Response) -> Finished {
    match response {
        Response::Done(finished) => Finished { wall_micros: 0, ..finished },
        Response::Fault(fault) => panic!("faulted: {fault}"),
    }
}

/// A task runs from start to end.
fn serves(sandbox: &Sandbox) {
    let request = Request { stdin: "still here".into(), ..request(sandbox, &tasks::ECHO) };
    assert_eq!(done(sandbox.run(request)).stdout, "still here");
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process.try_into().unwrap()).unwrap(), signal).unwrap();
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !is() {
        assert!(watch.elapsed() < PATIENCE, "not in {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the system says of a process; nothing when it is gone, or has ended and waits to be buried.
fn status(process: u32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}

/// Whether a process has ended, with all its threads, buried or not.
fn is_dead(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    threads <= 1 && status(process, "State").is_none_or(|state| state.starts_with('Z'))
}

fn resident_bytes(sandbox: &Sandbox) -> u64 {
    let kib = |process| status(process, "VmRSS").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    sandbox.process_ids().into_iter().filter_map(kib).sum::<u64>() << 10
}

/// Waits until so many processes are busy, and stay so: an answer takes a moment too.
fn until_busy(processes: usize, ids: impl Fn() -> Vec<u32>) {
    let mut looks = 0;
    until("tasks run", || {
        looks = if ids().into_iter().filter(|process| is_busy(*process)).count() == processes { looks + 1 } else { 0 };
        looks >= 5
    });
}

/// Stops a process with all its threads, which takes them a moment.
fn stop(process: u32) {
    signal(process, Signal::STOP);
    until("it is stopped", || {
        let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        threads.all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    });
}

/// Whether its thread for tasks runs.
fn is_busy(process: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.contains(" (task) R ")
    })
}

#[test]
fn a_process_has_nothing_but_its_socket() {
    let sandbox = sandbox();
    let process = sandbox.process_ids()[0];
    let expected =
        [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")];
    for (field, value) in expected {
        assert_eq!(status(process, field).as_deref(), Some(value), "{field}");
    }
    // Not dumpable: what follows is for root alone to see.
    if geteuid().is_root() {
        let mut open: Vec<_> =
            std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().map(|fd| fd.unwrap().file_name()).collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2"]);
        let env = std::fs::read_to_string(format!("/proc/{process}/environ")).unwrap();
        assert!(env.split_terminator('\0').all(|variable| variable.starts_with("MALLOC_")), "{env}");
        let cwd = std::fs::read_link(format!("/proc/{process}/cwd")).unwrap();
        assert!(cwd.to_string_lossy().ends_with("(deleted)"), "{}", cwd.display());
    }
}

#[test]
fn a_result_is_the_same_in_a_process_and_in_a_thread() {
    let (apart, here) = (sandbox(), Sandbox::new(SandboxOptions::default()).unwrap());
    assert_eq!((apart.fingerprint(), apart.describe()), (here.fingerprint(), here.describe()));
    let model = tasks::data::DIGITS_MODEL;
    let digits = ModelHash::of(model);
    assert_eq!(apart.load_model(digits, model), here.load_model(digits, model));
    let large: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    for task in [&tasks::ECHO, &tasks::TRAP, &tasks::FLOOD, &tasks::CLOCK, &tasks::BAD_NN] {
        let request = |sandbox: &Sandbox| Request {
            stdin: large.clone().into(),
            files: [("a".to_owned(), "b".into())].into(),
            models: [("digits".to_owned(), digits)].into(),
            ..request(sandbox, task)
        };
        assert_eq!(done(apart.run(request(&apart))), done(here.run(request(&here))), "{}", task.name);
    }
}

#[test]
fn a_killed_process_takes_its_own_task_alone() {
    let sandbox = sandbox();
    let (token, endless) = (CancelToken::new(), endless(&sandbox));
    std::thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| sandbox.run_cancellable(endless.clone(), &token)));
        until_busy(2, || sandbox.process_ids());
        signal(sandbox.process_ids()[0], Signal::KILL);
        until("one of them has ended", || runs.iter().any(|run| run.is_finished()));
        assert_eq!(runs.iter().filter(|run| run.is_finished()).count(), 1);
        // The slot is free, and another process serves it while the other task goes on.
        serves(&sandbox);
        assert_eq!(runs.iter().filter(|run| run.is_finished()).count(), 1);
        token.cancel();
        let mut ended = runs.map(|run| match run.join().unwrap() {
            Response::Fault(fault) => fault,
            Response::Done(finished) => panic!("{finished:?}"),
        });
        ended.sort_by_key(HostFault::word);
        assert!(
            matches!(&ended, [HostFault::Cancelled, HostFault::SandboxDied { how }] if how.contains("SIGKILL")),
            "{ended:?}"
        );
    });
    serves(&sandbox);
    assert_eq!(sandbox.process_stats().died, 1);
}

#[test]
fn an_idle_process_that_is_killed_is_noticed_before_a_task_needs_it() {
    let sandbox = sandbox();
    for _ in 0..3 {
        serves(&sandbox);
        signal(sandbox.process_ids()[0], Signal::KILL);
        until("it has ended", || is_dead(sandbox.process_ids()[0]));
    }
    serves(&sandbox);
    assert_eq!(sandbox.process_ids().len(), 1);
}

#[test]
fn a_deadline_and_a_cancellation_hold_for_a_process_that_does_not_react() {
    let sandbox = sandbox();
    serves(&sandbox);
    let mut request = request(&sandbox, &tasks::ECHO);
    request.limits.wall_ms_max = 50;
    stop(sandbox.process_ids()[0]);
    assert_eq!(sandbox.run(request.clone()), Response::Fault(HostFault::Deadline { wall_ms_max: 50 }));
    serves(&sandbox);
    let (token, endless) = (CancelToken::new(), endless(&sandbox));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| sandbox.run_cancellable(endless, &token));
        until_busy(1, || sandbox.process_ids());
        stop(sandbox.process_ids()[0]);
        token.cancel();
        assert_eq!(run.join().unwrap(), Response::Fault(HostFault::Cancelled));
    });
    serves(&sandbox);
}

#[test]
fn a_process_that_keeps_deadlines_and_cancellations_lives_on() {
    let sandbox = sandbox();
    let process = sandbox.process_ids();
    let mut request = endless(&sandbox);
    let token = CancelToken::new();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| sandbox.run_cancellable(request.clone(), &token));
        until_busy(1, || sandbox.process_ids());
        token.cancel();
        assert_eq!(run.join().unwrap(), Response::Fault(HostFault::Cancelled));
    });
    request.limits.wall_ms_max = 50;
    assert_eq!(sandbox.run(request), Response::Fault(HostFault::Deadline { wall_ms_max: 50 }));
    serves(&sandbox);
    assert_eq!(sandbox.process_ids(), process);
}

#[test]
fn memory_of_a_dead_task_is_given_back() {
    let sandbox = Sandbox::new(SandboxOptions { slots_max: 1, ..options() }).unwrap();
    let mut request = request(&sandbox, &tasks::HOG);
    request.limits.memory_bytes_max = 500 << 20;
    request.limits.fuel_max = u64::MAX;
    serves(&sandbox);
    let before = resident_bytes(&sandbox);
    let finished = done(sandbox.run(request));
    assert!(finished.outcome == Outcome::MemoryOut && finished.memory_peak_bytes > 450 << 20, "{finished:?}");
    serves(&sandbox);
    let after = resident_bytes(&sandbox);
    assert!(before > 0 && after <= before + (50 << 20), "{before} before, {after} after");
}

#[test]
fn a_process_without_work_is_ended_and_another_comes_when_there_is_some() {
    let sandbox = Sandbox::new(SandboxOptions { process_idle_ms: 20, ..options() }).unwrap();
    for _ in 0..2 {
        serves(&sandbox);
        until("it is ended", || sandbox.process_ids().is_empty());
    }
    assert!(sandbox.process_stats().idle >= 2);
}

#[test]
fn processes_go_with_their_host_however_it_goes() {
    let mut host = Command::new(PROBE).args(["host", EXE]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let process: u32 = line.trim().parse().unwrap();
    until_busy(1, || vec![process]);
    host.kill().unwrap();
    host.wait().unwrap();
    until("the process is gone", || is_dead(process));
}

#[test]
fn many_tasks_leave_no_descriptors_and_no_dead_processes_behind() {
    let sandbox = sandbox();
    serves(&sandbox);
    let mine = || sandbox.process_ids();
    // Descriptors of this process belong to other tests too: those of the sandbox's own are what can be told apart.
    let open = || std::fs::read_dir(format!("/proc/{}/fd", mine()[0])).map_or(0, Iterator::count);
    let large = vec![7; 1 << 20];
    let mut ended = Vec::new();
    let before = open();
    for round in 0..100 {
        let request = Request { stdin: large.clone().into(), ..request(&sandbox, &tasks::ECHO) };
        assert_eq!(done(sandbox.run(request)).stdout, large);
        if round % 25 == 24 {
            assert_eq!(open(), before);
            ended.extend(mine());
            signal(mine()[0], Signal::KILL);
            serves_again(&sandbox);
        }
    }
    for process in ended {
        assert_eq!(status(process, "State"), None, "process {process} is dead and not buried");
    }
}

/// A process that is being killed may take one more task with it.
fn serves_again(sandbox: &Sandbox) {
    until("tasks run again", || matches!(sandbox.run(request(sandbox, &tasks::ECHO)), Response::Done(_)));
}

#[test]
fn a_program_that_is_no_sandbox_is_refused_at_the_start() {
    for program in ["/bin/true", "/nowhere/quorate"] {
        let refusal = Sandbox::new(SandboxOptions { program: Some(program.into()), ..options() }).unwrap_err();
        assert!(matches!(refusal, SandboxError::Isolation { .. }), "{program}: {refusal}");
    }
}

/// Generated modules, beside the seeds of the fuzzing campaign, which has no program to execute.
#[test]
fn a_task_ends_the_same_in_a_process_as_in_a_thread_whatever_it_does() {
    let oracles = Oracles::new().unwrap().and_processes(EXE.as_ref()).unwrap();
    let reached = campaign::run(0..150, |u| oracles.task(u)).unwrap_or_else(|failures| panic!("{failures}"));
    assert_eq!(reached.values().sum::<u64>(), 150, "{reached:?}");
    assert!(reached.len() > 2, "all end alike: {reached:?}");
}

#[test]
fn who_calls_the_hidden_verb_by_hand_is_told_so() {
    let mut child =
        Command::new(EXE).arg("sandbox-process").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && !output.stderr.is_empty());
}
