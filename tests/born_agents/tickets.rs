//! The ticket: who may register with it, how often, and where it is never seen.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use loom_actors::target_manager::BirthStep;
use loom_protocol::{AgentGuid, ErrorCode, WireError};
use loom_testkit::births::StepGate;
use loom_testkit::fleet::TestProject;
use serde_json::{Value, json};

use crate::fixture::{Reporting, events, quick_fleet, register, registration, whole_store};

fn is_refused(error: &WireError) -> bool {
    let details = error.details.as_ref();
    error.code == ErrorCode::Forbidden && details.is_some_and(|it| it["ticket"] == "refused")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_is_born_by_its_ticket_once_and_the_ticket_is_seen_nowhere() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let mut heard = events(&project).await?;
    let started = here.start().await?;
    let guid = AgentGuid::generate();

    let with_ticket = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
    let answer = project
        .request("agents.register", with_ticket.clone())
        .await?;
    ensure!(answer["targetId"] == json!(here.target.id), "{answer}");
    let target = here.until_it_has(&[guid]).await?;
    ensure!(
        target["status"] == "in-use" && target["useCount"] == 1,
        "{target}"
    );
    ensure!(target["lastSpinUp"]["outcome"] == "success", "{target}");
    ensure!(target["lastSpinUp"]["agent"] == json!(guid), "{target}");
    let stats = project.request("stats", json!({})).await?;
    ensure!(
        stats["targets"]["inUse"] == 1 && stats["targets"]["available"] == 0,
        "{stats}"
    );

    // The same run again is the same birth, with the ticket and without.
    for again in [&with_ticket, &registration(guid, "run-1", None)] {
        let answer = register(&project, again).await?;
        assert_eq!(answer.agent.target_id, Some(here.target.id.to_string()));
    }
    // Anybody else is a second birth.
    for other in [
        registration(guid, "run-2", Some(started.variable("LOOM_TICKET"))),
        registration(
            AgentGuid::generate(),
            "run-1",
            Some(started.variable("LOOM_TICKET")),
        ),
    ] {
        let refused = register(&project, &other)
            .await
            .expect_err("a ticket is for one agent");
        ensure!(is_refused(&refused), "{refused:?}");
        ensure!(refused.message.contains("one agent"), "{refused}");
        ensure!(!refused.message.contains(started.variable("LOOM_TICKET")));
    }
    let target = here.until_it_has(&[guid]).await?;
    ensure!(target["useCount"] == 1, "{target}");

    // It is known by its digest only.
    let answers = [
        answer,
        target,
        project.request("agents.get", json!({"guid": guid})).await?,
        project
            .request("targets.list", json!({"includeDisabled": true}))
            .await?,
    ];
    let said = format!(
        "{answers:?} {} {}",
        heard.so_far().await,
        whole_store(&project).await?
    );
    ensure!(
        said.contains(&guid.to_string()),
        "it was looked for in the right place"
    );
    ensure!(
        !said.contains(started.variable("LOOM_TICKET")),
        "the ticket was told"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_ten_who_register_with_one_ticket_at_once_one_is_born() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let started = here.start().await?;
    let rivals: Vec<(AgentGuid, Value)> = (0..10)
        .map(|number| {
            let guid = AgentGuid::generate();
            let run = format!("run-{number}");
            (
                guid,
                registration(guid, &run, Some(started.variable("LOOM_TICKET"))),
            )
        })
        .collect();
    let at_once = rivals.iter().map(|(_, rival)| register(&project, rival));
    let outcomes = join_all(at_once).await;
    let mut born = Vec::new();
    for ((guid, _), outcome) in rivals.iter().zip(outcomes) {
        match outcome {
            Ok(_) => born.push(*guid),
            Err(refused) => ensure!(is_refused(&refused), "{refused:?}"),
        }
    }
    assert_eq!(born.len(), 1);
    here.until_it_has(&born).await?;
    let agents = project.request("agents.list", json!({})).await?;
    assert_eq!(agents.as_array().map(Vec::len), Some(1), "{agents}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ticket_is_not_used_up_by_what_is_refused_and_allows_no_more_than_its_target()
-> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let started = here.start().await?;
    let ticket = Some(started.variable("LOOM_TICKET"));
    let other_than = |field: &str, value: Value| {
        let mut registration = registration(AgentGuid::generate(), "run-0", ticket);
        registration[field] = value;
        registration
    };
    for (field, value) in [
        ("agentType", json!("codex")),
        ("capabilities", json!(["rust", "payroll"])),
        ("boundaries", json!(["default", "secret"])),
        // What an older client says there counts too.
        ("metadata", json!({"boundaries": ["secret"]})),
    ] {
        let refused = register(&project, &other_than(field, value)).await;
        let refused = refused.expect_err("it is more than it was started as");
        ensure!(is_refused(&refused), "{field}: {refused:?}");
    }
    let malformed = register(&project, &other_than("handle", json!("a/b"))).await;
    let malformed = malformed.expect_err("that is no handle");
    assert_eq!(malformed.code, ErrorCode::InvalidToken, "{malformed}");
    assert_eq!(here.seen().await?["useCount"], 0);

    // One that names no id is the same agent when it registers again.
    let mut nameless = registration(AgentGuid::generate(), "run-1", ticket);
    nameless.as_object_mut().map(|fields| fields.remove("guid"));
    let born = register(&project, &nameless).await?;
    let again = register(&project, &nameless).await?;
    assert_eq!(born.agent.guid, again.agent.guid);
    here.until_it_has(&[born.agent.guid]).await?;

    // Nor does it become more later, with its ticket or without.
    let mut more = registration(born.agent.guid, "run-1", ticket);
    more["capabilities"] = json!(["rust", "payroll"]);
    for with_ticket in [true, false] {
        if !with_ticket {
            more.as_object_mut().map(|fields| fields.remove("ticket"));
        }
        let refused = register(&project, &more).await;
        let refused = refused.expect_err("it is more than it was started as");
        ensure!(is_refused(&refused), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_ticket_that_nobody_gave_out_is_refused_and_makes_no_project() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let invented = format!("loom-ticket-{}", "0".repeat(64));
    for ticket in [invented.as_str(), "", "x"] {
        let forged = registration(AgentGuid::generate(), "run-1", Some(ticket));
        let refused = register(&project, &forged)
            .await
            .expect_err("nobody gave it out");
        ensure!(is_refused(&refused), "{refused:?}");
    }
    let jetstream = async_nats::jetstream::new(project.client().clone());
    let made = loom_protocol::names::work_stream(project.id());
    ensure!(
        jetstream.get_stream(made).await.is_err(),
        "a refusal makes no project"
    );
    Reporting::register(&project).await?;
    let forged = registration(AgentGuid::generate(), "run-1", Some(&invented));
    let refused = register(&project, &forged)
        .await
        .expect_err("nobody gave it out");
    ensure!(is_refused(&refused), "{refused:?}");
    // Without a ticket it is an agent like any other, whatever it was told of targets.
    let guid = AgentGuid::generate();
    let plain = register(&project, &registration(guid, "run-1", None)).await?;
    assert_eq!(plain.agent.target_id, None);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_birth_outlives_the_coordinator_at_every_moment_of_it() -> Result<()> {
    let gate = StepGate::default();
    // A process that was begun just now is ended with a coordinator of this process: its target rests then.
    let fleet = quick_fleet()
        .on_birth_step(gate.hook())
        .settings(|settings| settings.targets.cooldown = Duration::from_secs(1));
    let mut fleet = fleet.start().await?;
    let project = fleet.project().await?;
    let here = Reporting::with(&project, &json!({"maxAgents": 20})).await?;
    // How long a registration takes: the coordinator dies at each tenth of that, and right after each of its steps.
    let started = here.start().await?;
    let guid = AgentGuid::generate();
    let first = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
    let began = Instant::now();
    register(&project, &first).await?;
    let undisturbed = began.elapsed();
    leaves(&project, guid).await?;
    let tenths = (0..=10).map(|tenth| Moment::Time(undisturbed * tenth / 10));
    let steps = [BirthStep::EndWritten, BirthStep::Decided].map(Moment::Step);
    for (moment, births) in tenths.chain(steps).zip(2..) {
        let started = here.start().await?;
        let guid = AgentGuid::generate();
        let with_ticket = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
        if let Moment::Step(step) = moment {
            gate.close(step);
        }
        send(&project, &with_ticket).await?;
        match moment {
            Moment::Step(_) => gate.reached().await?,
            // deliberate sleep: until the moment at which the coordinator dies
            Moment::Time(after) => tokio::time::sleep(after).await,
        }
        fleet.crash().await?;
        gate.open();
        fleet.start_again().await?;
        let born = project
            .insist("agents.register", with_ticket.clone())
            .await?;
        ensure!(born["targetId"] == json!(here.target.id), "{born}");
        let again = project
            .insist("agents.register", registration(guid, "run-1", None))
            .await?;
        ensure!(again["targetId"] == json!(here.target.id), "{again}");
        let ticket = Some(started.variable("LOOM_TICKET"));
        let other = registration(AgentGuid::generate(), "run-2", ticket);
        let refused = project.insist("agents.register", other).await;
        ensure!(is_refused(&refused.expect_err("a second birth")));
        let seen = here.seen().await?;
        let guids = seen["currentAgentGuids"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        ensure!(guids.contains(&json!(guid)), "{seen}");
        ensure!(seen["useCount"] == json!(births), "{moment:?}: {seen}");
        leaves(&project, guid).await?;
    }
    Ok(())
}

/// When the coordinator dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// So long after the registration was sent.
    Time(Duration),
    /// When this was done.
    Step(BirthStep),
}

/// Sends a registration and does not wait for its answer.
async fn send(project: &TestProject, registration: &Value) -> Result<()> {
    let sender = project.another_connection().await?;
    let client = sender.client();
    let subject = loom_protocol::names::request(project.id(), "agents.register");
    let body = registration.to_string().into();
    client
        .publish_with_reply(subject, client.new_inbox(), body)
        .await?;
    client.flush().await?;
    Ok(())
}

/// An agent goes, and nothing is left for which somebody else would be started.
async fn leaves(project: &TestProject, guid: AgentGuid) -> Result<()> {
    project.insist("queue.purge", json!({"all": true})).await?;
    project
        .insist("agents.deregister", json!({"guid": guid}))
        .await?;
    Ok(())
}
