//! Fresh eyes on what was built: peers, clients, modules and disks that mean harm. Afterwards the grid is still there, and
//! a job still comes out right.

use std::{path::Path, time::Duration};

use grid::{
    engines::Engines,
    flow::{AssignmentId, Fault, Offer},
};
use host::{
    client::{TOKEN_FILE, URL_FILE},
    clock::Stopwatch,
    gateway::{
        token::Token,
        wire::{InputRequest, JobRequest, LimitsRequest},
    },
    launch::{Process, TICKET_FILE},
    limits,
    net::{
        client::{self, Link},
        endpoint::{self, EndpointOptions},
        frame,
        wire::{self, Done, Hello, Order, ToCoordinator, ToHost},
    },
    sandbox::{SandboxOptions, Sandboxes},
};
use registry::{
    id::{BlobHash, JobId, NodeId, OperatorId, TaskId},
    job::{Class, Policy, ShardInfo, Stage},
    membership::{NodeCert, Ticket},
    price::PriceTable,
    receipt::{Execution, Outcome, Output, Receipt},
    sign::{SecretKey, Signed},
};
use support::{Cluster, Conduct, cli};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{EXE, digits};

/// A peer of our own making, with a certificate that holds.
pub(crate) struct Peer {
    pub(crate) key: SecretKey,
    pub(crate) operator: SecretKey,
    link: Link,
    /// The connection lives as long as this.
    _endpoint: Box<dyn std::any::Any + Send>,
}

fn engines() -> Engines {
    Sandboxes::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap().engines().clone()
}

impl Peer {
    async fn join(cluster: &Cluster, seed: u8, agent: &str) -> Self {
        Self::offering(cluster, seed, agent, engines()).await
    }

    /// Joins with engines that it says it has.
    pub(crate) async fn offering(cluster: &Cluster, seed: u8, agent: &str, engines: Engines) -> Self {
        let (key, operator) = (SecretKey::from_bytes(&[seed; 32]), SecretKey::from_bytes(&[seed + 100; 32]));
        let ticket = std::fs::read_to_string(cluster.data_dir().join(TICKET_FILE)).unwrap();
        let ticket: Ticket = ticket.parse().unwrap();
        let endpoint = endpoint::bind(&key, "127.0.0.1:0".parse().unwrap(), EndpointOptions::default()).await.unwrap();
        let cert = NodeCert { node: NodeId(key.public()), issued_ms: 1 };
        let hello = Hello {
            version: wire::VERSION,
            cert: Signed::seal(&cert, &operator),
            offer: Offer { slots: 4, queue_max: 64, memory_bytes_max: 1 << 30, engines, prices: PriceTable::default() },
            holding: vec![AssignmentId(1), AssignmentId(u64::MAX)],
            agent: agent.to_owned(),
        };
        let link = client::connect(&endpoint, &ticket, hello).await.unwrap();
        Self { key, operator, link, _endpoint: Box::new(endpoint) }
    }

    pub(crate) fn node(&self) -> NodeId {
        NodeId(self.key.public())
    }

    /// A receipt that this peer signs for an assignment, right or wrong.
    fn done(&self, nonce: u64, job: JobId, shard: ShardInfo, task: TaskId, stdout: Vec<u8>) -> Done {
        let output = Output { stdout: BlobHash::of(&stdout), stdout_bytes: stdout.len() as u64, files: Vec::new() };
        let execution = Execution {
            task,
            module: BlobHash::of(b"module").into(),
            class: Class::Exact,
            engine: engines().0[0].fingerprint,
            outcome: Outcome::Ok,
            fuel_used: 1,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let operator = OperatorId(self.operator.public());
        let receipt = Receipt {
            job,
            shard,
            execution,
            device: None,
            nn_record: None,
            segment_record: None,
            node: self.node(),
            operator,
            nonce,
            price_micro: 0,
        };
        Done { receipt: Signed::seal(&receipt, &self.key), output, stdout: Some(stdout.into()), task_us: 1 }
    }

    async fn send(&mut self, message: &ToCoordinator) {
        let mut frames = Vec::new();
        frame::push(&mut frames, message);
        self.send_raw(&frames).await;
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        // The coordinator may have hung up.
        let _ = self.link.send.write_all(bytes).await;
    }

    /// Waits until the coordinator has hung up.
    async fn is_cut_off(&mut self) {
        let wait = Duration::from_secs(10);
        tokio::time::timeout(wait, self.link.connection.closed()).await.expect("the coordinator hangs up");
    }

    /// Answers every order as `answer` says, until the test ends.
    pub(crate) fn serve(self, answer: impl Fn(&Self, Order) -> Option<ToCoordinator> + Send + Sync + 'static) {
        tokio::spawn(async move {
            let mut peer = self;
            loop {
                let read = frame::read(&mut peer.link.recv, limits::FRAME_BYTES_MAX).await;
                let Ok(Some(message)) = read else { return };
                peer.send(&ToCoordinator::Heartbeat).await;
                let ToHost::Assign(orders) = message else { continue };
                for order in orders {
                    if let Some(message) = answer(&peer, order) {
                        peer.send(&message).await;
                    }
                }
            }
        });
    }
}

fn log(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.coordinator().log()).unwrap()
}

/// The grid as a whole is well: nothing panicked, and a job comes out right.
async fn is_well(cluster: &Cluster) {
    assert!(cluster.client.text("/healthz").await.unwrap().contains("ok"));
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let input = InputRequest::Text("still here".into());
    let job = cluster.submit(&JobRequest { module, input, policy: Policy::Quorum(1), ..JobRequest::default() }).await;
    assert_eq!(cluster.result(job).await, b"still here");
    for process in std::iter::once(cluster.coordinator()).chain(&cluster.hosts) {
        let log = std::fs::read_to_string(process.log()).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_below(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_cut_off_and_named_in_the_log_on_one_line() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let evil = "x\u{1b}[2J\n2026 INFO forged\u{202e}";
    let mut word = vec![0x78, u8::try_from(evil.len()).unwrap()];
    word.extend_from_slice(evil.as_bytes());
    let framed = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    let hello_again = [&[0xa1, 0x65][..], b"hello", &[0xa0]].concat();
    let floods: [(u8, Vec<u8>); 5] = [
        (1, framed(&word)),
        (2, u32::MAX.to_be_bytes().to_vec()),
        (3, framed(&[0xff; 300])),
        (4, framed(&[0x9f; 200_000])),
        (5, framed(&hello_again)),
    ];
    for (seed, bytes) in floods {
        let mut peer = Peer::join(&cluster, seed, "q\u{1b}[31m\nforged/1").await;
        peer.send_raw(&bytes).await;
        peer.is_cut_off().await;
        let node = peer.node().short();
        let line = cluster
            .until("it is in the log", async || {
                log(&cluster).lines().find(|line| line.contains(&node) && line.contains("cut off")).map(str::to_owned)
            })
            .await;
        assert!(line.contains("broke the protocol"), "{line}");
    }
    // A forged signature: the receipt of another node.
    let (mut peer, other) = (Peer::join(&cluster, 6, "q/1").await, Peer::join(&cluster, 7, "q/1").await);
    let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
    let stolen = other.done(1, JobId([1; 32]), shard, TaskId([1; 32]), vec![1]);
    peer.send(&ToCoordinator::Receipts(vec![stolen.into()])).await;
    peer.is_cut_off().await;
    let log = log(&cluster);
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026 INFO") || line.starts_with("forged")), "{log}");
    is_well(&cluster).await;
}

#[tokio::test]
async fn receipts_and_faults_for_work_that_nobody_ordered_fill_no_disk() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let before = bytes_below(cluster.data_dir());
    let mut peer = Peer::join(&cluster, 10, "q/1").await;
    let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
    for nonce in 0..300u64 {
        let stdout = nonce.to_le_bytes().repeat(8000);
        let done = peer.done(nonce + 1_000_000, JobId([7; 32]), shard, TaskId([1; 32]), stdout);
        peer.send(&ToCoordinator::Receipts(vec![done.into()])).await;
        let faults = (0..100).map(|id| (AssignmentId(id), Fault::new("made_up", "x".repeat(128))));
        peer.send(&ToCoordinator::Faults(faults.collect())).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_well(&cluster).await;
    let grown = bytes_below(cluster.data_dir()).saturating_sub(before);
    println!("19 MB of made up receipts and 30,000 faults left {grown} bytes");
    assert!(grown < 6_000_000, "{grown} bytes were kept");
}

#[tokio::test]
async fn peers_that_answer_wrong_faulty_or_never_cost_no_result() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest; 3]).await;
    let reply = |done: Done| Some(ToCoordinator::Receipts(vec![done.into()]));
    let faulty = Peer::join(&cluster, 20, "q/1").await;
    faulty.serve(|_, order| Some(ToCoordinator::Faults(vec![(order.id, Fault::new("backend", "\u{1b}[2Jno"))])));
    let silent = Peer::join(&cluster, 21, "q/1").await;
    silent.serve(|_, _| None);
    let other_task = Peer::join(&cluster, 22, "q/1").await;
    other_task.serve(move |peer, order| reply(peer.done(order.id.0, order.job, order.shard, TaskId([9; 32]), vec![1])));
    let other_job = Peer::join(&cluster, 23, "q/1").await;
    other_job
        .serve(move |peer, order| reply(peer.done(order.id.0, JobId([3; 32]), order.shard, TaskId([9; 32]), vec![2])));
    let altered = Peer::join(&cluster, 24, "q/1").await;
    altered.serve(move |peer, order| {
        let done = peer.done(order.id.0, order.job, order.shard, TaskId([9; 32]), vec![1]);
        reply(Done { stdout: Some(vec![2].into()), ..done })
    });
    cluster.joined(8).await;
    let watch = Stopwatch::start();
    let job = digits::submit(&cluster, 30).await;
    assert_eq!(cluster.result(job).await, digits::truth());
    println!("60 shards with 5 of 8 hosts hostile: {} ms", watch.elapsed_ms());
    let nodes: Vec<host::client::answers::HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    assert!(nodes.iter().all(|node| node.contradicted == 0), "an honest host was blamed");
    assert!(!log(&cluster).contains('\u{1b}'));
    // A job of one shard may still go to the silent peer, and then waits for its lease: nothing tells it from a long task.
    assert!(cluster.client.text("/healthz").await.unwrap().contains("ok"));
}

#[tokio::test]
async fn a_host_restarted_and_a_twin_of_it_cost_no_result() {
    let mut cluster = Cluster::start(EXE, &[Conduct::Honest; 3]).await;
    let job = digits::submit(&cluster, 4).await;
    cluster.accepted(job, 5).await;
    cluster.hosts[0].kill();
    let dir = cluster.hosts[0].dir().to_owned();
    let home = cluster.data_dir().to_owned();
    let again = |dir: &Path| Process::host(Path::new(EXE), "host-1", dir, &home, &["--slots", "1"]).unwrap();
    cluster.hosts[0] = again(&dir);
    let twin = cluster.scratch("twin");
    std::fs::create_dir_all(&twin).unwrap();
    for key in ["node.key", "operator.key"] {
        std::fs::copy(dir.join(key), twin.join(key)).unwrap();
    }
    let _twin = again(&twin);
    assert_eq!(cluster.result(job).await, digits::truth());
    let nodes: Vec<host::client::answers::HostAnswer> = cluster.client.get("/v1/nodes").await.unwrap();
    assert_eq!(nodes.len(), 3);
    is_well(&cluster).await;
}

async fn open(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.client.url().trim_start_matches("http://")).await.unwrap()
}

/// Sends a request as it is; gives the status. None when the other side hung up without a word.
async fn raw(cluster: &Cluster, head: &str, body: &[u8]) -> Option<u16> {
    let token = Token::load(&cluster.data_dir().join(TOKEN_FILE)).unwrap().authorization();
    let mut stream = open(cluster).await;
    let head = format!("{head}\r\nhost: 127.0.0.1\r\nauthorization: {token}\r\nconnection: close\r\n\r\n");
    // A server that refuses does not read everything.
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    status(stream).await
}

async fn status(mut stream: TcpStream) -> Option<u16> {
    let mut answer = vec![0; 12];
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_exact(&mut answer)).await.expect("an answer");
    read.ok().and_then(|_| String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok())
}

/// A cluster whose store has room for so many bytes.
async fn small_store(bytes: u64) -> (tempfile::TempDir, Cluster) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("quorate.toml");
    std::fs::write(&config, format!("[store]\nquota_bytes_max = {bytes}\n")).unwrap();
    let config = config.to_string_lossy().into_owned();
    let cluster = Cluster::start_with(EXE, &[Conduct::Honest], &["--config", &config], &["--slots", "1"]).await;
    (dir, cluster)
}

#[tokio::test]
async fn clients_that_trickle_flood_or_never_read_leave_the_gateway_as_it_was() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let mut held = Vec::new();
    for part in ["GET /hea", "POST /v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"] {
        for _ in 0..50 {
            let mut stream = open(&cluster).await;
            stream.write_all(part.as_bytes()).await.unwrap();
            held.push(stream);
        }
    }
    assert!(cluster.client.text("/healthz").await.unwrap().contains("ok"));
    for _ in 0..2_000 {
        held.push(open(&cluster).await);
    }
    let last = held.pop().unwrap();
    assert_eq!(status(last).await, Some(503), "one more than there may be is told so");
    drop(held);
    cluster.until("it has room again", async || cluster.client.text("/healthz").await.ok()).await;

    let many: String = (0..500).map(|n| format!("\r\nx-{n}: y")).collect();
    assert!(matches!(raw(&cluster, &format!("GET /healthz HTTP/1.1{many}"), b"").await, None | Some(400 | 431)));
    let long = "y".repeat(1 << 20);
    assert!(matches!(raw(&cluster, &format!("GET /healthz HTTP/1.1\r\nx: {long}"), b"").await, None | Some(400 | 431)));
    for (body, refusal) in [("[".repeat(1 << 20), 400), ("{\"args\":".repeat(1 << 18), 400), (" ".repeat(5 << 20), 413)]
    {
        let head = format!("POST /v1/jobs HTTP/1.1\r\ncontent-length: {}", body.len());
        let found = raw(&cluster, &head, body.as_bytes()).await;
        assert!(found.is_none_or(|status| status == refusal), "{found:?}");
    }
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let job = cluster.submit(&JobRequest { module, policy: Policy::Quorum(5), ..JobRequest::default() }).await;
    for path in [
        "/v1/blobs/..%2f..%2ftoken".to_owned(),
        "/v1/blobs/%00".to_owned(),
        "/../../etc/passwd".to_owned(),
        format!("/v1/jobs/{job}/results/files/0/..%2f..%2f..%2ftoken"),
        format!("/v1/jobs/{job}/results/files/-1/x"),
        format!("/v1/jobs/{job}/results"),
        format!("/v1/jobs/{job}/results?shard=4294967295"),
        format!("/v1/jobs/{job}/receipts/99999999999999999999"),
    ] {
        let found = raw(&cluster, &format!("GET {path} HTTP/1.1"), b"").await;
        assert!(found.is_some_and(|status| (400..500).contains(&status)), "{path}: {found:?}");
    }
    let token = Token::load(&cluster.data_dir().join(TOKEN_FILE)).unwrap().authorization();
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = open(&cluster).await;
        let head = format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    assert!(cluster.cli(&["cancel", &job.to_string()], b"").await.status.success());
    assert_eq!(raw(&cluster, &format!("GET /v1/jobs/{job}/results HTTP/1.1"), b"").await, Some(409));
    is_well(&cluster).await;
}

#[tokio::test]
async fn uploads_without_an_end_are_refused_before_they_fill_the_disk() {
    const QUOTA: u64 = 24 << 20;
    let (_config, cluster) = small_store(QUOTA).await;
    let token = Token::load(&cluster.data_dir().join(TOKEN_FILE)).unwrap().authorization();
    let piece = [b"100000\r\n".as_slice(), &vec![7; 1 << 20], b"\r\n"].concat();
    let head = format!(
        "POST /v1/blobs HTTP/1.1\r\nhost: localhost\r\nauthorization: {token}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    // Each stays below the quota; together they do not.
    let mut streams = Vec::new();
    let mut most = 0;
    for _ in 0..4 {
        let mut stream = open(&cluster).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..16 {
            if stream.write_all(&piece).await.is_err() {
                break;
            }
        }
        streams.push(stream);
        tokio::time::sleep(Duration::from_millis(300)).await;
        most = most.max(bytes_below(cluster.data_dir()));
    }
    println!("4 uploads of 16 MiB within a quota of 24 MiB took {most} bytes of disk at most");
    assert!(most < QUOTA + (12 << 20), "{most} bytes");
    drop(streams);
    // One alone is refused when it passes the quota, and nothing of it stays.
    let mut stream = open(&cluster).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..64 {
        if stream.write_all(&piece).await.is_err() {
            break;
        }
    }
    let refused = status(stream).await;
    assert!(matches!(refused, None | Some(413 | 507)), "{refused:?}");
    cluster.until("nothing of it stays", async || (bytes_below(cluster.data_dir()) < 8 << 20).then_some(())).await;
    is_well(&cluster).await;
}

#[tokio::test]
async fn modules_that_loop_trap_or_have_as_much_as_they_may_end_with_their_outcome() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let begin = r#"(memory (export "memory") 1) (func (export "_start"))"#;
    let looping = format!("(module {begin} (func $s (loop br 0)) (start $s))");
    let trapping = format!("(module {begin} (func $s unreachable) (start $s))");
    let cases =
        [("fuel_out", wat::parse_str(looping).unwrap()), ("trap(unreachable)", wat::parse_str(trapping).unwrap())];
    for (expected, wasm) in cases {
        let module = cluster.publish(wasm).await;
        let limits = LimitsRequest { fuel_max: Some(1_000_000), ..LimitsRequest::default() };
        let request = JobRequest { module, limits, policy: Policy::Quorum(1), ..JobRequest::default() };
        let job = cluster.submit(&request).await;
        cluster.ended(job).await;
        let outcomes = cluster.client.job(job).await.unwrap().outcomes.unwrap_or_default();
        assert!(outcomes.keys().any(|word| word.contains(expected)), "{expected}: {outcomes:?}");
    }
    is_well(&cluster).await;
}

/// Writes a thousand files, and asks for others that it may not have.
const FILES: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "out/../../../../tmp/escape")
  (data (i32.const 100) "../escape")
  (data (i32.const 200) "out/a\1b[2Jb\0ac")
  (data (i32.const 300) "out/-rf")
  (data (i32.const 400) "out/f000")
  (func $make (param i32 i32)
    (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (local.get 0) (local.get 1)
        (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 1000)))
      (then
        (i32.store (i32.const 1100) (local.get 0))
        (i32.store (i32.const 1104) (local.get 1))
        (drop (call $write (i32.load (i32.const 1000)) (i32.const 1100) (i32.const 1) (i32.const 1200)))
        (drop (call $close (i32.load (i32.const 1000)))))))
  (func (export "_start") (local $n i32)
    (call $make (i32.const 0) (i32.const 26))
    (call $make (i32.const 100) (i32.const 9))
    (call $make (i32.const 200) (i32.const 12))
    (call $make (i32.const 300) (i32.const 7))
    (loop $next
      (i32.store8 (i32.const 405) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 100))))
      (i32.store8 (i32.const 406) (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $n) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 407) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (call $make (i32.const 400) (i32.const 8))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const 1000))))))"#;

#[tokio::test]
async fn a_thousand_files_with_odd_names_arrive_below_the_directory_and_nowhere_else() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let module = cluster.publish(wat::parse_str(FILES).unwrap()).await;
    let job = cluster.submit(&JobRequest { module, policy: Policy::Quorum(1), ..JobRequest::default() }).await;
    let watch = Stopwatch::start();
    assert_eq!(cluster.ended(job).await.phase, "done", "{}", cluster.logs());
    let took = watch.elapsed_ms();
    let files: Vec<host::client::answers::FileAnswer> =
        cluster.client.get(&format!("/v1/jobs/{job}/results/files")).await.unwrap();
    assert!((1_000..=1_004).contains(&files.len()), "{} files", files.len());
    let outer = cluster.scratch("outer");
    let dir = outer.join("inner");
    std::fs::create_dir_all(&dir).unwrap();
    let watch = Stopwatch::start();
    let output = cluster.cli(&["results", &job.to_string(), "--out-dir", &dir.to_string_lossy()], b"").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("a thousand files: job {took} ms, results {} ms: {said}", watch.elapsed_ms());
    assert!(!said.contains('\u{1b}'), "{said:?}");
    assert_eq!(std::fs::read_dir(&outer).unwrap().count(), 1);
    assert!(!Path::new("/tmp/escape").exists() && !Path::new("/escape").exists());
    let shard = dir.join("files/shard-000000");
    assert_eq!(std::fs::read(shard.join("f999")).unwrap(), b"out/f999");
    assert!(shard.join("-rf").is_file());
    is_well(&cluster).await;
}

/// Runs the program; gives its exit code and what it says.
async fn says(data_dir: Option<&Path>, args: &[&str]) -> (i32, String) {
    let output = cli(EXE, data_dir, args, b"").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked") && !said.contains('\u{1b}') && !said.contains('\u{202e}'), "{args:?}: {said:?}");
    (output.status.code().expect("it exited"), said)
}

#[tokio::test]
async fn damaged_files_end_a_process_with_one_line_and_no_panic() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let up = ["up", "--listen", "127.0.0.1:0", "--net-listen", "127.0.0.1:0", "--tethered"];
    let cases: [(&str, &[u8], u32, &str); 7] = [
        ("node.key", b"abc", 0o600, "does not hold a key"),
        ("node.key", &[b'a'; 65], 0o644, "chmod 600"),
        ("node.key", &[0xff; 64], 0o600, "does not hold a key"),
        ("token", b"", 0o600, "holds no token"),
        ("token", &[b'a'; 64], 0o644, "chmod 600"),
        ("token", &[0xff; 64], 0o600, "token"),
        ("journal.db", &[0x5a; 9_000], 0o600, "journal"),
    ];
    for (name, bytes, mode, expected) in cases {
        let path = put(name, bytes, mode);
        let (code, said) = says(Some(dir.path()), &up).await;
        std::fs::remove_file(path).unwrap();
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!((1..=2).contains(&code) && errors.len() == 1 && errors[0].contains(expected), "{name}: {code}: {said}");
    }
    put(TOKEN_FILE, &[b'a'; 64], 0o600);
    for url in [&b"\x1b[2J\nhttp://x y"[..], b"", b"http://", b"\xff\xfe", b"ftp://127.0.0.1"] {
        put(URL_FILE, url, 0o600);
        let (code, said) = says(Some(dir.path()), &["jobs"]).await;
        assert!((2..=3).contains(&code) && said.lines().count() == 1, "{url:?}: {code}: {said}");
    }
    for ticket in [&b"quorate1"[..], b"", b"\xff\xff", b"quorate1\x1b[2J"] {
        let path = put(TICKET_FILE, ticket, 0o600);
        let path = path.to_string_lossy().into_owned();
        let (code, said) = says(Some(dir.path()), &["node", "--join", &path, "--net-listen", "127.0.0.1:0"]).await;
        assert!((1..=2).contains(&code) && said.lines().count() == 1, "{ticket:?}: {code}: {said}");
    }
}

#[tokio::test]
async fn text_of_others_reaches_no_terminal_unescaped() {
    let cluster = Cluster::start(EXE, &[Conduct::Honest]).await;
    let dir = Some(cluster.data_dir());
    let evil = "x\u{1b}[2J\u{202e}\nerror: forged";
    for args in [vec!["submit", evil, "--inline", "x"], vec!["job", evil], vec!["results", evil]] {
        let (code, said) = says(dir, &args).await;
        assert!(code != 0 && said.lines().filter(|line| line.starts_with("error: ")).count() <= 1, "{args:?}: {said}");
    }
    let module = cluster.publish(tasks::ECHO.wasm).await;
    let request = JobRequest { module, args: vec![evil.into()], policy: Policy::Quorum(1), ..JobRequest::default() };
    let job = cluster.submit(&request).await;
    cluster.ended(job).await;
    assert!(!log(&cluster).contains('\u{1b}'));
}
