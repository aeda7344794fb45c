//! After each step of a birth the actor dies, or the coordinator does, or another one takes over while it stands still:
//! still there is exactly one agent, its start is decided once, and nothing of it is left when it has gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use loom_actors::target_manager::BirthStep;
use loom_protocol::AgentGuid;
use loom_protocol::target::SpinUpStatus;
use loom_testkit::births::{Place, StepGate, a_while, came_to, operations, submit};
use loom_testkit::fleet::{Fleet, PATIENCE, Role};
use serde_json::json;
use tokio::time::timeout;

use crate::{get, register};

/// How long an agent may need to register while the coordinator is replaced: an ownership lasts up to 15 s.
const REGISTERED_WITHIN: Duration = PATIENCE.saturating_mul(2);

/// What happens in the middle of a birth.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// The actor that starts agents dies.
    Actor,
    /// The coordinator dies as by `kill -9`, and is started again.
    Coordinator,
    /// The coordinator stands still for longer than its ownership, another one takes over, and the first one goes on.
    Standstill,
    /// The same, and the first one never goes on.
    Replaced,
}

/// A fleet that stops where the gate is closed.
async fn fleet(gate: &StepGate) -> Result<Fleet> {
    let fleet = Fleet::builder()
        .on_birth_step(gate.hook())
        .settings(|settings| settings.agents.idle_grace = Duration::from_secs(1));
    fleet.start().await
}

async fn one_birth(
    fleet: &mut Fleet,
    gate: &StepGate,
    step: BirthStep,
    death: Death,
) -> Result<()> {
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    gate.close(step);
    submit(&project, 10).await?;
    let guid = AgentGuid::generate();
    // The last two steps are those of its registration.
    let registering = if matches!(step, BirthStep::EndWritten | BirthStep::Decided) {
        let (project, process) = (project.clone(), place.started(&project, 1).await?.remove(0));
        Some(tokio::spawn(async move {
            process.register_insistently(&project, guid).await
        }))
    } else {
        None
    };
    gate.reached().await?;
    let before = place.processes();
    let former = match death {
        Death::Actor => {
            project.kill(Role::TargetManager)?;
            project.wait_until_restarted(Role::TargetManager, 1).await?;
            None
        }
        Death::Coordinator => {
            fleet.crash().await?;
            fleet.start_again().await?;
            None
        }
        Death::Standstill | Death::Replaced => Some(fleet.replace().await?),
    };
    if matches!(death, Death::Standstill) {
        // It goes on where it stood, and does not know yet that it owns no longer.
        gate.open();
        if let Some(former) = &former {
            former.go_on();
        }
    }
    // The project is awake when its targets can be asked.
    project.insist("targets.list", json!({})).await?;
    let process = place.started(&project, 1).await?.remove(0);
    ensure!(
        before.is_empty() || before == [process.clone()],
        "it is the one of before"
    );
    match registering {
        Some(registering) => timeout(REGISTERED_WITHIN, registering).await???,
        None => process.register_insistently(&project, guid).await?,
    }
    let agent = process.register(&project, guid).await?;
    let decided = came_to(&project, SpinUpStatus::Success, "here").await?;
    a_while().await;
    ensure!(
        place.processes() == [process.clone()],
        "{:?}",
        place.processes()
    );
    ensure!(process.lives(), "whoever dies ends nobody");
    ensure!(
        operations(&project)? == [decided.clone()],
        "{:?}",
        operations(&project)?
    );
    ensure!(decided.agent_guid == Some(guid), "{decided:?}");
    let target = get(&project, "here").await?;
    ensure!(target.current_agent_guids == [guid], "{target:?}");
    ensure!(target.use_count == 1, "{target:?}");
    // Nobody else is born by its ticket.
    let second = process.redeem(&project, AgentGuid::generate()).await?;
    ensure!(second.is_err(), "a second birth: {second:?}");

    // It goes, and nothing waits for which another one would be started.
    project.insist("queue.purge", json!({"all": true})).await?;
    agent.deregister().await?;
    let is_free = async || {
        let target = get(&project, "here").await.ok()?;
        target.current_agent_guids.is_empty().then_some(target)
    };
    let target = project.eventually("the target is free", is_free).await?;
    place.until_empty(&project).await?;
    ensure!(target.use_count == 1, "{target:?}");
    ensure!(operations(&project)? == [decided], "an end is an end");
    drop(former);
    Ok(())
}

/// All steps, one after the other.
async fn at_each_step(death: Death) -> Result<()> {
    let gate = StepGate::default();
    let mut fleet = fleet(&gate).await?;
    for step in BirthStep::ALL {
        let birth = one_birth(&mut fleet, &gate, step, death).await;
        birth.with_context(|| format!("{death:?} after {step:?}"))?;
    }
    Ok(())
}

/// All steps at once, each in a fleet of its own: a takeover takes as long as an ownership lasts.
async fn at_each_step_at_once(death: Death) -> Result<()> {
    let births = BirthStep::ALL.map(|step| async move {
        let gate = StepGate::default();
        let mut fleet = fleet(&gate).await?;
        let birth = one_birth(&mut fleet, &gate, step, death).await;
        birth.with_context(|| format!("{death:?} after {step:?}"))
    });
    try_join_all(births).await.map(drop)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_coordinator_that_dies_after_any_step_of_a_birth_starts_exactly_one_agent() -> Result<()>
{
    at_each_step(Death::Coordinator).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_actor_that_dies_after_any_step_of_a_birth_starts_exactly_one_agent() -> Result<()> {
    at_each_step(Death::Actor).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_takeover_after_any_step_of_a_birth_starts_exactly_one_agent() -> Result<()> {
    at_each_step_at_once(Death::Replaced).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_former_owner_that_goes_on_after_any_step_of_a_birth_starts_nobody() -> Result<()> {
    at_each_step_at_once(Death::Standstill).await
}
