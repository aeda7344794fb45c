//! From an empty project to a done item and back: a coordinator as a process, a local target, `loom agent run`.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_protocol::ProjectId;
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::{LoomProcess, LoomUp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::fixture::{lives, whole_store};

/// The program under test.
const LOOM: &str = env!("CARGO_BIN_EXE_loom");
/// Something secret of the coordinator's that no agent is to see.
const SECRET: &str = "swordfish-of-the-coordinator";

/// A coordinator with a secret in its environment, and a project for a test.
struct House {
    coordinator: LoomProcess,
    project: TestProject,
    id: ProjectId,
    // Dropped last: nobody is left without its server.
    nats: TestNats,
    folder: TempDir,
}

impl House {
    async fn open() -> Result<Self> {
        let nats = TestNats::start().await?;
        let id = TestNats::unique_project();
        let coordinator = LoomUp::new(LOOM)
            .on_nats(nats.url())
            .argument("--log-level")
            .argument("trace")
            .set("agents.heartbeat_every", "300ms")
            .set("agents.stale_after", "3s")
            .set("agents.idle_timeout", "1s")
            .set("agents.idle_grace", "5s")
            .env("SECRET_OF_MINE", SECRET)
            .start()
            .await?;
        let project = TestProject::of_process(id.clone(), &nats.url()).await?;
        Ok(Self {
            coordinator,
            project,
            id,
            nats,
            folder: tempfile::tempdir()?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A target whose command is `loom agent run` with this script as its program.
    async fn target(&self, options: &[&str], script: &str, env: Value) -> Result<Value> {
        let mut args = vec!["agent", "run"];
        args.extend(options);
        args.extend(["--", "sh", "-c", script]);
        let target = json!({
            "name": "here", "agentType": "parrot", "capabilities": ["rust"], "mechanism": "local",
            "config": {"command": LOOM, "args": args, "env": env},
        });
        Ok(self.project.request("targets.register", target).await?)
    }

    async fn seen(&self) -> Option<Value> {
        let request = json!({"target": "here"});
        self.project.request("targets.get", request).await.ok()
    }

    /// The processes of this test: those that were given its folder.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let numbers = pids.filter(|pid| pid.chars().all(|c| c.is_ascii_digit()));
        numbers
            .filter(|pid| {
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                String::from_utf8_lossy(&environment).contains(&folder) && lives(pid)
            })
            .collect()
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn work_without_agents_gets_one_that_does_it_and_goes_home() -> Result<()> {
    let house = House::open().await?;
    let folder = house.folder.path();
    let script = format!(
        "env > '{0}/program'; cat /proc/$PPID/environ | tr '\\0' '\\n' > '{0}/agent'; echo '{{\"summary\":\"said\"}}'",
        folder.display()
    );
    house
        .target(&[], &script, json!({"FOLDER": folder}))
        .await?;
    let project = &house.project;
    let id = project.submit_plain("rust").await?;

    let done = async || {
        let item = project.work(id).await.ok()?;
        item.terminal.then_some(item)
    };
    let item = project.eventually("the item is done", done).await?;
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
    let gone = async || {
        let target = house.seen().await?;
        let agents = project.request("agents.list", json!({})).await.ok()?;
        let is_empty = agents == json!([]) && target["status"] == "available";
        (is_empty && house.processes().is_empty()).then_some(())
    };
    project.eventually("nobody is left", gone).await?;

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
    let folder = house.folder.path().to_owned();
    let options = ["--capability", "rust", "--capability", "payroll"];
    let script = format!(
        "until test -e '{}/go'; do sleep 0.1; done",
        folder.display()
    );
    house
        .target(&options, &script, json!({"FOLDER": folder}))
        .await?;
    let id = house.project.submit_plain("rust").await?;
    let project = house.project.clone();
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

    house.coordinator.kill_9().await;
    house.coordinator.restart().await?;
    std::fs::write(folder.join("go"), "")?;
    let done = async || {
        let item = project.work(id).await.ok()?;
        item.terminal.then_some(item)
    };
    let item = project.eventually("the item is done", done).await?;
    assert_eq!((item.status.as_str(), item.attempt), ("completed", 1));
    let target = house.seen().await.context("the target is there")?;
    ensure!(
        target["useCount"] == 1,
        "no second one was started: {target}"
    );
    let gone = async || house.processes().is_empty().then_some(());
    project.eventually("nobody is left", gone).await
}
