//! Stories about a host, with a desk that the test looks at and a real sandbox, over real sockets.

use std::{collections::BTreeMap, sync::OnceLock};

use bytes::Bytes;
use grid::flow::{Assignment, AssignmentId, Slice};
use registry::{
    id::{BlobHash, JobId, ModuleHash},
    job::{Limits, Profile, ShardInfo, Stage, TaskTemplate, task_id},
    log::{Heads, HostLog, Kind},
    receipt::Outcome,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::*;
use crate::{
    coordinator::{Input, ToHost},
    metrics::Metrics,
    net::{
        endpoint::EndpointOptions,
        frame,
        server::tests::{self, Grid, LOOPBACK, store, template},
        wire,
    },
    sandbox::SandboxOptions,
};

fn sandboxes() -> Arc<Sandboxes> {
    static SANDBOXES: OnceLock<Arc<Sandboxes>> = OnceLock::new();
    SANDBOXES.get_or_init(|| Arc::new(Sandboxes::new(SandboxOptions::default()).unwrap())).clone()
}

/// An order on the native engine.
fn assign(id: u64, job: u8, template: &Arc<TaskTemplate>, input: &[u8]) -> ToHost {
    let engine = sandboxes().plain(Profile::Native);
    changed(tests::assign(id, job, template, input), |assignment, _| assignment.engine = engine)
}

/// Writes its input to its output.
fn echo() -> &'static [u8] {
    tasks::ECHO.wasm
}

/// Never ends by itself.
fn spin() -> Vec<u8> {
    wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#).unwrap()
}

/// A template of a module that the grid's store has.
async fn publish(grid: &Grid, module: &[u8]) -> Arc<TaskTemplate> {
    let hash = grid.store.publish_bytes(module.to_vec()).await.unwrap().hash;
    let template = template(hash.into());
    let limits = Limits { fuel_max: u64::MAX / 4, ..template.limits };
    Arc::new(TaskTemplate { limits, ..(*template).clone() })
}

struct Worker {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), WorkerError>>,
    store: Store,
    dir: tempfile::TempDir,
}

impl Worker {
    async fn start(ticket: &Ticket, slots: u32, conduct: Conduct) -> Self {
        Self::start_with(ticket, |options| WorkerOptions { slots, conduct, ..options }).await
    }

    async fn start_with(ticket: &Ticket, with: impl FnOnce(WorkerOptions) -> WorkerOptions) -> Self {
        let (key, operator) = (SecretKey::generate().unwrap(), SecretKey::from_bytes(&[100; 32]));
        let endpoint = endpoint::bind(&key, LOOPBACK.parse().unwrap(), EndpointOptions::default()).await.unwrap();
        let (store, dir) = store().await;
        let options = WorkerOptions {
            ticket: ticket.clone(),
            cert: Signed::seal(&NodeCert { node: NodeId(key.public()), issued_ms: 0 }, &operator),
            key,
            endpoint,
            log_dir: dir.path().join("receipts"),
            store: store.clone(),
            sandboxes: sandboxes(),
            slots: 1,
            queue_max: 4096,
            memory_bytes_max: 64 << 20,
            checkpoint_ms: limits::CHECKPOINT_MS,
            prices: PriceTable::default(),
            conduct: Conduct::Honest,
            metrics: HostMetrics::new(&Metrics::new()),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(run(with(options), async {
            let _ = stopped.await;
        }));
        Self { stop, ended, store, dir }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
        self.store.shutdown().await.unwrap();
    }
}

async fn give(outbox: &mpsc::Sender<ToHost>, message: ToHost) {
    outbox.send(message).await.unwrap();
}

/// An order with another lease, or another word about its input.
fn changed(order: ToHost, change: impl FnOnce(&mut Assignment, &mut Input)) -> ToHost {
    match order {
        ToHost::Assign { mut assignment, template, mut input } => {
            change(&mut assignment, &mut input);
            ToHost::Assign { assignment, template, input }
        }
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_once_its_content_is_here_and_its_receipt_says_what_ran() {
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 2, Conduct::Honest).await;
    let (holding, outbox) = grid.up().await;
    assert!(holding.is_empty());
    let template = publish(&grid, echo()).await;
    give(&outbox, assign(5, 1, &template, b"hello 7")).await;
    let delivered = grid.delivered().await.remove(0);
    assert_eq!(delivered.stdout.as_deref(), Some(&b"hello 7"[..]));
    let receipt = delivered.receipt.receipt();
    assert_eq!((receipt.nonce, receipt.job, receipt.price_micro), (5, JobId([1; 32]), 0));
    assert_eq!((receipt.execution.outcome, receipt.execution.module), (Outcome::Ok, template.module));
    assert_eq!(receipt.execution.engine, sandboxes().plain(Profile::Native));
    let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
    assert_eq!(receipt.execution.task, task_id(template.hash(), shard, BlobHash::of(b"hello 7")));

    // A slice of a blob, and an output that is too long to travel with its receipt.
    let blob: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let hash = grid.store.publish_bytes(blob.clone()).await.unwrap().hash;
    let part = &blob[1000..200_000];
    let order = changed(assign(6, 1, &template, b""), |assignment, input| {
        assignment.slice = Slice { blob: Some(hash), start: 1000, end: 200_000 };
        assignment.input = BlobHash::of(part);
        *input = Input::Blob;
    });
    give(&outbox, order).await;
    let delivered = grid.delivered().await.remove(0);
    assert_eq!(delivered.stdout, None);
    assert_eq!(grid.store.read(delivered.output.stdout, 1 << 20).await.unwrap(), part);
    worker.stop().await;
    grid.down().await;
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_together_is_signed_together_and_the_log_has_all_of_it() {
    const TASKS: u64 = 200;
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 2, Conduct::Honest).await;
    let (_, outbox) = grid.up().await;
    let template = publish(&grid, echo()).await;
    give(&outbox, assign(0, 1, &template, b"alone")).await;
    let alone = grid.delivered().await.remove(0);
    let head = alone.receipt.signed().inclusion().unwrap().head;
    assert_eq!((head.seq, head.count), (0, 1));
    for id in 1..=TASKS {
        give(&outbox, assign(id, 1, &template, b"one of many")).await;
    }
    let mut back = Vec::new();
    while back.len() < TASKS as usize {
        back.extend(grid.delivered().await);
    }
    let heads: BTreeMap<u64, u32> = back
        .iter()
        .map(|done| done.receipt.signed().inclusion().unwrap().head)
        .map(|head| (head.seq, head.count))
        .collect();
    assert_eq!(heads.values().sum::<u32>() as u64, TASKS);
    assert!(heads.keys().copied().eq(1..=heads.len() as u64), "{heads:?}");

    let file = worker.dir.path().join("exported");
    export(&worker.dir.path().join("receipts"), &file).unwrap();
    let bytes = std::fs::read(file).unwrap();
    let said = HostLog::check(bytes.strip_prefix(Kind::Host.line()).unwrap(), &mut Heads::default()).unwrap();
    assert_eq!((said.receipts, said.last), (1 + TASKS, heads.len() as u64));
    worker.stop().await;
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_signs_another_output() {
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 1, Conduct::Liar).await;
    let (_, outbox) = grid.up().await;
    let template = publish(&grid, echo()).await;
    give(&outbox, assign(1, 1, &template, b"7 9")).await;
    let delivered = grid.delivered().await;
    let lie = delivered[0].stdout.as_deref().unwrap();
    assert!(lie.len() == 3 && lie[0] != b'7' && lie[1] == b' ' && lie[2] != b'9', "{lie:?}");
    worker.stop().await;
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_a_fault_with_its_word() {
    let mut grid = Grid::start().await;
    let worker = Worker::start_with(&grid.ticket, |options| WorkerOptions { queue_max: 0, ..options }).await;
    let (_, outbox) = grid.up().await;
    let echo = publish(&grid, echo()).await;
    let spin = publish(&grid, &spin()).await;
    let bad = publish_bad(&grid.store).await;
    let mut fault = async |order: ToHost| {
        give(&outbox, order).await;
        grid.faulted().await.remove(0).1
    };
    let other = fault(changed(assign(1, 1, &echo, b"in"), |_, input| *input = Input::Inline(Bytes::new()))).await;
    assert_eq!(other.word, "input_hash");
    let unknown = template(ModuleHash::of(b"nobody has this"));
    assert_eq!(fault(assign(2, 2, &unknown, b"")).await.word, "content_missing");
    assert_eq!(fault(assign(3, 3, &bad, b"")).await.word, "not_wasm");
    let late = changed(assign(4, 4, &spin, b""), |assignment, _| assignment.lease_ms = 300);
    assert_eq!(fault(late).await.word, "deadline");
    // One runs, and no more are offered.
    give(&outbox, assign(5, 4, &spin, b"")).await;
    assert_eq!(fault(assign(6, 4, &spin, b"")).await.word, "queue_full");
    give(&outbox, ToHost::Revoke(AssignmentId(5))).await;
    worker.stop().await;
    grid.hosts.shutdown().await;
}

async fn publish_bad(store: &Store) -> Arc<TaskTemplate> {
    template(store.publish_bytes(b"no module".to_vec()).await.unwrap().hash.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_task_frees_its_slot_and_is_never_heard_of_again() {
    let mut grid = Grid::start().await;
    let metrics = HostMetrics::new(&Metrics::new());
    let worker =
        Worker::start_with(&grid.ticket, |options| WorkerOptions { metrics: metrics.clone(), ..options }).await;
    let (_, outbox) = grid.up().await;
    let (spin, echo) = (publish(&grid, &spin()).await, publish(&grid, echo()).await);
    give(&outbox, assign(1, 1, &spin, b"")).await;
    // What is ready first runs first, so that the others come when it runs.
    while !metrics.render().contains("quorate_host_running 1") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    give(&outbox, assign(2, 2, &echo, b"revoked while it waits")).await;
    give(&outbox, assign(3, 2, &echo, b"wanted")).await;
    give(&outbox, ToHost::Revoke(AssignmentId(2))).await;
    give(&outbox, ToHost::Revoke(AssignmentId(1))).await;
    let delivered = grid.delivered().await;
    let nonces: Vec<u64> = delivered.iter().map(|done| done.receipt.receipt().nonce).collect();
    assert_eq!(nonces, [3]);
    // The number of a revoked assignment may come again.
    give(&outbox, assign(1, 2, &echo, b"again")).await;
    assert_eq!(grid.delivered().await[0].stdout.as_deref(), Some(&b"again"[..]));
    worker.stop().await;
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_sent_again_after_every_reconnect_until_they_are_acknowledged() {
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 2, Conduct::Honest).await;
    let (_, outbox) = grid.up().await;
    let (spin, echo) = (publish(&grid, &spin()).await, publish(&grid, echo()).await);
    let expires = changed(assign(3, 2, &spin, b""), |assignment, _| assignment.lease_ms = 60_000);
    give(&outbox, expires).await;
    give(&outbox, assign(1, 1, &echo, b"one")).await;
    assert_eq!(grid.delivered().await.len(), 1);
    give(&outbox, assign(2, 1, &echo, b"two")).await;
    assert_eq!(grid.delivered().await.len(), 1);

    let addr = grid.ticket.addrs[0];
    grid.hosts.shutdown().await;
    // The socket is free once nothing refers to the endpoint.
    drop((grid, outbox));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut grid = Grid::start_at(addr).await;
    let (holding, outbox) = grid.up().await;
    assert_eq!(holding, [1, 2, 3].map(AssignmentId), "finished and running ones");
    let mut again: Vec<u64> = grid.delivered().await.iter().map(|done| done.receipt.receipt().nonce).collect();
    again.sort();
    assert_eq!(again, [1, 2]);
    give(&outbox, ToHost::Acknowledge(AssignmentId(1))).await;
    give(&outbox, ToHost::Revoke(AssignmentId(3))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    drop(outbox);
    grid.down().await;
    let (holding, outbox) = grid.up().await;
    assert_eq!(holding, [AssignmentId(2)]);
    assert_eq!(grid.delivered().await.len(), 1);
    give(&outbox, ToHost::Acknowledge(AssignmentId(2))).await;
    worker.stop().await;
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_talks_garbage_is_left_and_tried_again() {
    let key = SecretKey::from_bytes(&[201; 32]);
    let endpoint = endpoint::bind(&key, LOOPBACK.parse().unwrap(), EndpointOptions::default()).await.unwrap();
    endpoint.set_alpns(vec![wire::ALPN.to_vec()]);
    let worker = Worker::start(&endpoint::ticket(&endpoint, u64::MAX), 1, Conduct::Honest).await;
    let welcome = wire::ToHost::Welcome(wire::Welcome { version: wire::VERSION, agent: "odd".into() });
    let mut welcomed = Vec::new();
    frame::push(&mut welcomed, &welcome);
    let mut unknown_job = welcomed.clone();
    let order = wire::Order {
        id: AssignmentId(1),
        job: JobId([9; 32]),
        shard: ShardInfo { stage: Stage::Map, index: 0, count: 1 },
        input: BlobHash::of(b""),
        engine: sandboxes().plain(Profile::Native),
        stdin: wire::Stdin::Inline(Bytes::new()),
        from: None,
        until: None,
        lease_ms: 1,
    };
    frame::push(&mut unknown_job, &wire::ToHost::Assign(vec![order]));
    let noise = [welcomed.clone(), vec![0, 0, 0, 2, 0xff, 0xff]].concat();
    let long = [welcomed, u32::MAX.to_be_bytes().to_vec()].concat();
    for answer in [vec![1, 2, 3, 4], u32::MAX.to_be_bytes().to_vec(), noise, long, unknown_job] {
        let connection = endpoint.accept().await.unwrap().accept().unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let hello: wire::ToCoordinator = frame::read(&mut recv, limits::HELLO_BYTES_MAX).await.unwrap().unwrap();
        assert!(matches!(hello, wire::ToCoordinator::Hello(_)));
        send.write_all(&answer).await.unwrap();
        // A first frame that is cut short counts once the stream ends.
        let _ = send.finish();
        connection.closed().await;
    }
    assert!(!worker.ended.is_finished());
    worker.stop().await;
    endpoint.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_refused_for_good_ends_with_the_reason() {
    let grid = Grid::start().await;
    let other = Ticket { coordinator: NodeId(SecretKey::from_bytes(&[1; 32]).public()), ..grid.ticket.clone() };
    let worker = Worker::start(&other, 1, Conduct::Honest).await;
    let error = worker.ended.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("ask the grid's operator for a new ticket"), "{error}");
    let worker = Worker::start_with(&grid.ticket, |options| WorkerOptions { slots: 0, ..options }).await;
    let error = worker.ended.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("slots is 0"), "{error}");
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_gives_back_what_waits_and_ends_what_runs() {
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 1, Conduct::Honest).await;
    let (_, outbox) = grid.up().await;
    let (spin, echo) = (publish(&grid, &spin()).await, publish(&grid, echo()).await);
    give(&outbox, assign(1, 1, &echo, b"")).await;
    grid.delivered().await;
    let short = changed(assign(2, 2, &spin, b""), |assignment, _| assignment.lease_ms = 1_500);
    give(&outbox, short).await;
    give(&outbox, ToHost::Acknowledge(AssignmentId(1))).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    give(&outbox, assign(3, 1, &echo, b"")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(worker.stop());
    let (id, fault) = grid.faulted().await.remove(0);
    assert_eq!((id.0, fault.word.as_str()), (3, "shutting_down"));
    let (id, fault) = grid.faulted().await.remove(0);
    assert_eq!((id.0, fault.word.as_str()), (2, "deadline"));
    grid.down().await;
    stopping.await.unwrap();
    grid.hosts.shutdown().await;
}

/// What a trivial task costs, from the order to its verified receipt, both ends in one process.
#[allow(clippy::print_stdout, reason = "a measurement is for whoever runs it")]
#[tokio::test(flavor = "multi_thread")]
async fn trivial_tasks_pass_through_quickly() {
    const TASKS: u64 = 4_000;
    let mut grid = Grid::start().await;
    let worker = Worker::start(&grid.ticket, 2, Conduct::Honest).await;
    let (_, outbox) = grid.up().await;
    let template = publish(&grid, echo()).await;
    give(&outbox, assign(0, 1, &template, b"warm")).await;
    grid.delivered().await;
    let watch = Stopwatch::start();
    tokio::spawn(async move {
        for id in 1..=TASKS {
            give(&outbox, assign(id, 1, &template, format!("input {id}").as_bytes())).await;
        }
        outbox.closed().await;
    });
    let mut task_us = 0;
    let mut back = 0;
    while back < TASKS {
        let delivered = grid.delivered().await;
        back += delivered.len() as u64;
        task_us += delivered.iter().map(|done| done.task_us).sum::<u64>();
    }
    let (rate, task_us) = (TASKS as f64 / watch.elapsed().as_secs_f64(), task_us / TASKS);
    println!("trivial tasks from order to verified receipt: {rate:.0}/s, in the sandbox {task_us} us each");
    assert!(rate > 200.0, "{rate:.0} tasks/s");
    worker.stop().await;
    grid.hosts.shutdown().await;
}
