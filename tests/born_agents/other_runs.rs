//! Of an agent that was born from a target another run registers without its ticket: that is another agent.

use anyhow::{Result, ensure};
use loom_protocol::AgentGuid;
use serde_json::json;

use crate::fixture::{Reporting, quick_fleet, register, registration};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn another_run_without_the_ticket_is_another_agent_and_the_process_of_old_is_ended()
-> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    for other_run in [Some("run-2"), None] {
        let started = here.start().await?;
        let guid = AgentGuid::generate();
        let born = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
        register(&project, &born).await?;
        here.until_it_has(&[guid]).await?;
        project.request("queue.purge", json!({"all": true})).await?;

        let mut other = registration(guid, "run-2", None);
        if other_run.is_none() {
            other
                .as_object_mut()
                .map(|fields| fields.remove("instanceId"));
        }
        let other = register(&project, &other).await?;
        ensure!(other.agent.target_id.is_none(), "{other_run:?}: {other:?}");
        here.until_it_has(&[]).await?;
        let beat = json!({"guid": guid, "instanceId": other_run});
        let ended = async || {
            // The run that is the agent now lives, so that only the run is what tells them apart.
            project
                .request("agents.heartbeat", beat.clone())
                .await
                .ok()?;
            (!started.lives()).then_some(())
        };
        project
            .eventually("the process of old is ended", ended)
            .await?;
        let listed = project.request("agents.get", json!({"guid": guid})).await?;
        ensure!(listed["status"] == "online", "{listed}");
        project
            .request(
                "agents.deregister",
                json!({"guid": guid, "instanceId": other_run}),
            )
            .await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_never_named_its_run_is_known_by_its_ticket_only() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let started = here.start().await?;
    let guid = AgentGuid::generate();
    let mut nameless = registration(guid, "", Some(started.variable("LOOM_TICKET")));
    nameless
        .as_object_mut()
        .map(|fields| fields.remove("instanceId"));
    for _ in 0..2 {
        let born = register(&project, &nameless).await?;
        ensure!(
            born.agent.target_id == Some(here.target.id.to_string()),
            "{born:?}"
        );
    }
    project.request("queue.purge", json!({"all": true})).await?;
    nameless
        .as_object_mut()
        .map(|fields| fields.remove("ticket"));
    let other = register(&project, &nameless).await?;
    ensure!(other.agent.target_id.is_none(), "{other:?}");
    here.until_it_has(&[]).await?;
    Ok(())
}
