//! What Loom can do, once: every door (NATS requests, REST) decodes, calls one method here, encodes.

use std::time::Duration;

use loom_protocol::agent::{
    Agent, DeregisterAnswer, HeartbeatAnswer, HeartbeatRequest, ListAgentsRequest, RegisterAnswer,
    RegisterRequest, ShutdownRequest,
};
use loom_protocol::rest::{Info, PageInfo, ProjectsAnswer, Stats};
use loom_protocol::work::{
    CancelRequest, ClaimAnswer, ClaimRequest, CompleteAnswer, CompleteRequest, ExplainAnswer,
    FailRequest, ItemAnswer, Lease, ListWorkRequest, ProgressRequest, PurgeAnswer, PurgeRequest,
    QueueInfo, ReleaseRequest, StoppedRequest, SubmitAnswer, SubmitRequest, WorkItem,
};
use loom_protocol::{ProjectId, WireError};

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where it stands.
    pub info: PageInfo,
}

/// The service layer. Cheap to clone.
#[derive(Clone)]
pub struct Service {}

/// What a submission came to: one answer, or one for each of `items`.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(untagged)]
pub enum Submitted {
    /// To one item.
    One(SubmitAnswer),
    /// To several.
    Many {
        /// One for each, in order.
        items: Vec<ItemAnswer<SubmitAnswer>>,
    },
}

/// Whether the coordinator can serve, and if not, why.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// NATS is reachable.
    pub nats: bool,
    /// This process is the owner.
    pub owner: bool,
    /// Parked projects and their reasons.
    pub parked: std::collections::BTreeMap<String, String>,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

#[allow(unused_variables, clippy::unused_async)]
impl Service {
    pub async fn register(
        &self,
        project: &ProjectId,
        request: RegisterRequest,
    ) -> Result<RegisterAnswer, WireError> {
        todo!()
    }
    pub async fn heartbeat(
        &self,
        project: &ProjectId,
        request: HeartbeatRequest,
    ) -> Result<HeartbeatAnswer, WireError> {
        todo!()
    }
    pub async fn deregister(
        &self,
        project: &ProjectId,
        guid: &str,
    ) -> Result<DeregisterAnswer, WireError> {
        todo!()
    }
    pub async fn list_agents(
        &self,
        project: Option<&ProjectId>,
        request: ListAgentsRequest,
    ) -> Result<Page<Agent>, WireError> {
        todo!()
    }
    /// `project: None` looks in every project; `guid` may be an unambiguous prefix.
    pub async fn get_agent(
        &self,
        project: Option<&ProjectId>,
        guid: &str,
    ) -> Result<Agent, WireError> {
        todo!()
    }
    pub async fn shutdown_agent(
        &self,
        project: Option<&ProjectId>,
        request: ShutdownRequest,
    ) -> Result<Agent, WireError> {
        todo!()
    }

    /// `ignored`: names of unknown fields, noted by the door that decoded the request.
    pub async fn submit(
        &self,
        project: &ProjectId,
        request: SubmitRequest,
        ignored: Vec<String>,
    ) -> Result<Submitted, WireError> {
        todo!()
    }
    pub async fn claim(
        &self,
        project: &ProjectId,
        request: ClaimRequest,
    ) -> Result<ClaimAnswer, WireError> {
        todo!()
    }
    pub async fn start(
        &self,
        project: &ProjectId,
        request: ProgressRequest,
    ) -> Result<Lease, WireError> {
        todo!()
    }
    pub async fn progress(
        &self,
        project: &ProjectId,
        request: ProgressRequest,
    ) -> Result<Lease, WireError> {
        todo!()
    }
    pub async fn complete(
        &self,
        project: &ProjectId,
        request: CompleteRequest,
    ) -> Result<CompleteAnswer, WireError> {
        todo!()
    }
    pub async fn fail(
        &self,
        project: &ProjectId,
        request: FailRequest,
    ) -> Result<WorkItem, WireError> {
        todo!()
    }
    pub async fn release(
        &self,
        project: &ProjectId,
        request: ReleaseRequest,
    ) -> Result<WorkItem, WireError> {
        todo!()
    }
    pub async fn stopped(
        &self,
        project: &ProjectId,
        request: StoppedRequest,
    ) -> Result<WorkItem, WireError> {
        todo!()
    }
    /// `project: None` looks in every project; `id` may be an unambiguous prefix (here and below).
    pub async fn get_work(
        &self,
        project: Option<&ProjectId>,
        id: &str,
    ) -> Result<WorkItem, WireError> {
        todo!()
    }
    pub async fn list_work(
        &self,
        project: &ProjectId,
        request: ListWorkRequest,
    ) -> Result<Page<WorkItem>, WireError> {
        todo!()
    }
    pub async fn cancel(
        &self,
        project: Option<&ProjectId>,
        request: CancelRequest,
    ) -> Result<WorkItem, WireError> {
        todo!()
    }
    pub async fn explain(
        &self,
        project: Option<&ProjectId>,
        id: &str,
    ) -> Result<ExplainAnswer, WireError> {
        todo!()
    }
    pub async fn queue_info(&self, project: &ProjectId) -> Result<QueueInfo, WireError> {
        todo!()
    }
    pub async fn purge(
        &self,
        project: &ProjectId,
        request: PurgeRequest,
    ) -> Result<PurgeAnswer, WireError> {
        todo!()
    }

    /// Of one project, or of all.
    pub async fn stats(&self, project: Option<&ProjectId>) -> Result<Stats, WireError> {
        todo!()
    }
    pub async fn projects(&self) -> Result<ProjectsAnswer, WireError> {
        todo!()
    }
    pub fn info(&self) -> Info {
        todo!()
    }
    pub fn readiness(&self) -> Readiness {
        todo!()
    }
    /// The project that a request without one means.
    pub fn default_project(&self) -> &ProjectId {
        todo!()
    }
    /// How many requests a door may have under way, and how long a refused one should wait.
    pub fn admission(&self) -> (usize, Duration) {
        (1024, Duration::from_millis(100))
    }
}
