//! What a project asks of NATS that nobody uses.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use loom_protocol::names;
use loom_testkit::fleet::{Fleet, TestProject};
use tokio::time::timeout;

/// Every look that a project has now and then is due several times in it.
const PATIENCE: Duration = Duration::from_mins(3);
const INFO: &str = "$JS.API.STREAM.INFO.";
const LIST: &str = "$JS.API.STREAM.LIST";

/// Waits until between two lists of all streams none of the project's was asked for by name.
async fn until_nothing_is_asked(fleet_url: &str, project: &TestProject) -> Result<()> {
    let id = project.id();
    let buckets = [
        names::agents_bucket(id),
        names::work_bucket(id),
        names::graveyard_bucket(id),
    ];
    let buckets = buckets.into_iter().map(|bucket| format!("KV_{bucket}"));
    let others = [names::work_stream(id), names::dead_letter_stream(id)];
    let own: Vec<String> = buckets.chain(others).collect();
    // A request is a message of the account as any other one.
    let listens = async_nats::connect(fleet_url).await?;
    let mut asked = listens.subscribe("$JS.API.STREAM.>").await?;
    let mut by_name = None;
    while let Some(request) = asked.next().await {
        let subject = request.subject.as_str();
        if subject == LIST {
            if by_name.replace(0) == Some(0) {
                return Ok(());
            }
        } else if let Some(stream) = subject.strip_prefix(INFO)
            && own.iter().any(|own| own == stream)
        {
            by_name = by_name.map(|asked| asked + 1);
        }
    }
    anyhow::bail!("the subscription ended")
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_that_nobody_uses_asks_for_none_of_its_streams() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    project.submit_plain("rust").await?;
    let url = fleet.nats().url();
    let quiet = until_nothing_is_asked(&url, &project);
    timeout(PATIENCE, quiet)
        .await
        .context("its streams are asked for by name all the time")??;
    // And is as it was: what comes is taken in.
    project.submit_plain("rust").await?;
    Ok(())
}
