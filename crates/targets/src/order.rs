//! What is to be started.

use loom_process::secrets::Secrets;
use loom_protocol::target::{BirthTicket, Placeholder, SecretMap};
use loom_protocol::token::write_list;
use loom_protocol::{ProjectId, SpinUpId, TargetId, Timestamp, WorkId};

/// The variable by which a process is found again.
pub(crate) const MARK: &str = "LOOM_SPIN_UP_ID";

/// One agent to be started.
#[derive(Debug, Clone)]
pub struct StartOrder {
    /// Which start it is. The same id again is the same start.
    pub spin_up: SpinUpId,
    /// The target.
    pub target_id: TargetId,
    /// Its name.
    pub target_name: String,
    /// The type of the agent.
    pub agent_type: String,
    /// Its project.
    pub project: ProjectId,
    /// What it is to offer.
    pub capabilities: Vec<String>,
    /// The boundaries that it is to be in.
    pub boundaries: Vec<String>,
    /// The capability that is needed, where it is started for one.
    pub capability: Option<String>,
    /// The boundary that is needed, where it is started for one.
    pub boundary: Option<String>,
    /// The item that asked for it.
    pub work_item: Option<WorkId>,
    /// Where it finds NATS. Without credentials.
    pub nats_url: String,
    /// What it registers with.
    pub ticket: BirthTicket,
    /// When it was ordered.
    pub ordered_at: Timestamp,
}

impl StartOrder {
    /// The variables that the agent finds.
    pub fn variables(&self) -> Vec<(String, String)> {
        let target = self.target_id.to_string();
        let project = self.project.to_string();
        let both = [
            ("TARGET_ID", target),
            ("TARGET_NAME", self.target_name.clone()),
            ("AGENT_TYPE", self.agent_type.clone()),
            ("PROJECT_ID", project),
        ];
        let mut variables: Vec<(String, String)> = both
            .into_iter()
            .flat_map(|(name, value)| {
                ["LOOM", "LOOMINAL"].map(|prefix| (format!("{prefix}_{name}"), value.clone()))
            })
            .collect();
        let ours = [
            ("LOOM_NATS_URL", Some(self.nats_url.clone())),
            ("LOOM_CAPABILITIES", Some(write_list(&self.capabilities))),
            ("LOOM_BOUNDARIES", Some(write_list(&self.boundaries))),
            (MARK, Some(self.spin_up.to_string())),
            ("LOOM_TICKET", Some(self.ticket.expose().to_owned())),
            ("LOOM_WORK_ITEM_ID", self.work_item.map(|id| id.to_string())),
        ];
        let ours = ours
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        variables.extend(ours);
        variables
    }

    /// What a placeholder of a template stands for.
    pub(crate) fn value_of(&self, placeholder: Placeholder) -> String {
        match placeholder {
            Placeholder::TargetId => self.target_id.to_string(),
            Placeholder::TargetName => self.target_name.clone(),
            Placeholder::AgentType => self.agent_type.clone(),
            Placeholder::Timestamp => self.ordered_at.to_string(),
            Placeholder::ProjectId => self.project.to_string(),
            Placeholder::WorkItemId => self.work_item.map(|id| id.to_string()).unwrap_or_default(),
            Placeholder::Capability => self.capability.clone().unwrap_or_default(),
            Placeholder::Boundary => self.boundary.clone().unwrap_or_default(),
            Placeholder::SpinUpId => self.spin_up.to_string(),
            Placeholder::Ticket => self.ticket.expose().to_owned(),
            Placeholder::NatsUrl => self.nats_url.clone(),
        }
    }

    /// What must not be in any output: the ticket, and what is secret in the target.
    pub(crate) fn secrets(&self, of_target: &SecretMap) -> Secrets {
        let ticket = self.ticket.expose().to_owned();
        Secrets::new(std::iter::once(ticket).chain(values(of_target)))
    }
}

/// The values that are secret in a target.
pub(crate) fn values(of_target: &SecretMap) -> impl Iterator<Item = String> {
    of_target.expose().map(|(_, value)| value.to_owned())
}
