//! Stories about a coordinator's end, with hosts that are played by the test over real sockets.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use grid::{
    engines::Engines,
    flow::{Assignment, Checkpoint, Found, Offer, Slice},
};
use registry::{
    dispute,
    id::{BlobHash, EngineFingerprint, JobId, ModuleHash, OperatorId, StateRoot, TaskId},
    job::{Class, JobSpec, ShardInfo, Stage, TaskTemplate},
    membership::{NodeCert, Ticket},
    price::PriceTable,
    receipt::{Execution, Outcome, Output, OutputFile, Receipt},
    segment::{MemoryState, Snapshot, State, Stream, chained, memory_root},
    sign::{Batch, SecretKey, Signed, Tip},
    store::{FetchLimits, StoreOptions},
};

use super::*;
use crate::{
    clock::Stopwatch,
    coordinator::Input,
    net::{
        Farewell,
        client::{self, Link, LinkError},
        endpoint::{self, EndpointOptions},
        frame,
        wire::{Done, Hello, ToCoordinator, VERSION},
    },
};

/// What a desk was told.
#[derive(Debug)]
pub(crate) enum Told {
    Up { holding: Vec<AssignmentId>, outbox: mpsc::Sender<ToHost> },
    Down,
    Delivered(Vec<Delivered>),
    Faulted(Vec<(AssignmentId, Fault)>),
    Checkpoint(AssignmentId, Checkpoint),
    Found(AssignmentId, Found),
}

/// A desk that passes on what it is told.
#[derive(Clone)]
pub(crate) struct TestDesk {
    told: mpsc::UnboundedSender<Told>,
    sessions: Arc<AtomicU64>,
}

impl Desk for TestDesk {
    type Session = u64;

    async fn host_up(&self, arrival: Arrival, outbox: mpsc::Sender<ToHost>) -> Result<u64, Closed> {
        let Arrival { holding, subnet, .. } = arrival;
        assert_eq!(subnet.to_string(), "127.0.0.0/24", "as the connection says");
        self.told.send(Told::Up { holding, outbox }).map_err(|_| Closed)?;
        Ok(self.sessions.fetch_add(1, Ordering::Relaxed))
    }

    async fn host_down(&self, _node: NodeId, _session: u64) {
        let _ = self.told.send(Told::Down);
    }

    async fn deliver(&self, _node: NodeId, delivered: Vec<Delivered>) {
        let _ = self.told.send(Told::Delivered(delivered));
    }

    async fn faulted(&self, _node: NodeId, faults: Vec<(AssignmentId, Fault)>) {
        let _ = self.told.send(Told::Faulted(faults));
    }

    async fn checkpoint(&self, _node: NodeId, assignment: AssignmentId, checkpoint: Checkpoint) {
        let _ = self.told.send(Told::Checkpoint(assignment, checkpoint));
    }

    async fn wants_state(&self, _node: NodeId, _assignment: AssignmentId, _fuel_used: Option<u64>) -> bool {
        true
    }

    async fn found(&self, _node: NodeId, assignment: AssignmentId, found: Found) {
        let _ = self.told.send(Told::Found(assignment, found));
    }
}

/// A coordinator's end with a desk that the test looks at.
pub(crate) struct Grid {
    pub(crate) hosts: Hosts,
    pub(crate) store: Store,
    pub(crate) ticket: Ticket,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    _dir: tempfile::TempDir,
}

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) async fn store() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open(dir.path(), StoreOptions::default()).await.unwrap(), dir)
}

impl Grid {
    pub(crate) async fn start() -> Self {
        Self::start_at(LOOPBACK.parse().unwrap()).await
    }

    pub(crate) async fn start_at(addr: SocketAddr) -> Self {
        let key = SecretKey::from_bytes(&[200; 32]);
        let endpoint = endpoint::bind(&key, addr, EndpointOptions::default()).await.unwrap();
        let ticket = endpoint::ticket(&endpoint, u64::MAX);
        let (store, _dir) = store().await;
        let (sender, told) = mpsc::unbounded_channel();
        let desk = TestDesk { told: sender, sessions: Arc::default() };
        Self { hosts: start(endpoint, desk, store.clone()), store, ticket, told, _dir }
    }

    pub(crate) async fn next(&mut self) -> Told {
        tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await.expect("nothing happened").unwrap()
    }

    pub(crate) async fn up(&mut self) -> (Vec<AssignmentId>, mpsc::Sender<ToHost>) {
        match self.next().await {
            Told::Up { holding, outbox } => (holding, outbox),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn delivered(&mut self) -> Vec<Delivered> {
        match self.next().await {
            Told::Delivered(delivered) => delivered,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn faulted(&mut self) -> Vec<(AssignmentId, Fault)> {
        match self.next().await {
            Told::Faulted(faults) => faults,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn down(&mut self) {
        let told = self.next().await;
        assert!(matches!(told, Told::Down), "{told:?}");
    }
}

/// A host that the test plays.
struct Host {
    key: SecretKey,
    endpoint: Endpoint,
}

impl Host {
    async fn new(seed: u8) -> Self {
        let key = SecretKey::from_bytes(&[seed; 32]);
        let endpoint = endpoint::bind(&key, LOOPBACK.parse().unwrap(), EndpointOptions::default()).await.unwrap();
        Self { key, endpoint }
    }

    fn node(&self) -> NodeId {
        NodeId(self.key.public())
    }

    fn hello(&self) -> Hello {
        let operator = SecretKey::from_bytes(&[100; 32]);
        let cert = Signed::seal(&NodeCert { node: self.node(), issued_ms: 0 }, &operator);
        let offer = Offer {
            slots: 2,
            queue_max: 8,
            memory_bytes_max: 1 << 30,
            engines: Engines::plain(EngineFingerprint([4; 32]), EngineFingerprint([5; 32])),
            prices: PriceTable::default(),
        };
        Hello { version: VERSION, cert, offer, holding: vec![AssignmentId(7)], agent: "test/1".into() }
    }

    async fn join(&self, grid: &Grid) -> Link {
        client::connect(&self.endpoint, &grid.ticket, self.hello()).await.unwrap()
    }

    async fn refused(&self, grid: &Grid, hello: Hello) -> Refusal {
        match client::connect(&self.endpoint, &grid.ticket, hello).await {
            Err(LinkError::Refused(refused)) => {
                let for_good = !refused.retry;
                Refusal { word: refused.word, for_good }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A receipt for a made-up execution, signed by `key`.
    fn done(&self, key: &SecretKey, nonce: u64, stdout: &[u8], files: Vec<OutputFile>, inline: bool) -> Done {
        let output = Output { stdout: BlobHash::of(stdout), stdout_bytes: stdout.len() as u64, files };
        let execution = Execution {
            task: TaskId([3; 32]),
            module: ModuleHash::of(b"m"),
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 10,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let receipt = Receipt {
            job: JobId([1; 32]),
            shard: shard(),
            execution,
            device: None,
            node: self.node(),
            operator: OperatorId([5; 32]),
            nonce,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let stdout = inline.then(|| Bytes::copy_from_slice(stdout));
        Done { receipt: Signed::seal(&receipt, key), output, stdout, task_us: 1 }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    word: String,
    for_good: bool,
}

fn for_good(word: &str) -> Refusal {
    Refusal { word: word.into(), for_good: true }
}

fn shard() -> ShardInfo {
    ShardInfo { stage: Stage::Map, index: 0, count: 1 }
}

pub(crate) fn assign(id: u64, job: u8, template: &Arc<TaskTemplate>, input: &[u8]) -> ToHost {
    let slice = Slice { blob: None, start: 0, end: input.len() as u64 };
    let assignment = Assignment {
        id: AssignmentId(id),
        job: JobId([job; 32]),
        shard: shard(),
        slice,
        input: BlobHash::of(input),
        engine: EngineFingerprint([4; 32]),
        lease_ms: 60_000,
        from: None,
        until: None,
    };
    ToHost::Assign {
        assignment: Box::new(assignment),
        template: template.clone(),
        input: Input::Inline(Bytes::copy_from_slice(input)),
    }
}

pub(crate) fn template(module: ModuleHash) -> Arc<TaskTemplate> {
    Arc::new(JobSpec::new(module, 1).template())
}

async fn say(link: &mut Link, message: &ToCoordinator) {
    let mut frames = Vec::new();
    frame::push(&mut frames, message);
    link.send.write_all(&frames).await.unwrap();
}

async fn hear(link: &mut Link) -> wire::ToHost {
    loop {
        let message = frame::read(&mut link.recv, limits::FRAME_BYTES_MAX).await.unwrap().unwrap();
        if message != wire::ToHost::Heartbeat {
            return message;
        }
    }
}

/// How the coordinator closed.
async fn farewell(link: &Link) -> Farewell {
    match link.connection.closed().await {
        iroh::endpoint::ConnectionError::ApplicationClosed(closed) => Farewell::from_code(closed.error_code).unwrap(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_is_refused_by_the_first_rule_that_it_breaks() {
    let grid = Grid::start().await;
    let (host, other) = (Host::new(1).await, Host::new(2).await);
    let hello = host.hello();
    let refused = host.refused(&grid, Hello { cert: other.hello().cert, ..hello.clone() }).await;
    assert_eq!(refused, for_good("cert"), "certified for another node");
    let mut forged = registry::canon::encode(&hello.cert);
    *forged.last_mut().unwrap() ^= 1;
    let forged = registry::canon::decode(&forged, 1000).unwrap();
    assert_eq!(host.refused(&grid, Hello { cert: forged, ..hello.clone() }).await, for_good("cert"), "forged");
    assert_eq!(host.refused(&grid, Hello { version: VERSION + 1, ..hello.clone() }).await, for_good("version"));
    let greedy = Offer { slots: 0, ..hello.offer.clone() };
    assert_eq!(host.refused(&grid, Hello { offer: greedy, ..hello.clone() }).await, for_good("offer"));
    let none = Offer { engines: Engines::default(), ..hello.offer.clone() };
    assert_eq!(host.refused(&grid, Hello { offer: none, ..hello }).await, for_good("offer"), "no engine");
    assert_eq!(grid.hosts.connected(), 0);
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_leads_to_another_key_is_useless_at_first_and_a_nuisance_later() {
    let grid = Grid::start().await;
    let host = Host::new(1).await;
    let ticket = Ticket { coordinator: host.node(), ..grid.ticket.clone() };
    let stranger = Host::new(3).await;
    let error = client::connect(&stranger.endpoint, &ticket, stranger.hello()).await.unwrap_err();
    assert!(matches!(error, LinkError::OtherKey), "{error:?}");
    assert!(error.is_for_good(false) && !error.is_for_good(true));
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_session_and_nothing_else() {
    let mut grid = Grid::start().await;
    let bystander = Host::new(9).await;
    let _link = bystander.join(&grid).await;
    let (_, _outbox) = grid.up().await;
    let long = u32::MAX.to_be_bytes().to_vec();
    let noise = [vec![0, 0, 0, 8], vec![0xff; 8]].concat();
    let mut second_hello = Vec::new();
    let host = Host::new(1).await;
    frame::push(&mut second_hello, &ToCoordinator::Hello(Box::new(host.hello())));
    let mut forged = Vec::new();
    let stranger = SecretKey::from_bytes(&[66; 32]);
    let done = host.done(&stranger, 7, b"7", Vec::new(), true);
    frame::push(&mut forged, &ToCoordinator::Receipts(vec![Arc::new(done)]));
    let mut swapped = Vec::new();
    let done = Done { stdout: Some(Bytes::from_static(b"8")), ..host.done(&host.key, 7, b"7", Vec::new(), true) };
    frame::push(&mut swapped, &ToCoordinator::Receipts(vec![Arc::new(done)]));
    let mut other_output = Vec::new();
    let one = host.done(&host.key, 7, b"7", Vec::new(), true);
    let two = host.done(&host.key, 7, b"8", Vec::new(), true);
    let done = Done { receipt: one.receipt, ..two };
    frame::push(&mut other_output, &ToCoordinator::Receipts(vec![Arc::new(done)]));
    let cases = [
        ("an oversize frame", long),
        ("noise", noise),
        ("a second hello", second_hello),
        ("a forged receipt", forged),
        ("another stdout", swapped),
        ("another output", other_output),
    ];
    for (what, bytes) in cases {
        let mut link = host.join(&grid).await;
        let (_, _outbox) = grid.up().await;
        link.send.write_all(&bytes).await.unwrap();
        assert_eq!(farewell(&link).await, Farewell::Garbage, "{what}");
        grid.down().await;
    }
    assert_eq!(grid.hosts.connected(), 1, "the bystander is still there");
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_a_batch_are_taken_in_pieces_and_a_host_of_two_histories_is_cut_off() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let batch = |nonces: std::ops::Range<u64>, tip| {
        let done = nonces.map(|nonce| host.done(&host.key, nonce, b"7", Vec::new(), true));
        let done: Vec<Done> = done.collect();
        let receipts: Vec<Receipt> = done.iter().map(|done| done.receipt.peek().unwrap()).collect();
        let (batch, tip) = Batch::seal(&receipts, tip, &host.key).unwrap();
        let signed = batch.signed().unwrap();
        let done = done.into_iter().zip(signed).map(|(done, receipt)| Arc::new(Done { receipt, ..done }));
        (done.collect::<Vec<_>>(), tip)
    };
    let (first, tip) = batch(0..5, Tip::START);
    // One that was revoked, and is never sent.
    let (_, tip) = batch(5..6, tip);
    let (third, tip) = batch(6..8, tip);
    for receipts in [&first[..2], &first[2..], &third, &first[..1]] {
        let mut link = host.join(&grid).await;
        let (_, _outbox) = grid.up().await;
        say(&mut link, &ToCoordinator::Receipts(receipts.to_vec())).await;
        assert_eq!(grid.delivered().await.len(), receipts.len());
        drop(link);
        grid.down().await;
    }
    let elsewhere = Tip { last: Tip::START.last, ..tip };
    for (what, tip) in [("two heads of one number", Tip::START), ("a head after another one", elsewhere)] {
        let mut link = host.join(&grid).await;
        let (_, _outbox) = grid.up().await;
        say(&mut link, &ToCoordinator::Receipts(batch(8..9, tip).0)).await;
        assert_eq!(farewell(&link).await, Farewell::Garbage, "{what}");
        grid.down().await;
    }
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_instead_of_a_hello_never_reaches_the_desk() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    for bytes in [u32::MAX.to_be_bytes().to_vec(), vec![0, 0, 0, 4, 1, 2, 3, 4], vec![0, 0, 0, 0]] {
        let peer = endpoint::peer(grid.ticket.coordinator, &grid.ticket.addrs).unwrap();
        let connection = host.endpoint.connect(peer, wire::ALPN).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let closed = connection.closed().await;
        assert!(closed.to_string().contains("garbage"), "{closed}");
    }
    grid.hosts.shutdown().await;
    assert!(grid.told.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_arrive_in_order_each_job_s_template_once() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let mut link = host.join(&grid).await;
    let (holding, outbox) = grid.up().await;
    assert_eq!(holding, [AssignmentId(7)]);
    let template = template(ModuleHash::of(b"m"));
    for id in 0..100 {
        outbox.send(assign(id, 1, &template, b"in")).await.unwrap();
    }
    outbox.send(ToHost::Revoke(AssignmentId(3))).await.unwrap();
    outbox.send(ToHost::Acknowledge(AssignmentId(4))).await.unwrap();
    let (mut templates, mut ids) = (0, Vec::new());
    loop {
        match hear(&mut link).await {
            wire::ToHost::Templates(sent) => templates += sent.len(),
            wire::ToHost::Assign(orders) => ids.extend(orders.into_iter().map(|order| order.id.0)),
            wire::ToHost::Revoke(revoked) => assert_eq!((revoked, ids.len()), (vec![AssignmentId(3)], 100)),
            wire::ToHost::Acknowledge(acknowledged) => {
                assert_eq!(acknowledged, [AssignmentId(4)]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((templates, ids), (1, (0..100).collect()));
    drop(outbox);
    assert_eq!(farewell(&link).await, Farewell::Replaced, "the desk has dropped the outbox");
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_are_delivered_with_their_outputs_and_faults_with_one_line() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let (store, router, _dir) = serving(&host).await;
    let mut link = host.join(&grid).await;
    let (_, outbox) = grid.up().await;
    let template = template(ModuleHash::of(b"m"));
    for id in [1, 2, 3, 4, 5] {
        outbox.send(assign(id, 1, &template, b"in")).await.unwrap();
    }
    while !matches!(hear(&mut link).await, wire::ToHost::Assign(_)) {}

    // Inline.
    let done = host.done(&host.key, 1, b"7", Vec::new(), true);
    say(&mut link, &ToCoordinator::Receipts(vec![Arc::new(done)])).await;
    let delivered = grid.delivered().await;
    assert_eq!((delivered[0].stdout.as_deref(), delivered[0].task_us), (Some(&b"7"[..]), 1));

    // From the host's store.
    let (long, file) = (vec![b'x'; 300_000], vec![b'y'; 70_000]);
    store.publish_bytes(long.clone()).await.unwrap();
    store.publish_bytes(file.clone()).await.unwrap();
    let files = vec![OutputFile { path: "f".into(), hash: BlobHash::of(&file), bytes: 70_000 }];
    let done = host.done(&host.key, 2, &long, files, false);
    say(&mut link, &ToCoordinator::Receipts(vec![Arc::new(done)])).await;
    assert_eq!(grid.delivered().await[0].stdout, None);
    assert_eq!(grid.store.read(BlobHash::of(&long), 1 << 20).await.unwrap(), long);
    assert!(grid.store.has(BlobHash::of(&file)));

    // From nowhere, too long, and for an assignment that the host never had.
    let done = host.done(&host.key, 3, b"never published", Vec::new(), false);
    say(&mut link, &ToCoordinator::Receipts(vec![Arc::new(done)])).await;
    let (id, fault) = grid.faulted().await.remove(0);
    assert_eq!((id, fault.word.as_str()), (AssignmentId(3), "output_missing"));
    let files = vec![OutputFile { path: "f".into(), hash: BlobHash::of(b"f"), bytes: 1 << 40 }];
    let done = host.done(&host.key, 4, b"", files, true);
    say(&mut link, &ToCoordinator::Receipts(vec![Arc::new(done)])).await;
    assert_eq!(grid.faulted().await[0].1.word, "output_limit");
    let done = host.done(&host.key, 999, b"never published", Vec::new(), false);
    say(&mut link, &ToCoordinator::Receipts(vec![Arc::new(done)])).await;
    while hear(&mut link).await != wire::ToHost::Acknowledge(vec![AssignmentId(999)]) {}

    let fault = Fault::new("deadline", "two\nlines");
    say(&mut link, &ToCoordinator::Faults(vec![(AssignmentId(5), fault)])).await;
    assert_eq!(grid.faulted().await, [(AssignmentId(5), Fault::new("deadline", "two\\nlines"))]);
    grid.hosts.shutdown().await;
    assert_eq!(farewell(&link).await, Farewell::Stopping);
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_states_are_fetched_for_what_the_host_runs_and_for_nothing_else() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let (store, router, _dir) = serving(&host).await;
    let mut link = host.join(&grid).await;
    let (_, outbox) = grid.up().await;
    outbox.send(assign(1, 1, &template(ModuleHash::of(b"m")), b"in")).await.unwrap();
    while !matches!(hear(&mut link).await, wire::ToHost::Assign(_)) {}

    let checkpoint = |index: u32, state: &[u8]| Checkpoint {
        index,
        fuel_used: 9,
        snapshot: BlobHash::of(state),
        bytes: state.len() as u64,
    };
    let (state, other) = (vec![b'x'; 300_000], vec![b'y'; 70_000]);
    store.publish_bytes(state.clone()).await.unwrap();
    store.publish_bytes(other.clone()).await.unwrap();
    // Of an assignment that it does not have, from nowhere, and of another length than it said.
    let told = vec![
        (AssignmentId(99), checkpoint(0, &other)),
        (AssignmentId(1), checkpoint(0, b"never published")),
        (AssignmentId(1), Checkpoint { bytes: 70_001, ..checkpoint(1, &other) }),
    ];
    for told in told {
        say(&mut link, &ToCoordinator::Checkpoints(vec![told])).await;
    }
    say(&mut link, &ToCoordinator::Checkpoints(vec![(AssignmentId(1), checkpoint(2, &state))])).await;
    let Told::Checkpoint(id, kept) = grid.next().await else { panic!("no state was kept") };
    assert_eq!((id, kept), (AssignmentId(1), checkpoint(2, &state)));
    assert_eq!(grid.store.read(kept.snapshot, kept.bytes).await.unwrap(), state);

    // Longer than any may be: an honest host never sends it.
    let long = Checkpoint { bytes: limits::CHECKPOINT_BYTES_MAX + 1, ..checkpoint(3, &other) };
    say(&mut link, &ToCoordinator::Checkpoints(vec![(AssignmentId(1), long)])).await;
    assert_eq!(farewell(&link).await, Farewell::Garbage);
    grid.hosts.shutdown().await;
    router.shutdown().await.unwrap();
}

/// A store that the host gives blobs from, to anybody.
async fn serving(host: &Host) -> (Store, Router, tempfile::TempDir) {
    let (store, dir) = store().await;
    let blobs = store.protocol(Arc::new(|_| true));
    let router = Router::builder(host.endpoint.clone()).accept(store::ALPN, blobs).spawn();
    (store, router, dir)
}

/// A state without anything in it, and its snapshot.
fn empty_state() -> (StateRoot, Vec<u8>) {
    let memory = MemoryState { pages: 0, root: memory_root(&[]), refused: false };
    let state = State {
        module: ModuleHash([1; 32]),
        task: TaskId([2; 32]),
        engine: EngineFingerprint([3; 32]),
        index: 0,
        before: chained([]),
        fuel_used: 7,
        slept_ns: 0,
        random_bytes: 0,
        memory,
        globals: Vec::new(),
        stdin_bytes: 0,
        stdout: Stream::of(b""),
        log: Stream::of(b""),
    };
    (state.root(), Snapshot::encode(&state, &[], &[], b"", b""))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_found_is_held_against_the_snapshot_that_it_gives() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let (store, router, _dir) = serving(&host).await;
    let mut link = host.join(&grid).await;
    let (_, outbox) = grid.up().await;
    let template = template(ModuleHash::of(b"m"));
    for id in [1, 2, 3] {
        outbox.send(assign(id, 1, &template, b"in")).await.unwrap();
    }
    while !matches!(hear(&mut link).await, wire::ToHost::Assign(_)) {}
    let (root, snapshot) = empty_state();
    store.publish_bytes(snapshot.clone()).await.unwrap();
    let bytes = snapshot.len() as u64;
    let checkpoint = Some(Checkpoint { index: 0, fuel_used: 7, snapshot: BlobHash::of(&snapshot), bytes });
    let end = dispute::End::State(root);
    // With its snapshot, with none since none was asked for, and with that of another state.
    let found = [
        Found { end, checkpoint },
        Found { end, checkpoint: None },
        Found { end: dispute::End::State(StateRoot([9; 32])), checkpoint },
    ];
    for (id, found) in (1..).zip(found) {
        say(&mut link, &ToCoordinator::Found(vec![(AssignmentId(id), found)])).await;
        match (id, grid.next().await) {
            (1 | 2, Told::Found(of, told)) => assert_eq!((of, told), (AssignmentId(id), found)),
            (3, Told::Faulted(faults)) => assert_eq!(faults[0].1.word, "state_missing", "{faults:?}"),
            (id, other) => panic!("{id}: {other:?}"),
        }
    }
    assert_eq!(grid.store.read(BlobHash::of(&snapshot), bytes).await.unwrap(), snapshot);
    grid.hosts.shutdown().await;
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_may_read_blobs() {
    let mut grid = Grid::start().await;
    let hash = grid.store.publish_bytes(vec![1; 50_000]).await.unwrap().hash;
    let (store, _dir) = store().await;
    let host = Host::new(1).await;
    let coordinator = [endpoint::peer(grid.ticket.coordinator, &grid.ticket.addrs).unwrap()];
    let fetch = || store.fetch(&host.endpoint, hash, &coordinator, FetchLimits::default());
    assert!(fetch().await.is_err());
    let link = host.join(&grid).await;
    let (_, _outbox) = grid.up().await;
    assert_eq!(fetch().await.unwrap().len, 50_000);
    link.connection.close(Farewell::Bye.code(), b"bye");
    grid.down().await;
    store.remove(hash).await.unwrap();
    assert!(fetch().await.is_err());
    grid.hosts.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_is_noticed_in_about_five_seconds() {
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    let link = host.join(&grid).await;
    let (_, _outbox) = grid.up().await;
    let watch = Stopwatch::start();
    // The transport is alive, only the process says nothing.
    assert_eq!(farewell(&link).await, Farewell::Silent);
    grid.down().await;
    let noticed_ms = watch.elapsed_ms();
    assert!((4_000..8_000).contains(&noticed_ms), "noticed after {noticed_ms} ms");
    grid.hosts.shutdown().await;
}

/// The path of an assignment and its receipt, without the sandbox: what the wire costs, and what signatures add.
#[allow(clippy::print_stdout, reason = "a measurement is for whoever runs it")]
#[tokio::test(flavor = "multi_thread")]
async fn the_path_carries_its_load() {
    const TASKS: u64 = 20_000;
    let mut grid = Grid::start().await;
    let host = Host::new(1).await;
    for receipts in [false, true] {
        let link = host.join(&grid).await;
        let (_, outbox) = grid.up().await;
        let Link { mut send, mut recv, connection, .. } = link;
        let done = Arc::new(host.done(&host.key, 7, &[b'7'; 40], Vec::new(), true));
        let echo = tokio::spawn(async move {
            let mut frames = Vec::new();
            while let Ok(Some(message)) = frame::read(&mut recv, limits::FRAME_BYTES_MAX).await {
                let wire::ToHost::Assign(orders) = message else { continue };
                let answer = if receipts {
                    ToCoordinator::Receipts(vec![done.clone(); orders.len()])
                } else {
                    ToCoordinator::Faults(orders.iter().map(|order| (order.id, Fault::new("w", "detail"))).collect())
                };
                frame::push(&mut frames, &answer);
                send.write_all(&frames).await.unwrap();
                frames.clear();
            }
        });
        let watch = Stopwatch::start();
        let template = template(ModuleHash::of(b"m"));
        let feed = tokio::spawn(async move {
            for id in 0..TASKS {
                outbox.send(assign(id, 1, &template, &[7; 100])).await.unwrap();
            }
            outbox
        });
        let mut back = 0;
        while back < TASKS as usize {
            back += match grid.next().await {
                Told::Faulted(faults) => faults.len(),
                Told::Delivered(delivered) => delivered.len(),
                other => panic!("{other:?}"),
            };
        }
        let rate = TASKS as f64 / watch.elapsed().as_secs_f64();
        println!("assignments there and back, {}: {rate:.0}/s", if receipts { "receipts verified" } else { "faults" });
        // Far below what was measured, for a loaded machine and an unoptimised build.
        assert!(rate > 500.0, "{rate:.0} assignments/s");
        drop(feed.await.unwrap());
        connection.closed().await;
        grid.down().await;
        echo.abort();
    }
    grid.hosts.shutdown().await;
}
