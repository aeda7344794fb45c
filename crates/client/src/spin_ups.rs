//! Targets and starts of agents.

use loom_protocol::target::{
    ListSpinUpsRequest, ListTargetsRequest, OperationRequest, SpinUpOperation, SpinUpRequest,
    TargetAnswer, TargetRequest,
};
use loom_protocol::{SpinUpId, VerbName};

use crate::client::Client;
use crate::error::ClientError;
use crate::verbs::Page;

impl Client {
    /// A target, by its id, its name in whatever case, or an unambiguous beginning of its id.
    pub async fn target(&self, target: impl Into<String>) -> Result<TargetAnswer, ClientError> {
        let target = target.into();
        self.request(VerbName::TargetsGet, &TargetRequest { target })
            .await
    }

    /// Targets that match, in the order in which they were registered.
    pub async fn targets(
        &self,
        filter: &ListTargetsRequest,
    ) -> Result<Page<TargetAnswer>, ClientError> {
        self.page(VerbName::TargetsList, filter).await
    }

    /// Starts an agent at a target now. It is answered when the start is decided;
    /// [`spin_up_status`](Self::spin_up_status) tells what becomes of it.
    ///
    /// It is asked for once: a second request would start a second agent. After an error of a transient kind the start
    /// may have begun all the same; [`spin_ups`](Self::spin_ups) tells it.
    ///
    /// # Errors
    /// The code `terminal-state` with the `rule` in its details if the target may start none now.
    pub async fn spin_up(&self, request: &SpinUpRequest) -> Result<SpinUpOperation, ClientError> {
        let payload = self.encode(request)?;
        let verb = VerbName::SpinUpTrigger.as_str();
        let message = self
            .call_once(verb, payload, self.options().request_timeout)
            .await?;
        self.decode(&message)
    }

    /// One start of an agent. Its end is told for as long as `targets.keep_operations` says.
    pub async fn spin_up_status(&self, id: SpinUpId) -> Result<SpinUpOperation, ClientError> {
        let request = OperationRequest {
            operation_id: id.to_string(),
        };
        self.request(VerbName::SpinUpStatus, &request).await
    }

    /// Starts that match, the latest first.
    pub async fn spin_ups(
        &self,
        filter: &ListSpinUpsRequest,
    ) -> Result<Page<SpinUpOperation>, ClientError> {
        self.page(VerbName::SpinUpList, filter).await
    }
}
