//! `/api/targets`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loom_protocol::batch::DisableTargetsRequest;
use loom_protocol::rest::{DisableTargetsResult, TargetsPage};
use loom_protocol::target::{ListTargetsRequest, RegisterTarget, TargetAnswer, TargetUpdates};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::batch::{Chosen, run_batch};
use super::call::{CLASSIFICATION, Call, PROJECT, created};
use super::error::{RestError, RestResult};
use crate::service::Service;

/// `GET /api/targets`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let request = ListTargetsRequest {
        agent_type: call.text("type").or_else(|| call.text("agentType")),
        capability: call.text("capability"),
        boundary: call.boundary(),
        status: word(&call, "status")?,
        health_status: word(&call, "healthStatus")?,
        mechanism: word(&call, "mechanism")?,
        tag: call.text("tag"),
        include_disabled: call.flag("includeDisabled")?,
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
    };
    let _turn = service.turn().await?;
    let page = service.list_targets(call.caller(), &request).await?;
    Ok(call.answer(Json(TargetsPage {
        targets: page.items,
        page: page.info,
    })))
}

/// A parameter of the query that is one of a few words.
pub(super) fn word<T: DeserializeOwned>(call: &Call, name: &str) -> RestResult<Option<T>> {
    let Some(text) = call.text(name) else {
        return Ok(None);
    };
    let shown: String = text.chars().take(32).collect();
    let read = serde_json::from_value(Value::String(text));
    let read = read.map_err(|error| RestError::invalid(format!("{name} = {shown:?}: {error}")))?;
    Ok(Some(read))
}

/// `GET /api/targets/{idOrName}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<TargetAnswer>> {
    Ok(Json(service.get_target(call.caller(), &call.id).await?))
}

/// `POST /api/targets`
pub async fn register(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let mut request: RegisterTarget = call.body()?;
    // Of the door, not of a configuration that stands beside the other fields.
    for field in [PROJECT, CLASSIFICATION] {
        request.fields.0.remove(field);
    }
    let target = service.register_target(call.caller(), request).await?;
    Ok(created(Json(target)))
}

/// What `PUT` takes: the changes, or the same below `updates`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UpdateBody {
    updates: Option<TargetUpdates>,
    #[serde(flatten)]
    own: TargetUpdates,
}

/// `PUT /api/targets/{idOrName}`
pub async fn update(State(service): State<Service>, call: Call) -> RestResult<Json<TargetAnswer>> {
    let body: UpdateBody = call.body()?;
    let updates = body.updates.unwrap_or(body.own);
    let target = service.update_target(call.caller(), &call.id, updates);
    Ok(Json(target.await?))
}

/// A target, and in words what was done with it.
#[derive(Debug, Serialize)]
struct Told {
    success: bool,
    message: String,
    #[serde(flatten)]
    target: TargetAnswer,
}

impl Told {
    fn of(answer: TargetAnswer, done: &str) -> Json<Self> {
        Json(Self {
            success: true,
            message: format!("{} {done}", answer.target.name),
            target: answer,
        })
    }
}

/// `DELETE /api/targets/{idOrName}`
pub async fn remove(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let target = service.remove_target(call.caller(), &call.id).await?;
    Ok(Told::of(target, "is removed"))
}

/// `POST /api/targets/{idOrName}/enable`
pub async fn enable(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let _: IgnoredAny = call.body()?;
    let target = service.switch_target(call.caller(), &call.id, true).await?;
    Ok(Told::of(target, "is enabled"))
}

/// `POST /api/targets/{idOrName}/disable`
pub async fn disable(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let _: IgnoredAny = call.body()?;
    let target = service
        .switch_target(call.caller(), &call.id, false)
        .await?;
    Ok(Told::of(target, "is disabled"))
}

/// `POST /api/targets/disable-batch`: those of a list, those that a filter names, or all; answers for each by itself.
pub async fn disable_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<DisableTargetsResult>> {
    let batch: DisableTargetsRequest = call.strict_body(&[])?;
    let turn = service.turn().await?;
    let filter = batch.filter.clone().unwrap_or_default();
    let named = service.targets_named(call.caller(), &filter).await?;
    drop(turn);
    let chosen = Chosen::of("targets", batch.targets, batch.filter, batch.all, |_| {
        Ok(named)
    })?;
    let result = run_batch(chosen.ids, |id| {
        let (service, caller) = (&service, call.caller());
        async move {
            let switched = service.switch_target(caller, &id, false).await;
            switched.map(|_| ())
        }
    })
    .await;
    Ok(Json(DisableTargetsResult {
        disabled_targets: result.success.clone(),
        batch: result,
    }))
}
