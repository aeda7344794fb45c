//! Agents kept from work and let in again; what the reaper does.

use loom_protocol::agent::Agent;
use loom_protocol::gc::{GcReport, GcRequest};
use loom_protocol::{ProjectId, WireError};

use super::Service;

impl Service {
    /// Lets an agent take work again that was paused or quarantined.
    pub async fn resume_agent(
        &self,
        project: Option<&ProjectId>,
        guid: &str,
    ) -> Result<Agent, WireError> {
        let (project, guid) = self.find_agent(project, guid)?;
        project.registry.release_from_quarantine(guid).await
    }

    /// What the reaper of a project will do, if nothing changes.
    pub async fn gc_report(&self, project: &ProjectId) -> Result<GcReport, WireError> {
        match self.active(project)? {
            Some(project) => project.reaper.preview().await,
            None => Ok(self.nothing_in(project, true)),
        }
    }

    /// Has the reaper of a project look at everybody now; what it did, or would do.
    pub async fn gc_run(
        &self,
        project: &ProjectId,
        request: &GcRequest,
    ) -> Result<GcReport, WireError> {
        if request.dry_run {
            return self.gc_report(project).await;
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
