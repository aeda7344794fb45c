//! What the tests of this group do again and again.

use anyhow::Result;
use async_nats::jetstream::stream;
use futures_util::TryStreamExt as _;
use loom_coordinator::service::Service;
use loom_protocol::{ErrorCode, ProjectId, VerbName, names};
use loom_testkit::fleet::{Fleet, TestProject, everybody};
use loom_testkit::process::LoomUp;
use serde_json::json;

/// What stands in every sentence about a store that is another one.
pub const NOT_THE_ONE: &str = "is not the one";

/// Waits until `/ready` says of the store that it is another one.
pub async fn until_red(fleet: &Fleet, project: &TestProject) -> Result<String> {
    let service = fleet.service()?;
    let red = async || {
        let readiness = service.readiness();
        let mut problems = readiness.problems.into_iter();
        let sentence = problems.find(|problem| problem.contains(NOT_THE_ONE));
        sentence.filter(|_| !readiness.ready)
    };
    project.eventually("/ready is red", red).await
}

/// Waits until nothing is wrong.
pub async fn until_green(fleet: &Fleet, project: &TestProject) -> Result<()> {
    let service = fleet.service()?;
    let green = async || service.readiness().ready.then_some(());
    project.eventually("/ready is green", green).await
}

/// Every request about the project is refused, with the reason.
pub async fn assert_takes_nothing_in(service: &Service, project: &ProjectId) {
    let item = serde_json::from_value(json!({"description": "d", "capability": "rust"})).unwrap();
    let by = |verb| everybody(verb, Some(project)).unwrap();
    let submits = by(VerbName::WorkSubmit);
    let submitted = service.submit(
        &submits,
        item,
        loom_coordinator::service::Ignored::default(),
    );
    let lists = by(VerbName::WorkList);
    let listed = service.list_work(&lists, serde_json::from_value(json!({})).unwrap());
    let heartbeat = json!({"guid": uuid::Uuid::new_v4()});
    let heartbeat = serde_json::from_value(heartbeat).unwrap();
    let lives = by(VerbName::AgentsHeartbeat);
    let beaten = service.heartbeat(&lives, heartbeat);
    let looks = by(VerbName::QueueInfo);
    let refusals = [
        submitted.await.map(drop).unwrap_err(),
        listed.await.map(drop).unwrap_err(),
        beaten.await.map(drop).unwrap_err(),
        service.queue_info(&looks).await.map(drop).unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code, ErrorCode::Unavailable, "{refusal:?}");
        assert!(refusal.message.contains(NOT_THE_ONE), "{refusal:?}");
    }
}

/// The names of all streams of the server.
pub async fn streams(project: &TestProject) -> Result<Vec<String>> {
    let mut names: Vec<String> = project.jetstream().stream_names().try_collect().await?;
    names.sort();
    Ok(names)
}

/// The ledger's stream.
pub async fn ledger(project: &TestProject) -> Result<stream::Info> {
    let name = format!("KV_{}", names::work_bucket(project.id()));
    let stream = project.jetstream().get_stream(name).await?;
    Ok(stream.cached_info().clone())
}

/// `loom store …` against the fleet's coordinator: the code it ends with, and what it wrote.
pub async fn loom_store(fleet: &Fleet, arguments: &[&str]) -> Result<(i32, String)> {
    loom(fleet, &[&["store"], arguments].concat()).await
}

/// `loom …` against the fleet's coordinator: the code it ends with, and what it wrote.
pub async fn loom(fleet: &Fleet, arguments: &[&str]) -> Result<(i32, String)> {
    let url = format!("http://{}", fleet.api_address()?);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_loom"));
    command.args(["--url", &url]).args(arguments);
    command
        .env_remove("LOOM_PROJECT_ID")
        .stdin(std::process::Stdio::null());
    let output = command.output().await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// The program as a person starts it.
pub fn loom_up() -> LoomUp {
    LoomUp::new(env!("CARGO_BIN_EXE_loom"))
}
