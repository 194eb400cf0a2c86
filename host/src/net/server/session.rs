//! One host, from its hello to its farewell.
//!
//! Four loops run as one task and end together: one reads frames, one writes what the event machine has for the host, one
//! checks receipts, one fetches states that the host keeps. Dropping the task drops all of it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use grid::{
    flow::{AssignmentId, Fault},
    subnet::Subnet,
};
use iroh::{
    TransportAddr,
    endpoint::{Connection, RecvStream, SendStream},
};
use registry::{
    canon,
    id::{NodeId, OperatorId},
};
use tokio::{sync::mpsc, time::timeout};

use super::{Desk, Shared, check, keep};
use crate::{
    coordinator::{Arrival, ToHost},
    limits,
    net::{
        Farewell,
        frame::{self, FrameError},
        templates::Templates,
        wire::{self, Breach, Hello, Refused, ToCoordinator, Welcome},
    },
};

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The host closed its end.
    #[error("host left")]
    Left,
    /// Nothing came for too long, or nothing could be sent.
    #[error("host was silent or did not read for too long")]
    Silent,
    /// The connection broke.
    #[error("connection broke: {0}")]
    Broken(String),
    /// The host broke the protocol.
    #[error("host broke the protocol: {0}")]
    Garbage(String),
    /// The event machine dropped the outbox: there is a newer session, or this one did not keep up.
    #[error("host has a newer session, or did not keep up with its messages")]
    Replaced,
    /// The coordinator is stopping.
    #[error("coordinator is stopping")]
    Stopping,
}

impl End {
    fn farewell(&self) -> Farewell {
        match self {
            Self::Left | Self::Broken(_) => Farewell::Bye,
            Self::Silent => Farewell::Silent,
            Self::Garbage(_) => Farewell::Garbage,
            Self::Replaced => Farewell::Replaced,
            Self::Stopping => Farewell::Stopping,
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        if error.is_garbage() { Self::Garbage(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

impl From<Breach> for End {
    fn from(breach: Breach) -> Self {
        Self::Garbage(breach.to_string())
    }
}

/// Serves one connection; says how to close it.
pub(super) async fn host<D: Desk>(shared: &Shared<D>, connection: &Connection, node: NodeId) -> Farewell {
    let greeting = {
        let Ok(_hello) = shared.hellos.try_acquire() else { return Farewell::Busy };
        timeout(Duration::from_millis(limits::HELLO_MS_MAX), greet(connection)).await
    };
    let (hello, mut send, recv) = match greeting {
        Ok(Ok(greeting)) => greeting,
        Ok(Err(end)) => {
            tracing::warn!(node = %node.short(), reason = shown(&end), "no hello");
            return end.farewell();
        }
        Err(_) => {
            tracing::warn!(node = %node.short(), hello_ms_max = limits::HELLO_MS_MAX, "no hello in time");
            return Farewell::Silent;
        }
    };
    let Ok(_place) = shared.sessions.try_acquire() else {
        let detail = format!("coordinator has {} hosts, its bound", limits::HOSTS_MAX);
        return refuse(connection, &mut send, node, refusal("busy", detail, true)).await;
    };
    let operator = match admit(&hello, node) {
        Ok(operator) => operator,
        Err(refused) => return refuse(connection, &mut send, node, refused).await,
    };
    let agent = wire::one_line(&hello.agent);
    tracing::info!(node = %node.short(), operator = %operator.short(), agent, slots = hello.offer.slots, "host joined");
    let end = member(shared, connection, node, operator, hello, send, recv).await;
    if matches!(end, End::Garbage(_)) {
        tracing::warn!(node = %node.short(), reason = shown(&end), "host is cut off");
    } else {
        tracing::info!(node = %node.short(), reason = shown(&end), "host is gone");
    }
    end.farewell()
}

/// A reason for the log: a parser's error may quote what the host sent.
fn shown(end: &End) -> String {
    wire::one_line(&end.to_string())
}

async fn greet(connection: &Connection) -> Result<(Hello, SendStream, RecvStream), End> {
    let broken = |error: iroh::endpoint::ConnectionError| End::Broken(error.to_string());
    let (send, mut recv) = connection.accept_bi().await.map_err(broken)?;
    match frame::read(&mut recv, limits::HELLO_BYTES_MAX).await? {
        Some(ToCoordinator::Hello(hello)) => Ok((*hello, send, recv)),
        Some(_) => Err(Breach::Turn { message: "anything before hello" }.into()),
        None => Err(End::Left),
    }
}

fn refusal(word: &str, detail: impl Into<String>, retry: bool) -> Refused {
    Refused { word: word.to_owned(), detail: detail.into(), retry }
}

/// Who answers for the host, if it may come in.
fn admit(hello: &Hello, node: NodeId) -> Result<OperatorId, Refused> {
    if hello.version != wire::VERSION {
        let detail =
            format!("host speaks version {}, coordinator version {}: update the older", hello.version, wire::VERSION);
        return Err(refusal("version", detail, false));
    }
    let (cert, operator) = hello.cert.open().map_err(|error| refusal("cert", error.to_string(), false))?;
    if cert.node != node {
        let detail =
            format!("certificate is for node {}, the connection is of node {}", cert.node.short(), node.short());
        return Err(refusal("cert", detail, false));
    }
    let offer = &hello.offer;
    let offers = [
        ("slots", u64::from(offer.slots), 1, u64::from(limits::SLOTS_MAX)),
        ("queue_max", u64::from(offer.queue_max), 0, u64::from(limits::HOST_QUEUE_MAX)),
        ("memory_bytes_max", offer.memory_bytes_max, 1, limits::MEMORY_BYTES_MAX),
    ];
    match offers.into_iter().find(|(_, value, min, max)| !(min..=max).contains(&value)) {
        Some((what, value, min, max)) => {
            let detail = format!("offered {what} is {value}, outside the bounds of {min} to {max}");
            Err(refusal("offer", detail, false))
        }
        None => {
            let refused = |what, error: String| refusal("offer", format!("offered {what}: {error}"), false);
            offer.engines.check().map_err(|error| refused("engines", error.to_string()))?;
            offer.prices.check().map_err(|error| refused("prices", error.to_string()))?;
            Ok(OperatorId(operator))
        }
    }
}

/// Says why not, and waits for the host to have read it.
async fn refuse(connection: &Connection, send: &mut SendStream, node: NodeId, refused: Refused) -> Farewell {
    tracing::warn!(node = %node.short(), word = refused.word, detail = refused.detail, "host is refused");
    let mut frames = Vec::new();
    frame::push(&mut frames, &wire::ToHost::Refused(refused));
    let said = async {
        send.write_all(&frames).await.ok()?;
        send.finish().ok()?;
        Some(connection.closed().await)
    };
    // A host that does not listen is closed all the same.
    let _ = timeout(Duration::from_millis(limits::FAREWELL_MS_MAX), said).await;
    Farewell::Refused
}

/// A session proper.
async fn member<D: Desk>(
    shared: &Shared<D>,
    connection: &Connection,
    node: NodeId,
    operator: OperatorId,
    hello: Hello,
    mut send: SendStream,
    recv: RecvStream,
) -> End {
    let welcome = Welcome { version: wire::VERSION, agent: wire::AGENT.to_owned() };
    let mut frames = Vec::new();
    frame::push(&mut frames, &wire::ToHost::Welcome(welcome));
    if let Err(end) = write(&mut send, &frames).await {
        return end;
    }
    let _member = shared.members.enter(node);
    let (outbox, inbox) = mpsc::channel(limits::OUTBOX_MAX);
    let (again, to_forget) = (outbox.downgrade(), outbox.downgrade());
    let open = Open::new(&hello.holding);
    let (Hello { cert, offer, holding, .. }, subnet) = (hello, subnet(connection));
    let arrival = Arrival { node, operator, cert, offer, subnet, holding };
    let Ok(session) = shared.desk.host_up(arrival, outbox).await else {
        return End::Stopping;
    };
    let (receipts, to_check) = mpsc::channel(1);
    let (kept, to_keep) = mpsc::channel(1);
    let desk = &shared.desk;
    let mut stopping = shared.stopping.clone();
    let end = tokio::select! {
        end = read_loop(desk, node, &open, recv, receipts, kept) => end,
        end = write_loop(desk, node, &open, send, inbox) => end,
        end = check::run(shared, connection, node, &open, again, to_check) => end,
        end = keep::run(shared, connection, node, &open, to_forget, to_keep) => end,
        _ = stopping.wait_for(|stop| *stop) => End::Stopping,
    };
    desk.host_down(node, session).await;
    end
}

/// Where the connection comes from, by the path that is in use.
fn subnet(connection: &Connection) -> Subnet {
    let paths = connection.paths();
    let seen = paths.iter().filter_map(|path| match path.remote_addr() {
        TransportAddr::Ip(addr) => Some((path.is_selected(), Subnet::from(addr.ip()))),
        _ => None,
    });
    seen.max_by_key(|(is_selected, _)| *is_selected).map_or(Subnet::Relayed, |(_, subnet)| subnet)
}

/// What a host is working on in this session, with the output in bytes that each task may have.
pub(super) struct Open(Mutex<HashMap<AssignmentId, u64>>);

impl Open {
    /// Of what the host brings along the limits are not known here.
    fn new(holding: &[AssignmentId]) -> Self {
        Self(Mutex::new(holding.iter().map(|id| (*id, limits::OUTPUT_BYTES_MAX)).collect()))
    }

    fn map(&self) -> MutexGuard<'_, HashMap<AssignmentId, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Output in bytes that a task may have; none if the host has no such task.
    pub(super) fn output_bytes_max(&self, id: AssignmentId) -> Option<u64> {
        self.map().get(&id).copied()
    }

    pub(super) fn close(&self, id: AssignmentId) {
        self.map().remove(&id);
    }
}

async fn read_loop<D: Desk>(
    desk: &D,
    node: NodeId,
    open: &Open,
    mut recv: RecvStream,
    receipts: mpsc::Sender<Vec<check::Raw>>,
    kept: mpsc::Sender<Vec<(AssignmentId, keep::Told)>>,
) -> End {
    loop {
        let silence = Duration::from_millis(limits::SILENCE_MS_MAX);
        let message = match timeout(silence, frame::read(&mut recv, limits::FRAME_BYTES_MAX)).await {
            Err(_) => return End::Silent,
            Ok(Err(error)) => return error.into(),
            Ok(Ok(None)) => return End::Left,
            Ok(Ok(Some(message))) => message,
        };
        match message {
            ToCoordinator::Hello(_) => return Breach::Turn { message: "hello" }.into(),
            ToCoordinator::Heartbeat => {}
            ToCoordinator::Receipts(done) => {
                if receipts.send(done).await.is_err() {
                    return End::Stopping;
                }
            }
            ToCoordinator::Checkpoints(told) => {
                let told = told.into_iter().map(|(id, checkpoint)| (id, keep::Told::Kept(checkpoint)));
                if kept.send(told.collect()).await.is_err() {
                    return End::Stopping;
                }
            }
            ToCoordinator::Found(told) => {
                let told = told.into_iter().map(|(id, found)| (id, keep::Told::Found(found)));
                if kept.send(told.collect()).await.is_err() {
                    return End::Stopping;
                }
            }
            ToCoordinator::Faults(faults) => {
                faults.iter().for_each(|(id, _)| open.close(*id));
                let cleaned = faults.into_iter().map(|(id, Fault { word, detail })| {
                    let detail = wire::one_line(&detail);
                    (id, Fault::new(word, detail))
                });
                desk.faulted(node, cleaned.collect()).await;
            }
        }
    }
}

async fn write_loop<D: Desk>(
    desk: &D,
    node: NodeId,
    open: &Open,
    mut send: SendStream,
    mut inbox: mpsc::Receiver<ToHost>,
) -> End {
    let mut messages = Vec::with_capacity(limits::BATCH_ITEMS_MAX);
    let mut batcher = Batcher::default();
    loop {
        let received = inbox.recv_many(&mut messages, limits::BATCH_ITEMS_MAX);
        match timeout(Duration::from_millis(limits::HEARTBEAT_MS), received).await {
            Ok(0) => return End::Replaced,
            Ok(_) => {}
            Err(_) => batcher.push(wire::ToHost::Heartbeat),
        }
        let mut lost = Vec::new();
        for message in messages.drain(..) {
            if let Some(fault) = batcher.take(message, open) {
                lost.push(fault);
            }
            if batcher.frames.len() >= limits::BATCH_BYTES
                && let Err(end) = batcher.flush(&mut send).await
            {
                return end;
            }
        }
        if !lost.is_empty() {
            desk.faulted(node, lost).await;
        }
        if let Err(end) = batcher.flush(&mut send).await {
            return end;
        }
    }
}

async fn write(send: &mut SendStream, frames: &[u8]) -> Result<(), End> {
    match timeout(Duration::from_millis(limits::WRITE_MS_MAX), send.write_all(frames)).await {
        Err(_) => Err(End::Silent),
        Ok(written) => written.map_err(|error| End::Broken(error.to_string())),
    }
}

/// Joins neighbours of one kind into one message, and sends each template before its first assignment.
#[derive(Default)]
struct Batcher {
    frames: Vec<u8>,
    pending: Pending,
    sent: Templates<u64>,
}

#[derive(Default)]
enum Pending {
    #[default]
    None,
    Assign(Vec<wire::Order>, usize),
    Revoke(Vec<AssignmentId>),
    Acknowledge(Vec<AssignmentId>),
}

impl Batcher {
    /// Adds a message; gives back the assignment that cannot be sent.
    fn take(&mut self, message: ToHost, open: &Open) -> Option<(AssignmentId, Fault)> {
        match message {
            ToHost::Assign { assignment, template, input } => {
                let (id, job) = (assignment.id, assignment.job);
                let output_bytes_max = match self.sent.get(job) {
                    Some(output_bytes_max) => *output_bytes_max,
                    None => {
                        let output_bytes_max = template.limits.output_bytes_max;
                        self.sent.insert(job, canon::encode(&template).len(), output_bytes_max);
                        self.push(wire::ToHost::Templates(vec![(job, template)]));
                        output_bytes_max
                    }
                };
                let Some(order) = wire::Order::new(*assignment, input) else {
                    tracing::error!(assignment = id.0, "an assignment has no input: it is given back");
                    return Some((id, Fault::new("no_input", "coordinator has no input for the assignment")));
                };
                open.map().insert(id, output_bytes_max);
                self.assign(order);
            }
            ToHost::Revoke(id) => {
                open.close(id);
                match &mut self.pending {
                    Pending::Revoke(ids) => ids.push(id),
                    _ => self.replace(Pending::Revoke(vec![id])),
                }
            }
            ToHost::Acknowledge(id) => {
                open.close(id);
                match &mut self.pending {
                    Pending::Acknowledge(ids) => ids.push(id),
                    _ => self.replace(Pending::Acknowledge(vec![id])),
                }
            }
        }
        None
    }

    fn assign(&mut self, order: wire::Order) {
        let weight = order.weight();
        match &mut self.pending {
            Pending::Assign(orders, bytes) if *bytes + weight <= limits::BATCH_BYTES => {
                orders.push(order);
                *bytes += weight;
            }
            _ => self.replace(Pending::Assign(vec![order], weight)),
        }
    }

    fn replace(&mut self, pending: Pending) {
        let message = match std::mem::replace(&mut self.pending, pending) {
            Pending::None => return,
            Pending::Assign(orders, _) => wire::ToHost::Assign(orders),
            Pending::Revoke(ids) => wire::ToHost::Revoke(ids),
            Pending::Acknowledge(ids) => wire::ToHost::Acknowledge(ids),
        };
        frame::push(&mut self.frames, &message);
    }

    /// Adds a message that is joined with no other.
    fn push(&mut self, message: wire::ToHost) {
        self.replace(Pending::None);
        frame::push(&mut self.frames, &message);
    }

    /// Sends everything added so far.
    async fn flush(&mut self, send: &mut SendStream) -> Result<(), End> {
        self.replace(Pending::None);
        write(send, &self.frames).await?;
        self.frames.clear();
        // One large batch shall not hold its memory for the life of the connection.
        self.frames.shrink_to(limits::BATCH_BYTES);
        Ok(())
    }
}
