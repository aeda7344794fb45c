//! `/api/spin-ups`, and the start at a target.

use axum::Json;
use axum::extract::State;
use loom_protocol::rest::{SpinUpBegun, SpinUpsPage};
use loom_protocol::target::{ListSpinUpsRequest, SpinUpOperation, SpinUpRequest};

use super::call::Call;
use super::error::RestResult;
use super::targets::word;
use crate::service::Service;

/// `POST /api/targets/{idOrName}/spin-up`
pub async fn trigger(State(service): State<Service>, call: Call) -> RestResult<Json<SpinUpBegun>> {
    let body: SpinUpRequest = call.body()?;
    let request = SpinUpRequest {
        target: call.id.clone(),
        ..body
    };
    let operation = service.trigger_spin_up(call.caller(), &request).await?;
    Ok(Json(SpinUpBegun::from(&operation)))
}

/// `GET /api/spin-ups/{operationId}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<SpinUpOperation>> {
    Ok(Json(service.get_spin_up(call.caller(), &call.id).await?))
}

/// `GET /api/spin-ups`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Json<SpinUpsPage>> {
    let request = ListSpinUpsRequest {
        status: word(&call, "status")?,
        target: call.text("target"),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
    };
    let _turn = service.turn().await?;
    let page = service.list_spin_ups(call.caller(), &request).await?;
    Ok(Json(SpinUpsPage {
        operations: page.items,
        page: page.info,
    }))
}
