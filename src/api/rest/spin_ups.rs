//! `/api/spin-ups`, and the start at a target.

use axum::Json;
use axum::extract::State;
use loom_protocol::rest::{SpinUpBegun, SpinUpsPage};
use loom_protocol::target::{ListSpinUpsRequest, SpinUpOperation, SpinUpRequest, SpinUpStatus};

use super::call::Call;
use super::error::RestResult;
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
        status: call.one_of("status", &SpinUpStatus::ALL, SpinUpStatus::as_str)?,
        target: call.text("target"),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
    };
    let listed = service.in_turn(call.caller(), async {
        let page = service.list_spin_ups(call.caller(), &request).await?;
        Ok(Json(SpinUpsPage {
            operations: page.items,
            page: page.info,
        }))
    });
    listed.await
}
