//! `/api/targets`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loom_protocol::batch::DisableTargetsRequest;
use loom_protocol::rest::{DisableTargetsResult, TargetsPage};
use loom_protocol::target::{
    HealthStatus, ListTargetsRequest, Mechanism, RegisterTarget, RemovedTarget, TargetAnswer,
    TargetHealth, TargetStatus, TargetUpdates,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::batch::{Chosen, run_batch};
use super::call::{CLASSIFICATION, Call, PROJECT, created};
use super::error::RestResult;
use crate::service::Service;

/// `GET /api/targets`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let request = ListTargetsRequest {
        agent_type: call.text("type").or_else(|| call.text("agentType")),
        capability: call.text("capability"),
        boundary: call.boundary(),
        status: call.one_of("status", &TargetStatus::ALL, TargetStatus::as_str)?,
        health_status: call.one_of("healthStatus", &HealthStatus::ALL, HealthStatus::as_str)?,
        mechanism: call.one_of("mechanism", &Mechanism::ALL, Mechanism::as_str)?,
        tag: call.text("tag"),
        include_disabled: call.flag("includeDisabled")?,
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
    };
    let listed = service.in_turn(call.caller(), async {
        let page = service.list_targets(call.caller(), &request).await?;
        let unreadable = match request.cursor {
            None => service.unreadable_targets(call.caller()).await?,
            Some(_) => Vec::new(),
        };
        Ok(call.answer(Json(TargetsPage {
            targets: page.items,
            unreadable,
            page: page.info,
        })))
    });
    listed.await
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

/// What `PUT` takes: the changes, in any spelling of existing clients, or the same below `updates`.
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
struct Told<T> {
    success: bool,
    message: String,
    #[serde(flatten)]
    target: T,
}

impl<T> Told<T> {
    fn of(target: T, name: impl FnOnce(&T) -> &str, done: &str) -> Json<Self> {
        Json(Self {
            success: true,
            message: format!("{} {done}", name(&target)),
            target,
        })
    }
}

fn name_of(answer: &TargetAnswer) -> &str {
    &answer.target.name
}

/// `DELETE /api/targets/{idOrName}`
pub async fn remove(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let target = service.remove_target(call.caller(), &call.id).await?;
    Ok(Told::of(target, RemovedTarget::name, "is removed"))
}

/// `POST /api/targets/{idOrName}/enable`
pub async fn enable(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let _: IgnoredAny = call.body()?;
    let target = service.switch_target(call.caller(), &call.id, true).await?;
    Ok(Told::of(target, name_of, "is enabled"))
}

/// `POST /api/targets/{idOrName}/disable`
pub async fn disable(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let _: IgnoredAny = call.body()?;
    let target = service
        .switch_target(call.caller(), &call.id, false)
        .await?;
    Ok(Told::of(target, name_of, "is disabled"))
}

/// `POST /api/targets/{idOrName}/test`: 200 also where no agent could be started.
pub async fn test(State(service): State<Service>, call: Call) -> RestResult<Json<TargetHealth>> {
    let _: IgnoredAny = call.body()?;
    Ok(Json(service.test_target(call.caller(), &call.id).await?))
}

/// `POST /api/targets/disable-batch`: those of a list, those that a filter names, or all; answers for each by itself.
pub async fn disable_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<DisableTargetsResult>> {
    let batch: DisableTargetsRequest = call.strict_body(&[])?;
    let filter = batch.filter.clone().unwrap_or_default();
    let named = service.in_turn(call.caller(), service.targets_named(call.caller(), &filter));
    let named = named.await?;
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
