//! An agent that speaks plain NATS, and that can be told to stall, to lie, to answer late or to die.
//!
//! A test drives it by its verbs ([`FakeAgent::claim`], [`FakeAgent::complete`] and so on), or lets it work by itself
//! with a [`Behaviour`] that can be changed at any time. It shares no code with the SDK, so that the two don't make the
//! same mistakes.
//!
//! ```no_run
//! use loom_testkit::agent::Behaviour;
//! use loom_testkit::fleet::Fleet;
//!
//! # async fn example() -> anyhow::Result<()> {
//! let fleet = Fleet::shared().await?;
//! let project = fleet.project().await?;
//! let agent = project.agent("rust").slots(2).behaviour(Behaviour::Diligent).spawn().await?;
//! let id = project.submit_plain("rust").await?;
//! agent.wait_until_completed(id).await?;
//!
//! agent.behave(Behaviour::Stall); // says nothing any more, with its connection open
//! agent.behave(Behaviour::Diligent);
//! agent.die(); // the connection is gone without a word
//! # Ok(())
//! # }
//! ```

mod doing;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_protocol::agent::{Agent, HeartbeatAnswer, RegisterAnswer};
use loom_protocol::work::{ClaimedItem, LeaseRef, WorkItem};
use loom_protocol::{AgentGuid, WireError, WorkId};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::doing::Doing;
use crate::fleet::{PATIENCE, TestProject};

const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// How an agent behaves that works by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Completes at once what it claims.
    Diligent,
    /// Completes what it claims after this long.
    Late(Duration),
    /// Keeps what it claims until its conduct changes; its heart beats.
    Hold,
    /// Its heart beats, and it does nothing by itself.
    Beat,
    /// Neither beats nor claims nor reports until its conduct changes; its connection stays open.
    Stall,
    /// Fails what it claims.
    Fail {
        /// Whether another attempt may help.
        recoverable: bool,
    },
    /// Reports its work with an attempt that it does not have.
    WrongAttempt,
    /// Reports its work as this other agent.
    As(AgentGuid),
}

/// An agent that is not there yet; see [`TestProject::agent`].
pub struct FakeAgentBuilder {
    project: TestProject,
    registration: Value,
    heartbeat_every: Duration,
    behaviour: Option<Behaviour>,
}

impl FakeAgentBuilder {
    pub(crate) fn new(project: &TestProject, capability: &str) -> Self {
        Self {
            project: project.clone(),
            registration: json!({
                "handle": format!("fake-{}", &AgentGuid::generate().to_string()[24..]),
                "agentType": "fake",
                "capabilities": [capability],
            }),
            heartbeat_every: HEARTBEAT_EVERY,
            behaviour: None,
        }
    }

    /// Can do this too.
    #[must_use]
    pub fn capability(mut self, capability: &str) -> Self {
        if let Some(capabilities) = self.registration["capabilities"].as_array_mut() {
            capabilities.push(json!(capability));
        }
        self
    }

    /// Is in these boundaries; `default` where absent.
    #[must_use]
    pub fn boundaries(self, boundaries: &[&str]) -> Self {
        self.field("boundaries", json!(boundaries))
    }

    /// Is of this type; `fake` where absent.
    #[must_use]
    pub fn agent_type(self, agent_type: &str) -> Self {
        self.field("agentType", json!(agent_type))
    }

    /// May hold so many items; 1 where absent.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        self.field("maxConcurrentTasks", json!(slots))
    }

    /// Beats so often when it works by itself; every second where absent.
    #[must_use]
    pub fn heartbeat_every(mut self, interval: Duration) -> Self {
        self.heartbeat_every = interval;
        self.field("heartbeatIntervalMs", json!(interval.as_millis()))
    }

    /// Any other field of its registration.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.registration[name] = value;
        self
    }

    /// Works by itself in this manner; without it, it does only what its verbs say, and its heart does not beat.
    #[must_use]
    pub const fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = Some(behaviour);
        self
    }

    /// Connects and registers.
    pub async fn spawn(self) -> Result<FakeAgent> {
        let project = self.project.another_connection().await?;
        let registered = project
            .call::<RegisterAnswer>("agents.register", &self.registration)
            .await
            .context("register a fake agent")?;
        let (behaviour, _) = watch::channel(self.behaviour.unwrap_or(Behaviour::Stall));
        let doing = Arc::new(Doing {
            project,
            guid: registered.agent.guid,
            slots: registered.agent.max_concurrent_tasks as usize,
            behaviour,
            done: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        if self.behaviour.is_some() {
            tasks.spawn(doing.clone().beat(self.heartbeat_every));
            tasks.spawn(doing.clone().work());
        }
        Ok(FakeAgent {
            doing,
            registered,
            tasks,
        })
    }
}

/// An agent over a connection of its own. Dropping it is its death.
pub struct FakeAgent {
    doing: Arc<Doing>,
    registered: RegisterAnswer,
    tasks: JoinSet<()>,
}

/// What came of the work of an agent that works by itself.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The items whose completion was accepted, in order.
    pub completed: Vec<WorkId>,
    /// The leases that were given to it, in order.
    pub claimed: Vec<LeaseRef>,
    /// What it was refused, in order.
    pub refused: Vec<WireError>,
}

impl FakeAgent {
    /// Its id.
    pub fn guid(&self) -> AgentGuid {
        self.doing.guid
    }

    /// What the coordinator answered to its registration.
    pub const fn registered(&self) -> &RegisterAnswer {
        &self.registered
    }

    /// How the coordinator sees it now.
    pub async fn seen(&self) -> Result<Agent, WireError> {
        let request = json!({ "guid": self.guid() });
        self.doing.project.call("agents.get", &request).await
    }

    /// Behaves like this from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.doing.behaviour.send_replace(behaviour);
    }

    /// Is gone without a word: its tasks and its connection.
    pub fn die(self) {
        drop(self);
    }

    /// What came of its own work so far.
    pub fn done(&self) -> Done {
        self.doing.done.borrow().clone()
    }

    /// Waits until `accepts` says yes to what came of its own work.
    pub async fn wait_until(&self, accepts: impl Fn(&Done) -> bool) -> Result<Done> {
        let mut done = self.doing.done.subscribe();
        let waited = timeout(PATIENCE, done.wait_for(accepts)).await;
        let Ok(accepted) = waited else {
            return Err(anyhow::anyhow!(
                "not so after {PATIENCE:?}; its work came to {:?}",
                self.done()
            ));
        };
        Ok(accepted.context("its work has ended")?.clone())
    }

    /// Waits until its completion of an item was accepted.
    pub async fn wait_until_completed(&self, id: WorkId) -> Result<Done> {
        self.wait_until(|done| done.completed.contains(&id)).await
    }

    /// Waits until it holds this many leases or was given them before.
    pub async fn wait_until_claimed(&self, leases: usize) -> Result<Done> {
        self.wait_until(|done| done.claimed.len() >= leases).await
    }

    /// Asks for work; `claim`: the fields beside its guid.
    pub async fn claim(&self, claim: Value) -> Result<Vec<ClaimedItem>, WireError> {
        self.doing.project.claim(self.guid(), claim).await
    }

    /// Asks for one item and gets it; an error where there is none.
    pub async fn claim_one(&self) -> Result<ClaimedItem> {
        let items = self.claim(json!({})).await?;
        items
            .into_iter()
            .next()
            .context("there was nothing to claim")
    }

    /// `work.{verb}` about an item that it holds (or held); `more`: the fields beside item, guid and attempt.
    pub async fn report(
        &self,
        verb: &str,
        item: &ClaimedItem,
        more: Value,
    ) -> Result<Value, WireError> {
        let lease = lease_of(item);
        self.doing.report(verb, self.guid(), lease, more).await
    }

    /// Begins with an item.
    pub async fn start(&self, item: &ClaimedItem) -> Result<Value, WireError> {
        self.report("start", item, json!({})).await
    }

    /// Says how far it is.
    pub async fn progress(&self, item: &ClaimedItem, percent: u8) -> Result<Value, WireError> {
        self.report("progress", item, json!({ "progress": percent }))
            .await
    }

    /// Completes an item. Gives the item as it is then.
    pub async fn complete(&self, item: &ClaimedItem, summary: &str) -> Result<WorkItem, WireError> {
        let result = json!({ "result": { "summary": summary } });
        let answer = self.report("complete", item, result).await?;
        serde_json::from_value(answer).map_err(|error| WireError::invalid(error.to_string()))
    }

    /// Fails an item.
    pub async fn fail(
        &self,
        item: &ClaimedItem,
        error: &str,
        recoverable: bool,
    ) -> Result<Value, WireError> {
        let error = json!({ "error": error, "recoverable": recoverable });
        self.report("fail", item, error).await
    }

    /// Gives an item back.
    pub async fn release(&self, item: &ClaimedItem) -> Result<Value, WireError> {
        self.report("release", item, json!({})).await
    }

    /// One heartbeat; `more`: the fields beside its guid.
    pub async fn heartbeat(&self, mut more: Value) -> Result<HeartbeatAnswer, WireError> {
        more["guid"] = json!(self.guid());
        self.doing.project.call("agents.heartbeat", &more).await
    }

    /// Goes in order: its leases go back at once.
    pub async fn deregister(mut self) -> Result<Value, WireError> {
        self.tasks.abort_all();
        let request = json!({ "guid": self.guid() });
        self.doing
            .project
            .request("agents.deregister", request)
            .await
    }
}

const fn lease_of(item: &ClaimedItem) -> LeaseRef {
    LeaseRef {
        id: item.work_item.id,
        attempt: item.lease.attempt,
    }
}
