//! The sections of `loom.toml` that belong to the program, and all of them together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use loom_actors::nats::server::Profile;
use loom_actors::settings::{AgentSettings, DlqSettings, SupervisionSettings, WorkSettings};
use loom_protocol::ProjectId;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, ServerUrl};

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `[nats]`
    pub nats: NatsSettings,
    /// `[api]`
    pub api: ApiSettings,
    /// `[projects]`
    pub projects: ProjectsSettings,
    /// `[agents]`
    pub agents: AgentSettings,
    /// `[work]`
    pub work: WorkSettings,
    /// `[dlq]`
    pub dlq: DlqSettings,
    /// `[supervision]`
    pub supervision: SupervisionSettings,
}

/// `[nats]`: where the durable truth lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// The server to use; none: start our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<ServerUrl>,
    /// The user at that server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A credentials file, instead of user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<PathBuf>,
    /// Where our own server listens; port 0: any free one.
    pub listen: SocketAddr,
    /// Let our own server, which asks for no credentials, listen beyond loopback.
    pub allow_open: bool,
    /// Under which address agents reach our own server, where `listen` does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_url: Option<ServerUrl>,
    /// Where our own server keeps its store; none: the user's data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// How our own server writes to the disk.
    pub profile: Profile,
    /// The id that the store must have; none: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_id: Option<String>,
    /// How many servers of a cluster keep each stream.
    pub replicas: u8,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            url: None,
            user: None,
            password: None,
            credentials: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_open: false,
            advertise_url: None,
            data_dir: None,
            profile: Profile::Safe,
            store_id: None,
            replicas: 1,
        }
    }
}

/// `[api]`: the REST door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The address to listen on.
    pub host: String,
    /// The port; 0: any free one.
    pub port: u16,
    /// The bearer tokens that are let in; none: everybody is.
    pub tokens: Vec<Secret>,
    /// Listen beyond loopback without tokens.
    pub allow_open: bool,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 3000,
            tokens: Vec::new(),
            allow_open: false,
        }
    }
}

/// `[projects]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectsSettings {
    /// The project of a request that names none: 1–64 of `A-Z a-z 0-9 _ -`.
    pub default: ProjectId,
    /// How many projects may be awake at a time.
    pub max: usize,
}

impl Default for ProjectsSettings {
    fn default() -> Self {
        Self {
            default: default_project(),
            max: 1000,
        }
    }
}

#[allow(
    clippy::expect_used,
    reason = "a constant that the tests of this crate read"
)]
fn default_project() -> ProjectId {
    ProjectId::new("default").expect("\"default\" is a project id")
}
