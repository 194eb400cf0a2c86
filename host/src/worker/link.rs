//! The connection to the coordinator, made again for ever.
//!
//! A coordinator that is away is one line in the log when it goes and one when it is back. In between everything that runs
//! goes on, and what it gives is said at the next welcome.

use std::{pin::pin, sync::Arc, time::Duration};

use iroh::endpoint::{RecvStream, SendStream};
use registry::canon;
use tokio::time::timeout;

use super::{
    Lease, Shared, WorkerError,
    book::Task,
    job::{self, Job},
};
use crate::{
    clock::Stopwatch,
    limits,
    net::{
        Farewell,
        backoff::Backoff,
        client::{self, Link},
        frame,
        templates::Templates,
        wire::{self, Breach, Hello, ToCoordinator, ToHost},
    },
};

/// Why a session ended.
enum End {
    /// The connection is gone; come back.
    Lost(String),
    /// The coordinator broke the protocol; come back, it may have been replaced by then.
    Garbage(String),
}

impl From<frame::FrameError> for End {
    fn from(error: frame::FrameError) -> Self {
        // A parser's error may quote what the coordinator sent.
        let text = wire::one_line(&error.to_string());
        if error.is_garbage() { Self::Garbage(text) } else { Self::Lost(text) }
    }
}

/// Keeps a connection until `shutdown`, or until the coordinator refuses for good.
pub(super) async fn stay(shared: &Arc<Shared>, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
    let mut shutdown = pin!(shutdown);
    let mut backoff = Backoff::new(limits::RECONNECT_MS_MIN, limits::RECONNECT_MS_MAX);
    let (mut joined_before, mut said_away) = (false, false);
    let metrics = &shared.options.metrics;
    loop {
        let connected = tokio::select! {
            connected = client::connect(&shared.options.endpoint, &shared.options.ticket, hello(shared)) => connected,
            () = &mut shutdown => return Ok(()),
        };
        match connected {
            Ok(link) => {
                joined_before = true;
                metrics.set_connected(true);
                let coordinator = shared.options.ticket.coordinator.short();
                tracing::info!(coordinator, agent = wire::one_line(&link.welcome.agent), "joined the grid");
                let lived = Stopwatch::start();
                let reason = match session(shared, link, shutdown.as_mut()).await {
                    None => return Ok(()),
                    Some(End::Lost(reason)) => reason,
                    Some(End::Garbage(reason)) => format!("coordinator broke the protocol: {reason}"),
                };
                metrics.set_connected(false);
                if lived.elapsed_ms() > limits::RECONNECT_MS_MAX {
                    backoff.reset();
                }
                tracing::warn!(coordinator, reason, "lost the coordinator; its work goes on, and trying to come back");
                said_away = true;
            }
            Err(error) if error.is_for_good(joined_before) => return Err(error.into()),
            Err(error) if said_away => tracing::debug!(%error, "coordinator is still away"),
            Err(error) => {
                tracing::warn!(%error, "coordinator is away");
                said_away = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next(random())) => {}
            () = &mut shutdown => return Ok(()),
        }
    }
}

/// Spreads the hosts' attempts; without randomness they come at once, which is no error.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

fn hello(shared: &Shared) -> Hello {
    Hello {
        version: wire::VERSION,
        cert: shared.options.cert.clone(),
        offer: shared.offer(),
        holding: shared.book.introduce(),
        agent: wire::AGENT.to_owned(),
    }
}

/// One connection, from the welcome to its end; none when it ended because of the shutdown.
async fn session(shared: &Arc<Shared>, link: Link, shutdown: impl Future<Output = ()>) -> Option<End> {
    let Link { connection, mut send, mut recv, .. } = link;
    let farewell = |farewell: Farewell| connection.close(farewell.code(), farewell.word().as_bytes());
    let ended = {
        // Dropped only when the connection is of no more use: it may be in the middle of a frame.
        let mut conversation = pin!(async {
            tokio::select! {
                end = read_loop(shared, &mut recv) => end,
                end = write_loop(shared, &mut send) => end,
            }
        });
        tokio::select! {
            end = &mut conversation => Some(end),
            () = shutdown => {
                last_words(shared, conversation).await;
                None
            }
        }
    };
    let Some(end) = ended else {
        // What was written last is still on its way.
        if send.finish().is_ok() {
            let _ = timeout(Duration::from_millis(limits::FAREWELL_MS_MAX), send.stopped()).await;
        }
        farewell(Farewell::Bye);
        return None;
    };
    Some(match end {
        End::Lost(otherwise) => {
            let reason = client::reason(&connection, otherwise);
            farewell(Farewell::Bye);
            End::Lost(reason)
        }
        garbage @ End::Garbage(_) => {
            farewell(Farewell::Garbage);
            garbage
        }
    })
}

/// Gives back what waits, and lets what runs end and be acknowledged, for a while.
async fn last_words(shared: &Shared, conversation: impl Future<Output = End>) {
    shared.book.close();
    let done = async {
        while !shared.book.is_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let talk = async {
        tokio::select! {
            _ = conversation => {}
            () = done => {}
        }
    };
    if timeout(Duration::from_millis(limits::SHUTDOWN_MS_MAX), talk).await.is_err() {
        tracing::warn!("some tasks did not end in time; the coordinator gives them to others");
    }
}

async fn read_loop(shared: &Arc<Shared>, recv: &mut RecvStream) -> End {
    let mut jobs = Templates::default();
    loop {
        let silence = Duration::from_millis(limits::SILENCE_MS_MAX);
        let message = match timeout(silence, frame::read(recv, limits::FRAME_BYTES_MAX)).await {
            Err(_) => return End::Lost(format!("nothing was heard for {} ms", limits::SILENCE_MS_MAX)),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(None)) => return End::Lost("coordinator closed the stream".to_owned()),
            Ok(Ok(Some(message))) => message,
        };
        match message {
            ToHost::Welcome(_) => return End::Garbage(Breach::Turn { message: "welcome" }.to_string()),
            ToHost::Refused(refused) => return End::Lost(wire::one_line(&refused.to_string())),
            ToHost::Heartbeat => {}
            ToHost::Templates(templates) => {
                for (job, template) in templates {
                    jobs.insert(job, canon::encode(&template).len(), Job::new(template));
                }
            }
            ToHost::Assign(orders) => {
                for order in orders {
                    if let Err(end) = assigned(shared, &jobs, order) {
                        return end;
                    }
                }
            }
            ToHost::Revoke(ids) | ToHost::Acknowledge(ids) => shared.book.forget(&ids),
        }
    }
}

fn assigned(shared: &Arc<Shared>, jobs: &Templates<Arc<Job>>, order: wire::Order) -> Result<(), End> {
    let Some(job) = jobs.get(order.job) else {
        return Err(End::Garbage(format!("assignment {} is of a job whose template was not sent", order.id.0)));
    };
    let lease = Lease::new(order.lease_ms);
    if let Some(entry) = shared.book.take(order.id, lease) {
        job::gather(shared, Task { order, job: job.clone(), lease, entry, tries: 0 });
    }
    Ok(())
}

async fn write_loop(shared: &Shared, send: &mut SendStream) -> End {
    let mut frames = Vec::new();
    loop {
        match timeout(Duration::from_millis(limits::HEARTBEAT_MS), shared.book.news()).await {
            Err(_) => frame::push(&mut frames, &ToCoordinator::Heartbeat),
            Ok(news) => {
                if !news.receipts.is_empty() {
                    frame::push(&mut frames, &ToCoordinator::Receipts(news.receipts));
                }
                if !news.faults.is_empty() {
                    frame::push(&mut frames, &ToCoordinator::Faults(news.faults));
                }
                if !news.found.is_empty() {
                    frame::push(&mut frames, &ToCoordinator::Found(news.found));
                }
                if !news.checkpoints.is_empty() {
                    frame::push(&mut frames, &ToCoordinator::Checkpoints(news.checkpoints));
                }
            }
        }
        match timeout(Duration::from_millis(limits::WRITE_MS_MAX), send.write_all(&frames)).await {
            Err(_) => return End::Lost(format!("nothing was taken for {} ms", limits::WRITE_MS_MAX)),
            Ok(Err(error)) => return End::Lost(error.to_string()),
            Ok(Ok(())) => shared.book.said(),
        }
        frames.clear();
        frames.shrink_to(limits::BATCH_BYTES);
    }
}
