use anyhow::Result;
use loom_testkit::fleet::Fleet;
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn nobody_is_eligible_for_an_item_that_does_not_wait() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let holder = project.agent("rust").slots(2).spawn().await?;
    project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let verdicts = async || -> Result<Vec<Value>> {
        let explained = project.request("work.explain", json!({ "id": id })).await?;
        Ok(explained["agents"].as_array().cloned().unwrap_or_default())
    };
    assert!(verdicts().await?.iter().all(|of| of["eligible"] == true));

    let item = holder.claim_one().await?;
    for verdict in verdicts().await? {
        assert_eq!(
            (&verdict["eligible"], &verdict["rule"]),
            (&json!(false), &json!("not-pending"))
        );
        let has_it = verdict["message"]
            .as_str()
            .is_some_and(|text| text.contains("it has it"));
        assert_eq!(has_it, verdict["guid"] == json!(holder.guid()), "{verdict}");
    }
    holder.complete(&item, "done").await?;
    let verdicts = verdicts().await?;
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(|of| of["eligible"] == false));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_cancelled_item_that_its_agent_has_not_stopped_takes_a_slot() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let cancelled = project.submit_plain("rust").await?;
    let item = agent.claim_one().await?;
    project
        .request("work.cancel", json!({ "id": cancelled }))
        .await?;

    let next = project.submit_plain("rust").await?;
    let rule = async || -> Result<Value> {
        let explained = project
            .request("work.explain", json!({ "id": next }))
            .await?;
        Ok(explained["agents"][0]["rule"].clone())
    };
    assert_eq!(rule().await?, "slots");
    assert!(agent.claim(json!({})).await?.is_empty());
    agent.report("stopped", &item, json!({})).await?;
    assert_eq!(rule().await?, Value::Null);
    assert_eq!(agent.claim_one().await?.work_item.id, next);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_answer_names_the_nearest_agents_and_counts_the_rest() -> Result<()> {
    const FAR: usize = 120;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let far = (0..FAR).map(|number| {
        let agent =
            json!({"handle": format!("far-{number}"), "agentType": "t", "capabilities": ["go"]});
        project.insist("agents.register", agent)
    });
    futures_util::future::try_join_all(far).await?;
    let busy = project.agent("rust").spawn().await?;
    project.submit_plain("rust").await?;
    busy.claim_one().await?;
    let near = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;

    let explained = project.request("work.explain", json!({ "id": id })).await?;
    let agents = explained["agents"].as_array().cloned().unwrap_or_default();
    assert_eq!(agents.len(), 100);
    assert_eq!(agents[0]["guid"], json!(near.guid()));
    assert_eq!(agents[0]["eligible"], true);
    assert_eq!(
        (&agents[1]["guid"], &agents[1]["rule"]),
        (&json!(busy.guid()), &json!("slots"))
    );
    assert_eq!(explained["agentsTotal"], FAR + 2);
    assert_eq!(explained["eligible"], 1);
    assert_eq!(explained["others"], json!({"capability": FAR + 2 - 100}));
    Ok(())
}
