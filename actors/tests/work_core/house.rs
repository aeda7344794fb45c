//! One project under supervision with a clock of the test's, on a nats-server of its own, and what is asked of it.

use std::sync::Arc;
use std::time::Duration;

use loom_actors::clock::Clock;
use loom_actors::domain::work::{Command, Defaults, WorkRecord, accept};
use loom_actors::events::EventHub;
use loom_actors::liveness::{InFlight, StallGuard};
use loom_actors::nats::connection::{Nats, NatsOptions};
use loom_actors::nats::owner::Ownership;
use loom_actors::nats::server::{NatsServer, Profile, ServerOptions, find_server};
use loom_actors::project::{Project, Terms};
use loom_actors::settings::{AgentSettings, DlqSettings, SupervisionSettings, WorkSettings};
use loom_actors::shared_agents::SharedAgents;
use loom_actors::stores::Stores;
use loom_actors::supervision::{Jitter, Root, RootHandle};
use loom_actors::target_manager::BirthTerms;
use loom_actors::work_dispatcher::{Admission, Claim};
use loom_actors::work_ledger::{Applied, Operation};
use loom_protocol::agent::RegisterRequest;
use loom_protocol::{AgentGuid, ProjectId, Timestamp, WorkId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::lost_reads::Detour;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// One project under supervision, and the nats-server under it.
pub struct House {
    pub project: Arc<Project>,
    pub terms: Terms,
    pub root: RootHandle,
    pub server: NatsServer,
    _store: tempfile::TempDir,
}

impl House {
    pub async fn build(work: WorkSettings) -> Self {
        let (store, server) = Self::server().await;
        let url = server.client_url();
        Box::pin(Self::over((store, server), url, work)).await
    }

    /// One that is connected by a detour.
    pub async fn behind_a_detour(work: WorkSettings) -> (Self, Detour) {
        let (store, server) = Self::server().await;
        let detour = Detour::to(&server.client_url()).await;
        let url = detour.url.clone();
        (
            Box::pin(Self::over((store, server), url, work)).await,
            detour,
        )
    }

    async fn server() -> (tempfile::TempDir, NatsServer) {
        let store = tempfile::tempdir().unwrap();
        let server = NatsServer::start(ServerOptions {
            profile: Profile::Fast,
            ..ServerOptions::new(find_server(None).unwrap(), store.path().to_owned())
        })
        .await
        .unwrap();
        (store, server)
    }

    async fn over(
        (store, server): (tempfile::TempDir, NatsServer),
        url: String,
        work: WorkSettings,
    ) -> Self {
        let nats = Nats::connect(&NatsOptions {
            url,
            ..NatsOptions::default()
        })
        .await
        .unwrap();
        let terms = Terms {
            births: BirthTerms::of_nobody(),
            begun_at: Clock::system().now(),
            shared_agents: SharedAgents::new(&nats, false, &Clock::system()),
            grace: StallGuard::of_process(&nats),
            jitter: Jitter::fixed(0.0),
            events: EventHub::default(),
            in_flight: InFlight::new(),
            stores: Stores::new(&nats, None, None),
            nats,
            clock: Clock::manual(Timestamp::from_millis(1_700_000_000_000)),
            agents: AgentSettings::default(),
            work,
            dlq: DlqSettings::default(),
            supervision: SupervisionSettings::default(),
            epoch: 7,
            ownership: Ownership::alone(),
            replicas: 1,
        };
        let root = Root::start("test").await.unwrap();
        let project = open(&terms, &root).await;
        Self {
            project,
            terms,
            root,
            server,
            _store: store,
        }
    }

    pub async fn submit(&self, item: Value) -> WorkId {
        let record = self.record(item);
        let id = record.id;
        let mut created = self
            .project
            .ledger
            .carry_out(vec![Operation::Create(Arc::new(record))])
            .await
            .unwrap();
        created.pop().unwrap().unwrap();
        id
    }

    pub fn record(&self, mut item: Value) -> WorkRecord {
        item["description"] = json!("d");
        let defaults = Defaults { max_attempts: 3 };
        let request = serde_json::from_value(item).unwrap();
        accept(request, defaults, "test", self.terms.clock.now())
            .unwrap()
            .record
    }

    pub async fn agent(&self, capabilities: &[&str]) -> AgentGuid {
        let request: RegisterRequest = serde_json::from_value(
            json!({"handle": "a", "agentType": "fake", "capabilities": capabilities}),
        )
        .unwrap();
        self.project.registry.register(request).await.unwrap().guid
    }

    /// A claim under way; `wait`: how long it may wait.
    pub fn claim(&self, order: Claim) -> tokio::task::JoinHandle<Vec<Applied>> {
        let dispatcher = self.project.dispatcher.clone();
        tokio::spawn(async move { dispatcher.claim(order).await.unwrap() })
    }

    pub async fn apply(&self, id: WorkId, command: Command) -> Applied {
        self.project.ledger.apply(id, command).await.unwrap()
    }
}

pub async fn open(terms: &Terms, root: &RootHandle) -> Arc<Project> {
    let (project, tree) = Project::open(ProjectId::new("p").unwrap(), terms)
        .await
        .unwrap();
    root.start_tree(tree).await.unwrap();
    project
        .ledger
        .actor()
        .wait_until_up(PATIENCE)
        .await
        .unwrap();
    Arc::new(project)
}

pub fn order(guid: AgentGuid, claim_id: &str, wait: Duration) -> Claim {
    Claim {
        instance_id: None,
        guid,
        claim_id: claim_id.into(),
        capabilities: None,
        max: 1,
        wait_until: (!wait.is_zero()).then(|| Instant::now() + wait),
        start: false,
        resume: Vec::new(),
        admission: Admission::default(),
    }
}

pub fn ids(given: &[Applied]) -> Vec<WorkId> {
    given.iter().map(|applied| applied.record.id).collect()
}

pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not so");
        // deliberate sleep: between two looks, before the deadline
        sleep(Duration::from_millis(5)).await;
    }
}
