//! A registry under supervision, on a nats-server of its own.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, kv};
use futures_util::FutureExt as _;
use loom_actors::agent_registry::{
    AgentChange, AgentDirectory, AgentRegistryArgs, AgentRegistryHandle,
};
use loom_actors::clock::Clock;
use loom_actors::events::{EventHub, EventListener, Heard};
use loom_actors::liveness::AppliedPositions;
use loom_actors::nats::owner::Ownership;
use loom_actors::nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_actors::nats::store::StoreHealth;
use loom_actors::nats::store_guard::StoreGuard;
use loom_actors::settings::AgentSettings;
use loom_actors::supervision::{Jitter, RestartPolicy, Root, RootHandle, TreeSpec};
use loom_protocol::agent::{Agent, AgentStatus, RegisterRequest};
use loom_protocol::{AgentGuid, ProjectId, names};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};

/// Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A nats-server, a registry on it, and everything that it tells.
pub struct Fixture {
    pub server: NatsServer,
    pub client: async_nats::Client,
    pub args: AgentRegistryArgs,
    pub registry: AgentRegistryHandle,
    changed: mpsc::Sender<(AgentGuid, AgentChange)>,
    pub changes: mpsc::Receiver<(AgentGuid, AgentChange)>,
    pub events: EventListener,
    root: RootHandle,
    _store: tempfile::TempDir,
}

impl Fixture {
    /// A registry that runs; `stale_after` decides how fresh the bucket is kept.
    pub async fn start(stale_after: Duration) -> Self {
        let fixture = Self::without_registry(stale_after).await;
        // As for a project that comes to life.
        loom_actors::agent_registry::ensure_bucket(&fixture.args)
            .await
            .unwrap();
        fixture.start_registry().await;
        fixture.registry.ready(PATIENCE).await.unwrap();
        fixture
    }

    /// Everything but the registry.
    pub async fn without_registry(stale_after: Duration) -> Self {
        let store = tempfile::tempdir().unwrap();
        let server = NatsServer::start(ServerOptions {
            profile: Profile::Fast,
            ..ServerOptions::new(find_server(None).unwrap(), store.path().to_owned())
        })
        .await
        .unwrap();
        let client = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .ping_interval(Duration::from_secs(2))
            .connect(server.client_url())
            .await
            .unwrap();
        let hub = EventHub::default();
        let events = hub.listen(None);
        let (changed, changes) = mpsc::channel(64 * 1024);
        let args = AgentRegistryArgs {
            project: ProjectId::new("p").unwrap(),
            jetstream: jetstream::new(client.clone()),
            client: client.clone(),
            health: StoreHealth::default(),
            replicas: 1,
            clock: Clock::system(),
            settings: AgentSettings {
                stale_after,
                ..AgentSettings::default()
            },
            directory: told_to(&changed),
            events: hub,
            arrivals: AppliedPositions::new(&ProjectId::new("p").unwrap()),
            guard: StoreGuard::unwatched(),
            epoch: 7,
            begun_at: Clock::system().now(),
            ownership: Ownership::alone(),
        };
        let registry = AgentRegistryHandle::new(&args);
        let root = Root::start_with("test", Jitter::fixed(0.0)).await.unwrap();
        Self {
            server,
            client,
            args,
            registry,
            changed,
            changes,
            events,
            root,
            _store: store,
        }
    }

    pub async fn start_registry(&self) {
        let policy = RestartPolicy::default();
        let child = self.registry.child_spec(policy.clone(), self.args.clone());
        let tree = TreeSpec::new("p", policy).child(child);
        self.root.start_tree(tree).await.unwrap();
    }

    /// The registry of another coordinator on the same bucket.
    pub async fn start_another(&self, epoch: u64) -> AgentRegistryHandle {
        let args = AgentRegistryArgs {
            directory: told_to(&self.changed),
            arrivals: AppliedPositions::new(&self.args.project),
            ownership: Ownership::alone(),
            epoch,
            ..self.args.clone()
        };
        let registry = AgentRegistryHandle::new(&args);
        let policy = RestartPolicy::default();
        let child = registry.child_spec(policy.clone(), args);
        let tree = TreeSpec::new("another", policy).child(child);
        self.root.start_tree(tree).await.unwrap();
        registry.ready(PATIENCE).await.unwrap();
        registry
    }

    /// The registry of the next process: it knows nothing but what the bucket says.
    pub async fn replace_registry(&mut self) {
        self.stop_registry().await;
        self.args.directory = told_to(&self.changed);
        self.registry = AgentRegistryHandle::new(&self.args);
        self.start_registry().await;
        self.registry.ready(PATIENCE).await.unwrap();
    }

    pub async fn stop_registry(&self) {
        self.root.stop_tree("p", PATIENCE).await.unwrap();
    }

    pub async fn registered(&self, handle: &str) -> Agent {
        self.registry.register(request(handle)).await.unwrap()
    }

    /// The bucket as any other client sees it.
    pub async fn bucket(&self) -> kv::Store {
        let name = names::agents_bucket(&self.args.project);
        let jetstream = jetstream::new(self.client.clone());
        eventually("the bucket exists", async || {
            jetstream.get_key_value(&name).await.ok()
        })
        .await
    }

    /// What the bucket says of an agent; `Null` where it says nothing.
    pub async fn entry(&self, guid: AgentGuid) -> Value {
        let value = self.bucket().await.get(guid.to_string()).await.unwrap();
        value.map_or(Value::Null, |value| serde_json::from_slice(&value).unwrap())
    }

    /// Puts an agent's own entry.
    pub async fn put(&self, guid: AgentGuid, fields: Value) {
        let mut entry = json!({"guid": guid, "capabilities": ["rust"]});
        entry
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let bucket = self.bucket().await;
        let value = entry.to_string().into();
        bucket.put(guid.to_string(), value).await.unwrap();
    }

    /// Waits until the directory shows an agent of this status.
    pub async fn sees(&self, guid: AgentGuid, status: AgentStatus) -> Agent {
        eventually(&format!("{guid} is {status}"), async || {
            let agent = self.args.directory.snapshot(guid)?;
            (agent.status == status).then_some(agent)
        })
        .await
    }

    /// Waits for the next change of this kind.
    pub async fn changed(&mut self, guid: AgentGuid, change: AgentChange) {
        let told = async {
            while let Some(told) = self.changes.recv().await {
                if told == (guid, change) {
                    return;
                }
            }
            panic!("the registry is gone");
        };
        timeout(PATIENCE, told)
            .await
            .unwrap_or_else(|_| panic!("{guid} was never told to be {change:?}"));
    }

    /// The names of the events that were told since the last call.
    pub fn told(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Some(heard)) = unconstrained(self.events.next()).now_or_never() {
            if let Heard::Event(event) = heard {
                names.push(event.name().to_owned());
            }
        }
        names
    }

    pub async fn end(self) {
        self.root.shutdown(PATIENCE).await.unwrap();
        self.server.stop().await;
    }
}

/// A directory whose changes are told there.
fn told_to(changed: &mpsc::Sender<(AgentGuid, AgentChange)>) -> Arc<AgentDirectory> {
    let (directory, changed) = (AgentDirectory::new(), changed.clone());
    directory.changes().hook("test", move |change| {
        let _ = changed.try_send(*change);
    });
    directory
}

pub fn request(handle: &str) -> RegisterRequest {
    RegisterRequest {
        handle: handle.into(),
        agent_type: "claude-code".into(),
        capabilities: vec!["rust".into()],
        ..RegisterRequest::default()
    }
}

/// Asks until there is an answer, or for too long.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        // deliberate sleep: between two looks, before the deadline
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
