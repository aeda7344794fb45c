//! What an agent is found again by. Small, without secrets, to be stored.

use loom_protocol::SpinUpId;
use loom_protocol::target::Mechanism;
use serde::{Deserialize, Serialize};

/// Where a started agent is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "mechanism", rename_all = "kebab-case")]
pub enum Reference {
    /// A process of this machine.
    Local(LocalReference),
    /// A process of another machine.
    Ssh(SshReference),
    /// Somebody was asked to start it.
    Webhook(WebhookReference),
    /// A run of a workflow.
    GithubActions(GithubReference),
    /// A Job of a cluster.
    Kubernetes(KubernetesReference),
}

impl Reference {
    /// The mechanism that it belongs to.
    pub const fn mechanism(&self) -> Mechanism {
        match self {
            Self::Local(_) => Mechanism::Local,
            Self::Ssh(_) => Mechanism::Ssh,
            Self::Webhook(_) => Mechanism::Webhook,
            Self::GithubActions(_) => Mechanism::GithubActions,
            Self::Kubernetes(_) => Mechanism::Kubernetes,
        }
    }

    /// The start that it is of.
    pub const fn spin_up(&self) -> SpinUpId {
        match self {
            Self::Local(LocalReference { spin_up, .. })
            | Self::Ssh(SshReference { spin_up, .. })
            | Self::Kubernetes(KubernetesReference { spin_up, .. })
            | Self::Webhook(WebhookReference { spin_up })
            | Self::GithubActions(GithubReference { spin_up, .. }) => *spin_up,
        }
    }
}

/// A process of this machine: the number alone would be another one's some day.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// The start.
    pub spin_up: SpinUpId,
    /// Its number; its group has the same.
    pub pid: u32,
    /// When it was started, as the system says it.
    pub started_at: String,
    /// Which start of the system that was.
    pub boot_id: String,
    /// The machine and its space of process numbers: a coordinator elsewhere can say nothing of the process. Older ones did
    /// not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl LocalReference {
    /// Whether the process can be seen from here, for all that is known.
    pub(crate) fn is_seen_from(&self, here: Option<&str>) -> bool {
        let there = self.place.as_deref();
        there.is_none() || here.is_none() || there == here
    }
}

/// A process of another machine, which leads a session of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshReference {
    /// The start.
    pub spin_up: SpinUpId,
    /// The machine, as the target named it.
    pub host: String,
    /// Its number there; its session has the same.
    pub pid: u32,
    /// When it was started, as that system says it.
    pub started_at: String,
    /// Which start of that system it was.
    pub boot_id: String,
    /// The port of 127.0.0.1 there by which it reaches NATS, where that is a tunnel: the tunnel is opened there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_port: Option<u16>,
}

/// A request that was accepted. Nothing more can be asked; the agent's birth tells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookReference {
    /// The start, which is also the idempotency key.
    pub spin_up: SpinUpId,
}

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GithubReference {
    /// The start, which is in the name of the run.
    pub spin_up: SpinUpId,
    /// The repository: `owner/repo`.
    pub repo: String,
    /// The run.
    pub run_id: u64,
}

/// A Job of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesReference {
    /// The start.
    pub spin_up: SpinUpId,
    /// The context of the kubeconfig, where the target named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The namespace.
    pub namespace: String,
    /// The name of the Job.
    pub job: String,
    /// Its number: another Job of that name has another one.
    pub uid: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_stored_and_read_again() {
        let spin_up = SpinUpId::generate();
        let (started_at, boot_id) = ("123".to_owned(), "b".to_owned());
        let ssh = SshReference {
            spin_up,
            host: "h".to_owned(),
            pid: 7,
            started_at,
            boot_id,
            tunnel_port: Some(40_123),
        };
        let github = GithubReference {
            spin_up,
            repo: "o/r".to_owned(),
            run_id: u64::MAX,
        };
        let kubernetes = KubernetesReference {
            spin_up,
            context: None,
            namespace: "n".to_owned(),
            job: "j".to_owned(),
            uid: "u".to_owned(),
        };
        for reference in [
            Reference::Ssh(ssh),
            Reference::GithubActions(github),
            Reference::Kubernetes(kubernetes),
            Reference::Webhook(WebhookReference { spin_up }),
        ] {
            let stored = serde_json::to_value(&reference).unwrap();
            assert_eq!(stored["mechanism"], reference.mechanism().as_str());
            assert_eq!(stored["spinUp"], spin_up.to_string());
            assert_eq!(
                serde_json::from_value::<Reference>(stored).unwrap(),
                reference
            );
        }
    }
}
