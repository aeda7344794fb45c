//! A project of a fleet, as a program outside sees it (requests, publishing, REST) and as only a test may see it
//! (its actors).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::{self, kv};
use async_nats::{Client, ConnectOptions, HeaderMap, Message, Request, ServerAddr};
pub use loom_actors::actor_name::ActorName as Role;
use loom_actors::project::Project;
use loom_coordinator::api_client::ApiClient;
use loom_protocol::codec::CONTENT_TYPE;
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::url::split;
use loom_protocol::work::{ClaimAnswer, ClaimedItem, SubmitAnswer, WorkItem};
use loom_protocol::{AgentGuid, Encoding, ErrorCode, ProjectId, WireError, WorkId, names};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{PATIENCE, Reach, Signals};
use crate::agent::FakeAgentBuilder;

/// How long a request may take beyond what it asks the coordinator to wait; it promises 3 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// How often a state is looked at that nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const PAGE: usize = 1_000;

fn kill(actor: Role, project: &Project) -> bool {
    match actor {
        Role::AgentRegistry => project.registry.kill(),
        Role::WorkDispatcher => project.dispatcher.actor().kill(),
        Role::WorkLedger => project.ledger.actor().kill(),
        Role::GcReaper => project.reaper.actor().kill(),
        Role::DlqRetrier => project.dlq.actor().kill(),
        Role::TargetManager => project.target_manager.actor().kill(),
    }
}

fn restarts(actor: Role, project: &Project) -> u64 {
    match actor {
        Role::AgentRegistry => project.registry.restarts(),
        Role::WorkDispatcher => project.dispatcher.actor().restarts(),
        Role::WorkLedger => project.ledger.actor().restarts(),
        Role::GcReaper => project.reaper.actor().restarts(),
        Role::DlqRetrier => project.dlq.actor().restarts(),
        Role::TargetManager => project.target_manager.actor().restarts(),
    }
}

/// A project that nobody else uses. Cheap to clone; goes on working when its fleet was started again.
#[derive(Clone)]
pub struct TestProject {
    id: ProjectId,
    client: Client,
    jetstream: jetstream::Context,
    url: String,
    reach: Reach,
}

impl TestProject {
    pub(super) async fn connect(id: ProjectId, url: String, reach: &Reach) -> Result<Self> {
        let addresses = split(&url).map(str::parse);
        let addresses = addresses.collect::<Result<Vec<ServerAddr>, _>>()?;
        let client = ConnectOptions::new()
            .name(format!("test of project {id}"))
            .subscription_capacity(Signals::backlog())
            .ping_interval(Duration::from_secs(2))
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(addresses)
            .await
            .with_context(|| format!("connect to the test's nats-server at {url}"))?;
        Ok(Self {
            id,
            jetstream: jetstream::new(client.clone()),
            client,
            url,
            reach: reach.clone(),
        })
    }

    /// A project of a coordinator that is a process of its own, on the NATS at `url`.
    pub async fn of_process(id: ProjectId, url: &str) -> Result<Self> {
        Self::connect(id, url.to_owned(), &Reach::default()).await
    }

    /// The same project over a connection of its own, as another program would have it.
    pub async fn another_connection(&self) -> Result<Self> {
        Self::connect(self.id.clone(), self.url.clone(), &self.reach).await
    }

    /// Its id.
    pub const fn id(&self) -> &ProjectId {
        &self.id
    }

    /// The test's connection to NATS.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream over that connection.
    pub const fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The coordinator's REST API; requests through it name this project.
    pub fn api(&self) -> Result<ApiClient> {
        let address = self.reach.api_address()?;
        let project = Some(self.id.clone());
        Ok(ApiClient::new(&format!("http://{address}"), None, project)?)
    }

    /// `coord.{project}.{action}` in JSON. No answer, and nobody there to give one, is `unavailable`.
    pub async fn request(&self, action: &str, body: Value) -> Result<Value, WireError> {
        self.call(action, &body).await
    }

    /// As [`TestProject::request`], with types.
    pub async fn call<R: DeserializeOwned>(
        &self,
        action: &str,
        body: &impl Serialize,
    ) -> Result<R, WireError> {
        self.call_in(Encoding::Json, action, body).await
    }

    /// As [`TestProject::call`], in the encoding of your choice; the answer must be in the same.
    pub async fn call_in<R: DeserializeOwned>(
        &self,
        encoding: Encoding,
        action: &str,
        body: &impl Serialize,
    ) -> Result<R, WireError> {
        let payload = encoding.encode(body)?;
        let answer = self.exchange(encoding, action, payload).await?;
        let header = |name: &str| answer.headers.as_ref().and_then(|h| h.get(name));
        let answered_in =
            Encoding::from_content_type(header(CONTENT_TYPE).map(async_nats::HeaderValue::as_str));
        if answered_in != encoding {
            return Err(WireError::new(
                ErrorCode::Internal,
                format!("a request in {encoding:?} was answered in {answered_in:?}"),
            ));
        }
        if header(ERROR_CODE_HEADER).is_some() {
            return Err(encoding.decode(&answer.payload)?);
        }
        Ok(encoding.decode(&answer.payload)?)
    }

    /// The bytes of a request for the message of its answer, whatever that says: for bad input.
    pub async fn exchange(
        &self,
        encoding: Encoding,
        action: &str,
        payload: Vec<u8>,
    ) -> Result<Message, WireError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, encoding.content_type());
        let within = ANSWER_WITHIN + asked_wait(encoding, &payload);
        let request = Request::new()
            .headers(headers)
            .payload(payload.into())
            .timeout(Some(within));
        let subject = names::request(&self.id, action);
        let unanswered = |error: async_nats::RequestError| {
            let text = format!("{action} of project {} got no answer: {error}", self.id);
            WireError::unavailable(text, RETRY_AFTER)
        };
        self.client
            .send_request(subject, request)
            .await
            .map_err(unanswered)
    }

    /// As [`TestProject::request`], again and again while the coordinator says `unavailable`, `overloaded` or
    /// nothing; as long as [`PATIENCE`] lasts.
    pub async fn insist(&self, action: &str, body: Value) -> Result<Value, WireError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.request(action, body.clone()).await {
                Err(error) if error.code.is_transient() && Instant::now() < deadline => {
                    let pause = error
                        .retry_after_ms
                        .map_or(RETRY_AFTER, Duration::from_millis);
                    sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// `work.submit` of one item.
    pub async fn submit(&self, item: Value) -> Result<SubmitAnswer, WireError> {
        self.call("work.submit", &item).await
    }

    /// Submits an item with nothing special about it.
    pub async fn submit_plain(&self, capability: &str) -> Result<WorkId, WireError> {
        let item = json!({"description": "something to do", "capability": capability});
        Ok(self.submit(item).await?.id)
    }

    /// `work.claim` of an agent; `claim`: the other fields.
    pub async fn claim(
        &self,
        guid: AgentGuid,
        mut claim: Value,
    ) -> Result<Vec<ClaimedItem>, WireError> {
        claim["guid"] = json!(guid);
        let answer: ClaimAnswer = self.call("work.claim", &claim).await?;
        Ok(answer.items)
    }

    /// An item as it is now.
    pub async fn work(&self, id: WorkId) -> Result<WorkItem, WireError> {
        self.call("work.get", &json!({ "id": id })).await
    }

    /// An item once it has ended, in whatever way.
    pub async fn until_ended(&self, id: WorkId) -> Result<WorkItem> {
        let ended = async || {
            let item = self.work(id).await.ok()?;
            item.terminal.then_some(item)
        };
        self.eventually(&format!("item {id} ends"), ended).await
    }

    /// Every item, oldest first.
    pub async fn all_work(&self) -> Result<Vec<WorkItem>, WireError> {
        let mut all: Vec<WorkItem> = Vec::new();
        let mut request = json!({ "limit": PAGE });
        loop {
            let payload = Encoding::Json.encode(&request)?;
            let page = self.exchange(Encoding::Json, "work.list", payload).await?;
            let header = |name: &str| page.headers.as_ref().and_then(|h| h.get(name));
            if header(ERROR_CODE_HEADER).is_some() {
                return Err(Encoding::Json.decode(&page.payload)?);
            }
            all.extend(Encoding::Json.decode::<Vec<WorkItem>>(&page.payload)?);
            match header(names::NEXT_CURSOR_HEADER) {
                Some(cursor) => request["cursor"] = json!(cursor.as_str()),
                None => return Ok(all),
            }
        }
    }

    /// Publishes to a stream, as a program does that makes no requests. Gives the sequence when it is stored.
    pub async fn publish(&self, subject: String, body: &Value) -> Result<u64> {
        let payload = body.to_string().into();
        let stored = self.jetstream.publish(subject.clone(), payload).await?;
        let stored = stored
            .await
            .with_context(|| format!("publish to {subject}"))?;
        Ok(stored.sequence)
    }

    /// The agents bucket, as a program has it that knows nothing but NATS.
    pub async fn agents_bucket(&self) -> Result<kv::Store> {
        let bucket = names::agents_bucket(&self.id);
        self.jetstream
            .get_key_value(&bucket)
            .await
            .with_context(|| format!("open the bucket {bucket}"))
    }

    /// Everything that the project tells from now on.
    pub async fn signals(&self) -> Result<Signals> {
        Signals::of(&self.client, &self.id).await
    }

    /// An agent that speaks plain NATS and behaves as told.
    pub fn agent(&self, capability: &str) -> FakeAgentBuilder {
        FakeAgentBuilder::new(self, capability)
    }

    /// Waits for a state that nobody tells of: looks until `look` gives something. `what` names it in the error.
    pub async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{what}: not so after {PATIENCE:?}, in project {}", self.id);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The parts of the project in the coordinator.
    ///
    /// # Errors
    /// The project is not awake (nothing was written yet), or the coordinator is stopped.
    pub fn parts(&self) -> Result<Arc<Project>> {
        let awake = self.reach.service()?.projects().get(&self.id);
        awake.with_context(|| format!("project {} is not awake; write something first", self.id))
    }

    /// Kills an actor, wherever it is. Its supervisor starts it again.
    pub fn kill(&self, role: Role) -> Result<()> {
        if kill(role, &*self.parts()?) {
            return Ok(());
        }
        bail!("{role:?} of project {} is not up just now", self.id)
    }

    /// How often an actor was started again since the coordinator started.
    pub fn restarts(&self, role: Role) -> Result<u64> {
        Ok(restarts(role, &*self.parts()?))
    }

    /// Waits until all actors are up and this one was started again at least `times` times.
    pub async fn wait_until_restarted(&self, role: Role, times: u64) -> Result<()> {
        let parts = self.parts()?;
        let root = self.reach.service()?.projects().root().clone();
        let is_so = |trees: &[loom_actors::supervision::TreeStatus]| {
            let mine = trees.iter().find(|tree| &*tree.name == self.id.as_str());
            let all_up = mine.is_some_and(|tree| tree.children.iter().all(|child| child.up));
            all_up && restarts(role, &parts) >= times
        };
        match root.wait_until(PATIENCE, is_so).await {
            Ok(_) => Ok(()),
            Err(trees) => bail!(
                "{role:?} of project {} was not started again {times} times within {PATIENCE:?}: {trees:?}",
                self.id
            ),
        }
    }
}

/// How long a request asks the coordinator to wait.
fn asked_wait(encoding: Encoding, payload: &[u8]) -> Duration {
    let body: Value = encoding.decode(payload).unwrap_or_default();
    let waits = [&body["waitMs"], &body["thenClaim"]["waitMs"]];
    let longest = waits.into_iter().filter_map(Value::as_u64).max();
    longest.map_or(Duration::ZERO, Duration::from_millis)
}
