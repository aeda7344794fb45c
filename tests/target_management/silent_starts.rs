//! Starts of which nobody hears again: a webhook says that it begins an agent, and none ever comes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_actors::domain::targets::OwnedNewborn;
use loom_protocol::target::{BirthTicket, SpinUpOperation, SpinUpStatus, Target};
use loom_protocol::{AgentGuid, ErrorCode};
use loom_testkit::agent::Behaviour;
use loom_testkit::births::a_while;
use loom_testkit::fleet::{Fleet, TestProject};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::register;

/// A receiver of webhooks that answers each in the same way, and does nothing.
struct Receiver {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: AbortHandle,
}

/// What a webhook has said.
struct Asked {
    path: String,
    ticket: String,
}

/// It says that an agent is begun.
const ACCEPTED: &str = "202 Accepted";
/// Nobody knows what it has done.
const IN_DOUBT: &str = "500 Internal Server Error";

impl Receiver {
    async fn answering(status: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, heard.clone(), status));
            }
        });
        Ok(Self {
            address,
            asked,
            serving: serving.abort_handle(),
        })
    }

    /// A target for a capability that asks for its agents here.
    fn target(&self, name: &str, capability: &str) -> Value {
        json!({
            "name": name, "agentType": "codex", "capabilities": [capability], "mechanism": "webhook",
            "config": {"url": format!("http://{}/{name}", self.address)},
        })
    }

    /// Waits until a target has asked for an agent.
    async fn until_asked(&self, project: &TestProject, target: &str) -> Result<()> {
        let path = format!("/{target}");
        let was_asked = async || {
            let asked = self.asked.lock();
            asked.iter().any(|one| one.path == path).then_some(())
        };
        let what = format!("{target} asks for an agent");
        project.eventually(&what, was_asked).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Notes one request, and answers it.
async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<Asked>>>, status: &str) -> Result<()> {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut part).await?;
        ensure!(count > 0, "it ends before its end");
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let mut length = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if body.len() >= length.next().map_or("0", |(_, value)| value).parse()? {
            let said: Value = serde_json::from_str(body)?;
            asked.lock().push(Asked {
                path: head.split(' ').nth(1).context("a path")?.to_owned(),
                ticket: said["ticket"].as_str().context("a ticket")?.to_owned(),
            });
            break;
        }
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    Ok(stream.write_all(answer.as_bytes()).await?)
}

/// As many silent targets as starts may be under way, each with a start that waits for its agent.
async fn all_places_taken(project: &TestProject, receiver: &Receiver) -> Result<()> {
    for name in ["silent-1", "silent-2", "silent-3"] {
        register(project, receiver.target(name, name)).await?;
        project.submit_plain(name).await?;
        receiver.until_asked(project, name).await?;
    }
    Ok(())
}

async fn undecided(project: &TestProject) -> Result<Vec<SpinUpOperation>> {
    let mut all: Vec<SpinUpOperation> = project.call("spin-up.list", &json!({})).await?;
    all.retain(|operation| !operation.status.is_over());
    Ok(all)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn silent_starts_keep_no_target_waiting_for_longer_than_a_local_start_may_take() -> Result<()>
{
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.targets.birth_timeout.local = Duration::from_secs(1))
        .start()
        .await?;
    let (project, receiver) = (fleet.project().await?, Receiver::answering(ACCEPTED).await?);
    all_places_taken(&project, &receiver).await?;
    let healthy: Target = register(&project, receiver.target("healthy", "go")).await?;
    project.submit_plain("go").await?;
    receiver.until_asked(&project, "healthy").await?;
    let all = undecided(&project).await?;
    ensure!(all.len() == 4, "each waits for its agent still: {all:?}");
    // Each still counts at its target.
    let is_full = async || {
        let request = json!({"target": "silent-1"});
        let refused = project.request("spin-up.trigger", request).await.err()?;
        // A place is free in a moment.
        let refused = Some(refused).filter(|error| error.code != ErrorCode::Overloaded)?;
        (refused.details?["rule"] == "full").then_some(())
    };
    project.eventually("it has its one agent", is_full).await?;

    // Nor do they when a coordinator finds them in the bucket.
    fleet.crash().await?;
    fleet.start_again().await?;
    project.insist("targets.list", json!({})).await?;
    register(&project, receiver.target("later", "python")).await?;
    project.submit_plain("python").await?;
    receiver.until_asked(&project, "later").await?;
    let all = undecided(&project).await?;
    ensure!(all.len() == 5, "{all:?}");
    ensure!(all.iter().any(|one| one.target_id == healthy.id));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn whoever_finds_all_places_taken_is_told_by_which_starts() -> Result<()> {
    // A place is never taken for longer than half a minute, whatever a local start may take.
    let fleet = Fleet::builder()
        .settings(|settings| settings.targets.birth_timeout.local = Duration::from_hours(1))
        .start()
        .await?;
    let (project, receiver) = (fleet.project().await?, Receiver::answering(ACCEPTED).await?);
    all_places_taken(&project, &receiver).await?;
    register(&project, receiver.target("healthy", "go")).await?;
    let waiting = project.submit_plain("go").await?;
    let refused = project
        .request("spin-up.trigger", json!({"target": "healthy"}))
        .await;
    let refused = refused.err().context("all places are taken")?;
    assert_eq!(refused.code, ErrorCode::Overloaded);
    let explained = project
        .request("work.explain", json!({"id": waiting}))
        .await?;
    let summary = explained["summary"].as_str().context("a sentence")?;
    for said in [refused.message.as_str(), summary] {
        ensure!(said.contains("targets.max_concurrent"), "{said}");
        for start in undecided(&project).await? {
            assert_ne!(start.status, SpinUpStatus::Success);
            let parts = [
                start.target_name.clone(),
                start.operation_id.to_string(),
                start.started_at.to_string(),
            ];
            for part in parts {
                ensure!(said.contains(&part), "{part} is not in: {said}");
            }
        }
    }
    Ok(())
}

/// An agent whose id was another one's uses its ticket, and never registers.
async fn is_born_and_never_comes(fleet: &Fleet, run: Option<&str>) -> Result<()> {
    let (project, receiver) = (fleet.project().await?, Receiver::answering(ACCEPTED).await?);
    let before = project
        .agent("go")
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    let guid = before.guid();
    before.die();
    let parts = project.parts()?;
    let is_offline = async || {
        let entry = parts.agents.get(guid)?;
        (entry.agent().status.as_str() == "offline").then_some(())
    };
    project
        .eventually("the run of before is offline", is_offline)
        .await?;

    register(&project, receiver.target("reborn", "go")).await?;
    project.submit_plain("go").await?;
    receiver.until_asked(&project, "reborn").await?;
    let ticket = receiver.asked.lock()[0].ticket.clone();
    let newborn = OwnedNewborn {
        guid,
        instance_id: run.map(str::to_owned),
        agent_type: "codex".into(),
        capabilities: vec!["go".into()],
        boundaries: vec!["default".into()],
    };
    let manager = parts.target_manager.clone();
    manager
        .redeem(&BirthTicket::from_text(ticket), newborn)
        .await?;
    // Whoever answers a webhook does not know what became of it.
    a_while().await;
    ensure!(parts.targets.linked(guid).is_some(), "it has not come yet");
    // It has the time to come, and never does.
    let is_gone = async || parts.targets.linked(guid).is_none().then_some(());
    project
        .eventually("it is expected no longer", is_gone)
        .await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_the_run_of_before_was_says_nothing_of_an_agent_that_was_just_born() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.agents.stale_after = Duration::from_secs(2);
            settings.agents.heartbeat_every = Duration::from_millis(500);
        })
        .start()
        .await?;
    for run in [Some("run-2"), None] {
        let born = is_born_and_never_comes(&fleet, run).await;
        born.with_context(|| format!("as the run {run:?}"))?;
    }
    Ok(())
}

/// One more than there are places in the whole process, where a project has one.
const STARTS: usize = 5;

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_birth_frees_its_place_although_its_mechanism_never_says_what_it_has_begun() -> Result<()>
{
    let fleet = Fleet::builder()
        .settings(|settings| settings.targets.max_concurrent = 1)
        .start()
        .await?;
    let (project, receiver) = (fleet.project().await?, Receiver::answering(IN_DOUBT).await?);
    let target = crate::with(
        receiver.target("doubtful", "go"),
        &json!({"maxAgents": STARTS}),
    );
    register(&project, target).await?;
    for _ in 0..STARTS {
        project.submit_plain("go").await?;
    }
    let mut used: Vec<String> = Vec::new();
    for _ in 0..STARTS {
        let another = async || {
            let asked = receiver.asked.lock();
            let mut tickets = asked.iter().map(|one| &one.ticket);
            tickets.find(|ticket| !used.contains(ticket)).cloned()
        };
        let ticket = project.eventually("another start", another).await?;
        used.push(ticket.clone());
        let newborn = OwnedNewborn {
            guid: AgentGuid::generate(),
            instance_id: Some("run-1".into()),
            agent_type: "codex".into(),
            capabilities: vec!["go".into()],
            boundaries: vec!["default".into()],
        };
        let manager = project.parts()?.target_manager.clone();
        let ticket = BirthTicket::from_text(ticket);
        manager.redeem(&ticket, newborn).await?;
    }
    Ok(())
}
