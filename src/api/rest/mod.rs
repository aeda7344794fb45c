//! The REST door: JSON over HTTP, thin over the service layer.
//!
//! Whatever comes in, JSON goes out: an unknown path, a wrong method, a broken body and a panic of
//! ours answer with the same error object as a refusal of the service.
//!
//! | module | what it holds |
//! |---|---|
//! | [`call`] | a request, taken apart: project, id, query, body |
//! | [`error`] | refusals as answers |
//! | [`access_guard`] | who is let in, and how many at a time |
//! | [`serve`](mod@serve) | connections |
//! | [`outgoing`] | how much of answers may wait for readers |
//! | [`waiting`] | what is said before the coordinator serves |
//! | [`agents`], [`work`], [`dead_letters`], [`events`], [`system`], [`store`] | the paths |

pub mod access_guard;
pub mod agents;
mod batch;
pub mod call;
pub mod dead_letters;
pub mod error;
pub mod events;
pub mod outgoing;
pub mod serve;
pub mod store;
pub mod system;
pub mod waiting;
pub mod work;

use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use loom_protocol::{ErrorCode, WireError};

pub use serve::{BindError, bind, serve};
pub use waiting::Replaceable;

use crate::service::Service;
use crate::settings::ApiSettings;
use access_guard::AccessGuard;
use error::RestError;
use outgoing::{BUDGET, Budget};

/// Every path of the door.
pub fn router(service: Service, settings: &ApiSettings) -> Router {
    let (permits, retry_after) = service.admission();
    let access_guard = AccessGuard::new(settings, permits, retry_after);
    let api = api().with_state(service.clone());
    let inside = Router::new()
        .nest("/p/{project}", api.clone())
        .merge(api)
        .layer(from_fn_with_state(service.clone(), read_in_turn))
        .layer(map_response_with_state(service.clone(), explain))
        .layer(from_fn_with_state(Budget::new(BUDGET), outgoing::charge));
    let outside = Router::new()
        .route("/health", get(system::health))
        .route("/ready", get(system::ready))
        .with_state(service);
    access_guard::layer(inside, outside, Arc::new(access_guard))
}

/// Where something is not possible because the whole coordinator cannot serve, the answer says why.
async fn explain(State(service): State<Service>, response: Response) -> Response {
    match response.extensions().get::<WireError>() {
        Some(error) if error.code == ErrorCode::Unavailable => {
            RestError::from(service.explained(error.clone())).into_response()
        }
        _ => response,
    }
}

/// A large body is read in a turn of its own.
async fn read_in_turn(State(service): State<Service>, request: Request, next: Next) -> Response {
    let size = request.body().size_hint().exact().unwrap_or_default();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match service.turn_for(size).await {
        Ok(_turn) => next.run(request).await,
        Err(error) => RestError::from(error).into_response(),
    }
}

fn api() -> Router<Service> {
    Router::new()
        .route("/metrics", get(system::metrics))
        .route("/api/info", get(system::info))
        .route("/api/status", get(system::status))
        .route("/api/stats", get(system::stats))
        .route("/api/stats/projects", get(system::projects))
        .route("/api/queue", get(system::queue))
        .route("/api/queue/purge", post(system::purge))
        .route("/api/agents", get(agents::list))
        .route("/api/agents/shutdown-batch", post(agents::shutdown_batch))
        .route("/api/agents/{id}", get(agents::show))
        .route("/api/agents/{id}/shutdown", post(agents::shutdown))
        .route("/api/agents/{id}/resume", post(agents::resume))
        .route("/api/store", get(store::show))
        .route("/api/store/lost", get(store::lost))
        .route("/api/store/accept", post(store::accept))
        .route("/api/gc", get(agents::gc_report).post(agents::gc_run))
        .route("/api/dlq", get(dead_letters::list))
        .route("/api/dlq/retry-batch", post(dead_letters::retry_batch))
        .route(
            "/api/dlq/{id}",
            get(dead_letters::show).delete(dead_letters::discard),
        )
        .route("/api/dlq/{id}/retry", post(dead_letters::retry))
        .route("/api/events", get(events::follow))
        .route("/api/work", get(work::list).post(work::submit))
        .route("/api/work/cancel-batch", post(work::cancel_batch))
        .route("/api/work/{id}", get(work::show))
        .route("/api/work/{id}/cancel", post(work::cancel))
        .route("/api/work/{id}/explain", get(work::explain))
}
