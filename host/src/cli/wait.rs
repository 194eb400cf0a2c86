//! Waits for a job, with a progress bar where somebody looks, and outlives a coordinator that restarts.

use std::{path::Path, time::Duration};

use grid::dispatch::Notice;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use registry::{id::JobId, job::Stage};

use super::{CliError, output};
use crate::client::{Client, ClientError, answers::JobAnswer};

/// Tries in a row, a second apart, to reach a coordinator that went away.
const TRIES_MAX: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
/// Uploads from this length on have a bar.
const BAR_BYTES_MIN: u64 = 4 << 20;

/// Says what whoever submitted a job should know before it has ended: what it waits for, when no host that is there can run it, and that
/// its module is marked; and whoever looks at its results after, which of them are doubtful.
pub(super) fn tell(job: &JobAnswer) {
    if job.ended_ms.is_none()
        && let Some(unsteady) = &job.unsteady
    {
        output::note(&format!("careful: {unsteady}"));
    }
    if let Some(doubtful) = &job.doubtful {
        output::note(&format!("careful: {doubtful}"));
    }
    if let Some(waits) = &job.waits {
        output::note(&format!("nothing of it runs: {}; it waits until its deadline", output::shown(waits)));
    }
}

/// A bar for an upload; hidden when it is short or nobody looks.
pub(super) fn upload_bar(bytes: u64, path: &Path) -> ProgressBar {
    if bytes < BAR_BYTES_MIN {
        return ProgressBar::hidden();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    bar.with_style(style("{msg}  {bar:30}  {bytes}/{total_bytes}  {binary_bytes_per_sec}"))
        .with_message(output::shown(&name))
}

/// A template is fixed text; one that is wrong shows the default bar.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The job, once it has ended.
pub(super) async fn wait(client: &Client, id: JobId) -> Result<JobAnswer, CliError> {
    // indicatif draws nothing when standard error is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style("{bar:30}  {pos}/{len} shards  {elapsed}  {msg}"));
    let mut tries = 0;
    loop {
        match follow(client, id, &bar, &mut tries).await {
            Ok(true) => break,
            Ok(false) | Err(ClientError::Broken(_) | ClientError::Unreachable { .. }) if tries < TRIES_MAX => {
                tries += 1;
                bar.set_message("coordinator is away");
                tokio::time::sleep(PAUSE).await;
            }
            Ok(false) => return Err(ClientError::Broken("events ended before the job did".into()).into()),
            Err(ClientError::Refused { error, .. }) if error.retry && tries < TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    bar.finish_and_clear();
    let job: JobAnswer = client.get(&format!("/v1/jobs/{id}?stdout=true")).await?;
    tell(&job);
    Ok(job)
}

/// Follows one stream of events; says whether the job has ended.
async fn follow(client: &Client, id: JobId, bar: &ProgressBar, tries: &mut u32) -> Result<bool, ClientError> {
    let mut events = client.events(id).await?;
    let mut caught = 0;
    let mut faults = 0;
    while let Some(event) = events.next().await? {
        *tries = 0;
        if event.name == "state" {
            let job: JobAnswer = event.json()?;
            if job.ended_ms.is_none() {
                bar.suspend(|| tell(&job));
            }
            bar.set_length(job.shards.into());
            bar.set_position(job.accepted.into());
            continue;
        }
        match event.json()? {
            Notice::Planned { shards } => bar.set_length(shards.into()),
            // The state may have counted it already: a bar does not go past its end.
            Notice::Accepted { shard, .. } if shard.stage == Stage::Map => {
                bar.set_position((bar.position() + 1).min(shard.count.into()));
            }
            Notice::Withdrawn { .. } => bar.set_position(bar.position().saturating_sub(1)),
            Notice::Accepted { .. } => {}
            Notice::Faulted { .. } => faults += 1,
            Notice::Caught { .. } => caught += 1,
            Notice::Ended { .. } => return Ok(true),
        }
        bar.set_message(message(faults, caught));
    }
    Ok(false)
}

fn message(faults: u32, caught: u32) -> String {
    let words = [(faults, "faults"), (caught, "lies caught")];
    let words: Vec<String> =
        words.into_iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_told() {
        assert_eq!(message(0, 0), "");
        assert_eq!(message(2, 1), "2 faults, 1 lies caught");
    }
}
