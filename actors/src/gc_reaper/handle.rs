//! How everybody else talks to the reaper.

use std::time::Duration;

use loom_protocol::gc::GcReport;
use loom_protocol::{AgentGuid, WireError};

use super::actor::GcReaperMsg;
use ractor::RpcReplyPort;

use crate::supervision::ActorHandle;
use crate::unavailable::not_reached;

/// How long an answer may take: less than the 3 s in which a request must be answered.
const WITHIN: Duration = Duration::from_millis(2800);

/// The handle of a project's GcReaper. Cheap to clone.
///
/// ```no_run
/// use loom_actors::gc_reaper::GcReaperHandle;
/// use loom_actors::project::Project;
/// use loom_protocol::WireError;
///
/// async fn who_is_to_go(project: &Project) -> Result<(), WireError> {
///     let reaper: &GcReaperHandle = &project.reaper;
///     let report = reaper.preview().await?;
///     println!("{} of {} agents", report.agents.len(), report.examined);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct GcReaperHandle(ActorHandle<GcReaperMsg>);

impl GcReaperHandle {
    /// Wraps the actor's handle.
    pub const fn new(actor: ActorHandle<GcReaperMsg>) -> Self {
        Self(actor)
    }

    /// The actor's handle, for supervision and fault injection.
    pub const fn actor(&self) -> &ActorHandle<GcReaperMsg> {
        &self.0
    }

    /// A request named an agent that is not registered: where it has a grave, it is told.
    pub fn unregistered_agent_heard(&self, guid: AgentGuid) {
        let _ = self.0.cast(GcReaperMsg::UnregisteredAgentHeard(guid));
    }

    /// What the reaper will do, if nothing changes.
    pub async fn preview(&self) -> Result<GcReport, WireError> {
        self.ask(GcReaperMsg::Preview).await
    }

    /// Has everybody looked at now; what was done. `unavailable` where that takes too long: it goes
    /// on all the same.
    pub async fn sweep(&self) -> Result<GcReport, WireError> {
        self.ask(GcReaperMsg::Sweep).await
    }

    async fn ask(
        &self,
        make: impl Fn(RpcReplyPort<GcReport>) -> GcReaperMsg + Send + Sync,
    ) -> Result<GcReport, WireError> {
        let answer = self.0.call(WITHIN, make).await;
        answer.map_err(|error| not_reached(&error))
    }
}
