//! Taking work in.

use std::sync::Arc;
use std::time::Duration;

use loom_actors::domain::room::Room;
use loom_actors::domain::work::{Defaults, Submission, accept};
use loom_actors::work_ledger::{Applied, Operation};
use loom_protocol::work::{SubmitAnswer, SubmitRequest, Submitted, limits};
use loom_protocol::{ErrorCode, ProjectId, Timestamp, WireError};

use super::Service;
use super::forecast::Forecasts;
use super::ignored::{Fields, Ignored};
use crate::access::Allowed;

impl Service {
    /// Takes one item in, or several. `ignored`: the unknown fields, noted by the door.
    ///
    /// The answer is given when the items are durable. The same `id` again changes nothing and is
    /// answered in the same way, with `existing`.
    pub async fn submit(
        &self,
        caller: &Allowed,
        mut request: SubmitRequest,
        mut ignored: Ignored,
    ) -> Result<Submitted, WireError> {
        let project = self.project_of(caller);
        self.has_room_for_work()?;
        let Some(items) = request.items.take() else {
            let mut answers = self
                .submit_all(project, vec![(request, ignored.into_own())])
                .await?;
            let answer = answers.pop().unwrap_or_else(|| Err(lost()))?;
            return Ok(Submitted::One(answer));
        };
        if items.len() > limits::ITEMS {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!(
                    "items has {} entries; at most {} are allowed",
                    items.len(),
                    limits::ITEMS
                ),
            ));
        }
        let strict = request.strict;
        check_ignored(strict, ignored.own())?;
        let items = items
            .into_iter()
            .enumerate()
            .map(|(place, mut item)| {
                item.strict |= strict;
                (item, ignored.take_of_item(place))
            })
            .collect();
        let answers = self.submit_all(project, items).await?;
        Ok(Submitted::Many {
            items: answers
                .into_iter()
                .map(|answer| answer.map_err(|error| self.explained(error)).into())
                .collect(),
        })
    }

    async fn submit_all(
        &self,
        project: &ProjectId,
        requests: Vec<(SubmitRequest, Fields)>,
    ) -> Result<Vec<Result<SubmitAnswer, WireError>>, WireError> {
        let defaults = Defaults {
            max_attempts: self.projects().terms().work.max_attempts,
        };
        let (now, room) = (
            self.now(),
            Room::of(self.projects().terms().nats.max_payload()),
        );
        let mut answers = Vec::with_capacity(requests.len());
        let mut operations = Vec::with_capacity(requests.len());
        for (request, ignored) in requests {
            let accepted = check_fields(&request, &ignored)
                .and_then(|()| accept(request, defaults, "client", now))
                .and_then(|submission| {
                    // What is there already is answered as it was the first time.
                    if !self.is_known(project, &submission) {
                        submission.check_deadline(now)?;
                        room.check(&submission.record, project)?;
                    }
                    Ok(submission)
                });
            answers.push(accepted.map(|submission| {
                operations.push(Operation::Create(Arc::new(submission.record)));
                ignored
            }));
        }
        if operations.is_empty() {
            return Ok(answers
                .into_iter()
                .map(|answer| answer.and_then(|_| Err(lost())))
                .collect());
        }
        let project = self.activate(project).await?;
        let outcomes = project.ledger.carry_out(operations).await?;
        let mut forecasts = Forecasts::new(&project, self.now());
        let mut outcomes = outcomes.iter();
        Ok(answers
            .into_iter()
            .map(|answer| {
                let ignored = answer?;
                let applied = outcomes.next().ok_or_else(lost)?;
                let applied = applied.as_ref().map_err(Clone::clone)?;
                Ok(answer_of(applied, &mut forecasts, ignored))
            })
            .collect())
    }
}

impl Service {
    fn is_known(&self, project: &ProjectId, submission: &Submission) -> bool {
        // Of one that is made here nobody can know.
        submission.id_was_given && {
            let project = self.projects().get(project);
            let id = submission.record.id;
            project.is_some_and(|project| project.work.is_known(id))
        }
    }
}

fn answer_of<'a>(
    applied: &'a Applied,
    forecasts: &mut Forecasts<'a>,
    ignored: Fields,
) -> SubmitAnswer {
    let record = &applied.record;
    let forecast = forecasts.of(record);
    // Rounded up: less than a second is not nothing.
    let seconds = |wait: Duration| wait.as_millis().div_ceil(1_000).try_into();
    SubmitAnswer {
        id: record.id,
        work_item_id: record.id,
        task_id: record.task_id.clone(),
        target_agent_type: forecast.agent_type,
        spin_up_triggered: forecast.is_started_for,
        estimated_wait_seconds: forecast.wait.map(|wait| seconds(wait).unwrap_or(u64::MAX)),
        existing: applied.before.is_some(),
        ignored: ignored.named,
        ignored_more: ignored.more,
    }
}

/// Checks a submission by every rule that needs neither a project nor the settings, as a sender
/// may do before it sends.
///
/// # Errors
/// What the coordinator would refuse it with.
pub fn check_submission(
    request: SubmitRequest,
    ignored: &Ignored,
    now: Timestamp,
) -> Result<(), WireError> {
    check_fields(&request, ignored.own())?;
    accept(request, Defaults { max_attempts: 1 }, "client", now).map(drop)
}

fn lost() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "the answer to a submission was lost in the coordinator; please report this",
    )
}

fn check_fields(request: &SubmitRequest, ignored: &Fields) -> Result<(), WireError> {
    if request.items.is_some() {
        return Err(WireError::invalid(
            "items stands inside items; write one list",
        ));
    }
    check_ignored(request.strict, ignored)
}

fn check_ignored(strict: bool, ignored: &Fields) -> Result<(), WireError> {
    if let Some(field) = ignored.reserved {
        return Err(WireError::invalid(format!(
            "{field} is reserved and does not work yet; leave it out"
        )));
    }
    if strict && !ignored.named.is_empty() {
        return Err(WireError::invalid(format!(
            "unknown fields: {}; leave them out, or leave strict out to have them ignored",
            ignored.listed()
        )));
    }
    Ok(())
}
