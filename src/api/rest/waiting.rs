//! What the API says before the coordinator serves: the process is there, it is not ready, and why. Nobody is left
//! without an answer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Json, Router};
use loom_actors::nats::owner::OwnerError;
use loom_protocol::WireError;
use loom_protocol::readiness::{Problem, ProblemKind, Readiness};
use parking_lot::RwLock;
use tokio::sync::watch;
use tower::Service as _;

use super::access_guard::{self, AccessGuard, Trust};
use super::error::RestError;
use super::system;
use crate::service::ADMISSION;
use crate::settings::ApiSettings;

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no ownership yet; `None` before it was asked for.
type Why = watch::Receiver<Option<OwnerError>>;

/// The API of a coordinator that does not serve yet. The same callers are let in as later.
pub fn router(settings: &ApiSettings, why: Why) -> Router {
    let (permits, retry_after) = ADMISSION;
    let access_guard = AccessGuard::new(settings, permits, retry_after);
    let inside = Router::new()
        .route("/", any(refused))
        .route("/{*path}", any(refused))
        .with_state(why.clone());
    let outside = Router::new()
        .route("/health", get(system::health))
        .route("/ready", get(ready))
        .with_state(why);
    access_guard::layer(inside, outside, Arc::new(access_guard))
}

async fn ready(State(why): State<Why>, trust: Option<Extension<Trust>>) -> impl IntoResponse {
    let whole = readiness(why.borrow().as_ref());
    let readiness = match trust {
        Some(Extension(Trust::Full)) => whole,
        _ => whole.in_general(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(readiness))
}

async fn refused(State(why): State<Why>) -> RestError {
    let sentence = sentence(why.borrow().as_ref());
    WireError::unavailable(sentence, RETRY_AFTER).into()
}

fn readiness(why: Option<&OwnerError>) -> Readiness {
    let mut readiness = Readiness {
        // Somebody who knows who owns has been answered.
        nats: matches!(why, Some(OwnerError::HeldBy { .. })),
        ..Readiness::default()
    };
    readiness.add(Problem::new(ProblemKind::NotOwner, sentence(why)));
    readiness
}

fn sentence(why: Option<&OwnerError>) -> String {
    match why {
        Some(error) => error.while_waiting(),
        None => "this coordinator is starting and owns nothing yet; try again in a moment".into(),
    }
}

/// Doors that others can take the place of, also for the connections that are open.
#[derive(Debug, Clone)]
pub struct Replaceable(Arc<RwLock<Router>>);

impl Replaceable {
    /// This API, for now.
    pub fn new(api: Router) -> Self {
        Self(Arc::new(RwLock::new(api)))
    }

    /// Every request that comes from now on is for these.
    pub fn replace(&self, api: Router) {
        *self.0.write() = api;
    }

    /// Passes each request on to the API that is there when it comes.
    pub fn router(&self) -> Router {
        Router::new().fallback(pass_on).with_state(self.clone())
    }
}

async fn pass_on(State(api): State<Replaceable>, request: Request) -> Response {
    let mut api = api.0.read().clone();
    match api.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::body::to_bytes;
    use axum::http::{Method, Request};
    use serde_json::Value;

    use loom_actors::nats::error::{Resource, StoreError};

    use super::super::access_guard::Peer;
    use super::*;

    async fn asked(router: &Router, method: Method, path: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        let here = ([127, 0, 0, 1], 1).into();
        request = request.extension(Peer(here));
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn who_asks_before_there_is_an_ownership_is_answered_with_the_reason() {
        let (why, asked_of) = watch::channel(None);
        let settings = ApiSettings::default();
        let api = Replaceable::new(router(&settings, asked_of));
        let outside = api.router();
        let (status, said) = asked(&outside, Method::GET, "/health").await;
        assert_eq!((status, &said["status"]), (200, &Value::from("ok")));
        let owners = Resource::bucket("LOOM_OWNERS");
        for (why_now, part) in [
            (None, "is starting"),
            (
                Some(StoreError::unknown("reading", &owners, "no answer").into()),
                "no answer",
            ),
        ] {
            why.send_replace(why_now);
            let (status, said) = asked(&outside, Method::GET, "/ready").await;
            assert_eq!(
                (status, &said["kinds"][0]),
                (503, &Value::from("not-owner"))
            );
            let sentence = said["problems"][0].as_str().unwrap();
            assert!(sentence.contains(part), "{sentence}");
            for (method, path) in [
                (Method::GET, "/"),
                (Method::GET, "/api/status"),
                (Method::POST, "/api/work"),
                (Method::DELETE, "/p/x/api/dlq/1"),
                (Method::GET, "/metrics"),
            ] {
                let (status, said) = asked(&outside, method, path).await;
                assert_eq!((status, &said["code"]), (503, &Value::from("unavailable")));
                assert_eq!(said["error"], sentence, "{path}");
            }
        }
        // The next request is for the API that has taken its place.
        let later = Router::new().route("/api/status", get(async || Json(Value::from("serves"))));
        api.replace(later);
        let (status, said) = asked(&outside, Method::GET, "/api/status").await;
        assert_eq!((status, said), (200, Value::from("serves")));
    }
}
