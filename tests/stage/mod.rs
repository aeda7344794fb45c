//! A fleet with short clocks for one scenario, whose coordinator may be killed in the middle.
#![allow(dead_code, reason = "each group of scenarios uses some of it")]

use std::time::Duration;

use anyhow::Result;
use loom_protocol::work::ClaimedItem;
use loom_testkit::agent::{FakeAgent, FakeAgentBuilder};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

/// Silence that makes an agent offline.
pub const STALE_AFTER: Duration = Duration::from_secs(2);
const BEAT_EVERY: Duration = Duration::from_millis(500);

/// What happens in the middle of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// Nothing.
    Quiet,
    /// The coordinator is killed and started again.
    Killed,
}

pub struct Stage {
    fleet: Fleet,
    pub project: TestProject,
    middle: Middle,
}

impl Stage {
    pub async fn open(middle: Middle) -> Result<Self> {
        let builder = Fleet::builder().settings(|settings| {
            settings.agents.heartbeat_every = BEAT_EVERY;
            settings.agents.stale_after = STALE_AFTER;
            settings.work.retry.backoff_first = Duration::from_millis(20);
            settings.work.retry.backoff_max = Duration::from_millis(100);
        });
        let fleet = builder.start().await?;
        let project = fleet.project().await?;
        Ok(Self {
            fleet,
            project,
            middle,
        })
    }

    /// The middle of the scenario is reached.
    pub async fn middle(&mut self) -> Result<()> {
        if self.middle == Middle::Killed {
            self.fleet.crash().await?;
            self.fleet.start_again().await?;
        }
        Ok(())
    }

    /// An agent whose heart beats fast enough for the clocks here.
    pub fn agent(&self, capability: &str) -> FakeAgentBuilder {
        self.project.agent(capability).heartbeat_every(BEAT_EVERY)
    }

    /// Waits until there is an item for the agent.
    pub async fn claim_one(&self, agent: &FakeAgent) -> Result<ClaimedItem> {
        let what = "an item to be claimed";
        let claimed = self.project.eventually(what, async || {
            let items = agent.claim(json!({ "waitMs": 1_000 })).await.ok()?;
            items.into_iter().next()
        });
        claimed.await
    }

    /// Waits until there are so many dead letters, and gives them: a letter is written after its item has failed.
    pub async fn until_dead_letters(&self, count: usize) -> Result<Vec<Value>> {
        let what = format!("{count} dead letters");
        let written = self.project.eventually(&what, async || {
            let letters = self.dead_letters().await.ok()?;
            (letters.len() >= count).then_some(letters)
        });
        written.await
    }

    /// Every dead letter that is written by now.
    pub async fn dead_letters(&self) -> Result<Vec<Value>> {
        let letters = self
            .project
            .insist("dlq.list", json!({ "limit": 1_000 }))
            .await?;
        Ok(serde_json::from_value(letters)?)
    }

    /// Waits until there is no dead letter.
    pub async fn until_no_dead_letter(&self) -> Result<()> {
        let gone = self
            .project
            .eventually("the dead letters are gone", async || {
                let letters = self.dead_letters().await.ok()?;
                letters.is_empty().then_some(())
            });
        gone.await
    }
}

/// One scenario, and the same with the coordinator killed in the middle.
macro_rules! scenario {
    ($name:ident, $middle:ident, $body:block) => {
        mod $name {
            use super::*;

            async fn told($middle: Middle) -> Result<()> $body

            #[tokio::test]
            #[ignore = "needs a nats-server: run `cargo xtask test`"]
            async fn undisturbed() -> Result<()> {
                told(Middle::Quiet).await
            }

            #[tokio::test]
            #[ignore = "needs a nats-server: run `cargo xtask test`"]
            async fn with_the_coordinator_killed_in_the_middle() -> Result<()> {
                told(Middle::Killed).await
            }
        }
    };
}

pub(crate) use scenario;
