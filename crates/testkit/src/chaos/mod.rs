//! Breaks everything that can be broken, at random, while agents work, and judges what they saw.
//!
//! A run is made of its seed: which fault comes when, for how long and in which form of the coordinator (on threads
//! of this process, where single actors can be killed, or as a child process, which can be killed and stopped by
//! signals) is a pure function of it ([`Schedule::draw`]). What falls between two steps of an item is up to the
//! machine, so a seed that failed should be run several times.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loom_testkit::chaos::Chaos;
//!
//! let report = Chaos::new("target/debug/loom", 7).run().await?;
//! println!("{report}");
//! assert!(report.is_sound());
//! # Ok(())
//! # }
//! ```
//!
//! | who | does what |
//! |---|---|
//! | 4 steady agents | know everything, are everywhere, keep every clock: no lease may be taken from them |
//! | 16 rough agents | some capabilities and boundaries; complete late and twice, fail, forget, lie, meet limits, publish garbage; are stopped and die |
//! | 2 agent processes | `loom agent run` with a capability of their own; are stopped past their leases and killed |
//! | 6 local targets | start `loom agent run` for a capability of their own: sound, failing, hanging, starting two with one ticket, killing what was born, disabled |
//! | submitters | one by one, in arrays, by publishing; some with `notBefore` or a `deadline`; some items are called off |
//! | the schedule | kills and stops actors, coordinator, nats-server and rough agents |
//!
//! When the schedule is through, everything is mended, the rough agents behave, and every item has to end.

mod agent;
mod garbage;
mod house;
mod jobs;
mod load;
mod processes;
mod report;
mod schedule;
mod settle;
mod targets;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub use report::ChaosReport;
pub use schedule::{Fault, Nature, Planned, Schedule, Stage};

use crate::history::Recorder;
use house::House;
use processes::Processes;
use targets::Targets;
use world::World;

/// A run that is to come.
#[derive(Debug, Clone)]
pub struct Chaos {
    program: PathBuf,
    seed: u64,
    length: Duration,
    per_second: u32,
    cluster: Option<Duration>,
}

impl Chaos {
    /// A run of 20 s with 25 items a second; `program` is the `loom` to be started.
    pub fn new(program: impl Into<PathBuf>, seed: u64) -> Self {
        Self {
            program: program.into(),
            seed,
            length: Duration::from_secs(20),
            per_second: 25,
            cluster: None,
        }
    }

    /// On three nats-servers with three copies of everything, where nothing else breaks but that one after the other is
    /// killed, so often.
    #[must_use]
    pub const fn cluster(mut self, kill_every: Duration) -> Self {
        self.cluster = Some(kill_every);
        self
    }

    /// Breaks things for so long.
    #[must_use]
    pub const fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// Submits so many items a second.
    #[must_use]
    pub const fn per_second(mut self, items: u32) -> Self {
        self.per_second = items;
        self
    }

    /// Runs it, telling on stderr what is broken. An error is a failure of the run itself, not of Loom.
    pub async fn run(&self) -> Result<ChaosReport> {
        let schedule = match self.cluster {
            Some(kill_every) => Schedule::of_cluster(self.length, kill_every),
            None => Schedule::draw(self.seed, self.length),
        };
        // It is started in a folder of its own.
        let program = std::path::absolute(&self.program)?;
        let mut house = House::start(&program, Recorder::new(), self.cluster.is_some()).await?;
        let world = World::new(house.project().clone(), house.recorder().clone(), self.seed);
        let mut crowd = agent::Crowd::spawn(&world).await?;
        let mut processes = Processes::start(&world, &program, &house.nats_url()).await?;
        let targets = Targets::start(&world, &program).await?;
        let load = load::Load::start(&world, self.per_second);
        for planned in &schedule.faults {
            // deliberate sleep: the schedule says when
            tokio::time::sleep(planned.after).await;
            world.tell(&planned.fault.to_string());
            match &planned.fault {
                Fault::PauseAgents { which, pause } => crowd.pause(which, *pause),
                Fault::KillAgents(which) => crowd.kill(which).await?,
                Fault::RunTwice(which) => crowd.run_twice(*which).await?,
                Fault::AgentProcess {
                    which,
                    nature,
                    away,
                } => processes.inflict(*which, *nature, *away).await?,
                fault => house.inflict(fault, &world).await?,
            }
            world.count(planned.fault.kind());
        }
        let accepted = load.stop().await;
        world.calm_down();
        let began = std::time::Instant::now();
        let settled = settle::until_quiet(&world).await?;
        crowd.request_scale_in();
        let history = world.recorder.history();
        let of_targets = targets
            .judge(&accepted.for_targets, &settled.of_targets)
            .await?;
        Ok(ChaosReport {
            seed: self.seed,
            settled_within: began.elapsed(),
            verdict: history.check(&settled.state),
            processes: (
                accepted.for_processes.len(),
                processes.judge(&accepted.for_processes, &settled.of_processes),
            ),
            targets: (accepted.for_targets.len(), of_targets),
            counts: world.counts(),
            restarts: house.restarts(),
            at_the_end: settled.state,
        })
    }
}
