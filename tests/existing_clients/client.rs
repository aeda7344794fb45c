//! Such a client, and the fleet that it meets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, kv};
use loom_actors::clock::Clock;
use loom_protocol::agent::{Agent, AgentStatus, UnreadableEntry};
use loom_protocol::{AgentGuid, ProjectId, WireError, names};
use loom_testkit::fleet::{Fleet, FleetBuilder, PATIENCE, TestProject};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How long such a client may be silent, here.
pub const BARE_STALE: Duration = Duration::from_secs(3);
pub const STALE: Duration = Duration::from_secs(1);
/// So many looks in the time in which an entry is heard of say that it is not there, and not that the machine is busy.
const ENOUGH_LOOKS: u32 = 10;
const HOUR_MS: i64 = 3_600_000;

/// A coordinator with short clocks.
pub fn fleet() -> FleetBuilder {
    Fleet::builder().settings(|settings| {
        settings.agents.heartbeat_every = STALE / 5;
        settings.agents.stale_after = STALE;
        settings.agents.bare_stale_after = BARE_STALE;
    })
}

/// The bucket of all projects, made as such clients make it.
pub async fn make_bucket(project: &TestProject) -> Result<kv::Store> {
    let config = kv::Config {
        bucket: names::SHARED_AGENTS_BUCKET.to_owned(),
        history: 1,
        max_age: Duration::from_hours(24),
        ..kv::Config::default()
    };
    let jetstream = jetstream::new(project.client().clone());
    Ok(jetstream.create_key_value(config).await?)
}

/// A coordinator, a project of it, and the bucket of all projects.
pub async fn house(fleet: FleetBuilder) -> Result<(Fleet, TestProject, kv::Store)> {
    let fleet = fleet.start().await?;
    let project = fleet.project().await?;
    let bucket = make_bucket(&project).await?;
    Ok((fleet, project, bucket))
}

/// The bucket, if it is there.
pub async fn find_bucket(project: &TestProject) -> Option<kv::Store> {
    let jetstream = jetstream::new(project.client().clone());
    let bucket = jetstream.get_key_value(names::SHARED_AGENTS_BUCKET).await;
    bucket.ok()
}

/// A client that keeps one entry.
pub struct Client {
    pub guid: AgentGuid,
    pub key: String,
    pub bucket: kv::Store,
    project: ProjectId,
    /// The revision that it wrote last.
    pub revision: u64,
    /// When that was.
    pub put_at: Instant,
    /// How wrong its clock is, in hours.
    pub off_by: i64,
    beats: u64,
}

impl Client {
    pub fn new(bucket: &kv::Store, project: &ProjectId) -> Self {
        let guid = AgentGuid::generate();
        Self {
            guid,
            key: guid.to_string(),
            bucket: bucket.clone(),
            project: project.clone(),
            revision: 0,
            put_at: Instant::now(),
            off_by: 0,
            beats: 0,
        }
    }

    /// One that has put its entry, and is seen.
    pub async fn online(bucket: &kv::Store, project: &TestProject) -> Result<Self> {
        let mut client = Self::new(bucket, project.id());
        client.put().await?;
        is(project, client.guid, AgentStatus::Online).await?;
        Ok(client)
    }

    /// What it writes.
    pub fn entry(&self) -> Value {
        let now = Clock::system().now().as_millis() + self.off_by * HOUR_MS;
        let now = loom_protocol::Timestamp::from_millis(now);
        json!({
            "guid": self.key, "handle": "old client", "agentType": "claude-code", "hostname": "h",
            "projectId": self.project, "natsUrl": "nats://here", "capabilities": ["rust"],
            "visibility": "project-only", "scope": "team", "status": "online",
            "currentTaskCount": 0, "maxConcurrentTasks": 2, "registeredAt": now,
            "lastHeartbeat": now, "lastActivity": now, "beats": self.beats,
            "metadata": {"agentType": "claude-code", "boundaries": ["work"]},
        })
    }

    /// Its last put makes it online, for as long as it is heard of after one. Where the machine was too busy to ask
    /// in that time, it puts again; where it was asked and was not online, that is the finding.
    pub async fn is_online_by_its_put(
        &mut self,
        project: &TestProject,
        heard_of_for: Duration,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let (mut looks, mut last) = (0, None);
            while self.put_at.elapsed() < heard_of_for {
                let seen = seen(project, self.guid).await;
                if matches!(&seen, Ok(agent) if agent.status == AgentStatus::Online) {
                    return Ok(());
                }
                looks += 1;
                last = Some(seen.map(|agent| agent.status));
                // deliberate sleep: between two looks, before the deadline
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::ensure!(
                looks < ENOUGH_LOOKS && began.elapsed() < PATIENCE,
                "{} was asked for {looks} times within {heard_of_for:?} of its put, and was not online, but {last:?}",
                self.key
            );
            self.put().await?;
        }
    }

    pub async fn put(&mut self) -> Result<()> {
        let entry = self.entry().to_string();
        self.put_at = Instant::now();
        self.revision = self.bucket.put(&self.key, entry.into()).await?;
        Ok(())
    }

    /// Beats with the revision that it wrote last: nobody else may have written.
    pub async fn update(&mut self) -> Result<()> {
        self.beats += 1;
        let entry = self.entry().to_string();
        self.put_at = Instant::now();
        let updated = self.bucket.update(&self.key, entry.into(), self.revision);
        self.revision = updated.await.context("somebody wrote into the entry")?;
        Ok(())
    }

    pub async fn delete(&self) -> Result<()> {
        self.bucket.delete(&self.key).await?;
        Ok(())
    }

    /// Beats for ever, whatever happens.
    pub fn keep_beating(mut self, every: Duration) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let _ = self.put().await;
            }
        })
    }

    /// What the bucket holds is what it wrote last.
    pub async fn assert_untouched(&self) -> Result<()> {
        let entry = self.bucket.entry(&self.key).await?.context("no entry")?;
        assert_eq!(entry.revision, self.revision);
        Ok(())
    }
}

pub async fn seen(project: &TestProject, guid: AgentGuid) -> Result<Agent, WireError> {
    project.call("agents.get", &json!({ "guid": guid })).await
}

/// Waits until the agent has this status.
pub async fn is(project: &TestProject, guid: AgentGuid, status: AgentStatus) -> Result<Agent> {
    let what = format!("agent {guid} is {status}");
    let look = async || {
        let agent = seen(project, guid).await.ok()?;
        (agent.status == status).then_some(agent)
    };
    project.eventually(&what, look).await
}

/// Waits until the agent is there, whatever its status.
pub async fn is_there(project: &TestProject, guid: AgentGuid) -> Result<Agent> {
    let look = async || seen(project, guid).await.ok();
    project.eventually("the agent is there", look).await
}

/// Waits until the agent is not there.
pub async fn is_gone(project: &TestProject, guid: AgentGuid) -> Result<()> {
    let look = async || {
        let error = seen(project, guid).await.err()?;
        (error.code == loom_protocol::ErrorCode::NotFound).then_some(())
    };
    project.eventually("the agent is gone", look).await
}

pub async fn unreadable(project: &TestProject) -> Result<Vec<UnreadableEntry>, WireError> {
    project
        .call("agents.list", &json!({"unreadable": true, "limit": 1000}))
        .await
}
