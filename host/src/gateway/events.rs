//! A job's events as they are on disk, over server-sent events.
//!
//! The stream opens with `state`, the job at a glance, which stands for everything before; then come notices, each named by its kind
//! (`planned`, `accepted`, `faulted`, `caught`, `ended`). A watcher that falls behind gets a `state` again in place of
//! what it missed. A notice may tell what the last `state` told already. The stream ends after `ended`.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use grid::dispatch::{JobView, Notice};
use registry::id::JobId;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::{ApiError, Gateway};
use crate::limits;

/// `GET /v1/jobs/{id}/events`
pub(super) async fn stream(State(gateway): State<Gateway>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id: JobId = id.parse()?;
    let full = |_| {
        let message = "as many streams of events are open as may be: try again, or ask for the job instead";
        ApiError::later(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    };
    let permit = gateway.inner.event_streams.clone().try_acquire_owned().map_err(full)?;
    // First the subscription, then the state: nothing falls between.
    let notices = gateway.inner.coordinator.watch();
    let view = view(&gateway, id).await.ok_or_else(|| ApiError::unknown_job(id))?;
    let watcher = Watcher { gateway, id, notices, next: Next::State(Box::new(view)), _permit: permit };
    let events = stream::unfold(watcher, |mut watcher| async move { Some((watcher.event().await?, watcher)) });
    let idle = KeepAlive::new().interval(Duration::from_millis(limits::HTTP_EVENT_IDLE_MS));
    Ok(Sse::new(events).keep_alive(idle).into_response())
}

async fn view(gateway: &Gateway, id: JobId) -> Option<JobView> {
    gateway.inner.coordinator.ask(move |state| state.job_view(id)).await.ok()?
}

struct Watcher {
    gateway: Gateway,
    id: JobId,
    notices: broadcast::Receiver<(JobId, Notice)>,
    next: Next,
    _permit: OwnedSemaphorePermit,
}

enum Next {
    /// Tell the job at a glance.
    State(Box<JobView>),
    /// It had ended then: say so.
    Ended(&'static str),
    /// Wait for a notice.
    Notice,
    /// Nothing more.
    End,
}

impl Watcher {
    async fn event(&mut self) -> Option<Result<Event, Infallible>> {
        loop {
            match std::mem::replace(&mut self.next, Next::Notice) {
                Next::State(view) => {
                    if view.ended_ms.is_some() {
                        self.next = Next::Ended(view.phase);
                    }
                    return json("state", &*view);
                }
                Next::Ended(phase) => {
                    self.next = Next::End;
                    return json("ended", &Notice::Ended { phase: phase.to_owned() });
                }
                Next::End => return None,
                Next::Notice => {}
            }
            match self.notices.recv().await {
                Ok((id, notice)) if id == self.id => {
                    if matches!(notice, Notice::Ended { .. }) {
                        self.next = Next::End;
                    }
                    return json(word(&notice), &notice);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.next = Next::State(Box::new(view(&self.gateway, self.id).await?));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

fn word(notice: &Notice) -> &'static str {
    match notice {
        Notice::Planned { .. } => "planned",
        Notice::Accepted { .. } => "accepted",
        Notice::Withdrawn { .. } => "withdrawn",
        Notice::Faulted { .. } => "faulted",
        Notice::Caught { .. } => "caught",
        Notice::Ended { .. } => "ended",
    }
}

/// JSON escapes line ends, so that an event's data is one line.
fn json<T: serde::Serialize>(name: &str, data: &T) -> Option<Result<Event, Infallible>> {
    Some(Ok(Event::default().event(name).data(serde_json::to_string(data).ok()?)))
}
