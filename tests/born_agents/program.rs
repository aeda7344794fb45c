//! From an empty project to a done item and back: a coordinator as a process, a local target, `loom agent run`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::fixture::whole_store;
use crate::house::{House, LOOM, SECRET};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_without_agents_gets_one_that_does_it_and_goes_home() -> Result<()> {
    let house = House::open().await?;
    let folder = house.folder();
    let script = format!(
        "env > '{0}/program'; cat /proc/$PPID/environ | tr '\\0' '\\n' > '{0}/agent'; echo '{{\"summary\":\"said\"}}'",
        folder.display()
    );
    house.target(&[], &script).await?;
    let project = &house.project;
    let id = project.submit_plain("rust").await?;

    let item = house.project.until_ended(id).await?;
    assert_eq!(item.status.as_str(), "completed", "{item:?}");
    let by = item.assigned_to_agent.context("somebody did it")?;
    assert_eq!(by.agent_type, "parrot");
    let target = house.seen().await.context("the target is there")?;
    ensure!(target["useCount"] == 1, "{target}");
    ensure!(target["lastSpinUp"]["agent"] == json!(by.guid), "{target}");

    // What the agent was told, and what its program was.
    let agent = std::fs::read_to_string(house.path("agent"))?;
    let program = std::fs::read_to_string(house.path("program"))?;
    let value = |name: &str| {
        let mut lines = agent.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(str::to_owned)
            .with_context(|| format!("{name} is not in\n{agent}"))
    };
    let ticket = value("LOOM_TICKET")?;
    for name in [
        "LOOM_NATS_URL",
        "LOOM_SPIN_UP_ID",
        "LOOM_CAPABILITIES",
        "LOOM_BOUNDARIES",
    ] {
        value(name)?;
    }
    assert_eq!(value("LOOM_PROJECT_ID")?, house.id.as_str());
    assert_eq!(value("LOOM_AGENT_TYPE")?, "parrot");
    ensure!(
        !agent.contains(SECRET),
        "a secret of the coordinator is in\n{agent}"
    );
    ensure!(
        !program.contains(&ticket) && !program.contains("LOOM_TICKET"),
        "{program}"
    );
    ensure!(
        !whole_store(project).await?.contains(&ticket),
        "the ticket is in the store"
    );

    // It has nothing to do, and goes.
    house.until_empty().await?;
    let agents = project.request("agents.list", json!({})).await?;
    ensure!(agents == json!([]), "it has deregistered: {agents}");

    // A second birth: somebody who kept the ticket.
    let again = Command::new(LOOM)
        .args([
            "agent",
            "run",
            "--capability",
            "rust",
            "--once",
            "--",
            "true",
        ])
        .env("NATS_URL", house.nats.url())
        .env("LOOM_PROJECT_ID", house.id.as_str())
        .env("LOOM_AGENT_TYPE", "parrot")
        .env("LOOM_TICKET", &ticket)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let again = tokio::time::timeout(Duration::from_secs(30), again).await??;
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(5), "{said}");
    ensure!(
        said.contains("second birth") && !said.contains(&ticket),
        "{said}"
    );
    let log = house.coordinator.stderr();
    ensure!(!log.contains(&ticket), "the ticket is in the log");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_offers_no_more_than_its_target_says_and_works_on_through_a_restart() -> Result<()>
{
    let mut house = House::open().await?;
    let folder = house.folder().to_owned();
    let options = ["--capability", "rust", "--capability", "payroll"];
    let script = format!(
        "until test -e '{}/go'; do sleep 0.1; done",
        folder.display()
    );
    house.target(&options, &script).await?;
    let id = house.project.submit_plain("rust").await?;
    let project = &house.project;
    let running = async || {
        let item = project.work(id).await.ok()?;
        (item.status.as_str() == "in-progress").then_some(item)
    };
    let item = project
        .eventually("the item is being done", running)
        .await?;
    let by = item.assigned_to.context("somebody does it")?;
    let agent = project.request("agents.get", json!({"guid": by})).await?;
    ensure!(agent["capabilities"] == json!(["rust"]), "{agent}");
    ensure!(agent["targetId"].is_string(), "{agent}");

    // Those that are looked for at the end are found.
    ensure!(!house.processes().is_empty(), "its agent has processes");
    house.coordinator.kill_9().await;
    house.coordinator.restart().await?;
    std::fs::write(folder.join("go"), "")?;
    let item = house.project.until_ended(id).await?;
    assert_eq!((item.status.as_str(), item.attempt), ("completed", 1));
    let target = house.seen().await.context("the target is there")?;
    ensure!(
        target["useCount"] == 1,
        "no second one was started: {target}"
    );
    house.until_empty().await
}
