//! Where the coordinator is, and which job is meant.

use std::path::PathBuf;

use clap::Args;
use registry::id::{ID_BYTES, JobId};
use serde::Deserialize;

use super::{CliError, paths};
use crate::client::Client;

/// Digits of a job's id that are enough to name it.
const PREFIX_DIGITS_MIN: usize = 4;

/// Said by every verb that asks a coordinator.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub(crate) struct ConnectArgs {
    /// Where the coordinator is; found in its data directory when left out.
    #[arg(long, env = "QUORATE_URL")]
    url: Option<String>,
    /// The file with its token; the one in its data directory when left out.
    #[arg(long, value_name = "FILE", env = "QUORATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The coordinator's data directory.
    #[arg(long, value_name = "DIR", default_value_os_t = paths::data_dir())]
    data_dir: PathBuf,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

impl ConnectArgs {
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::of_data_dir(&self.data_dir, self.url.as_deref(), self.token_file.as_deref())?)
    }
}

#[derive(Deserialize)]
struct Id {
    id: JobId,
}

/// The job that a whole id, or the beginning of one, names.
pub(crate) async fn find_job(client: &Client, text: &str) -> Result<JobId, CliError> {
    if text.len() == 2 * ID_BYTES {
        return text.parse().map_err(|error: registry::id::ParseIdError| CliError::Usage(error.to_string()));
    }
    let text = text.to_ascii_lowercase();
    if text.len() < PREFIX_DIGITS_MIN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message =
            format!("`{text}` names no job: give its id, or {PREFIX_DIGITS_MIN} or more digits of its beginning");
        return Err(CliError::Usage(message));
    }
    let jobs: Vec<Id> = client.get("/v1/jobs").await?;
    let mut found = jobs.into_iter().map(|job| job.id).filter(|id| id.to_string().starts_with(&text));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(CliError::Unknown(format!("no recent job begins with `{text}`: see `quorate jobs`"))),
        (Some(_), Some(_)) => Err(CliError::Usage(format!("several jobs begin with `{text}`: give more digits"))),
    }
}
