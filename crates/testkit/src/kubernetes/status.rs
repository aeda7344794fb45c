//! Answers of an API server that are no objects: `Status`.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::{Value, json};

use super::store::Kind;

/// What is answered in the place of an object.
#[derive(Debug, Clone)]
pub(super) struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    /// The plural and the name of what it is about.
    about: (String, String),
    retry_after: Option<u64>,
}

impl Status {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            about: Default::default(),
            retry_after: None,
        }
    }

    fn about(mut self, plural: &str, name: &str) -> Self {
        self.about = (plural.to_owned(), name.to_owned());
        self
    }

    pub(super) const fn after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds;
        self
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Self::new(404, "NotFound", message).about(kind.plural(), name)
    }

    pub(super) fn no_namespace(name: &str) -> Self {
        let message = format!("namespaces \"{name}\" not found");
        Self::new(404, "NotFound", message).about("namespaces", name)
    }

    pub(super) fn exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind.plural(), name)
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            kind.qualified()
        );
        Self::new(409, "Conflict", message).about(kind.plural(), name)
    }

    pub(super) fn invalid(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is invalid: {why}", kind.singular());
        Self::new(422, "Invalid", message).about(kind.plural(), name)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn gone(message: &str) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(super) fn json(&self) -> Value {
        let (plural, name) = &self.about;
        let mut details = json!({});
        if !plural.is_empty() {
            details = json!({"name": name, "kind": plural});
        }
        if let Some(seconds) = self.retry_after {
            details["retryAfterSeconds"] = seconds.into();
        }
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        })
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = answer(self.code, &self.json());
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An object.
pub(super) fn answer(code: u16, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
