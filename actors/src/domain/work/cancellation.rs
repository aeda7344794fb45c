//! The verbs of an item that is called off: somebody says so, its agent hears of it, and stops.

use loom_protocol::Timestamp;
use loom_protocol::work::{CancelInfo, Reason, WorkResult, WorkStatus};

use super::command::{Decision, Fence, Refusal};
use super::record::{LeaseEnd, WorkRecord};
use super::run_report::RunReport;

impl WorkRecord {
    /// Pending, Assigned or InProgress → Cancelled: somebody calls it off.
    pub(super) fn cancel(
        &self,
        by: &str,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.status.is_terminal() {
            return Err(Refusal::Ended {
                id: self.id,
                status: self.status,
            });
        }
        Ok(self.write(now, |next| {
            next.cancel = Some(CancelInfo {
                requested_at: now,
                by: by.into(),
                reason: reason.map(Into::into),
                delivered_at: None,
                stopped_at: None,
            });
            if next.status.is_leased() {
                next.end_lease(LeaseEnd::Revoked);
            }
            next.status = WorkStatus::Cancelled;
            next.loss = None;
            next.pending_reason = None;
        }))
    }

    /// Whether this is what called it off.
    pub(super) fn is_cancelled_so(&self, by: &str, reason: Option<&str>) -> bool {
        let is_it = |cancel: &CancelInfo| cancel.by == by && cancel.reason.as_deref() == reason;
        self.status == WorkStatus::Cancelled && self.cancel.as_ref().is_some_and(is_it)
    }

    /// Cancelled stays Cancelled: its agent was reached. Only the first time counts.
    pub(super) fn cancel_delivered(&self, by: &Fence, now: Timestamp) -> Decision {
        let mut next = self.clone();
        if let Some(cancel) = &mut next.cancel
            && self.is_repeat(by, LeaseEnd::Revoked)
        {
            cancel.delivered_at.get_or_insert(now);
        }
        self.unless_same(next, now)
    }

    /// Cancelled stays Cancelled: the agent has obeyed. With an order because of a deadline:
    /// Assigned or InProgress → Failed. What there was by then is kept, whenever it comes.
    pub(super) fn stopped(
        &self,
        by: &Fence,
        result: Option<&WorkResult>,
        report: &RunReport,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        if self.check_lease(by).is_ok() {
            let is_late = self.deadline.is_some_and(|deadline| deadline <= now);
            if !is_late {
                let (id, guid, attempt) = (self.id, by.guid, self.attempt);
                return Err(Refusal::NotCalledOff { id, guid, attempt });
            }
            let mut failed = self.miss_deadline(self.attempt, now)?;
            if let Decision::Write(next) = &mut failed {
                next.result = result.cloned();
                next.note_run(report);
            }
            return Ok(failed);
        }
        if !self.is_repeat(by, LeaseEnd::Revoked) {
            return Err(self.stale(by));
        }
        let mut next = self.clone();
        if let Some(cancel) = &mut next.cancel {
            cancel.delivered_at.get_or_insert(now);
            cancel.stopped_at.get_or_insert(now);
        }
        if self.is_called_off() && next.result.is_none() {
            next.result = result.cloned();
        }
        // Of an item that has ended otherwise nothing is written any more: its letter is of that write.
        if self.status == WorkStatus::Cancelled {
            next.note_run(report);
        }
        Ok(self.unless_same(next, now))
    }

    /// Whether it has ended because somebody, or its deadline, said so.
    fn is_called_off(&self) -> bool {
        match self.status {
            WorkStatus::Cancelled => true,
            WorkStatus::Failed => self.failure_reason() == Reason::Deadline,
            _ => false,
        }
    }

    fn unless_same(&self, mut next: Self, now: Timestamp) -> Decision {
        if next == *self {
            return Decision::Already;
        }
        next.updated_at = now;
        Decision::Write(Box::new(next))
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::transition::tests::{
        assign, at, by, complete, fresh, guid, result, stop, then,
    };
    use super::*;

    #[test]
    fn nobody_stops_what_was_not_called_off() {
        let held = then(&fresh(3), assign(1));
        let refused = stop(None).decide(&held, at(10));
        assert!(
            matches!(refused, Err(Refusal::NotCalledOff { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_cancelled_item_refuses_its_agent_and_notes_that_it_stopped() {
        let cancel = Command::Cancel {
            by: "me".into(),
            reason: None,
            again: false,
        };
        let record = then(&then(&fresh(3), assign(1)), cancel.clone());
        assert_eq!(record.status, WorkStatus::Cancelled);
        assert!(matches!(
            cancel.decide(&record, at(20)),
            Err(Refusal::Ended { .. })
        ));
        let repeated = cancel.once_more().decide(&record, at(20));
        assert_eq!(repeated, Ok(Decision::Already));
        let another = Command::Cancel {
            by: "you".into(),
            reason: None,
            again: true,
        };
        assert!(another.decide(&record, at(20)).is_err());
        assert!(matches!(
            complete(1, 1).decide(&record, at(20)),
            Err(Refusal::Stale { .. })
        ));
        let reached = |agent, attempt| Command::CancelDelivered(by(agent, attempt));
        for another in [reached(2, 1), reached(1, 2)] {
            assert_eq!(another.decide(&record, at(20)), Ok(Decision::Already));
        }
        let told = then(&record, reached(1, 1));
        let again = reached(1, 1).decide(&told, at(30));
        assert_eq!(again, Ok(Decision::Already), "the first time counts");
        let stopped = then(&told, stop(None));
        assert_eq!(stopped.cancel.unwrap().stopped_at, Some(at(10)));
        let silent = then(&record, stop(None)).cancel.unwrap();
        assert!(silent.delivered_at.is_some(), "who has stopped was reached");
    }

    #[test]
    fn what_a_stopped_agent_had_by_then_is_kept_once() {
        let cancel = Command::Cancel {
            by: "me".into(),
            reason: None,
            again: false,
        };
        let cancelled = then(&then(&fresh(3), assign(1)), cancel);
        // Its heartbeat said first that it has stopped, without a result.
        let stopped = then(&then(&cancelled, stop(None)), stop(Some(result())));
        assert_eq!(stopped.result, Some(result()));
        let other = WorkResult {
            summary: Some("another".into()),
            ..result()
        };
        let again = stop(Some(other)).decide(&stopped, at(30));
        assert_eq!(again, Ok(Decision::Already));
        let lost = Command::Revoke {
            guid: guid(1),
            attempt: 1,
            reason: Reason::AgentLost,
            spends_attempt: true,
            backoff: None,
        };
        let given_up = then(&then(&fresh(1), assign(1)), lost);
        let late = stop(Some(result())).decide(&given_up, at(30));
        assert_eq!(late, Ok(Decision::Already), "it was not called off");
    }
}
