//! Starts that a coordinator finds in the bucket and begins again: they were recorded long ago, and are begun now.

use anyhow::{Result, ensure};
use loom_protocol::target::SpinUpStatus;
use loom_protocol::{AgentGuid, ErrorCode, Timestamp};
use loom_testkit::births::{Place, a_while, operations};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use crate::late_writes::record_starts;
use crate::{get, register};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn starts_that_are_begun_again_after_an_outage_are_no_more_at_once_than_may_be() -> Result<()>
{
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.targets.max_concurrent = 1)
        .start()
        .await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 3)).await?;
    let target = get(&project, "here").await?;
    fleet.crash().await?;
    let recorded_at = Timestamp::from_millis(target.registered_at.as_millis() - 600_000);
    let starts = record_starts(&project, &target, (2, recorded_at), None).await?;
    fleet.start_again().await?;
    project.insist("targets.list", json!({})).await?;

    let first = place.started(&project, 1).await?.remove(0);
    a_while().await;
    ensure!(
        place.processes() == [first.clone()],
        "two are begun at once"
    );
    let refused = project
        .request("spin-up.trigger", json!({"target": "here"}))
        .await;
    let refused = refused.expect_err("the place is taken");
    assert_eq!(refused.code, ErrorCode::Overloaded, "{refused}");
    ensure!(
        !refused.message.contains(&recorded_at.to_string()),
        "its place is taken since it was begun: {refused}"
    );
    // Who looks at it sees when it was decided on.
    for operation in operations(&project)? {
        ensure!(starts.contains(&operation.operation_id), "{operation:?}");
        ensure!(operation.started_at == recorded_at, "{operation:?}");
        ensure!(!operation.status.is_over(), "{operation:?}");
    }

    let agent = first.register(&project, AgentGuid::generate()).await?;
    let second = place.started(&project, 2).await?;
    ensure!(second.iter().all(|one| starts.contains(&one.start)));
    let other = second.iter().find(|one| one.start != first.start);
    let other = other.cloned().expect("there are two");
    let another = other.register(&project, AgentGuid::generate()).await?;
    for operation in operations(&project)? {
        assert_eq!(operation.status, SpinUpStatus::Success, "{operation:?}");
    }
    drop((agent, another));
    Ok(())
}
