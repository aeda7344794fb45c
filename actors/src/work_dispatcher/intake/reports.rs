//! Published reports: what each asks of the ledger.

use std::sync::Arc;

use loom_protocol::work::{CompletedReport, ErrorReport, Reason};
use loom_protocol::{AgentGuid, Encoding, Timestamp, WireError};

use super::{Asked, Intake, poison};
use crate::agent_registry::ReportOrigin;
use crate::domain::retry::Backoff;
use crate::domain::work::{self, Command, Fence, RunReport};
use crate::work_ledger::Operation;

impl Intake {
    /// Which lease a report is about: it counts, and is a sign of life. Otherwise what it comes to because of the run
    /// that it is from.
    fn fence(
        &self,
        guid: AgentGuid,
        run: Option<&str>,
        attempt: Option<u32>,
        reported_at: Timestamp,
    ) -> Result<Fence, Asked> {
        match self.agents.report_origin(guid, run, reported_at) {
            ReportOrigin::Registered => {
                self.agents.touch(guid, self.clock.now());
                Ok(Fence {
                    guid,
                    attempt,
                    reported_at,
                })
            }
            ReportOrigin::Replaced => {
                self.ignored(guid, "was replaced");
                Err(Asked::Nothing)
            }
            ReportOrigin::Unknown => Err(Asked::Unclear(guid)),
        }
    }

    pub(super) fn completed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Asked, (Reason, WireError)> {
        let report: CompletedReport = encoding.decode_request(payload).map_err(poison)?;
        let (id, run) = (report.work_item_id, report.instance_id.as_deref());
        let by = match self.fence(report.agent_guid, run, report.attempt, reported_at) {
            Ok(by) => by,
            Err(asked) => return Ok(asked),
        };
        let result = work::accept_result(report.result.unwrap_or_default(), reported_at)
            .map_err(|error| (Reason::Rejected, error))?;
        let report = RunReport::accept_published(
            by.guid,
            report.usage,
            report.session,
            report.evidence,
            reported_at,
        );
        let command = Command::Complete { by, result, report };
        Ok(Asked::of(Operation::Apply(id, Arc::new(command))))
    }

    pub(super) fn failed(
        &self,
        encoding: Encoding,
        payload: &[u8],
        reported_at: Timestamp,
    ) -> Result<Asked, (Reason, WireError)> {
        let report: ErrorReport = encoding.decode_request(payload).map_err(poison)?;
        let (id, run) = (report.work_item_id, report.instance_id.as_deref());
        let by = match self.fence(report.agent_guid, run, report.attempt, reported_at) {
            Ok(by) => by,
            Err(asked) => return Ok(asked),
        };
        // Nobody could be told that the others are not an agent's to give.
        let reason = report.reason.filter(|r| Reason::OF_FAILURE.contains(r));
        let failure = work::accept_failure(report.error, reason, self.backoff(), reported_at);
        let report = RunReport::accept_published(
            by.guid,
            report.usage,
            report.session,
            report.evidence,
            reported_at,
        );
        let command = Command::Fail {
            by,
            failure,
            report,
        };
        Ok(Asked::of(Operation::Apply(id, Arc::new(command))))
    }

    fn backoff(&self) -> Backoff {
        self.retry.backoff(self.jitter.next())
    }
}
