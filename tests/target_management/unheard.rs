//! Nobody is taken for absent while what was sent to the coordinator is not applied: a registration may wait there.

use std::time::Duration;

use anyhow::{Result, ensure};
use loom_actors::target_manager::BirthStep;
use loom_protocol::AgentGuid;
use loom_testkit::births::{Place, StepGate};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use crate::{register, with};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_born_is_not_absent_while_a_request_waits_to_be_applied() -> Result<()> {
    let gate = StepGate::default();
    let fleet = Fleet::builder()
        .on_birth_step(gate.hook())
        .settings(|settings| {
            settings.agents.stale_after = Duration::from_secs(1);
            settings.agents.heartbeat_every = Duration::from_millis(300);
        })
        .start()
        .await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let mut processes = Vec::new();
    for (name, capability) in [("one", "rust"), ("two", "go")] {
        let target = place.target(name, 1);
        register(
            &project,
            with(target, &json!({"capabilities": [capability]})),
        )
        .await?;
        project.submit_plain(capability).await?;
        place.another(&project, &mut processes).await?;
    }
    project.request("queue.purge", json!({"all": true})).await?;

    // The registration of one is taken in, and is not applied.
    gate.close(BirthStep::Decided);
    let waiting = tokio::spawn({
        let project = project.clone();
        let registration = json!({
            "guid": AgentGuid::generate(), "instanceId": "run-1", "handle": "two",
            "agentType": "claude-code", "capabilities": ["go"],
            "ticket": processes[1].ticket().expose(),
        });
        async move { project.request("agents.register", registration).await }
    });
    gate.reached().await?;

    let guid = AgentGuid::generate();
    processes[0].redeem(&project, guid).await??;
    let is_linked = || Ok::<_, anyhow::Error>(project.parts()?.targets.linked(guid).is_some());
    while !waiting.is_finished() {
        ensure!(
            is_linked()?,
            "its own registration may wait behind that one"
        );
        // deliberate sleep: it is looked again and again until the request is answered
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gate.open();
    let is_gone = async || is_linked().is_ok_and(|it| !it).then_some(());
    project.eventually("it never came", is_gone).await
}
