//! `/api/work`, and what batches have in common.

use std::collections::BTreeMap;
use std::future::Future;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use loom_actors::clock::Clock;
use loom_protocol::rest::{BatchResult, WorkPage};
use loom_protocol::work::{
    CancelRequest, ExplainAnswer, ListWorkRequest, SubmitRequest, WorkItem, limits,
};
use loom_protocol::{ErrorCode, WireError};
use serde::{Deserialize, Serialize};

use super::call::{Call, created};
use super::error::{RestError, RestResult};
use crate::service::Service;

/// How many members of a batch are under way at a time.
const BATCH_IN_FLIGHT: usize = 16;
/// Who cancels, where the request names nobody.
const BY_REST: &str = "rest";

/// `GET /api/work`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let request = ListWorkRequest {
        status: call.text("status"),
        capability: call.text("capability"),
        boundary: call.boundary(),
        assigned_to: call.text("assignedTo"),
        label: call.text("label"),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
        order: call.text("order"),
        since: call.time("since")?,
    };
    let project = call.project_or(service.default_project());
    let page = service.list_work(project, request).await?;
    Ok(call.answer(Json(WorkPage {
        work_items: page.items,
        page: page.info,
    })))
}

/// `POST /api/work`: one item, or `{items: […]}`, of which each is answered by itself.
pub async fn submit(State(service): State<Service>, call: Call) -> RestResult<Response> {
    let (mut request, ignored) = call.body_noting::<SubmitRequest>()?;
    request.boundary = request.boundary.or_else(|| call.boundary());
    for (index, item) in request.items.iter_mut().flatten().enumerate() {
        let old = || call.item_classification(index);
        item.boundary = item.boundary.take().or_else(old);
    }
    let project = call.project_or(service.default_project());
    let submitted = service.submit(project, request, ignored).await?;
    Ok(call.answer(created(Json(submitted))))
}

/// `GET /api/work/{id}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<WorkItem>> {
    Ok(Json(service.get_work(call.project(), &call.id).await?))
}

/// `GET /api/work/{id}/explain`
pub async fn explain(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<ExplainAnswer>> {
    Ok(Json(service.explain(call.project(), &call.id).await?))
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
    let item = service.cancel(call.project(), request).await?;
    Ok(Json(CancelAnswer {
        success: true,
        message: format!("work item {} is cancelled", item.id),
        work_item_id: item.id.to_string(),
    }))
}

/// `POST /api/work/cancel-batch`
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CancelBatch {
    #[serde(alias = "workItemIds", alias = "workIds")]
    ids: Vec<String>,
    reason: Option<String>,
    by: Option<String>,
}

/// Cancels several items; answers for each by itself.
pub async fn cancel_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<BatchResult>> {
    let batch: CancelBatch = call.body()?;
    check_batch("ids", &batch.ids)?;
    let by = batch.by.unwrap_or_else(|| BY_REST.into());
    let result = run_batch(batch.ids, |id| {
        let request = CancelRequest {
            id,
            reason: batch.reason.clone(),
            by: Some(by.clone()),
        };
        let (service, project) = (&service, call.project());
        async move { service.cancel(project, request).await.map(|_| ()) }
    })
    .await;
    Ok(Json(result))
}

/// Refuses a batch of nothing, and one of too many.
pub(super) fn check_batch(field: &str, ids: &[String]) -> RestResult<()> {
    if ids.is_empty() {
        let message = format!("{field} is missing or empty; write {{\"{field}\": [\"…\"]}}");
        return Err(RestError::invalid(message));
    }
    if ids.len() > limits::ITEMS {
        let message = format!(
            "{field} holds {} ids; at most {} go into one request",
            ids.len(),
            limits::ITEMS
        );
        return Err(WireError::new(ErrorCode::TooLarge, message).into());
    }
    Ok(())
}

/// Does the same with each id, a few at a time, and says how each of them went.
pub(super) async fn run_batch<F>(ids: Vec<String>, each: impl Fn(String) -> F) -> BatchResult
where
    F: Future<Output = Result<(), WireError>>,
{
    let outcomes: Vec<(String, Result<(), WireError>)> = stream::iter(ids)
        .map(|id| {
            let done = each(id.clone());
            async move { (id, done.await) }
        })
        .buffered(BATCH_IN_FLIGHT)
        .collect()
        .await;
    let total_processed = outcomes.len();
    let (mut success, mut failed, mut errors) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (id, outcome) in outcomes {
        match outcome {
            Ok(()) => success.push(id),
            Err(error) => {
                errors.insert(id.clone(), error.message);
                failed.push(id);
            }
        }
    }
    BatchResult {
        count: success.len(),
        success_rate: percentage(success.len(), total_processed),
        success,
        failed,
        errors,
        completed_at: Clock::system().now(),
        total_processed,
    }
}

#[allow(clippy::cast_precision_loss, reason = "no batch has so many members")]
pub(super) fn percentage(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        100.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_answers_for_each_in_order() {
        let ids = vec!["a".to_owned(), "b".into(), "c".into()];
        let result = run_batch(ids, |id| async move {
            match id.as_str() {
                "b" => Err(WireError::invalid("no b")),
                _ => Ok(()),
            }
        })
        .await;
        assert_eq!(result.success, ["a", "c"]);
        assert_eq!(result.failed, ["b"]);
        assert_eq!(result.errors["b"], "no b");
        assert_eq!((result.count, result.total_processed), (2, 3));
        assert!((result.success_rate - 66.6).abs() < 0.1);
    }

    #[test]
    fn a_batch_has_bounds() {
        assert!(check_batch("ids", &[]).is_err());
        assert!(check_batch("ids", &vec!["x".into(); limits::ITEMS]).is_ok());
        assert!(check_batch("ids", &vec!["x".into(); limits::ITEMS + 1]).is_err());
    }
}
