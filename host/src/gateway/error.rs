//! Every refusal of the gateway: a status, a stable word, one line that says rule and remedy, and whether to try again.

use axum::{
    Json,
    extract::rejection::QueryRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use grid::{ledger::LedgerError, plan::PlanError};
use registry::{
    canon::CanonError,
    id::{JobId, ParseIdError},
    job::JobError,
    name::NameError,
    store::StoreError,
};

use super::wire::{Refused, RefusedError};
use crate::{
    coordinator::{Closed, StatementError, SubmitError},
    journal::JournalError,
    sandbox::{LoadError, Refusal},
};

/// Seconds after which a busy gateway is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs.
    pub word: &'static str,
    /// One line for people.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retry: bool,
}

impl ApiError {
    /// The part after `?` is not understood.
    pub(super) fn malformed_query(rejection: QueryRejection) -> Self {
        Self::malformed(rejection.body_text())
    }

    /// No such job.
    pub(super) fn unknown_job(id: JobId) -> Self {
        Self::not_found("unknown_job", format!("job {id} is not known here: it was never submitted, or is forgotten"))
    }

    /// A refusal that the same request meets again.
    pub fn new(status: StatusCode, word: &'static str, message: impl ToString) -> Self {
        Self { status, word, message: message.to_string(), retry: false }
    }

    /// A refusal that the same request may not meet later.
    pub fn later(status: StatusCode, word: &'static str, message: impl ToString) -> Self {
        Self { retry: true, ..Self::new(status, word, message) }
    }

    pub(super) fn malformed(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    pub(super) fn not_found(word: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, word, message)
    }

    pub(super) fn unprocessable(word: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, word, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, word, message, retry } = self;
        let body = Refused { error: RefusedError { word: word.to_owned(), message, retry } };
        let mut response = (status, Json(body)).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl From<Closed> for ApiError {
    fn from(error: Closed) -> Self {
        Self::later(StatusCode::SERVICE_UNAVAILABLE, "stopping", error)
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Busy { .. } => Self::later(StatusCode::TOO_MANY_REQUESTS, "busy", error),
            SubmitError::Random(_) => Self::later(StatusCode::SERVICE_UNAVAILABLE, "random", error),
            SubmitError::Journal => Self::later(StatusCode::SERVICE_UNAVAILABLE, "journal", error),
            SubmitError::Closed(closed) => closed.into(),
            SubmitError::Ledger(error) => error.into(),
            SubmitError::Name(error) => error.into(),
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        let (status, word) = match &error {
            LedgerError::Funds { .. } => (StatusCode::PAYMENT_REQUIRED, "funds"),
            LedgerError::JobUnknown { .. } => (StatusCode::NOT_FOUND, "no_escrow"),
            LedgerError::JobRunning { .. } => (StatusCode::CONFLICT, "running"),
            LedgerError::Convicted { .. } => (StatusCode::FORBIDDEN, "convicted"),
            _ => (StatusCode::BAD_REQUEST, "ledger"),
        };
        Self { retry: matches!(error, LedgerError::JobRunning { .. }), ..Self::new(status, word, error) }
    }
}

impl From<StatementError> for ApiError {
    fn from(error: StatementError) -> Self {
        match error {
            StatementError::Closed(closed) => closed.into(),
            StatementError::Journal(error) => error.into(),
            StatementError::Ledger(error) => error.into(),
            error @ (StatementError::Damaged(_) | StatementError::Credits(_)) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "archive", error)
            }
        }
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        Self::later(StatusCode::SERVICE_UNAVAILABLE, "journal", error)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let (status, word) = match &error {
            NameError::Form(_) => (StatusCode::BAD_REQUEST, "name"),
            NameError::Signature(_) => (StatusCode::BAD_REQUEST, "signature"),
            NameError::Reason { .. } => (StatusCode::BAD_REQUEST, "reason"),
            NameError::Publisher { .. } => (StatusCode::FORBIDDEN, "publisher"),
            NameError::Taken(_) => (StatusCode::CONFLICT, "taken"),
            NameError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_name"),
            NameError::Yanked { .. } => (StatusCode::GONE, "yanked"),
        };
        Self::new(status, word, error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, word) = match &error {
            StoreError::NotFound { .. } => (StatusCode::NOT_FOUND, "unknown_blob"),
            StoreError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            StoreError::HashMismatch { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "hash_mismatch"),
            StoreError::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "range"),
            StoreError::Source { .. } => (StatusCode::BAD_REQUEST, "broken_off"),
            StoreError::QuotaExceeded { .. } => (StatusCode::INSUFFICIENT_STORAGE, "quota"),
            StoreError::Closed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            error if error.retryable() => (StatusCode::SERVICE_UNAVAILABLE, "store"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "store"),
        };
        Self { retry: error.retryable(), ..Self::new(status, word, error) }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "job", error)
    }
}

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        Self::unprocessable("plan", error)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::unprocessable(refusal.word(), format!("module is refused: {refusal}"))
    }
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::CompilerFailed { .. } => Self::later(StatusCode::SERVICE_UNAVAILABLE, error.word(), error),
            error => Self::unprocessable(error.word(), error),
        }
    }
}

impl From<ParseIdError> for ApiError {
    fn from(error: ParseIdError) -> Self {
        Self::malformed(error)
    }
}

impl From<CanonError> for ApiError {
    fn from(error: CanonError) -> Self {
        Self::malformed(error)
    }
}

#[cfg(test)]
mod tests {
    use registry::id::BlobHash;

    use super::*;

    #[test]
    fn each_refusal_has_its_status_and_says_whether_to_try_again() {
        let hash = BlobHash::of(b"");
        let cases: [(ApiError, u16, &str, bool); 8] = [
            (SubmitError::Busy { open_jobs: 9 }.into(), 429, "busy", true),
            (Closed.into(), 503, "stopping", true),
            (NameError::Form("x".into()).into(), 400, "name", false),
            (NameError::Taken("a/b@1".parse().unwrap()).into(), 409, "taken", false),
            (NameError::Unknown("a/b@1".parse().unwrap()).into(), 404, "unknown_name", false),
            (NameError::Yanked { name: "a/b@1".parse().unwrap(), reason: "r".into() }.into(), 410, "yanked", false),
            (StoreError::HashMismatch { expected: hash, found: hash }.into(), 422, "hash_mismatch", false),
            (Refusal::NotWasm.into(), 422, "not_wasm", false),
        ];
        for (error, status, word, retry) in cases {
            assert_eq!((error.status.as_u16(), error.word, error.retry), (status, word, retry), "{error}");
        }
    }

    #[test]
    fn who_is_told_to_come_back_is_told_when() {
        let response = ApiError::from(SubmitError::Busy { open_jobs: 9 }).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
