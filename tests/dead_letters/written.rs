use anyhow::Result;
use loom_protocol::dead_letter::DeadLetter;
use loom_protocol::work::{Reason, WorkStatus};
use loom_protocol::{Encoding, names};
use loom_testkit::fleet::Fleet;
use serde_json::json;

use super::house::{fail, fail_one, get, letter_of, one_letter_each, record, stored};

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn exhausted_attempts_lead_to_exactly_one_letter_with_the_whole_story() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.work.retry.backoff_first = std::time::Duration::ZERO;
            settings.work.retry.backoff_max = std::time::Duration::ZERO;
        })
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let item = json!({
        "description": "d", "capability": "rust", "maxAttempts": 2, "priority": 8,
        "labels": {"team": "a"}, "contextData": {"files": ["a.rs"]},
    });
    let id = project.submit(item).await?.id;
    for attempt in 1..=2 {
        let claimed = agent.claim(json!({"waitMs": 5_000})).await?.remove(0);
        assert_eq!(claimed.lease.attempt, attempt);
        assert!(get(&project, id).await.is_err(), "it may still succeed");
        agent
            .fail(&claimed, &format!("broken {attempt}"), true)
            .await?;
    }

    let letter = letter_of(&project, id).await?;
    assert_eq!((letter.id, letter.reason), (id, Reason::AgentError));
    assert_eq!((letter.attempts, letter.retries), (2, 0));
    assert_eq!(letter.last_agent_guid, Some(agent.guid()));
    let told: Vec<_> = letter.errors.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(told, ["broken 1", "broken 2"]);
    let agents = letter.errors.iter().map(|e| e.agent_guid);
    assert!(agents.eq([Some(agent.guid()); 2]));
    let item = &letter.work_item;
    assert_eq!((item.status, item.attempt), (WorkStatus::Failed, 2));
    assert_eq!((item.priority, item.labels["team"].as_str()), (8, "a"));
    let context: serde_json::Value = item.context_data.as_ref().unwrap().parse()?;
    assert_eq!(context, json!({"files": ["a.rs"]}));

    assert_eq!(stored(&project).await?, (1, 1), "published once");
    let noted = record(&project, id).await?.dead_letter;
    assert_eq!(noted, Some(1), "and noted by its sequence");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_is_not_recoverable_becomes_a_letter_at_once() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = project.submit_plain("rust").await?;
    let claimed = agent.claim_one().await?;
    agent.fail(&claimed, "no such repository", false).await?;
    // Repeated, as after a lost answer: the same end, the same letter.
    agent.fail(&claimed, "no such repository", false).await?;
    let letter = letter_of(&project, id).await?;
    assert_eq!((letter.attempts, letter.errors.len()), (1, 1));
    assert!(!letter.errors[0].recoverable);
    assert_eq!(stored(&project).await?, (1, 1));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn returns_that_use_up_the_attempts_say_why() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let item = json!({"description": "d", "capability": "rust", "maxAttempts": 1});
    let id = project.submit(item).await?.id;
    for _ in 0..6 {
        // Another one each time: an agent does not get what it has just released.
        let agent = project.agent("rust").spawn().await?;
        let claimed = agent.claim_one().await?;
        agent.release(&claimed).await?;
    }
    let letter = letter_of(&project, id).await?;
    // Nobody ever began it: that is why, whoever gave it back.
    assert_eq!((letter.reason, letter.attempts), (Reason::NotStarted, 1));
    assert!(letter.errors[0].message.contains("6 times"));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn poison_and_rejected_bytes_are_kept_exactly() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    project.agent("rust").spawn().await?;
    let queue = names::work_queue(project.id(), "rust");
    let noise: Vec<u8> = (0..=255).cycle().take(600_000).collect();
    let rejected = br#"{"description": "d", "priority": 11}"#.to_vec();
    for bytes in [&noise, &rejected] {
        let publish = project
            .jetstream()
            .publish(queue.clone(), bytes.clone().into());
        publish.await?.await?;
    }
    let letters = project.eventually("two letters", async || {
        let list = project.request("dlq.list", json!({})).await.ok()?;
        let mut letters: Vec<DeadLetter> = serde_json::from_value(list).ok()?;
        // They are written side by side: the smaller one may be the first.
        letters.sort_by_key(|letter| letter.reason != Reason::Poison);
        (letters.len() == 2).then_some(letters)
    });
    for (letter, (reason, bytes)) in letters
        .await?
        .into_iter()
        .zip([(Reason::Poison, noise), (Reason::Rejected, rejected)])
    {
        assert_eq!(letter.reason, reason);
        assert_eq!(letter.submission, None, "not in a list");
        for encoding in [Encoding::MessagePack, Encoding::Json] {
            let named = json!({"id": letter.id});
            let whole: DeadLetter = project.call_in(encoding, "dlq.get", &named).await?;
            let kept = whole.submission.expect("what was published");
            assert_eq!(kept.size, bytes.len() as u64);
            assert!(kept.base64.0 == bytes, "every byte as it came");
            let where_they_are = &whole.work_item.description;
            assert!(where_they_are.ends_with("its bytes are the `submission` of its dead letter"));
        }
        let named = json!({"id": letter.id});
        let refused = project.request("dlq.retry", named).await.unwrap_err();
        assert!(refused.message.contains("publish it mended"), "{refused:?}");
    }
    assert_eq!(one_letter_each(&project).await?, 2);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_burst_of_failures_leaves_nobody_without_a_letter() -> Result<()> {
    const BURST: u64 = 3_000;
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    project.agent("rust").spawn().await?;
    let queue = names::work_queue(project.id(), "rust");
    let mut stored_there = Vec::new();
    for n in 0..BURST {
        let bytes = format!("{{ not JSON {n}");
        let published = project.jetstream().publish(queue.clone(), bytes.into());
        stored_there.push(published.await?);
    }
    for message in stored_there {
        message.await?;
    }
    // Writes side by side are told in any order: the letter of each is written all the same.
    let all = project.eventually("a letter each", async || {
        let (messages, published) = stored(&project).await.ok()?;
        (messages == BURST).then_some(published)
    });
    assert_eq!(all.await?, BURST, "each published once");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_letter_keeps_its_record_alive_only_until_it_is_noted() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| settings.work.retention = std::time::Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    let gone = project.eventually("the record expires", async || {
        project.work(id).await.err().map(drop)
    });
    gone.await?;
    assert_eq!(get(&project, id).await?.id, id, "the letter stays");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn letters_expire_by_age_and_are_counted() -> Result<()> {
    let fleet = Fleet::builder()
        .settings(|settings| settings.dlq.retention = std::time::Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail(&project, &agent, json!({"contextData": "x"})).await?;
    let parts = project.parts()?;
    let expired = project.eventually("the letter expires", async || {
        (parts.letters.expired() == 1 && parts.letters.total() == 0).then_some(())
    });
    expired.await?;
    assert!(get(&project, id).await.is_err());
    assert_eq!(project.work(id).await?.status, WorkStatus::Failed);
    Ok(())
}
