//! `/api/work`

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loom_protocol::ErrorCode;
use loom_protocol::batch::CancelBatchRequest;
use loom_protocol::rest::{CancelBatchResult, WorkPage};
use loom_protocol::work::{
    CancelRequest, ExplainAnswer, ListWorkRequest, SubmitRequest, WorkItem, WorkStatus,
};
use parking_lot::Mutex;
use serde::Serialize;

use super::batch::{Chosen, run_batch};
use super::call::{Call, created};
use super::error::RestResult;
use crate::service::Service;

/// Who cancels, where the request names nobody.
const BY_REST: &str = "rest";

/// `GET /api/work`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let request = ListWorkRequest {
        status: call.some_of("status", &WorkStatus::ALL, WorkStatus::as_str)?,
        capability: call.text("capability"),
        boundary: call.boundary(),
        assigned_to: call.text("assignedTo"),
        label: call.text("label"),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
        order: call.order()?,
        since: call.time("since")?,
    };
    let listed = service.in_turn(call.caller(), async {
        let page = service.list_work(call.caller(), request).await?;
        Ok(call.answer(Json(WorkPage {
            work_items: page.items,
            page: page.info,
        })))
    });
    listed.await
}

/// `POST /api/work`: one item, or `{items: […]}`, of which each is answered by itself.
pub async fn submit(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let (mut request, ignored) = call.body_noting::<SubmitRequest>()?;
    request.boundary = request.boundary.or_else(|| call.boundary());
    for (index, item) in request.items.iter_mut().flatten().enumerate() {
        let old = || call.item_classification(index);
        item.boundary = item.boundary.take().or_else(old);
    }
    let submitted = service.submit(call.caller(), request, ignored).await?;
    Ok(call.answer(created(Json(submitted))))
}

/// `GET /api/work/{id}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<WorkItem>> {
    Ok(Json(service.get_work(call.caller(), &call.id).await?))
}

/// `GET /api/work/{id}/explain`
pub async fn explain(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<ExplainAnswer>> {
    let explained = service.explain(call.caller(), &call.id);
    Ok(Json(explained.await?))
}

/// The answer to a cancel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CancelAnswer {
    success: bool,
    message: String,
    work_item_id: String,
}

/// `POST /api/work/{id}/cancel`
pub async fn cancel(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let body: CancelRequest = call.body()?;
    let request = CancelRequest {
        id: call.id.clone(),
        by: body.by.or_else(|| Some(BY_REST.into())),
        reason: body.reason,
    };
    let item = service.cancel(call.caller(), request).await?;
    Ok(Json(CancelAnswer {
        success: true,
        message: format!("work item {} is cancelled", item.id),
        work_item_id: item.id.to_string(),
    }))
}

/// `POST /api/work/cancel-batch`: cancels several items, or hands them over, those of a list or those that a filter names; answers for each by itself.
pub async fn cancel_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<CancelBatchResult>> {
    let batch: CancelBatchRequest = call.strict_body(&[])?;
    let chosen = service.in_turn(call.caller(), async {
        Chosen::of("ids", batch.ids, batch.filter, batch.all, |filter| {
            service.work_named(call.caller(), filter)
        })
    });
    let chosen = chosen.await?;
    let by = batch.by.unwrap_or_else(|| BY_REST.into());
    let ended = Mutex::new(Vec::new());
    let result = run_batch(chosen.ids, |id| {
        let request = CancelRequest {
            id: id.clone(),
            reason: batch.reason.clone(),
            by: Some(by.clone()),
        };
        let (service, caller, ended) = (&service, call.caller(), &ended);
        async move {
            let outcome = if batch.reassign {
                let reassigned = service.reassign(caller, &id, request.reason).await;
                reassigned.map(|_| ())
            } else {
                service.cancel(caller, request).await.map(|_| ())
            };
            outcome.inspect_err(|error| {
                if error.code == ErrorCode::TerminalState {
                    ended.lock().push(id);
                }
            })
        }
    })
    .await;
    let mut ended = ended.into_inner();
    // In the order in which they were asked for, not in that of their answers.
    ended.sort_by_key(|id| result.failed.iter().position(|failed| failed == id));
    let (cancelled_items, reassigned_items) = if batch.reassign {
        (Vec::new(), result.success.clone())
    } else {
        (result.success.clone(), Vec::new())
    };
    Ok(Json(CancelBatchResult {
        batch: result,
        cancelled_items,
        reassigned_items,
        not_cancellable: ended,
        has_more: chosen.has_more,
    }))
}
