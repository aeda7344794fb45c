//! `/api/store`

use axum::Json;
use axum::extract::State;
use loom_protocol::store::{AcceptAnswer, AcceptRequest, LostAnswer, StoreAnswer};

use super::call::{Asker, Call};
use super::error::RestResult;
use crate::service::Service;

/// `GET /api/store`: which store it is, and what is wrong with it.
pub async fn show(Asker(caller): Asker, State(service): State<Service>) -> Json<StoreAnswer> {
    Json(service.store(&caller))
}

/// `GET /api/store/lost`: of one project, or of all.
pub async fn lost(State(service): State<Service>, call: Call) -> RestResult<Json<LostAnswer>> {
    let lost = service.in_turn(call.caller(), service.lost(call.caller()));
    Ok(Json(lost.await?))
}

/// `POST /api/store/accept`: of one project, or all.
pub async fn accept(State(service): State<Service>, call: Call) -> RestResult<Json<AcceptAnswer>> {
    let _known_fields: AcceptRequest = call.strict_body(&[])?;
    Ok(Json(service.accept_store(call.caller()).await?))
}
