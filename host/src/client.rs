//! A client of the gateway: for the CLI, for tests and for measurements.
//!
//! Plain HTTP/1.1 with connections that are kept; bodies stream in both directions. It knows where the gateway is from
//! the coordinator's data directory (files `url` and `token`), or from `QUORATE_URL` and `QUORATE_TOKEN_FILE`.
//!
//! - [`answers`]: what the gateway answers, as far as a client needs it.
//! - [`sse`]: reads a stream of events.
//!
//! A refusal of the gateway comes back as [`ClientError::Refused`] with its word and advice; nothing is tried again
//! by itself, except that a kept connection which turned out to be closed is replaced.

pub mod answers;
mod error;
pub mod sse;
mod transfer;

use std::{io, path::Path, pin::Pin};

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use registry::{
    canon,
    id::{BlobHash, JobId},
    name::{Name, NameStatement},
    sign::Signed,
};
use serde::{Serialize, de::DeserializeOwned};

use self::answers::JobAnswer;
pub use self::{
    error::ClientError,
    sse::{EventStream, ServerEvent},
    transfer::Download,
};
pub use crate::gateway::token::TOKEN_FILE;
use crate::{
    gateway::{
        token::Token,
        wire::{JobRequest, Refused, RefusedError, Submitted},
    },
    limits,
};

/// Where a gateway listens by default.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7700";
/// Name of the file in the data directory that says where the gateway listens.
pub const URL_FILE: &str = "url";

/// The body of a request.
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A client of one gateway. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    url: String,
    authorization: header::HeaderValue,
    http: legacy::Client<HttpConnector, Body>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

impl Client {
    /// A client of the gateway at `url`. Connects when it is first asked something.
    ///
    /// # Errors
    /// When `url` is no address.
    pub fn new(url: &str, token: &Token) -> Result<Self, ClientError> {
        let refused = || ClientError::Url { url: url.to_owned() };
        let parsed: hyper::Uri = url.parse().map_err(|_| refused())?;
        if parsed.scheme_str() != Some("http") || parsed.host().is_none() || !matches!(parsed.path(), "" | "/") {
            return Err(refused());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut authorization: header::HeaderValue = token.authorization().parse().map_err(|_| refused())?;
        authorization.set_sensitive(true);
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), authorization, http })
    }

    /// A client of the gateway whose coordinator has this data directory; what is given beside it comes first.
    ///
    /// # Errors
    /// When the token cannot be read, or the address is none.
    pub fn of_data_dir(data_dir: &Path, url: Option<&str>, token_file: Option<&Path>) -> Result<Self, ClientError> {
        let written = std::fs::read_to_string(data_dir.join(URL_FILE)).ok();
        let url = url.or(written.as_deref().map(str::trim)).unwrap_or(DEFAULT_URL);
        let token = Token::load(&token_file.map_or_else(|| data_dir.join(TOKEN_FILE), Path::to_owned))?;
        Self::new(url, &token)
    }

    /// Where the gateway is.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let url = format!("{}{path}", self.url);
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .map_err(|_| ClientError::Url { url: url.clone() })?;
        let response = self.http.request(request).await;
        let response = response.map_err(|source| ClientError::Unreachable { url: self.url.clone(), source })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.collect(response).await?;
        let error = match serde_json::from_slice(&body) {
            Ok(Refused { error }) => error,
            Err(_) => RefusedError { word: "http".into(), message: format!("{url} answers {status}"), retry: false },
        };
        Err(ClientError::Refused { status, error })
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(response.into_body(), limits::CLIENT_ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| ClientError::Broken(error.to_string()))?.to_bytes())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let response = self.send(method, path, kind, body).await?;
        let body = self.collect(response).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ClientError::Answer { url: self.url.clone(), detail: error.to_string() })
    }

    /// `GET`s JSON.
    ///
    /// # Errors
    /// As every method here: when nobody answers, the gateway refuses, or the answer makes no sense.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, "application/json", empty()).await
    }

    /// `DELETE`s and gets JSON.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::DELETE, path, "application/json", empty()).await
    }

    /// `POST`s JSON and gets JSON.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(value)
            .map_err(|error| ClientError::Answer { url: self.url.clone(), detail: error.to_string() })?;
        self.ask(Method::POST, path, "application/json", full(body.into())).await
    }

    /// `POST`s JSON and waits for the gateway's word that it is done.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn tell(&self, path: &str, value: &impl Serialize) -> Result<(), ClientError> {
        let body = serde_json::to_vec(value)
            .map_err(|error| ClientError::Answer { url: self.url.clone(), detail: error.to_string() })?;
        self.send(Method::POST, path, "application/json", full(body.into())).await.map(drop)
    }

    /// `GET`s text, such as `/metrics`.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let response = self.send(Method::GET, path, "text/plain", empty()).await?;
        Ok(String::from_utf8_lossy(&self.collect(response).await?).into_owned())
    }

    /// Submits a job; returns once it is taken.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn submit(&self, request: &JobRequest) -> Result<Submitted, ClientError> {
        self.post("/v1/jobs", request).await
    }

    /// Submits a job; returns once it has ended, with its standard output when that is short.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn submit_and_wait(&self, request: &JobRequest) -> Result<JobAnswer, ClientError> {
        self.post("/v1/jobs?wait=true", request).await
    }

    /// A job at a glance.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn job(&self, id: JobId) -> Result<JobAnswer, ClientError> {
        self.get(&format!("/v1/jobs/{id}")).await
    }

    /// Publishes or yanks a name.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn name(&self, statement: &Signed<NameStatement>) -> Result<Name, ClientError> {
        let body = full(canon::encode(statement).into());
        self.ask(Method::POST, "/v1/names", "application/cbor", body).await
    }

    /// Whether a blob is in the coordinator's store.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn has_blob(&self, hash: BlobHash) -> Result<bool, ClientError> {
        match self.send(Method::HEAD, &format!("/v1/blobs/{hash}"), "text/plain", empty()).await {
            Ok(_) => Ok(true),
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The events of a job: its state, then what happens, until it has ended.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub async fn events(&self, id: JobId) -> Result<EventStream, ClientError> {
        let response = self.send(Method::GET, &format!("/v1/jobs/{id}/events"), "text/plain", empty()).await?;
        Ok(EventStream::new(response.into_body()))
    }
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Bytes as they come.
type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_and_an_absent_coordinator_is_named() {
        let token = Token::from_text("0123456789abcdef").unwrap();
        for url in ["", "127.0.0.1:7700", "https://127.0.0.1:7700", "http://127.0.0.1:7700/v1", "ftp://x"] {
            assert!(matches!(Client::new(url, &token), Err(ClientError::Url { .. })), "{url}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&format!("http://{closed}"), &token).unwrap();
        let error = client.text("/healthz").await.unwrap_err().to_string();
        assert!(error.contains("quorate up"), "{error}");
        assert!(!format!("{client:?}").contains("0123456789abcdef"));
    }
}
