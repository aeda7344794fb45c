//! `/api/agents`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loom_protocol::AgentGuid;
use loom_protocol::agent::{Agent, AgentStatus, ListAgentsRequest, ShutdownRequest};
use loom_protocol::batch::ShutdownBatchRequest;
use loom_protocol::gc::{GcReport, GcRequest};
use loom_protocol::rest::{AgentsPage, ShutdownBatchResult};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::batch::{Chosen, run_batch};
use super::call::Call;
use super::error::RestResult;
use crate::service::Service;

/// `GET /api/agents`: of one project, or of all.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let status = call.one_of("status", &AgentStatus::ALL, AgentStatus::as_str)?;
    let request = ListAgentsRequest {
        agent_type: call.text("type").or_else(|| call.text("agentType")),
        status: status.map(|status| status.as_str().to_owned()),
        capability: call.text("capability"),
        boundary: call.boundary(),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
        unreadable: call.flag("unreadable")?,
    };
    let listed = service.in_turn(call.caller(), async {
        if request.unreadable {
            let page = service.list_unreadable(call.caller(), request.limit)?;
            return Ok(call.answer(Json(page)));
        }
        let page = service.list_agents(call.caller(), &request)?;
        Ok(call.answer(Json(AgentsPage {
            agents: page.items,
            starting: match call.caller().project() {
                Some(_) => BTreeMap::new(),
                None => service.starting(),
            },
            page: page.info,
        })))
    });
    listed.await
}

/// `GET /api/agents/{guid}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<Agent>> {
    Ok(Json(service.get_agent(call.caller(), &call.id)?))
}

/// The answer to a shutdown.
#[derive(Debug, Serialize)]
struct ShutdownAnswer {
    success: bool,
    guid: AgentGuid,
    message: String,
    graceful: bool,
}

/// `POST /api/agents/{guid}/shutdown`
pub async fn shutdown(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let request = ShutdownRequest {
        guid: call.id.clone(),
        ..call.body()?
    };
    let graceful = request.graceful.unwrap_or(true);
    let agent = service.shutdown_agent(call.caller(), request).await?;
    let how = match (agent.status, graceful) {
        (AgentStatus::Offline, _) => {
            "is offline, so nobody hears the order: it ends if this run of it is heard of again, and a new one is not concerned"
        }
        (_, true) => "is told to finish what it has and end",
        (_, false) => "is told to end at once",
    };
    Ok(Json(ShutdownAnswer {
        success: true,
        guid: agent.guid,
        message: format!("{} {how}", agent.handle),
        graceful,
    }))
}

/// The answer to a resumption.
#[derive(Debug, Serialize)]
struct ResumeAnswer {
    success: bool,
    guid: AgentGuid,
    message: String,
    status: AgentStatus,
}

/// `POST /api/agents/{guid}/resume`
pub async fn resume(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let _: IgnoredAny = call.body()?;
    let agent = service.resume_agent(call.caller(), &call.id).await?;
    Ok(Json(ResumeAnswer {
        success: true,
        guid: agent.guid,
        message: format!("{} is {}", agent.handle, agent.status),
        status: agent.status,
    }))
}

/// `GET /api/gc`: what the reaper of a project will do, if nothing changes.
pub async fn gc_report(State(service): State<Service>, call: Call) -> RestResult<Json<GcReport>> {
    let report = service.in_turn(call.caller(), service.gc_report(call.caller()));
    Ok(Json(report.await?))
}

/// `POST /api/gc {dryRun?}`: has it look at everybody now.
pub async fn gc_run(State(service): State<Service>, call: Call) -> RestResult<Json<GcReport>> {
    let request: GcRequest = call.strict_body(&[])?;
    Ok(Json(service.gc_run(call.caller(), &request).await?))
}

/// `POST /api/agents/shutdown-batch`: tells several agents to end, those of a list or those that a filter names; answers for each by itself.
pub async fn shutdown_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<ShutdownBatchResult>> {
    let batch: ShutdownBatchRequest = call.strict_body(&[])?;
    let chosen = service.in_turn(call.caller(), async {
        Chosen::of("guids", batch.guids, batch.filter, batch.all, |filter| {
            service.agents_named(call.caller(), filter)
        })
    });
    let chosen = chosen.await?;
    let result = run_batch(chosen.ids, |guid| {
        let request = ShutdownRequest {
            guid,
            graceful: batch.graceful,
            grace_period_ms: batch.grace_period_ms,
            reason: batch.reason.clone(),
        };
        let (service, caller) = (&service, call.caller());
        async move { service.shutdown_agent(caller, request).await.map(|_| ()) }
    })
    .await;
    Ok(Json(ShutdownBatchResult {
        shutdown_agents: result.success.clone(),
        batch: result,
        graceful: batch.graceful.unwrap_or(true),
        has_more: chosen.has_more,
    }))
}
