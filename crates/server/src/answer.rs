//! Error answers: a status, a stable code and a message for the client, as JSON.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{ACCEPT_ENCODING, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use datafusion::error::DataFusionError;
use muniment_capture::CaptureError;
use muniment_engine::{EngineError, StoreError};
use muniment_model::Rejection;
use serde_json::{Value, json};
use std::error::Error;

/// Why a request was refused. Each has one name, which never changes, and one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Busy,
    Conflict,
    CrossOrigin,
    DamagedBody,
    Forbidden,
    IncompleteBody,
    Internal,
    InvalidHeader,
    InvalidParameter,
    InvalidQuery,
    InvalidRecords,
    KeyReused,
    LoopbackOnly,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    QueryLimit,
    RateLimited,
    Refused,
    SlowSender,
    SourceFailed,
    SourceRefused,
    Stopping,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    UndoRefused,
    UnknownLog,
    UnknownPath,
    UnsupportedEncoding,
    UnsupportedMediaType,
}

impl Code {
    /// Its name, its status, and what it means.
    pub(crate) fn describe(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Busy => (
                "busy",
                S::SERVICE_UNAVAILABLE,
                "A limit of the service is reached; nothing was stored. Try again after Retry-After seconds.",
            ),
            Self::Conflict => ("conflict", S::CONFLICT, "It doesn't fit what is there, or was changed by somebody else meanwhile."),
            Self::CrossOrigin => ("cross_origin", S::FORBIDDEN, "A browser sent this for a page of another origin."),
            Self::DamagedBody => ("damaged_body", S::BAD_REQUEST, "The compressed body can't be unpacked."),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "Your roles, or the limits of your key, don't allow this."),
            Self::IncompleteBody => ("incomplete_body", S::BAD_REQUEST, "The body ended early."),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "A defect or a fault of the machine; the service's log says which."),
            Self::InvalidHeader => ("invalid_header", S::BAD_REQUEST, "A header's value is not valid."),
            Self::InvalidParameter => ("invalid_parameter", S::BAD_REQUEST, "A parameter is missing or not valid."),
            Self::InvalidQuery => ("invalid_query", S::BAD_REQUEST, "The query is not valid or failed on its data."),
            Self::InvalidRecords => ("invalid_records", S::UNPROCESSABLE_ENTITY, "Records are not valid; nothing was stored."),
            Self::KeyReused => ("key_reused", S::UNPROCESSABLE_ENTITY, "The idempotency key was used for another body."),
            Self::LoopbackOnly => ("loopback_only", S::FORBIDDEN, "Only a client on the same machine may do this."),
            Self::MethodNotAllowed => ("method_not_allowed", S::METHOD_NOT_ALLOWED, "The path doesn't have this method."),
            Self::NotAcceptable => ("not_acceptable", S::NOT_ACCEPTABLE, "None of the accepted media types can be given."),
            Self::NotFound => ("not_found", S::NOT_FOUND, "There is no such table, record or entity."),
            Self::QueryLimit => ("query_limit", S::BAD_REQUEST, "The query needs more time, memory or rows than one query may."),
            Self::RateLimited => {
                ("rate_limited", S::TOO_MANY_REQUESTS, "A rate limit is exceeded, or you are blocked; try again after Retry-After seconds.")
            }
            Self::Refused => ("refused", S::CONFLICT, "It can't be done as things are; the message says why."),
            Self::SlowSender => ("slow_sender", S::REQUEST_TIMEOUT, "The body came too slowly."),
            Self::SourceFailed => ("source_failed", S::BAD_GATEWAY, "The source's database can't be reached, or refused a statement."),
            Self::SourceRefused => {
                ("source_refused", S::UNPROCESSABLE_ENTITY, "The source can't be attached as it is; the message says what to change.")
            }
            Self::Stopping => ("stopping", S::SERVICE_UNAVAILABLE, "The service is stopping or has stopped taking requests."),
            Self::TooLarge => ("too_large", S::PAYLOAD_TOO_LARGE, "The body, or the number of its records, is over the limit."),
            Self::TooManyRequests => ("too_many_requests", S::TOO_MANY_REQUESTS, "This client has too many requests under way."),
            Self::Unauthenticated => (
                "unauthenticated",
                S::UNAUTHORIZED,
                "Nobody is recognised: the key, token or session is missing, wrong or no longer valid.",
            ),
            Self::UndoRefused => {
                ("undo_refused", S::CONFLICT, "What was selected can't be taken back; `refusals` says why, record by record.")
            }
            Self::UnknownLog => ("unknown_log", S::NOT_FOUND, "There is no such log."),
            Self::UnknownPath => ("unknown_path", S::NOT_FOUND, "There is no such path."),
            Self::UnsupportedEncoding => {
                ("unsupported_encoding", S::UNSUPPORTED_MEDIA_TYPE, "The Content-Encoding is neither gzip nor zstd.")
            }
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", S::UNSUPPORTED_MEDIA_TYPE, "The Content-Type is neither JSON nor NDJSON.")
            }
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        self.describe().1
    }
}

/// Goes with an answer that refuses something to somebody: why.
#[derive(Clone, Debug)]
pub(crate) struct Refused(pub(crate) String);

/// An error answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    message: String,
    retry_after: Option<u32>,
    rejection: Option<Box<Rejection>>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, rejection: None }
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// What the client is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// An error that the client can do nothing about: logged with its chain of sources, answered without.
    pub(crate) fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(Code::Internal, "the request failed; the service's log says why")
    }

    pub(crate) fn body(&self) -> Value {
        let mut body = json!({ "error": { "code": self.code.describe().0, "message": self.message } });
        if let Some(rejection) = &self.rejection {
            let errors = rejection.errors.iter().map(|error| json!({ "line": error.line, "field": error.field, "reason": error.reason }));
            body["total"] = json!(rejection.total);
            body["errors"] = errors.collect();
        }
        body
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.code.status(), Json(self.body())).into_response();
        if self.code == Code::Forbidden {
            response.extensions_mut().insert(Refused(self.message));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::UnsupportedEncoding {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        if self.code == Code::Unauthenticated {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"muniment\""));
        }
        response
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Invalid(rejection) => {
                let code = if rejection.too_large { Code::TooLarge } else { Code::InvalidRecords };
                let message = match rejection.total {
                    1 => "one record is not valid; nothing was stored".to_owned(),
                    total => format!("{total} errors in the records; nothing was stored"),
                };
                Self { rejection: Some(Box::new(rejection)), ..Self::new(code, message) }
            }
            EngineError::UnknownLog(_) => Self::new(Code::UnknownLog, message),
            EngineError::TooLarge { .. } | EngineError::LongLine { .. } => Self::new(Code::TooLarge, message),
            EngineError::Busy { retry_after, .. } => Self::new(Code::Busy, message).retry_after(retry_after),
            EngineError::KeyReused => Self::new(Code::KeyReused, message),
            EngineError::QueryLimit(_) => Self::new(Code::QueryLimit, message),
            EngineError::NotFound(_) => Self::new(Code::NotFound, message),
            EngineError::Refused(_) => Self::new(Code::Refused, message),
            EngineError::Parameter { .. } => Self::new(Code::InvalidParameter, message),
            EngineError::Capture(CaptureError::Refused(reason)) => Self::new(Code::SourceRefused, reason),
            EngineError::Capture(error @ (CaptureError::Database { .. } | CaptureError::Replication(_))) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::new(Code::SourceFailed, format!("{error}{cause}"))
            }
            EngineError::Store(StoreError::Conflict { .. }) => Self::new(Code::Conflict, message),
            EngineError::Stopped => Self::new(Code::Stopping, "the service is stopping").retry_after(5),
            EngineError::Query(cause) if is_of_the_query(&cause) => Self::new(Code::InvalidQuery, cause.strip_backtrace()),
            error => Self::internal(&error),
        }
    }
}

/// Whether a failed query can be helped by asking another one, and was not failed by us or by the machine.
fn is_of_the_query(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::Diagnostic(..)
        | DataFusionError::Collection(_) => true,
        DataFusionError::ArrowError(cause, _) => {
            use datafusion::arrow::error::ArrowError as A;
            matches!(
                **cause,
                A::DivideByZero
                    | A::ArithmeticOverflow(_)
                    | A::CastError(_)
                    | A::ParseError(_)
                    | A::ComputeError(_)
                    | A::InvalidArgumentError(_)
            )
        }
        _ => false,
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::new(Code::InvalidParameter, rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        Self::new(Code::InvalidParameter, text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text))
    }
}
