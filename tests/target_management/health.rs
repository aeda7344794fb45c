//! Whether agents could be started: looked at when asked and by schedule, told where it changes, and written seldom.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use loom_actors::projects::Projects;
use loom_protocol::event::{Event, TargetEventKind};
use loom_protocol::rest::TargetsPage;
use loom_protocol::target::{HealthStatus, Target, TargetHealth};
use loom_protocol::{ErrorCode, WireError, names};
use loom_testkit::births::a_while;
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::{get, register};

/// How often a target is looked at by schedule.
const EVERY: Duration = Duration::from_secs(1);

/// A program that is there or not.
struct Program(TempDir);

impl Program {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("agent")
    }

    fn install(&self) -> Result<()> {
        // In place at once: nobody finds it without its mode.
        let made = self.0.path().join("made");
        fs::write(&made, "#!/bin/sh\n")?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(made, self.path())?)
    }

    fn uninstall(&self) -> Result<()> {
        Ok(fs::remove_file(self.path())?)
    }
}

fn started_by(name: &str, program: &Path) -> Value {
    json!({
        "name": name, "agentType": "claude-code", "capabilities": ["rust"], "mechanism": "local",
        "config": {"local": {"command": program}},
    })
}

async fn test(project: &TestProject, target: &str) -> Result<TargetHealth, WireError> {
    project
        .call("targets.test", &json!({"target": target}))
        .await
}

async fn until(project: &TestProject, name: &str, health: HealthStatus) -> Result<Target> {
    let what = format!("{name} is {health:?}");
    let look = async || {
        let target = get(project, name).await.ok()?;
        (target.health_status == health).then_some(target)
    };
    project.eventually(&what, look).await
}

/// Where the stream of the targets ends.
async fn last_write(project: &TestProject) -> Result<u64> {
    let stream = format!("KV_{}", names::targets_bucket(project.id()));
    let mut stream = project.jetstream().get_stream(stream).await?;
    Ok(stream.info().await?.state.last_sequence)
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_target_is_looked_at_when_somebody_asks_and_a_change_is_told_once() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, program) = (fleet.project().await?, Program::new()?);
    let mut signals = project.signals().await?;
    let registered = register(&project, started_by("here", &program.path())).await?;
    assert_eq!(registered.health_status, HealthStatus::Unknown);

    let ill = test(&project, "HERE").await?;
    assert_eq!((ill.target_id, ill.healthy), (registered.id, false));
    let why = ill.error.context("it says why")?;
    assert!(why.contains("agent"), "{why}");
    let told = signals
        .target(TargetEventKind::HealthChanged, "here")
        .await?;
    assert_eq!(
        (told.previous_health, told.new_health),
        (Some(HealthStatus::Unknown), Some(HealthStatus::Unhealthy))
    );
    assert_eq!(told.error.as_deref(), Some(why.as_str()));
    let target = until(&project, "here", HealthStatus::Unhealthy).await?;
    assert_eq!(target.last_error.as_deref(), Some(why.as_str()));
    assert_eq!(target.last_health_check, Some(ill.timestamp));
    assert_eq!(target.updated_at, registered.updated_at);

    // The same again: told to whoever asks, and to nobody else.
    let before = last_write(&project).await?;
    for _ in 0..3 {
        ensure!(!test(&project, "here").await?.healthy);
    }
    assert_eq!(
        last_write(&project).await?,
        before,
        "nothing new is written"
    );

    program.install()?;
    let api = project.api()?;
    let well: Value = api.post(&["targets", "here", "test"], &json!({})).await?;
    assert_eq!(
        (&well["healthy"], &well["targetId"]),
        (&json!(true), &json!(registered.id))
    );
    ensure!(
        well["latencyMs"].is_u64() && well["latencyMs"] == well["responseTimeMs"],
        "{well}"
    );
    ensure!(
        well["timestamp"].is_string() && well.get("error").is_none(),
        "{well}"
    );
    let is_second = |event: &Event| match event {
        Event::Target(told) if told.previous_health == Some(HealthStatus::Unhealthy) => {
            Some((**told).clone())
        }
        _ => None,
    };
    let told = signals.find("that it is well again", is_second).await?;
    assert_eq!(
        (told.previous_health, told.new_health, told.error),
        (
            Some(HealthStatus::Unhealthy),
            Some(HealthStatus::Healthy),
            None
        )
    );
    let target = until(&project, "here", HealthStatus::Healthy).await?;
    assert_eq!(target.last_error, None);
    let healthy: TargetsPage = api
        .get(&["targets"], &[("healthStatus", "healthy".into())])
        .await?;
    assert_eq!(healthy.page.total, 1);
    let is_health = |event: &&Event| matches!(event, Event::Target(it) if it.kind == TargetEventKind::HealthChanged);
    assert_eq!(signals.told().iter().filter(is_health).count(), 2);

    // A body is not needed, and nobody is no target.
    let url = format!("http://{}/api/targets/here/test", fleet.api_address()?);
    let empty = reqwest::Client::new()
        .post(url)
        .header("Loom-Project", project.id().as_str());
    let empty = empty
        .header("Content-Type", "application/json")
        .send()
        .await?;
    assert_eq!(empty.status(), 200);
    let nobody = test(&project, "nobody").await.expect_err("there is none");
    assert_eq!(nobody.code, ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn by_schedule_a_target_is_looked_at_for_ever_and_written_only_where_it_changes() -> Result<()>
{
    let fleet = Fleet::shared().await?;
    let (project, program) = (fleet.project().await?, Program::new()?);
    program.install()?;
    let mut target = started_by("here", &program.path());
    target["healthCheck"] =
        json!({"enabled": true, "intervalMs": EVERY.as_millis(), "timeoutMs": 500});
    register(&project, target).await?;
    let seen = until(&project, "here", HealthStatus::Healthy).await?;

    let written = last_write(&project).await?;
    let mut last = seen.last_health_check;
    for _ in 0..3 {
        let later = async || {
            let looked = get(&project, "here").await.ok()?.last_health_check;
            (looked > last).then_some(looked)
        };
        last = project.eventually("it is looked at again", later).await?;
    }
    assert_eq!(
        last_write(&project).await?,
        written,
        "the stream does not grow"
    );

    program.uninstall()?;
    until(&project, "here", HealthStatus::Unhealthy).await?;
    // It goes on with the next incarnation, and in the next coordinator.
    project.kill(Role::TargetManager)?;
    project.wait_until_restarted(Role::TargetManager, 1).await?;
    program.install()?;
    until(&project, "here", HealthStatus::Healthy).await?;
    let disabled = json!({"target": "here"});
    project.request("targets.disable", disabled.clone()).await?;
    // A look that was under way is this one's too: when it is answered, none is.
    ensure!(test(&project, "here").await?.healthy);
    let last = get(&project, "here").await?.last_health_check;
    program.uninstall()?;
    // deliberate sleep: more than two intervals of the schedule, which would be kept if the target were enabled
    tokio::time::sleep(2 * EVERY + EVERY / 2).await;
    let target = get(&project, "here").await?;
    assert_eq!(
        (target.health_status, target.last_health_check),
        (HealthStatus::Healthy, last),
        "it was looked at"
    );
    project.request("targets.enable", disabled).await?;
    until(&project, "here", HealthStatus::Unhealthy).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn one_that_was_found_unhealthy_is_not_shut_out_for_ever_and_another_configuration_is_unknown()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, program) = (fleet.project().await?, Program::new()?);
    let mut target = started_by("here", &program.path());
    // Looked at only when somebody asks, until it is found ill.
    target["healthCheck"] = json!({"enabled": false, "intervalMs": 1000});
    register(&project, target).await?;
    ensure!(!test(&project, "here").await?.healthy);
    until(&project, "here", HealthStatus::Unhealthy).await?;
    program.install()?;
    until(&project, "here", HealthStatus::Healthy).await?;

    program.uninstall()?;
    ensure!(!test(&project, "here").await?.healthy);
    until(&project, "here", HealthStatus::Unhealthy).await?;
    let other = json!({"target": "here", "updates": {"config": {"local": {"command": "/bin/sh"}}}});
    let other = project.request("targets.update", other).await?;
    assert_eq!(other["healthStatus"], "unknown", "{other}");
    ensure!(other.get("lastError").is_none(), "{other}");
    Ok(())
}

/// Somebody who is asked, and who answers when that is let.
struct Slow {
    url: String,
    asked: Arc<AtomicUsize>,
    answers: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Slow {
    async fn start() -> Result<Self> {
        // As the program does at its start; whoever was first has done it for all of this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/start", listener.local_addr()?);
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
        let (counted, sender) = (asked.clone(), answers.clone());
        let serve = async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (asked, mut answers) = (counted.clone(), sender.subscribe());
                tasks.spawn(async move {
                    let mut buffer = [0; 4096];
                    if matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {
                        asked.fetch_add(1, Ordering::AcqRel);
                        let _ = answers.wait_for(|let_go| *let_go).await;
                        let said = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                        let _ = stream.write_all(said.as_bytes()).await;
                    }
                });
            }
        };
        Ok(Self {
            url,
            asked,
            answers,
            _task: AbortOnDropHandle::new(tokio::spawn(serve)),
        })
    }

    fn target(&self, name: &str) -> Value {
        json!({
            "name": name, "agentType": "t", "capabilities": ["c"], "mechanism": "webhook",
            "config": {"url": self.url}, "healthCheck": {"enabled": false, "timeoutMs": 20_000},
        })
    }

    async fn asked(&self, project: &TestProject, times: usize) -> Result<()> {
        let look = async || (self.asked.load(Ordering::Acquire) >= times).then_some(());
        project.eventually("it is asked", look).await
    }
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn those_who_ask_at_once_share_one_look_and_a_killed_actor_answers_them_by_its_successor()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, slow) = (fleet.project().await?, Slow::start().await?);
    register(&project, slow.target("slow")).await?;
    let parts = project.parts()?;
    let target = parts
        .targets
        .id_of_name("slow")
        .and_then(|id| parts.targets.get(id));
    let target = target.context("it is there")?;
    let many = join_all((0..20).map(|_| parts.target_manager.test(&target)));
    let release = async {
        slow.asked(&project, 1).await?;
        a_while().await;
        assert_eq!(slow.asked.load(Ordering::Acquire), 1, "one look for all");
        project.kill(Role::TargetManager)?;
        slow.asked(&project, 2).await?;
        slow.answers.send_replace(true);
        anyhow::Ok(())
    };
    let (answers, released) = tokio::join!(many, release);
    released?;
    for answer in answers {
        ensure!(answer?.healthy);
    }
    until(&project, "slow", HealthStatus::Healthy).await?;
    Ok(())
}

/// One that keeps everybody waiting is not waited for longer than its limit says.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_target_that_does_not_answer_is_unhealthy_after_its_limit() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, slow) = (fleet.project().await?, Slow::start().await?);
    let mut target = slow.target("slow");
    target["healthCheck"]["timeoutMs"] = json!(300);
    register(&project, target).await?;
    let health = test(&project, "slow").await?;
    ensure!(!health.healthy && health.latency_ms >= 300, "{health:?}");
    ensure!(health.latency_ms < 10_000, "{health:?}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn looks_keep_no_project_awake() -> Result<()> {
    // The first look comes within 3 s: at least two more fall into this time.
    let fleet = Fleet::builder().settings(|settings| {
        settings.projects.sleep_after = 6 * EVERY;
    });
    let fleet = fleet.start().await?;
    let (project, program) = (fleet.project().await?, Program::new()?);
    program.install()?;
    let mut signals = project.signals().await?;
    let mut target = started_by("here", &program.path());
    target["healthCheck"] = json!({"enabled": true, "intervalMs": EVERY.as_millis()});
    register(&project, target).await?;
    // It is looked at while it is awake, and nobody asks.
    signals
        .target(TargetEventKind::HealthChanged, "here")
        .await?;
    let projects = fleet.service()?.projects();
    let sleeps = async || Projects::is_asleep(&projects, project.id()).then_some(());
    project.eventually("it is asleep", sleeps).await?;
    // Who asks wakes it.
    ensure!(test(&project, "here").await?.healthy);
    assert_eq!(
        until(&project, "here", HealthStatus::Healthy).await?.name,
        "here"
    );
    Ok(())
}
