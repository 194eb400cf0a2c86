//! The driver with a real journal and store, and a host that answers from memory.

use std::path::Path;

use grid::dispatch::Phase;
use registry::{
    id::{EngineFingerprint, ModuleHash},
    job::{JobInput, Policy, Split, task_id},
    price::PriceTable,
    receipt::{Execution, Outcome, Receipt, Record},
    sign::SecretKey,
    store::StoreOptions,
};

use grid::engines::Engines;

use super::*;
use crate::metrics::Metrics;

const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);

async fn start(dir: &Path) -> Coordinator {
    let store = Store::open(&dir.join("blobs"), StoreOptions::default()).await.unwrap();
    let (journal, replay) = Journal::open(&dir.join("journal.db"), Box::new(|_, _| {})).unwrap();
    let metrics = CoordinatorMetrics::new(&Metrics::new());
    Coordinator::start(Config::default(), journal, replay, store, metrics).unwrap().0
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
        let (outbox, inbox) = mpsc::channel(100);
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
        coordinator.host_up(node, operator, cert, offer, holding, outbox).await.unwrap();
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
