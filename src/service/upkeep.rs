//! Agents kept from work and let in again; what the reaper does.

use loom_protocol::agent::Agent;
use loom_protocol::gc::{GcReport, GcRequest};
use loom_protocol::{ProjectId, WireError};

use super::Service;
use crate::access::Allowed;

impl Service {
    /// Lets an agent take work again that was paused or quarantined.
    pub async fn resume_agent(&self, caller: &Allowed, guid: &str) -> Result<Agent, WireError> {
        let project = caller.project();
        let (project, guid) = self.find_agent(project, guid)?;
        project.registry.release_from_quarantine(guid).await
    }

    /// What the reaper of a project will do, if nothing changes.
    pub async fn gc_report(&self, caller: &Allowed) -> Result<GcReport, WireError> {
        let project = self.project_of(caller);
        match self.active(project)? {
            Some(project) => project.reaper.preview().await,
            None => Ok(self.nothing_in(project, true)),
        }
    }

    /// Has the reaper of a project look at everybody now; what it did, or would do.
    pub async fn gc_run(
        &self,
        caller: &Allowed,
        request: &GcRequest,
    ) -> Result<GcReport, WireError> {
        let project = self.project_of(caller);
        if request.dry_run {
            return self.gc_report(caller).await;
        }
        match self.active(project)? {
            Some(project) => project.reaper.sweep().await,
            None => Ok(self.nothing_in(project, false)),
        }
    }

    fn nothing_in(&self, project: &ProjectId, dry_run: bool) -> GcReport {
        GcReport {
            project_id: project.to_string(),
            dry_run,
            timestamp: self.now(),
            examined: 0,
            agents: Vec::new(),
            graves: 0,
        }
    }
}
