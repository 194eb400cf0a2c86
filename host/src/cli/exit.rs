//! Errors of the command line, and what the process says of them to its caller.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use hyper::StatusCode;

use super::output;
use crate::{client::ClientError, demo::DemoError, keys::KeyError, node::NodeError, replay::FetchError};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Ok,
    /// It was tried and failed: a job that failed, a receipt that does not hold.
    Failed,
    /// The request makes no sense, or is refused for what it is.
    Usage,
    /// No coordinator answers.
    Unreachable,
    /// The coordinator does not allow it.
    Denied,
    /// There is no such thing.
    Unknown,
    /// Not now.
    Busy,
    /// A task that ran here exited with this code.
    Task(u8),
}

#[cfg(test)]
pub(super) const ALL: [Exit; 7] =
    [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Denied, Exit::Unknown, Exit::Busy];

/// Shown below `quorate --help`.
pub(super) const HELP: &str = "Exit codes:
  0  done
  1  tried and failed: the job failed or was cancelled, a task ended other than `ok`, a receipt does not hold or does
     not come out again
  2  the request makes no sense or is refused: wrong arguments, a module that cannot run, content that is wrong
  3  no coordinator answers
  4  not allowed: wrong token, or a name that belongs to another key
  5  no such job, blob, name or shard, or withdrawn by its publisher
  6  not now: the coordinator is busy or cannot write; try again
`quorate run` ends with the exit code of its task, see `quorate run --help`.

Environment:
  QUORATE_URL         where the coordinator is, e.g. http://127.0.0.1:7700
  QUORATE_TOKEN_FILE  the file `token` of its data directory
  QUORATE_LOG         what is logged on standard error, e.g. debug or host=debug";

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Denied => 4,
            Self::Unknown => 5,
            Self::Busy => 6,
            Self::Task(code) => code,
        }
    }
}

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The coordinator was asked and said no, or nothing.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// What was asked for failed.
    #[error("{0}")]
    Failed(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The publisher's key.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// Standard output is gone or full.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// The process cannot start its threads.
    #[error("process cannot start its threads: {0}")]
    Runtime(io::Error),
    /// A node of the grid did not start, or stopped.
    #[error("{0}")]
    Node(Box<NodeError>),
    /// What a replay needs was not fetched.
    #[error("{0}")]
    Fetch(String),
    /// A demonstration came to no end.
    #[error("{0}")]
    Demo(#[from] DemoError),
}

impl From<NodeError> for CliError {
    fn from(error: NodeError) -> Self {
        Self::Node(Box::new(error))
    }
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Client(error) => Self::Client(error),
            error => Self::Fetch(error.to_string()),
        }
    }
}

impl CliError {
    /// How the process ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => client_exit(error),
            Self::Usage(_) | Self::File { .. } | Self::Key(_) => Exit::Usage,
            Self::Unknown(_) => Exit::Unknown,
            Self::Node(error) if error.is_usage() => Exit::Usage,
            Self::Demo(DemoError::Options(_)) => Exit::Usage,
            Self::Failed(_) | Self::Fetch(_) | Self::Output(_) | Self::Runtime(_) | Self::Node(_) | Self::Demo(_) => {
                Exit::Failed
            }
        }
    }
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Unreachable { .. } | ClientError::Broken(_) | ClientError::Answer { .. } => Exit::Unreachable,
        ClientError::Url { .. } | ClientError::File { .. } => Exit::Usage,
        ClientError::Token(_) => Exit::Denied,
        ClientError::Refused { status, .. } => match *status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Exit::Denied,
            StatusCode::NOT_FOUND | StatusCode::GONE => Exit::Unknown,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                Exit::Busy
            }
            StatusCode::CONFLICT | StatusCode::INTERNAL_SERVER_ERROR => Exit::Failed,
            _ => Exit::Usage,
        },
    }
}

/// Says what went wrong in one line, and ends. Whoever closed our standard output wants to hear nothing.
pub(super) fn report(done: Result<Exit, CliError>) -> ExitCode {
    let exit = match done {
        Ok(exit) => exit,
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            // Standard error may be closed as well; the exit code says it then.
            let _ = writeln!(io::stderr(), "error: {}", output::escaped(&error.to_string()));
            error.exit()
        }
    };
    ExitCode::from(exit.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::wire::RefusedError;

    #[test]
    fn each_refusal_has_its_exit_code() {
        let refused = |status: u16| {
            let error = RefusedError { word: "w".into(), message: "m".into(), retry: false };
            let status = StatusCode::from_u16(status).unwrap();
            CliError::from(ClientError::Refused { status, error }).exit().code()
        };
        let expected =
            [(400, 2), (401, 4), (403, 4), (404, 5), (409, 1), (410, 5), (413, 2), (422, 2), (429, 6), (503, 6)];
        for (status, code) in expected {
            assert_eq!(refused(status), code, "{status}");
        }
        assert_eq!(CliError::Usage("u".into()).exit().code(), 2);
        assert_eq!(CliError::from(ClientError::Broken("b".into())).exit().code(), 3);
    }
}
