//! The coordinator dies between any two steps of a birth: still there is exactly one agent, and what it was started by is
//! decided once.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures_util::FutureExt as _;
use loom_actors::target_manager::{BirthStep, BirthStepHook};
use loom_protocol::AgentGuid;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_testkit::fleet::{Fleet, PATIENCE, Role, TestProject};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::place::{Place, Process, a_while, came_to, operations, submit};
use crate::{get, register};

/// Stands still when a step was done, for ever: whoever kills the coordinator then kills it there.
#[derive(Clone)]
struct StandsAt {
    step: Arc<Mutex<Option<BirthStep>>>,
    stands: watch::Sender<bool>,
}

impl StandsAt {
    fn new() -> Self {
        Self {
            step: Arc::default(),
            stands: watch::Sender::new(false),
        }
    }

    fn hook(&self) -> BirthStepHook {
        let this = self.clone();
        BirthStepHook::new(move |step| {
            let this = this.clone();
            async move {
                if *this.step.lock() == Some(step) {
                    this.stands.send_replace(true);
                    std::future::pending::<()>().await;
                }
            }
            .boxed()
        })
    }

    fn at(&self, step: Option<BirthStep>) {
        *self.step.lock() = step;
        self.stands.send_replace(false);
    }

    async fn reached(&self) -> Result<()> {
        let mut stands = self.stands.subscribe();
        timeout(PATIENCE, stands.wait_for(|stands| *stands)).await??;
        Ok(())
    }
}

/// Registers, again and again, as an agent does whose answer was lost.
async fn register_insistently(
    project: TestProject,
    process: Process,
    guid: AgentGuid,
) -> Result<()> {
    loop {
        match process.redeem(&project, guid).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => ensure!(error.code.is_transient(), "{error}"),
            // The coordinator is stopped.
            Err(_) => {}
        }
        // deliberate sleep: an agent pauses before it registers again
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_dies_after_any_step_of_a_birth_starts_exactly_one_agent() -> Result<()>
{
    let stands_at = StandsAt::new();
    let mut fleet = Fleet::builder()
        .on_birth_step(stands_at.hook())
        .start()
        .await?;
    for step in BirthStep::ALL {
        let (project, place) = (fleet.project().await?, Place::new()?);
        register(&project, place.target("here", 1)).await?;
        stands_at.at(Some(step));
        submit(&project, 10).await?;
        let guid = AgentGuid::generate();
        let registering = if matches!(step, BirthStep::EndWritten | BirthStep::Decided) {
            let process = place.started(&project, 1).await?.remove(0);
            let registering = register_insistently(project.clone(), process, guid);
            Some(tokio::spawn(registering))
        } else {
            None
        };
        stands_at.reached().await?;
        fleet.crash().await?;
        let before = place.processes();
        stands_at.at(None);
        fleet.start_again().await?;
        // The project is awake when its targets can be asked.
        project
            .insist("targets.list", serde_json::json!({}))
            .await?;
        let process = place.started(&project, 1).await?.remove(0);
        ensure!(before.is_empty() || before == [process.clone()], "{step:?}");
        match registering {
            Some(registering) => timeout(PATIENCE, registering).await???,
            None => register_insistently(project.clone(), process.clone(), guid).await?,
        }
        let agent = process.register(&project, guid).await?;
        let decided = came_to(&project, SpinUpStatus::Success, "here").await?;
        a_while().await;
        ensure!(
            place.processes() == [process.clone()],
            "{step:?}: {:?}",
            place.processes()
        );
        ensure!(process.lives(), "{step:?}: a dead coordinator ends nobody");
        ensure!(operations(&project)? == [decided.clone()], "{step:?}");
        let target = get(&project, "here").await?;
        ensure!(target.current_agent_guids == [guid], "{step:?}: {target:?}");
        ensure!(
            target.use_count == 1 && decided.agent_guid == Some(guid),
            "{step:?}"
        );
        agent.deregister().await?;
        // So that the next round has no agents that are expected.
        project
            .insist("targets.disable", serde_json::json!({"target": "here"}))
            .await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_actor_that_is_killed_during_a_birth_starts_exactly_one_agent() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 10).await?;
    for time in 1..=5 {
        project.kill(Role::TargetManager)?;
        project
            .wait_until_restarted(Role::TargetManager, time)
            .await?;
        for _ in 0..time * 50 {
            tokio::task::yield_now().await;
        }
    }
    let process = place.started(&project, 1).await?.remove(0);
    let guid = AgentGuid::generate();
    let agent = process.register(&project, guid).await?;
    a_while().await;
    assert_eq!(place.processes(), [process]);
    assert_eq!(get(&project, "here").await?.current_agent_guids, [guid]);
    drop(agent);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_ended_while_no_coordinator_lived_has_failed_and_what_runs_goes_on() -> Result<()> {
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.targets.max_concurrent = 2)
        .start()
        .await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 2)).await?;
    submit(&project, 2).await?;
    let processes = place.started(&project, 2).await?;
    let both_run = async || {
        let all = operations(&project).ok()?;
        let run = |operation: &&SpinUpOperation| operation.status == SpinUpStatus::InProgress;
        (all.iter().filter(run).count() == 2).then_some(())
    };
    project.eventually("both are in progress", both_run).await?;
    fleet.crash().await?;
    processes[0].kill();
    fleet.start_again().await?;
    project
        .insist("targets.list", serde_json::json!({}))
        .await?;
    let failed = came_to(&project, SpinUpStatus::Failed, "here").await?;
    assert_eq!(failed.operation_id, processes[0].start);
    let agent = processes[1]
        .register(&project, AgentGuid::generate())
        .await?;
    let born = came_to(&project, SpinUpStatus::Success, "here").await?;
    assert_eq!(born.operation_id, processes[1].start);
    assert!(processes[1].lives());
    assert_eq!(
        get(&project, "here").await?.current_agent_guids,
        [agent.guid()]
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn after_a_start_those_who_lived_before_have_the_time_to_be_heard() -> Result<()> {
    let mut fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let agent = project.agent("rust").spawn().await?;
    fleet.crash().await?;
    fleet.start_again().await?;
    register(&project, place.target("here", 1)).await?;
    // Another one can be done by nobody who is there; nobody knows that yet.
    submit(&project, 1).await?;
    a_while().await;
    assert_eq!(operations(&project)?, [], "an agent has not been heard");
    agent.heartbeat(serde_json::json!({})).await?;
    a_while().await;
    assert_eq!(operations(&project)?, [], "it is there");
    agent.deregister().await?;
    place.started(&project, 1).await?;
    Ok(())
}

/// NATS is away while agents are started and while they register: whatever was in doubt, each is there once.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_outage_of_nats_doubles_nobody_and_loses_nobody() -> Result<()> {
    let fleet = Fleet::own().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    submit(&project, 3).await?;
    let outage = async || -> Result<()> {
        fleet.nats().kill().await?;
        fleet.nats().restart().await
    };
    outage().await?;
    let (mut registering, mut known) = (Vec::new(), Vec::new());
    while registering.len() < 3 {
        let process = place.another(&project, &mut known).await?;
        let redeeming = register_insistently(project.clone(), process, AgentGuid::generate());
        registering.push(tokio::spawn(redeeming));
        outage().await?;
    }
    for registering in registering {
        timeout(PATIENCE, registering).await???;
    }
    let is_so = async || Some(get(&project, "here").await.ok()?).filter(|t| t.use_count == 3);
    let target = project.eventually("three are born", is_so).await?;
    a_while().await;
    assert_eq!(target.current_agent_guids.len(), 3);
    assert_eq!(place.processes().len(), 3);
    let all = operations(&project)?;
    ensure!(
        all.len() == 3 && all.iter().all(|o| o.status == SpinUpStatus::Success),
        "{all:?}"
    );
    Ok(())
}
