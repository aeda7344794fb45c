//! `/api/dlq`

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use loom_actors::clock::Clock;
use loom_protocol::batch::RetryBatchRequest;
use loom_protocol::dead_letter::{DeadLetter, ListDeadLettersRequest, RetryAnswer, RetryRequest};
use loom_protocol::rest::{BatchResult, DeadLettersPage};
use loom_protocol::work::Reason;
use loom_protocol::{AtMost, WorkId};
use serde::Serialize;

use super::batch::{check_batch, percentage, run_batch};
use super::call::Call;
use super::error::{RestError, RestResult};
use crate::service::Service;

/// `GET /api/dlq`: of one project.
pub async fn list(State(service): State<Service>, call: Call) -> RestResult<Json<DeadLettersPage>> {
    let reason = call.one_of("reason", &Reason::ALL, Reason::as_str)?;
    let request = ListDeadLettersRequest {
        capability: call.text("capability"),
        reason: reason.map(|reason| reason.as_str().to_owned()),
        limit: call.number("limit")?,
        cursor: call.text("cursor"),
        order: call.order()?,
        since: call.time("since")?,
    };
    let listed = service.in_turn(
        call.caller(),
        service.list_dead_letters(call.caller(), request),
    );
    let page = listed.await?;
    Ok(Json(DeadLettersPage {
        items: page.items,
        page: page.info,
    }))
}

/// `GET /api/dlq/{id}`
pub async fn show(State(service): State<Service>, call: Call) -> RestResult<Json<DeadLetter>> {
    let letter = service.get_dead_letter(call.caller(), &call.id).await?;
    Ok(Json(letter))
}

/// The answer to a retry, and to a discard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    success: bool,
    message: String,
    work_item_id: WorkId,
}

const WHICH: &str =
    "say which dead letters: either ids, or capability and reason, or all: true, not both";

/// What a batch asks of one letter, or of those that match.
fn request(batch: &RetryBatchRequest, id: Option<String>) -> RetryRequest {
    RetryRequest {
        capability: batch.capability.clone(),
        reason: batch.reason.clone(),
        all: batch.all,
        ids: AtMost::default(),
        reset_attempts: batch.reset_attempts.unwrap_or(true),
        id,
    }
}

/// `POST /api/dlq/{id}/retry`
pub async fn retry(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let body: RetryBatchRequest = call.body()?;
    let request = request(&body, Some(call.id.clone()));
    let answer = service.retry_dead_letters(call.caller(), request).await?;
    let id = answer.ids.first().copied();
    let id = id.ok_or_else(|| RestError::invalid("nothing was put back"))?;
    Ok(Json(Settled {
        success: true,
        message: format!("work item {id} is back in the queue"),
        work_item_id: id,
    }))
}

/// `POST /api/dlq/retry-batch`: by their ids, by a filter, or all; answers for each by itself.
pub async fn retry_batch(
    State(service): State<Service>,
    call: Call,
) -> RestResult<Json<BatchResult>> {
    let batch: RetryBatchRequest = call.strict_body(&[])?;
    let is_filtered = batch.all || batch.capability.is_some() || batch.reason.is_some();
    if is_filtered && !batch.ids.0.is_empty() {
        return Err(RestError::invalid(WHICH));
    }
    if is_filtered {
        let answer = service
            .retry_dead_letters(call.caller(), request(&batch, None))
            .await?;
        return Ok(Json(batch_of(answer)));
    }
    check_batch("ids", &batch.ids.0)?;
    let result = run_batch(batch.ids.0.clone(), |id| {
        let (service, request) = (&service, request(&batch, Some(id)));
        let caller = call.caller();
        async move { service.retry_dead_letters(caller, request).await.map(drop) }
    })
    .await;
    Ok(Json(result))
}

/// The ids and errors are those that the answer names; the numbers count all.
fn batch_of(answer: RetryAnswer) -> BatchResult {
    let total = answer.retried + answer.failed;
    BatchResult {
        success: answer.ids.iter().map(WorkId::to_string).collect(),
        failed: answer.errors.keys().map(WorkId::to_string).collect(),
        count: answer.retried,
        errors: answer
            .errors
            .into_iter()
            .map(|(id, error)| (id.to_string(), error))
            .collect(),
        completed_at: Clock::system().now(),
        total_processed: total,
        success_rate: percentage(answer.retried, total),
    }
}

/// `DELETE /api/dlq/{id}`
pub async fn discard(State(service): State<Service>, call: Call) -> RestResult<impl IntoResponse> {
    let answer = service.discard_dead_letter(call.caller(), &call.id).await?;
    Ok(Json(Settled {
        success: true,
        message: format!("the dead letter {} is discarded", answer.id),
        work_item_id: answer.id,
    }))
}
