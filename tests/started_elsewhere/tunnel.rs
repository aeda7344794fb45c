//! `ssh` with `reverseTunnel`: the agent reaches NATS by a port of its machine that only the tunnel serves.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use loom_process::stat::{self, Entry};
use loom_testkit::sshd::TestSshd;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;

use crate::house::House;
use crate::ssh::{config, folder_of_client, kept_there};

/// The process that holds the tunnel, which the coordinator has started; none where there is not exactly one.
fn holder(house: &House) -> Option<Entry> {
    let mut all = holders(house.coordinator.pid());
    all.pop().filter(|_| all.is_empty())
}

fn holders(coordinator: u32) -> Vec<Entry> {
    let is_one = |entry: &Entry| {
        let line = fs::read(format!("/proc/{}/cmdline", entry.pid.as_raw_nonzero()));
        let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
        // With whoever has it to be opened as its command line still, it is no ssh yet.
        entry.parent == coordinator.cast_signed() && entry.is_alive() && line.contains("\0-R\0")
    };
    stat::table().into_iter().filter(is_one).collect()
}

/// What the agent was told of the way to NATS: its port.
fn port_of_agent(house: &House) -> Result<u16> {
    let told = fs::read_to_string(house.path("agent"))?;
    let mut lines = told.lines();
    let url = lines.find_map(|line| line.strip_prefix("LOOM_NATS_URL="));
    let port = url.and_then(|url| url.rsplit_once(':')?.1.parse().ok());
    port.with_context(|| format!("a port is in\n{told}"))
}

/// One more item is done, by the agent that is there already.
async fn it_works_on(house: &House) -> Result<()> {
    let before = house.seen().await.context("the target is there")?;
    let id = house.project.submit_plain("rust").await?;
    let item = house.project.until_ended(id).await?;
    ensure!(item.status.as_str() == "completed", "{item:?}");
    let by = item.assigned_to_agent.context("somebody did it")?;
    ensure!(before["currentAgentGuids"] == json!([by.guid]), "{before}");
    let now = house.seen().await.context("the target is there")?;
    ensure!(now["useCount"] == 1, "nobody else was started: {now}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server and an ssh server: run `cargo xtask test`"]
async fn an_agent_works_on_through_a_tunnel_that_breaks_and_a_coordinator_that_is_killed()
-> Result<()> {
    let Some(sshd) = TestSshd::start().await? else {
        return Ok(());
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", folder_of_client(&sshd)?.display());
    let mut house = House::of_patient_agents(&[("PATH", &path)], "1h").await?;
    let mut config = config(&sshd, &house);
    config["reverseTunnel"] = json!(true);
    house.target("ssh", config).await?;
    let lived = house.work_gets_an_agent().await?;
    let port = port_of_agent(&house)?;
    let own = format!(":{port}");
    ensure!(!house.nats.url().ends_with(&own), "{port} is NATS's own");
    let first = holder(&house).context("a tunnel is held")?;

    // The tunnel breaks. It stands again at the same port, and the agent is there again.
    ensure!(first.signal(Signal::KILL), "the tunnel lives");
    let renewed = async || {
        let now = holder(&house).filter(|now| now.pid != first.pid)?;
        TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        Some(now)
    };
    let second = house.project.eventually("it stands again", renewed).await?;
    it_works_on(&house).await?;

    // The coordinator is killed, and its tunnel with it. The next one opens it again.
    house.coordinator.restart().await?;
    let reopened = async || {
        let now = holder(&house).filter(|now| now.pid != second.pid)?;
        TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        Some(now)
    };
    house
        .project
        .eventually("it is opened again", reopened)
        .await?;
    it_works_on(&house).await?;
    ensure!(port_of_agent(&house)? == port, "it is the same agent");

    let target = house.seen().await.context("the target is there")?;
    let guid = &target["currentAgentGuids"][0];
    let order = json!({ "guid": guid });
    house.project.request("agents.shutdown", order).await?;
    house.the_agent_goes(&lived).await?;
    let closed = async || {
        let is_closed = TcpStream::connect(("127.0.0.1", port)).await.is_err();
        let is_empty = kept_there(&sshd) == Some(0);
        let nobody = holders(house.coordinator.pid()).is_empty();
        (is_closed && is_empty && nobody).then_some(())
    };
    house.project.eventually("nothing is left", closed).await
}
