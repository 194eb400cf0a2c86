//! A gateway on a real coordinator, journal and store, and hosts that answer each task with its own input.

use std::path::Path;

use bytes::Bytes;
use grid::{
    config::Config,
    engines::Engines,
    flow::{Attested, Offer},
    subnet::Subnet,
};
use registry::{
    id::{EngineFingerprint, NodeId, OperatorId},
    job::{Class, task_id},
    membership::NodeCert,
    price::PriceTable,
    receipt::{Execution, Outcome, Output, Receipt},
    sign::{SecretKey, Signed},
    store::{Store, StoreOptions},
};
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    client::Client,
    coordinator::{Arrival, Coordinator, Delivered, Input, ToHost},
    gateway::{Gateway, serve, token::Token},
    journal::Journal,
    metrics::{CoordinatorMetrics, Metrics},
    sandbox::{Sandbox, SandboxOptions},
};

pub(super) const TOKEN: &str = "0123456789abcdef";

pub(super) struct Served {
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) coordinator: Coordinator,
    pub(super) store: Store,
}

/// A gateway without hosts.
pub(super) async fn served(dir: &Path) -> Served {
    let store = Store::open(&dir.join("blobs"), StoreOptions::default()).await.unwrap();
    let (journal, replay) = Journal::open(&dir.join("journal.db"), Box::new(|_, _| {})).unwrap();
    let metrics = CoordinatorMetrics::new(&Metrics::new());
    let key = SecretKey::from_bytes(&[99; 32]);
    let (coordinator, _) =
        Coordinator::start(Config::default(), key, journal, replay, store.clone(), metrics.clone()).unwrap();
    let sandbox = Sandbox::new(SandboxOptions { slots_max: 1, ..SandboxOptions::default() }).unwrap();
    let token = Token::from_text(TOKEN).unwrap();
    let gateway =
        Gateway::new(coordinator.clone(), store.clone(), sandbox, metrics, token.clone(), "quorate1ticket".into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, gateway, std::future::pending()));
    Served { client: Client::new(&url, &token).unwrap(), url, coordinator, store }
}

impl Served {
    /// Hosts of distinct operators; each writes what it reads.
    pub(super) async fn with_hosts(self, hosts: u8) -> Self {
        for host in 1..=hosts {
            let (node, operator) = (SecretKey::from_bytes(&[host; 32]), SecretKey::from_bytes(&[host + 100; 32]));
            let cert = NodeCert { node: NodeId(node.public()), issued_ms: 0 };
            let (outbox, inbox) = mpsc::channel(1000);
            let offer = Offer {
                slots: 4,
                queue_max: 100,
                memory_bytes_max: 1 << 30,
                engines: Engines::plain(EngineFingerprint([4; 32]), EngineFingerprint([5; 32])),
                prices: PriceTable::default(),
            };
            let (id, owner) = (NodeId(node.public()), OperatorId(operator.public()));
            let (cert, subnet) = (Signed::seal(&cert, &operator), Subnet::Relayed);
            let arrival = Arrival { node: id, operator: owner, cert, offer, subnet, holding: Vec::new() };
            self.coordinator.host_up(arrival, outbox).await.unwrap();
            tokio::spawn(echo(self.coordinator.clone(), node, owner, inbox));
        }
        self
    }
}

async fn echo(coordinator: Coordinator, key: SecretKey, operator: OperatorId, mut inbox: mpsc::Receiver<ToHost>) {
    let node = NodeId(key.public());
    while let Some(message) = inbox.recv().await {
        let ToHost::Assign { assignment, template, input: Input::Inline(stdout) } = message else { continue };
        let output = Output { stdout: assignment.input, stdout_bytes: stdout.len() as u64, files: Vec::new() };
        let execution = Execution {
            task: task_id(template.hash(), assignment.shard, assignment.input),
            module: template.module,
            class: Class::Exact,
            engine: EngineFingerprint([4; 32]),
            outcome: Outcome::Ok,
            fuel_used: 7,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let receipt = Receipt {
            job: assignment.job,
            shard: assignment.shard,
            execution,
            device: None,
            node,
            operator,
            nonce: assignment.id.0,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        };
        let receipt = Attested::check(Signed::seal(&receipt, &key), node).unwrap();
        let stdout = Some(Bytes::copy_from_slice(&stdout));
        coordinator.deliver(node, vec![Delivered { receipt, output, stdout, task_us: 100 }]).await;
    }
}
