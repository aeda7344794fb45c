//! Agents that are started where work waits: as few as are needed, by the next target where one fails, and nothing of
//! them left where they do not come.

use std::time::Duration;

use anyhow::{Result, ensure};
use loom_actors::clock::Clock;
use loom_protocol::agent::AgentStatus;
use loom_protocol::event::{Event, SpinUpEventKind};
use loom_protocol::target::{SpinUpStatus, TargetStatus};
use loom_protocol::{AgentGuid, ErrorCode};
use loom_testkit::agent::FakeAgent;
use loom_testkit::births::{Place, a_while, came_to, operations, submit};
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};

use crate::{get, register};

/// Lets every process that is started register, until so many agents are there.
pub(crate) async fn let_register(
    project: &TestProject,
    place: &Place,
    count: usize,
) -> Result<Vec<FakeAgent>> {
    let (mut agents, mut known) = (Vec::new(), Vec::new());
    while agents.len() < count {
        let process = place.another(project, &mut known).await?;
        agents.push(process.register(project, AgentGuid::generate()).await?);
    }
    Ok(agents)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_hundred_submits_at_once_start_exactly_as_many_agents_as_may_be() -> Result<()> {
    let fleet = Fleet::shared().await?;
    for most in [1, 5] {
        let (project, place) = (fleet.project().await?, Place::new()?);
        let mut signals = project.signals().await?;
        let count = usize::try_from(most)?;
        register(&project, place.target("here", most)).await?;
        submit(&project, 100).await?;
        let agents = let_register(&project, &place, count).await?;
        a_while().await;
        // Counted again, nobody is missing.
        submit(&project, 3).await?;
        project.kill(Role::TargetManager)?;
        project.wait_until_restarted(Role::TargetManager, 1).await?;
        a_while().await;
        ensure!(place.processes().len() == count, "{:?}", place.processes());
        let target = get(&project, "here").await?;
        assert_eq!(target.current_agent_guids.len(), count);
        assert_eq!(
            (target.status, target.use_count),
            (TargetStatus::InUse, u64::from(most))
        );
        let all = operations(&project)?;
        ensure!(all.len() == count && all.iter().all(|o| o.status == SpinUpStatus::Success));
        for kind in [
            SpinUpEventKind::Triggered,
            SpinUpEventKind::Started,
            SpinUpEventKind::Completed,
        ] {
            let told = signals.spin_up(kind, "here").await?;
            assert_eq!(told.capability.as_deref(), Some("rust"));
            assert!(told.work_id.is_some());
        }
        drop(agents);
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ticket_is_for_one_agent_and_for_what_it_was_started_as() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let target = register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let (guid, other) = (AgentGuid::generate(), AgentGuid::generate());
    let manager = project.parts()?.target_manager.clone();
    let refused = async |newborn| {
        let outcome = manager.redeem(&process.ticket(), newborn).await;
        let error = outcome.expect_err("it is refused");
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        assert_eq!(error.details, Some(json!({"ticket": "refused"})));
    };
    let mut more = process.newborn(guid);
    more.capabilities.push("deploy".into());
    refused(more).await;
    let agent = process.register(&project, guid).await?;
    let again = process.redeem(&project, guid).await??;
    assert_eq!(again, target.id);
    refused(process.newborn(other)).await;
    let mut another_run = process.newborn(guid);
    another_run.instance_id = Some("another".into());
    refused(another_run).await;
    let linked = project.parts()?.targets.linked(guid);
    assert_eq!(
        linked.map(|linked| (linked.target_id, linked.operation_id)),
        Some((target.id, process.start))
    );

    // When it has left, its ticket is worth nothing, and what waits gets another agent.
    agent.deregister().await?;
    place.started(&project, 2).await?;
    refused(process.newborn(guid)).await;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_target_that_fails_rests_and_the_next_one_starts() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut broken = place.target("a-broken", 1);
    broken["config"] = json!({"command": "echo no such luck >&2; exit 3"});
    let mut missing = place.target("b-missing", 1);
    missing["config"] = json!({"command": "/nowhere/at/all", "args": ["x"]});
    register(&project, broken).await?;
    register(&project, missing).await?;
    register(&project, place.target("c-works", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    process.register(&project, AgentGuid::generate()).await?;
    let failed = came_to(&project, SpinUpStatus::Failed, "a-broken").await?;
    let output = failed.output.unwrap_or_default();
    ensure!(output.contains("no such luck"), "{output}");
    ensure!(failed.error.is_some_and(|error| error.contains('3')));
    let failed = came_to(&project, SpinUpStatus::Failed, "b-missing").await?;
    ensure!(
        failed
            .error
            .is_some_and(|error| error.contains("/nowhere/at/all"))
    );
    a_while().await;
    let (all, resting) = (operations(&project)?, get(&project, "a-broken").await?);
    assert_eq!(all.len(), 3, "each target was tried once");
    assert_eq!(resting.status, TargetStatus::Error);
    assert_eq!(place.processes().len(), 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_does_not_register_in_time_is_ended_and_its_agent_may_come_late_where_there_is_room()
-> Result<()> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.targets.birth_timeout.local = Duration::from_secs(1);
    });
    let fleet = fleet.start().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let target = register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let given_up = came_to(&project, SpinUpStatus::Timeout, "here").await?;
    assert!(!process.lives(), "it was ended before that was decided");
    assert_eq!(given_up.operation_id, process.start);
    let resting = get(&project, "here").await?;
    assert_eq!(resting.status, TargetStatus::Error);
    // Something of it was not known to its mechanism, and registers after all.
    let late = process.redeem(&project, AgentGuid::generate()).await??;
    assert_eq!(late, target.id);
    let target = get(&project, "here").await?;
    assert_eq!((target.status, target.use_count), (TargetStatus::InUse, 1));
    assert_eq!(operations(&project)?[0].status, SpinUpStatus::Success);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_disabled_target_starts_nothing_and_a_person_is_told_so() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut off = place.target("here", 1);
    off["enabled"] = false.into();
    let target = register(&project, off).await?;
    submit(&project, 10).await?;
    a_while().await;
    assert_eq!(operations(&project)?, []);
    let manager = project.parts()?.target_manager.clone();
    let refused = manager.trigger(&target, None, None).await;
    let refused = refused.expect_err("it is disabled");
    assert_eq!(refused.code.status(), 409, "{refused}");
    assert_eq!(
        refused.details.map(|d| d["rule"].clone()),
        Some("disabled".into())
    );
    let _: Value = project
        .call("targets.enable", &json!({"target": "here"}))
        .await?;
    place.started(&project, 1).await?;
    let refused = manager.trigger(&target, None, None).await;
    let refused = refused.expect_err("it is full");
    assert_eq!(
        refused.details.map(|d| d["rule"].clone()),
        Some("full".into())
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn only_what_may_be_offered_now_starts_somebody_and_whoever_is_there_is_not_doubled()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    let agent = project.agent("rust").spawn().await?;
    let later =
        json!({"description": "d", "capability": "rust", "notBefore": "2126-01-01T00:00:00Z"});
    project.submit(later).await?;
    let elsewhere = json!({"description": "d", "capability": "rust", "requiredAgentType": "codex"});
    project.submit(elsewhere).await?;
    project.submit_plain("go").await?;
    project.submit_plain("rust").await?;
    a_while().await;
    assert_eq!(
        operations(&project)?,
        [],
        "its agent is there, or none can serve it"
    );
    agent.deregister().await?;
    let process = place.started(&project, 1).await?.remove(0);
    a_while().await;
    assert_eq!(place.processes(), [process], "one item waits");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_person_starts_an_agent_and_ends_it_by_its_mechanism() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let target = register(&project, place.target("here", 1)).await?;
    let manager = project.parts()?.target_manager.clone();
    let begun = manager.trigger(&target, None, None).await?;
    let process = place.started(&project, 1).await?.remove(0);
    assert_eq!(begun.operation_id, process.start);
    let agent = process.register(&project, AgentGuid::generate()).await?;
    manager
        .end_agent(agent.guid(), Duration::from_secs(1))
        .await?;
    let ended = async || (!process.lives()).then_some(());
    project.eventually("the end of the process", ended).await?;
    agent.deregister().await?;
    let is_free = async || {
        Some(get(&project, "here").await.ok()?).filter(|t| t.current_agent_guids.is_empty())
    };
    project.eventually("room at the target", is_free).await?;
    let nobody = manager
        .end_agent(AgentGuid::generate(), Duration::ZERO)
        .await;
    assert_eq!(nobody.expect_err("nobody").code, ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_is_born_is_expected_until_it_is_there() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let guid = AgentGuid::generate();
    process.redeem(&project, guid).await??;
    a_while().await;
    assert_eq!(place.processes().len(), 1, "one item waits");
    let agent = process.register(&project, guid).await?;
    a_while().await;
    assert_eq!(place.processes(), [process]);
    drop(agent);
    Ok(())
}

/// A fleet whose agents count as gone after a second.
async fn impatient() -> Result<Fleet> {
    let fleet = Fleet::builder().settings(|settings| {
        settings.agents.stale_after = Duration::from_secs(1);
        settings.agents.heartbeat_every = Duration::from_millis(300);
    });
    fleet.start().await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_known_before_its_birth_is_expected_until_that_run_is_there() -> Result<()>
{
    let fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    submit(&project, 1).await?;
    let mut known = Vec::new();
    let process = place.another(&project, &mut known).await?;
    let agent = process.register(&project, AgentGuid::generate()).await?;
    let guid = agent.guid();
    process.kill();
    agent.die();
    let next = place.another(&project, &mut known).await?;
    // Room is made as soon as it is offline; the link goes when its mechanism has said that its process has ended.
    let targets = &project.parts()?.targets;
    let unlinked = async || targets.linked(guid).is_none().then_some(());
    project.eventually("its link is gone", unlinked).await?;
    next.redeem(&project, guid).await??;
    // It is looked at once more, since there is more room.
    let update = json!({"target": "here", "updates": {"maxAgents": 4}});
    let _: Value = project.call("targets.update", &update).await?;
    a_while().await;
    assert_eq!(place.processes().len(), 2, "one item waits");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_killed_makes_room_for_another_one() -> Result<()> {
    let fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let agent = process.register(&project, AgentGuid::generate()).await?;
    let guid = agent.guid();
    process.kill();
    agent.die();
    let processes = place.started(&project, 2).await?;
    assert!(project.parts()?.targets.linked(guid).is_none());
    a_while().await;
    assert_eq!(place.processes(), processes);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_runs_and_is_silent_takes_its_place_still() -> Result<()> {
    let fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut signals = project.signals().await?;
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let agent = process.register(&project, AgentGuid::generate()).await?;
    let guid = agent.guid();
    agent.die();
    let offline = |event: &Event| match event {
        Event::Agent(event) if event.agent.guid == guid => {
            (event.new_status == Some(AgentStatus::Offline)).then_some(())
        }
        _ => None,
    };
    signals.find("that it is offline", offline).await?;
    a_while().await;
    assert_eq!(place.processes(), [process]);
    assert!(project.parts()?.targets.linked(guid).is_some());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_born_and_never_registered_makes_room_for_another_one() -> Result<()> {
    let fleet = impatient().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let guid = AgentGuid::generate();
    process.redeem(&project, guid).await??;
    assert!(project.parts()?.targets.linked(guid).is_some());
    place.started(&project, 2).await?;
    assert!(project.parts()?.targets.linked(guid).is_none());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_target_whose_group_rests_is_not_used_until_that_is_over() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut target = place.target("here", 1);
    target["limitGroup"] = "account".into();
    register(&project, target).await?;
    let member = project.agent("go").field("limitGroup", json!("account"));
    let member = member.spawn().await?;
    let now = Clock::system().now();
    let until = now.after(Duration::from_secs(3));
    let parts = project.parts()?;
    parts
        .registry
        .pause(member.guid(), until, "a limit")
        .await?;
    submit(&project, 1).await?;
    a_while().await;
    assert_eq!(operations(&project)?, []);
    place.started(&project, 1).await?;
    assert!(Clock::system().now() >= until, "not before it is over");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn no_more_starts_are_under_way_than_may_be() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let target = register(&project, place.target("here", 20)).await?;
    submit(&project, 20).await?;
    place.started(&project, 3).await?;
    a_while().await;
    let processes = place.processes();
    assert_eq!(processes.len(), 3, "targets.max_concurrent");
    let manager = project.parts()?.target_manager.clone();
    let refused = manager.trigger(&target, None, None).await;
    assert_eq!(refused.expect_err("too many").code, ErrorCode::Overloaded);
    let _first = processes[0]
        .register(&project, AgentGuid::generate())
        .await?;
    place.started(&project, 4).await?;
    a_while().await;
    assert_eq!(place.processes().len(), 4);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn more_starts_than_a_record_takes_at_once_follow_when_it_has_taken_the_first() -> Result<()>
{
    let fleet = Fleet::builder().settings(|settings| settings.targets.max_concurrent = 140);
    let fleet = fleet.start().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    // What waits is there before the target is: all its agents are missing at once.
    submit(&project, 70).await?;
    register(&project, place.target("here", 70)).await?;
    place.started(&project, 70).await?;
    a_while().await;
    assert_eq!(place.processes().len(), 70);
    Ok(())
}
