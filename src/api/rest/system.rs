//! The coordinator itself: is it up, can it serve, what does it hold.

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use loom_protocol::ProjectId;
use loom_protocol::rest::{Info, ProjectsAnswer, Stats, Status};
use loom_protocol::work::{PurgeRequest, QueueInfo};
use serde_json::{Value, json};

use super::access_guard::Trust;
use super::call::{Asker, CLASSIFICATION, Call, PROJECT, find};
use super::error::RestResult;
use crate::metrics;
use crate::service::Service;

/// `GET /health`: the process is there.
pub async fn health() -> Json<Value> {
    Json(json!({
        "status": "ok",
        "name": "loom",
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

/// `GET /ready`: 200 when it can serve, else 503 and why not; names and reasons only to those who
/// may know them. `?project=` asks about one project beside that.
pub async fn ready(
    State(service): State<Service>,
    trust: Option<Extension<Trust>>,
    Query(query): Query<Vec<(String, String)>>,
) -> RestResult<impl IntoResponse> {
    let project = find(&query, "project").or_else(|| find(&query, PROJECT));
    let whole = match project {
        Some(project) => service.readiness_of(&ProjectId::new(project)?),
        None => service.readiness(),
    };
    let readiness = match trust {
        Some(Extension(Trust::Full)) => whole,
        _ => whole.in_general(),
    };
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((status, Json(readiness)))
}

/// `GET /metrics`: everything that is measured, as Prometheus reads it.
pub async fn metrics(_: Asker, State(service): State<Service>) -> impl IntoResponse {
    let content_type = (
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    );
    ([content_type], metrics::render(&service))
}

/// `GET /api/info`
pub async fn info(Asker(caller): Asker, State(service): State<Service>) -> Json<Info> {
    Json(service.info(&caller))
}

/// `GET /api/status`: for whoever runs the coordinator.
pub async fn status(Asker(caller): Asker, State(service): State<Service>) -> Json<Status> {
    Json(service.status(&caller))
}

/// `GET /api/stats`: of one project, or of all.
pub async fn stats(State(service): State<Service>, call: Call) -> RestResult<Json<Stats>> {
    let counted = service.in_turn(call.caller(), async { service.stats(call.caller()) });
    Ok(Json(counted.await?))
}

/// `GET /api/stats/projects`
pub async fn projects(
    Asker(caller): Asker,
    State(service): State<Service>,
) -> RestResult<Json<ProjectsAnswer>> {
    Ok(Json(service.project_summaries(&caller)?))
}

/// `GET /api/queue`: of one project.
pub async fn queue(State(service): State<Service>, call: Call) -> RestResult<Json<QueueInfo>> {
    Ok(Json(service.queue_info(call.caller()).await?))
}

/// `POST /api/queue/purge`: cancels what is pending and matches.
pub async fn purge(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let mut request: PurgeRequest = call.strict_body(&["boundary", CLASSIFICATION])?;
    request.boundary = request.boundary.or_else(|| call.boundary());
    let answer = service.purge(call.caller(), request).await?;
    Ok(call.answer(Json(answer)))
}
