//! The driver with a real journal and store, and a host that answers from memory.

use std::path::Path;

use futures::TryStreamExt;
use grid::{dispatch::Phase, subnet::Subnet};
use registry::{
    id::{EngineFingerprint, ModuleHash},
    job::{Class, JobInput, Policy, Split, task_id},
    log::{
        History, Kind,
        history::{Expected, HistorySaid},
    },
    price::PriceTable,
    receipt::{Execution, Outcome, Receipt, Record},
    reputation::Standing,
    sign::SecretKey,
    store::StoreOptions,
};

use grid::engines::Engines;

use super::*;
use crate::metrics::Metrics;

const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);

async fn start(dir: &Path) -> Coordinator {
    start_with(dir, Config::default()).await
}

async fn start_with(dir: &Path, config: Config) -> Coordinator {
    let store = Store::open(&dir.join("blobs"), StoreOptions::default()).await.unwrap();
    let (journal, replay) = Journal::open(&dir.join("journal.db"), Box::new(|_, _| {})).unwrap();
    let metrics = CoordinatorMetrics::new(&Metrics::new());
    Coordinator::start(config, SecretKey::from_bytes(&[99; 32]), journal, replay, store, metrics).unwrap().0
}

fn job(nonce: u64, quorum: u8, input: &[u8]) -> (JobSpec, Plan) {
    let spec = JobSpec {
        input: JobInput::Inline(input.to_vec().into()),
        split: Split::Lines(1),
        policy: Policy::Quorum(quorum),
        ..JobSpec::new(ModuleHash::of(b"module"), nonce)
    };
    let mut cutter = grid::plan::Cutter::new(&spec.split, None).unwrap();
    cutter.push(input).unwrap();
    let plan = cutter.finish().unwrap();
    (spec, plan)
}

/// A host that answers every assignment with its input in capitals.
struct Host {
    key: SecretKey,
    operator: SecretKey,
}

impl Host {
    fn new(seed: u8) -> Self {
        Self { key: SecretKey::from_bytes(&[seed; 32]), operator: SecretKey::from_bytes(&[seed + 100; 32]) }
    }

    async fn join(&self, coordinator: &Coordinator, holding: Vec<AssignmentId>) -> mpsc::Receiver<ToHost> {
        let (outbox, inbox) = mpsc::channel(limits::OUTBOX_MAX);
        let node = NodeId(self.key.public());
        let cert = Signed::seal(&NodeCert { node, issued_ms: 0 }, &self.operator);
        let offer = Offer {
            slots: 4,
            queue_max: 100,
            memory_bytes_max: 1 << 30,
            engines: Engines::plain(ENGINE, ENGINE),
            prices: PriceTable::default(),
        };
        let operator = OperatorId(self.operator.public());
        let arrival = Arrival { node, operator, cert, offer, subnet: Subnet::Relayed, holding };
        coordinator.host_up(arrival, outbox).await.unwrap();
        inbox
    }

    fn answer(&self, assignment: &Assignment, template: &TaskTemplate, input: &Input) -> Delivered {
        let Input::Inline(input) = input else { panic!("the input should travel with the assignment") };
        let stdout = Bytes::from(input.to_ascii_uppercase());
        let output = Output { stdout: BlobHash::of(&stdout), stdout_bytes: stdout.len() as u64, files: Vec::new() };
        let execution = Execution {
            task: task_id(template.hash(), assignment.shard, BlobHash::of(input)),
            module: template.module,
            class: template.class,
            engine: assignment.engine,
            outcome: Outcome::Ok,
            fuel_used: 1,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let receipt = Receipt {
            job: assignment.job,
            shard: assignment.shard,
            execution,
            device: None,
            node: NodeId(self.key.public()),
            operator: OperatorId(self.operator.public()),
            nonce: assignment.id.0,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let receipt = Attested::check(Signed::seal(&receipt, &self.key), receipt.node).unwrap();
        Delivered { receipt, output, stdout: Some(stdout), task_us: 100 }
    }

    /// Answers until its messages end.
    async fn serve(self, coordinator: Coordinator, mut inbox: mpsc::Receiver<ToHost>) {
        while let Some(message) = inbox.recv().await {
            if let ToHost::Assign { assignment, template, input } = message {
                let delivered = self.answer(&assignment, &template, &input);
                coordinator.deliver(NodeId(self.key.public()), vec![delivered]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_job_is_taken_run_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path()).await;
    for seed in [1, 2] {
        let host = Host::new(seed);
        let inbox = host.join(&coordinator, vec![]).await;
        tokio::spawn(host.serve(coordinator.clone(), inbox));
    }
    let (spec, plan) = job(1, 2, b"one\ntwo\n");
    let view = coordinator.submit_and_wait(spec.clone(), plan.clone(), None).await.unwrap();
    assert_eq!((view.phase, view.accepted, view.executions), ("done", 2, 4));
    let records = coordinator.records(view.id).await.unwrap();
    assert_eq!(records.len(), 2);
    for record in &records {
        Record::from_bytes(&record.record.bytes).unwrap().check().unwrap();
    }
    assert_eq!(coordinator.output(BlobHash::of(b"ONE\n")).await.unwrap().as_deref(), Some(b"ONE\n".as_slice()));
    let again = coordinator.submit_and_wait(spec, plan, None).await.unwrap();
    assert_eq!((again.id, again.executions), (view.id, 4), "the same job again is the same job");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash_and_the_job_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path()).await;
    let host = Host::new(1);
    let mut inbox = host.join(&coordinator, vec![]).await;
    let (spec, plan) = job(1, 1, b"one\ntwo\n");
    let id = coordinator.submit(spec, plan, None).await.unwrap();
    let Some(ToHost::Assign { assignment, template, input }) = inbox.recv().await else { panic!("an assignment") };
    let Some(ToHost::Assign { assignment: held, template: held_template, input: held_input }) = inbox.recv().await
    else {
        panic!("another assignment")
    };
    let delivered = host.answer(&assignment, &template, &input);
    coordinator.deliver(NodeId(host.key.public()), vec![delivered]).await;
    assert!(matches!(inbox.recv().await, Some(ToHost::Acknowledge(acknowledged)) if acknowledged == assignment.id));
    // What a SIGKILL leaves: the files as they are now.
    for file in ["journal.db", "journal.db-wal"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let coordinator = start(copy.path()).await;
    let view = coordinator.ask(move |state| state.job_view(id)).await.unwrap().unwrap();
    assert_eq!((view.phase, view.accepted, view.open), ("mapping", 1, 1));
    let _inbox = host.join(&coordinator, vec![held.id]).await;
    let delivered = host.answer(&held, &held_template, &held_input);
    coordinator.deliver(NodeId(host.key.public()), vec![delivered]).await;
    let done = coordinator.ask(move |state| matches!(state.job(id).map(|job| &job.phase), Some(Phase::Done))).await;
    assert!(done.unwrap(), "a receipt for an assignment from before the crash counts");
}

/// The files as a SIGKILL leaves them.
fn killed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in ["journal.db", "journal.db-wal"] {
        std::fs::copy(dir.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

async fn history(coordinator: &Coordinator, operator: OperatorId) -> HistorySaid {
    let chunks = coordinator.history(operator).await.unwrap().chunks();
    let file: Vec<Bytes> = chunks.try_collect().await.unwrap();
    let (file, expected) = (file.concat(), Expected { operator: Some(operator), ..Expected::default() });
    History::check(file.strip_prefix(Kind::History.line()).unwrap(), &expected, None).unwrap()
}

#[tokio::test]
async fn what_follows_from_a_history_is_what_is_decided_with_before_and_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let vouched = OperatorId(Host::new(9).operator.public());
    let config = Config { vouched: [vouched].into(), ..Config::default() };
    let coordinator = start_with(dir.path(), config.clone()).await;
    for seed in [1, 2] {
        let host = Host::new(seed);
        let inbox = host.join(&coordinator, vec![]).await;
        tokio::spawn(host.serve(coordinator.clone(), inbox));
    }
    // More entries than are read at a time.
    let input = b"one\n".repeat(limits::HISTORY_PAGE_MAX + 10);
    let (spec, plan) = job(1, 2, &input);
    coordinator.submit_and_wait(spec, plan, None).await.unwrap();
    let operator = OperatorId(Host::new(1).operator.public());
    let before = history(&coordinator, operator).await;
    let known = coordinator.operators(10).await.unwrap();
    let one = known.iter().find(|known| known.view.operator == operator).unwrap();
    assert_eq!((one.history.entries, one.history.last), (before.head.entries, before.head.link));
    assert_eq!(before.shown.standing(Class::Exact), one.view.classes[0].standing);
    assert_eq!(before.confirmed, limits::HISTORY_PAGE_MAX as u64 + 10);
    assert_eq!(before.head.available.given, before.confirmed);
    assert!(history(&coordinator, vouched).await.shown.vouched);
    let unknown = coordinator.history(OperatorId([7; 32])).await.err().unwrap();
    assert!(unknown.to_string().contains("is not known here"), "{unknown}");
    let copy = killed(dir.path());
    coordinator.close().await;

    let coordinator = start_with(copy.path(), config).await;
    let after = history(&coordinator, operator).await;
    assert_eq!((after.head.link, after.shown), (before.head.link, before.shown));
    assert_eq!(history(&coordinator, vouched).await.head.entries, 1);
}

#[tokio::test]
async fn a_coordinator_that_is_killed_before_its_first_snapshot_is_due_knows_what_it_decided_with() {
    let dir = tempfile::tempdir().unwrap();
    let vouched = OperatorId(Host::new(9).operator.public());
    let coordinator = start_with(dir.path(), Config { vouched: [vouched].into(), ..Config::default() }).await;
    assert!(history(&coordinator, vouched).await.shown.vouched);
    let copy = killed(dir.path());
    coordinator.close().await;
    // Its owner answers for nobody now.
    let coordinator = start(copy.path()).await;
    let vouched_for = coordinator.ask(move |state| state.operator_view(vouched, 0).vouched).await.unwrap();
    let said = history(&coordinator, vouched).await;
    assert_eq!((said.head.entries, said.shown.vouched, vouched_for), (2, false, false));
    assert!(said.shown.qualified.is_empty());
}

#[tokio::test]
async fn a_journal_from_before_there_were_histories_begins_them_with_what_was_so() {
    let dir = tempfile::tempdir().unwrap();
    let operator = OperatorId([1; 32]);
    let standing = Standing { checked_micro: 5_000_000, at_ms: 3, confirmed: 5 };
    let older = State::with_standings(Config::default(), [(operator, Class::Exact, standing)]);
    let (journal, _) = Journal::open(&dir.path().join("journal.db"), Box::new(|_, _| {})).unwrap();
    journal.snapshot(canon::encode(&older));
    // It did this on each of its starts.
    let restarted = vec![(1, canon::encode(&Event::Restarted)), (2, canon::encode(&Event::Restarted))];
    journal.append_and_tell(restarted, vec![]).await.unwrap();
    journal.close();
    let coordinator = start(dir.path()).await;
    let said = history(&coordinator, operator).await;
    assert_eq!((said.head.entries, said.shown.standing(Class::Exact)), (1, standing));
    let copy = killed(dir.path());
    coordinator.close().await;
    assert_eq!(history(&start(copy.path()).await, operator).await.head.entries, 1, "they begin once");
}

#[tokio::test]
async fn a_snapshot_on_close_restores_the_same_jobs_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path()).await;
    let (spec, plan) = job(1, 1, b"one\n");
    let id = coordinator.submit(spec, plan, None).await.unwrap();
    let name: Name = "alice/shout@1".parse().unwrap();
    let manifest = ManifestHash::of(b"manifest");
    let statement = NameStatement::Publish { name: name.clone(), manifest };
    coordinator.publish_name(Signed::seal(&statement, &SecretKey::from_bytes(&[5; 32]))).await.unwrap();
    coordinator.close().await;
    coordinator.store.shutdown().await.unwrap();
    let coordinator = start(dir.path()).await;
    assert!(coordinator.ask(move |state| state.job(id).is_some()).await.unwrap());
    assert_eq!(coordinator.resolve(&name).unwrap(), manifest);
}

/// The bytes with each key renamed that a value of another version might lack.
fn without(mut bytes: Vec<u8>, keys: &[&str]) -> Vec<u8> {
    for key in keys {
        // A text of fewer than 24 bytes has its length in its first one.
        let written = [&[0x60 + key.len() as u8], key.as_bytes()].concat();
        let places: Vec<usize> =
            (0..bytes.len() - written.len()).filter(|at| bytes[*at..].starts_with(&written)).collect();
        assert!(!places.is_empty(), "{key} is not in it");
        places.into_iter().for_each(|at| bytes[at + key.len()] = b'_');
    }
    bytes
}

#[tokio::test]
async fn a_snapshot_of_a_version_that_kept_otherwise_who_waits_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = start(dir.path()).await;
    let (spec, plan) = job(1, 1, b"one\n");
    let id = coordinator.submit(spec, plan, None).await.unwrap();
    let waits = move |state: &State| state.job_view(id).and_then(|job| job.waits);
    let before = coordinator.ask(waits).await.unwrap();
    assert!(before.is_some(), "no host is there");
    coordinator.close().await;
    coordinator.store.shutdown().await.unwrap();
    let (journal, replay) = Journal::open(&dir.path().join("journal.db"), Box::new(|_, _| {})).unwrap();
    journal.snapshot(without(replay.snapshot.unwrap(), &["turns", "queued"]));
    journal.close();
    let coordinator = start(dir.path()).await;
    assert_eq!(coordinator.ask(waits).await.unwrap(), before, "it is queued again");
    coordinator.ask(|state| state.check().unwrap()).await.unwrap();
}
