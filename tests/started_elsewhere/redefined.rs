//! A target of the configuration file whose agents are to be started elsewhere from now on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use loom_protocol::ProjectId;
use loom_testkit::fleet::TestProject;
use loom_testkit::nats::TestNats;
use loom_testkit::process::LoomUp;
use serde_json::json;

use crate::house::{LOOM, TARGET, TYPE, alive_of};

fn define(file: &Path, mechanism: &str, config: &str) -> Result<()> {
    let text = format!(
        "[[targets.define]]\nname = \"{TARGET}\"\nagent_type = \"{TYPE}\"\ncapabilities = [\"rust\"]\n\
         mechanism = \"{mechanism}\"\nconfig = {{ {config} }}\n"
    );
    Ok(fs::write(file, text)?)
}

/// By this variable is found what was started.
const MARK: &str = "STARTED_BY_THE_TEST_IN";

/// Nothing that the test has started is left, however it ends.
struct Marked(String);

impl Drop for Marked {
    fn drop(&mut self) {
        for process in loom_process::stat::with_variable(MARK, &self.0) {
            process.signal(rustix::process::Signal::KILL);
        }
    }
}

/// What was started is ended by the mechanism that has started it, and then the target is as the file says.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_target_keeps_its_mechanism_until_what_it_has_started_is_ended() -> Result<()> {
    let (nats, folder) = (TestNats::start().await?, tempfile::tempdir()?);
    let file = folder.path().join("loom.toml");
    let marked = Marked(folder.path().display().to_string());
    let config = format!(
        "command = \"sleep\", args = [\"600\"], env = {{ {MARK} = {:?} }}",
        marked.0
    );
    define(&file, "local", &config)?;
    let mut coordinator = LoomUp::new(LOOM)
        .on_nats(nats.url())
        .argument("--config")
        .argument(&file)
        .set("targets.birth_timeout.local", "4s")
        .start()
        .await?;
    let project = TestProject::of_process(ProjectId::new("default")?, &nats.url()).await?;
    project.submit_plain("rust").await?;
    let begun = async || {
        let listed = project.request("spin-up.list", json!({})).await.ok()?;
        let operation = listed.as_array()?.first()?;
        let id = operation["operationId"].as_str()?.to_owned();
        (operation["status"] == "in-progress").then_some(id)
    };
    let id = project.eventually("it is begun", begun).await?;
    ensure!(!alive_of(&id).is_empty(), "a process that never registers");

    define(&file, "webhook", "url = \"http://127.0.0.1:9/\"")?;
    // That counts at once, and the rest is not forgotten over it.
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text + "enabled = false\n")?;
    coordinator.restart().await?;
    let redefined = async || {
        let target = json!({"target": TARGET});
        let target = project.request("targets.get", target).await.ok()?;
        (target["mechanism"] == "webhook").then_some(target)
    };
    let target = project
        .eventually("it is as the file says", redefined)
        .await?;
    ensure!(target["status"] == "disabled", "{target}");
    ensure!(alive_of(&id).is_empty(), "nobody is left who could end it");
    let status = project
        .request("spin-up.status", json!({"operationId": id}))
        .await?;
    let status = status["status"].as_str().context("it has a status")?;
    ensure!(status == "timeout", "{status}");
    Ok(())
}
