//! A nats-server, a `loom up` on it, clients, and an agent that is driven by hand.

use std::future::Future;
use std::time::{Duration, Instant};

use loom_client::{Client, ClientError, ClientOptions, ErrorKind, NewWork};
use loom_protocol::agent::{HeartbeatAnswer, HeartbeatRequest, RegisterAnswer, RegisterRequest};
use loom_protocol::readiness::Readiness;
use loom_protocol::work::{
    ClaimAnswer, ClaimRequest, ClaimedItem, CompleteRequest, Lease, LeaseRef, ListWorkRequest,
    ProgressRequest, ReportedResult, ThenClaim, WorkItem, WorkStatus,
};
use loom_protocol::{AgentGuid, ErrorCode, ProjectId, WorkId};
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// How long a client goes on repeating one request: over any restart.
const PERSISTENCE: Duration = Duration::from_secs(40);
/// How long a client waits for one answer before it asks again.
pub const PER_TRY: Duration = Duration::from_secs(1);

/// The program as a person starts it, with a nats-server of its own.
pub fn loom_up() -> LoomUp {
    LoomUp::new(env!("CARGO_BIN_EXE_loom"))
}

/// A coordinator, and the nats-server that it uses where that is not its own.
pub struct World {
    // The order of their ends.
    pub loom: LoomProcess,
    nats: Option<TestNats>,
}

impl World {
    pub async fn new() -> Self {
        let nats = TestNats::start().await.unwrap();
        let loom = loom_up().on_nats(nats.url()).start().await.unwrap();
        let nats = Some(nats);
        Self { loom, nats }
    }

    pub async fn with_its_own_server() -> Self {
        let loom = loom_up().start().await.unwrap();
        Self { loom, nats: None }
    }

    pub fn nats(&self) -> &TestNats {
        self.nats.as_ref().unwrap()
    }

    /// `kill -9`, and a new start on the same data.
    pub async fn crash(&mut self) {
        self.loom.kill_9().await;
        self.loom.restart().await.unwrap();
    }

    pub async fn client(&self) -> Client {
        client(self.loom.nats_url()).await
    }
}

/// A client that repeats its requests until somebody answers them.
pub async fn client(nats_url: &str) -> Client {
    client_with(nats_url, PER_TRY).await
}

/// A client that waits so long for each answer.
pub async fn client_with(nats_url: &str, per_try: Duration) -> Client {
    let project = ProjectId::new("restart").unwrap();
    Client::connect(ClientOptions {
        request_timeout: per_try,
        request_deadline: PERSISTENCE,
        ..ClientOptions::new(nats_url, project)
    })
    .await
    .unwrap()
}

/// Fails the test where `future` takes too long.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks until `accepts` likes the answer.
pub async fn until<T, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    accepts: impl Fn(&T) -> bool,
) -> T {
    let asking = async {
        loop {
            let answer = ask().await;
            if accepts(&answer) {
                return answer;
            }
            // deliberate sleep: between two looks, before the deadline
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, asking).await
}

/// Every item of the project, over all pages.
pub async fn all_items(client: &Client, status: Option<WorkStatus>) -> Vec<WorkItem> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let filter = ListWorkRequest {
            status: status.map(|status| status.to_string()),
            limit: Some(200),
            cursor,
            ..ListWorkRequest::default()
        };
        let page = client.list(&filter).await.unwrap();
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return items;
        }
    }
}

pub async fn submit(client: &Client, description: &str) -> WorkId {
    let work = NewWork::new("rust", description);
    client.submit(&work).await.unwrap().id
}

/// An agent whose every step the test takes by itself, with a client that repeats.
pub struct Hand {
    pub client: Client,
    pub guid: AgentGuid,
}

impl Hand {
    /// Registers an agent that can do `rust`.
    pub async fn register(client: &Client, slots: u32) -> Self {
        Self::register_for(client, slots, "rust").await
    }

    /// Registers an agent that can do this only.
    pub async fn register_for(client: &Client, slots: u32, capability: &str) -> Self {
        let guid = AgentGuid::generate();
        let request = RegisterRequest {
            handle: "hand".into(),
            agent_type: "test".into(),
            capabilities: vec![capability.into()],
            guid: Some(guid),
            max_concurrent_tasks: Some(slots),
            ..RegisterRequest::default()
        };
        let answer: RegisterAnswer = client.request("agents.register", &request).await.unwrap();
        assert_eq!(answer.agent.guid, guid);
        Self {
            client: client.clone(),
            guid,
        }
    }

    /// Claims up to `max` items, and waits for the first as long as `wait`; one claim, repeated under its name.
    pub async fn claim(&self, max: u32, wait: Duration) -> Vec<ClaimedItem> {
        let began = Instant::now();
        let claim_id = WorkId::generate().to_string();
        loop {
            let left = wait.saturating_sub(began.elapsed());
            let wait_ms = u64::try_from(left.min(PER_TRY / 2).as_millis()).unwrap();
            let request = ClaimRequest {
                guid: self.guid,
                instance_id: None,
                claim: ThenClaim {
                    claim_id: Some(claim_id.clone()),
                    max: Some(max),
                    wait_ms: Some(wait_ms),
                    ..ThenClaim::default()
                },
            };
            let answer: ClaimAnswer = self.client.request("work.claim", &request).await.unwrap();
            if !answer.items.is_empty() || began.elapsed() >= wait {
                return answer.items;
            }
        }
    }

    /// One claim of this capability; sent once by a patient client.
    pub async fn wait_for(
        &self,
        capability: &str,
        wait: Duration,
    ) -> Result<Vec<ClaimedItem>, ClientError> {
        let request = json!({
            "guid": self.guid, "capabilities": [capability], "waitMs": wait.as_millis(),
        });
        let answer: ClaimAnswer = self.client.request("work.claim", &request).await?;
        Ok(answer.items)
    }

    pub async fn claim_one(&self) -> ClaimedItem {
        let mut items = self.claim(1, Duration::ZERO).await;
        assert_eq!(items.len(), 1, "one item was there to be claimed");
        items.remove(0)
    }

    /// Any request about a lease: the lease, and what else it needs.
    pub async fn report(
        &self,
        verb: &str,
        item: &ClaimedItem,
        more: Value,
    ) -> Result<Value, ClientError> {
        let mut request = json!({
            "id": item.work_item.id, "guid": self.guid, "attempt": item.lease.attempt,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        self.client.request(&format!("work.{verb}"), &request).await
    }

    pub async fn start(&self, item: &ClaimedItem) -> Lease {
        self.lease("work.start", item, None).await
    }

    pub async fn progress(&self, item: &ClaimedItem, progress: f64) -> Lease {
        self.lease("work.progress", item, Some(progress)).await
    }

    async fn lease(&self, action: &str, item: &ClaimedItem, progress: Option<f64>) -> Lease {
        let request = ProgressRequest {
            id: item.work_item.id,
            guid: self.guid,
            instance_id: None,
            attempt: item.lease.attempt,
            progress,
            message: None,
            usage: None,
            session: None,
        };
        self.client.request(action, &request).await.unwrap()
    }

    pub async fn complete(
        &self,
        item: &ClaimedItem,
        summary: &str,
    ) -> Result<WorkItem, ClientError> {
        let request = CompleteRequest {
            guid: self.guid,
            instance_id: None,
            id: Some(item.work_item.id),
            attempt: Some(item.lease.attempt),
            result: Some(ReportedResult {
                summary: Some(summary.into()),
                ..ReportedResult::default()
            }),
            usage: None,
            session: None,
            evidence: None,
            items: None,
            then_claim: None,
        };
        self.client.request("work.complete", &request).await
    }

    pub async fn heartbeat(&self, holding: &[&ClaimedItem]) -> HeartbeatAnswer {
        let lease = |item: &&ClaimedItem| LeaseRef {
            id: item.work_item.id,
            attempt: item.lease.attempt,
        };
        let request = HeartbeatRequest {
            status_reason: None,
            guid: self.guid,
            instance_id: None,
            status: None,
            current_task_count: None,
            holding: Some(holding.iter().map(lease).collect()),
        };
        self.client
            .request("agents.heartbeat", &request)
            .await
            .unwrap()
    }
}

/// The code that a refused request carries.
pub fn refused_with<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ErrorCode {
    match outcome.unwrap_err().kind() {
        ErrorKind::Refused(code) => code,
        other => panic!("not refused, but {other:?}"),
    }
}

/// The REST API, for what no NATS client could say while NATS is away.
#[derive(Clone)]
pub struct Rest {
    pub http: reqwest::Client,
    pub url: String,
}

impl Rest {
    pub fn of(loom: &LoomProcess) -> Self {
        Self::at(loom.api_url())
    }

    /// The one at this address, whether it serves or not.
    pub fn at(url: &str) -> Self {
        // Only the first one of a process is taken; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            url: url.to_owned(),
        }
    }

    /// Submits an item with this id: the status of the answer.
    pub async fn submit(&self, id: WorkId) -> reqwest::Result<u16> {
        Ok(self.submit_text(id, "by REST").await?.0)
    }

    /// Submits an item with this description: the status of the answer and its body.
    pub async fn submit_text(&self, id: WorkId, text: &str) -> reqwest::Result<(u16, Value)> {
        let body = json!({"id": id, "capability": "rust", "description": text});
        let request = self.http.post(format!("{}/api/work", self.url)).json(&body);
        let answer = request.header("Loom-Project", "restart").send().await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// What `/ready` says.
    pub async fn readiness(&self) -> Readiness {
        let request = self.http.get(format!("{}/ready", self.url));
        request.send().await.unwrap().json().await.unwrap()
    }

    /// The status of `/health`.
    pub async fn health(&self) -> u16 {
        self.status_of("/health").await
    }

    /// The status of `/ready`.
    pub async fn ready(&self) -> u16 {
        self.status_of("/ready").await
    }

    async fn status_of(&self, path: &str) -> u16 {
        let request = self.http.get(format!("{}{path}", self.url));
        request
            .send()
            .await
            .map_or(0, |answer| answer.status().as_u16())
    }
}
