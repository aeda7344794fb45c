//! Targets whose processes tell a test what they were told, and what the test makes of that.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;
use loom_protocol::agent::RegisterAnswer;
use loom_protocol::target::{Target, TargetAnswer};
use loom_protocol::{AgentGuid, WireError, names};
use loom_testkit::births::{Place, Process};
use loom_testkit::fleet::{Fleet, FleetBuilder, TestProject};
use loom_testkit::nats::until_subscribed;
use serde_json::{Value, json};

/// A fleet whose clocks are short.
pub(crate) fn quick_fleet() -> FleetBuilder {
    Fleet::builder().settings(|settings| {
        settings.agents.heartbeat_every = Duration::from_millis(200);
        settings.agents.stale_after = Duration::from_secs(2);
        settings.agents.idle_grace = Duration::from_secs(1);
    })
}

/// A target whose processes do nothing but tell what they were told.
pub(crate) struct Reporting {
    pub project: TestProject,
    pub target: Target,
    place: Place,
}

impl Reporting {
    pub async fn register(project: &TestProject) -> Result<Self> {
        Self::with(project, &json!({})).await
    }

    /// With these fields of the target.
    pub async fn with(project: &TestProject, fields: &Value) -> Result<Self> {
        let place = Place::new()?;
        let kind = json!({
            "agentType": "fake", "capabilities": ["rust", "docs"], "boundaries": ["default"],
        });
        let mut target = place.target_with("here", &kind);
        for (field, value) in fields.as_object().into_iter().flatten() {
            target[field] = value.clone();
        }
        let answer: TargetAnswer = project.call("targets.register", &target).await?;
        Ok(Self {
            project: project.clone(),
            target: answer.target,
            place,
        })
    }

    /// The target as it is now.
    pub async fn seen(&self) -> Result<Value, WireError> {
        let request = json!({"target": self.target.id});
        self.project.request("targets.get", request).await
    }

    /// Has one started, by an item that waits for it.
    pub async fn start(&self) -> Result<Process> {
        let mut before = self.place.processes();
        self.project.submit_plain("rust").await?;
        self.place.another(&self.project, &mut before).await
    }

    /// Whether the target has these agents, and is in use by them.
    pub async fn until_it_has(&self, agents: &[AgentGuid]) -> Result<Value> {
        let look = async || {
            let seen = self.seen().await.ok()?;
            let guids: Vec<AgentGuid> =
                serde_json::from_value(seen["currentAgentGuids"].clone()).ok()?;
            (guids == agents).then_some(seen)
        };
        self.project
            .eventually("the target has these agents", look)
            .await
    }
}

/// A registration as a program writes it that knows no SDK.
pub(crate) fn registration(guid: AgentGuid, run: &str, ticket: Option<&str>) -> Value {
    let mut registration = json!({
        "guid": guid, "instanceId": run, "handle": "newborn", "agentType": "fake",
        "capabilities": ["rust"], "heartbeatIntervalMs": 200,
    });
    if let Some(ticket) = ticket {
        registration["ticket"] = json!(ticket);
    }
    registration
}

pub(crate) async fn register(
    project: &TestProject,
    registration: &Value,
) -> Result<RegisterAnswer, WireError> {
    project.call("agents.register", registration).await
}

/// Every value in a bucket of the project, with what was there before, as text.
pub(crate) async fn content_of(project: &TestProject, stream: &str) -> Result<String> {
    let jetstream = async_nats::jetstream::new(project.client().clone());
    let Ok(mut stream) = jetstream.get_stream(stream).await else {
        return Ok(String::new());
    };
    let info = stream.info().await?.state.clone();
    let mut content = String::new();
    for sequence in info.first_sequence..=info.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            content.push_str(&String::from_utf8_lossy(&message.payload));
            let _ = write!(content, "{:?}", message.headers);
        }
    }
    Ok(content)
}

/// All that the store of a project holds.
pub(crate) async fn whole_store(project: &TestProject) -> Result<String> {
    let id = project.id();
    let mut content = String::new();
    for bucket in [
        names::agents_bucket(id),
        names::targets_bucket(id),
        names::work_bucket(id),
        names::graveyard_bucket(id),
    ] {
        content.push_str(&content_of(project, &format!("KV_{bucket}")).await?);
    }
    Ok(content)
}

/// All events of a project from now on, as text.
pub(crate) async fn events(project: &TestProject) -> Result<Events> {
    let subject = format!("loom.{}.>", project.id());
    let client = project.another_connection().await?.client().clone();
    let subscriber = client.subscribe(subject).await?;
    until_subscribed(&client).await?;
    Ok(Events(subscriber))
}

pub(crate) struct Events(async_nats::Subscriber);

impl Events {
    /// What has come so far.
    pub async fn so_far(&mut self) -> String {
        let mut said = String::new();
        while let Ok(Some(message)) =
            tokio::time::timeout(Duration::from_millis(300), self.0.next()).await
        {
            said.push_str(&String::from_utf8_lossy(&message.payload));
        }
        said
    }
}
