//! Tasks in steps: cut anywhere, they come to the same; and two receipts that differ are settled by one segment.

use std::path::PathBuf;

use bytes::Bytes;
use guest_sdk::abi;
use host::gateway::wire::{InputRequest, JobRequest, LimitsRequest};
use host::node::operator_of;
use host::sandbox::{BackendOptions, Finished, Ran, Request, Response, Sandbox, SandboxOptions, Span};
use registry::{
    canon,
    dispute::Dispute,
    id::{BlobHash, ModuleHash, NodeId, OperatorId, StateRoot, TaskId},
    job::{JobInput, JobSpec, Limits, Policy, ShardInfo, Stage, TaskKey, task_id},
    membership::NodeCert,
    preimage::Preimage,
    receipt::{Accepted, Execution, Outcome, Output, Receipt, Record, Witness},
    segment::{SegmentRecord, Snapshot},
    sign::{SecretKey, Signed},
};
use serde_json::Value;
use support::{Cluster, Conduct, cli};

use crate::{EXE, sandbox::jailed};

const SHARD: ShardInfo = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Points that take some rounds to be grouped: always the same.
fn points() -> String {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 16) / 64.0
    };
    let lines: Vec<String> = (0..4000).map(|_| format!("{} {}\n", next(), next())).collect();
    format!("24 60\n{}", lines.concat())
}

/// The job of these points, and its task as a host runs it.
fn job() -> JobSpec {
    job_of(&points(), Limits::default())
}

fn job_of(points: &str, limits: Limits) -> JobSpec {
    let input = JobInput::Blob(BlobHash::of(points.as_bytes()));
    JobSpec { input, limits, ..JobSpec::new(ModuleHash::of(tasks::KMEANS.wasm), 1) }
}

fn task() -> TaskId {
    task_id(job().template().hash(), SHARD, BlobHash::of(points().as_bytes()))
}

fn request() -> Request {
    request_of(points(), Limits::default())
}

fn request_of(points: String, limits: Limits) -> Request {
    let job = job_of(&points, limits);
    let env = [(abi::ENV_SHARD, "0"), (abi::ENV_SHARDS, "1"), (abi::ENV_STAGE, abi::STAGE_MAP)];
    Request {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        seed: task_id(job.template().hash(), SHARD, BlobHash::of(points.as_bytes())).0,
        stdin: points.into(),
        limits,
        ..Request::new(job.module)
    }
}

/// A sandbox that has the task.
fn sandbox(options: SandboxOptions) -> Sandbox {
    let sandbox = Sandbox::new(options).unwrap();
    let info = sandbox.load_module(job().module, tasks::KMEANS.wasm).unwrap();
    assert!(info.steps);
    sandbox
}

fn done(sandbox: &Sandbox, from: Option<Bytes>) -> Finished {
    match sandbox.run_span(request(), Span { from, ..Span::WHOLE }, None) {
        Ok(Ran::Done(finished)) => Finished { wall_micros: 0, ..*finished },
        other => panic!("{other:?}"),
    }
}

fn paused(sandbox: &Sandbox, from: Option<Bytes>, until: u32) -> Bytes {
    match sandbox.run_span(request(), Span { from, until: Some(until), pause_ms: None }, None) {
        Ok(Ran::Paused(snapshot)) => snapshot,
        other => panic!("{other:?}"),
    }
}

#[test]
pub(crate) fn a_task_comes_to_the_same_in_threads_and_processes_and_from_every_snapshot() {
    let (threads, processes) = (sandbox(SandboxOptions::default()), sandbox(jailed(BackendOptions::Tract)));
    let whole = done(&threads, None);
    assert_eq!(whole.outcome, Outcome::Ok, "{}", String::from_utf8_lossy(&whole.stderr));
    assert!(String::from_utf8_lossy(&whole.stdout).contains(" rounds, "));
    assert_eq!(done(&processes, None), whole);
    let Response::Done(plain) = processes.run(request()) else { panic!("faulted") };
    assert_eq!(Finished { wall_micros: 0, ..plain }, whole);

    let record = whole.segments.clone().expect("it has segments");
    assert!((4..100).contains(&record.states.len()), "{} states", record.states.len());
    // Each segment runs on the side that did not run the one before.
    let (mut from, mut sides) = (None, [&threads, &processes].into_iter().cycle());
    for (at, root) in (0..).zip(&record.states) {
        let snapshot = paused(sides.next().unwrap(), from, at);
        assert_eq!(Snapshot::open(&snapshot, SNAPSHOT_BYTES_MAX).unwrap().state.root(), *root, "state {at}");
        for side in [&threads, &processes] {
            assert_eq!(done(side, Some(snapshot.clone())), whole, "from state {at}");
        }
        from = Some(snapshot);
    }
}

/// A scratch directory with records, and content beside them.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let spec = job();
        let key = TaskKey { template: spec.template().hash(), shard: SHARD, input: BlobHash::of(points().as_bytes()) };
        desk.keep(spec.id().0, &canon::encode(&spec));
        desk.keep(key.name(), &canon::encode(&key));
        desk.blob(tasks::KMEANS.wasm);
        desk.blob(points().as_bytes());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn keep(&self, name: [u8; 32], bytes: &[u8]) {
        let dir = self.path("content");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(BlobHash(name).to_string()), bytes).unwrap();
    }

    fn blob(&self, bytes: &[u8]) {
        self.keep(BlobHash::of(bytes).0, bytes);
    }

    /// A host signs that this is what came out; its record of segments is beside it.
    fn sign(&self, host: u8, sandbox: &Sandbox, finished: &Finished) -> String {
        let output = Output {
            stdout: BlobHash::of(&finished.stdout),
            stdout_bytes: finished.stdout.len() as u64,
            files: Vec::new(),
        };
        let record = finished.segments.clone().unwrap_or_default();
        let (node, operator) = (SecretKey::from_bytes(&[host; 32]), SecretKey::from_bytes(&[host + 100; 32]));
        let receipt = Receipt {
            job: job().id(),
            shard: SHARD,
            execution: Execution {
                task: task(),
                module: job().module,
                class: job().class,
                engine: sandbox.fingerprint(),
                outcome: finished.outcome,
                fuel_used: finished.fuel_used,
                output: output.hash(),
                nn_root: None,
                segment_root: record.root(),
            },
            device: None,
            node: NodeId(node.public()),
            operator: OperatorId(operator.public()),
            nonce: host.into(),
            price_micro: 0,
            nn_record: None,
            segment_record: record.root().map(|_| BlobHash::of(&record.to_bytes())),
        };
        let cert = NodeCert { node: NodeId(node.public()), issued_ms: 0 };
        let witness = Witness { receipt: Signed::seal(&receipt, &node), cert: Signed::seal(&cert, &operator) };
        self.blob(&record.to_bytes());
        let name = format!("host-{host}.cbor");
        let accepted = Record::Accepted(Accepted { quorum: 1, witnesses: vec![witness], drawn: None });
        std::fs::write(self.path(&name), accepted.to_bytes()).unwrap();
        self.text(&name)
    }
}

/// What a host makes of a result that lies about everything from a segment on.
fn lie(truth: &Finished, from: usize, salt: u8) -> Finished {
    let states = truth.segments.as_ref().unwrap().states.iter().enumerate();
    let lied = |(at, state): (usize, &StateRoot)| if at < from { *state } else { StateRoot([salt; 32]) };
    let segments = Some(SegmentRecord { states: states.map(lied).collect() });
    Finished { segments, stdout: Bytes::from_static(b"1: 0 0\n"), ..truth.clone() }
}

#[tokio::test]
async fn a_replay_holds_the_states_against_what_was_signed() {
    let desk = Desk::new();
    let sandbox = sandbox(SandboxOptions::default());
    let truth = done(&sandbox, None);
    let lied = Finished { stdout: truth.stdout.clone(), ..lie(&truth, 1, 9) };
    for (finished, code, verdict) in [(&truth, 0, "equal"), (&lied, 1, "different")] {
        let record = desk.sign(1, &sandbox, finished);
        let (exit, played) = said(&["receipt", "replay", &record]).await;
        assert_eq!((exit, &played[0]["verdict"]), (Some(code), &verdict.into()), "{played:#}");
        let difference = &played[0]["replayed"]["difference"]["what"];
        assert_eq!(difference.as_str(), (code == 1).then_some("segments"), "{played:#}");
    }
}

async fn said(args: &[&str]) -> (Option<i32>, Value) {
    let output = cli(EXE, None, &[args, &["--json"]].concat(), b"").await;
    let said = serde_json::from_slice(&output.stdout);
    (output.status.code(), said.unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr))))
}

#[tokio::test]
async fn two_receipts_that_differ_are_settled_by_one_segment() {
    let desk = Desk::new();
    let sandbox = sandbox(SandboxOptions::default());
    let truth = done(&sandbox, None);
    let states = truth.segments.as_ref().unwrap().states.len();
    let honest = desk.sign(1, &sandbox, &truth);
    let early = desk.sign(2, &sandbox, &lie(&truth, 0, 9));
    let late = desk.sign(3, &sandbox, &lie(&truth, 2, 9));
    let other = desk.sign(4, &sandbox, &lie(&truth, 2, 8));
    let last = desk.sign(5, &sandbox, &lie(&truth, states, 0));
    let short = Finished {
        segments: Some(SegmentRecord { states: truth.segments.clone().unwrap().states[..1].to_vec() }),
        ..truth.clone()
    };
    let short = desk.sign(6, &sandbox, &short);
    let out = desk.text("dispute");
    let cases = [
        (&honest, &early, 0, "first"),
        (&early, &honest, 0, "second"),
        (&honest, &late, 2, "first"),
        (&late, &other, 2, "neither"),
        (&honest, &last, states, "first"),
        (&last, &honest, states, "second"),
        (&short, &honest, 1, "second"),
    ];
    for (first, second, segment, verdict) in cases {
        let made = cli(EXE, None, &["dispute", "make", first, second, "--out", &out], b"").await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (code, said) = said(&["dispute", "replay", &out]).await;
        assert_eq!((code, &said["verdict"]), (Some(0), &verdict.into()), "{said:#}");
        assert_eq!((&said["refereed"]["segment"], &said["refereed"]["as_filed"]), (&segment.into(), &true.into()));
    }
    // Two that say the same are no dispute.
    let refused = cli(EXE, None, &["dispute", "make", &honest, &honest, "--out", &out], b"").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("do not contradict each other: they agree"));
}

#[tokio::test]
async fn a_dispute_with_anything_altered_is_refused_by_name() {
    let desk = Desk::new();
    let sandbox = sandbox(SandboxOptions::default());
    let truth = done(&sandbox, None);
    let (honest, liar) = (desk.sign(1, &sandbox, &truth), desk.sign(2, &sandbox, &lie(&truth, 2, 9)));
    let out = desk.text("dispute");
    let made = cli(EXE, None, &["dispute", "make", &honest, &liar, "--out", &out], b"").await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let dispute = Dispute::from_bytes(&std::fs::read(&out).unwrap()).unwrap();
    let refused = async |dispute: &Dispute| {
        std::fs::write(&out, dispute.to_bytes()).unwrap();
        let (code, said) = said(&["dispute", "replay", &out]).await;
        assert_eq!((code, &said["verdict"]), (Some(1), &"refused".into()), "{said:#}");
        said["reason"].as_str().unwrap().to_owned()
    };
    let mut forged = dispute.clone();
    forged.start.as_mut().unwrap().state.0[0] ^= 1;
    assert_eq!(refused(&forged).await, "proof");
    // A whole snapshot, but of the state before.
    let earlier = paused(&sandbox, None, 0);
    desk.blob(&earlier);
    let mut forged = dispute.clone();
    forged.start.as_mut().unwrap().snapshot = BlobHash::of(&earlier);
    assert_eq!(refused(&forged).await, "state");
    // The right one with a byte changed, under its own hash then.
    let mut altered = paused(&sandbox, None, 1).to_vec();
    let at = altered.len() - 100_000;
    altered[at] ^= 1;
    desk.blob(&altered);
    forged.start.as_mut().unwrap().snapshot = BlobHash::of(&altered);
    assert_eq!(refused(&forged).await, "snapshot_altered");
    forged.start.as_mut().unwrap().snapshot = BlobHash::of(b"nowhere");
    assert_eq!(refused(&forged).await, "content_missing");
    let mut forged = dispute.clone();
    forged.second.witness.cert = forged.first.witness.cert.clone();
    assert_eq!(refused(&forged).await, "record");
    std::fs::write(&out, b"nonsense").unwrap();
    assert_eq!(said(&["dispute", "replay", &out]).await.1["reason"], "dispute_form");
    // A record that does not hash to what was signed makes none.
    let states = truth.segments.as_ref().unwrap();
    let name = BlobHash::of(&states.to_bytes());
    std::fs::write(desk.path("content").join(name.to_string()), b"other").unwrap();
    let refused = cli(EXE, None, &["dispute", "make", &honest, &liar, "--out", &out], b"").await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("record of segments has hash"));
}

#[tokio::test]
async fn a_run_goes_on_from_every_snapshot_that_an_earlier_one_kept() {
    let desk = Desk::new();
    let (module, input) = (desk.text("kmeans.wasm"), desk.text("points"));
    std::fs::write(&module, tasks::KMEANS.wasm).unwrap();
    std::fs::write(&input, points()).unwrap();
    let kept = desk.text("kept");
    let args = ["run", &module, "--stdin", &input];
    let (_, whole) = said(&args).await;
    let (code, snapped) = said(&[&args[..], &["--snapshots", &kept]].concat()).await;
    assert_eq!((code, &snapped["commitment"]), (Some(0), &whole["commitment"]), "{snapped:#}");
    let segments = whole["segments"].as_u64().unwrap();
    assert!(segments > 4 && whole["segment_root"].is_string(), "{whole:#}");
    let record = SegmentRecord::from_bytes(&std::fs::read(desk.path("kept").join("segments.cbor")).unwrap()).unwrap();
    assert_eq!(record.root().unwrap().to_string(), whole["segment_root"].as_str().unwrap());
    for at in 0..segments - 1 {
        let snapshot = desk.path("kept").join(format!("state-{at:06}.snapshot"));
        let (code, gone_on) = said(&[&args[..], &["--resume", &snapshot.to_string_lossy()]].concat()).await;
        let same = ["commitment", "output_hash", "fuel_used", "segment_root", "stdout_base64"];
        assert_eq!(code, Some(0), "{gone_on:#}");
        assert!(same.iter().all(|key| gone_on[key] == whole[key]), "from state {at}: {gone_on:#}");
    }
    // Of another input, cut short, and for a module that has no steps.
    let snapshot = desk.path("kept").join("state-000001.snapshot");
    let shown = snapshot.to_string_lossy().into_owned();
    let (code, refused) = said(&["run", &module, "--stdin", &module, "--resume", &shown]).await;
    assert_eq!((code, &refused["reason"]), (Some(2), &"snapshot".into()), "{refused:#}");
    assert!(refused["detail"].as_str().unwrap().contains("snapshot is of task"), "{refused:#}");
    let bytes = std::fs::read(&snapshot).unwrap();
    std::fs::write(&snapshot, &bytes[..bytes.len() / 2]).unwrap();
    let (code, refused) = said(&[&args[..], &["--resume", &shown]].concat()).await;
    assert_eq!((code, &refused["reason"]), (Some(2), &"snapshot_form".into()), "{refused:#}");
    let echo = desk.text("echo.wasm");
    std::fs::write(&echo, tasks::ECHO.wasm).unwrap();
    let (code, refused) = said(&["run", &echo, "--snapshots", &kept]).await;
    assert_eq!(code, Some(2));
    assert!(refused["detail"].as_str().unwrap().contains("the module has no steps"), "{refused:#}");
}

#[tokio::test]
async fn a_job_in_steps_runs_on_a_grid_and_its_states_lie_beside_its_receipts() {
    let mut cluster = Cluster::start_vouched(EXE, &[Conduct::Honest; 3]).await;
    let (module, input) = (cluster.publish(tasks::KMEANS.wasm).await, cluster.publish(points()).await);
    let input = InputRequest::Blob(input.parse().unwrap());
    let request = JobRequest { module, input, policy: Policy::Quorum(2), ..JobRequest::default() };
    let job = cluster.submit(&request).await;
    assert_eq!(cluster.result(job).await, done(&sandbox(SandboxOptions::default()), None).stdout);

    // What it kept is there after a restart too, and enough for a replay without a grid.
    cluster.kill_coordinator();
    cluster.restart_coordinator().await;
    let kept = cluster.scratch("kept");
    let (id, out) = (job.to_string(), kept.to_str().unwrap().to_owned());
    let got = cluster.cli(&["receipt", "get", &id, "--content", "--out", &out], b"").await;
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let replayed = cli(EXE, None, &["receipt", "replay", &out], b"").await;
    let said = String::from_utf8_lossy(&replayed.stdout);
    assert!(replayed.status.success() && said.contains("equal"), "{said}{}", String::from_utf8_lossy(&replayed.stderr));
    let records = std::fs::read_dir(&kept).unwrap().filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    let record = records.filter_map(|bytes| Record::from_bytes(&bytes).ok()).next().unwrap().check().unwrap();
    let name = record.segment_record.unwrap();
    let segments = std::fs::read(kept.join("content").join(name.to_string())).unwrap();
    let segments = SegmentRecord::from_bytes(&segments).unwrap();
    assert_eq!(segments.root(), record.execution.segment_root);
    assert!(segments.states.len() > 2, "{} states", segments.states.len());
}

/// Points that take long to be grouped, in so many rounds.
fn many_points(rounds: u32) -> String {
    let mut state = 11u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let lines: Vec<String> = (0..40_000).map(|_| format!("{} {} {}\n", next(), next(), next())).collect();
    format!("64 {rounds}\n{}", lines.concat())
}

const FUEL_MAX: u64 = 200_000_000_000;
const WALL_MS_MAX: u64 = 300_000;

#[tokio::test]
async fn a_long_task_that_loses_its_host_goes_on_at_another_host_of_its_operator() {
    let mut cluster = Cluster::start(EXE, &[]).await;
    let config = cluster.scratch("host.toml");
    std::fs::write(&config, "[host]\ncheckpoint_ms = 200\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    cluster.add_host(Conduct::Honest, &["--slots", "1", "--config", &config]);
    cluster.joined(1).await;
    let (module, input) = (cluster.publish(tasks::KMEANS.wasm).await, cluster.publish(many_points(80)).await);
    let request = JobRequest {
        module,
        input: InputRequest::Blob(input.parse().unwrap()),
        policy: Policy::None,
        limits: LimitsRequest { fuel_max: Some(FUEL_MAX), wall_ms_max: Some(WALL_MS_MAX), ..LimitsRequest::default() },
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    let state = cluster
        .until("a state of the task is kept", async || {
            let why: Value = cluster.client.get(&format!("/v1/jobs/{job}/why?shard=0")).await.ok()?;
            why["executions"][0]["checkpoint"]["index"].as_u64()
        })
        .await;
    // Its machine is lost, and it is not the only one of its operator.
    let operator = cluster.hosts[0].dir().join("operator.key").to_str().unwrap().to_owned();
    cluster.hosts[0].kill();
    cluster.add_host(Conduct::Honest, &["--slots", "1", "--config", &config, "--operator-key", &operator]);
    let resumed = cluster
        .until("the task goes on", async || {
            let why: Value = cluster.client.get(&format!("/v1/jobs/{job}/why?shard=0")).await.ok()?;
            (why["resumed"] == 1).then_some(why)
        })
        .await;
    let from = resumed["executions"][0]["checkpoint"]["index"].as_u64().expect("it says from where");
    assert!(from >= state, "{resumed:#}");
    assert_eq!(resumed["last_fault"]["word"], "host_lost", "{resumed:#}");
    // What comes of it is what comes of a task that nothing happens to, and so is what is signed.
    let stdout = cluster.result(job).await;
    let limits = Limits { fuel_max: FUEL_MAX, wall_ms_max: WALL_MS_MAX, ..Limits::default() };
    let whole = sandbox(jailed(BackendOptions::Tract)).run_span(request_of(many_points(80), limits), Span::WHOLE, None);
    let Ok(Ran::Done(whole)) = whole else { panic!("{whole:?}") };
    assert_eq!(stdout, whole.stdout);
    let kept = cluster.scratch("kept");
    let (id, out) = (job.to_string(), kept.to_str().unwrap().to_owned());
    let got = cluster.cli(&["receipt", "get", &id, "--out", &out], b"").await;
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let records = std::fs::read_dir(&kept).unwrap().filter_map(|entry| std::fs::read(entry.unwrap().path()).ok());
    let record = records.filter_map(|bytes| Record::from_bytes(&bytes).ok()).next().unwrap().check().unwrap();
    let segments = whole.segments.expect("it has segments");
    assert_eq!(record.execution.segment_root, segments.root());
    assert_eq!(record.execution.fuel_used, whole.fuel_used);
    assert!(segments.states.len() as u64 > from, "{} states, from {from}", segments.states.len());
}

#[tokio::test]
async fn two_results_that_differ_are_told_apart_by_one_segment_that_anyone_runs_again() {
    // Enough for a host to come in good time.
    const ROUNDS: u32 = 240;
    // The owner answers for an operator whose host comes once two strangers are at work, one of which lies.
    let known = tempfile::tempdir().unwrap();
    let operator = operator_of(known.path()).unwrap().to_string();
    let key = known.path().join("operator.key").to_str().unwrap().to_owned();
    let strangers = [Conduct::Honest, Conduct::Liar];
    let mut cluster = Cluster::start_with(EXE, &strangers, &["--vouch", &operator], &["--slots", "1"]).await;
    let (module, input) = (cluster.publish(tasks::KMEANS.wasm).await, cluster.publish(many_points(ROUNDS)).await);
    let request = JobRequest {
        module,
        input: InputRequest::Blob(input.parse().unwrap()),
        policy: Policy::Quorum(2),
        limits: LimitsRequest { fuel_max: Some(FUEL_MAX), wall_ms_max: Some(WALL_MS_MAX), ..LimitsRequest::default() },
        ..JobRequest::default()
    };
    let job = cluster.submit(&request).await;
    cluster
        .until("both strangers have it", async || cluster.client.job(job).await.ok().filter(|job| job.open == 2))
        .await;
    cluster.add_host(Conduct::Honest, &["--slots", "1", "--operator-key", &key]);
    cluster.joined(3).await;
    let limits = Limits { fuel_max: FUEL_MAX, wall_ms_max: WALL_MS_MAX, ..Limits::default() };
    let whole =
        sandbox(jailed(BackendOptions::Tract)).run_span(request_of(many_points(ROUNDS), limits), Span::WHOLE, None);
    let Ok(Ran::Done(whole)) = whole else { panic!("{whole:?}") };
    assert_eq!(cluster.result(job).await, whole.stdout);

    // The evidence is one segment, and needs no grid.
    let kept = cluster.scratch("kept");
    let (id, out) = (job.to_string(), kept.to_str().unwrap().to_owned());
    let got = cluster.cli(&["receipt", "get", &id, "--content", "--out", &out], b"").await;
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let files = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path());
    let mut disputes = files.filter_map(|path| {
        let record = Record::from_bytes(&std::fs::read(&path).ok()?).ok()?;
        matches!(record, Record::Dispute(_)).then_some((path, record))
    });
    let (path, record) = disputes.next().unwrap_or_else(|| panic!("no dispute\n{}", cluster.logs()));
    let (accused, _) = record.check().unwrap().accused.unwrap();
    let nodes: Value = cluster.client.get("/v1/nodes").await.unwrap();
    let liar = nodes.as_array().unwrap().iter().find(|node| node["node"] == accused.to_string()).unwrap();
    assert!(liar["suspended"].is_object(), "{liar:#}");
    let verified = cli(EXE, None, &["receipt", "verify", path.to_str().unwrap()], b"").await;
    let shown = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && shown.contains(&accused.short()), "{shown}");
    let (code, replayed) = said(&["dispute", "replay", path.to_str().unwrap()]).await;
    let states = whole.segments.expect("it has segments").states.len();
    assert_eq!((code, &replayed["refereed"]["as_filed"]), (Some(0), &true.into()), "{replayed:#}");
    assert_eq!(
        replayed["refereed"]["segment"], states,
        "a liar that changes its output alone lies in the last segment"
    );
    let wrong = if replayed["verdict"] == "first" { "second" } else { "first" };
    assert_eq!(replayed["refereed"][wrong], accused.to_string(), "{replayed:#}");
}
