//! `kill -9` in the middle of hundreds of submits and completions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use loom_client::{Agent, Client, Job, JobError, JobResult, NewWork, RunningAgent};
use loom_protocol::WorkId;
use loom_protocol::work::WorkStatus;
use tokio::sync::watch;

use crate::world::{Hand, World, all_items, soon, until};

const ITEMS: usize = 500;
const AGENTS: usize = 4;
const SLOTS: usize = 4;
/// How many items the hand-driven agent completes: those that nobody else can, so that it need not be fast enough.
const BY_HAND: usize = 40;
/// Every item of so many is one of those.
const EVERY: usize = ITEMS / BY_HAND;

/// How many items may be submitted beyond those that are done.
const AHEAD: usize = 200;
/// Every item of so many is worked on until the last crash is over.
const LONG: usize = 50;
/// After how many finished items the coordinator is killed.
const CRASHES: [usize; 2] = [60, 180];

/// What the agents and the submitter tell each other.
#[derive(Clone)]
struct Burst {
    /// How many items were worked on.
    done: watch::Sender<usize>,
    crashes: watch::Sender<usize>,
    /// How many submits were answered.
    answered: watch::Sender<usize>,
}

impl Burst {
    fn new() -> Self {
        Self {
            done: watch::Sender::new(0),
            crashes: watch::Sender::new(0),
            answered: watch::Sender::new(0),
        }
    }

    async fn until_done(&self, count: usize) {
        let mut done = self.done.subscribe();
        done.wait_for(|done| *done >= count).await.unwrap();
    }

    /// An agent of the SDK that does everything it can get.
    fn agent(&self, client: &Client) -> RunningAgent {
        let burst = self.clone();
        let work = move |job: Job| {
            let burst = burst.clone();
            async move {
                if job.item().task_id.starts_with("long") {
                    let mut crashes = burst.crashes.subscribe();
                    crashes
                        .wait_for(|count| *count == CRASHES.len())
                        .await
                        .unwrap();
                }
                burst.done.send_modify(|count| *count += 1);
                Ok::<_, JobError>(JobResult::summary(format!("attempt {}", job.attempt())))
            }
        };
        let agent = Agent::builder(client).agent_type("test").capability("rust");
        agent.slots(SLOTS).start(work).unwrap()
    }

    /// Submits everything, a few at a time, each again until it is answered: the ids of the answered.
    async fn submit_all(&self, client: Client) -> BTreeSet<WorkId> {
        let submits = stream::iter(0..ITEMS).map(|number| {
            let client = client.clone();
            async move {
                self.until_done(number.saturating_sub(AHEAD)).await;
                let kind = if number % LONG == 0 { "long" } else { "short" };
                let is_by_hand = number % EVERY == 1 && number / EVERY < BY_HAND;
                let capability = if is_by_hand { "by-hand" } else { "rust" };
                let work = NewWork::new(capability, "burst").task_id(format!("{kind} {number}"));
                let answer = client.submit(&work).await.unwrap();
                assert_eq!(answer.id, work.id());
                self.answered.send_modify(|count| *count += 1);
                answer.id
            }
        });
        submits.buffer_unordered(8).collect().await
    }

    /// Completes items one by one: what was answered to have been completed, and with which words.
    async fn complete_some(&self, client: Client) -> BTreeMap<WorkId, String> {
        let agent = Hand::register_for(&client, 1, "by-hand").await;
        let mut completed = BTreeMap::new();
        while completed.len() < BY_HAND {
            for item in agent.claim(1, Duration::from_secs(5)).await {
                let summary = format!("by hand, number {}", completed.len());
                agent.complete(&item, &summary).await.unwrap();
                completed.insert(item.work_item.id, summary);
                self.done.send_modify(|count| *count += 1);
            }
        }
        completed
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_in_the_middle_of_a_burst() {
    nothing_is_lost(World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a nats-server: run `cargo xtask test`"]
async fn killed_with_its_own_server_in_the_middle_of_a_burst() {
    nothing_is_lost(World::with_its_own_server().await).await;
}

async fn nothing_is_lost(mut world: World) {
    let observer = world.client().await;
    let burst = Burst::new();
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        agents.push(burst.agent(&world.client().await));
    }
    let (submitter, hand) = (world.client().await, world.client().await);
    let crashing = async {
        for count in CRASHES {
            burst.until_done(count).await;
            assert!(*burst.answered.borrow() < ITEMS, "submits are under way");
            world.crash().await;
            burst.crashes.send_modify(|crashes| *crashes += 1);
        }
    };
    let all = async {
        tokio::join!(
            burst.submit_all(submitter),
            burst.complete_some(hand),
            crashing
        )
    };
    let (submitted, by_hand, ()) = soon("everything is submitted", all).await;
    let items = until(
        "everything is completed",
        || all_items(&observer, Some(WorkStatus::Completed)),
        |items| items.len() >= ITEMS,
    )
    .await;

    let ids: BTreeSet<WorkId> = items.iter().map(|item| item.id).collect();
    assert_eq!(ids.len(), items.len(), "no item is there twice");
    assert_eq!(ids, submitted, "exactly what was answered is there");
    assert_eq!(all_items(&observer, None).await.len(), ITEMS);
    for (id, summary) in by_hand {
        let result = observer.get(id).await.unwrap().result.unwrap();
        assert_eq!(result.summary, Some(summary), "{id}");
    }
    for item in &items {
        assert_eq!(item.attempts, 0, "no living agent lost work: {item:#?}");
    }
    let mut completed = 0;
    for agent in agents {
        agent.shut_down("the test is over", Duration::ZERO);
        let report = soon("an agent ends", agent.ended()).await.unwrap();
        assert_eq!((report.failed, report.lost), (0, 0), "{report:?}");
        completed += report.completed + report.published;
    }
    assert_eq!(
        completed,
        (ITEMS - BY_HAND) as u64,
        "each was completed once"
    );
}
