//! The coordinator, in either form, and its nats-server: what is broken and mended.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use loom_coordinator::settings::{Override, Settings, Sources, load};

use super::schedule::{Fault, Nature, Stage};
use super::world::{SETTLES, World};
use crate::fleet::{Fleet, PATIENCE, Role, TestProject};
use crate::history::Recorder;
use crate::process::{LoomProcess, LoomUp};

/// Clocks so short that a run meets all of them; both forms have the same.
const CLOCKS: [(&str, &str); 11] = [
    ("agents.heartbeat_every", "800ms"),
    ("agents.stale_after", "3s"),
    ("agents.bury_after", "10s"),
    ("work.start_timeout", "3s"),
    ("work.timeout", "4s"),
    ("work.retry.backoff_first", "100ms"),
    ("work.retry.backoff_max", "1s"),
    ("agents.idle_timeout", "2s"),
    ("agents.idle_grace", "1s"),
    ("targets.birth_timeout.local", "5s"),
    ("targets.cooldown", "300ms"),
];
/// The clocks of a run on a cluster: longer than the elections, which are nobody's silence but may look like it to those
/// that are connected to another server than the coordinator.
const CLUSTER_CLOCKS: [(&str, &str); 11] = [
    ("agents.heartbeat_every", "2s"),
    ("agents.stale_after", "12s"),
    ("agents.bury_after", "1m"),
    ("work.start_timeout", "12s"),
    ("work.timeout", "12s"),
    ("work.retry.backoff_first", "100ms"),
    ("work.retry.backoff_max", "1s"),
    ("agents.idle_timeout", "2s"),
    ("agents.idle_grace", "1s"),
    ("targets.birth_timeout.local", "15s"),
    ("targets.cooldown", "300ms"),
];
/// How often an actor may be killed without its project being parked: that is not what is tested here.
const RESTARTS: &str = "100000";
pub(super) struct House {
    fleet: Fleet,
    process: Option<LoomProcess>,
    up: LoomUp,
    project: TestProject,
    recorder: Recorder,
    restarts: Vec<(Role, u64)>,
}

impl House {
    pub async fn start(program: &Path, recorder: Recorder, cluster: bool) -> Result<Self> {
        let clocks = if cluster { CLUSTER_CLOCKS } else { CLOCKS };
        let settings = settings(&clocks)?;
        let mut builder = Fleet::builder().settings(|it| *it = settings);
        if cluster {
            builder = builder.cluster();
        }
        let fleet = builder.start().await?;
        let mut up = LoomUp::new(program)
            .on_nats(fleet.nats().url())
            .data_dir(fleet.data_dir());
        for (key, value) in clocks {
            up = up.set(key, value);
        }
        let project = fleet.project().await?;
        Ok(Self {
            fleet,
            process: None,
            up,
            project,
            recorder,
            restarts: Role::ALL.map(|role| (role, 0)).to_vec(),
        })
    }

    pub const fn project(&self) -> &TestProject {
        &self.project
    }

    pub fn nats_url(&self) -> String {
        self.fleet.nats().url()
    }

    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// How often each actor was started again, over all coordinators on threads.
    pub fn restarts(&mut self) -> Vec<(Role, u64)> {
        self.add_up_restarts();
        self.restarts.clone()
    }

    /// Breaks something, and mends it.
    pub async fn inflict(&mut self, fault: &Fault, world: &World) -> Result<()> {
        let disturbed = self.recorder.disturb(SETTLES);
        match fault {
            Fault::KillActors(roles) => self.kill_actors(roles, world).await?,
            Fault::Coordinator {
                nature: Nature::Pause,
                away,
                ..
            } => {
                let process = self.process.as_ref();
                let process = process.context("only a process can be paused")?;
                process.pause();
                tokio::time::sleep(*away).await;
                process.resume();
            }
            Fault::Coordinator {
                nature,
                away,
                back_as,
            } => {
                self.end(*nature).await?;
                tokio::time::sleep(*away).await;
                self.come_back(*back_as).await?;
            }
            Fault::Nats {
                nature,
                away,
                coordinator_too,
            } => {
                self.nats_away(*nature, *away, *coordinator_too).await?;
            }
            Fault::PauseAgents { .. }
            | Fault::KillAgents(_)
            | Fault::RunTwice(_)
            | Fault::AgentProcess { .. } => {}
        }
        drop(disturbed);
        Ok(())
    }

    async fn kill_actors(&mut self, roles: &[Role], world: &World) -> Result<()> {
        let mut killed = Vec::new();
        for role in roles {
            let before = self.project.restarts(*role)?;
            if self.project.kill(*role).is_ok() {
                killed.push((*role, before + 1));
            } else {
                world.count("actor was down already");
            }
        }
        for (role, times) in killed {
            self.project.wait_until_restarted(role, times).await?;
        }
        Ok(())
    }

    async fn nats_away(&mut self, nature: Nature, away: Duration, and_we: bool) -> Result<()> {
        let stage = self.stage();
        match nature {
            Nature::Stop => self.fleet.nats().stop().await?,
            Nature::Kill => self.fleet.nats().kill().await?,
            Nature::Pause => self.fleet.nats().pause()?,
        }
        if and_we {
            self.end(Nature::Kill).await?;
        }
        tokio::time::sleep(away).await;
        match nature {
            Nature::Pause => self.fleet.nats().resume()?,
            Nature::Stop | Nature::Kill => self.fleet.nats().restart().await?,
        }
        if and_we {
            self.come_back(stage).await?;
        }
        Ok(())
    }

    const fn stage(&self) -> Stage {
        match self.process {
            Some(_) => Stage::Process,
            None => Stage::Threads,
        }
    }

    async fn end(&mut self, nature: Nature) -> Result<()> {
        self.add_up_restarts();
        match (self.process.take(), nature) {
            (Some(mut process), Nature::Stop) => {
                process.terminate().await?;
            }
            (Some(mut process), _) => process.kill_9().await,
            (None, Nature::Stop) => self.fleet.stop().await?,
            (None, _) => self.fleet.crash().await?,
        }
        Ok(())
    }

    async fn come_back(&mut self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Process => self.process = Some(self.up.clone().start().await?),
            Stage::Threads => {
                self.fleet.start_again().await?;
                self.until_awake().await?;
            }
        }
        Ok(())
    }

    /// Actors can be killed only where they are.
    async fn until_awake(&self) -> Result<()> {
        let project = &self.project;
        project
            .eventually("the project is awake", async || project.parts().ok())
            .await?;
        for role in Role::ALL {
            project.wait_until_restarted(role, 0).await?;
        }
        Ok(())
    }

    fn add_up_restarts(&mut self) {
        for (role, sum) in &mut self.restarts {
            *sum += self.project.restarts(*role).unwrap_or(0);
        }
    }
}

/// The settings that these clocks stand for.
fn settings(clocks: &[(&str, &str)]) -> Result<Settings> {
    let clocks = clocks
        .iter()
        .copied()
        .chain([("supervision.max_restarts", RESTARTS)]);
    let flags = clocks.filter_map(|(key, value)| Override::given("--set", key, Some(value)));
    let sources = Sources {
        flags: flags.collect(),
        ..Sources::default()
    };
    Ok(load(&sources)?.settings)
}

/// How long it may take until every item has ended.
pub(super) const SETTLE_WITHIN: Duration = PATIENCE.saturating_mul(3);
