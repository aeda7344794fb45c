//! The sections of `loom.toml` that belong to the program, and all of them together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use loom_actors::nats::server::Profile;
use loom_actors::section;
use loom_actors::settings::{
    AgentSettings, BirthSettings, BirthTimeoutSettings, CompatSettings, DlqSettings,
    SupervisionSettings, WorkSettings, at_least_ms, between,
};
use loom_protocol::ProjectId;
use loom_protocol::target::Mechanism;

use super::secret::{Secret, ServerUrl};
use super::targets::DefinedTargets;

section! {
    /// Everything that can be set.
    pub struct Settings {
        /// Where the durable truth lives.
        nats: NatsSettings;
        /// The REST door.
        api: ApiSettings;
        /// The projects of this coordinator.
        projects: ProjectsSettings;
        /// When an agent counts as alive, and how long it is kept.
        agents: AgentSettings;
        /// The clocks and limits of work items.
        work: WorkSettings;
        /// Dead letters: work that was given up.
        dlq: DlqSettings;
        /// Where agents can be started.
        targets: TargetsSettings;
        /// What existing clients bring with them.
        compat: CompatSettings;
        /// When and how fast a crashed actor is restarted.
        supervision: SupervisionSettings;
    }
}

section! {
    /// `[nats]`
    pub struct NatsSettings {
        /// The server to use (nats, tls, ws or wss); several of one cluster with commas between them. Without it Loom
        /// starts one of its own.
        url: Option<ServerUrl>, like "nats://127.0.0.1:4222";
        /// The user at that server.
        user: Option<String>, like "loom";
        /// Its password; better given as NATS_PASS in the environment.
        password: Option<Secret>, like "secret";
        /// A credentials file, instead of user and password.
        credentials: Option<PathBuf>, like "/etc/loom/nats.creds";
        /// Where Loom's own nats-server listens; port 0 takes any free one and keeps it.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        /// Let Loom's own nats-server, which asks for no credentials, listen beyond loopback.
        allow_open: bool = false;
        /// Under which address agents reach Loom's own nats-server, where `listen` does not tell.
        advertise_url: Option<ServerUrl>, like "nats://build-host:4222";
        /// Where Loom's own nats-server keeps its store. Without it: the user's data directory.
        data_dir: Option<PathBuf>, like "/var/lib/loom";
        /// How Loom's own nats-server writes: "safe" survives a power cut, "fast" (every 100 ms) only a killed process.
        profile: Profile = Profile::Safe;
        /// The id that the store must have (`loom store` tells it). On another store, or an empty one, the coordinator
        /// takes nothing in, and says so.
        store_id: Option<String>, like "0198c0de-0000-4000-8000-000000000000";
        /// How many servers of a NATS cluster keep each stream; 1, 3 or 5.
        replicas: u8 [between(1, 5)] = 1;
    }
}

section! {
    /// `[api]`
    pub struct ApiSettings {
        /// The address to listen on. Beyond loopback it takes tokens, or `allow_open`.
        host: String = "127.0.0.1".into();
        /// The port; 0 takes any free one.
        port: u16 = 3000;
        /// The bearer tokens that are let in; with none, everybody is. Better given as API_TOKENS (commas between them).
        tokens: Vec<Secret>;
        /// Listen beyond loopback without tokens.
        allow_open: bool = false;
    }
}

section! {
    /// `[targets]`
    pub struct TargetsSettings {
        /// Which mechanisms a target may have that is registered or changed by a request: local, ssh, kubernetes,
        /// github-actions, webhook. Where the API listens beyond loopback without tokens, local and ssh have to be
        /// written here.
        api_mechanisms: Vec<Mechanism> = Mechanism::ALL.to_vec();
        /// How many starts of one project may be under way at once; of all projects together four times as many. One counts
        /// for 30s at the most (for targets.birth_timeout.local where that is less), and waits on for its agent without.
        max_concurrent: u32 [between(1, 10_000)] = 3;
        /// How long a target rests after a start that failed; doubles with each failure in a row, up to 16 times as long.
        cooldown: Duration [at_least_ms(100)] = Duration::from_secs(30);
        /// For how many waiting items one agent is started.
        items_per_agent: u32 [between(1, 0xffff_ffff)] = 1;
        /// How long it can be read how a start has ended.
        keep_operations: Duration [at_least_ms(1000)] = Duration::from_hours(24);
        /// Targets of this coordinator, each a table [[targets.define]] with the fields of targets.register, and project
        /// where it is not the default one.
        define: DefinedTargets;
        /// How long a start may take until its agent registers. What was started is ended then.
        birth_timeout: BirthTimeoutSettings;
    }
}

impl TargetsSettings {
    /// When agents are started, and how long they are waited for.
    pub fn births(&self) -> BirthSettings {
        BirthSettings {
            max_concurrent: self.max_concurrent,
            cooldown: self.cooldown,
            items_per_agent: self.items_per_agent,
            keep_operations: self.keep_operations,
            birth_timeout: self.birth_timeout.clone(),
        }
    }
}

section! {
    /// `[projects]`
    pub struct ProjectsSettings {
        /// The project of a request that names none.
        default: ProjectId = default_project();
        /// How many projects may be awake at a time; above, `overloaded`.
        max: usize [between(1, 1_000_000)] = 1000;
        /// How many projects there may be, awake or asleep; above, no new one is made (`overloaded`). At least max.
        max_known: usize [between(1, 10_000_000)] = 10_000;
        /// After how long without use a project sleeps that has no agents and nothing to do; its next use wakes it. 0s: never.
        sleep_after: Duration = Duration::from_mins(10);
    }
}

#[allow(
    clippy::expect_used,
    reason = "a constant that the tests of this crate read"
)]
fn default_project() -> ProjectId {
    ProjectId::new("default").expect("\"default\" is a project id")
}
