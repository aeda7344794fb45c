//! Published reports: what each asks of the ledger.

use std::sync::Arc;

use loom_protocol::work::{CompletedReport, ErrorReport, Reason, Usage};
use loom_protocol::{AgentGuid, Encoding, Timestamp, WireError};

use super::{Asked, Intake, poison};
use crate::agent_registry::ReportOrigin;
use crate::domain::retry::Backoff;
use crate::domain::work::{self, Command, Fence};
use crate::work_ledger::Operation;

impl Intake {
    /// What a report comes to because of the run that it is from; `None`: it counts, and is a sign of life.
    fn unless_registered(
        &self,
        guid: AgentGuid,
        run: Option<&str>,
        published: Timestamp,
    ) -> Option<Asked> {
        match self.agents.report_origin(guid, run, published) {
            ReportOrigin::Registered => {
                self.agents.touch(guid, self.clock.now());
                None
            }
            ReportOrigin::Replaced => {
                self.ignored(guid, "was replaced");
                Some(Asked::Nothing)
            }
            ReportOrigin::Unknown => Some(Asked::Unclear(guid)),
        }
    }

    pub(super) fn completed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Asked, (Reason, WireError)> {
        let report: CompletedReport = encoding.decode_request(payload).map_err(poison)?;
        let run = report.instance_id.as_deref();
        if let Some(asked) = self.unless_registered(report.agent_guid, run, reported_at) {
            return Ok(asked);
        }
        let by = Fence {
            guid: report.agent_guid,
            attempt: report.attempt,
            reported_at,
        };
        let result = work::accept_result(report.result.unwrap_or_default(), reported_at)
            .map_err(|error| (Reason::Rejected, error))?;
        // Nobody could be told to write another cost; the end counts without it.
        let usage = report.usage.filter(Usage::is_sound);
        let command = Command::Complete { by, result, usage };
        Ok(Asked::of(Operation::Apply(
            report.work_item_id,
            Arc::new(command),
        )))
    }

    pub(super) fn failed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Asked, (Reason, WireError)> {
        let report: ErrorReport = encoding.decode_request(payload).map_err(poison)?;
        let run = report.instance_id.as_deref();
        if let Some(asked) = self.unless_registered(report.agent_guid, run, reported_at) {
            return Ok(asked);
        }
        let by = Fence {
            guid: report.agent_guid,
            attempt: report.attempt,
            reported_at,
        };
        // Nobody could be told that the others are not an agent's to give.
        let reason = report.reason.filter(|r| Reason::OF_FAILURE.contains(r));
        let failure = work::accept_failure(report.error, reason, self.backoff(), reported_at);
        let command = Command::Fail { by, failure };
        Ok(Asked::of(Operation::Apply(
            report.work_item_id,
            Arc::new(command),
        )))
    }

    fn backoff(&self) -> Backoff {
        self.retry.backoff(self.jitter.next())
    }
}
