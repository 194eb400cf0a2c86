//! Why the gateway gave no answer.

use std::{io, path::PathBuf};

use hyper::StatusCode;
use hyper_util::client::legacy;

use crate::gateway::{token::TokenError, wire::RefusedError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address of a gateway.
    #[error("`{url}` is no address of a gateway: expected http://HOST:PORT")]
    Url {
        /// As given.
        url: String,
    },
    /// The token cannot be read.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// Nobody answers.
    #[error(
        "no coordinator answers at {url} ({source}): start one with `quorate up`, or say where it is with --url or QUORATE_URL"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What failed.
        source: legacy::Error,
    },
    /// The gateway says no.
    #[error("{}", error.message)]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Its word and advice.
        error: RefusedError,
    },
    /// The answer makes no sense.
    #[error("answer of {url} makes no sense ({detail}): is it a Quorate coordinator of this version?")]
    Answer {
        /// Where from.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// The answer broke off.
    #[error("connection to the coordinator broke off ({0}): ask again")]
    Broken(String),
    /// A file of ours.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ClientError {
    /// The gateway's word, when it refused.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Refused { error, .. } => Some(&error.word),
            _ => None,
        }
    }
}
