//! What each mechanism needs to know. Required fields are empty where absent, and refused by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Mechanism;
use super::secret::SecretMap;

/// The configuration of one mechanism.
#[derive(Debug, Clone, PartialEq)]
pub enum MechanismConfig {
    /// A process beside the coordinator.
    Local(LocalConfig),
    /// A process on another machine.
    Ssh(SshConfig),
    /// A Job of Kubernetes.
    Kubernetes(KubernetesConfig),
    /// A run of a workflow.
    GithubActions(GithubActionsConfig),
    /// A request to somebody who starts it.
    Webhook(WebhookConfig),
}

impl MechanismConfig {
    /// Whose it is.
    pub const fn mechanism(&self) -> Mechanism {
        match self {
            Self::Local(_) => Mechanism::Local,
            Self::Ssh(_) => Mechanism::Ssh,
            Self::Kubernetes(_) => Mechanism::Kubernetes,
            Self::GithubActions(_) => Mechanism::GithubActions,
            Self::Webhook(_) => Mechanism::Webhook,
        }
    }

    /// The values that are written and never answered, with the field that they stand in.
    pub const fn secrets(&self) -> Option<(&'static str, &SecretMap)> {
        match self {
            Self::Local(config) => Some(("env", &config.env)),
            Self::Ssh(config) => Some(("env", &config.env)),
            Self::Kubernetes(config) => Some(("env", &config.env)),
            Self::Webhook(config) => Some(("headers", &config.headers)),
            Self::GithubActions(_) => None,
        }
    }
}

impl Mechanism {
    /// The fields of its configuration.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Local => &[
                "command",
                "shell",
                "args",
                "workingDirectory",
                "env",
                "detached",
            ],
            Self::Ssh => &[
                "host",
                "user",
                "command",
                "port",
                "privateKeyPath",
                "workingDirectory",
                "env",
                "connectionTimeoutMs",
                "jumpHost",
                "knownHosts",
                "reverseTunnel",
            ],
            Self::Kubernetes => &[
                "namespace",
                "jobNamePrefix",
                "image",
                "imagePullSecret",
                "serviceAccount",
                "command",
                "args",
                "env",
                "resources",
                "ttlSecondsAfterFinished",
                "context",
            ],
            Self::GithubActions => &[
                "repo",
                "workflow",
                "ref",
                "tokenEnvVar",
                "inputs",
                "startTimeoutMs",
                "apiUrl",
            ],
            Self::Webhook => &[
                "url",
                "method",
                "headers",
                "bodyTemplate",
                "successCodes",
                "timeoutMs",
                "secretEnvVar",
            ],
        }
    }

    /// Whether a field takes text wherever there is one of that name, so that whatever is written there is meant as it
    /// stands.
    pub fn is_text_field(name: &str) -> bool {
        TEXTS.contains(&name)
    }

    /// Whether a flat configuration of it has such a field: one of its own, the old word for one, or all of them below
    /// its key.
    pub fn has_field(self, name: &str) -> bool {
        self.fields().contains(&name)
            || name == self.key()
            || (self == Self::GithubActions && name == WORKFLOW_FILE)
    }
}

/// The fields that are text in each mechanism that has them.
const TEXTS: [&str; 22] = [
    "host",
    "user",
    "privateKeyPath",
    "workingDirectory",
    "jumpHost",
    "knownHosts",
    "namespace",
    "jobNamePrefix",
    "image",
    "imagePullSecret",
    "serviceAccount",
    "context",
    "repo",
    "workflow",
    WORKFLOW_FILE,
    "ref",
    "tokenEnvVar",
    "apiUrl",
    "url",
    "method",
    "bodyTemplate",
    "secretEnvVar",
];

/// `workflow`, as a flat configuration may call it.
pub(super) const WORKFLOW_FILE: &str = "workflowFile";

/// `local`: a process beside the coordinator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LocalConfig {
    /// The program, or the line for `sh -c` where `shell` is set. Required.
    pub command: String,
    /// Whether `command` is a line for a shell; a flat configuration without `args` means that.
    pub shell: bool,
    /// Its arguments; none for a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Where it runs; the coordinator's own directory where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Variables on top of those that every agent gets.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub env: SecretMap,
    /// Whether it outlives the coordinator; true where absent.
    pub detached: bool,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self {
            command: String::new(),
            shell: false,
            args: Vec::new(),
            working_directory: None,
            env: SecretMap::default(),
            detached: true,
        }
    }
}

/// Which hosts are believed to be who they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KnownHosts {
    /// Only those that are known.
    Strict,
    /// Also one that is seen for the first time; it is known from then on.
    #[default]
    AcceptNew,
}

/// `ssh`: a process on another machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SshConfig {
    /// The machine. Required.
    pub host: String,
    /// The account there. Required.
    pub user: String,
    /// The line for `sh -c` there. Required.
    pub command: String,
    /// The port of the ssh server; 22 where absent.
    pub port: u16,
    /// The file of the private key; the ssh agent's keys where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_path: Option<String>,
    /// Where it runs; the home directory where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Variables on top of those that every agent gets.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub env: SecretMap,
    /// How long connecting may take; 30 s where absent.
    pub connection_timeout_ms: u64,
    /// A machine on the way: `[user@]host[:port]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump_host: Option<String>,
    /// Which hosts are believed; `accept-new` where absent.
    pub known_hosts: KnownHosts,
    /// Whether the agent reaches NATS through a tunnel that the coordinator holds.
    pub reverse_tunnel: bool,
}

impl Default for SshConfig {
    fn default() -> Self {
        Self {
            host: String::new(),
            user: String::new(),
            command: String::new(),
            port: 22,
            private_key_path: None,
            working_directory: None,
            env: SecretMap::default(),
            connection_timeout_ms: 30_000,
            jump_host: None,
            known_hosts: KnownHosts::default(),
            reverse_tunnel: false,
        }
    }
}

/// What a container may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Resources {
    /// Processor time, as Kubernetes writes it (`500m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Memory, as Kubernetes writes it (`1Gi`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// `kubernetes`: a Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesConfig {
    /// The namespace. Required.
    pub namespace: String,
    /// What the names of its Jobs begin with. Required.
    pub job_name_prefix: String,
    /// The image. Required.
    pub image: String,
    /// The secret to pull the image with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secret: Option<String>,
    /// The account that it runs as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The program; the image's own where absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables on top of those that every agent gets.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub env: SecretMap,
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// When a finished Job is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// The context of the kubeconfig; in-cluster where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// `github-actions`: a run of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct GithubActionsConfig {
    /// `owner/repo`. Required.
    pub repo: String,
    /// The file name of the workflow. Required; `workflowFile` in a flat configuration.
    pub workflow: String,
    /// The branch or tag; `main` where absent.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The variable of the coordinator that holds the token; `GITHUB_TOKEN` where absent.
    pub token_env_var: String,
    /// The inputs that are sent, and no others; their values may have the placeholders of a webhook's `bodyTemplate`.
    /// One has to have `{{spinUpId}}`, and the workflow has to show that input in its `run-name`: nothing is started else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// How long a run may take to be there, and again to begin, before it is cancelled; where absent, 2 minutes to be
    /// there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout_ms: Option<u64>,
    /// The API of a GitHub Enterprise: `https://HOST/api/v3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
}

impl Default for GithubActionsConfig {
    fn default() -> Self {
        Self {
            repo: String::new(),
            workflow: String::new(),
            reference: "main".to_owned(),
            token_env_var: "GITHUB_TOKEN".to_owned(),
            inputs: BTreeMap::new(),
            start_timeout_ms: None,
            api_url: None,
        }
    }
}

/// The methods that a webhook may be called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// Without a body.
    Get,
    /// With one.
    #[default]
    Post,
    /// With one.
    Put,
}

/// `webhook`: a request to somebody who starts the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookConfig {
    /// The address: http or https, without credentials. Required.
    pub url: String,
    /// The method; POST where absent.
    pub method: HttpMethod,
    /// Headers.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub headers: SecretMap,
    /// The body, with placeholders; an object with all of them where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_template: Option<String>,
    /// The status codes that mean "it will be started"; 200, 201 and 202 where absent.
    pub success_codes: Vec<u16>,
    /// How long one try may take; 30 s where absent.
    pub timeout_ms: u64,
    /// The variable of the coordinator that holds the key of the signature; unsigned where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env_var: Option<String>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: HttpMethod::default(),
            headers: SecretMap::default(),
            body_template: None,
            success_codes: vec![200, 201, 202],
            timeout_ms: 30_000,
            secret_env_var: None,
        }
    }
}
