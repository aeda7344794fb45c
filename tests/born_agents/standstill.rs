//! Who stands still while an agent is born, as by SIGSTOP: the coordinator, for longer than a birth may take; or the agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use loom_process::stat;
use loom_protocol::AgentGuid;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus};
use loom_testkit::births::Place;
use loom_testkit::fleet::PATIENCE;
use loom_testkit::webhook::TestReceiver;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::house::{House, LOOM};

/// The first one that runs this stops before it is an agent, and goes on when somebody lets it. `$0`: the `loom`, `$1`:
/// what its agent runs for an item.
const STOPS_ONCE: &str = r#"
if mkdir "$FOLDER/stopped" 2>/dev/null; then
    echo $$ > "$FOLDER/.first"; mv "$FOLDER/.first" "$FOLDER/first"
    kill -STOP $$
fi
"$0" agent run -- sh -c "$1"
echo $? > "$FOLDER/exit.$LOOM_SPIN_UP_ID"
"#;
const PROGRAM: &str =
    r#"until test -e "$FOLDER/go"; do sleep 0.1; done; echo '{"summary":"said"}'"#;

fn statuses(operations: &[SpinUpOperation]) -> Vec<SpinUpStatus> {
    operations.iter().map(|one| one.status).collect()
}

/// Waits until the starts have come to this, the latest first.
async fn until_starts_are(house: &House, wanted: &[SpinUpStatus]) -> Result<Vec<SpinUpOperation>> {
    until_starts(house, &format!("are {wanted:?}"), |all| all == wanted).await
}

/// Waits until an agent is born after the first start has taken too long; so may others have, on a busy machine.
async fn until_born_after_a_timeout(house: &House) -> Result<Vec<SpinUpOperation>> {
    let is_so = |all: &[SpinUpStatus]| {
        let [SpinUpStatus::Success, before @ ..] = all else {
            return false;
        };
        !before.is_empty() && before.iter().all(|one| *one == SpinUpStatus::Timeout)
    };
    until_starts(house, "are timeouts, and the latest a success", is_so).await
}

async fn until_starts(
    house: &House,
    what: &str,
    is_so: impl Fn(&[SpinUpStatus]) -> bool,
) -> Result<Vec<SpinUpOperation>> {
    let look = async || {
        let operations = house.operations().await.ok()?;
        is_so(&statuses(&operations)).then_some(operations)
    };
    let what = format!("the starts {what}");
    let mut found = house.project.eventually(&what, look).await;
    for _ in 0..2 {
        // One start more that takes too long takes most of that time.
        if found.is_err() {
            found = house.project.eventually(&what, look).await;
        }
    }
    if found.is_err() {
        let operations = house.operations().await?;
        return found.with_context(|| format!("they are {operations:?}"));
    }
    found
}

/// The first one that was started, when it stands still.
async fn stopped(house: &House) -> Result<stat::Entry> {
    let look = async || {
        let number = std::fs::read_to_string(house.path("first")).ok()?;
        let entry = stat::entry(number.trim().parse().ok()?)?;
        (entry.state == "T").then_some(entry)
    };
    house.project.eventually("the first one stands", look).await
}

/// The coordinator stands still for so long, and one agent registers meanwhile, another one when it goes on.
async fn births_outlast_a_standstill_of(standstill: Duration) -> Result<()> {
    let house = House::with(&[("targets.birth_timeout.local", "6s")]).await?;
    let (project, place) = (&house.project, Place::new()?);
    project
        .request("targets.register", place.target("here", 2))
        .await?;
    for _ in 0..2 {
        project.submit_plain("rust").await?;
    }
    let processes = place.started(project, 2).await?;
    house.coordinator.pause();
    let (meanwhile, other) = (processes[0].clone(), project.clone());
    let meanwhile = tokio::spawn(async move {
        let guid = AgentGuid::generate();
        meanwhile.register_insistently(&other, guid).await
    });
    // deliberate sleep: longer than a birth may take
    tokio::time::sleep(standstill).await;
    house.coordinator.resume();
    let afterwards = processes[1].register_insistently(project, AgentGuid::generate());
    let (meanwhile, afterwards) = tokio::join!(timeout(2 * PATIENCE, meanwhile), afterwards);
    meanwhile???;
    afterwards?;
    let all = until_starts_are(&house, &[SpinUpStatus::Success; 2]).await?;
    ensure!(all.iter().all(|one| one.error.is_none()), "{all:?}");
    ensure!(
        place.living() == processes,
        "both live, and nobody else was started: {:?}",
        place.processes()
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nobody_is_given_up_because_the_coordinator_stood_still() -> Result<()> {
    // Longer than a birth may take; and so long that its ownership is over too.
    let (short, long) = tokio::join!(
        births_outlast_a_standstill_of(Duration::from_secs(9)),
        births_outlast_a_standstill_of(Duration::from_secs(18))
    );
    short.context("longer than a birth may take")?;
    long.context("longer than an ownership lasts")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_stands_still_for_longer_than_its_birth_may_take_is_ended() -> Result<()> {
    let house = House::with(&[
        ("targets.birth_timeout.local", "10s"),
        ("targets.cooldown", "1s"),
    ])
    .await?;
    let arguments = json!(["-c", STOPS_ONCE, LOOM, PROGRAM]);
    house
        .target_of(json!({"command": "sh", "args": arguments}))
        .await?;
    std::fs::write(house.path("go"), "")?;
    let id = house.project.submit_plain("rust").await?;
    let first = stopped(&house).await?;
    let given_up = async || {
        let first = house.operations().await.ok()?.pop()?;
        (first.status == SpinUpStatus::Timeout).then_some(first)
    };
    let given_up = house
        .project
        .eventually("its start is given up", given_up)
        .await?;
    let ended = stat::entry(first.pid.as_raw_nonzero().get().cast_unsigned());
    ensure!(
        ended.is_none_or(|entry| entry.started != first.started || !entry.is_alive()),
        "it was ended before that was decided"
    );
    // The next one does what waits.
    let item = house.project.until_ended(id).await?;
    ensure!(item.status.as_str() == "completed", "{item:?}");
    let all = until_born_after_a_timeout(&house).await?;
    ensure!(all.last() == Some(&given_up), "an end is an end: {all:?}");
    house.until_empty().await?;
    let target = house.seen().await.context("the target is there")?;
    ensure!(target["useCount"] == 1, "{target}");
    Ok(())
}

/// A target whose webhook starts an agent for each request, as a receiver of somebody's would, for as long as that is kept.
async fn target_by_webhook(house: &House) -> Result<TestReceiver> {
    // As the program does at its start; whoever was first has done it for all of this process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = house.folder().to_owned();
    let receiver = TestReceiver::start(move |_, received| {
        let told: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        let told = told.as_object().into_iter().flatten();
        let mut command = tokio::process::Command::new("sh");
        command
            .args(["-c", STOPS_ONCE, LOOM, PROGRAM])
            .envs(told.filter_map(|(name, value)| Some((name, value.as_str()?))))
            .env("FOLDER", &folder)
            .env_remove("NATS_URL")
            .stdin(std::process::Stdio::null());
        // It is looked for, and ended, by its variable.
        command.spawn().map(drop).expect("a shell is there");
        StatusCode::OK.into_response()
    })
    .await?;
    let body = json!({
        "LOOM_TICKET": "{{ticket}}", "LOOM_SPIN_UP_ID": "{{spinUpId}}", "LOOM_NATS_URL": "{{natsUrl}}",
        "LOOM_PROJECT_ID": "{{projectId}}", "LOOM_AGENT_TYPE": "{{agentType}}", "LOOM_CAPABILITIES": "{{capability}}",
    });
    let target = json!({
        "name": "here", "agentType": "parrot", "capabilities": ["rust"], "mechanism": "webhook",
        "config": {"url": receiver.url("/"), "bodyTemplate": body.to_string()},
    });
    house.project.request("targets.register", target).await?;
    Ok(receiver)
}

/// A webhook ends nothing: the agent of a start that was given up goes on when it may.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_of_a_webhook_that_stood_still_is_born_late_where_there_is_room() -> Result<()> {
    let house = House::with(&[
        ("targets.birth_timeout.webhook", "3s"),
        // Nobody is started in its place.
        ("targets.cooldown", "10m"),
    ])
    .await?;
    let _receiver = target_by_webhook(&house).await?;
    std::fs::write(house.path("go"), "")?;
    let id = house.project.submit_plain("rust").await?;
    let first = stopped(&house).await?;
    let given_up = until_starts_are(&house, &[SpinUpStatus::Timeout]).await?;
    ensure!(first.signal(Signal::CONT), "it lives");
    let item = house.project.until_ended(id).await?;
    ensure!(item.status.as_str() == "completed", "{item:?}");
    let born = until_starts_are(&house, &[SpinUpStatus::Success]).await?;
    assert_eq!(born[0].operation_id, given_up[0].operation_id);
    house.until_empty().await?;
    let target = house.seen().await.context("the target is there")?;
    ensure!(target["useCount"] == 1, "{target}");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_of_a_webhook_that_stood_still_is_refused_where_another_has_its_place()
-> Result<()> {
    let house = House::with(&[
        ("targets.birth_timeout.webhook", "10s"),
        ("targets.cooldown", "1s"),
    ])
    .await?;
    let _receiver = target_by_webhook(&house).await?;
    let id = house.project.submit_plain("rust").await?;
    let first = stopped(&house).await?;
    let starts = until_born_after_a_timeout(&house).await?;
    let stood = starts.last().context("the first start is there")?;
    ensure!(first.signal(Signal::CONT), "it lives");
    let exit = house.path(&format!("exit.{}", stood.operation_id));
    let ended = async || {
        let code = std::fs::read_to_string(&exit).ok()?;
        Some(code.trim().to_owned()).filter(|code| !code.is_empty())
    };
    let code = house
        .project
        .eventually("the first one ends", ended)
        .await?;
    assert_eq!(code, "5", "a second birth");
    let target = house.seen().await.context("the target is there")?;
    assert_eq!(target["currentAgentGuids"], json!([starts[0].agent_guid]));
    std::fs::write(house.path("go"), "")?;
    let item = house.project.until_ended(id).await?;
    ensure!(item.status.as_str() == "completed", "{item:?}");
    ensure!(house.operations().await? == starts, "an end is an end");
    house.until_empty().await
}
