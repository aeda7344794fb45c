use std::time::Duration;

use anyhow::Result;
use loom_client::{Agent, Client, ClientOptions, Job, JobError, JobResult};
use loom_protocol::event::WorkEventKind;
use loom_protocol::work::{
    ClaimAnswer, ClaimedItem, CompleteAnswer, LeaseRef, Reason, WorkItem, WorkStatus,
};
use loom_protocol::{AgentGuid, ErrorCode, VerbName, WireError, names};
use loom_testkit::fleet::{Fleet, FleetBuilder, TestProject, everybody};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_mins(10);

/// One clock is short, that which ends a lease for this reason; and the pause before the next attempt is
/// long: what was lost waits for a while.
fn fleet(why: Reason) -> FleetBuilder {
    Fleet::builder().settings(move |settings| {
        let clock = |of| if why == of { SHORT } else { LONG };
        settings.agents.heartbeat_every = SHORT / 10;
        settings.agents.stale_after = clock(Reason::AgentLost);
        settings.work.start_timeout = clock(Reason::NotStarted);
        settings.work.timeout = clock(Reason::Timeout);
        settings.work.retry.backoff_first = LONG;
        settings.work.retry.backoff_max = LONG;
    })
}

/// A lease that was taken back, and whose it was.
struct Lost {
    agent: AgentGuid,
    lease: LeaseRef,
}

impl Lost {
    fn report(&self, more: Value) -> Value {
        let mut body = more;
        body["guid"] = json!(self.agent);
        body["id"] = json!(self.lease.id);
        body["attempt"] = json!(self.lease.attempt);
        body
    }

    async fn complete(&self, project: &TestProject) -> Result<WorkItem, WireError> {
        let body = self.report(json!({"result": "late"}));
        project.call("work.complete", &body).await
    }

    async fn resume(&self, project: &TestProject, more: Value) -> Result<Vec<ClaimedItem>> {
        let mut body = more;
        body["guid"] = json!(self.agent);
        body["resume"] = json!([self.lease]);
        let answer: ClaimAnswer = project.call("work.claim", &body).await?;
        Ok(answer.items)
    }
}

/// An item of this capability (an agent of its own has it) that is pending again for this reason.
async fn lose(project: &TestProject, capability: &str, why: Reason) -> Result<Lost> {
    let mut signals = project.signals().await?;
    let agent = project.agent(capability).slots(2);
    let agent = agent.heartbeat_every(SHORT / 10).spawn().await?;
    project.submit_plain(capability).await?;
    let item = agent.claim_one().await?;
    let lost = Lost {
        agent: agent.guid(),
        lease: LeaseRef {
            id: item.work_item.id,
            attempt: item.lease.attempt,
        },
    };
    if why != Reason::NotStarted {
        agent.start(&item).await?;
    }
    if why == Reason::AgentLost {
        agent.die();
        signals.work(WorkEventKind::Retried, lost.lease.id).await?;
    } else {
        signals.work(WorkEventKind::Retried, lost.lease.id).await?;
        agent.die();
    }
    let pending = project.work(lost.lease.id).await?;
    assert_eq!(pending.pending_reason, Some(why));
    Ok(lost)
}

fn is_stale<T: std::fmt::Debug>(answer: Result<T, WireError>) {
    let refused = answer.expect_err("a stale report was taken");
    assert_eq!(refused.code, ErrorCode::StaleLease, "{refused}");
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn a_late_completion_that_nobody_contradicts_counts_whatever_the_loss_had_spent() -> Result<()>
{
    for (why, spent) in [
        (Reason::Timeout, 1),
        (Reason::AgentLost, 1),
        (Reason::NotStarted, 0),
    ] {
        let mut fleet = fleet(why).start().await?;
        let project = fleet.project().await?;
        let lost = lose(&project, "rust", why).await?;
        assert_eq!(project.work(lost.lease.id).await?.attempts, spent);
        if why == Reason::NotStarted {
            fleet.crash().await?;
            fleet.start_again().await?;
        }
        let completed = lost.complete(&project).await?;
        assert_eq!(completed.status, WorkStatus::Completed, "{why}");
        assert_eq!((completed.attempt, completed.attempts), (1, 0), "{why}");
        assert_eq!((completed.error, completed.pending_reason), (None, None));
        assert_eq!(completed.assigned_to, Some(lost.agent));
        assert_eq!(
            lost.complete(&project).await?.revision,
            completed.revision,
            "the same answer"
        );
        let other = project.agent("rust").spawn().await?;
        assert_eq!(other.claim(json!({})).await?, [], "it is out of the queue");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn every_other_late_report_is_stale_and_changes_nothing() -> Result<()> {
    let fleet = fleet(Reason::NotStarted).start().await?;
    let project = fleet.project().await?;
    let lost = lose(&project, "rust", Reason::NotStarted).await?;
    let other = project.agent("rust").spawn().await?;
    let pending = project.work(lost.lease.id).await?;
    for (verb, more) in [
        ("work.start", json!({})),
        ("work.progress", json!({"progress": 50})),
        ("work.fail", json!({"error": "late"})),
        ("work.release", json!({})),
    ] {
        is_stale(project.request(verb, lost.report(more)).await);
    }
    let by_another = Lost {
        agent: other.guid(),
        ..lost
    };
    is_stale(by_another.complete(&project).await);
    assert_eq!(by_another.resume(&project, json!({"max": 0})).await?, []);
    assert_eq!(project.work(lost.lease.id).await?, pending);

    let lost = Lost {
        lease: LeaseRef {
            attempt: 2,
            ..lost.lease
        },
        ..lost
    };
    is_stale(lost.complete(&project).await);
    assert_eq!(project.work(lost.lease.id).await?, pending);
    // Somebody has it now.
    let lost = Lost {
        lease: LeaseRef {
            attempt: 1,
            ..lost.lease
        },
        ..lost
    };
    let taken = other.claim_one().await?;
    assert_eq!(taken.work_item.id, lost.lease.id);
    is_stale(lost.complete(&project).await);
    assert_eq!(lost.resume(&project, json!({"max": 0})).await?, []);
    other.complete(&taken, "in time").await?;
    is_stale(lost.complete(&project).await);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn what_was_given_back_or_called_off_is_not_completed_late() -> Result<()> {
    let fleet = fleet(Reason::AgentLost).start().await?;
    let project = fleet.project().await?;
    let agent = project.agent("rust").spawn().await?;
    for verb in ["release", "fail"] {
        let id = project.submit_plain("rust").await?;
        let item = agent.claim_one().await?;
        agent
            .report(
                verb,
                &item,
                json!({"error": "mine", "retryAfterMs": 600_000}),
            )
            .await?;
        is_stale(agent.complete(&item, "late").await);
        assert_eq!(project.work(id).await?.status, WorkStatus::Pending);
        project.request("work.cancel", json!({ "id": id })).await?;
    }
    let lost = lose(&project, "python", Reason::AgentLost).await?;
    let cancel = json!({ "id": lost.lease.id });
    project.request("work.cancel", cancel).await?;
    is_stale(lost.complete(&project).await);
    assert_eq!(lost.resume(&project, json!({"max": 0})).await?, []);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn late_completions_count_in_arrays_and_when_they_are_published() -> Result<()> {
    let fleet = fleet(Reason::Timeout).start().await?;
    let project = fleet.project().await?;
    let lost = lose(&project, "rust", Reason::Timeout).await?;
    let next = project.submit_plain("rust").await?;
    let body = json!({
        "guid": lost.agent, "items": [lost.lease], "thenClaim": {"waitMs": 5_000},
    });
    let answer: CompleteAnswer = project.call("work.complete", &body).await?;
    let CompleteAnswer::Many { items, claimed } = answer else {
        panic!("not answered one by one: {answer:?}");
    };
    assert_eq!(items.len(), 1);
    let done = project.work(lost.lease.id).await?;
    assert_eq!((done.status, done.attempts), (WorkStatus::Completed, 0));
    assert_eq!(claimed.unwrap()[0].work_item.id, next);

    for (capability, attempt) in [("go", Some(1)), ("c++", None)] {
        let lost = lose(&project, capability, Reason::Timeout).await?;
        let mut report = json!({
            "workItemId": lost.lease.id, "taskId": "", "agentGuid": lost.agent, "result": "published",
        });
        if let Some(attempt) = attempt {
            report["attempt"] = json!(attempt);
        }
        project
            .publish(names::work_completed(project.id()), &report)
            .await?;
        let is_done = async || {
            let item = project.work(lost.lease.id).await.ok()?;
            (item.status == WorkStatus::Completed).then_some(item)
        };
        let item = project.eventually("it is completed", is_done).await?;
        assert_eq!((item.attempt, item.attempts), (1, 0));
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_away_has_its_item_again_before_anything_else() -> Result<()> {
    let mut fleet = fleet(Reason::Timeout).start().await?;
    let project = fleet.project().await?;
    let lost = lose(&project, "rust", Reason::Timeout).await?;
    let other = project
        .submit(json!({"description": "d", "capability": "rust", "priority": 10}))
        .await?
        .id;
    let claim = json!({"claimId": "again", "max": 2});
    let given = lost.resume(&project, claim.clone()).await?;
    let told: Vec<_> = given
        .iter()
        .map(|item| (item.work_item.id, item.lease.attempt))
        .collect();
    assert_eq!(told, [(lost.lease.id, 2), (other, 1)]);
    let again = &given[0].work_item;
    assert_eq!((again.attempts, again.errors.len()), (0, 0), "unspent");
    assert_eq!(again.not_before, None);

    // The answer was lost, and so was the coordinator.
    fleet.crash().await?;
    fleet.start_again().await?;
    let mut repeated = lost.resume(&project, claim).await?;
    repeated.sort_by_key(|item| item.lease.attempt);
    let told: Vec<_> = repeated
        .iter()
        .map(|item| (item.work_item.id, item.lease.attempt))
        .collect();
    assert_eq!(told, [(other, 1), (lost.lease.id, 2)]);
    // Its slots are taken, and what it was away from is over.
    assert_eq!(lost.resume(&project, json!({"max": 2})).await?, []);
    is_stale(lost.complete(&project).await);
    let now = Lost {
        lease: LeaseRef {
            attempt: 2,
            ..lost.lease
        },
        ..lost
    };
    assert_eq!(now.complete(&project).await?.status, WorkStatus::Completed);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn of_a_late_completion_and_a_claim_exactly_one_wins() -> Result<()> {
    let fleet = fleet(Reason::NotStarted).start().await?;
    let project = fleet.project().await?;
    let other = project.agent("rust").slots(64).spawn().await?;
    let mut completed = 0;
    for _ in 0..4 {
        let lost = lose(&project, "rust", Reason::NotStarted).await?;
        let (late, claimed) = tokio::join!(lost.complete(&project), other.claim(json!({})));
        let item = project.work(lost.lease.id).await?;
        if late.is_ok() {
            completed += 1;
            assert_eq!(claimed?, []);
            assert_eq!(item.status, WorkStatus::Completed);
        } else {
            is_stale(late);
            let claimed = claimed?.remove(0);
            assert_eq!(claimed.lease.attempt, 2);
            other.complete(&claimed, "won").await?;
        }
    }
    tracing::info!(completed, "of 4 rounds");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn clients_are_told_what_they_may_rely_on() -> Result<()> {
    let fleet = Fleet::shared().await?;
    let project = fleet.project().await?;
    let info = fleet.service()?.info(&everybody(VerbName::Info, None)?);
    let registered = json!({"handle": "a", "agentType": "t", "capabilities": ["rust"]});
    let registered = project.request("agents.register", registered).await?;
    for feature in ["late-completion", "resume"] {
        assert!(info.features.iter().any(|told| told == feature));
        assert!(
            registered["features"]
                .as_array()
                .unwrap()
                .contains(&json!(feature))
        );
    }
    Ok(())
}

/// The answer to the heartbeat after says that the lease is lost, as it does after any silence.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_of_the_sdk_goes_on_with_what_was_lost_while_it_was_away() -> Result<()> {
    let fleet = fleet(Reason::NotStarted).start().await?;
    let project = fleet.project().await?;
    let id = project.submit_plain("rust").await?;
    let options = ClientOptions::new(fleet.nats().url(), project.id().clone());
    let client = Client::connect(options).await?;
    let (go, going) = tokio::sync::watch::channel(false);
    let handler = move |job: Job| {
        let mut going = going.clone();
        async move {
            tokio::select! {
                _ = going.wait_for(|go| *go) => Ok(JobResult::summary("done")),
                () = job.cancelled().cancelled() => Err(JobError::recoverable("it was stopped")),
            }
        }
    };
    let agent = Agent::builder(&client).capability("rust").start(handler)?;
    let holds = async |attempt| {
        let held = async || {
            agent
                .holding()
                .iter()
                .any(|lease| lease.attempt == attempt)
                .then_some(())
        };
        project.eventually("the agent holds the item", held).await
    };
    holds(1).await?;
    let parts = project.parts()?;
    let taken = parts.revoke_leases(agent.guid(), Reason::AgentLost, |_| true);
    assert_eq!(taken.await?.len(), 1);
    holds(2).await?;
    go.send_replace(true);
    let completed = async || {
        let item = project.work(id).await.ok()?;
        (item.status == WorkStatus::Completed).then_some(item)
    };
    let item = project.eventually("it is completed", completed).await?;
    assert_eq!(
        (item.attempt, item.attempts),
        (2, 0),
        "the loss has cost nothing"
    );
    Ok(())
}
