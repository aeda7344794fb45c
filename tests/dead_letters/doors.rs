use anyhow::Result;
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::error::ERROR_CODE_HEADER;
use loom_protocol::work::WorkStatus;
use loom_protocol::{Encoding, WorkId, names};
use loom_testkit::fleet::{Fleet, TestProject};
use serde_json::{Value, json};
use tokio::process::Command;

use super::house::{fail, get, letter_of};

/// Failed items of some capabilities, in this order, with their letters.
async fn failed(project: &TestProject, capabilities: &[&str]) -> Result<Vec<WorkId>> {
    let mut ids = Vec::new();
    for capability in capabilities {
        let agent = project.agent(capability).spawn().await?;
        let id = fail(project, &agent, json!({"contextData": "x"})).await?;
        letter_of(project, id).await?;
        agent.deregister().await?;
        ids.push(id);
    }
    Ok(ids)
}

/// One page: its ids, and the cursor of the next one.
async fn page(project: &TestProject, request: Value) -> Result<(Vec<WorkId>, Option<String>)> {
    let payload = Encoding::Json.encode(&request)?;
    let answer = project
        .exchange(Encoding::Json, "dlq.list", payload)
        .await?;
    let header = |name: &str| {
        let value = answer.headers.as_ref()?.get(name)?;
        Some(value.as_str().to_owned())
    };
    assert_eq!(header(ERROR_CODE_HEADER), None);
    let letters: Vec<DeadLetter> = Encoding::Json.decode(&answer.payload)?;
    assert!(letters.iter().all(|l| l.work_item.context_data.is_none()));
    let ids = letters.iter().map(|letter| letter.id).collect();
    Ok((ids, header(names::NEXT_CURSOR_HEADER)))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn letters_are_listed_by_filter_and_page_by_page() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    assert_eq!(page(&project, json!({})).await?, (Vec::new(), None));
    let ids = failed(&project, &["rust", "go", "rust", "go", "rust"]).await?;

    let (first, next) = page(&project, json!({"limit": 2})).await?;
    assert_eq!(first, ids[..2]);
    let (second, next) = page(&project, json!({"limit": 2, "cursor": next})).await?;
    assert_eq!(second, ids[2..4]);
    let (third, next) = page(&project, json!({"limit": 2, "cursor": next})).await?;
    assert_eq!((third.as_slice(), next), (&ids[4..], None));

    let (go, _) = page(&project, json!({"capability": "go"})).await?;
    assert_eq!(go, [ids[1], ids[3]]);
    let both = json!({"capability": "go", "reason": "agent-error", "limit": 1});
    let (go, next) = page(&project, both).await?;
    assert_eq!(go, [ids[1]]);
    assert!(next.is_some());
    let (none, _) = page(&project, json!({"reason": "timeout"})).await?;
    assert!(none.is_empty());
    let wrong = project.request("dlq.list", json!({"reason": "x"})).await;
    assert!(wrong.unwrap_err().message.contains("agent-error"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_discarded_letter_is_gone_and_its_item_stays_failed() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let id = failed(&project, &["rust"]).await?[0];
    let expected = json!({"id": id, "discarded": true});
    for _ in 0..2 {
        let answer = project.request("dlq.discard", json!({"id": id})).await?;
        assert_eq!(answer, expected, "repeated: the same answer");
    }
    assert!(get(&project, id).await.is_err());
    let item = project.work(id).await?;
    assert_eq!(item.status, WorkStatus::Failed);
    let refused = project.request("dlq.retry", json!({"id": id})).await;
    let code = refused.unwrap_err().code;
    assert_eq!(code, loom_protocol::ErrorCode::NotFound);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn rest_does_all_of_it() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let ids = failed(&project, &["rust", "go", "java", "c"]).await?;
    let api = project.api()?;
    let page: Value = api.get(&["dlq"], &[("limit", "3".into())]).await?;
    assert_eq!(page["count"], 3);
    assert_eq!(
        (&page["total"], &page["hasMore"]),
        (&json!(4), &json!(true))
    );
    assert_eq!(page["items"][1]["id"], json!(ids[1]));
    let stats: Value = api.get(&["stats"], &[]).await?;
    assert_eq!(stats["deadLetters"], json!({"total": 4, "expired": 0}));

    let named = ids[0].to_string();
    let letter: DeadLetter = api.get(&["dlq", &named[..30]], &[]).await?;
    assert!(letter.work_item.context_data.is_some());
    let retried: Value = api.post(&["dlq", &named, "retry"], &json!({})).await?;
    assert_eq!(retried["workItemId"], json!(ids[0]));
    let batch = json!({"ids": [ids[1], ids[1]], "resetAttempts": false});
    let batch: Value = api.post(&["dlq", "retry-batch"], &batch).await?;
    assert_eq!((&batch["count"], &batch["failed"]), (&json!(2), &json!([])));
    let both = json!({"all": true, "ids": [ids[2]]});
    for refused in [
        api.post::<Value>(&["dlq", "retry-batch"], &both)
            .await
            .unwrap_err()
            .to_string(),
        project
            .request("dlq.retry", both.clone())
            .await
            .unwrap_err()
            .message,
    ] {
        assert!(
            refused.contains("ids") && refused.contains("all: true"),
            "{refused}"
        );
    }
    assert_eq!(project.work(ids[2]).await?.status, WorkStatus::Failed);
    let java = json!({"capability": "java"});
    let batch: Value = api.post(&["dlq", "retry-batch"], &java).await?;
    assert_eq!(
        (&batch["count"], &batch["success"]),
        (&json!(1), &json!([ids[2]]))
    );
    let named = ids[3].to_string();
    let discarded: Value = api.delete(&["dlq", &named]).await?;
    assert_eq!(discarded["success"], true);
    let gone = api.get::<Value>(&["dlq", &named], &[]).await.unwrap_err();
    assert_eq!(gone.code(), Some(loom_protocol::ErrorCode::NotFound));
    let nothing = json!({});
    let refused = api.post::<Value>(&["dlq", "retry-batch"], &nothing).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("ids is missing"), "{refused}");
    Ok(())
}

/// `loom dlq …` as a person calls it: its exit code and what it prints.
async fn loom(fleet: &Fleet, project: &TestProject, words: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_loom"))
        .args(["--url", &format!("http://{}", fleet.api_address()?)])
        .args(["--project", project.id().as_str(), "dlq"])
        .args(words)
        .output()
        .await?;
    let printed = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(printed)?;
    Ok((output.status.code().unwrap_or(-1), text))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn the_command_line_does_all_of_it() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let empty = loom(&fleet, &project, &[]).await?;
    assert_eq!(empty, (0, "no dead letters\n".into()));
    let ids = failed(&project, &["rust", "go", "java"]).await?;
    let ids: Vec<String> = ids.iter().map(WorkId::to_string).collect();

    let (code, table) = loom(&fleet, &project, &["--capability", "go"]).await?;
    assert_eq!((code, table.lines().count()), (0, 2), "{table}");
    assert!(table.contains(&ids[1][..8]) && table.contains("the build is broken"));
    let (code, page) = loom(&fleet, &project, &["list", "--limit", "2", "--json"]).await?;
    let page: Value = serde_json::from_str(&page)?;
    assert_eq!((code, &page["count"]), (0, &json!(2)));

    let (code, story) = loom(&fleet, &project, &["show", &ids[0][..30]]).await?;
    assert_eq!(code, 0, "{story}");
    assert!(story.contains("attempt 1, agent ") && story.contains("1 of 1 spent"));
    let (code, said) = loom(&fleet, &project, &["retry", &ids[0][..30]]).await?;
    assert!(code == 0 && said.contains("back in the queue"), "{said}");
    let (code, said) = loom(&fleet, &project, &["retry", "--capability", "go"]).await?;
    assert_eq!((code, said.trim()), (0, "1 back in the queue"));
    let (code, said) = loom(&fleet, &project, &["discard", &ids[2]]).await?;
    assert!(code == 0 && said.contains("is discarded"), "{said}");
    for (words, expected) in [
        (vec!["retry"], 2),
        (vec!["retry", "--all", "--reason", "timeout"], 2),
        (vec!["retry", "--keep-attempts"], 2),
        (vec!["show", ids[2].as_str()], 2),
        (vec!["show", "../work"], 2),
        (vec!["list", "--reason", "bad-luck"], 2),
    ] {
        let (code, said) = loom(&fleet, &project, &words).await?;
        assert_eq!(code, expected, "{words:?}: {said}");
    }
    Ok(())
}
