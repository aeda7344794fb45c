//! What an agent does with the items that it holds: start, progress, complete, fail, release, stopped.

use std::sync::Arc;
use std::time::Duration;

use loom_actors::domain::lease::{self, LeaseClock};
use loom_actors::domain::work::{
    Bodies, Command, Fence, RunReport, WorkRecord, accept_failure, accept_result,
};
use loom_actors::project::Project;
use loom_actors::work_dispatcher::Admission;
use loom_actors::work_ledger::{Applied, Operation};
use loom_protocol::agent::{Directive, MAX_PAUSE};
use loom_protocol::text::without_middle;
use loom_protocol::work::{
    CompleteAnswer, CompleteItem, CompleteRequest, FailRequest, Lease, LeaseRef, ProgressRequest,
    Reason, ReleaseRequest, StoppedRequest, WorkItem, limits,
};
use loom_protocol::{AgentGuid, ErrorCode, WireError, WorkId};
use tokio::time::Instant;

use super::Service;
use super::claim::claim_order;
use crate::access::Allowed;

/// How long an item may be held back by a failure, in milliseconds: a year.
const LONGEST_RETRY_MS: u64 = 365 * 24 * 3_600_000;

impl Service {
    /// The agent begins with an item.
    pub async fn start(
        &self,
        caller: &Allowed,
        request: ProgressRequest,
    ) -> Result<Lease, WireError> {
        let says_more = request.progress.is_some()
            || request.message.is_some()
            || request.usage.is_some()
            || request.session.is_some();
        if says_more {
            return self.progress(caller, request).await;
        }
        let (guid, run) = (request.guid, request.instance_id.as_deref());
        let project = self.admit(caller, guid, run).await?;
        let lease = lease_ref(request.id, request.attempt);
        let applied = self.report(&project, guid, lease, Command::Start).await?;
        Ok(self.lease_of(&project, &applied.record))
    }

    /// The agent goes on with an item: its progress clock starts anew.
    pub async fn progress(
        &self,
        caller: &Allowed,
        request: ProgressRequest,
    ) -> Result<Lease, WireError> {
        if let Some(progress) = request.progress
            && !(0.0..=100.0).contains(&progress)
        {
            return Err(WireError::invalid(format!(
                "progress is {progress}; write a number from 0 to 100"
            )));
        }
        if request
            .message
            .as_ref()
            .is_some_and(|m| m.len() > limits::ERROR)
        {
            return Err(WireError::new(
                ErrorCode::TooLarge,
                format!("message has more than {} bytes", limits::ERROR),
            ));
        }
        let (guid, run) = (request.guid, request.instance_id.as_deref());
        let (usage, session) = (request.usage, request.session);
        let report = RunReport::accept(guid, usage, session, None, self.now())?;
        let project = self.admit(caller, guid, run).await?;
        let command = |by| Command::Progress {
            by,
            progress: request.progress,
            message: request.message,
            report,
        };
        let lease = lease_ref(request.id, request.attempt);
        let applied = self.report(&project, guid, lease, command).await?;
        Ok(self.lease_of(&project, &applied.record))
    }

    /// The agent has finished one item, or several; then, if asked for, it gets the next.
    /// `admission` is given back before the wait for that.
    pub async fn complete(
        &self,
        caller: &Allowed,
        request: CompleteRequest,
        admission: &Admission,
    ) -> Result<CompleteAnswer, WireError> {
        let guid = request.guid;
        let is_batch = request.items.is_some();
        let items = completed_items(&request)?;
        let run = request.instance_id;
        let next = request
            .then_claim
            .map(|claim| claim_order(guid, run.clone(), claim, admission))
            .transpose()?;
        let project = self.admit(caller, guid, run.as_deref()).await?;
        let mut outcomes = self.complete_all(&project, guid, items).await?;
        if !is_batch {
            let item = outcomes.pop().unwrap_or_else(|| Err(lost_report()))?;
            let claimed = self.then_claim(&project, next).await;
            let item = Box::new(item);
            return Ok(CompleteAnswer::One { item, claimed });
        }
        let claimed = self.then_claim(&project, next).await;
        Ok(CompleteAnswer::Many {
            items: outcomes.into_iter().map(Into::into).collect(),
            claimed,
        })
    }

    async fn complete_all(
        &self,
        project: &Project,
        guid: AgentGuid,
        items: Vec<CompleteItem>,
    ) -> Result<Vec<Result<WorkItem, WireError>>, WireError> {
        let now = self.now();
        let mut operations = Vec::with_capacity(items.len());
        let mut checked = Vec::with_capacity(items.len());
        for item in items {
            let report = RunReport::accept(guid, item.usage, item.session, item.evidence, now);
            let result = report.and_then(|report| {
                Ok((accept_result(item.result.unwrap_or_default(), now)?, report))
            });
            let lease = lease_ref(item.id, item.attempt);
            checked.push(result.map(|(result, report)| {
                let command = Command::Complete {
                    by: self.fence(guid, item.attempt),
                    result,
                    report,
                };
                operations.push(Operation::Apply(item.id, Arc::new(command)));
                lease
            }));
        }
        let mut outcomes = project.ledger.carry_out(operations).await?.into_iter();
        Ok(checked
            .into_iter()
            .map(|checked| {
                let lease = checked?;
                let applied = outcomes.next().ok_or_else(lost_report)?;
                let applied = applied.inspect_err(|error| project.refused(guid, lease, error))?;
                Ok(seen(project, &applied))
            })
            .collect())
    }

    /// The agent has failed: the item is tried again while attempts last.
    pub async fn fail(
        &self,
        caller: &Allowed,
        request: FailRequest,
    ) -> Result<WorkItem, WireError> {
        check_reason(request.reason, &Reason::OF_FAILURE)?;
        if let Some(millis) = request.retry_after_ms
            && millis > LONGEST_RETRY_MS
        {
            return Err(WireError::invalid(format!(
                "retryAfterMs is {millis}; write a whole number from 0 to {LONGEST_RETRY_MS}"
            )));
        }
        let (guid, run) = (request.guid, request.instance_id.as_deref());
        let now = self.now();
        let (usage, session) = (request.usage, request.session);
        let report = RunReport::accept(guid, usage, session, request.evidence, now)?;
        let project = self.admit(caller, guid, run).await?;
        let projects = self.projects();
        let terms = projects.terms();
        let backoff = terms.work.retry.backoff(terms.jitter.next());
        // To ask for another time without having spent this one is to have met a limit.
        let met_a_limit = request.spends_attempt == Some(false) && request.retry_after_ms.is_some();
        let reason = request
            .reason
            .or_else(|| met_a_limit.then_some(Reason::UsageLimit));
        let mut failure = accept_failure(request.error, reason, backoff, now);
        failure.recoverable = request.recoverable.unwrap_or(failure.recoverable);
        failure.spends_attempt = request.spends_attempt.unwrap_or(failure.spends_attempt);
        failure.not_before = request
            .retry_after_ms
            .map(|millis| now.after(Duration::from_millis(millis)));
        let lease = lease_ref(request.id, request.attempt);
        if failure.reason == Reason::UsageLimit {
            let until = failure.not_before;
            project
                .pause_holder(guid, lease, until, &failure.message)
                .await?;
        }
        let command = |by| Command::Fail {
            by,
            failure,
            report,
        };
        let applied = self.report(&project, guid, lease, command).await?;
        Ok(seen(&project, &applied))
    }

    /// The agent gives an item back; it is not offered to the same agent for 30 s.
    pub async fn release(
        &self,
        caller: &Allowed,
        request: ReleaseRequest,
    ) -> Result<WorkItem, WireError> {
        check_reason(request.reason, &Reason::OF_RELEASE)?;
        let (guid, run) = (request.guid, request.instance_id.as_deref());
        let (usage, session) = (request.usage, request.session);
        let report = RunReport::accept(guid, usage, session, None, self.now())?;
        let project = self.admit(caller, guid, run).await?;
        let lease = lease_ref(request.id, request.attempt);
        if let Some(reason) = request.reason.filter(|reason| reason.pauses()) {
            // What a person has to see to does not end by itself.
            let longest = (reason == Reason::Account).then(|| self.now().after(MAX_PAUSE));
            let until = request.pause_until.or(request.not_before).or(longest);
            let reason = reason.to_string();
            project.pause_holder(guid, lease, until, &reason).await?;
        }
        let command = |by| Command::Release {
            by,
            reason: request.reason.unwrap_or(Reason::Released),
            message: request
                .message
                .as_deref()
                .map(str::trim)
                .filter(|message| !message.is_empty())
                .map(|message| without_middle(message, limits::ERROR / 2)),
            not_before: request.not_before,
            report,
        };
        let applied = self.report(&project, guid, lease, command).await?;
        Ok(seen(&project, &applied))
    }

    /// The agent has stopped a cancelled item: its slot is free.
    pub async fn stopped(
        &self,
        caller: &Allowed,
        request: StoppedRequest,
    ) -> Result<WorkItem, WireError> {
        let (guid, run) = (request.guid, request.instance_id.as_deref());
        let project = self.admit(caller, guid, run).await?;
        self.stopped_in(&project, request).await
    }

    /// As [`Service::stopped`], of an agent that was let in already.
    pub(super) async fn stopped_in(
        &self,
        project: &Project,
        request: StoppedRequest,
    ) -> Result<WorkItem, WireError> {
        let (guid, id, attempt) = (request.guid, request.id, request.attempt);
        // What is too large cannot be kept; that the agent has stopped counts all the same.
        let result = request
            .result
            .map(|result| accept_result(result, self.now()));
        // So it does whatever else it says.
        let report = RunReport::accept(guid, request.usage, request.session, None, self.now());
        let (report, unfit) = match report {
            Ok(report) => (report, None),
            Err(error) => (RunReport::default(), Some(error)),
        };
        let (result, too_large) = match result.transpose() {
            Ok(result) => (result, None),
            Err(error) => (None, Some(error)),
        };
        let command = |by| Command::Stopped { by, result, report };
        let lease = lease_ref(id, attempt);
        let reported = self.report(project, guid, lease, command).await;
        project.dispatcher.stopped(guid, id);
        let obeyed = Directive::cancel(lease, None);
        // Whatever the item says: there is nothing left to obey.
        let cleared = project.registry.clear_directive(guid, obeyed).await;
        let applied = reported?;
        cleared?;
        too_large
            .or(unfit)
            .map_or_else(|| Ok(seen(project, &applied)), Err)
    }

    /// What an agent says about an item that it holds.
    async fn report(
        &self,
        project: &Project,
        guid: AgentGuid,
        lease: LeaseRef,
        command: impl FnOnce(Fence) -> Command,
    ) -> Result<Applied, WireError> {
        let command = command(self.fence(guid, lease.attempt));
        let applied = project.ledger.apply(lease.id, command).await;
        let applied = applied.inspect_err(|error| project.refused(guid, lease, error))?;
        Ok(applied)
    }

    fn fence(&self, guid: AgentGuid, attempt: u32) -> Fence {
        Fence {
            guid,
            attempt: Some(attempt),
            reported_at: self.now(),
        }
    }

    /// The lease as it stands: when it ends if the agent says nothing more.
    pub(super) fn lease_of(&self, project: &Project, record: &WorkRecord) -> Lease {
        let limits = self.projects().terms().work.limits();
        let now = Instant::now();
        let own = record.timeout_ms.map(Duration::from_millis);
        let running = project.work.lease_clock(record.id);
        let clock = running
            .filter(|(_, attempt, _)| *attempt == record.attempt)
            .map_or_else(
                || LeaseClock::just_heard(record.started_at.is_some(), own, now),
                |(_, _, clock)| clock,
            );
        let until = lease::deadline(&clock, &limits, project.barrier.grace().since());
        let left = until.saturating_duration_since(now);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Lease {
            attempt: record.attempt,
            expires_at: self.now().after(left),
            expires_in_ms: millis(left),
            timeout_ms: millis(own.unwrap_or(limits.progress)),
        }
    }
}

fn seen(project: &Project, applied: &Applied) -> WorkItem {
    project
        .work
        .view(&applied.record, applied.revision, Bodies::Without)
}

const fn lease_ref(id: WorkId, attempt: u32) -> LeaseRef {
    LeaseRef { id, attempt }
}

/// The other reasons are the coordinator's to say, or for another request: whoever reads them must be able to rely on that.
fn check_reason(said: Option<Reason>, allowed: &[Reason]) -> Result<(), WireError> {
    match said {
        Some(reason) if !allowed.contains(&reason) => {
            let allowed: Vec<&str> = allowed.iter().map(|reason| reason.as_str()).collect();
            Err(WireError::invalid(format!(
                "reason is {reason}, which is not for this request to give; write one of: {}",
                allowed.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

fn lost_report() -> WireError {
    WireError::new(
        ErrorCode::Internal,
        "the answer to a report was lost in the coordinator; repeat it, and please report this",
    )
}

fn completed_items(request: &CompleteRequest) -> Result<Vec<CompleteItem>, WireError> {
    match (&request.items, request.id, request.attempt) {
        (Some(_), Some(_), _) => Err(WireError::invalid(
            "the completion has both id and items; write one of them",
        )),
        (Some(items), None, _) if items.len() > limits::COMPLETIONS => Err(WireError::new(
            ErrorCode::TooLarge,
            format!(
                "items has {} entries; at most {} are allowed in one completion",
                items.len(),
                limits::COMPLETIONS
            ),
        )),
        (Some(items), None, _) => Ok(items.clone()),
        (None, Some(id), Some(attempt)) => Ok(vec![CompleteItem {
            id,
            attempt,
            result: request.result.clone(),
            usage: request.usage.clone(),
            session: request.session.clone(),
            evidence: request.evidence.clone(),
        }]),
        (None, Some(_), None) => Err(WireError::invalid(
            "attempt is missing; it stands in the lease that the claim gave",
        )),
        (None, None, _) => Err(WireError::invalid("id (or items) is missing")),
    }
}
