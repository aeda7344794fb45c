//! What stands before every path: who is let in, how much may be sent, how many at a time.
//!
//! A request holds a permit from the moment its body has arrived until its answer is made, and
//! never longer than [`ANSWER_WITHIN`]; a client that sends slowly holds none.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use loom_protocol::verbs::OPEN_PATHS;
use loom_protocol::{ErrorCode, WireError};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::error::{RestError, RestResult};
use crate::access::{Caller, Door};
use crate::settings::check::is_loopback;
use crate::settings::{ApiSettings, Secret};

/// The largest body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// How much of a body that is too large is read and thrown away, so that its sender gets to read
/// the refusal.
const MAX_DISCARDED: usize = 8 * MAX_BODY;
/// How long a body may take to arrive.
pub const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How much a request to a path that is open to everybody may learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Everything: it has a token, none is wanted, or it comes from this machine.
    Full,
    /// Nothing that names anything.
    None,
}

/// The rules of the door.
#[derive(Debug)]
pub struct AccessGuard {
    digests: Vec<[u8; 32]>,
    loopback_only: bool,
    permits: Arc<Semaphore>,
    retry_after: Duration,
}

impl AccessGuard {
    /// Takes the tokens and the address from the settings; at most `permits` requests are under
    /// way at a time, and one above that is told to come back after `retry_after`.
    pub fn new(settings: &ApiSettings, permits: usize, retry_after: Duration) -> Self {
        Self {
            digests: settings.tokens.iter().map(digest).collect(),
            loopback_only: is_loopback(&settings.host),
            permits: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            retry_after,
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> RestResult<()> {
        if self.digests.is_empty() {
            return self.refuse_pages_of_others(headers);
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = bearer else {
            let message = "this coordinator lets in known tokens only; send Authorization: Bearer <token> (for loom: LOOM_API_TOKEN)";
            return Err(WireError::new(ErrorCode::Unauthorized, message).into());
        };
        let given = digest(&Secret::new(token));
        // Every digest is compared, so that the time tells nothing.
        let known = self
            .digests
            .iter()
            .fold(subtle::Choice::from(0), |known, digest| {
                known | digest.ct_eq(&given)
            });
        if bool::from(known) {
            return Ok(());
        }
        let message = "this token is not known here; ask the operator for one";
        Err(WireError::new(ErrorCode::Unauthorized, message).into())
    }

    /// Whether somebody on this machine asks: not a page of another site in a browser here, and not
    /// somebody elsewhere through a proxy that stands here.
    fn is_of_this_machine(&self, peer: Option<Peer>, headers: &HeaderMap) -> bool {
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
        peer.is_some_and(|Peer(address)| address.ip().to_canonical().is_loopback())
            && !forwarded.iter().any(|name| headers.contains_key(*name))
            && self.refuse_pages_of_others(headers).is_ok()
    }

    /// Without tokens, a page of another site that is open in a browser on this machine must not
    /// be able to submit work: neither by a cross-site request nor by a name of its own that
    /// resolves to here.
    fn refuse_pages_of_others(&self, headers: &HeaderMap) -> RestResult<()> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        if self.loopback_only && !host.is_empty() && !is_loopback(without_port(host)) {
            let message = format!(
                "this coordinator is for this machine only and does not answer to the name {host:?}; use 127.0.0.1 or localhost"
            );
            return Err(WireError::new(ErrorCode::Forbidden, message).into());
        }
        match text(header::ORIGIN) {
            Some(origin) if origin.split_once("://").map(|(_, from)| from) != Some(host) => {
                let message = "a page of another site may not use this coordinator without a token; configure tokens";
                Err(WireError::new(ErrorCode::Forbidden, message).into())
            }
            _ => Ok(()),
        }
    }
}

fn digest(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.expose().as_bytes()).into()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Puts the fence around `inside`, and both behind the answers to what there is not.
pub fn layer(inside: Router, outside: Router, access_guard: Arc<AccessGuard>) -> Router {
    let admission = middleware::from_fn_with_state(access_guard.clone(), admit);
    let guard = middleware::from_fn_with_state(access_guard, guard);
    inside
        .layer(CatchPanicLayer::custom(panicked))
        .layer(admission)
        .merge(outside)
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(guard)
        .layer(CatchPanicLayer::custom(panicked))
}

async fn guard(
    State(access_guard): State<Arc<AccessGuard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let public = OPEN_PATHS.contains(&request.uri().path());
    let authorize = access_guard.authorize(request.headers());
    if public {
        let peer = request.extensions().get::<Peer>().copied();
        let trusted = authorize.is_ok() || access_guard.is_of_this_machine(peer, request.headers());
        let trust = if trusted { Trust::Full } else { Trust::None };
        request.extensions_mut().insert(trust);
        return next.run(request).await;
    }
    if let Err(refusal) = authorize {
        return refusal.into_response();
    }
    let caller = Caller::everybody(Door::Rest);
    request.extensions_mut().insert(caller);
    next.run(request).await
}

async fn admit(
    State(access_guard): State<Arc<AccessGuard>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(READ_WITHIN, read(&parts.headers, body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return refusal.into_response(),
        Err(_) => {
            let message = format!(
                "the body did not arrive within {} s; send it faster",
                READ_WITHIN.as_secs()
            );
            let error = WireError::invalid(message);
            return RestError::with_status(error, StatusCode::REQUEST_TIMEOUT).into_response();
        }
    };
    let Ok(_permit) = access_guard.permits.try_acquire() else {
        let message = "too many requests are under way; try again a little later";
        return RestError::from(WireError::overloaded(message, access_guard.retry_after))
            .into_response();
    };
    let request = Request::from_parts(parts, Body::from(body));
    let answer = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let message = format!(
            "no answer within {} s; whether the request took effect is unknown: look, then try again",
            ANSWER_WITHIN.as_secs()
        );
        RestError::from(WireError::unavailable(message, Duration::from_secs(1))).into_response()
    })
}

async fn read(headers: &HeaderMap, body: Body) -> RestResult<Bytes> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > MAX_DISCARDED {
        return Err(too_large().into());
    }
    let mut kept = Vec::with_capacity(announced.min(MAX_BODY));
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            RestError::invalid(format!("the body broke off before its end: {error}"))
        })?;
        length += chunk.len();
        if length > MAX_DISCARDED {
            return Err(too_large().into());
        }
        if length <= MAX_BODY {
            kept.extend_from_slice(&chunk);
        }
    }
    if length > MAX_BODY {
        return Err(too_large().into());
    }
    Ok(kept.into())
}

/// What is said of a body that is larger than [`MAX_BODY`].
pub fn too_large() -> WireError {
    let message = format!("the body is over {MAX_BODY} bytes; send less, or in several requests");
    WireError::new(ErrorCode::TooLarge, message)
}

async fn unknown_path(uri: Uri) -> RestError {
    let message = format!(
        "there is nothing at {}; the paths begin with /api/ (or /p/<project>/api/)",
        uri.path()
    );
    WireError::new(ErrorCode::NotFound, message).into()
}

async fn wrong_method(method: Method, uri: Uri) -> RestError {
    let message = format!(
        "{} does not take {method}; the header Allow says what it takes",
        uri.path()
    );
    RestError::with_status(WireError::invalid(message), StatusCode::METHOD_NOT_ALLOWED)
}

#[allow(clippy::needless_pass_by_value, reason = "the layer hands it over")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text");
    tracing::error!(panic = text, "a request handler panicked");
    let message = "a defect in the coordinator ended this request; its log says more";
    RestError::from(WireError::new(ErrorCode::Internal, message)).into_response()
}

#[cfg(test)]
#[path = "access_guard_tests.rs"]
mod tests;
