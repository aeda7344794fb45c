//! Starts of agents as programs outside ask for them and look at them, with real processes: `spin-up.*`, its paths, what
//! `work.explain` and the answer to a submission say of them.

use anyhow::{Context as _, Result, ensure};
use loom_protocol::rest::SpinUpsPage;
use loom_protocol::target::{SpinUpOperation, SpinUpStatus, Target};
use loom_protocol::{AgentGuid, ErrorCode, SpinUpId};
use loom_testkit::births::Place;
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};

use crate::register;

/// A target of `codex` agents whose processes wait to be told who they are.
pub(crate) fn waiting(place: &Place, name: &str, changes: &Value) -> Value {
    crate::with(
        place.target_with(name, &json!({"agentType": "codex"})),
        changes,
    )
}

/// The same whose processes end at once.
pub(crate) fn failing(place: &Place, name: &str, changes: &Value) -> Value {
    let config =
        json!({"config": {"command": "sh", "args": ["-c", "echo no such program; exit 3"]}});
    crate::with(waiting(place, name, &config), changes)
}

/// The agent of a start registers.
pub(crate) async fn give_birth(
    project: &TestProject,
    place: &Place,
    start: SpinUpId,
) -> Result<AgentGuid> {
    let guid = AgentGuid::generate();
    let process = place.of(project, start).await?;
    process.redeem(project, guid).await??;
    Ok(guid)
}

pub(crate) async fn trigger(project: &TestProject, target: &str) -> Result<SpinUpOperation> {
    let begun = project
        .call("spin-up.trigger", &json!({"target": target}))
        .await;
    begun.with_context(|| format!("a start at {target}"))
}

/// A start as soon as it is in a state.
pub(crate) async fn until(
    project: &TestProject,
    id: SpinUpId,
    status: SpinUpStatus,
) -> Result<SpinUpOperation> {
    let look = async || {
        let request = json!({"operationId": id});
        let operation: SpinUpOperation = project.call("spin-up.status", &request).await.ok()?;
        (operation.status == status).then_some(operation)
    };
    let what = format!("the start {id} is {}", status.as_str());
    project.eventually(&what, look).await
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_start_is_asked_for_and_looked_at_until_its_agent_is_there() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let api = project.api()?;
    let here: Target = register(&project, waiting(&place, "Here", &json!({}))).await?;
    let there = waiting(&place, "there", &json!({"maxAgents": 2}));
    let there = register(&project, there).await?;

    // Over NATS: the operation. Nobody has asked for anybody: it has no need.
    let first = trigger(&project, "hERE").await?;
    assert_eq!(
        (first.target_id, first.target_name.as_str(), &first.need),
        (here.id, "Here", &None)
    );
    assert!(!first.status.is_over());
    until(&project, first.operation_id, SpinUpStatus::InProgress).await?;

    // Over REST: the six fields that existing clients read, with an empty body.
    let path = ["targets", &there.id.to_string()[..8], "spin-up"];
    let second: Value = api.post(&path, &json!({})).await?;
    let fields: Vec<&str> = second
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(
        fields,
        [
            "operationId",
            "status",
            "success",
            "targetId",
            "targetName",
            "timestamp"
        ]
    );
    assert_eq!(
        (
            &second["targetId"],
            &second["targetName"],
            &second["status"],
            &second["success"]
        ),
        (
            &json!(there.id),
            &json!("there"),
            &json!("in-progress"),
            &json!(true)
        )
    );
    let second: SpinUpId = serde_json::from_value(second["operationId"].clone())?;
    let third = trigger(&project, "there").await?.operation_id;

    // The latest first, page by page, by state and by target; one by the beginning of its id.
    let list = async |query: &[(&str, &str)]| -> Result<SpinUpsPage> {
        let query: Vec<_> = query.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        Ok(api.get(&["spin-ups"], &query).await?)
    };
    let ids = |page: &SpinUpsPage| -> Vec<SpinUpId> {
        page.operations.iter().map(|one| one.operation_id).collect()
    };
    let all = list(&[]).await?;
    assert_eq!(
        (ids(&all), all.page.total),
        (vec![third, second, first.operation_id], 3)
    );
    let one = list(&[("limit", "1")]).await?;
    let cursor = one.page.next_cursor.clone().context("there are more")?;
    let two = list(&[("limit", "1"), ("cursor", &cursor)]).await?;
    assert_eq!((ids(&one), ids(&two)), (vec![third], vec![second]));
    let back = two
        .page
        .prev_cursor
        .clone()
        .context("there is one before")?;
    assert_eq!(
        ids(&list(&[("limit", "1"), ("cursor", &back)]).await?),
        [third]
    );
    assert_eq!(ids(&list(&[("target", "THERE")]).await?), [third, second]);
    let over_nats = json!({"target": here.id, "status": "in-progress"});
    let over_nats: Vec<SpinUpOperation> = project.call("spin-up.list", &over_nats).await?;
    assert_eq!(over_nats.len(), 1);
    let shown: SpinUpOperation = api
        .get(&["spin-ups", &third.to_string()[..13]], &[])
        .await?;
    assert_eq!(shown.operation_id, third);

    let guid = give_birth(&project, &place, first.operation_id).await?;
    let born = until(&project, first.operation_id, SpinUpStatus::Success).await?;
    assert_eq!(born.agent_guid, Some(guid));
    assert_eq!(
        ids(&list(&[("status", "success")]).await?),
        [first.operation_id]
    );
    let seen = project
        .request("targets.get", json!({"target": "here"}))
        .await?;
    assert_eq!(
        (
            &seen["lastSpinUp"]["outcome"],
            &seen["currentAgentGuid"],
            &seen["status"]
        ),
        (&json!("success"), &json!(guid), &json!("in-use"))
    );

    // Neither twice, nor at one that a person has switched off: 409, with the rule for programs.
    for (target, rule) in [("here", "full"), ("there", "disabled")] {
        if rule == "disabled" {
            project
                .request("targets.disable", json!({"target": target}))
                .await?;
        }
        let over_nats = project
            .request("spin-up.trigger", json!({"target": target}))
            .await;
        let error = over_nats.err().context("it starts none")?;
        assert_eq!(
            (error.code, error.code.status()),
            (ErrorCode::TerminalState, 409)
        );
        let details = error
            .details
            .as_ref()
            .map(|details| details["rule"].clone());
        assert_eq!(details, Some(json!(rule)), "{error}");
        ensure!(
            error.message.contains(target) || error.message.contains("Here"),
            "{error}"
        );
        let over_rest = api
            .post::<Value>(&["targets", target, "spin-up"], &json!({}))
            .await;
        assert_eq!(
            over_rest.err().and_then(|e| e.code()),
            Some(ErrorCode::TerminalState)
        );
    }

    // What has ended at a target that is gone is still told, by that target's id.
    let gone = register(&project, failing(&place, "gone", &json!({}))).await?;
    let failed = trigger(&project, "gone").await?.operation_id;
    let failed = until(&project, failed, SpinUpStatus::Failed).await?;
    ensure!(failed.error.is_some() && failed.ended_at.is_some());
    ensure!(
        failed
            .output
            .as_deref()
            .is_some_and(|said| said.contains("no such program"))
    );
    project
        .request("targets.remove", json!({"target": "gone"}))
        .await?;
    assert_eq!(
        ids(&list(&[("target", &gone.id.to_string())]).await?),
        [failed.operation_id]
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_start_for_an_item_has_its_need_and_none_is_begun_for_one_that_its_agent_may_not_take()
-> Result<()> {
    let fleet = Fleet::shared().await?;
    let (project, place) = (fleet.project().await?, Place::new()?);
    let item = json!({"description": "d", "capability": "rust", "boundary": "eu", "notBefore": "2100-01-01T00:00:00Z"});
    let item = project.submit(item).await?;
    let wrong = json!({"boundaries": ["us"]});
    register(&project, waiting(&place, "wrong", &wrong)).await?;
    register(&project, waiting(&place, "right", &json!({}))).await?;
    let ask = async |target: &str, item: &str| {
        let request = json!({"target": target, "workItemId": item});
        project.request("spin-up.trigger", request).await
    };
    let id = item.id.to_string();
    let refused = ask("wrong", &id).await.err().context("it serves us only")?;
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    for part in ["wrong", "\"us\"", "\"eu\"", &id] {
        ensure!(refused.message.contains(part), "{part} is not in {refused}");
    }
    let unknown = ask("right", "nobody")
        .await
        .err()
        .context("there is none")?;
    assert_eq!(unknown.code, ErrorCode::NotFound);
    // By its taskId.
    let begun = ask("right", &item.task_id).await?;
    assert_eq!(
        (&begun["need"], &begun["workItemId"]),
        (&json!({"capability": "rust", "boundary": "eu"}), &json!(id))
    );
    project.request("work.cancel", json!({"id": id})).await?;
    let over = ask("right", &id).await.err().context("it waits no more")?;
    assert_eq!(over.code, ErrorCode::TerminalState);
    ensure!(over.message.contains("cancelled"), "{over}");
    Ok(())
}
