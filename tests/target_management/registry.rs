//! The lines of the document: register, verify the state, deregister.

use anyhow::{Context as _, Result};
use loom_protocol::event::TargetEventKind;
use loom_protocol::rest::{DisableTargetsResult, Stats, TargetsPage};
use loom_protocol::target::{TargetAnswer, TargetStatus};
use loom_protocol::{ErrorCode, names};
use loom_testkit::fleet::Fleet;
use serde_json::{Value, json};

use crate::{SECRET, all, get, local, names_of, register};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn register_a_spin_up_target() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;

    let here = register(&project, local("Big.Host")).await?;
    assert_eq!(
        (here.name.as_str(), here.status),
        ("Big.Host", TargetStatus::Available)
    );
    assert_eq!((here.max_agents, here.use_count), (1, 0));
    let told = signals
        .target(TargetEventKind::Registered, "Big.Host")
        .await?;
    assert_eq!(
        (told.target_id, told.new_status),
        (here.id, Some(TargetStatus::Available))
    );

    // Answered when it is durable: the record is there, once, under the name in lower case.
    let bucket = names::targets_bucket(project.id());
    let bucket = project.jetstream().get_key_value(&bucket).await?;
    assert!(bucket.get("target.big=2Ehost").await?.is_some());

    // By its id, the beginning of it, and its name in whatever case; the old answer's fields too.
    let id = here.id.to_string();
    for named in [id.as_str(), &id[..8], &id[..3], "Big.Host", "bIG.hOST"] {
        assert_eq!(get(&project, named).await?.id, here.id, "{named}");
    }
    let api = project.api()?;
    let by_rest: Value = api.get(&["targets", "big.host"], &[]).await?;
    assert_eq!(by_rest["createdAt"], by_rest["registeredAt"]);

    // Over REST, flat, and with the fields of the configuration beside the others.
    let flat = json!({
        "name": "flat", "agentType": "t", "capabilities": ["go"], "mechanism": "ssh",
        "config": {"host": "build-2", "user": "me", "command": "agent"}, "projectId": project.id(),
    });
    let flat: Value = api.post(&["targets"], &flat).await?;
    assert_eq!(flat["config"]["host"], "build-2");
    let beside = json!({
        "name": "beside", "agentType": "t", "capabilities": ["go"], "mechanism": "webhook",
        "url": "https://hooks.example/start", "projectId": project.id(), "enabled": false,
    });
    let beside: TargetAnswer = api.post(&["targets"], &beside).await?;
    assert_eq!(beside.target.status, TargetStatus::Disabled);
    assert_eq!(
        names_of(&all(&project).await?),
        ["Big.Host", "flat", "beside"]
    );
    let stats: Stats = api.get(&["stats"], &[]).await?;
    assert_eq!(
        (
            stats.targets.total,
            stats.targets.available,
            stats.targets.disabled
        ),
        (3, 2, 1)
    );
    assert_eq!(stats.totals.targets, 3);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn verify_target_state() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let api = project.api()?;
    for number in 0..5 {
        let mut target = local(&format!("t{number}"));
        target["tags"] = json!([format!("tag-{}", number % 2)]);
        target["boundaries"] = if number == 0 {
            json!([])
        } else {
            json!(["eu"])
        };
        register(&project, target).await?;
    }
    let list = async |filter: &[(&str, &str)]| {
        let filter: Vec<_> = filter.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        let page: TargetsPage = api.get(&["targets"], &filter).await?;
        anyhow::Ok(page)
    };
    let names = |page: &TargetsPage| -> Vec<String> {
        page.targets.iter().map(|t| t.target.name.clone()).collect()
    };
    assert_eq!(names(&list(&[("tag", "tag-1")]).await?), ["t1", "t3"]);
    assert_eq!(
        names(&list(&[("boundary", "us")]).await?),
        ["t0"],
        "it serves any"
    );
    for (filter, count) in [
        (("type", "claude-code"), 5),
        (("type", "codex"), 0),
        (("capability", "go"), 0),
        (("mechanism", "ssh"), 0),
        (("status", "available"), 5),
        (("status", "disabled"), 0),
        (("healthStatus", "unknown"), 5),
        (("healthStatus", "healthy"), 0),
    ] {
        assert_eq!(list(&[filter]).await?.page.total, count, "{filter:?}");
    }
    for wrong in [
        ("status", "asleep"),
        ("mechanism", "carrier"),
        ("limit", "0"),
        ("cursor", "x"),
    ] {
        assert!(list(&[wrong]).await.is_err(), "{wrong:?}");
    }
    let first = list(&[("limit", "2")]).await?;
    let cursor = first.page.next_cursor.clone().context("there are more")?;
    assert_eq!(
        names(&list(&[("limit", "2"), ("cursor", &cursor)]).await?),
        ["t2", "t3"]
    );

    // Changed: what is not named stays, secrets too.
    let changes = json!({"target": "T1", "updates": {
        "maxAgents": 3, "description": "much", "config": {"args": ["-x"], "env": {"TOKEN": "***", "B": "2"}},
    }});
    let changed: TargetAnswer = project.call("targets.update", &changes).await?;
    assert_eq!(
        (changed.target.max_agents, changed.target.tags.len()),
        (3, 1)
    );
    signals.target(TargetEventKind::Updated, "t1").await?;
    let stored = project
        .parts()?
        .targets
        .get(changed.target.id)
        .context("it is there")?;
    let stored = stored.config.stored()?["local"].clone();
    assert_eq!(stored["env"], json!({"TOKEN": SECRET, "B": "2"}));
    assert_eq!(
        (&stored["args"], &stored["command"]),
        (&json!(["-x"]), &json!("run"))
    );
    let put: TargetAnswer = api
        .put(&["targets", "t1"], &json!({"maxAgents": 4}))
        .await?;
    assert_eq!(
        (put.target.max_agents, put.target.description.as_deref()),
        (4, Some("much"))
    );

    // Switched.
    let off: Value = api.post(&["targets", "t2", "disable"], &json!({})).await?;
    assert_eq!(
        (&off["success"], &off["status"]),
        (&json!(true), &json!("disabled"))
    );
    let told = signals.target(TargetEventKind::Disabled, "t2").await?;
    assert_eq!(told.previous_status, Some(TargetStatus::Available));
    assert_eq!(names(&list(&[]).await?), ["t0", "t1", "t3", "t4"]);
    assert_eq!(names(&list(&[("status", "disabled")]).await?), ["t2"]);
    assert_eq!(list(&[("includeDisabled", "true")]).await?.page.total, 5);
    let on: TargetAnswer = project
        .call("targets.enable", &json!({"target": "t2"}))
        .await?;
    assert_eq!(on.target.status, TargetStatus::Available);
    let batch = json!({"filter": {"tag": "tag-0"}});
    let batch: DisableTargetsResult = api.post(&["targets", "disable-batch"], &batch).await?;
    assert_eq!((batch.batch.count, batch.disabled_targets.len()), (3, 3));
    let listed = json!({"targets": ["t1", "nobody"]});
    let listed: DisableTargetsResult = api.post(&["targets", "disable-batch"], &listed).await?;
    assert_eq!(
        (listed.disabled_targets, listed.batch.failed),
        (vec!["t1".into()], vec!["nobody".into()])
    );
    let nothing: Result<Value, _> = api.post(&["targets", "disable-batch"], &json!({})).await;
    assert!(
        nothing.is_err(),
        "a filter that was forgotten does not mean everything"
    );
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deregister_target() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let mut signals = project.signals().await?;
    let first = register(&project, local("here")).await?;
    let removed = project
        .request("targets.remove", json!({"target": "HERE"}))
        .await?;
    assert_eq!(
        (&removed["success"], &removed["id"]),
        (&json!(true), &json!(first.id))
    );
    let told = signals.target(TargetEventKind::Removed, "here").await?;
    assert_eq!(told.new_status, None);
    for gone in ["here".to_owned(), first.id.to_string()] {
        let error = get(&project, &gone).await.expect_err("it is gone");
        assert_eq!(error.code, ErrorCode::NotFound);
    }
    let again = project
        .request("targets.remove", json!({"target": "here"}))
        .await;
    assert_eq!(again.expect_err("it is gone").code, ErrorCode::NotFound);

    // The name is free, in whatever case, and what is asked of the first does not hit the second.
    let second = register(&project, local("Here")).await?;
    assert_ne!(first.id, second.id);
    let removed: Value = project.api()?.delete(&["targets", "here"]).await?;
    assert_eq!(removed["message"], "Here is removed");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_project_without_targets_has_no_bucket_for_them() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    assert_eq!(all(&project).await?.len(), 0, "a look makes nothing");
    project.submit_plain("rust").await?;
    assert_eq!(all(&project).await?.len(), 0);
    let bucket = names::targets_bucket(project.id());
    assert!(project.jetstream().get_key_value(&bucket).await.is_err());
    Ok(())
}

/// A client sends a removal again whose answer got lost.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_removal_by_id_that_is_sent_again_removes_nobody_who_is_called_like_that_id() -> Result<()>
{
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = register(&project, local("meant")).await?.id.to_string();
    let called_so = register(&project, local(&id)).await;
    assert_eq!(called_so.unwrap_err().code, ErrorCode::InvalidRequest);
    let by_id = json!({"target": id});
    let removed = project.request("targets.remove", by_id.clone()).await?;
    assert_eq!(removed["name"], "meant");
    let again = project.request("targets.remove", by_id).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::NotFound);
    Ok(())
}
