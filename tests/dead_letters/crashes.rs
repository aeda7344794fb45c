use anyhow::Result;
use loom_protocol::names;
use loom_protocol::work::WorkStatus;
use loom_testkit::fleet::{Fleet, Role, TestProject};
use serde_json::json;

use super::house::{
    fail_one, get, letter_of, no_letter_of, one_letter_each, put_record, record, stored,
};

/// A fleet with one failed item and its letter, crashed.
async fn crashed() -> Result<(Fleet, TestProject, loom_protocol::WorkId)> {
    let mut fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    fleet.crash().await?;
    Ok((fleet, project, id))
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_before_the_publish_leaves_exactly_one_letter() -> Result<()> {
    let (mut fleet, project, id) = crashed().await?;
    let mut as_failed = record(&project, id).await?;
    as_failed.dead_letter = None;
    put_record(&project, &as_failed).await?;
    let stream = names::dead_letter_stream(project.id());
    let stream = project.jetstream().get_stream(stream).await?;
    stream.purge().await?;

    fleet.start_again().await?;
    let letter = letter_of(&project, id).await?;
    assert_eq!(letter.errors[0].message, "the build is broken");
    assert_eq!(stored(&project).await?.0, 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_between_publish_and_note_leaves_the_letter_that_is_there() -> Result<()> {
    let (mut fleet, project, id) = crashed().await?;
    let mut as_failed = record(&project, id).await?;
    let letter = stored_letter(&project).await?;
    as_failed.dead_letter = None;
    as_failed.updated_at = letter.failed_at;
    put_record(&project, &as_failed).await?;

    fleet.start_again().await?;
    letter_of(&project, id).await?;
    assert_eq!(stored(&project).await?, (1, 1), "not published again");
    assert_eq!(record(&project, id).await?.dead_letter, Some(1));
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_crash_between_pending_and_delete_leaves_no_letter() -> Result<()> {
    let (mut fleet, project, id) = crashed().await?;
    let mut as_pending = record(&project, id).await?;
    as_pending.status = WorkStatus::Pending;
    as_pending.dead_letter = None;
    as_pending.retries = 1;
    as_pending.attempts = 0;
    put_record(&project, &as_pending).await?;

    fleet.start_again().await?;
    no_letter_of(&project, id).await?;
    assert_eq!(stored(&project).await?.0, 0);
    let again = project.request("dlq.retry", json!({"id": id})).await?;
    assert_eq!(again["retried"], 1, "the repeated request is answered");
    assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_letter_whose_record_is_gone_stays() -> Result<()> {
    let (mut fleet, project, id) = crashed().await?;
    super::house::expire_record(&project, id).await?;
    fleet.start_again().await?;
    let found = project.eventually("the letter", async || get(&project, id).await.ok());
    assert_eq!(found.await?.id, id);
    assert!(project.work(id).await.is_err());
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_discarded_letter_does_not_come_back_after_a_crash() -> Result<()> {
    let (mut fleet, project, id) = crashed().await?;
    fleet.start_again().await?;
    let found = project.eventually("the letter", async || get(&project, id).await.ok());
    found.await?;
    for _ in 0..2 {
        let discarded = project.request("dlq.discard", json!({"id": id})).await?;
        assert_eq!(discarded, json!({"id": id, "discarded": true}));
    }
    fleet.crash().await?;
    fleet.start_again().await?;
    let agent = project.agent("rust").spawn().await?;
    let other = fail_one(&project, &agent).await?;
    letter_of(&project, other).await?;
    assert_eq!(stored(&project).await?.0, 1, "only that of the other one");
    assert_eq!(project.work(id).await?.status, WorkStatus::Failed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn letters_wait_for_nats_and_are_written_when_it_is_back() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let id = fail_one(&project, &agent).await?;
    fleet.nats().kill().await?;
    fleet.nats().restart().await?;
    letter_of(&project, id).await?;
    assert_eq!(one_letter_each(&project).await?, 1);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_stream_whose_making_was_not_answered_can_be_used_afterwards() -> Result<()> {
    let fleet = Fleet::own().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    let letters = project.parts()?.letters.clone();
    fleet.nats().pause()?;
    let made = letters.store().prepare().await;
    fleet.nats().resume()?;
    assert!(made.is_err(), "the server stood still");
    let id = fail_one(&project, &agent).await?;
    letter_of(&project, id).await?;
    assert_eq!(letters.store().problem(), None);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn deaths_in_the_middle_leave_one_letter_each() -> Result<()> {
    const ITEMS: usize = 60;
    // An agent that fails so much would be quarantined.
    let mut fleet = Fleet::builder()
        .settings(|settings| settings.agents.quarantine_after = 0)
        .start()
        .await?;
    let project = fleet.project().await?;
    let mut agent = project.agent("rust").spawn().await?;
    let deaths = [Role::DlqRetrier, Role::WorkLedger, Role::WorkDispatcher];
    for n in 0..ITEMS {
        let item = json!({"description": "d", "capability": "rust", "maxAttempts": 1});
        project.insist("work.submit", item).await?;
        let claim = json!({"guid": agent.guid(), "waitMs": 5_000});
        let claimed = project.insist("work.claim", claim).await?;
        let item = &claimed["items"][0];
        let report = json!({
            "guid": agent.guid(), "id": item["workItem"]["id"], "attempt": item["lease"]["attempt"],
            "error": "broken", "recoverable": false,
        });
        project.insist("work.fail", report).await?;
        match n % 20 {
            5 | 10 | 15 => {
                let role = deaths[n % 20 / 5 - 1];
                project.wait_until_restarted(role, 0).await?;
                project.kill(role)?;
            }
            19 => {
                fleet.crash().await?;
                fleet.start_again().await?;
                agent = project.agent("rust").spawn().await?;
            }
            _ => {}
        }
    }
    assert_eq!(one_letter_each(&project).await?, ITEMS);
    Ok(())
}

/// The only letter in the stream, read without a coordinator.
async fn stored_letter(project: &TestProject) -> Result<loom_protocol::dead_letter::DeadLetter> {
    let stream = names::dead_letter_stream(project.id());
    let stream = project.jetstream().get_stream(stream).await?;
    let message = stream.get_raw_message(1).await?;
    Ok(serde_json::from_slice(&message.payload)?)
}
