//! The REST API from the other side, for the commands of the program.

mod events;

use std::error::Error;
use std::io;
use std::time::Duration;

pub use events::{EventStream, Heard};
use loom_protocol::url::redacted;
use loom_protocol::{ErrorCode, ProjectId, WireError};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::rest::access_guard::{MAX_BODY, too_large};
use crate::api::rest::call::PROJECT_HEADER;
use crate::settings::Secret;
use crate::settings::check::is_loopback;

/// Where the coordinator is looked for.
pub const DEFAULT_URL: &str = "http://127.0.0.1:3000";

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the coordinator takes for its slowest answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The URL is none.
    #[error("{0}")]
    BadUrl(String),
    /// Nobody is there: the request was not sent.
    #[error("{0}")]
    Unreachable(String),
    /// There was no answer: the request may have been done, or be done later.
    #[error("{0}")]
    InDoubt(String),
    /// The coordinator refused.
    #[error("{}", .0.message)]
    Refused(WireError),
    /// Somebody answered, but not as a coordinator does.
    #[error("{0}")]
    NotACoordinator(String),
}

impl ApiError {
    /// What the coordinator said, if it said anything.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::InDoubt(_) => true,
            Self::Refused(error) => error.code.is_transient(),
            Self::BadUrl(_) | Self::NotACoordinator(_) => false,
        }
    }

    /// How long the coordinator asks to wait before the next try.
    pub fn asked_pause(&self) -> Option<Duration> {
        match self {
            Self::Refused(error) => error.retry_after_ms.map(Duration::from_millis),
            _ => None,
        }
    }
}

/// A coordinator's REST API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiClient {
    http: Client,
    base: Url,
    token: Option<Secret>,
    project: Option<ProjectId>,
}

impl ApiClient {
    /// A client of the coordinator at `url`; `project` goes with every request.
    ///
    /// # Errors
    /// The URL cannot be read.
    pub fn new(
        url: &str,
        token: Option<Secret>,
        project: Option<ProjectId>,
    ) -> Result<Self, ApiError> {
        let bad = |why: &str| {
            let shown = redacted(url);
            ApiError::BadUrl(format!(
                "{shown:?} is no address of a coordinator ({why}); write --url {DEFAULT_URL}"
            ))
        };
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let base = Url::parse(&with_scheme).map_err(|error| bad(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("neither http nor https"));
        }
        let host = base.host_str().ok_or_else(|| bad("no host"))?;
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        if is_loopback(host) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| bad(&error.to_string()))?;
        Ok(Self {
            http,
            base,
            token,
            project,
        })
    }

    /// Whether its requests are about one project.
    pub const fn names_a_project(&self) -> bool {
        self.project.is_some()
    }

    /// The same coordinator, about this project.
    #[must_use]
    pub fn of_project(&self, project: ProjectId) -> Self {
        Self {
            project: Some(project),
            ..self.clone()
        }
    }

    /// The address, without credentials.
    pub fn url(&self) -> String {
        redacted(self.base.as_str().trim_end_matches('/'))
    }

    /// Asks for what is at a path, given by its segments.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, ApiError> {
        self.send(self.request(Method::GET, path).query(query))
            .await
    }

    /// Sends a body to a path.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::POST, path);
        self.send(with_body(request, body)?).await
    }

    /// Changes what is at a path.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::PUT, path);
        self.send(with_body(request, body)?).await
    }

    /// Deletes what is at a path.
    pub async fn delete<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ApiError> {
        self.send(self.request(Method::DELETE, path)).await
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("api").extend(path);
        }
        let mut request = self.http.request(method, url);
        if let Some(project) = &self.project {
            request = request.header(PROJECT_HEADER, project.as_str());
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        request
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiError> {
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.checked(response).await?;
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&body).map_err(|error| self.stranger(&error.to_string()))
    }

    /// The answer, where it is no refusal.
    async fn checked(&self, response: Response) -> Result<Response, ApiError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        Err(match serde_json::from_slice::<WireError>(&body) {
            Ok(error) => ApiError::Refused(error),
            Err(_) => self.stranger(&format!("status {status}")),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        let url = self.url();
        if self.base.scheme() == "https" && speaks_no_tls(error) {
            ApiError::NotACoordinator(format!(
                "what answers at {url} does not speak TLS; if it is a coordinator, write http:// (--url or LOOM_API_URL)"
            ))
        } else if speaks_no_http(error) {
            self.stranger("it does not speak HTTP, perhaps TLS: https://")
        } else if error.is_connect() {
            ApiError::Unreachable(format!(
                "no coordinator at {url}; start one with `loom up`, or name another one with --url"
            ))
        } else if error.is_timeout() {
            ApiError::InDoubt(format!(
                "the coordinator at {url} does not answer; see its log, or ask another one with --url"
            ))
        } else {
            self.broken_off()
        }
    }

    fn broken_off(&self) -> ApiError {
        let url = self.url();
        ApiError::InDoubt(format!(
            "the connection to the coordinator at {url} broke off; try again"
        ))
    }

    fn stranger(&self, what: &str) -> ApiError {
        let url = self.url();
        ApiError::NotACoordinator(format!(
            "what answers at {url} is no coordinator, or one of another version ({what}); check --url"
        ))
    }
}

/// Whether somebody answered a TLS handshake with something else. A certificate that is not trusted is none of that.
fn speaks_no_tls(error: &reqwest::Error) -> bool {
    causes(error)
        .any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidMessage(_))))
}

/// Whether somebody answered a request with something else.
fn speaks_no_http(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse)
    })
}

/// An error and what is behind it, also what an error of the system wraps.
fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause: &&'a (dyn Error + 'static)| {
        let wrapped = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}

/// A request with its body. One that is too large is refused here: a coordinator does not read all of it, and may end
/// the connection before its refusal is heard.
fn with_body(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, ApiError> {
    match serde_json::to_vec(body) {
        Ok(json) if json.len() > MAX_BODY => Err(ApiError::Refused(too_large())),
        Ok(json) => Ok(request.header(CONTENT_TYPE, "application/json").body(json)),
        Err(_) => Ok(request.json(body)),
    }
}

#[cfg(test)]
#[path = "api_client_tests.rs"]
mod tests;
