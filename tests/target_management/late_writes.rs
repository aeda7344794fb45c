//! Starts that a former owner has recorded late: it stood still with the write on its way, and the next coordinator had
//! read the bucket by then. Here the bucket is written to from outside, which looks the same to whoever owns.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loom_actors::events::Heard;
use loom_protocol::target::{SpinUpStatus, Target};
use loom_protocol::{AgentGuid, SpinUpId, Timestamp, names};
use loom_testkit::births::{Place, Process, a_while, came_to, operations, submit};
use loom_testkit::fleet::{Fleet, PATIENCE, TestProject};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::births::let_register;
use crate::{get, register};

/// Records so many starts of that time that nobody has begun, on the revision that is there; on another machine, if that
/// is named.
pub(crate) async fn record_starts(
    project: &TestProject,
    target: &Target,
    (count, recorded_at): (u8, Timestamp),
    at: Option<&str>,
) -> Result<Vec<SpinUpId>> {
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    let key = names::target_key(&target.name);
    let entry = bucket.entry(&key).await?.context("its record")?;
    let mut record: Value = serde_json::from_slice(&entry.value[1..])?;
    let ids: Vec<SpinUpId> = (0..count).map(|_| SpinUpId::generate()).collect();
    let birth = |(id, number): (&SpinUpId, u8)| {
        json!({
            "operation": {
                "operationId": id, "targetId": target.id, "targetName": target.name,
                "mechanism": "local", "status": "pending",
                "need": {"capability": "rust", "boundary": "default"}, "startedAt": recorded_at,
            },
            "ticket": {
                "digest": vec![number; 32], "agentType": target.agent_type,
                "capabilities": ["rust"], "boundaries": ["default"],
            },
            "reference": null, "place": at,
            // Programs of before wrote this; nobody reads it.
            "until": recorded_at,
        })
    };
    record["births"] = ids.iter().zip(0..).map(birth).collect();
    // The version of the record stands before it.
    let mut bytes = entry.value[..1].to_vec();
    serde_json::to_writer(&mut bytes, &record)?;
    bucket.update(&key, bytes.into(), entry.revision).await?;
    Ok(ids)
}

/// One that was recorded when its target was changed last.
async fn record_a_start(
    project: &TestProject,
    target: &Target,
    at: Option<&str>,
) -> Result<SpinUpId> {
    let starts = (1, target.updated_at);
    Ok(record_starts(project, target, starts, at).await?[0])
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_start_that_a_former_owner_recorded_late_is_gone_on_with_when_it_is_come_upon()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    let target = get(&project, "here").await?;
    let start = record_a_start(&project, &target, None).await?;
    // What is decided for this is refused: the record has as many starts as it may.
    submit(&project, 1).await?;
    place.of(&project, start).await?;
    let agents = let_register(&project, &place, 1).await?;
    came_to(&project, SpinUpStatus::Success, "here").await?;
    a_while().await;
    ensure!(place.processes().len() == 1, "{:?}", place.processes());
    let all = operations(&project)?;
    ensure!(all.len() == 1 && all[0].operation_id == start, "{all:?}");
    drop(agents);
    Ok(())
}

/// Who follows the events may have missed what the former owner did: that is told, so that they look for themselves.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_a_former_owner_recorded_late_is_told_as_a_gap_when_it_is_come_upon() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, elsewhere) = (fleet.project().await?, fleet.project().await?);
    let place = Place::new()?;
    for project in [&project, &elsewhere] {
        register(project, place.target("here", 1)).await?;
    }
    let target = get(&project, "here").await?;
    let service = fleet.service()?;
    let listen = |project: &TestProject| service.events().listen(Some(project.id().clone()));
    let (mut news, mut other_news) = (listen(&project), listen(&elsewhere));
    record_a_start(&project, &target, Some("another machine")).await?;
    // It is come upon when something else is to be written.
    let changes = json!({"target": "here", "updates": {"description": "changed"}});
    for project in [&project, &elsewhere] {
        project.request("targets.update", changes.clone()).await?;
    }
    let gap = async {
        while let Some(heard) = news.next().await {
            if matches!(heard, Heard::Gap) {
                return Ok(());
            }
        }
        anyhow::bail!("nothing more is told")
    };
    timeout(PATIENCE, gap).await.context("a gap is told")??;
    let told_elsewhere = async {
        while let Some(heard) = other_news.next().await {
            ensure!(!matches!(heard, Heard::Gap), "a gap in another project");
            if matches!(&heard, Heard::Event(event) if event.name() == "target:updated") {
                return Ok(());
            }
        }
        anyhow::bail!("nothing more is told")
    };
    timeout(PATIENCE, told_elsewhere)
        .await
        .context("its change is told")?
}

/// A former owner has taken the agent in, on the revision that is there: its write is stored late.
async fn link(project: &TestProject, process: &Process, guid: AgentGuid) -> Result<()> {
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    let key = names::target_key("here");
    let entry = bucket.entry(&key).await?.context("its record")?;
    let mut record: Value = serde_json::from_slice(&entry.value[1..])?;
    let birth = record["births"][0].take();
    ensure!(!birth["reference"].is_null(), "{birth}");
    record["births"] = json!([]);
    record["agents"] = json!([{
        "guid": guid, "instanceId": process.registration(guid)["instanceId"],
        "operationId": process.start, "ticket": birth["ticket"], "reference": birth["reference"],
        "bornAt": birth["operation"]["startedAt"],
    }]);
    let mut bytes = entry.value[..1].to_vec();
    serde_json::to_writer(&mut bytes, &record)?;
    bucket.update(&key, bytes.into(), entry.revision).await?;
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_a_former_owner_took_in_late_is_not_ended_when_its_birth_had_its_time()
-> Result<()> {
    let limit = Duration::from_secs(3);
    let fleet = Fleet::builder()
        .settings(move |settings| settings.targets.birth_timeout.local = limit)
        .start()
        .await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    submit(&project, 1).await?;
    let process = place.started(&project, 1).await?.remove(0);
    let begun = Instant::now();
    came_to(&project, SpinUpStatus::InProgress, "here").await?;
    let guid = AgentGuid::generate();
    link(&project, &process, guid).await?;
    let agent = process.register(&project, guid).await?;
    // deliberate sleep: that nothing happens can be waited for in no other way
    tokio::time::sleep_until(begun + limit).await;
    a_while().await;
    ensure!(place.living().len() == 1, "it works");
    ensure!(project.parts()?.targets.linked(guid).is_some());
    drop(agent);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_local_start_that_was_recorded_on_another_machine_is_not_begun_once_more() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    register(&project, place.target("here", 1)).await?;
    let target = get(&project, "here").await?;
    let start = record_a_start(&project, &target, Some("another machine")).await?;
    submit(&project, 1).await?;
    let known = async || operations(&project).ok().filter(|all| !all.is_empty());
    project.eventually("the start is known", known).await?;
    a_while().await;
    ensure!(place.processes().is_empty(), "{:?}", place.processes());
    let all = operations(&project)?;
    ensure!(all.len() == 1 && all[0].operation_id == start, "{all:?}");
    ensure!(all[0].status == SpinUpStatus::Pending, "{all:?}");

    // What is begun here is recorded with where that is.
    let other = place.target("other", 1);
    register(&project, other).await?;
    project
        .insist("spin-up.trigger", json!({"target": "other"}))
        .await?;
    place.started(&project, 1).await?;
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    let recorded = bucket
        .get(names::target_key("other"))
        .await?
        .context("its record")?;
    let record: Value = serde_json::from_slice(&recorded[1..])?;
    let at = &record["births"][0]["place"];
    ensure!(at.is_string() && at != "another machine", "{record}");
    Ok(())
}
