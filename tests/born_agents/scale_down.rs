//! Agents that have nothing to do are sent home, and none that has, or might have.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, ensure};
use loom_protocol::AgentGuid;
use loom_protocol::agent::{AgentStatus, DirectiveKind};
use loom_protocol::work::{ClaimedItem, WorkStatus};
use loom_testkit::agent::{Behaviour, FakeAgent};
use loom_testkit::fleet::PATIENCE;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::fixture::{Reporting, quick_fleet, register, registration};

/// How long an agent of the race may be idle.
const IDLE: Duration = Duration::from_millis(120);
/// By how much the item of a round comes later or earlier than that of the round before.
const STEP: Duration = Duration::from_micros(400);
/// How many rounds there are at least, and at most.
const ROUNDS: (u32, u32) = (60, 600);

/// When the item of a round comes: later and later until its agent is told to go, then earlier and earlier until its
/// agent gets it. So both happen however slow the machine is, and most rounds are at the edge.
struct Edge {
    delay: Duration,
    step: Duration,
    last: Option<bool>,
}

impl Edge {
    const fn new() -> Self {
        Self {
            delay: IDLE,
            step: STEP,
            last: None,
        }
    }

    const fn round(&mut self, was_served: bool) {
        let is_same = matches!(self.last, Some(last) if last == was_served);
        self.step = if is_same {
            self.step.saturating_mul(2)
        } else {
            STEP
        };
        self.last = Some(was_served);
        self.delay = if was_served {
            self.delay.saturating_add(self.step)
        } else {
            self.delay.saturating_sub(self.step)
        };
    }
}

/// An agent asks for work and beats, until it has an item or was told to go.
async fn item_or_order(agent: &FakeAgent) -> Result<Option<ClaimedItem>> {
    let (is_told, has_item) = (Cell::new(false), Cell::new(false));
    // No beat is given up: whatever it was told is seen.
    let beating = async {
        while !is_told.get() && !has_item.get() {
            let answer = agent.heartbeat(json!({})).await?;
            let mut orders = answer.directives.iter();
            is_told.set(orders.any(|order| order.kind == DirectiveKind::Shutdown));
            // deliberate sleep: between two beats
            sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    };
    let claiming = async {
        loop {
            let was_told = is_told.get();
            let claim = agent.claim(json!({"waitMs": 300, "start": true})).await?;
            let item = claim.into_iter().next();
            has_item.set(item.is_some());
            if item.is_some() || was_told {
                return anyhow::Ok(item);
            }
            // deliberate sleep: one that is about to be told may be answered at once
            sleep(Duration::from_millis(2)).await;
        }
    };
    let ((), claimed) = tokio::try_join!(beating, claiming)?;
    ensure!(
        claimed.is_some() != is_told.get(),
        "an order: {}, and an item: {claimed:?}",
        is_told.get()
    );
    Ok(claimed)
}

/// An item comes at the very moment at which an agent that asks for work is sent home. It gets the item and no order, or
/// the order and no item; then the item waits for somebody else.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn no_claim_and_no_order_to_end_cross() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let (mut served, mut sent_home, mut edge) = (0, 0, Edge::new());
    while served + sent_home < ROUNDS.0 || served == 0 || sent_home == 0 {
        // Both must have happened, or nothing was tried.
        ensure!(
            served + sent_home < ROUNDS.1,
            "served {served}, sent home {sent_home}"
        );
        let agent = project
            .agent("rust")
            .heartbeat_every(Duration::from_millis(200))
            .field("spindownAfterIdleMs", json!(IDLE.as_millis()))
            .spawn()
            .await?;
        let submitting = async {
            // deliberate sleep: until about the moment at which it has been idle for long enough
            sleep(edge.delay).await;
            anyhow::Ok(project.submit_plain("rust").await?)
        };
        // The item of this round is there when the round is over, whoever was first.
        let (claimed, submitted) =
            tokio::join!(timeout(PATIENCE, item_or_order(&agent)), submitting);
        let (claimed, id) = (claimed??, submitted?);
        edge.round(claimed.is_some());
        if let Some(item) = claimed {
            assert_eq!(item.work_item.id, id);
            for _ in 0..5 {
                let beat = agent.heartbeat(json!({})).await?;
                ensure!(
                    beat.directives.is_empty(),
                    "an order beside an item: {beat:?}"
                );
            }
            agent.complete(&item, "done").await?;
            served += 1;
            agent.deregister().await?;
            continue;
        }
        ensure!(agent.seen().await?.status == AgentStatus::Draining);
        sent_home += 1;
        // Nothing is lost: whoever comes gets it, at its first attempt.
        agent.deregister().await?;
        let next = project.agent("rust").spawn().await?;
        let look = async || next.claim_one().await.ok();
        let item = project
            .eventually("somebody else is given it", look)
            .await?;
        assert_eq!((item.work_item.id, item.lease.attempt), (id, 1));
        let done = next.complete(&item, "done").await?;
        ensure!(done.status == WorkStatus::Completed, "{done:?}");
        next.deregister().await?;
    }
    Ok(())
}

/// Killed between the steps of sending an agent home, the dispatcher and the reaper leave nobody withheld for ever.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_agent_that_was_withheld_and_not_told_to_go_gets_work() -> Result<()> {
    let fleet = quick_fleet().start().await?;
    let project = fleet.project().await?;
    let agent = project
        .agent("rust")
        .heartbeat_every(Duration::from_millis(200))
        .behaviour(Behaviour::Beat)
        .spawn()
        .await?;
    let parts = project.parts()?;
    let before = parts.dispatcher.withhold(agent.guid()).await?;
    ensure!(before.is_some(), "it has nothing to do");
    let id = project.submit_plain("rust").await?;
    ensure!(
        agent.claim(json!({})).await?.is_empty(),
        "it is offered nothing"
    );
    // Asked again there is an item that it may take.
    ensure!(parts.dispatcher.withhold(agent.guid()).await?.is_none());
    let claimed = agent.claim(json!({"waitMs": 20_000})).await?;
    ensure!(
        claimed.first().is_some_and(|item| item.work_item.id == id),
        "{claimed:?}"
    );
    ensure!(
        parts.dispatcher.withhold(agent.guid()).await?.is_none(),
        "it has an item"
    );
    // Where the dispatcher had died meanwhile, the registry sees it too.
    let soon = tokio::time::Instant::now() + Duration::from_secs(1);
    ensure!(
        !parts
            .registry
            .send_home_idle(agent.guid(), "idle", soon)
            .await?
    );
    // An order that comes too late is none.
    agent.complete(&claimed[0], "done").await?;
    let late = tokio::time::Instant::now();
    let told = parts
        .registry
        .send_home_idle(agent.guid(), "late", late)
        .await?;
    ensure!(!told && agent.seen().await?.status == AgentStatus::Online);
    Ok(())
}

/// One that does not obey: its process is ended, and its target is free.
#[tokio::test]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn an_idle_agent_that_does_not_obey_is_ended_with_its_process() -> Result<()> {
    let fleet = quick_fleet()
        .settings(|settings| settings.agents.idle_timeout = Duration::from_secs(1))
        .start()
        .await?;
    let project = fleet.project().await?;
    let here = Reporting::register(&project).await?;
    let started = here.start().await?;
    let guid = AgentGuid::generate();
    let with_ticket = registration(guid, "run-1", Some(started.variable("LOOM_TICKET")));
    register(&project, &with_ticket).await?;
    here.until_it_has(&[guid]).await?;
    let beat = async || {
        let beat = json!({"guid": guid, "instanceId": "run-1"});
        project.request("agents.heartbeat", beat).await
    };
    // Something waits that it may take: it stays, however long it is idle.
    for _ in 0..10 {
        let answer = beat().await?;
        ensure!(answer["directives"] == json!([]), "{answer}");
        // deliberate sleep: between two beats; all in all longer than it may be idle
        sleep(Duration::from_millis(200)).await;
    }
    project.request("queue.purge", json!({"all": true})).await?;
    let ordered = async || {
        let answer = beat().await.ok()?;
        let orders = answer["directives"].as_array()?;
        orders
            .iter()
            .any(|order| order["kind"] == "shutdown")
            .then_some(())
    };
    project.eventually("it is told to end", ordered).await?;
    ensure!(started.lives(), "it has a grace");
    let gone = async || {
        let _ = beat().await;
        (!started.lives()).then_some(())
    };
    project.eventually("its process is ended", gone).await?;
    here.until_it_has(&[]).await?;
    Ok(())
}
