//! Refusals as HTTP answers: the error object of the wire, with the status that belongs to its code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use loom_protocol::{ErrorCode, TokenError, WireError};

/// What a handler gives.
pub type RestResult<T> = Result<T, RestError>;

/// A refusal.
#[derive(Debug)]
pub struct RestError {
    error: WireError,
    status: StatusCode,
}

impl RestError {
    /// A refusal whose status is not the one of its code (405 has no code of its own).
    pub fn with_status(error: WireError, status: StatusCode) -> Self {
        Self { error, status }
    }

    /// `invalid-request`
    pub fn invalid(message: impl Into<String>) -> Self {
        WireError::invalid(message).into()
    }
}

impl From<WireError> for RestError {
    fn from(error: WireError) -> Self {
        let status =
            StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { error, status }
    }
}

impl From<TokenError> for RestError {
    fn from(error: TokenError) -> Self {
        WireError::from(error).into()
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let retry_after = self.error.retry_after_ms.map(|ms| ms.div_ceil(1000).max(1));
        let unauthorized = self.error.code == ErrorCode::Unauthorized;
        let mut response = (self.status, Json(&self.error)).into_response();
        response.extensions_mut().insert(self.error);
        if let Some(seconds) = retry_after {
            let value = HeaderValue::from(seconds);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if unauthorized {
            let value = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}
