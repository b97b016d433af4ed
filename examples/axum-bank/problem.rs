//! What the API returns when it cannot do what was asked: problem details as RFC 9457 defines them.

use std::error::Error;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use es_framework::{ErrorKind, ExecuteError, LoadError, ModelError, WaitError};
use serde_json::json;

use crate::account::BankError;

/// A response that says what went wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

/// The status code that tells a client what the kind of an error tells a caller.
fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Caller => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Retry | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
        // `Data`, `Internal`, and what a later version adds.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Problem {
    /// Tells the client what is its own fault. What is the server's goes to the server's log.
    fn of(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        let status = status(kind);
        if status.is_client_error() {
            return Self { status, detail: error.to_string() };
        }
        eprintln!("axum-bank: {}", examples::chain(error));
        let detail = if status == StatusCode::SERVICE_UNAVAILABLE { "try again" } else { "the server is at fault" };
        Self { status, detail: detail.to_owned() }
    }
}

impl From<ExecuteError<BankError>> for Problem {
    fn from(error: ExecuteError<BankError>) -> Self {
        match &error {
            ExecuteError::Rejected(why) => Self { status: StatusCode::UNPROCESSABLE_ENTITY, detail: why.to_string() },
            // The fault of the caller, which is this server: clients send commands and no events.
            ExecuteError::Encode(_) | ExecuteError::Unreadable(_) | ExecuteError::Unfoldable(_) => {
                Self::of(ErrorKind::Internal, &error)
            }
            _ => Self::of(error.kind(), &error),
        }
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        Self::of(error.kind(), &error)
    }
}

/// A read model that did not get there in time may do so later; one that failed is not the client's fault.
impl From<WaitError> for Problem {
    fn from(error: WaitError) -> Self {
        let failed = matches!(error, WaitError::Failed { .. });
        Self::of(if failed { ErrorKind::Internal } else { error.kind() }, &error)
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        Self::of(ErrorKind::Internal, &error)
    }
}

macro_rules! from_rejections {
    ($($rejection:ty),+) => {$(
        impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                // 422 says that the bank refused a command; JSON that is no command is a bad request.
                let unprocessable = rejection.status() == StatusCode::UNPROCESSABLE_ENTITY;
                let status = if unprocessable { StatusCode::BAD_REQUEST } else { rejection.status() };
                Self { status, detail: rejection.body_text() }
            }
        }
    )+};
}

from_rejections!(JsonRejection, PathRejection, QueryRejection);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail } = self;
        let body = json!({ "status": status.as_u16(), "title": status.canonical_reason(), "detail": detail });
        let mut response = (status, [(CONTENT_TYPE, "application/problem+json")], Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        response
    }
}
